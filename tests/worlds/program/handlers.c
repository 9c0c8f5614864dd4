/* The handlers of a world's servers. A request says `?o=OWNER&r=NUMBER&l=LENGTH`, and gets a record of this name. */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct guest guests[MOST_OWNERS];

struct question {
  unsigned owner, request, len;
};

struct job {
  struct mg_connection *conn;
  struct question question;
  struct job *next;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct job *first, **last = &first;

static unsigned number_of(struct mg_connection *conn, const char *name) {
  char text[16];
  return mg_get_var(conn, name, text, sizeof text) > 0 ? (unsigned) strtoul(text, NULL, 10) : 0;
}

static struct question question_of(struct mg_connection *conn) {
  struct question question;
  question.owner = number_of(conn, "o") % MOST_OWNERS;
  question.request = number_of(conn, "r");
  question.len = number_of(conn, "l");
  return question;
}

/* What may happen while a handler runs. Called at the start of each. */
static struct question begin(struct mg_connection *conn) {
  struct slot *slot = conn->server_param;
  struct question question = question_of(conn);
  struct guest *guest = conn->connection_param;
  int doomed = 1;
  if (guest == NULL) {
    guest = &guests[question.owner];
    guest->owner = question.owner;
    conn->connection_param = guest;
  } else if (guest->owner != question.owner) {
    wrong("a request of %u comes by the connection of %u", question.owner, guest->owner);
  }
  if (atomic_compare_exchange_strong(&slot->doomed, &doomed, 0)) {
    struct mg_server *server = atomic_exchange(&slot->server, NULL);
    atomic_store(&slot->leave, 1);
    mg_destroy_server(&server);
    return question;
  }
  switch (below(&my_random, 120)) {
    case 0: walk(atomic_load(&slot->server)); break;
    case 1: change_something(atomic_load(&slot->server), &my_random); break;
    case 2: mg_poll_server(atomic_load(&slot->server), 5); break;
    case 3: {
      /* A child that does nothing, and disturbs nobody. */
      pid_t child = fork();
      if (child == 0) _exit(0);
      if (child > 0) waitpid(child, NULL, 0);
      break;
    }
    case 4:
    case 5: {
      const struct known *known = some_known(&my_random);
      if (known != NULL) write_record(known, my_stream, &my_random);
      break;
    }
  }
  return question;
}

static char *answer_to(struct question question, size_t *len) {
  char *record = malloc(record_size(question.owner, ANSWER, question.request, question.len) + 1);
  if (record == NULL) return NULL;
  *len = make_record(record, question.owner, ANSWER, question.request, question.len);
  record[*len] = 0;
  return record;
}

/* Notes that an answer, or a part of it, was refused: nobody is to wait for it. */
static void abandon(struct question question) {
  atomic_store(&ledger->owners[question.owner].abandoned, 1);
}

static int at_once(struct mg_connection *conn) {
  struct question question = begin(conn);
  size_t len;
  int head, body;
  char *record = answer_to(question, &len);
  if (record == NULL) return 1;
  switch (question.request % 4) {
    case 0:
      body = mg_printf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", len, record);
      if (body <= 0) abandon(question);
      break;
    case 1:
      head = mg_printf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", len);
      body = mg_write(conn, record, (int) (len / 2));
      if (body == (int) (len / 2)) body += mg_write(conn, record + len / 2, (int) (len - len / 2));
      if (head <= 0 || body != (int) len) abandon(question);
      break;
    case 2:
      mg_send_status(conn, 200);
      mg_send_header(conn, "Content-Type", "text/plain");
      mg_send_data(conn, record, (int) (len / 3));
      mg_send_data(conn, record + len / 3, (int) (len - len / 3));
      break;
    case 3: mg_printf_data(conn, "%s", record); break;
  }
  free(record);
  return 1;
}

/* What was sent has to be what this client sends by this request, and goes back. */
static int echo(struct mg_connection *conn) {
  struct question question = begin(conn);
  if (!is_record(conn->content, (size_t) conn->content_len, question.owner, UPWARDS, question.request))
    wrong("the content of %u, request %u, is %d bytes: %.60s", question.owner, question.request,
          conn->content_len, conn->content);
  mg_send_data(conn, conn->content, conn->content_len);
  return 1;
}

static int later(struct mg_connection *conn) {
  struct job *job = calloc(1, sizeof *job);
  struct question question = begin(conn);
  if (job == NULL) return 1;
  job->conn = conn;
  job->question = question;
  pthread_mutex_lock(&lock);
  *last = job;
  last = &job->next;
  pthread_mutex_unlock(&lock);
  return 1;
}

/* Writes a part of an answer, again and again where there is no room. What is refused is refused whole, so that
 * the next attempt does no harm. */
static int insist(struct mg_connection *conn, const char *bytes, size_t len) {
  int tries;
  for (tries = 0; tries < 40; tries++) {
    int result;
    begin_call("mg_write, later");
    result = mg_write(conn, bytes, (int) len);
    end_call();
    if (result == (int) len) return 1;
    if (result != 0) wrong("mg_write of %zu bytes returns %d", len, result);
    usleep(500);
  }
  return 0;
}

static void answer_job(struct job *job, uint64_t *random) {
  size_t len, at, head;
  char *record = answer_to(job->question, &len), *buf = malloc(len + 100);
  int done;
  if (record == NULL || buf == NULL) abort();
  head = (size_t) sprintf(buf, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", len);
  switch (job->question.request % 3) {
    case 0:
      memcpy(buf + head, record, len);
      done = insist(job->conn, buf, head + len);
      break;
    case 1:
      done = insist(job->conn, buf, head);
      for (at = 0; done && at < len;) {
        size_t piece = 1 + below(random, (unsigned) (len - at));
        done = insist(job->conn, record + at, piece);
        at += piece;
      }
      break;
    default:
      at = len / 2;
      done = insist(job->conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 47);
      head = (size_t) sprintf(buf, "%zx\r\n%.*s\r\n", at, (int) at, record);
      if (at > 0) done = done && insist(job->conn, buf, head);
      head = (size_t) sprintf(buf, "%zx\r\n%s\r\n0\r\n\r\n", len - at, record + at);
      done = done && insist(job->conn, buf, head);
  }
  if (!done) abandon(job->question);
  free(buf);
  free(record);
}

void answer_later_jobs(uint64_t *random) {
  for (;;) {
    struct job *job;
    pthread_mutex_lock(&lock);
    job = first;
    if (job != NULL && (first = job->next) == NULL) last = &first;
    pthread_mutex_unlock(&lock);
    if (job == NULL) return;
    if (below(random, 4) == 0) usleep(below(random, 3000));
    answer_job(job, random);
    free(job);
  }
}

static int events(struct mg_connection *conn) {
  begin(conn);
  mg_printf(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
  know(conn, EVENTS);
  return 1;
}

static int chunks(struct mg_connection *conn) {
  begin(conn);
  mg_printf(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
  know(conn, CHUNKS);
  return 1;
}

/* Messages are records with numbers that have no gap; `count N` asks whether all N have come. */
static int websocket(struct mg_connection *conn) {
  struct guest *guest;
  size_t len = (size_t) conn->content_len;
  if (!conn->is_websocket) {
    mg_send_status(conn, 400);
    return 1;
  }
  begin(conn);
  guest = conn->connection_param;
  if (guest == NULL) return 1; /* the server has ended */
  if (!guest->is_stream) know(conn, FRAMES);
  if ((conn->wsbits & 15) == 8) return 1;
  if (len > 6 && memcmp(conn->content, "count ", 6) == 0) {
    unsigned sent = (unsigned) strtoul(conn->content + 6, NULL, 10);
    if (sent != guest->messages)
      wrong("of %u messages of %u have come %u", sent, guest->owner, guest->messages);
    mg_websocket_write(conn, 1, conn->content, len);
    return 0;
  }
  if (!is_record(conn->content, len, guest->owner, UPWARDS, guest->messages))
    wrong("message %u of %u is %zu bytes: %.60s", guest->messages, guest->owner, len, conn->content);
  guest->messages++;
  if (below(&my_random, 2) == 0) {
    struct known self;
    self.conn = conn;
    self.owner = guest->owner;
    self.framing = FRAMES;
    write_record(&self, my_stream, &my_random);
  }
  return 0;
}

static int error(struct mg_connection *conn) {
  int status = conn->status_code;
  if (status != 404 || below(&my_random, 2) == 0) return 0;
  mg_printf_data(conn, "no such thing: %d\n", status);
  return 1;
}

void equip(struct slot *slot) {
  mg_add_uri_handler(slot->server, "/now", at_once);
  mg_add_uri_handler(slot->server, "/echo", echo);
  mg_add_uri_handler(slot->server, "/later", later);
  mg_add_uri_handler(slot->server, "/events", events);
  mg_add_uri_handler(slot->server, "/chunks", chunks);
  mg_add_uri_handler(slot->server, "/ws", websocket);
  mg_set_http_error_handler(slot->server, error);
}
