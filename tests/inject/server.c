/* A server for the scenarios: what it does beside serving is as little as possible, since calls of the library
   are made to fail in it.

   /count tells the number of the request on its connection, /echo the content, /deferred is answered by another
   thread; at /ws messages come back, and one that begins with "all " goes to all websockets, by another thread.
   Lines on standard input are carried out between two polls: "set NAME VALUE", "passwd FILE USER
   PASSWORD", "port" and "fork". */
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mongoose.h"

#define MAX_WAITING 64

static struct mg_server *server;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static char line[1024], text[1024];
static int has_line, has_text, stopping, failed;
static struct mg_connection *waiting[MAX_WAITING];
static int num_waiting;

static void say(const char *what, const char *value) {
  printf("%s %s\n", what, value == NULL ? "NULL" : value);
  fflush(stdout);
}

static int open_descriptors(void) {
  DIR *folder = opendir("/proc/self/fd");
  int count = 0;
  if (folder == NULL) return -1;
  while (readdir(folder) != NULL) count++;
  closedir(folder);
  return count;
}

/* Answers by one call, which takes all of it or nothing. */
static void answer(struct mg_connection *conn, const char *content, int len) {
  char *bytes = (char *) malloc((size_t) len + 100);
  int head_len = sprintf(bytes, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len);
  memcpy(bytes + head_len, content, (size_t) len);
  if (mg_write(conn, bytes, head_len + len) == 0) {
    static const char sorry[] = "HTTP/1.1 503 No Memory\r\nContent-Length: 6\r\n\r\nmemory";
    mg_write(conn, sorry, (int) sizeof(sorry) - 1);
  }
  free(bytes);
}

static int count(struct mg_connection *conn) {
  char number[32];
  long calls = (long) conn->connection_param + 1;
  conn->connection_param = (void *) calls;
  answer(conn, number, snprintf(number, sizeof(number), "%ld", calls));
  return 1;
}

static int echo(struct mg_connection *conn) {
  answer(conn, conn->content, conn->content_len);
  return 1;
}

static int deferred(struct mg_connection *conn) {
  pthread_mutex_lock(&lock);
  if (num_waiting < MAX_WAITING) waiting[num_waiting++] = conn;
  pthread_cond_signal(&changed);
  pthread_mutex_unlock(&lock);
  return 1;
}

static int websocket(struct mg_connection *conn) {
  if (!conn->is_websocket || (conn->wsbits & 15) > 2) return 0;
  if (conn->content_len > 4 && memcmp(conn->content, "all ", 4) == 0) {
    pthread_mutex_lock(&lock);
    snprintf(text, sizeof(text), "%s", conn->content + 4);
    has_text = 1;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
  } else if (mg_websocket_write(conn, conn->wsbits & 15, conn->content, (size_t) conn->content_len) <= 0) {
    mg_websocket_write(conn, 8, "\x03\xf3", 2); /* 1011: it cannot be answered */
  }
  return 0;
}

static void push(struct mg_connection *conn, void *param) {
  mg_websocket_write(conn, 1, (const char *) param, strlen((const char *) param));
}

/* The other thread: answers late, and pushes. */
static void *help(void *unused) {
  char copy[sizeof(text)];
  (void) unused;
  pthread_mutex_lock(&lock);
  while (!stopping) {
    if (num_waiting > 0) {
      struct mg_connection *conn = waiting[--num_waiting];
      pthread_mutex_unlock(&lock);
      answer(conn, "late", 4);
      pthread_mutex_lock(&lock);
    } else if (has_text) {
      strcpy(copy, text);
      has_text = 0;
      pthread_mutex_unlock(&lock);
      mg_iterate_over_connections(server, push, copy);
      pthread_mutex_lock(&lock);
    } else {
      pthread_cond_wait(&changed, &lock);
    }
  }
  pthread_mutex_unlock(&lock);
  return NULL;
}

static void *read_lines(void *unused) {
  char next[sizeof(line)];
  (void) unused;
  while (fgets(next, sizeof(next), stdin) != NULL) {
    next[strcspn(next, "\n")] = '\0';
    pthread_mutex_lock(&lock);
    while (has_line) pthread_cond_wait(&changed, &lock);
    strcpy(line, next);
    has_line = 1;
    pthread_mutex_unlock(&lock);
  }
  pthread_mutex_lock(&lock);
  stopping = 1;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  return NULL;
}

static void fork_once(void) {
  int status = -1;
  pid_t child = fork();
  if (child == 0) {
    mg_poll_server(server, 0);
    _exit(0);
  }
  if (child > 0) waitpid(child, &status, 0);
  say("forked", status == 0 ? "well" : "badly");
}

static void obey(char *words) {
  char *verb = strtok(words, " "), *name = strtok(NULL, " "), *value = strtok(NULL, "");
  if (verb == NULL) return;
  if (strcmp(verb, "set") == 0) {
    say("set", mg_set_option(server, name, value));
  } else if (strcmp(verb, "passwd") == 0) {
    char *user = strtok(value, " "), *password = strtok(NULL, " ");
    int done = mg_modify_passwords_file(name, mg_get_option(server, "auth_domain"), user, password);
    say("passwd", done ? "1" : "0");
  } else if (strcmp(verb, "fork") == 0) {
    fork_once();
  } else if (strcmp(verb, "port") == 0) {
    say("port", mg_get_option(server, "listening_port"));
  }
}

static void serve(void) {
  char copy[sizeof(line)];
  for (;;) {
    int has, stops;
    mg_poll_server(server, 10);
    pthread_mutex_lock(&lock);
    has = has_line;
    stops = stopping;
    if (has) strcpy(copy, line);
    has_line = 0;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    if (has) obey(copy);
    if (stops && !has) return;
  }
}

int main(int argc, char *argv[]) {
  pthread_t helper, reader;
  const char *problem, *port;
  int i, descriptors = open_descriptors();
  struct rlimit limit;
  server = mg_create_server(NULL);
  if (server == NULL) say("REFUSED", "no server");
  mg_add_uri_handler(server, "/count", count);
  mg_add_uri_handler(server, "/echo", echo);
  mg_add_uri_handler(server, "/deferred", deferred);
  mg_add_uri_handler(server, "/ws", websocket);
  for (i = 1; i < argc; i++) {
    char *value = strchr(argv[i], '=');
    if (value == NULL) continue;
    *value++ = '\0';
    if (strcmp(argv[i], "--descriptors") == 0) {
      getrlimit(RLIMIT_NOFILE, &limit);
      limit.rlim_cur = (rlim_t) atoi(value);
      setrlimit(RLIMIT_NOFILE, &limit);
    } else if ((problem = mg_set_option(server, argv[i], value)) != NULL) {
      say("REFUSED", problem);
    }
  }
  port = mg_get_option(server, "listening_port");
  say("PORT", port == NULL || *port == '\0' ? "none" : port);
  if (server != NULL) {
    pthread_create(&helper, NULL, help, NULL);
    pthread_create(&reader, NULL, read_lines, NULL);
    serve();
    pthread_join(helper, NULL);
    pthread_join(reader, NULL);
    mg_destroy_server(&server);
  }
  if (descriptors != open_descriptors()) {
    printf("%d descriptors are left open\n", open_descriptors() - descriptors);
    failed = 1;
  }
  return failed;
}
