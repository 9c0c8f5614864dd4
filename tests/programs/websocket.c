/* A server of websockets that prints every event as a line, and does what messages tell it to.
 *
 * At /events and /spoil an event is printed as "EVENT 81 5 hello": first byte of the frame, length,
 * payload. A text that begins with "do " is not printed: its lines are steps, see perform(). Lines
 * on standard input are steps of another thread; "io STEP" is carried out by the thread that polls,
 * between two polls. Arguments are options (name=value) and switches; with --unpolled the thread
 * that polls carries out the lines, and nothing is polled but by "meet", until the line "run". */
#include <fcntl.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "check.h"
#include "mongoose.h"

#define MAX_KEPT 64
#define MAX_SPAWNED 16
#define PUSHERS 4

/* What the first event of a connection saw. */
struct seen {
  struct seen *next;
  const char *method, *uri, *query;
  struct mg_header headers[30];
  int num_headers;
  char text[1024];
  char on_close[256];
};

static struct mg_server *server;
static struct seen *all_seen;
static volatile int stopping;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static char kept_keys[MAX_KEPT][32];
static struct mg_connection *kept[MAX_KEPT];
static int num_kept, may_go, has_io_line;
static char io_line[4096];

static pthread_t spawned[MAX_SPAWNED];
static int num_spawned;
static volatile pid_t latest_spawned;

static int perform(struct mg_connection *conn, char *step);
static int perform_all(struct mg_connection *conn, char *steps);

/* Until another thread carries "go" out. */
static void wait_for_go(void) {
  pthread_mutex_lock(&lock);
  SAY("waiting");
  while (!may_go) pthread_cond_wait(&changed, &lock);
  may_go = 0;
  pthread_mutex_unlock(&lock);
}

static void keep(const char *key, struct mg_connection *conn) {
  int i;
  pthread_mutex_lock(&lock);
  for (i = 0; i < num_kept && strcmp(kept_keys[i], key) != 0; i++) {}
  if (i < MAX_KEPT) {
    snprintf(kept_keys[i], sizeof(kept_keys[i]), "%s", key);
    kept[i] = conn;
    if (i == num_kept) num_kept++;
  }
  pthread_mutex_unlock(&lock);
}

static struct mg_connection *find_kept(const char *key) {
  struct mg_connection *conn = NULL;
  int i;
  pthread_mutex_lock(&lock);
  for (i = 0; i < num_kept; i++) {
    if (strcmp(kept_keys[i], key) == 0) conn = kept[i];
  }
  pthread_mutex_unlock(&lock);
  return conn;
}

static void describe(struct mg_connection *conn, char *text, size_t size) {
  int i, len;
  len = snprintf(text, size, "%s %s %s", conn->request_method, conn->uri,
                 conn->query_string ? conn->query_string : "NULL");
  for (i = 0; i < conn->num_headers && len < (int) size; i++) {
    len += snprintf(text + len, size - (size_t) len, " %s=%s", conn->http_headers[i].name,
                    conn->http_headers[i].value);
  }
}

/* The handshake's strings stay where they are, and as they are. */
static struct seen *check_unchanged(struct mg_connection *conn) {
  struct seen *seen = (struct seen *) conn->connection_param;
  char text[sizeof(seen->text)];
  int i;
  if (seen == NULL) {
    seen = (struct seen *) calloc(1, sizeof(*seen));
    seen->next = all_seen;
    all_seen = seen;
    seen->method = conn->request_method;
    seen->uri = conn->uri;
    seen->query = conn->query_string;
    seen->num_headers = conn->num_headers;
    memcpy(seen->headers, conn->http_headers, sizeof(seen->headers));
    describe(conn, seen->text, sizeof(seen->text));
    conn->connection_param = seen;
  }
  CHECK_INT(conn->is_websocket, 1);
  CHECK_INT(conn->status_code, 0);
  CHECK(conn->request_method == seen->method && conn->uri == seen->uri);
  CHECK(conn->query_string == seen->query);
  CHECK_INT(conn->num_headers, seen->num_headers);
  for (i = 0; i < seen->num_headers; i++) {
    CHECK(conn->http_headers[i].name == seen->headers[i].name);
    CHECK(conn->http_headers[i].value == seen->headers[i].value);
  }
  describe(conn, text, sizeof(text));
  CHECK_STR(text, seen->text);
  return seen;
}

