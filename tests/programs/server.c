/* A server whose handlers do what the request tells them to, so that a test shows the bytes that
 * a program writes beside the bytes that the client must get.
 *
 * GET /do with fields "Do: write HTTP/1.1 200 OK\r\n\r\nhello" calls mg_write() with that text,
 * and so on: see perform(). /echo tells what the handler saw. Arguments are options (name=value)
 * and switches. Lines on standard input are carried out by another thread, or, with --step, by
 * the thread that polls, and then nothing is polled unless a line asks for it. */
#include <errno.h>
#include <grp.h>
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "check.h"
#include "mongoose.h"

static struct mg_server *server;
static volatile int stopping;
static int trace;

static const char *error_steps[8];
static int num_error_steps, error_returns = 1;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t one_more_kept = PTHREAD_COND_INITIALIZER;
static struct kept {
  char key[32];
  struct mg_connection *conn;
} kept[512];
static int num_kept;
static char io_line[1024];

static int do_handler(struct mg_connection *conn);

static void keep(const char *key, struct mg_connection *conn) {
  int i;
  pthread_mutex_lock(&lock);
  for (i = 0; i < num_kept && strcmp(kept[i].key, key) != 0; i++) {}
  if (i < (int) (sizeof(kept) / sizeof(kept[0]))) {
    snprintf(kept[i].key, sizeof(kept[i].key), "%s", key);
    kept[i].conn = conn;
    if (i == num_kept) num_kept++;
    pthread_cond_broadcast(&one_more_kept);
  }
  pthread_mutex_unlock(&lock);
}

/* Waits until some handler has kept a connection under this key. */
static struct mg_connection *find_kept(const char *key) {
  struct mg_connection *conn = NULL;
  int i;
  pthread_mutex_lock(&lock);
  while (conn == NULL) {
    for (i = 0; i < num_kept; i++) {
      if (strcmp(kept[i].key, key) == 0) conn = kept[i].conn;
    }
    if (conn == NULL) pthread_cond_wait(&one_more_kept, &lock);
  }
  pthread_mutex_unlock(&lock);
  return conn;
}

/* How many descriptors this process has open; -1 where it may not know. */
static int open_descriptors(void) {
  DIR *folder = opendir("/proc/self/fd");
  int count = 0;
  if (folder == NULL) return -1;
  while (readdir(folder) != NULL) count++;
  closedir(folder);
  return count;
}

static int hex(int digit) {
  return digit >= 'a' ? digit - 'a' + 10 : digit - '0';
}

