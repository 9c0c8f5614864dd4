/* Ends of a server that come from elsewhere: from a signal handler, from another thread, and with
 * threads that still wait for it. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/syscall.h>

#include "check.h"
#include "mongoose.h"

static struct mg_server *volatile server;
static volatile pid_t waiter;
static sem_t waiter_known;
static int waiter_result;

static void destroy(void) {
  struct mg_server *doomed = server;
  server = NULL;
  mg_destroy_server(&doomed);
  if (doomed != NULL) _exit(3);
}

static void on_signal(int number) {
  (void) number;
  destroy();
}

static int fine(struct mg_connection *conn) {
  mg_printf_data(conn, "fine");
  return 1;
}

static void *destroy_at_end_of_input(void *unused) {
  char byte;
  (void) unused;
  while (read(0, &byte, 1) > 0) {}
  destroy();
  return NULL;
}

static void nothing(struct mg_connection *conn, void *param) {
  (void) conn;
  (void) param;
}

static void *wait_in_iterate(void *unused) {
  struct mg_server *mine = server;
  (void) unused;
  waiter = (pid_t) syscall(SYS_gettid);
  sem_post(&waiter_known);
  waiter_result = mg_iterate_over_connections(mine, nothing, NULL);
  return NULL;
}

/* Whether the kernel says that the thread sleeps. */
static int sleeps(pid_t thread) {
  char name[64], text[512];
  const char *state;
  int file, len;
  snprintf(name, sizeof(name), "/proc/self/task/%d/stat", (int) thread);
  file = open(name, O_RDONLY);
  len = (int) read(file, text, sizeof(text) - 1);
  close(file);
  text[len > 0 ? len : 0] = '\0';
  state = strrchr(text, ')');
  return state != NULL && state[2] == 'S';
}

static pthread_t waiting_thread;

/* Destroys the server while another thread waits for this very handler to return. */
static int destroys(struct mg_connection *conn) {
  (void) conn;
  pthread_create(&waiting_thread, NULL, wait_in_iterate, NULL);
  sem_wait(&waiter_known);
  while (!sleeps(waiter)) sched_yield();
  destroy();
  return 1;
}

int main(int argc, char *argv[]) {
  const char *how = argc > 1 ? argv[1] : "";
  struct mg_server *current;
  pthread_t thread;
  int waited = strcmp(how, "waiter") == 0;
  server = mg_create_server(NULL);
  mg_set_option(server, "listening_port", "127.0.0.1:0");
  mg_add_uri_handler(server, "/fine", fine);
  mg_add_uri_handler(server, "/destroys", destroys);
  sem_init(&waiter_known, 0, 0);
  signal(SIGTERM, on_signal);
  SAY("PORT %s", port_of(mg_get_option(server, "listening_port")));
  if (strcmp(how, "thread") == 0) pthread_create(&thread, NULL, destroy_at_end_of_input, NULL);
  while ((current = server) != NULL) mg_poll_server(current, 1000000000);
  SAY("GONE");
  if (strcmp(how, "thread") == 0) pthread_join(thread, NULL);
  if (waited) {
    pthread_join(waiting_thread, NULL);
    CHECK_INT(waiter_result, -1);
  }
  return VERDICT;
}