static void print_event(struct mg_connection *conn) {
  static const char digits[] = "0123456789abcdef";
  char text[1024], *to = text;
  unsigned hash = 2166136261u;
  int i;
  for (i = 0; i < conn->content_len; i++) {
    unsigned byte = (unsigned char) conn->content[i];
    hash = (hash ^ byte) * 16777619u;
    if (conn->content_len > 200) continue;
    if (byte >= ' ' && byte < 127 && byte != '\\') {
      *to++ = (char) byte;
    } else {
      *to++ = '\\';
      *to++ = 'x';
      *to++ = digits[byte >> 4];
      *to++ = digits[byte & 15];
    }
  }
  *to = '\0';
  if (conn->content_len > 200) sprintf(text, "#%08x", hash);
  SAY("EVENT %02x %d %s", conn->wsbits, conn->content_len, text);
}

static int hex(int digit) {
  return digit >= 'a' ? digit - 'a' + 10 : digit - '0';
}

/* Resolves \x41 in place; returns the length. */
static int unescape(char *text) {
  char *from = text, *to = text;
  while (*from != '\0') {
    if (from[0] == '\\' && from[1] == 'x') {
      *to++ = (char) (hex(from[2]) * 16 + hex(from[3]));
      from += 4;
    } else {
      *to++ = *from++;
    }
  }
  *to = '\0';
  return (int) (to - text);
}

/* Cuts the first word off. */
static char *next_word(char **rest) {
  char *word = *rest, *space = strchr(word, ' ');
  if (space == NULL) {
    *rest = word + strlen(word);
  } else {
    *space = '\0';
    *rest = space + 1;
  }
  return word;
}

/* Whom a walk over the connections has visited. */
struct walk {
  struct mg_connection *visited[256];
  int count, nested;
  const char *text;
  struct mg_connection *own; /* whose handler walks, or to whom is written */
  size_t len;
};

static void visit(struct mg_connection *conn, void *param) {
  struct walk *walk = (struct walk *) param;
  int i;
  for (i = 0; i < walk->count; i++) CHECK(walk->visited[i] != conn);
  if (walk->count < 256) walk->visited[walk->count++] = conn;
  if (conn->connection_param != NULL) check_unchanged(conn);
}

/* Only the connection whose handler walks has content. */
static void visit_content(struct mg_connection *conn, void *param) {
  struct walk *walk = (struct walk *) param;
  visit(conn, param);
  if (conn == walk->own) {
    CHECK(conn->content_len > 3 && strncmp(conn->content, "do ", 3) == 0);
  } else {
    CHECK_INT(conn->content_len, 0);
    CHECK_STR(conn->content, "");
  }
}

static void visit_nested(struct mg_connection *conn, void *param) {
  struct walk *walk = (struct walk *) param, inner = {{NULL}, 0, 0, NULL, NULL, 0};
  visit(conn, param);
  CHECK_INT(mg_iterate_over_connections(server, visit, &inner), inner.count);
  walk->nested += inner.count;
}

static void visit_text(struct mg_connection *conn, void *param) {
  struct walk *walk = (struct walk *) param;
  visit(conn, param);
  CHECK_INT(mg_websocket_write(conn, 1, walk->text, strlen(walk->text)), strlen(walk->text) + 2);
}

static void visit_fill(struct mg_connection *conn, void *param) {
  struct walk *walk = (struct walk *) param;
  visit(conn, param);
  CHECK(mg_websocket_write(conn, 2, walk->text, walk->len) > 0);
  if (walk->count == 10) wait_for_go();
}

/* Tells one connection of each that is visited. */
static void visit_and_tell(struct mg_connection *conn, void *param) {
  struct walk *walk = (struct walk *) param;
  visit(conn, param);
  CHECK_INT(mg_websocket_write(walk->own, 1, walk->text, strlen(walk->text)),
            strlen(walk->text) + 2);
}

static void visit_and_say(struct mg_connection *conn, void *param) {
  visit(conn, param);
  CHECK(conn->content[conn->content_len] == '\0');
  SAY("sees %d %s %d", conn->content_len, conn->content, conn->wsbits);
}

static void visit_close(struct mg_connection *conn, void *param) {
  visit(conn, param);
  CHECK_INT(mg_websocket_write(conn, 8, "\x03\xe8", 2), 4);
  CHECK_INT(mg_websocket_write(conn, 1, "late", 4), -1);
}

static void *perform_elsewhere(void *step) {
  perform(NULL, (char *) step);
  free(step);
  return NULL;
}

