/* A handler that calls every function of the library while it runs. */
#include <pthread.h>

#include "check.h"
#include "mongoose.h"

static struct mg_server *server;

static int fine(struct mg_connection *conn) {
  mg_printf_data(conn, "fine");
  return 1;
}

static void count(struct mg_connection *conn, void *param) {
  CHECK(conn->content != NULL);
  (*(int *) param)++;
}

static void *nothing(void *param) { return param; }

/* What another thread does while a handler waits for it. */
static void *elsewhere(void *param) {
  int number = 0;
  mg_poll_server(server, 1000000000); /* returns at once: somebody polls already */
  CHECK(mg_write((struct mg_connection *) param, NULL, 0) == 0);
  /* The polling thread does not come: it waits for this one. */
  CHECK_INT(mg_iterate_over_connections(server, count, &number), -1);
  CHECK_INT(number, 0);
  return NULL;
}

static int everything(struct mg_connection *conn) {
  char value[16], hash[33], names[4], files[4];
  const char *data, **options;
  int data_len, number = 0, depth = (int) (long) conn->server_param;
  struct mg_server *inner;
  pthread_t thread;

  CHECK_INT(depth, 7);
  /* Polling in a handler returns at once, however long it is asked to wait. */
  CHECK(mg_poll_server(server, 1000000000) > 1000000000u);
  CHECK(mg_set_option(server, "idle_timeout_ms", "20000") == NULL);
  CHECK(mg_set_option(server, "idle_timeout_ms", "many") != NULL);
  CHECK_STR(mg_get_option(server, "idle_timeout_ms"), "20000");
  for (options = mg_get_valid_option_names(); options[0] != NULL; options += 2) {
    CHECK(mg_get_option(server, options[0]) != NULL);
  }
  mg_add_uri_handler(server, "/everything", fine); /* from the next request on */
  mg_set_http_error_handler(server, fine);
  CHECK(mg_get_listening_socket(server) >= 0);
  CHECK(mg_iterate_over_connections(server, count, &number) >= 1);
  CHECK(number >= 1);
  CHECK(mg_start_thread(nothing, NULL) != NULL);
  CHECK_STR(mg_get_header(conn, "host"), "a");
  CHECK_INT(mg_get_var(conn, "v", value, sizeof(value)), 1);
  CHECK_INT(mg_parse_header("a=1", "a", value, sizeof(value)), 1);
  CHECK_STR(mg_get_mime_type("a.css"), "text/css");
  mg_md5(hash, "a", NULL);
  mg_parse_multipart("x", 1, names, 4, files, 4, &data, &data_len);
  CHECK_INT(mg_websocket_write(conn, 1, "x", 1), -1);

  CHECK(mg_set_option(server, "iterate_timeout_ms", "50") == NULL);
  CHECK(pthread_create(&thread, NULL, elsewhere, conn) == 0);
  pthread_join(thread, NULL);

  /* Another server, from birth to death, within the handler of the first. */
  inner = mg_create_server(NULL);
  CHECK(mg_set_option(inner, "listening_port", "127.0.0.1:0") == NULL);
  mg_add_uri_handler(inner, "/", fine);
  mg_poll_server(inner, 0);
  mg_destroy_server(&inner);
  CHECK(inner == NULL);

  /* The port moves; this connection and its answer stay. */
  CHECK(mg_set_option(server, "listening_port", "127.0.0.1:0") == NULL);
  SAY("MOVED %s", port_of(mg_get_option(server, "listening_port")));
  mg_send_status(conn, 200);
  mg_send_header(conn, "A", "b");
  mg_send_data(conn, "every", 5);
  mg_poll_server(server, 0);
  mg_printf_data(conn, "%s", "thing");
  return 1;
}

int main(void) {
  server = mg_create_server((void *) 7);
  CHECK(mg_set_option(server, "listening_port", "127.0.0.1:0") == NULL);
  CHECK(mg_set_option(server, "iterate_over", "all") == NULL);
  mg_add_uri_handler(server, "/everything", everything);
  mg_add_uri_handler(server, "/fine", fine);
  SAY("PORT %s", port_of(mg_get_option(server, "listening_port")));
  while (!told_to_stop()) mg_poll_server(server, 20);
  mg_destroy_server(&server);
  return VERDICT;
}
