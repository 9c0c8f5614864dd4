/* The server that the clients of this folder load: server WORKERS PORTS PASSWORDS [NAME VALUE...].
 * Serves itself if WORKERS is 0, else in so many processes, and prints the ports, then the numbers of those.
 * For each SIGUSR1 a process that serves prints a line `known N used N`: how many connections other
 * threads were told of so far, and how many bytes of the heap are in use. For each SIGHUP it opens its
 * logs and its certificates again; if it is the only one, it listens at one more port, or at one less,
 * too; then it prints a line `turned PORTS`. SIGTERM ends it. */
#define _GNU_SOURCE
#include <malloc.h>
#include <mongoose.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_LISTENERS = 1000, ANSWERERS = 2, BEAT_US = 50000, MAX_WORKERS = 16 };

struct job {
  struct mg_connection *conn;
  struct job *next;
  char token[64];
};

static volatile sig_atomic_t stop, wanted, turning;
static int threads; /* that still run */
static struct mg_server *server;
static long known;
/* What connection_param points to. */
static char told_of, subscribed;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
static struct job *first, **last = &first;
static struct mg_connection *listeners[MAX_LISTENERS];
static int listener_count;

static void on_signal(int number) {
  if (number == SIGUSR1) wanted = 1;
  else if (number == SIGHUP) turning = 1;
  else stop = 1;
}

static void tell_of(struct mg_connection *conn, char *as) {
  if (conn->connection_param == NULL) known++;
  conn->connection_param = as;
}

static int hello(struct mg_connection *conn) {
  mg_printf_data(conn, "hello\n");
  return 1;
}

static int echo(struct mg_connection *conn) {
  mg_send_header(conn, "Content-Type", "application/octet-stream");
  mg_send_data(conn, conn->content, conn->content_len);
  return 1;
}

static int later(struct mg_connection *conn) {
  struct job *job = calloc(1, sizeof *job);
  if (job == NULL) return 1;
  tell_of(conn, &told_of);
  job->conn = conn;
  mg_get_var(conn, "token", job->token, sizeof job->token);
  pthread_mutex_lock(&lock);
  *last = job;
  last = &job->next;
  pthread_cond_signal(&work);
  pthread_mutex_unlock(&lock);
  return 1;
}

