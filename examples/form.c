/* A form: GET / shows it, POST /greet reads its fields by mg_get_var().
 *
 *   cc form.c -o form -lmongoose && ./form 8080
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
    "<title>Form</title>\n"
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
    "</style>\n";

static void begin_page(struct mg_connection *conn) {
  mg_send_header(conn, "Content-Type", "text/html; charset=utf-8");
  mg_send_data(conn, HEAD, (int) sizeof(HEAD) - 1);
}

static int show_form(struct mg_connection *conn) {
  begin_page(conn);
  mg_printf_data(conn, "%s",
                 "<h1>Who are you?</h1>\n<main>\n"
                 "<form method=\"post\" action=\"/greet\">\n"
                 "<label for=\"name\">Name</label>\n"
                 "<input id=\"name\" name=\"name\" maxlength=\"24\" autocomplete=\"name\" required autofocus>\n"
                 "<label for=\"town\">Town</label>\n"
                 "<input id=\"town\" name=\"town\" maxlength=\"24\" autocomplete=\"address-level2\">\n"
                 "<button>Greet</button>\n</form>\n</main>\n");
  return 1;
}

/* What a visitor typed must not become part of the page's markup. */
static void send_escaped(struct mg_connection *conn, const char *text) {
  while (*text != '\0') {
    size_t harmless = strcspn(text, "<&");
    if (harmless > 0) mg_send_data(conn, text, (int) harmless);
    text += harmless;
    if (*text != '\0') mg_printf_data(conn, "&#%d;", *text++);
  }
}

static int greet(struct mg_connection *conn) {
  char name[100], town[100];

  /* The length, or a negative number: the field is missing, or too long for the buffer. */
  if (mg_get_var(conn, "name", name, sizeof(name)) <= 0) {
    mg_send_status(conn, 400);
    begin_page(conn);
    mg_printf_data(conn, "<h1>No name, or too long a one</h1>\n<p><a href=\"/\">Back</a>\n");
    return 1;
  }
  begin_page(conn);
  mg_printf_data(conn, "<h1>Hello, ");
  send_escaped(conn, name);
  if (mg_get_var(conn, "town", town, sizeof(town)) > 0) {
    mg_printf_data(conn, " from ");
    send_escaped(conn, town);
  }
  mg_printf_data(conn, "!</h1>\n<p><a href=\"/\">Somebody else</a>\n");
  return 1;
}

int main(int argc, char *argv[]) {
  struct mg_server *server = mg_create_server(NULL);
  const char *problem = mg_set_option(server, "listening_port", argc > 1 ? argv[1] : "8080");

  if (problem != NULL) {
    fprintf(stderr, "%s\n", problem);
    mg_destroy_server(&server);
    return EXIT_FAILURE;
  }
  mg_add_uri_handler(server, "/", show_form);
  mg_add_uri_handler(server, "/greet", greet); /* the handler added last wins */

  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  printf("Listening on http://127.0.0.1:%s/\n", mg_get_option(server, "listening_port"));
  fflush(stdout);
  while (!stop) mg_poll_server(server, 1000);
  mg_destroy_server(&server);
  return EXIT_SUCCESS;
}
