/* Server-sent events: a thread pushes the time to every browser that listens.
 *
 *   cc events.c -o events -lmongoose -lpthread && ./events 8080
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "mongoose.h"

#define MAX_LISTENERS 1000

/* Read by several threads, and set by a signal handler: a lock-free atomic may be both. */
static atomic_int stop;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct mg_connection *listeners[MAX_LISTENERS];
static int num_listeners;

static void on_signal(int number) {
  (void) number;
  stop = 1;
}

static int show_page(struct mg_connection *conn) {
  mg_send_header(conn, "Content-Type", "text/html; charset=utf-8");
  mg_printf_data(conn, "<!doctype html><title>Events</title><p id=\"time\">\n<script>"
                       "new EventSource('/events').onmessage = event =>"
                       " document.getElementById('time').textContent = event.data;</script>\n");
  return 1;
}

/* An answer of this type has no end: it stays open for whoever writes to it. */
static int listen_to_events(struct mg_connection *conn) {
  pthread_mutex_lock(&lock);
  if (num_listeners == MAX_LISTENERS) {
    mg_send_status(conn, 503);
    mg_send_data(conn, "", 0);
  } else if (mg_printf(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                             "Cache-Control: no-store\r\n\r\n") > 0) {
    listeners[num_listeners++] = conn;
  }
  pthread_mutex_unlock(&lock);
  return 1;
}

/* A pointer to a connection that has gone does no harm: the call returns 0. That is how this
 * thread learns that a browser has left, and when to forget it. */
static void *push_the_time(void *unused) {
  for (; !stop; sleep(1)) {
    long now = (long) time(NULL);
    int i = 0;
    pthread_mutex_lock(&lock);
    while (i < num_listeners) {
      if (mg_printf(listeners[i], "data: %ld\n\n", now) > 0) {
        i++;
      } else {
        listeners[i] = listeners[--num_listeners];
      }
    }
    pthread_mutex_unlock(&lock);
  }
  return unused;
}

int main(int argc, char *argv[]) {
  struct mg_server *server = mg_create_server(NULL);
  const char *problem = mg_set_option(server, "listening_port", argc > 1 ? argv[1] : "8080");
  if (problem == NULL && mg_start_thread(push_the_time, NULL) == NULL) problem = "no thread";
  if (problem != NULL) {
    fprintf(stderr, "%s\n", problem);
    mg_destroy_server(&server);
    return EXIT_FAILURE;
  }
  mg_add_uri_handler(server, "/", show_page);
  mg_add_uri_handler(server, "/events", listen_to_events);
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  printf("Listening on http://127.0.0.1:%s/\n", mg_get_option(server, "listening_port"));
  fflush(stdout);
  while (!stop) mg_poll_server(server, 1000);
  mg_destroy_server(&server);
  return EXIT_SUCCESS;
}
