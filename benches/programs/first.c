/* How long a program takes from its start to its first answer, and how much memory it has then.

     first [-p PORT] [-u PATH] COMMAND [ARGUMENT...]

   Starts the command, waits for the line "PORT n" on its standard output, or until PORT accepts
   connections, asks for PATH once, kills it, and prints NANOSECONDS KIBIBYTES. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static pid_t child;

static long long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what) {
  perror(what);
  if (child > 0) kill(child, SIGKILL);
  exit(1);
}

static int read_port(int fd) {
  char line[64];
  size_t len = 0;
  while (len < sizeof line - 1 && read(fd, line + len, 1) == 1 && line[len] != '\n') len++;
  line[len] = 0;
  return strncmp(line, "PORT ", 5) == 0 ? atoi(line + 5) : 0;
}

static int dial(int port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short) port)};
  struct timespec pause = {0, 20000};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (;;) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) fail("socket");
    if (connect(fd, (struct sockaddr *) &to, sizeof to) == 0) return fd;
    close(fd);
    if (waitpid(child, NULL, WNOHANG) == child) {
      child = 0;
      fail("the command has ended");
    }
    nanosleep(&pause, NULL);
  }
}

static long memory(void) {
  char name[64], line[256];
  long kib = 0;
  FILE *status;
  snprintf(name, sizeof name, "/proc/%d/status", (int) child);
  status = fopen(name, "r");
  while (status != NULL && fgets(line, sizeof line, status) != NULL) {
    if (sscanf(line, "VmRSS: %ld", &kib) == 1) break;
  }
  if (status != NULL) fclose(status);
  return kib;
}

int main(int argc, char **argv) {
  posix_spawn_file_actions_t actions;
  const char *path = "/";
  char text[4096];
  int output[2], option, fd, port = 0, len;
  long long start, end;

  while ((option = getopt(argc, argv, "+p:u:")) > 0) {
    if (option == 'p') port = atoi(optarg);
    else if (option == 'u') path = optarg;
    else return 2;
  }
  if (optind >= argc || pipe2(output, O_CLOEXEC) < 0) return 2;
  alarm(10);
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, output[1], 1);
  start = now();
  if (posix_spawnp(&child, argv[optind], &actions, NULL, argv + optind, environ) != 0) {
    fail(argv[optind]);
  }
  close(output[1]);
  if (port == 0) port = read_port(output[0]);
  if (port == 0) fail("no line PORT n");
  fd = dial(port);
  len = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);
  if (send(fd, text, (size_t) len, MSG_NOSIGNAL) != len || recv(fd, text, sizeof text, 0) <= 0) {
    fail("no answer");
  }
  end = now();
  printf("%lld %ld\n", end - start, memory());
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  return 0;
}