/* The first letter of a token says how it is answered. */
static void answer(struct job *job) {
  int len = (int) strlen(job->token);
  if (job->token[0] == 'c') {
    mg_printf(job->conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nlater \r\n");
    usleep(500);
    mg_printf(job->conn, "%x\r\n%s\r\n0\r\n\r\n", len, job->token);
  } else if (job->token[0] == 'p') {
    mg_printf(job->conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nlater ", 6 + len);
    usleep(500);
    mg_printf(job->conn, "%s", job->token);
  } else {
    if (job->token[0] == 's') usleep(2000);
    mg_printf(job->conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nlater %s", 6 + len, job->token);
  }
}

static void *answer_later(void *unused) {
  for (;;) {
    struct job *job;
    pthread_mutex_lock(&lock);
    while (first == NULL && !stop) pthread_cond_wait(&work, &lock);
    job = first;
    if (job != NULL && (first = job->next) == NULL) last = &first;
    pthread_mutex_unlock(&lock);
    if (job == NULL) break;
    answer(job);
    free(job);
  }
  __atomic_sub_fetch(&threads, 1, __ATOMIC_SEQ_CST);
  return unused;
}

static int events(struct mg_connection *conn) {
  tell_of(conn, &told_of);
  pthread_mutex_lock(&lock);
  if (listener_count < MAX_LISTENERS) {
    mg_printf(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
    listeners[listener_count++] = conn;
  } else {
    mg_send_status(conn, 503);
  }
  pthread_mutex_unlock(&lock);
  return 1;
}

/* Text is a subscription to pushes, all else comes back. */
static int websocket(struct mg_connection *conn) {
  int opcode = conn->wsbits & 15;
  if (!conn->is_websocket) {
    mg_send_status(conn, 426);
    mg_printf_data(conn, "websockets only\n");
    return 1;
  }
  if (opcode == 8) return 1;
  if (opcode == 1) tell_of(conn, &subscribed);
  else if (opcode == 2) mg_websocket_write(conn, 2, conn->content, (size_t) conn->content_len);
  return 0;
}

static void push(struct mg_connection *conn, void *line) {
  if (conn->connection_param == &subscribed) mg_websocket_write(conn, 1, line, strlen(line));
}

/* Numbers without a gap, so that who misses one, or gets one twice, notices. */
static void *beat(void *unused) {
  long event = 0, pushed = 0;
  char line[64];
  while (!stop) {
    int i = 0;
    pthread_mutex_lock(&lock);
    while (i < listener_count) {
      if (mg_printf(listeners[i], "data: %ld\n\n", event) > 0) i++;
      else listeners[i] = listeners[--listener_count];
    }
    pthread_mutex_unlock(&lock);
    event++;
    snprintf(line, sizeof line, "push %ld", pushed);
    if (mg_iterate_over_connections(server, push, line) >= 0) pushed++;
    usleep(BEAT_US);
  }
  __atomic_sub_fetch(&threads, 1, __ATOMIC_SEQ_CST);
  return unused;
}

static void start(void *(*thread)(void *)) {
  pthread_t id;
  if (pthread_create(&id, NULL, thread, NULL) != 0) exit(1);
  pthread_detach(id);
  threads++;
}

/* What is free goes back to the system, so that memory means memory that is in use. Files that are
 * kept open for the next who asks for them are closed: any change of this option does that. */
static void report(void) {
  struct mallinfo2 info;
  char size[32];
  snprintf(size, sizeof size, "%s", mg_get_option(server, "file_cache_bytes"));
  mg_set_option(server, "file_cache_bytes", "0");
  mg_set_option(server, "file_cache_bytes", size);
  malloc_trim(0);
  info = mallinfo2();
  printf("known %ld used %zu\n", known, info.uordblks + info.hblkhd);
  fflush(stdout);
}

static void set(const char *name, const char *value) {
  const char *problem = mg_set_option(server, name, value);
  if (problem == NULL) return;
  fprintf(stderr, "%s\n", problem);
  exit(1);
}

/* What is done while a server serves: logs that were renamed, a certificate that is new, a port. */
static void turn(int workers) {
  static const char *names[] = {"access_log_file", "error_log_file", "ssl_certificate"};
  static char ports[500]; /* those that stay */
  char value[600];
  size_t i;

  for (i = 0; i < sizeof names / sizeof *names; i++) {
    const char *now = mg_get_option(server, names[i]);
    if (now == NULL || *now == '\0') continue;
    snprintf(value, sizeof value, "%s", now);
    set(names[i], value);
  }
  if (workers == 0) {
    if (ports[0] == '\0') {
      snprintf(ports, sizeof ports, "%s", mg_get_option(server, "listening_port"));
      snprintf(value, sizeof value, "%s,127.0.0.1:0", ports);
    } else {
      snprintf(value, sizeof value, "%s", ports);
      ports[0] = '\0';
    }
    set("listening_port", value);
  }
  printf("turned %s\n", mg_get_option(server, "listening_port"));
  fflush(stdout);
}

static void serve(int workers) {
  int i;
  for (i = 0; i < ANSWERERS; i++) start(answer_later);
  start(beat);
  while (!stop || __atomic_load_n(&threads, __ATOMIC_SEQ_CST) > 0) {
    mg_poll_server(server, 100);
    if (wanted) {
      wanted = 0;
      report();
    }
    if (turning) {
      turning = 0;
      turn(workers);
    }
    if (stop) pthread_cond_broadcast(&work);
  }
}

/* What a process that only keeps the others does: it ends with them. */
static int keep(int workers) {
  pid_t pids[MAX_WORKERS];
  int i, status, failed = 0;

  for (i = 0; i < workers; i++) {
    pids[i] = fork();
    if (pids[i] < 0) return 1;
    if (pids[i] == 0) {
      prctl(PR_SET_PDEATHSIG, SIGTERM);
      serve(workers);
      mg_destroy_server(&server);
      exit(0);
    }
    printf("worker %ld\n", (long) pids[i]);
    fflush(stdout); /* before the next fork, which copies what is not written */
  }
  for (i = 0; i < workers; i++) {
    while (waitpid(pids[i], &status, 0) < 0) {
      int other;
      for (other = 0; stop && other < workers; other++) kill(pids[other], SIGTERM);
    }
    failed |= status != 0;
  }
  return failed;
}

int main(int argc, char *argv[]) {
  struct sigaction action;
  int i, workers, failed = 0;

  if (argc < 4) return 2;
  workers = atoi(argv[1]) < MAX_WORKERS ? atoi(argv[1]) : MAX_WORKERS;
  server = mg_create_server(NULL);
  if (!mg_modify_passwords_file(argv[3], "mydomain.com", "joe", "secret")) return 1;
  set("dav_auth_file", argv[3]);
  for (i = 4; i + 1 < argc; i += 2) set(argv[i], argv[i + 1]);
  set("listening_port", argv[2]);
  mg_add_uri_handler(server, "/hello", hello);
  mg_add_uri_handler(server, "/echo", echo);
  mg_add_uri_handler(server, "/later", later);
  mg_add_uri_handler(server, "/events", events);
  mg_add_uri_handler(server, "/websocket", websocket);
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal; /* without SA_RESTART: what waits for children looks up */
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGUSR1, &action, NULL);
  sigaction(SIGHUP, &action, NULL);
  printf("%s\n", mg_get_option(server, "listening_port"));
  fflush(stdout);
  if (workers == 0) serve(workers);
  else failed = keep(workers);
  mg_destroy_server(&server);
  return failed;
}
