/* Two servers on one listening socket, each polled by a thread of its own. A line "drop 1" on
 * standard input destroys that server. */
#include <pthread.h>
#include <sys/socket.h>

#include "check.h"
#include "mongoose.h"

static struct mg_server *servers[2];
static volatile int stop[2];

static int answer(struct mg_connection *conn) {
  mg_printf_data(conn, "%s", (const char *) conn->server_param);
  return 1;
}

static void *serve(void *param) {
  int which = *(int *) param;
  while (!stop[which]) mg_poll_server(servers[which], 20);
  mg_destroy_server(&servers[which]);
  CHECK(servers[which] == NULL);
  SAY("dropped %d", which + 1);
  return NULL;
}

int main(void) {
  static int numbers[] = {0, 1};
  char line[64];
  pthread_t threads[2];
  int socket, i, type = 0;
  socklen_t len = sizeof(type);
  servers[0] = mg_create_server((void *) "one");
  servers[1] = mg_create_server((void *) "two");
  CHECK(mg_set_option(servers[0], "listening_port", "127.0.0.1:0") == NULL);
  socket = mg_get_listening_socket(servers[0]);
  mg_set_listening_socket(servers[1], socket);
  for (i = 0; i < 2; i++) mg_add_uri_handler(servers[i], "/", answer);
  SAY("PORT %s", port_of(mg_get_option(servers[0], "listening_port")));
  for (i = 0; i < 2; i++) pthread_create(&threads[i], NULL, serve, &numbers[i]);
  while (fgets(line, sizeof(line), stdin) != NULL) {
    if (strncmp(line, "drop ", 5) == 0) stop[line[5] - '1'] = 1;
  }
  stop[0] = stop[1] = 1;
  for (i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  /* The last one has closed the socket. */
  CHECK(getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &len) == -1);
  return VERDICT;
}
