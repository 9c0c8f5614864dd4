/* Three threads that push a line to every connection by iterating, while these come and go. */
#include <pthread.h>

#include "check.h"
#include "mongoose.h"

static struct mg_server *server;
static volatile int stop, finished;

static int listen_to(struct mg_connection *conn) {
  mg_printf(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
  return 1;
}

struct round {
  int thread, number, calls;
};

static void push(struct mg_connection *conn, void *param) {
  struct round *round = (struct round *) param;
  round->calls++;
  CHECK(conn->content != NULL && conn->content_len == 0);
  mg_printf(conn, "%d %d\n", round->thread, round->number);
}

static void *iterate(void *param) {
  struct round round = {0, 0, 0};
  int reached;
  round.thread = *(int *) param;
  while (!stop) {
    round.calls = 0;
    reached = mg_iterate_over_connections(server, push, &round);
    CHECK_INT(reached, round.calls);
    round.number++;
  }
  __sync_fetch_and_add(&finished, 1);
  return NULL;
}

int main(void) {
  static int numbers[] = {0, 1, 2};
  pthread_t threads[3];
  int i;
  server = mg_create_server(NULL);
  mg_set_option(server, "iterate_over", "all");
  mg_set_option(server, "listening_port", "127.0.0.1:0");
  mg_add_uri_handler(server, "/listen", listen_to);
  SAY("PORT %s", port_of(mg_get_option(server, "listening_port")));
  mg_poll_server(server, 0);
  for (i = 0; i < 3; i++) pthread_create(&threads[i], NULL, iterate, &numbers[i]);
  while (!told_to_stop()) mg_poll_server(server, 20);
  stop = 1;
  while (finished < 3) mg_poll_server(server, 20);
  for (i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  mg_destroy_server(&server);
  return VERDICT;
}
