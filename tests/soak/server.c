/* The server that the clients of this folder load: server ADDRESS PASSWORDS [NAME VALUE...].
 * Prints the address, and for each SIGUSR1 a line `known N used N`: how many connections other
 * threads were told of so far, and how many bytes of the heap are in use. SIGTERM ends it. */
#define _GNU_SOURCE
#include <malloc.h>
#include <mongoose.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_LISTENERS = 1000, ANSWERERS = 2, BEAT_US = 50000 };

struct job {
  struct mg_connection *conn;
  struct job *next;
  char token[64];
};

static volatile sig_atomic_t stop, wanted;
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

int main(int argc, char *argv[]) {
  const char *problem = NULL;
  int i;

  if (argc < 3) return 2;
  server = mg_create_server(NULL);
  if (!mg_modify_passwords_file(argv[2], "mydomain.com", "joe", "secret")) return 1;
  mg_set_option(server, "dav_auth_file", argv[2]);
  for (i = 3; i + 1 < argc && problem == NULL; i += 2) {
    problem = mg_set_option(server, argv[i], argv[i + 1]);
  }
  if (problem == NULL) problem = mg_set_option(server, "listening_port", argv[1]);
  if (problem != NULL) {
    fprintf(stderr, "%s\n", problem);
    return 1;
  }
  mg_add_uri_handler(server, "/hello", hello);
  mg_add_uri_handler(server, "/echo", echo);
  mg_add_uri_handler(server, "/later", later);
  mg_add_uri_handler(server, "/events", events);
  mg_add_uri_handler(server, "/websocket", websocket);
  signal(SIGTERM, on_signal);
  signal(SIGUSR1, on_signal);
  for (i = 0; i < ANSWERERS; i++) start(answer_later);
  start(beat);
  printf("%s\n", mg_get_option(server, "listening_port"));
  fflush(stdout);
  while (!stop || __atomic_load_n(&threads, __ATOMIC_SEQ_CST) > 0) {
    mg_poll_server(server, 100);
    if (wanted) {
      wanted = 0;
      report();
    }
    if (stop) pthread_cond_broadcast(&work);
  }
  mg_destroy_server(&server);
  return 0;
}
