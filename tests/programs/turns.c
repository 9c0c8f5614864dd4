/* A server that is polled by two threads in turns: the library must follow whoever polls. */
#include <pthread.h>

#include "check.h"
#include "mongoose.h"

static struct mg_server *server;
static struct mg_connection *stream;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turn, stop;

static int who(struct mg_connection *conn) {
  mg_printf_data(conn, "%d", turn);
  return 1;
}

static int listen_to(struct mg_connection *conn) {
  mg_printf(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
  stream = conn;
  return 1;
}

static void ignore(struct mg_connection *conn, void *param) {
  CHECK(conn != NULL && param == NULL);
}

static void *take_turns(void *param) {
  int me = *(int *) param, rounds = 0;
  pthread_mutex_lock(&lock);
  while (!stop) {
    while (turn != me && !stop) pthread_cond_wait(&changed, &lock);
    if (stop) break;
    mg_poll_server(server, 5);
    /* Whoever polled last is the polling thread also between two polls. */
    CHECK(mg_iterate_over_connections(server, ignore, NULL) >= 0);
    if (stream != NULL && rounds++ % 4 == 0) mg_printf(stream, "%d\n", me);
    turn = 1 - turn;
    pthread_cond_signal(&changed);
  }
  pthread_mutex_unlock(&lock);
  return NULL;
}

int main(void) {
  static int numbers[] = {0, 1};
  pthread_t threads[2];
  char byte;
  int i;
  server = mg_create_server(NULL);
  mg_set_option(server, "iterate_over", "all");
  mg_set_option(server, "listening_port", "127.0.0.1:0");
  mg_add_uri_handler(server, "/who", who);
  mg_add_uri_handler(server, "/listen", listen_to);
  mg_poll_server(server, 0);
  SAY("PORT %s", port_of(mg_get_option(server, "listening_port")));
  for (i = 0; i < 2; i++) pthread_create(&threads[i], NULL, take_turns, &numbers[i]);
  while (read(0, &byte, 1) > 0) {}
  pthread_mutex_lock(&lock);
  stop = 1;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  for (i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  mg_destroy_server(&server);
  return VERDICT;
}
