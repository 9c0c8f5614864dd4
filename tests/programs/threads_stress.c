/* Four threads that write numbered lines to all connections, while these come and go. */
#include <pthread.h>

#include "check.h"
#include "mongoose.h"

#define THREADS 4
#define CONNECTIONS 4096

/* One browser: the pointer stays in the list until each thread has found it gone or finished. */
static struct client {
  struct mg_connection *conn;
  char id[16];
  int next[THREADS];
} clients[CONNECTIONS];

static int num_clients;
static volatile int stop;
static int lines_each;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;

static int subscribe(struct mg_connection *conn) {
  mg_printf(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
  pthread_mutex_lock(&lock);
  if (num_clients < CONNECTIONS) {
    clients[num_clients].conn = conn;
    snprintf(clients[num_clients].id, sizeof(clients[0].id), "%s", conn->query_string);
    num_clients++;
    pthread_cond_broadcast(&more);
  }
  pthread_mutex_unlock(&lock);
  return 1;
}

/* Writes the next line of this thread to a client; 0 when there is none left. */
static int write_line(int thread, struct client *client) {
  int number = client->next[thread], wanted, written;
  char line[64];
  if (number >= lines_each) return 0;
  wanted = snprintf(line, sizeof(line), "%s %d %d\n", client->id, thread, number);
  written = number % 2 == 0 ? mg_write(client->conn, line, wanted)
                            : mg_printf(client->conn, "%s %d %d\n", client->id, thread, number);
  CHECK(written == wanted || written == 0);
  client->next[thread] = written == 0 ? lines_each : number + 1;
  return 1;
}

static void *write_lines(void *param) {
  int thread = *(int *) param, known = 0, i, busy = 1;
  while (!stop) {
    pthread_mutex_lock(&lock);
    while (!busy && known == num_clients && !stop) pthread_cond_wait(&more, &lock);
    known = num_clients;
    pthread_mutex_unlock(&lock);
    busy = 0;
    for (i = 0; i < known; i++) busy |= write_line(thread, &clients[i]);
  }
  return NULL;
}

int main(int argc, char *argv[]) {
  static int numbers[] = {0, 1, 2, 3};
  pthread_t threads[THREADS];
  struct mg_server *server = mg_create_server(NULL);
  int i;
  lines_each = argc > 1 ? atoi(argv[1]) : 100;
  mg_set_option(server, "listening_port", "127.0.0.1:0");
  mg_add_uri_handler(server, "/subscribe", subscribe);
  SAY("PORT %s", port_of(mg_get_option(server, "listening_port")));
  for (i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, write_lines, &numbers[i]);
  while (!told_to_stop()) mg_poll_server(server, 20);
  /* The threads go on writing to a server that is gone. */
  mg_destroy_server(&server);
  pthread_mutex_lock(&lock);
  stop = 1;
  pthread_cond_broadcast(&more);
  pthread_mutex_unlock(&lock);
  for (i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  for (i = 0; i < num_clients; i++) CHECK_INT(mg_write(clients[i].conn, "x", 1), 0);
  return VERDICT;
}
