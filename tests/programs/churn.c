/* Servers that come and go while threads write to connections of theirs, known and long gone. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

#include "check.h"
#include "mongoose.h"

#define THREADS 3

static struct mg_connection *volatile latest;
static int calls;
static volatile int stop;

static int listen_to(struct mg_connection *conn) {
  mg_printf(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
  latest = conn;
  calls++;
  return 1;
}

static void *write_to_latest(void *unused) {
  while (!stop) {
    struct mg_connection *conn = latest;
    int written = mg_write(conn, "hello\n", 6);
    CHECK(written == 0 || written == 6);
    written = mg_printf(conn, "%s %d\n", "hello", 12);
    CHECK(written == 0 || written == 9);
    CHECK_INT(mg_websocket_write(conn, 1, "x", 1), -1);
  }
  return unused;
}

static int connect_to(struct mg_server *server) {
  static const char request[] = "GET /listen HTTP/1.1\r\n\r\n";
  struct sockaddr_in address;
  int client = socket(AF_INET, SOCK_STREAM, 0);
  memset(&address, 0, sizeof(address));
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons((unsigned short) atoi(port_of(mg_get_option(server, "listening_port"))));
  CHECK(connect(client, (struct sockaddr *) &address, sizeof(address)) == 0);
  CHECK(send(client, request, sizeof(request) - 1, 0) == (int) sizeof(request) - 1);
  return client;
}

int main(int argc, char *argv[]) {
  int rounds = argc > 1 ? atoi(argv[1]) : 100, i, n;
  pthread_t threads[THREADS];
  for (i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, write_to_latest, NULL);
  for (i = 0; i < rounds; i++) {
    struct mg_server *server = mg_create_server(NULL);
    int before = calls;
    int clients[3];
    CHECK(mg_set_option(server, "listening_port", "127.0.0.1:0") == NULL);
    mg_add_uri_handler(server, "/listen", listen_to);
    for (n = 0; n < 3; n++) clients[n] = connect_to(server);
    /* By the pointer one could not tell: a new connection may have that of an old one. */
    while (calls == before) mg_poll_server(server, 20);
    for (n = 0; n < 3; n++) {
      mg_poll_server(server, 0);
      close(clients[n]);
    }
    mg_destroy_server(&server);
    CHECK(server == NULL);
  }
  stop = 1;
  for (i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  return VERDICT;
}