/* Resolves \r \n \t \\ and \x41 in place; returns the length. */
static int unescape(char *text) {
  char *from = text, *to = text;
  while (*from != '\0') {
    if (*from != '\\') {
      *to++ = *from++;
    } else if (from[1] == 'x') {
      *to++ = (char) (hex(from[2]) * 16 + hex(from[3]));
      from += 4;
    } else {
      *to++ = from[1] == 'r' ? '\r' : from[1] == 'n' ? '\n' : from[1] == 't' ? '\t' : from[1];
      from += 2;
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

static char *filled(char **rest, int *len) {
  char *buf;
  *len = atoi(next_word(rest));
  buf = (char *) malloc((size_t) *len + 1);
  memset(buf, **rest, (size_t) *len);
  return buf;
}

static void write_file(const char *name, const char *text, int len) {
  FILE *file = fopen(name, "w");
  if (file == NULL) return;
  fwrite(text, 1, (size_t) len, file);
  fclose(file);
}

static void keep_each(struct mg_connection *conn, void *key) {
  keep((const char *) key, conn);
}

static void count_one(struct mg_connection *conn, void *param) {
  (void) conn;
  (*(int *) param)++;
}

static void write_to_each(struct mg_connection *conn, void *param) {
  mg_write(conn, param, (int) strlen((const char *) param));
}

static void send_text(struct mg_connection *conn, const char *text) {
  mg_printf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", (int) strlen(text), text);
}

static int first(struct mg_connection *conn) { return send_text(conn, "first"), 1; }
static int second(struct mg_connection *conn) { return send_text(conn, "second"), 1; }
static int third(struct mg_connection *conn) { return send_text(conn, "third"), 1; }
static int alive(struct mg_connection *conn) { return send_text(conn, "alive"), 1; }
static int silent(struct mg_connection *conn) { return (void) conn, 0; }

/* Answers with the number of calls on this connection. */
static int count(struct mg_connection *conn) {
  char text[32];
  long calls = (long) conn->connection_param + 1;
  conn->connection_param = (void *) calls;
  snprintf(text, sizeof(text), "%ld", calls);
  send_text(conn, text);
  return 1;
}

/* Tells what the handler sees. */
static int echo(struct mg_connection *conn) {
  int i;
  mg_send_header(conn, "Content-Type", "text/plain");
  mg_printf_data(conn, "method=%s\nuri=%s\nversion=%s\nquery=%s\nip=%s\n", conn->request_method,
                 conn->uri, conn->http_version, conn->query_string ? conn->query_string : "NULL",
                 conn->remote_ip);
  mg_printf_data(conn, "headers=%d\n", conn->num_headers);
  for (i = 0; i < conn->num_headers; i++) {
    mg_printf_data(conn, "%s: %s\n", conn->http_headers[i].name, conn->http_headers[i].value);
  }
  mg_printf_data(conn, "websocket=%d status=%d wsbits=%d param=%d\n", conn->is_websocket,
                 conn->status_code, conn->wsbits, conn->connection_param != NULL);
  mg_printf_data(conn, "terminated=%d content_len=%d\n", conn->content[conn->content_len] == '\0',
                 conn->content_len);
  mg_send_data(conn, conn->content, conn->content_len);
  return 1;
}

static int peer(struct mg_connection *conn) {
  char text[80];
  snprintf(text, sizeof(text), "%s %d", conn->remote_ip, conn->remote_port);
  send_text(conn, text);
  return 1;
}

/* Tells the variables a, b, c and d. */
static int vars(struct mg_connection *conn) {
  static const char *names[] = {"a", "b", "c", "d"};
  char value[16], text[256] = "";
  int i, len;
  for (i = 0; i < 4; i++) {
    strcpy(value, "untouched");
    len = mg_get_var(conn, names[i], value, sizeof(value));
    snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s=%d:%s\n", names[i], len,
             len == -1 && strcmp(value, "untouched") == 0 ? "" : value);
  }
  send_text(conn, text);
  return 1;
}

static mg_handler_t handler_named(const char *name) {
  return strcmp(name, "first") == 0    ? first
         : strcmp(name, "second") == 0 ? second
         : strcmp(name, "third") == 0  ? third
         : strcmp(name, "silent") == 0 ? silent
         : strcmp(name, "echo") == 0   ? echo
         : strcmp(name, "do") == 0     ? do_handler
                                       : NULL;
}

/* The port to which a socket is bound; 0 if it has none. */
static int port_of_socket(int sock) {
  struct sockaddr_in address;
  socklen_t len = sizeof(address);
  memset(&address, 0, sizeof(address));
  if (getsockname(sock, (struct sockaddr *) &address, &len) != 0) return 0;
  return address.sin_family == AF_INET ? ntohs(address.sin_port) : 0;
}

static int bind_local(const char *path) {
  struct sockaddr_un address;
  int sock = socket(AF_UNIX, SOCK_STREAM, 0);
  memset(&address, 0, sizeof(address));
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
  CHECK(bind(sock, (struct sockaddr *) &address, sizeof(address)) == 0);
  CHECK(listen(sock, 16) == 0);
  return sock;
}

static int run_child(int destroys) {
  int status = -1;
  pid_t child = fork();
  if (child == 0) {
    if (destroys) mg_destroy_server(&server);
    _exit(0);
  }
  CHECK(waitpid(child, &status, 0) == child);
  return status;
}

static int perform(struct mg_connection *conn, char *step, int last);

struct errand {
  struct mg_connection *conn;
  char *step;
  int result;
};

static void *run_errand(void *param) {
  struct errand *errand = (struct errand *) param;
  errand->result = perform(errand->conn, errand->step, 0);
  return NULL;
}

/* Carries one step out in another thread, and waits for its end. */
static int perform_elsewhere(struct mg_connection *conn, char *step) {
  struct errand errand;
  pthread_t thread;
  errand.conn = conn;
  errand.step = step;
  CHECK_INT(pthread_create(&thread, NULL, run_errand, &errand), 0);
  CHECK_INT(pthread_join(thread, NULL), 0);
  return errand.result;
}

static char *content_of(const char *name) {
  FILE *file = fopen(name, "rb");
  char *buf = calloc(1, 1 << 20);
  CHECK(file != NULL && buf != NULL);
  if (file == NULL || buf == NULL) exit(1);
  CHECK(fread(buf, 1, (1 << 20) - 1, file) > 0);
  fclose(file);
  return buf;
}

/* Carries one step out and returns what the called function returned. */
static int perform(struct mg_connection *conn, char *step, int last) {
  char *verb = next_word(&step), *word, *buf;
  const char *text;
  int len, number = 0;

  if (strcmp(verb, "write") == 0) {
    len = unescape(step);
    return mg_write(conn, step, len);
  } else if (strcmp(verb, "bytewise") == 0) {
    len = unescape(step);
    while (number < len && mg_write(conn, step + number, 1) == 1) number++;
    return number;
  } else if (strcmp(verb, "write_fill") == 0) {
    buf = filled(&step, &len);
    number = mg_write(conn, buf, len);
    free(buf);
    return number;
  } else if (strcmp(verb, "printf") == 0) {
    unescape(step);
    return mg_printf(conn, "%s", step);
  } else if (strcmp(verb, "status") == 0) {
    mg_send_status(conn, atoi(step));
    return conn->status_code;
  } else if (strcmp(verb, "header") == 0) {
    word = next_word(&step);
    unescape(word);
    unescape(step);
    mg_send_header(conn, word, step);
  } else if (strcmp(verb, "data") == 0) {
    len = unescape(step);
    mg_send_data(conn, step, len);
  } else if (strcmp(verb, "data_fill") == 0) {
    buf = filled(&step, &len);
    mg_send_data(conn, buf, len);
    free(buf);
  } else if (strcmp(verb, "printf_data") == 0) {
    unescape(step);
    mg_printf_data(conn, "%s", step);
  } else if (strcmp(verb, "keep") == 0) {
    keep(step, conn);
    SAY("kept %s", step);
  } else if (strcmp(verb, "to") == 0) { /* the rest, on the connection kept under this key */
    word = next_word(&step);
    return perform(find_kept(word), step, last);
  } else if (strcmp(verb, "elsewhere") == 0) { /* the rest, in another thread */
    return perform_elsewhere(conn, step);
  } else if (strcmp(verb, "say") == 0) {
    SAY("%s", step);
  } else if (strcmp(verb, "report") == 0) {
    SAY("%s %d", step, last);
    return last;
  } else if (strcmp(verb, "strings") == 0) {
    SAY("%s method=%s uri=%s query=%s headers=%d", step, conn->request_method, conn->uri,
        conn->query_string ? conn->query_string : "NULL", conn->num_headers);
  } else if (strcmp(verb, "peer") == 0) {
    SAY("%s peer=%s %d", step, conn->remote_ip, conn->remote_port);
  } else if (strcmp(verb, "set") == 0) {
    word = next_word(&step);
    text = mg_set_option(server, word, step);
    SAY("set %s: %s", word, text ? text : "NULL");
  } else if (strcmp(verb, "set_text") == 0) { /* to what is in a file */
    word = next_word(&step);
    buf = content_of(step);
    text = mg_set_option(server, word, buf);
    memset(buf, 'X', strlen(buf));
    free(buf);
    SAY("set %s: %s", word, text ? text : "NULL");
  } else if (strcmp(verb, "field") == 0) {
    text = mg_get_header(conn, step);
    mg_printf_data(conn, "%s", text ? text : "NULL");
  } else if (strcmp(verb, "get") == 0) {
    text = mg_get_option(server, step);
    SAY("get %s: %s", step, text ? text : "NULL");
  } else if (strcmp(verb, "handler") == 0) {
    word = next_word(&step);
    mg_add_uri_handler(server, word, handler_named(step));
  } else if (strcmp(verb, "poll") == 0) {
    return (int) mg_poll_server(server, atoi(step));
  } else if (strcmp(verb, "destroy") == 0) {
    mg_destroy_server(&server);
    SAY("destroyed: %s", server == NULL ? "NULL" : "not NULL");
  } else if (strcmp(verb, "iterate") == 0) {
    len = mg_iterate_over_connections(server, count_one, &number);
    SAY("iterated %d called %d", len, number);
  } else if (strcmp(verb, "keep_each") == 0) { /* under one key, so that the last one stays */
    len = mg_iterate_over_connections(server, keep_each, step);
    SAY("kept %d", len);
  } else if (strcmp(verb, "push") == 0) {
    unescape(step);
    len = mg_iterate_over_connections(server, write_to_each, step);
    SAY("pushed %d", len);
  } else if (strcmp(verb, "listener") == 0) {
    SAY("listener %s", mg_get_listening_socket(server) == -1 ? "none" : "open");
  } else if (strcmp(verb, "listener_port") == 0) { /* that of the socket which others may share */
    SAY("listener_port %d", port_of_socket(mg_get_listening_socket(server)));
  } else if (strcmp(verb, "adopt") == 0) { /* a Unix domain socket that the program has bound */
    mg_set_listening_socket(server, bind_local(step));
    SAY("adopted");
  } else if (strcmp(verb, "umask") == 0) {
    umask((mode_t) strtol(step, NULL, 8));
  } else if (strcmp(verb, "go") == 0) {
    CHECK(chdir(step) == 0);
  } else if (strcmp(verb, "child") == 0) { /* one that destroys its copy, or only exits */
    SAY("child ended with %d", run_child(strcmp(step, "destroys") == 0));
  } else if (strcmp(verb, "unlisten") == 0) {
    mg_set_listening_socket(server, -1);
  } else if (strcmp(verb, "spoil") == 0) {
    /* What a program may do: write all over its content and the byte behind it. */
    memset(conn->content, 'X', (size_t) conn->content_len + 1);
  } else if (strcmp(verb, "file") == 0) { /* its name, and what is to be in it from now on */
    word = next_word(&step);
    len = unescape(step);
    write_file(word, step, len);
  } else if (strcmp(verb, "remove") == 0) {
    unlink(step);
  } else if (strcmp(verb, "rename") == 0) {
    word = next_word(&step);
    rename(word, step);
  } else if (strcmp(verb, "forget") == 0) { /* a password file, and a user */
    word = next_word(&step);
    return mg_modify_passwords_file(word, mg_get_option(server, "auth_domain"), step, NULL);
  } else if (strcmp(verb, "whoami") == 0) {
    SAY("whoami %d %d %d %d %d", (int) getuid(), (int) geteuid(), (int) getgid(), (int) getegid(),
        getgroups(0, NULL));
  } else {
    SAY("unknown step %s", verb);
  }
  return 0;
}

/* Carries out the "Do" fields of the request. */
static int do_handler(struct mg_connection *conn) {
  char steps[30][512];
  int i, num_steps = 0, result = 0, result_of_handler = 0;
  if (trace) SAY("CALL %s %s", conn->request_method, conn->uri);
  for (i = 0; i < conn->num_headers; i++) {
    if (strcmp(conn->http_headers[i].name, "Do") == 0) {
      snprintf(steps[num_steps++], sizeof(steps[0]), "%s", conn->http_headers[i].value);
    }
  }
  for (i = 0; i < num_steps; i++) {
    if (strncmp(steps[i], "return ", 7) == 0) {
      result_of_handler = atoi(steps[i] + 7);
    } else {
      result = perform(conn, steps[i], result);
    }
  }
  return result_of_handler;
}

static int error_handler(struct mg_connection *conn) {
  int i, result = 0;
  char step[512];
  SAY("ERROR %d method=%s uri=%s query=%s headers=%d", conn->status_code, conn->request_method,
      conn->uri, conn->query_string ? conn->query_string : "NULL", conn->num_headers);
  for (i = 0; i < num_error_steps; i++) {
    snprintf(step, sizeof(step), "%s", error_steps[i]);
    result = perform(conn, step, result);
  }
  return error_returns;
}

/* One line of standard input. */
static void obey(char *line) {
  char whole[1024], *key;
  struct mg_connection *conn = NULL;
  snprintf(whole, sizeof(whole), "%s", line);
  if (strncmp(line, "io ", 3) == 0) {
    pthread_mutex_lock(&lock);
    strcpy(io_line, line + 3);
    pthread_mutex_unlock(&lock);
    return;
  }
  if (strncmp(line, "late ", 5) == 0) {
    line += 5;
    key = next_word(&line);
    conn = find_kept(key);
    SAY("late %s %s: %d", key, whole + 6 + strlen(key), perform(conn, line, 0));
    return;
  }
  perform(conn, line, 0);
}

static int read_line(char *line, size_t size) {
  if (fgets(line, (int) size, stdin) == NULL) return 0;
  line[strcspn(line, "\n")] = '\0';
  return 1;
}

static void *obey_lines(void *unused) {
  char line[1024];
  (void) unused;
  while (read_line(line, sizeof(line))) obey(line);
  stopping = 1;
  return NULL;
}

/* Polls for ever, beside the thread that obeys. */
static void poll_freely(void) {
  pthread_t thread;
  char line[1024];
  pthread_create(&thread, NULL, obey_lines, NULL);
  while (!stopping && server != NULL) {
    mg_poll_server(server, 50);
    pthread_mutex_lock(&lock);
    strcpy(line, io_line);
    io_line[0] = '\0';
    pthread_mutex_unlock(&lock);
    if (line[0] != '\0') obey(line);
  }
  if (server == NULL) SAY("GONE");
  pthread_join(thread, NULL);
}

/* Polls as often as it is told to: "poll 3", or "run" until the next line. */
static void poll_by_step(void) {
  struct pollfd input = {0, POLLIN, 0};
  char line[1024];
  int n, running = 0;
  setvbuf(stdin, NULL, _IONBF, 0);
  for (;;) {
    if (running && poll(&input, 1, 0) == 0) {
      mg_poll_server(server, 5);
      continue;
    }
    if (!read_line(line, sizeof(line))) return;
    running = 0;
    if (strcmp(line, "run") == 0) {
      running = 1;
    } else if (strncmp(line, "poll ", 5) == 0) {
      for (n = atoi(line + 5); n > 0; n--) mg_poll_server(server, 0);
      SAY("polled");
    } else {
      obey(line);
    }
  }
}

/* Open at the start; what a habit leaves open stays. */
static int descriptors;

static void reap_everything(int signal_number) {
  int saved = errno;
  (void) signal_number;
  while (waitpid(-1, NULL, WNOHANG) > 0) {}
  errno = saved;
}

/* What programs do beside a server: with signals, with descriptors, with processes. */
static void live_with(const char *habit) {
  struct sigaction action;
  sigset_t all;
  int status;
  pid_t child;
  memset(&action, 0, sizeof(action));
  if (strcmp(habit, "ignored-children") == 0) {
    signal(SIGCHLD, SIG_IGN);
  } else if (strcmp(habit, "reaped-children") == 0) {
    action.sa_handler = reap_everything;
    action.sa_flags = SA_RESTART;
    sigaction(SIGCHLD, &action, NULL);
  } else if (strcmp(habit, "deadly-pipes") == 0) {
    signal(SIGPIPE, SIG_DFL);
  } else if (strcmp(habit, "blocked-signals") == 0) {
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    signal(SIGTERM, SIG_IGN);
  } else if (strcmp(habit, "open-descriptors") == 0) {
    CHECK(dup2(1, 7) == 7); /* without close-on-exec */
    descriptors += descriptors == -1 ? 0 : 1;
  } else if (strcmp(habit, "fork") == 0) {
    mg_poll_server(server, 0);
    fflush(stdout);
    child = fork();
    CHECK(child != -1);
    if (child > 0) {
      CHECK(waitpid(child, &status, 0) == child);
      mg_destroy_server(&server);
      exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    }
  } else {
    SAY("unknown habit %s", habit);
  }
}

/* Listens on a Unix domain socket that the program itself has opened. */
static void listen_at(const char *path) {
  struct sockaddr_un address;
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  memset(&address, 0, sizeof(address));
  address.sun_family = AF_UNIX;
  CHECK(strlen(path) < sizeof(address.sun_path));
  strcpy(address.sun_path, path);
  CHECK(bind(listener, (struct sockaddr *) &address, sizeof(address)) == 0);
  CHECK(listen(listener, 16) == 0);
  mg_set_listening_socket(server, listener);
}

int main(int argc, char *argv[]) {
  int i, step = 0;
  struct rlimit limit;
  char *value;
  const char *problem;

  descriptors = open_descriptors();
  server = mg_create_server(NULL);
  mg_add_uri_handler(server, "/alive", alive);
  mg_add_uri_handler(server, "/do", do_handler);
  mg_add_uri_handler(server, "/echo", echo);
  mg_add_uri_handler(server, "/count", count);
  mg_add_uri_handler(server, "/vars", vars);
  mg_add_uri_handler(server, "/peer", peer);
  for (i = 1; i < argc; i++) {
    value = strchr(argv[i], '=');
    if (strcmp(argv[i], "--step") == 0) {
      step = 1;
    } else if (strcmp(argv[i], "--trace") == 0) {
      trace = 1;
    } else if (strcmp(argv[i], "--errors") == 0) {
      mg_set_http_error_handler(server, error_handler);
    } else if (value == NULL) {
      SAY("unknown argument %s", argv[i]);
    } else {
      *value++ = '\0';
      if (strcmp(argv[i], "--handler") == 0) { /* --handler=/uri=first */
        char *name = strrchr(value, '=');
        *name++ = '\0';
        mg_add_uri_handler(server, value, handler_named(name));
      } else if (strcmp(argv[i], "--descriptors") == 0) {
        CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
        limit.rlim_cur = (rlim_t) atoi(value);
        CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
      } else if (strcmp(argv[i], "--file-size") == 0) {
        CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
        limit.rlim_cur = (rlim_t) atoi(value);
        CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
      } else if (strcmp(argv[i], "--error") == 0) {
        error_steps[num_error_steps++] = value;
      } else if (strcmp(argv[i], "--unix") == 0) {
        listen_at(value);
      } else if (strcmp(argv[i], "--habit") == 0) {
        live_with(value);
      } else if (strcmp(argv[i], "--error-returns") == 0) {
        error_returns = atoi(value);
      } else if ((problem = mg_set_option(server, argv[i], value)) != NULL) {
        SAY("REFUSED %s: %s", argv[i], problem);
      }
    }
  }
  SAY("PORT %s", port_of(mg_get_option(server, "listening_port")));
  if (step) {
    poll_by_step();
  } else {
    poll_freely();
  }
  mg_destroy_server(&server);
  if (open_descriptors() != -1) CHECK_INT(open_descriptors(), descriptors);
  return VERDICT;
}
