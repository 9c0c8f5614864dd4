/* The threads of a world: those that poll, write, walk and change options, and whether one of them waits in vain. */
#define _GNU_SOURCE
#include "world.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATIENCE = 90 };

atomic_int over;
_Thread_local unsigned my_stream;
_Thread_local uint64_t my_random;

static pthread_t threads[STREAMS];
static unsigned thread_count;

/* What each thread is at, and since when. */
static struct {
  const char *_Atomic what;
  _Atomic double since;
} calls[STREAMS];
static struct slot *_Atomic to_be_destroyed;

void begin_call(const char *what) {
  atomic_store(&calls[my_stream].since, real_seconds());
  atomic_store(&calls[my_stream].what, what);
}

void end_call(void) { atomic_store(&calls[my_stream].what, NULL); }

void look_for_stuck_threads(void) {
  unsigned i;
  for (i = 0; i < STREAMS; i++) {
    const char *what = atomic_load(&calls[i].what);
    double since = atomic_load(&calls[i].since);
    if (what != NULL && real_seconds() - since > PATIENCE && atomic_load(&calls[i].what) == what) {
      wrong("thread %u waits in %s for %d s", i, what, PATIENCE);
      exit(1);
    }
  }
}

static uint64_t seed_of(unsigned stream) { return wishes.seed * 1000003 + stream + 100u * (unsigned) process_number; }

/* A walk that one thread has asked for: its writes are of the stream of that thread, whoever makes them. */
struct visit {
  unsigned stream;
  uint64_t random;
};

static void visit(struct mg_connection *conn, void *param) {
  struct visit *visit = param;
  struct known known;
  const struct guest *guest = conn->connection_param;
  if (guest == NULL || !guest->is_stream || below(&visit->random, 3) == 0) return;
  known.conn = conn;
  known.owner = guest->owner;
  known.framing = guest->framing;
  write_record(&known, visit->stream, &visit->random);
}

void walk(struct mg_server *server) {
  struct visit param;
  param.stream = my_stream;
  param.random = draw(&my_random);
  if (server == NULL) return;
  begin_call("mg_iterate_over_connections");
  mg_iterate_over_connections(server, below(&my_random, 10) == 0 ? NULL : visit, &param);
  end_call();
}

/* Options that may change at any time without a client that could tell. */
void change_something(struct mg_server *server, uint64_t *random) {
  static const char *const harmless[][2] = {
    {"idle_timeout_ms", "60000"}, {"idle_timeout_ms", "70000"},
    {"request_timeout_ms", "60000"}, {"request_timeout_ms", "70000"},
    {"file_cache_bytes", "0"}, {"file_cache_bytes", "1000000"}, {"file_cache_bytes", ""},
    {"iterate_over", "all"}, {"iterate_over", "websockets"},
    {"iterate_content", "last"}, {"iterate_content", "none"},
    {"websocket_ping_interval_ms", "20"}, {"websocket_ping_interval_ms", "5000"},
    {"max_send_queue_bytes", "262144"}, {"max_send_queue_bytes", "400000"}, {"max_send_queue_bytes", ""},
    {"max_request_header_bytes", "8192"}, {"max_request_header_bytes", ""},
    {"enable_directory_listing", "no"}, {"enable_directory_listing", "yes"},
    {"access_control_list", "+0.0.0.0/0"}, {"access_control_list", ""}, {"access_control_list", "nonsense"},
    {"document_root", "a"}, {"document_root", "b"},
    {"access_log_file", "access-1.log"}, {"access_log_file", "access-2.log"}, {"access_log_file", ""},
    {"error_log_file", "error-1.log"}, {"error_log_file", "error-2.log"},
    {"extra_headers", "X-One: 1\r\n"}, {"extra_headers", ""},
    {"websocket_deflate", "yes"}, {"websocket_deflate", "no"},
    {"enable_precompressed", "yes"}, {"enable_precompressed", ""},
    {"max_websocket_message_bytes", "1000000"}, {"max_websocket_message_bytes", ""},
    {"no_such_option", "1"}, {"ssl_certificate", "one.pem"}, {"ssl_certificate", "two.pem"},
    {"ssl_certificate", "none.pem"}, {"listening_port", "nonsense"},
  };
  size_t which = below(random, sizeof harmless / sizeof *harmless);
  const char *value = harmless[which][1];
  char path[512];
  if (server == NULL) return;
  if (strcmp(harmless[which][0], "ssl_certificate") == 0 && access("one.pem", R_OK) != 0) return;
  if (strcmp(value, "a") == 0 || strcmp(value, "b") == 0) {
    snprintf(path, sizeof path, "%s/%s", wishes.folder, value);
    value = path;
  }
  begin_call("mg_set_option");
  mg_set_option(server, harmless[which][0], value);
  end_call();
  begin_call("mg_get_option");
  if (below(random, 4) == 0) mg_get_option(server, harmless[which][0]);
  end_call();
}

