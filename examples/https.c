/* A server that speaks TLS. The first argument is a list of ports: the one with the letter s speaks
 * TLS, the one with r sends all who come there by plain HTTP. The second is a PEM file with private
 * key and certificate; a hangup signal reads it again, as whoever renews certificates wants it.
 *
 *   openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=localhost \
 *     -keyout key.pem -out cert.pem && cat key.pem cert.pem > server.pem
 *   cc https.c -o https -lmongoose && ./https 8443s,8080r server.pem
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "mongoose.h"

static volatile sig_atomic_t stop, renew;

static void on_signal(int number) {
  if (number == SIGHUP) {
    renew = 1;
  } else {
    stop = 1;
  }
}

static int hello(struct mg_connection *conn) {
  mg_send_header(conn, "Content-Type", "text/plain; charset=utf-8");
  mg_printf_data(conn, "Nobody else can read this, %s.\n", conn->remote_ip);
  return 1;
}

/* Says what is wrong, if anything is. A certificate is read when it is set, and a bad one leaves the
 * old one in its place. */
static int set(struct mg_server *server, const char *name, const char *value) {
  const char *problem = mg_set_option(server, name, value);
  if (problem != NULL) fprintf(stderr, "%s=%s: %s\n", name, value, problem);
  return problem == NULL;
}

int main(int argc, char *argv[]) {
  struct mg_server *server = mg_create_server(NULL);
  const char *certificate = argc > 2 ? argv[2] : "server.pem";
  int ready = set(server, "ssl_certificate", certificate) &&
              set(server, "listening_port", argc > 1 ? argv[1] : "8443s,8080r");

  mg_add_uri_handler(server, "/", hello);
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  signal(SIGHUP, on_signal);
  if (ready) {
    printf("Listening on %s\n", mg_get_option(server, "listening_port"));
    fflush(stdout);
  }
  while (ready && !stop) {
    mg_poll_server(server, 1000);
    if (renew) {
      renew = 0;
      if (set(server, "ssl_certificate", certificate)) printf("Certificate read again\n");
      fflush(stdout);
    }
  }
  mg_destroy_server(&server);
  return ready ? EXIT_SUCCESS : EXIT_FAILURE;
}
