/* The library in benches/stalls. Prints "PORT n".

     stalls [NAME=VALUE]...      options of the server

   /hello   a short answer
   /ws      a websocket that does what a text tells it:
              write N text|noise     writes a message of N bytes
              thread N text|noise    the same, on a thread of its own
              queue N text|noise     a thread writes N messages of 1 MiB
              broadcast N text|noise a thread writes a message of N bytes to all websockets
   Other messages are thrown away. All are of at most 64 MiB. */

#include <mongoose.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST (64 << 20)

struct order {
  struct mg_connection *conn;
  char what[16], kind[16];
  int len;
  const char *data;
};

static struct mg_server *server;
/* Made before anybody waits: it takes longer than what is measured. */
static char *noise, *text;

static char *make(const char *kind, int len) {
  char *data = malloc((size_t) len + 1);
  unsigned state = 1;
  int i;
  for (i = 0; i < len; i++) {
    state = state * 1664525u + 1013904223u;
    data[i] = kind[0] == 'n' ? (char) (state >> 24) : "the words of a text "[(state >> 28) % 20];
  }
  return data;
}

static void write_to(struct mg_connection *conn, void *param) {
  struct order *order = param;
  mg_websocket_write(conn, 2, order->data, (size_t) order->len);
}

static void *carry_out(void *param) {
  struct order *order = param;
  int i, count = order->what[0] == 'q' ? order->len : 1;
  if (order->what[0] == 'q') order->len = 1 << 20;
  order->data = order->kind[0] == 'n' ? noise : text;
  if (order->what[0] == 'b') mg_iterate_over_connections(server, write_to, order);
  else for (i = 0; i < count; i++) write_to(order->conn, order);
  free(order);
  return NULL;
}

static int hello(struct mg_connection *conn) {
  static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHello";
  mg_write(conn, answer, (int) sizeof answer - 1);
  return 1;
}

static int ws(struct mg_connection *conn) {
  struct order *order;
  if (!conn->is_websocket || (conn->wsbits & 15) != 1) return 0;
  order = calloc(1, sizeof *order);
  order->conn = conn;
  if (sscanf(conn->content, "%15s %d %15s", order->what, &order->len, order->kind) != 3) free(order);
  else if (order->len < 0 || order->len > LONGEST) free(order);
  else if (order->what[0] == 'w') carry_out(order);
  else mg_start_thread(carry_out, order);
  return 0;
}

int main(int argc, char **argv) {
  const char *error;
  char *equals;
  int i;
  noise = make("noise", LONGEST);
  text = make("text", LONGEST);
  server = mg_create_server(NULL);
  for (i = 1; i < argc; i++) {
    if ((equals = strchr(argv[i], '=')) == NULL) return 2;
    *equals = '\0';
    if ((error = mg_set_option(server, argv[i], equals + 1)) != NULL) {
      fprintf(stderr, "%s: %s\n", argv[i], error);
      return 1;
    }
  }
  if ((error = mg_set_option(server, "listening_port", "127.0.0.1:0")) != NULL) return 1;
  mg_add_uri_handler(server, "/hello", hello);
  mg_add_uri_handler(server, "/ws", ws);
  printf("PORT %s\n", strchr(mg_get_option(server, "listening_port"), ':') + 1);
  fflush(stdout);
  for (;;) mg_poll_server(server, 1000);
}
