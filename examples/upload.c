/* An upload: the parts of a multipart/form-data body, one by one. Nothing is stored; a program
 * that stores them should choose the file names itself and never use the ones it was sent.
 *
 *   cc upload.c -o upload -lmongoose && ./upload 8080
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mongoose.h"

static volatile sig_atomic_t stop;

static void on_signal(int number) {
  (void) number;
  stop = 1;
}

/* The look of all pages here, on phones and in the dark, too. */
static const char HEAD[] =
    "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<title>Upload</title>\n"
    "<style>\n"
    "  :root { color-scheme: light dark; --accent: light-dark(#1f5fbf, #7fb2ff);\n"
    "          --soft: light-dark(#eef1f5, #22262c); --quiet: light-dark(#5b6470, #9aa4b1); }\n"
    "  * { box-sizing: border-box; }\n"
    "  body { margin: 0 auto; max-width: 32rem; padding: 1.2rem; font: 16px/1.45 system-ui, sans-serif;\n"
    "         background: light-dark(#fff, #14171b); color: light-dark(#1a1d21, #e6e9ed);\n"
    "         overflow-wrap: anywhere; }\n"
    "  h1 { font-size: 1.3rem; }\n"
    "  main { background: var(--soft); border-radius: .8rem; padding: 1rem 1.2rem; }\n"
    "  label { display: block; margin: .8rem 0 .2rem; color: var(--quiet); font-size: .9rem; }\n"
    "  input { width: 100%; font: inherit; padding: .5rem .7rem; border: 1px solid var(--quiet);\n"
    "          border-radius: .5rem; background: light-dark(#fff, #14171b); color: inherit; }\n"
    "  button { margin-top: 1rem; font: inherit; padding: .5rem 1.2rem; border: 0; border-radius: .5rem;\n"
    "           background: var(--accent); color: light-dark(#fff, #10141a); }\n"
    "  a { color: var(--accent); }\n"
    "  ul { list-style: none; margin: 0; padding: 0; }\n"
    "  li { padding: .45rem 0; border-bottom: 1px solid light-dark(#d8dde4, #343a42); }\n"
    "  li:last-child { border: 0; }\n"
    "  small { color: var(--quiet); }\n"
    "</style>\n";

static void begin_page(struct mg_connection *conn) {
  mg_send_header(conn, "Content-Type", "text/html; charset=utf-8");
  mg_send_data(conn, HEAD, (int) sizeof(HEAD) - 1);
}

static int show_form(struct mg_connection *conn) {
  begin_page(conn);
  mg_printf_data(conn, "%s",
                 "<h1>Upload</h1>\n<main>\n"
                 "<form method=\"post\" action=\"/upload\" enctype=\"multipart/form-data\">\n"
                 "<label for=\"file\">Files, 10 MB in all. Nothing is kept of them.</label>\n"
                 "<input id=\"file\" type=\"file\" name=\"file\" multiple required>\n"
                 "<label for=\"note\">Note</label>\n<input id=\"note\" name=\"note\">\n"
                 "<button>Send</button>\n</form>\n</main>\n");
  return 1;
}

/* What a client sends must not become part of the page's markup. */
static void send_escaped(struct mg_connection *conn, const char *text, int len) {
  int start = 0, i;
  for (i = 0; i < len; i++) {
    if (text[i] != '<' && text[i] != '&') continue;
    if (i > start) mg_send_data(conn, text + start, i - start);
    mg_printf_data(conn, "&#%d;", text[i]);
    start = i + 1;
  }
  if (len > start) mg_send_data(conn, text + start, len - start);
}

/* The whole body is in conn->content when the handler is called. */
static int receive(struct mg_connection *conn) {
  const char *data;
  char name[100], file[100];
  int data_len, offset = 0, step, parts = 0;

  begin_page(conn);
  mg_printf_data(conn, "<h1>What has arrived</h1>\n<main>\n<ul>\n");
  while ((step = mg_parse_multipart(conn->content + offset, conn->content_len - offset, name,
                                    sizeof(name), file, sizeof(file), &data, &data_len)) > 0) {
    /* data points into conn->content; it is not terminated, and gone when the handler returns. */
    mg_printf_data(conn, "<li>");
    if (file[0] != '\0') {
      send_escaped(conn, file, (int) strlen(file));
      mg_printf_data(conn, " <small>%d bytes</small>\n", data_len);
    } else {
      send_escaped(conn, name, (int) strlen(name));
      mg_printf_data(conn, ": ");
      send_escaped(conn, data, data_len);
      mg_printf_data(conn, "\n");
    }
    offset += step;
    parts++;
  }
  mg_printf_data(conn, "</ul>\n%d parts\n</main>\n<p><a href=\"/\">More</a>\n", parts);
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