void on_signal_destroy(int number) {
  struct slot *slot = atomic_exchange(&to_be_destroyed, NULL);
  (void) number;
  if (slot != NULL) {
    struct mg_server *server = atomic_exchange(&slot->server, NULL);
    mg_destroy_server(&server);
    atomic_store(&slot->leave, 1);
  }
}

/* Destroys a server by a signal handler, while one of its pollers polls. */
void destroy_by_signal(struct slot *slot) {
  atomic_store(&to_be_destroyed, slot);
  while (!atomic_load(&slot->leave)) {
    pthread_kill(slot->pollers[0], SIGUSR2);
    usleep(1000);
  }
}

static void name_thread(unsigned stream) {
  sigset_t signals;
  my_stream = stream;
  my_random = seed_of(stream);
  sigemptyset(&signals);
  sigaddset(&signals, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

/* A poller's parameter: its slot and its place there. */
struct poller {
  struct slot *slot;
  unsigned place;
};

static void *poll_server(void *param) {
  struct poller self = *(struct poller *) param;
  struct mg_server *server = atomic_load(&self.slot->server);
  sigset_t signals;
  free(param);
  name_thread(FIRST_POLLER + (unsigned) self.slot->number * 2 + self.place);
  sigemptyset(&signals);
  sigaddset(&signals, SIGUSR2);
  while (server != NULL && !atomic_load(&self.slot->leave)) {
    unsigned way;
    if (self.place == 0) pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
    begin_call("mg_poll_server");
    mg_poll_server(server, (int) below(&my_random, 50));
    end_call();
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    if (atomic_load(&self.slot->leave)) break;
    way = below(&my_random, 60);
    if (way < 6) {
      const struct known *known = some_known(&my_random);
      if (known != NULL) write_record(known, my_stream, &my_random);
    } else if (way == 6) {
      walk(server);
    } else if (way == 7) {
      change_something(server, &my_random);
    } else if (way == 8) {
      usleep(below(&my_random, 20000));
    }
    if (self.slot->poller_count > 1) usleep(below(&my_random, 300));
  }
  return NULL;
}

void start_pollers(struct slot *slot) {
  unsigned i;
  slot->poller_count = (int) wishes.pollers;
  for (i = 0; i < wishes.pollers; i++) {
    struct poller *poller = malloc(sizeof *poller);
    if (poller == NULL) abort();
    poller->slot = slot;
    poller->place = i;
    if (pthread_create(&slot->pollers[i], NULL, poll_server, poller) != 0) abort();
  }
}

void join_pollers(struct slot *slot) {
  int i;
  for (i = 0; i < slot->poller_count; i++) pthread_join(slot->pollers[i], NULL);
  slot->poller_count = 0;
}

static void *write_on(void *param) {
  name_thread((unsigned) (uintptr_t) param);
  while (!atomic_load(&over)) {
    unsigned i, burst = 1 + below(&my_random, 4);
    answer_later_jobs(&my_random);
    for (i = 0; i < burst; i++) {
      const struct known *known = some_known(&my_random);
      if (known != NULL) write_record(known, my_stream, &my_random);
    }
    usleep(below(&my_random, 5000));
  }
  answer_later_jobs(&my_random);
  return NULL;
}

static struct mg_server *some_server(void) {
  return atomic_load(&slots[below(&my_random, MOST_SERVERS)].server);
}

static void *walk_on(void *param) {
  name_thread((unsigned) (uintptr_t) param);
  while (!atomic_load(&over)) {
    walk(some_server());
    usleep(below(&my_random, 20000));
  }
  return NULL;
}

static void *change_on(void *param) {
  name_thread((unsigned) (uintptr_t) param);
  while (!atomic_load(&over)) {
    change_something(some_server(), &my_random);
    usleep(below(&my_random, 40000));
  }
  return NULL;
}

static void start(void *(*run)(void *), unsigned first, unsigned count) {
  unsigned i;
  for (i = 0; i < count; i++)
    if (pthread_create(&threads[thread_count++], NULL, run, (void *) (uintptr_t) (first + i)) != 0) abort();
}

void start_threads(void) {
  atomic_store(&over, 0);
  thread_count = 0;
  start(write_on, FIRST_WRITER, wishes.writers);
  start(walk_on, FIRST_WALKER, wishes.walkers);
  start(change_on, FIRST_CHANGER, wishes.changers);
}

void join_threads(void) {
  atomic_store(&over, 1);
  while (thread_count > 0) pthread_join(threads[--thread_count], NULL);
}
