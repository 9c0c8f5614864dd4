/* A folder on the web, with a page of one's own for errors. The second argument is the folder.
 *
 *   cc static_files.c -o static_files -lmongoose && ./static_files 8080 /var/www
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

/* Called for errors of the library's own. 0 would ask it for its standard page. */
static int show_error(struct mg_connection *conn) {
  if (conn->status_code != 404) return 0;
  mg_send_header(conn, "Content-Type", "text/html; charset=utf-8");
  mg_printf_data(conn, "<!doctype html><title>Not here</title>\n<h1>Not here</h1>\n");
  return 1;
}

static int set(struct mg_server *server, const char *name, const char *value) {
  const char *problem = mg_set_option(server, name, value);
  if (problem != NULL) fprintf(stderr, "%s=%s: %s\n", name, value, problem);
  return problem == NULL;
}

int main(int argc, char *argv[]) {
  struct mg_server *server = mg_create_server(NULL);
  int ready = set(server, "document_root", argc > 2 ? argv[2] : ".") &
              set(server, "hide_files_patterns", "**.bak$|**~$") &
              set(server, "extra_mime_types", ".md=text/markdown") &
              set(server, "listening_port", argc > 1 ? argv[1] : "8080");

  mg_set_http_error_handler(server, show_error);
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  if (ready) {
    printf("Listening on http://127.0.0.1:%s/\n", mg_get_option(server, "listening_port"));
    fflush(stdout);
    while (!stop) mg_poll_server(server, 1000);
  }
  mg_destroy_server(&server);
  return ready ? EXIT_SUCCESS : EXIT_FAILURE;
}
