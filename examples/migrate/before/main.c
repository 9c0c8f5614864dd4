/* A poll, as programs were written against mongoose.c 5.0. Nothing in this file is changed when it
   is turned over: only its Makefile is. */

#include "mongoose.h"
#include "votes.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static volatile sig_atomic_t is_over;

static void on_signal(int number) {
  (void) number;
  is_over = 1;
}

static int vote(struct mg_connection *conn) {
  char name[64];

  if (mg_get_var(conn, "name", name, sizeof(name)) < 0 || votes_add(name) == 0) {
    mg_send_status(conn, 400);
    mg_printf_data(conn, "Vote for something by ?name=...\n");
    return 1;
  }
  mg_send_header(conn, "Content-Type", "text/plain");
  mg_printf_data(conn, "Thank you, %s!\n", conn->remote_ip);
  return 1;
}

static int result(struct mg_connection *conn) {
  const struct votes *votes;
  int i;

  mg_send_header(conn, "Content-Type", "text/plain");
  for (i = 0; (votes = votes_at(i)) != NULL; i++) {
    mg_printf_data(conn, "%5d %s\n", votes->count, votes->name);
  }
  mg_printf_data(conn, "%d in all\n", i);
  return 1;
}

int main(int argc, char *argv[]) {
  struct mg_server *server = mg_create_server(NULL);
  const char *error = mg_set_option(server, "listening_port", argc > 1 ? argv[1] : "8080");

  if (error != NULL) {
    fprintf(stderr, "%s\n", error);
    return 1;
  }
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  mg_add_uri_handler(server, "/", result);
  mg_add_uri_handler(server, "/vote", vote);
  printf("Listening on %s\n", mg_get_option(server, "listening_port"));
  fflush(stdout);
  while (!is_over) mg_poll_server(server, 1000);
  mg_destroy_server(&server);
  return 0;
}
