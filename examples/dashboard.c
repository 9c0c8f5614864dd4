/* A dashboard: a thread of the program measures, and pushes what it finds to every open page.
 *
 *   cc dashboard.c -o dashboard -lmongoose -lpthread && ./dashboard 8080 examples/dashboard
 *
 * The figures are the load of the machine's processors, its memory in use, and how many pages
 * are open, as a line of JSON, ten times a second.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mongoose.h"

enum { INTERVAL_MS = 100 };

/* Read by several threads, and set by a signal handler: a lock-free atomic may be both. */
static atomic_int stop, measuring = 1;

static void on_signal(int number) {
  (void) number;
  stop = 1;
}

/* Share of the time since the last call in which the processors were busy, in percent. */
static double cpu_percent(void) {
  static unsigned long long last_busy, last_total;
  unsigned long long user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, softirq = 0;
  unsigned long long busy, total;
  double percent = 0;
  FILE *file = fopen("/proc/stat", "r");
  if (file == NULL) return 0;
  if (fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &wait,
             &irq, &softirq) == 7) {
    busy = user + nice + system + irq + softirq;
    total = busy + idle + wait;
    if (last_total != 0 && total > last_total) {
      percent = 100.0 * (double) (busy - last_busy) / (double) (total - last_total);
    }
    last_busy = busy;
    last_total = total;
  }
  fclose(file);
  return percent;
}

static double memory_percent(void) {
  unsigned long total = 0, available = 0, number;
  char name[64];
  FILE *file = fopen("/proc/meminfo", "r");
  if (file == NULL) return 0;
  while (fscanf(file, "%63s %lu kB\n", name, &number) == 2) {
    if (strcmp(name, "MemTotal:") == 0) total = number;
    if (strcmp(name, "MemAvailable:") == 0) available = number;
  }
  fclose(file);
  return total == 0 ? 0 : 100.0 * (double) (total - available) / (double) total;
}

/* -1 means that this page reads too slowly or has gone: there are newer figures soon. */
static void push(struct mg_connection *conn, void *line) {
  (void) mg_websocket_write(conn, 1, (const char *) line, strlen((const char *) line));
}

/* Any thread may visit all websockets: `push` then runs on the thread that polls. */
static void *measure(void *param) {
  struct mg_server *server = (struct mg_server *) param;
  struct timespec interval = {0, INTERVAL_MS * 1000000L};
  char line[128];
  int pages = 0, visited;
  while (!stop) {
    snprintf(line, sizeof(line), "{\"cpu\":%.1f,\"memory\":%.1f,\"pages\":%d}", cpu_percent(),
             memory_percent(), pages);
    visited = mg_iterate_over_connections(server, push, line);
    if (visited >= 0) pages = visited; /* -1: the server was busy for long */
    nanosleep(&interval, NULL);
  }
  measuring = 0;
  return NULL;
}

/* The pages only listen. */
static int on_live(struct mg_connection *conn) {
  if (!conn->is_websocket) {
    mg_send_status(conn, 426);
    mg_printf_data(conn, "This address speaks websocket.\n");
  }
  return (conn->wsbits & 0x0f) == 8;
}

static int set(struct mg_server *server, const char *name, const char *value) {
  const char *problem = mg_set_option(server, name, value);
  if (problem != NULL) fprintf(stderr, "%s=%s: %s\n", name, value, problem);
  return problem == NULL;
}

int main(int argc, char *argv[]) {
  struct mg_server *server = mg_create_server(NULL);
  if (!set(server, "document_root", argc > 2 ? argv[2] : "examples/dashboard") ||
      !set(server, "listening_port", argc > 1 ? argv[1] : "8080")) {
    mg_destroy_server(&server);
    return EXIT_FAILURE;
  }
  mg_add_uri_handler(server, "/live", on_live);
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  printf("Listening on http://127.0.0.1:%s/\n", mg_get_option(server, "listening_port"));
  fflush(stdout);
  if (mg_start_thread(measure, server) == NULL) {
    fprintf(stderr, "no thread\n");
    mg_destroy_server(&server);
    return EXIT_FAILURE;
  }
  /* The thread is served to its end: it must not meet a server that is destroyed. */
  while (!stop || measuring) mg_poll_server(server, 200);
  mg_destroy_server(&server);
  return EXIT_SUCCESS;
}
