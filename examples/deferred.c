/* An answer that takes its time: the handler starts a thread and returns without a word, the
 * thread answers when it is done, and the server serves others meanwhile.
 *
 *   cc deferred.c -o deferred -lmongoose -lpthread && ./deferred 8080
 *   curl 'http://127.0.0.1:8080/primes?below=5000000'
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "mongoose.h"

static volatile sig_atomic_t stop;

static void on_signal(int number) {
  (void) number;
  stop = 1;
}

/* What the thread needs to know: whom to answer, and what was asked. */
struct job {
  struct mg_connection *conn;
  long below;
};

static int is_prime(long number) {
  long divisor;
  for (divisor = 2; divisor * divisor <= number; divisor++) {
    if (number % divisor == 0) return 0;
  }
  return number > 1;
}

/* Of the connection, another thread may use mg_write() and mg_printf() only. If the client has
 * left meanwhile, or the server is gone, they return 0 and nothing else happens. */
static void *count_primes(void *param) {
  struct job *job = (struct job *) param;
  long number, count = 0;
  char answer[64];
  int len;

  for (number = 2; number < job->below; number++) count += is_prime(number);
  len = snprintf(answer, sizeof(answer), "%ld primes below %ld\n", count, job->below);
  mg_printf(job->conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len, answer);
  free(job);
  return NULL;
}

static int primes(struct mg_connection *conn) {
  char below[16];
  struct job *job = (struct job *) malloc(sizeof(*job));

  if (job == NULL) {
    mg_send_status(conn, 503);
    mg_send_data(conn, "", 0);
    return 1;
  }
  job->conn = conn;
  job->below = mg_get_var(conn, "below", below, sizeof(below)) > 0 ? atol(below) : 1000000;
  if (mg_start_thread(count_primes, job) == NULL) {
    free(job);
    mg_send_status(conn, 503);
    mg_send_data(conn, "", 0);
  }
  return 1; /* a GET that nobody has answered yet stays open */
}

int main(int argc, char *argv[]) {
  struct mg_server *server = mg_create_server(NULL);
  const char *problem = mg_set_option(server, "listening_port", argc > 1 ? argv[1] : "8080");

  if (problem != NULL) {
    fprintf(stderr, "%s\n", problem);
    mg_destroy_server(&server);
    return EXIT_FAILURE;
  }
  mg_add_uri_handler(server, "/primes", primes);

  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  printf("Listening on http://127.0.0.1:%s/\n", mg_get_option(server, "listening_port"));
  fflush(stdout);
  while (!stop) mg_poll_server(server, 1000);
  mg_destroy_server(&server);
  return EXIT_SUCCESS;
}
