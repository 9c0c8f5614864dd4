/* One port, several processes: a worker that fails takes only its own clients with it, and another
 * one takes its place. The second argument is the number of workers. With `own` behind it each has a
 * listening socket of its own on that port (SO_REUSEPORT), and the kernel spreads clients evenly;
 * else whoever is free first accepts.
 *
 *   cc prefork.c -o prefork -lmongoose && ./prefork 8080 4 own
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mongoose.h"

enum { MAX_WORKERS = 64, BACKLOG = 4096 };

struct worker {
  pid_t pid;
  int socket; /* -1: that of the server */
  time_t since;
};

static volatile sig_atomic_t stop;
static sigset_t signals, no_signals;

static void on_signal(int number) {
  (void) number;
  stop = 1;
}

static int answer(struct mg_connection *conn) {
  mg_send_header(conn, "Content-Type", "text/plain");
  mg_printf_data(conn, "Answered by worker %d, process %ld\n", *(int *) conn->server_param,
                 (long) getpid());
  return 1;
}

/* All sockets of a port have to say SO_REUSEPORT before they are bound. */
static int listen_on(int port) {
  struct sockaddr_in address;
  int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  memset(&address, 0, sizeof(address));
  address.sin_family = AF_INET;
  address.sin_port = htons((unsigned short) port);
  if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0 &&
      bind(fd, (struct sockaddr *) &address, sizeof(address)) == 0 && listen(fd, BACKLOG) == 0) {
    return fd;
  }
  perror("a listening socket");
  if (fd >= 0) close(fd);
  return -1;
}

static int port_of(int fd) {
  struct sockaddr_in address;
  socklen_t len = sizeof(address);
  if (getsockname(fd, (struct sockaddr *) &address, &len) != 0) return -1;
  return ntohs(address.sin_port);
}

/* The parent keeps the sockets, and never accepts: clients that wait at one whose worker has died
 * wait for the next worker. */
static int open_sockets(struct worker *workers, int count, int port) {
  int i;
  for (i = 0; i < count; i++) {
    workers[i].socket = listen_on(port);
    if (workers[i].socket < 0) return -1;
    if (port == 0) port = port_of(workers[i].socket); /* any free port, the same for all */
  }
  return port;
}

static int handle(int number) {
  struct sigaction action;
  memset(&action, 0, sizeof(action));
  action.sa_handler = on_signal;
  return sigaction(number, &action, NULL) == 0;
}

static int work(struct mg_server *server, const struct worker *worker, pid_t parent) {
  /* Else it would go on, and hold the port, when the parent is killed. */
  if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != parent) return EXIT_FAILURE;
  if (!handle(SIGINT) || !handle(SIGTERM)) return EXIT_FAILURE;
  if (sigprocmask(SIG_SETMASK, &no_signals, NULL) != 0) return EXIT_FAILURE;
  if (worker->socket >= 0) {
    mg_set_listening_socket(server, worker->socket);
    if (mg_get_listening_socket(server) != worker->socket) return EXIT_FAILURE;
  }
  while (!stop) mg_poll_server(server, 200);
  mg_destroy_server(&server);
  return EXIT_SUCCESS;
}

static int start(struct mg_server *server, struct worker *worker) {
  const struct timespec second = {1, 0};
  pid_t parent = getpid();
  /* One that dies at once would else be started again and again. */
  if (time(NULL) - worker->since < 2) nanosleep(&second, NULL);
  worker->since = time(NULL);
  worker->pid = fork();
  if (worker->pid == 0) _exit(work(server, worker, parent));
  if (worker->pid < 0) perror("fork");
  return worker->pid > 0;
}

/* Starts those again that have ended. 0: that failed. */
static int replace(struct mg_server *server, struct worker *workers, int *number, int count) {
  pid_t pid;
  int status;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    for (*number = 0; *number < count && workers[*number].pid != pid;) ++*number;
    if (*number == count) continue;
    printf("Worker %d has ended and is started again\n", *number);
    fflush(stdout); /* else the worker would have the line to print, too */
    if (!start(server, &workers[*number])) return 0;
  }
  return 1;
}

static int run(struct mg_server *server, struct worker *workers, int *number, int count) {
  int received = 0, is_good = 1;
  for (*number = 0; *number < count && is_good; ++*number) {
    is_good = start(server, &workers[*number]);
  }
  while (is_good) {
    if (sigwait(&signals, &received) != 0 || received != SIGCHLD) break;
    is_good = replace(server, workers, number, count);
  }
  for (*number = 0; *number < count; ++*number) {
    if (workers[*number].pid > 0) kill(workers[*number].pid, SIGTERM);
  }
  while (wait(NULL) > 0 || errno == EINTR) continue;
  return is_good;
}

int main(int argc, char *argv[]) {
  struct worker workers[MAX_WORKERS];
  int i, number = 0, count = argc > 2 ? atoi(argv[2]) : 4, port = argc > 1 ? atoi(argv[1]) : 8080;
  int has_own = argc > 3 && strcmp(argv[3], "own") == 0, is_good;
  /* What is set here holds in all workers: certificates too, so that each takes the tickets of the
   * others. The child of a fork sees the number that it has been given. */
  struct mg_server *server = mg_create_server(&number);
  const char *problem = NULL;

  if (count < 1 || count > MAX_WORKERS) count = 1;
  for (i = 0; i < count; i++) {
    workers[i].pid = workers[i].socket = -1;
    workers[i].since = 0;
  }
  mg_add_uri_handler(server, "/", answer);
  if (has_own) {
    if (argc > 1 && strspn(argv[1], "0123456789") != strlen(argv[1])) port = -1;
    if (port >= 0) port = open_sockets(workers, count, port);
    if (port < 0) problem = "No listening sockets";
  } else {
    problem = mg_set_option(server, "listening_port", argc > 1 ? argv[1] : "8080");
    if (problem == NULL) port = atoi(mg_get_option(server, "listening_port"));
  }
  /* Signals wait until sigwait() asks for them. */
  sigemptyset(&no_signals);
  sigemptyset(&signals);
  sigaddset(&signals, SIGCHLD);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  if (problem == NULL && sigprocmask(SIG_BLOCK, &signals, NULL) != 0) problem = "Signals cannot be blocked";
  if (problem != NULL) {
    fprintf(stderr, "%s\n", problem);
    mg_destroy_server(&server);
    return EXIT_FAILURE;
  }
  printf("Listening on http://127.0.0.1:%d/\n", port);
  fflush(stdout);
  is_good = run(server, workers, &number, count);
  mg_destroy_server(&server);
  return is_good ? EXIT_SUCCESS : EXIT_FAILURE;
}
