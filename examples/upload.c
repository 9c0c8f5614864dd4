/* An upload: the parts of a multipart/form-data body, one by one. Nothing is stored; a program
 * that stores them should choose the file names itself and never use the ones it was sent.
 *
 *   cc upload.c -o upload -lmongoose && ./upload 8080
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

static int show_form(struct mg_connection *conn) {
  mg_send_header(conn, "Content-Type", "text/html; charset=utf-8");
  mg_printf_data(conn, "%s",
                 "<!doctype html><title>Upload</title>\n"
                 "<form method=\"post\" action=\"/upload\" enctype=\"multipart/form-data\">\n"
                 "<input type=\"file\" name=\"file\" multiple> <button>Send</button></form>\n");
  return 1;
}

/* The whole body is in conn->content when the handler is called. */
static int receive(struct mg_connection *conn) {
  const char *data;
  char name[100], file[100];
  int data_len, offset = 0, step, parts = 0;

  mg_send_header(conn, "Content-Type", "text/plain; charset=utf-8");
  while ((step = mg_parse_multipart(conn->content + offset, conn->content_len - offset, name,
                                    sizeof(name), file, sizeof(file), &data, &data_len)) > 0) {
    /* data points into conn->content; it is not terminated, and gone when the handler returns. */
    if (file[0] != '\0') {
      mg_printf_data(conn, "%s: file %s of %d bytes\n", name, file, data_len);
    } else {
      mg_printf_data(conn, "%s: %.*s\n", name, data_len, data);
    }
    offset += step;
    parts++;
  }
  mg_printf_data(conn, "%d parts\n", parts);
  return 1;
}

static int set(struct mg_server *server, const char *name, const char *value) {
  const char *problem = mg_set_option(server, name, value);
  if (problem != NULL) fprintf(stderr, "%s=%s: %s\n", name, value, problem);
  return problem == NULL;
}

int main(int argc, char *argv[]) {
  struct mg_server *server = mg_create_server(NULL);
  int ready = set(server, "max_request_body_bytes", "10485760") && /* larger ones get 413 */
              set(server, "listening_port", argc > 1 ? argv[1] : "8080");

  mg_add_uri_handler(server, "/", show_form);
  mg_add_uri_handler(server, "/upload", receive);

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
