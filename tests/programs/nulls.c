/* Every function with NULL, with negative lengths, with nonsense: it does nothing, says so, and
 * the server goes on. */
#include <limits.h>
#include <stdarg.h>
#include <unistd.h>

#include "check.h"
#include "mongoose.h"

int mg_vprintf(struct mg_connection *, const char *, va_list, int);
int mg_url_decode(const char *, int, char *, int, int);

static struct mg_server *server;

static int vprintf_to(struct mg_connection *conn, int chunked, const char *format, ...) {
  va_list arguments;
  int result;
  va_start(arguments, format);
  result = mg_vprintf(conn, format, arguments, chunked);
  va_end(arguments);
  return result;
}

static void ignore(struct mg_connection *conn, void *param) {
  (void) conn;
  (void) param;
}

static void functions_without_a_server(void) {
  struct mg_server *none = NULL;
  mg_destroy_server(NULL);
  mg_destroy_server(&none);
  CHECK(none == NULL);
  CHECK(mg_set_option(NULL, "listening_port", "0") != NULL);
  CHECK(mg_set_option(NULL, NULL, NULL) != NULL);
  CHECK(mg_get_option(NULL, "listening_port") == NULL);
  mg_poll_server(NULL, 0);
  mg_poll_server(NULL, -1);
  mg_add_uri_handler(NULL, "/", NULL);
  mg_set_http_error_handler(NULL, NULL);
  mg_set_listening_socket(NULL, 0);
  mg_set_listening_socket(NULL, -1);
  CHECK_INT(mg_get_listening_socket(NULL), -1);
  CHECK(mg_iterate_over_connections(NULL, ignore, NULL) <= 0);
  CHECK(mg_iterate_over_connections(NULL, NULL, NULL) <= 0);
}

static void functions_of_a_server(void) {
  CHECK(mg_set_option(server, NULL, "0") != NULL);
  CHECK(mg_set_option(server, NULL, NULL) != NULL);
  CHECK_STR(mg_set_option(server, "", "x"), "No such option");
  CHECK(mg_set_option(server, "document_root", NULL) == NULL);
  CHECK(mg_get_option(server, NULL) == NULL);
  CHECK(mg_get_option(server, "no_such_option") == NULL);
  mg_poll_server(server, -1);
  mg_poll_server(server, INT_MIN);
  mg_add_uri_handler(server, NULL, NULL);
  mg_add_uri_handler(server, "/null", NULL);
  mg_set_http_error_handler(server, NULL);
  CHECK_INT(mg_iterate_over_connections(server, NULL, NULL), 0);
}

/* Descriptors that are none. */
static void listening_sockets(void) {
  CHECK_INT(mg_get_listening_socket(server), -1);
  mg_set_listening_socket(server, -1);
  mg_set_listening_socket(server, INT_MIN);
  mg_poll_server(server, 0);
  mg_set_listening_socket(server, 9999);
  mg_poll_server(server, 0);
  mg_set_listening_socket(server, -1);
  CHECK_INT(mg_get_listening_socket(server), -1);
}

static void functions_of_a_connection(struct mg_connection *conn) {
  char buf[8];
  mg_send_status(NULL, 200);
  mg_send_header(NULL, "A", "b");
  mg_send_data(NULL, "x", 1);
  mg_printf_data(NULL, "x");
  CHECK_INT(mg_write(NULL, "x", 1), 0);
  CHECK_INT(mg_write(NULL, NULL, 0), 0);
  CHECK(mg_printf(NULL, "x") <= 0);
  CHECK(mg_printf(NULL, NULL) <= 0);
  CHECK(vprintf_to(NULL, 0, "x") <= 0);
  CHECK(vprintf_to(NULL, 1, "x") <= 0);
  CHECK_INT(mg_websocket_write(NULL, 1, "x", 1), -1);
  CHECK(mg_get_header(NULL, "a") == NULL);
  CHECK(mg_get_header(NULL, NULL) == NULL);
  strcpy(buf, "xxxxxxx");
  CHECK(mg_get_var(NULL, "a", buf, sizeof(buf)) < 0);
  CHECK_STR(buf, "");
  CHECK(mg_get_var(NULL, NULL, NULL, 0) < 0);
  if (conn == NULL) return;

  CHECK_INT(mg_write(conn, NULL, 5), 0);
  CHECK_INT(mg_write(conn, NULL, 0), 0);
  CHECK_INT(mg_write(conn, NULL, -1), 0);
  CHECK_INT(mg_write(conn, "x", -1), 0);
  CHECK_INT(mg_write(conn, "x", INT_MIN), 0);
  CHECK(mg_printf(conn, NULL) <= 0);
  CHECK(vprintf_to(conn, 0, NULL) <= 0);
  CHECK(vprintf_to(conn, 1, NULL) <= 0);
  mg_printf_data(conn, NULL);
  mg_send_data(conn, "x", -1);
  mg_send_data(conn, NULL, 5);
  mg_send_data(conn, NULL, -5);
  CHECK_INT(mg_websocket_write(conn, 1, "x", 1), -1);
  CHECK_INT(mg_websocket_write(conn, -1, NULL, 5), -1);
  CHECK(mg_get_header(conn, NULL) == NULL);
  CHECK(mg_get_var(conn, NULL, buf, sizeof(buf)) < 0);
  CHECK_INT(mg_get_var(conn, "a", NULL, 8), -2);
  CHECK_INT(mg_get_var(conn, "a", buf, 0), -2);
  mg_send_header(conn, NULL, "x");
  mg_send_header(conn, "A", NULL);
  mg_send_header(conn, NULL, NULL);
}

