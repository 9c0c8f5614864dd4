/* Programs that fork between mg_create_server and their loop, or while they serve. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "check.h"
#include "mongoose.h"

static struct mg_server *server;
static volatile sig_atomic_t stop;
static int fork_wanted;

/* In place of the C library's, for workers that have run for long. */
static time_t seconds_ahead;
static int times_told;
int clock_gettime(clockid_t clock, struct timespec *time) {
  int result = (int) syscall(SYS_clock_gettime, clock, time);
  if (result == 0 && clock == CLOCK_REALTIME) {
    time->tv_sec += seconds_ahead;
    times_told++;
  }
  return result;
}

static void on_signal(int number) {
  (void) number;
  stop = 1;
}

static int pid(struct mg_connection *conn) {
  CHECK(seconds_ahead == 0 || times_told > 0);
  mg_printf_data(conn, "%d", (int) getpid());
  return 1;
}

/* How many of the descriptors that a daemon closes are open again. */
static int low_descriptors(struct mg_connection *conn) {
  int fd, open = 0;
  for (fd = 0; fd < 3; fd++) open += fcntl(fd, F_GETFD) != -1;
  mg_printf_data(conn, "%d", open);
  return 1;
}

/* A child that leaves at once, in the middle of a handler. */
static int fork_here(struct mg_connection *conn) {
  pid_t child = fork();
  int status = -1;
  if (child == 0) _exit(0);
  waitpid(child, &status, 0);
  mg_printf_data(conn, "%d", status);
  return 1;
}

/* A child that stays, with all that is open, while the parent ends the connection. */
static int fork_on(struct mg_connection *conn) {
  if (fork() == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == 1) _exit(0);
    for (;;) pause();
  }
  mg_printf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\non");
  return 1;
}

static int fork_later(struct mg_connection *conn) {
  fork_wanted = 1;
  mg_printf_data(conn, "soon");
  return 1;
}

static int serve(void) {
  while (!stop) mg_poll_server(server, 20);
  mg_destroy_server(&server);
  return VERDICT;
}

static pid_t start_child(int daemonise) {
  pid_t child = fork();
  if (child == 0) {
    if (daemonise) {
      setsid();
      close(0);
      close(1);
      close(2);
    } else {
      /* Or it would hold the pipes of a test that has failed, and with them the test. */
      prctl(PR_SET_PDEATHSIG, SIGTERM);
    }
    exit(serve());
  }
  return child;
}

static void end_child(pid_t child) {
  int status = -1;
  kill(child, SIGTERM);
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void wait_for_end_of_input(void) {
  char byte;
  while (read(0, &byte, 1) > 0) {}
}

/* A child of a serving parent: uses its copy, or not, and destroys it, or not. */
static void child_of_server(void) {
  static int number;
  pid_t child;
  int status = -1;
  number++;
  fork_wanted = 0;
  child = fork();
  if (child == 0) {
    int polls = number % 2 == 0 ? 3 : 0;
    if (number % 3 == 1) CHECK(mg_set_option(server, "listening_port", "") == NULL);
    if (number % 3 == 2) mg_set_listening_socket(server, -1);
    while (polls-- > 0) mg_poll_server(server, 0);
    if (number % 3 != 0) mg_destroy_server(&server);
    _exit(number % 3 != 0 && server != NULL);
  }
  CHECK(waitpid(child, &status, 0) == child);
  SAY("child %d ended with %d", number, status);
}

int main(int argc, char *argv[]) {
  const char *how = argc > 1 ? argv[1] : "";
  pid_t children[4];
  int i;
  signal(SIGTERM, on_signal);
  server = mg_create_server(NULL);
  CHECK(mg_set_option(server, "listening_port", argc > 4 ? argv[4] : "127.0.0.1:0") == NULL);
  if (argc > 4) SAY("PORTS %s", mg_get_option(server, "listening_port"));
  if (argc > 2) CHECK(mg_set_option(server, "ssl_certificate", argv[2]) == NULL);
  if (argc > 5) CHECK(mg_set_option(server, "document_root", argv[5]) == NULL);
  mg_add_uri_handler(server, "/pid", pid);
  mg_add_uri_handler(server, "/low", low_descriptors);
  mg_add_uri_handler(server, "/fork_here", fork_here);
  mg_add_uri_handler(server, "/fork_later", fork_later);
  mg_add_uri_handler(server, "/fork_on", fork_on);
  if (strcmp(how, "daemon") == 0) {
    children[0] = start_child(1);
    SAY("PORT %s", port_of(mg_get_option(server, "listening_port")));
    wait_for_end_of_input();
    end_child(children[0]);
  } else if (strcmp(how, "workers") == 0) {
    if (argc > 3) seconds_ahead = 3600 * atoi(argv[3]);
    for (i = 0; i < 4; i++) children[i] = start_child(0);
    SAY("PORT %s", port_of(mg_get_option(server, "listening_port")));
    wait_for_end_of_input();
    for (i = 0; i < 4; i++) end_child(children[i]);
  } else {
    SAY("PORT %s", port_of(mg_get_option(server, "listening_port")));
    while (!told_to_stop()) {
      mg_poll_server(server, 20);
      if (fork_wanted) child_of_server();
    }
  }
  mg_destroy_server(&server);
  return VERDICT;
}
