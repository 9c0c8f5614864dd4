/* One port, several threads: each thread has a server of its own, and all of them accept from
 * the same listening socket. The second argument is the number of threads.
 *
 *   cc multi_threaded.c -o multi_threaded -lmongoose -lpthread && ./multi_threaded 8080 4
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mongoose.h"

#define MAX_THREADS 64

/* Read by several threads, and set by a signal handler: a lock-free atomic may be both. */
static atomic_int stop;

static void on_signal(int number) {
  (void) number;
  stop = 1;
}

/* Runs on the thread of its own server: what two servers share must be guarded by a lock. */
static int answer(struct mg_connection *conn) {
  mg_send_header(conn, "Content-Type", "text/plain");
  mg_printf_data(conn, "Answered by server %d\n", *(int *) conn->server_param);
  return 1;
}

static void *serve(void *param) {
  struct mg_server *server = (struct mg_server *) param;
  while (!stop) mg_poll_server(server, 200);
  mg_destroy_server(&server); /* the socket is closed with the last of them */
  return NULL;
}

int main(int argc, char *argv[]) {
  struct mg_server *servers[MAX_THREADS] = {NULL};
  pthread_t threads[MAX_THREADS];
  int numbers[MAX_THREADS], i, started, failure = 0, count = argc > 2 ? atoi(argv[2]) : 4;
  const char *problem;

  if (count < 1 || count > MAX_THREADS) count = 1;
  for (i = 0; i < count; i++) {
    numbers[i] = i;
    servers[i] = mg_create_server(&numbers[i]);
    mg_add_uri_handler(servers[i], "/", answer);
  }

  /* The first server opens the port, the others take its socket over. */
  problem = mg_set_option(servers[0], "listening_port", argc > 1 ? argv[1] : "8080");
  if (problem != NULL) {
    fprintf(stderr, "%s\n", problem);
    for (i = 0; i < count; i++) mg_destroy_server(&servers[i]);
    return EXIT_FAILURE;
  }
  for (i = 1; i < count; i++) {
    mg_set_listening_socket(servers[i], mg_get_listening_socket(servers[0]));
  }

  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  printf("Listening on http://127.0.0.1:%s/\n", mg_get_option(servers[0], "listening_port"));
  fflush(stdout);
  for (started = 1; started < count && failure == 0; started++) {
    failure = pthread_create(&threads[started], NULL, serve, servers[started]);
  }
  if (failure != 0) {
    fprintf(stderr, "no thread: %s\n", strerror(failure));
    for (i = --started; i < count; i++) mg_destroy_server(&servers[i]);
    stop = 1;
  }
  serve(servers[0]);
  for (i = 1; i < started; i++) {
    if (pthread_join(threads[i], NULL) != 0) failure = 1;
  }
  return failure == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
