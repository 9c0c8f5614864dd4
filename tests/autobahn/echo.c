/* A naive echo server: what the websocket examples of old programs do.
 *
 *   echo PORT [OPTION VALUE]...
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "mongoose.h"

static volatile sig_atomic_t stop;

static void on_signal(int number) {
  (void) number;
  stop = 1;
}

static int echo(struct mg_connection *conn) {
  if (conn->is_websocket) {
    mg_websocket_write(conn, conn->wsbits & 0x0f, conn->content, conn->content_len);
    return (conn->wsbits & 0x0f) == 0x8;
  }
  mg_printf_data(conn, "This is for websockets.\n");
  return 1;
}

int main(int argc, char *argv[]) {
  struct mg_server *server = mg_create_server(NULL);
  const char *failure = mg_set_option(server, "listening_port", argc > 1 ? argv[1] : "8080");
  int i;
  for (i = 2; failure == NULL && i + 1 < argc; i += 2) {
    failure = mg_set_option(server, argv[i], argv[i + 1]);
  }
  if (failure != NULL) {
    fprintf(stderr, "%s\n", failure);
    return 1;
  }
  mg_add_uri_handler(server, "/", echo);
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  printf("%s\n", mg_get_option(server, "listening_port"));
  fflush(stdout);
  while (!stop) mg_poll_server(server, 1000);
  mg_destroy_server(&server);
  return 0;
}
