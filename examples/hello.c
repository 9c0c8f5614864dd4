/* The smallest server worth having: one handler that answers every request.
 *
 *   cc hello.c -o hello -lmongoose && ./hello 8080
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "mongoose.h"

static volatile sig_atomic_t stop;

static void on_signal(int number) {
  (void) number;
  stop = 1;
}

/* Called for each request whose path begins with the prefix it was added for. */
static int hello(struct mg_connection *conn) {
  mg_send_header(conn, "Content-Type", "text/plain; charset=utf-8");
  mg_printf_data(conn, "Hello, %s! You asked for %s\n", conn->remote_ip, conn->uri);
  return 1;
}

int main(int argc, char *argv[]) {
  struct mg_server *server = mg_create_server(NULL);
  const char *problem = mg_set_option(server, "listening_port", argc > 1 ? argv[1] : "8080");

  if (problem != NULL) {
    fprintf(stderr, "%s\n", problem);
    mg_destroy_server(&server);
    return EXIT_FAILURE;
  }
  mg_add_uri_handler(server, "/", hello);

  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  printf("Listening on http://127.0.0.1:%s/\n", mg_get_option(server, "listening_port"));
  fflush(stdout);

  /* Nothing happens outside this call: handlers run in it, on this thread. */
  while (!stop) mg_poll_server(server, 1000);

  mg_destroy_server(&server);
  return EXIT_SUCCESS;
}