static void helpers(void) {
  char buf[33];
  const char *data, *type;
  int data_len;
  CHECK_INT(mg_parse_header(NULL, "a", buf, sizeof(buf)), 0);
  CHECK_STR(buf, "");
  CHECK_INT(mg_parse_header("a=1", NULL, buf, sizeof(buf)), 0);
  CHECK_INT(mg_parse_header("a=1", "a", NULL, sizeof(buf)), 0);
  CHECK_INT(mg_parse_header("a=1", "a", buf, 0), 0);
  CHECK_INT(mg_parse_header(NULL, NULL, NULL, 0), 0);
  type = mg_get_mime_type(NULL);
  CHECK(type == NULL || strcmp(type, "text/plain") == 0);
  CHECK_INT(mg_url_decode(NULL, 0, buf, sizeof(buf), 0), 0);
  CHECK_STR(buf, "");
  CHECK(mg_url_decode(NULL, 5, buf, sizeof(buf), 0) <= 0);
  CHECK(mg_url_decode("abc", -3, buf, sizeof(buf), 0) <= 0);
  CHECK(mg_url_decode("abc", 3, NULL, 8, 0) <= 0);
  CHECK(mg_url_decode("abc", 3, buf, 0, 0) <= 0);
  CHECK(mg_url_decode("abc", 3, buf, -1, 0) <= 0);
  CHECK_INT(mg_modify_passwords_file(NULL, "a", "b", "c"), 0);
  CHECK_INT(mg_modify_passwords_file("/dev/null/x", NULL, "b", "c"), 0);
  CHECK_INT(mg_modify_passwords_file("/dev/null/x", "a", NULL, "c"), 0);
  CHECK_INT(mg_modify_passwords_file("/dev/null/x", "a", "b", NULL), 0);
  CHECK_INT(mg_modify_passwords_file("", "a", "b", "c"), 0);
  CHECK(mg_start_thread(NULL, NULL) == NULL);
  CHECK(mg_md5(NULL, "a", NULL) == NULL);
  CHECK_INT(mg_parse_multipart(NULL, 0, buf, 4, buf, 4, &data, &data_len), 0);
  CHECK_INT(mg_parse_multipart(NULL, 9, buf, 4, buf, 4, &data, &data_len), 0);
  CHECK_INT(mg_parse_multipart("--a\r\n", -1, buf, 4, buf, 4, &data, &data_len), 0);
  {
    static const char body[] =
        "--a\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\nv\r\n--a--\r\n";
    CHECK(mg_parse_multipart(body, sizeof(body) - 1, NULL, 0, NULL, 0, NULL, NULL) >= 0);
    CHECK(mg_parse_multipart(body, sizeof(body) - 1, buf, -1, buf, -1, &data, &data_len) >= 0);
    CHECK(mg_parse_multipart(body, sizeof(body) - 1, NULL, 9, NULL, 9, &data, &data_len) >= 0);
  }
}

/* Nothing of this may reach the client: its answer is the one that follows. */
static int abuse(struct mg_connection *conn) {
  functions_without_a_server();
  functions_of_a_server();
  functions_of_a_connection(conn);
  helpers();
  mg_printf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine");
  return 1;
}

/* Numbers that are no status. */
static int status(struct mg_connection *conn) {
  mg_send_status(conn, atoi(conn->query_string));
  mg_send_data(conn, "x", 1);
  return 1;
}

int main(void) {
  functions_without_a_server();
  functions_of_a_connection(NULL);
  helpers();

  server = mg_create_server(NULL);
  functions_of_a_server();
  listening_sockets();
  CHECK(mg_set_option(server, "listening_port", "127.0.0.1:0") == NULL);
  mg_add_uri_handler(server, "/abuse", abuse);
  mg_add_uri_handler(server, "/status", status);
  mg_add_uri_handler(server, "/null", NULL);
  SAY("PORT %s", port_of(mg_get_option(server, "listening_port")));
  while (!told_to_stop()) mg_poll_server(server, 20);
  mg_destroy_server(&server);
  mg_destroy_server(&server);
  return VERDICT;
}
