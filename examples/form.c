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

static int show_form(struct mg_connection *conn) {
  mg_send_header(conn, "Content-Type", "text/html; charset=utf-8");
  mg_printf_data(conn, "%s",
                 "<!doctype html><title>Form</title>\n"
                 "<form method=\"post\" action=\"/greet\">\n"
                 "<label>Name <input name=\"name\"></label>\n"
                 "<label>Town <input name=\"town\"></label>\n"
                 "<button>Greet</button></form>\n");
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
    mg_printf_data(conn, "Who are you?\n");
    return 1;
  }
  mg_send_header(conn, "Content-Type", "text/html; charset=utf-8");
  mg_printf_data(conn, "<!doctype html><title>Greeting</title>\n<p>Hello, ");
  send_escaped(conn, name);
  if (mg_get_var(conn, "town", town, sizeof(town)) > 0) {
    mg_printf_data(conn, " from ");
    send_escaped(conn, town);
  }
  mg_printf_data(conn, "!\n");
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
