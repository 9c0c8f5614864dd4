/* mg_iterate_over_connections from the polling thread, from another one, and when nobody polls. */
#include <pthread.h>

#include "check.h"
#include "mongoose.h"

static struct mg_server *server;
static volatile int calls;

static void count(struct mg_connection *conn, void *param) {
  CHECK(conn != NULL);
  CHECK(param == (void *) &calls);
  calls++;
}

static void *iterate(void *result) {
  *(int *) result = mg_iterate_over_connections(server, count, (void *) &calls);
  return NULL;
}

static int iterate_elsewhere(void) {
  pthread_t thread;
  int result = -2;
  pthread_create(&thread, NULL, iterate, &result);
  pthread_join(thread, NULL);
  return result;
}

int main(void) {
  server = mg_create_server(NULL);
  CHECK(mg_set_option(server, "iterate_timeout_ms", "100") == NULL);
  CHECK(mg_set_option(server, "iterate_over", "all") == NULL);
  /* While nobody has polled yet, it runs in place, on any thread. */
  CHECK_INT(mg_iterate_over_connections(server, count, (void *) &calls), 0);
  mg_poll_server(server, 0);
  /* On the polling thread, between two polls, in place too. */
  CHECK_INT(mg_iterate_over_connections(server, count, (void *) &calls), 0);
  /* Elsewhere it waits for the polling thread, which does not come. */
  CHECK_INT(iterate_elsewhere(), -1);
  mg_poll_server(server, 0);
  CHECK_INT(calls, 0);
  mg_destroy_server(&server);

  server = mg_create_server(NULL);
  CHECK_INT(iterate_elsewhere(), 0);
  mg_destroy_server(&server);
  return VERDICT;
}
