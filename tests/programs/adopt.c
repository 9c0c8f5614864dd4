/* A listening socket that comes from elsewhere, as from a service manager: blocking, and with a
 * number that may come to mean something else. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "check.h"
#include "mongoose.h"

static int fine(struct mg_connection *conn) {
  mg_printf_data(conn, "fine");
  return 1;
}

static int open_socket(int *port) {
  struct sockaddr_in address;
  socklen_t len = sizeof(address);
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  memset(&address, 0, sizeof(address));
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(bind(listener, (struct sockaddr *) &address, len) == 0);
  CHECK(listen(listener, 16) == 0);
  CHECK(getsockname(listener, (struct sockaddr *) &address, &len) == 0);
  *port = ntohs(address.sin_port);
  return listener;
}

static int is_open(int fd) { return fcntl(fd, F_GETFD) != -1; }

/* The server must not close a descriptor whose number means something else by now. */
static void number_that_changed_its_meaning(int how) {
  struct mg_server *server = mg_create_server(NULL);
  int port, listener = open_socket(&port), other = open("/dev/null", O_RDONLY);
  mg_set_listening_socket(server, listener);
  CHECK_INT(mg_get_listening_socket(server), listener);
  mg_poll_server(server, 0);
  dup2(other, listener);
  if (how == 0) mg_set_listening_socket(server, -1);
  if (how == 1) mg_set_option(server, "listening_port", "127.0.0.1:0");
  mg_destroy_server(&server);
  CHECK(is_open(listener));
  close(listener);
  close(other);
}

/* A number that is no socket is refused, and neither changed nor closed. */
static void no_socket(void) {
  struct mg_server *server = mg_create_server(NULL);
  int fd = open("/dev/null", O_RDONLY);
  mg_set_listening_socket(server, fd);
  CHECK_INT(mg_get_listening_socket(server), -1);
  CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) == 0);
  CHECK_INT(fcntl(fd, F_GETFD), 0);
  mg_destroy_server(&server);
  CHECK(is_open(fd));
  close(fd);
}

/* Closed by the program before the first poll, as daemons do: told once, and another may be set. */
static void closed_by_the_program(void) {
  struct mg_server *server = mg_create_server(NULL);
  int port, other, listener = open_socket(&port), i;
  mg_set_listening_socket(server, listener);
  close(listener);
  other = open("/dev/null", O_RDONLY);
  CHECK_INT(other, listener);
  for (i = 0; i < 3; i++) mg_poll_server(server, 0);
  CHECK_INT(mg_get_listening_socket(server), -1);
  CHECK(strcmp(mg_get_option(server, "listening_port"), "") == 0);
  CHECK(mg_set_option(server, "listening_port", "127.0.0.1:0") == NULL);
  CHECK(mg_get_listening_socket(server) > 2);
  mg_destroy_server(&server);
  CHECK(is_open(other));
  close(other);
}

int main(void) {
  struct mg_server *server;
  int port, other_port, listener, other, i;
  for (i = 0; i < 3; i++) number_that_changed_its_meaning(i);
  no_socket();
  closed_by_the_program();

  server = mg_create_server(NULL);
  mg_add_uri_handler(server, "/", fine);
  /* One after the other: the first is closed when it is replaced, and once only. */
  other = open_socket(&other_port);
  mg_set_listening_socket(server, other);
  CHECK_INT(mg_get_listening_socket(server), other);
  listener = open_socket(&port);
  mg_set_listening_socket(server, listener);
  CHECK_INT(mg_get_listening_socket(server), listener);
  mg_set_listening_socket(server, listener); /* the same again */
  CHECK_INT(mg_get_listening_socket(server), listener);
  CHECK(!is_open(other));
  SAY("PORT %d", port);
  while (!told_to_stop()) mg_poll_server(server, 20);
  mg_destroy_server(&server);
  CHECK(!is_open(listener));
  return VERDICT;
}
