/* The library in the comparison. Picks a port of 127.0.0.1 and prints "PORT n".

     mongoose [-r ROOT] [-n HANDLERS] [-s CERTIFICATE]

   /hello   a short answer                  /echo   a websocket that echoes
   /post    the same, after the body        /push   one that sends 100 bytes to all, for each "B"
   /quit    ends the program

   ROOT is served where no handler is. HANDLERS more are added behind these, for other paths. With a
   certificate, the port speaks TLS. */

#include <mongoose.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PUSHED = 100 };
static const char pushed[PUSHED] = {'x'};
static struct mg_server *server;
static int ended;

static int hello(struct mg_connection *conn) {
  static const char answer[] =
      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nHello";
  mg_write(conn, answer, (int) sizeof answer - 1);
  return 1;
}

static int quit(struct mg_connection *conn) {
  ended = 1;
  return hello(conn);
}

static int echo(struct mg_connection *conn) {
  if (!conn->is_websocket) return hello(conn);
  mg_websocket_write(conn, conn->wsbits & 15, conn->content, (size_t) conn->content_len);
  return 0;
}

static void push_to(struct mg_connection *conn, void *unused) {
  (void) unused;
  mg_websocket_write(conn, 2, pushed, sizeof pushed);
}

static int push(struct mg_connection *conn) {
  if (!conn->is_websocket) return hello(conn);
  if (conn->content_len == 1 && conn->content[0] == 'B') {
    mg_iterate_over_connections(server, push_to, NULL);
  }
  return 0;
}

int main(int argc, char **argv) {
  struct rlimit files;
  const char *error = NULL, *root = NULL, *certificate = NULL;
  char uri[32];
  int option, i, handlers = 0;

  while ((option = getopt(argc, argv, "r:n:s:")) > 0) {
    if (option == 'r') root = optarg;
    else if (option == 'n') handlers = atoi(optarg);
    else if (option == 's') certificate = optarg;
    else return 2;
  }
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  server = mg_create_server(NULL);
  mg_set_option(server, "idle_timeout_ms", "0");
  mg_set_option(server, "websocket_ping_interval_ms", "0");
  if (root != NULL) error = mg_set_option(server, "document_root", root);
  if (error == NULL && certificate != NULL) {
    error = mg_set_option(server, "ssl_certificate", certificate);
  }
  if (error == NULL) error = mg_set_option(server, "listening_port", "127.0.0.1:0");
  if (error != NULL) {
    fprintf(stderr, "%s\n", error);
    return 1;
  }
  mg_add_uri_handler(server, "/hello", hello);
  mg_add_uri_handler(server, "/post", hello);
  mg_add_uri_handler(server, "/echo", echo);
  mg_add_uri_handler(server, "/push", push);
  mg_add_uri_handler(server, "/quit", quit);
  for (i = 0; i < handlers; i++) {
    snprintf(uri, sizeof uri, "/handler/%d", i);
    mg_add_uri_handler(server, uri, hello);
  }
  printf("PORT %s\n", strrchr(mg_get_option(server, "listening_port"), ':') + 1);
  fflush(stdout);
  while (!ended) mg_poll_server(server, 1000);
  mg_poll_server(server, 0);
  mg_destroy_server(&server);
  return 0;
}