static void *iterate_and_tell(void *unused) {
  struct walk walk = {{NULL}, 0, 0, NULL, NULL, 0};
  int result;
  (void) unused;
  latest_spawned = (pid_t) syscall(SYS_gettid);
  result = mg_iterate_over_connections(server, visit_content, &walk);
  SAY("elsewhere iterated %d called %d", result, walk.count);
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

/* One of several threads that write to all kept connections. */
static int push_count;

static void *push(void *param) {
  int thread = *(int *) param, number, i, len, filler, written;
  char text[512];
  for (number = 0; number < push_count; number++) {
    len = sprintf(text, "%d %d ", thread, number);
    filler = number * 37 % 300;
    memset(text + len, 'a' + thread, (size_t) filler);
    len += filler;
    for (i = 0; i < num_kept; i++) {
      written = mg_websocket_write(kept[i], 1, text, (size_t) len);
      CHECK(written == -1 || written == len + (len < 126 ? 2 : 4));
    }
  }
  return NULL;
}

/* Carries one step out; what it returns is for the handler to return. */
static int perform(struct mg_connection *conn, char *step) {
  struct walk walk = {{NULL}, 0, 0, NULL, NULL, 0};
  static int numbers[PUSHERS];
  pthread_t threads[PUSHERS];
  char *verb = next_word(&step), *word, *buf, value[32];
  const char *problem;
  int i, len, written;

  if (strcmp(verb, "write") == 0) { /* write OPCODE PAYLOAD */
    i = atoi(next_word(&step));
    len = unescape(step);
    SAY("wrote %d", mg_websocket_write(conn, i, step, (size_t) len));
  } else if (strcmp(verb, "fill") == 0) { /* fill OPCODE LENGTH */
    i = atoi(next_word(&step));
    len = atoi(step);
    buf = (char *) malloc((size_t) len + 1);
    memset(buf, 'x', (size_t) len);
    SAY("wrote %d", mg_websocket_write(conn, i, buf, (size_t) len));
    free(buf);
  } else if (strcmp(verb, "flood") == 0) { /* flood LENGTH: until nothing more is taken */
    len = atoi(step);
    buf = (char *) malloc((size_t) len + 1);
    memset(buf, 'x', (size_t) len);
    for (i = 0; (written = mg_websocket_write(conn, 2, buf, (size_t) len)) > 0; i++) {}
    SAY("flooded %d %d", i, written);
    free(buf);
  } else if (strcmp(verb, "impossible") == 0) { /* nobody has that much, or says where it is */
    CHECK_INT(mg_websocket_write(conn, 2, "x", (size_t) -1), -1);
    CHECK_INT(mg_websocket_write(conn, 2, "x", (size_t) -1 / 2), -1);
    CHECK_INT(mg_websocket_write(conn, 2, "x", (size_t) 1 << 31), -1);
    CHECK_INT(mg_websocket_write(conn, 2, NULL, 1), -1);
    CHECK_INT(mg_websocket_write(conn, 2, NULL, 0), 2);
  } else if (strcmp(verb, "raw") == 0) {
    len = unescape(step);
    SAY("raw %d", mg_write(conn, step, len));
  } else if (strcmp(verb, "printf") == 0) {
    unescape(step);
    SAY("printf %d", mg_printf(conn, "%s", step));
  } else if (strcmp(verb, "send") == 0) {
    mg_send_status(conn, 200);
    mg_send_header(conn, "X", "y");
    mg_send_data(conn, step, (int) strlen(step));
    mg_printf_data(conn, "%s", step);
  } else if (strcmp(verb, "return") == 0) {
    return atoi(step);
  } else if (strcmp(verb, "onclose") == 0) { /* a step for when a Close is shown */
    struct seen *seen = (struct seen *) conn->connection_param;
    len = (int) strlen(seen->on_close);
    snprintf(seen->on_close + len, sizeof(seen->on_close) - (size_t) len, "%s\n", step);
  } else if (strcmp(verb, "keep") == 0) {
    keep(step, conn);
    SAY("kept %s", step);
  } else if (strcmp(verb, "to") == 0) { /* the rest, on the connection kept under this key */
    word = next_word(&step);
    return perform(find_kept(word), step);
  } else if (strcmp(verb, "say") == 0) {
    SAY("%s", step);
  } else if (strcmp(verb, "strings") == 0) {
    SAY("strings %s", ((struct seen *) conn->connection_param)->text);
  } else if (strcmp(verb, "peer") == 0) {
    SAY("%s peer=%s %d", step, conn->remote_ip, conn->remote_port);
  } else if (strcmp(verb, "set") == 0) {
    word = next_word(&step);
    problem = mg_set_option(server, word, step);
    SAY("set %s: %s", word, problem ? problem : "NULL");
  } else if (strcmp(verb, "vars") == 0) {
    for (verb = strtok(step, " "); verb != NULL; verb = strtok(NULL, " ")) {
      strcpy(value, "untouched");
      len = mg_get_var(conn, verb, value, sizeof(value));
      SAY("var %s %d %s", verb, len, value);
    }
  } else if (strcmp(verb, "count") == 0) {
    SAY("counted %d", mg_iterate_over_connections(server, NULL, NULL));
  } else if (strcmp(verb, "iterate") == 0) {
    walk.own = conn;
    i = mg_iterate_over_connections(server, visit_content, &walk);
    SAY("iterated %d called %d", i, walk.count);
  } else if (strcmp(verb, "contents") == 0) {
    i = mg_iterate_over_connections(server, visit_and_say, &walk);
    SAY("iterated %d called %d", i, walk.count);
  } else if (strcmp(verb, "nested") == 0) {
    i = mg_iterate_over_connections(server, visit_nested, &walk);
    SAY("iterated %d called %d nested %d", i, walk.count, walk.nested);
  } else if (strcmp(verb, "broadcast") == 0) {
    walk.text = step;
    i = mg_iterate_over_connections(server, visit_text, &walk);
    SAY("iterated %d called %d", i, walk.count);
  } else if (strcmp(verb, "tell") == 0) { /* tell KEY TEXT, once for each websocket */
    walk.own = find_kept(next_word(&step));
    walk.text = step;
    i = mg_iterate_over_connections(server, visit_and_tell, &walk);
    SAY("iterated %d called %d", i, walk.count);
  } else if (strcmp(verb, "closeall") == 0) {
    i = mg_iterate_over_connections(server, visit_close, &walk);
    SAY("iterated %d called %d", i, walk.count);
  } else if (strcmp(verb, "spawn") == 0) { /* iterate on a thread of its own */
    if (num_spawned < MAX_SPAWNED) {
      latest_spawned = 0;
      pthread_create(&spawned[num_spawned++], NULL, iterate_and_tell, NULL);
    }
  } else if (strcmp(verb, "asleep") == 0) { /* until the spawned thread waits */
    while (latest_spawned == 0 || !sleeps(latest_spawned)) sched_yield();
  } else if (strcmp(verb, "wait") == 0) {
    wait_for_go();
  } else if (strcmp(verb, "elsewhere") == 0) { /* the rest, on a thread of its own */
    if (num_spawned < MAX_SPAWNED) {
      pthread_create(&spawned[num_spawned++], NULL, perform_elsewhere, strdup(step));
    }
  } else if (strcmp(verb, "fillall") == 0) { /* fillall LENGTH: a walk that waits in its tenth visit */
    walk.len = (size_t) atoi(step);
    walk.text = buf = (char *) malloc(walk.len);
    memset(buf, 'x', walk.len);
    i = mg_iterate_over_connections(server, visit_fill, &walk);
    free(buf);
    SAY("iterated %d called %d", i, walk.count);
  } else if (strcmp(verb, "go") == 0) {
    pthread_mutex_lock(&lock);
    may_go = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
  } else if (strcmp(verb, "push") == 0) {
    push_count = atoi(step);
    for (i = 0; i < PUSHERS; i++) {
      numbers[i] = i;
      pthread_create(&threads[i], NULL, push, &numbers[i]);
    }
    for (i = 0; i < PUSHERS; i++) pthread_join(threads[i], NULL);
    SAY("pushed");
  } else if (strcmp(verb, "destroy") == 0) {
    mg_destroy_server(&server);
    SAY("destroyed: %s", server == NULL ? "NULL" : "not NULL");
  } else if (strcmp(verb, "io") == 0) {
    pthread_mutex_lock(&lock);
    while (has_io_line && !stopping) pthread_cond_wait(&changed, &lock);
    snprintf(io_line, sizeof(io_line), "%s", step);
    has_io_line = 1;
    pthread_mutex_unlock(&lock);
  } else {
    SAY("unknown step %s", verb);
  }
  return 0;
}

static int perform_all(struct mg_connection *conn, char *steps) {
  int result = 0;
  while (*steps != '\0') {
    char *step = steps, *end = strchr(steps, '\n');
    steps = end ? end + 1 : steps + strlen(steps);
    if (end) *end = '\0';
    result |= perform(conn, step);
  }
  return result;
}

static int plain(struct mg_connection *conn) {
  SAY("HTTP %s %s", conn->request_method, conn->uri);
  CHECK_INT(mg_websocket_write(conn, 1, "x", 1), -1);
  CHECK_INT(conn->wsbits, 0);
  mg_printf_data(conn, "plain");
  return 1;
}

static int on_event(struct mg_connection *conn) {
  struct seen *seen;
  char *steps;
  int result = 0;
  if (!conn->is_websocket) return plain(conn);
  seen = check_unchanged(conn);
  CHECK(conn->content != NULL && conn->content[conn->content_len] == '\0');
  if ((conn->wsbits & 15) == 1 && strncmp(conn->content, "do ", 3) == 0) {
    steps = strdup(conn->content + 3);
    result = perform_all(conn, steps);
    free(steps);
    return result;
  }
  print_event(conn);
  if ((conn->wsbits & 15) == 8) result = perform_all(conn, seen->on_close);
  return result;
}

/* Writes all over what it was shown and the byte behind it. */
static int spoil(struct mg_connection *conn) {
  int result = on_event(conn);
  memset(conn->content, 'X', (size_t) conn->content_len + 1);
  return result;
}

static int echo(struct mg_connection *conn) {
  int opcode = conn->wsbits & 15;
  if (!conn->is_websocket) return plain(conn);
  check_unchanged(conn);
  if (opcode == 1 || opcode == 2) {
    CHECK(mg_websocket_write(conn, opcode, conn->content, (size_t) conn->content_len) > 0);
  }
  return 0;
}

/* Tells four variables at every message. */
static int vars(struct mg_connection *conn) {
  char names[] = "a b c d e";
  char step[32];
  sprintf(step, "vars %s", names);
  if (!conn->is_websocket) return plain(conn);
  return (conn->wsbits & 15) < 8 ? perform(conn, step) : 0;
}

static int on_error(struct mg_connection *conn) {
  SAY("ERROR %d %s websocket=%d", conn->status_code, conn->uri, conn->is_websocket);
  return 0;
}

static int read_line(char *line, size_t size) {
  if (fgets(line, (int) size, stdin) == NULL) return 0;
  line[strcspn(line, "\n")] = '\0';
  return 1;
}

static void *obey_lines(void *unused) {
  char line[4096];
  (void) unused;
  while (read_line(line, sizeof(line))) perform(NULL, line);
  stopping = 1;
  return NULL;
}

static void poll_freely(void) {
  pthread_t thread;
  char line[4096];
  int has_line;
  pthread_create(&thread, NULL, obey_lines, NULL);
  while (!stopping && server != NULL) {
    mg_poll_server(server, 20);
    pthread_mutex_lock(&lock);
    has_line = has_io_line;
    strcpy(line, io_line);
    has_io_line = 0;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    if (has_line) perform(NULL, line);
  }
  if (server == NULL) SAY("GONE");
  pthread_join(thread, NULL);
}

/* Carries lines out and polls only to "meet" that many websockets; whether to "run" then. */
static int obey_unpolled(void) {
  char line[4096];
  setvbuf(stdin, NULL, _IONBF, 0);
  while (read_line(line, sizeof(line))) {
    if (strcmp(line, "run") == 0) return 1;
    if (strncmp(line, "meet ", 5) == 0) {
      do {
        mg_poll_server(server, 20);
      } while (mg_iterate_over_connections(server, NULL, NULL) != atoi(line + 5));
      SAY("met");
    } else {
      perform(NULL, line);
    }
  }
  return 0;
}

int main(int argc, char *argv[]) {
  int i, runs, unpolled = 0;
  const char *problem;
  struct seen *next;
  char *value;

  server = mg_create_server(NULL);
  mg_set_option(server, "listening_port", "127.0.0.1:0");
  mg_add_uri_handler(server, "/events", on_event);
  mg_add_uri_handler(server, "/spoil", spoil);
  mg_add_uri_handler(server, "/echo", echo);
  mg_add_uri_handler(server, "/vars", vars);
  for (i = 1; i < argc; i++) {
    value = strchr(argv[i], '=');
    if (strcmp(argv[i], "--unpolled") == 0) {
      unpolled = 1;
    } else if (strcmp(argv[i], "--errors") == 0) {
      mg_set_http_error_handler(server, on_error);
    } else if (value == NULL) {
      SAY("unknown argument %s", argv[i]);
    } else {
      *value++ = '\0';
      problem = mg_set_option(server, argv[i], value);
      if (problem != NULL) SAY("REFUSED %s: %s", argv[i], problem);
    }
  }
  SAY("PORT %s", port_of(mg_get_option(server, "listening_port")));
  runs = unpolled ? obey_unpolled() : 1;
  if (runs) poll_freely();
  for (i = 0; i < num_spawned; i++) pthread_join(spawned[i], NULL);
  mg_destroy_server(&server);
  for (; all_seen != NULL; all_seen = next) {
    next = all_seen->next;
    free(all_seen);
  }
  return VERDICT;
}
