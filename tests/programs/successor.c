/* A server that ends and one that takes its place, with a websocket each: who holds the pointer of
   the first one reaches nobody by it. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

#include "check.h"
#include "mongoose.h"

static int messages;

static int on_message(struct mg_connection *conn) {
  (void) conn;
  messages++;
  return 0;
}

static void visit(struct mg_connection *conn, void *count) {
  (void) conn;
  ++*(int *) count;
}

/* Opens a websocket at a new server, and shows that it is there. */
static int open_websocket(struct mg_server *server) {
  static const char request[] =
    "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    "\x81\x80\0\0\0\0";
  struct sockaddr_in address;
  int client = socket(AF_INET, SOCK_STREAM, 0), before = messages, visited = 0;
  memset(&address, 0, sizeof(address));
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons((unsigned short) atoi(port_of(mg_get_option(server, "listening_port"))));
  CHECK(connect(client, (struct sockaddr *) &address, sizeof(address)) == 0);
  CHECK(send(client, request, sizeof(request) - 1, 0) == (int) sizeof(request) - 1);
  while (messages == before) mg_poll_server(server, 20);
  CHECK_INT(mg_iterate_over_connections(server, visit, &visited), 1);
  CHECK_INT(visited, 1);
  return client;
}

static struct mg_server *make(void) {
  struct mg_server *server = mg_create_server(NULL);
  CHECK(mg_set_option(server, "listening_port", "127.0.0.1:0") == NULL);
  mg_add_uri_handler(server, "/ws", on_message);
  return server;
}

struct late {
  struct mg_server *server;
  int result, visited;
};

static void *walk(void *param) {
  struct late *late = (struct late *) param;
  late->result = mg_iterate_over_connections(late->server, visit, &late->visited);
  return NULL;
}

int main(void) {
  struct mg_server *server = make(), *successor;
  struct late late;
  pthread_t thread;
  int client = open_websocket(server), other, i;

  late.server = server;
  mg_destroy_server(&server);
  for (i = 0; i < 100; i++) {
    successor = make();
    other = open_websocket(successor);
    late.visited = 0;
    walk(&late); /* by the thread that polls the successor */
    CHECK_INT(late.result, -1);
    CHECK_INT(late.visited, 0);
    pthread_create(&thread, NULL, walk, &late);
    pthread_join(thread, NULL);
    CHECK_INT(late.result, -1);
    CHECK_INT(late.visited, 0);
    CHECK(mg_set_option(late.server, "document_root", "/") != NULL);
    mg_destroy_server(&successor);
    close(other);
  }
  close(client);
  return VERDICT;
}
