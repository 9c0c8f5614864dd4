/* The yardstick: a server that does next to nothing, to show what kernel and machine allow. It
   sends one fixed answer for each empty line that ends a request, and understands nothing else. All
   requests of one read are answered by one write. A client that says "Connection: close" in its
   first read gets one answer and is closed.

     limit        picks a port of 127.0.0.1 and prints "PORT n" */

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nHello"

enum { MAX_FDS = 1 << 16, MAX_EVENTS = 256, BATCH = 64 };
static const size_t ANSWER_LEN = sizeof ANSWER - 1;

/* All answers are alike, so what is unsent is a number and needs no buffer. */
static struct {
  size_t unsent;
  unsigned char matched; /* of the empty line, at the end of the last read */
  unsigned char known, closes, waits;
} clients[MAX_FDS];

static char answers[BATCH * (sizeof ANSWER - 1)];
static int epoll;

static void watch(int fd, int operation, unsigned events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  epoll_ctl(epoll, operation, fd, &event);
}

/* 0 if the client is to be closed. */
static int send_answers(int fd) {
  while (clients[fd].unsent > 0) {
    size_t begun = (ANSWER_LEN - clients[fd].unsent % ANSWER_LEN) % ANSWER_LEN;
    size_t len = sizeof answers - begun;
    ssize_t n;
    if (len > clients[fd].unsent) len = clients[fd].unsent;
    n = send(fd, answers + begun, len, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno != EAGAIN) return 0;
      if (!clients[fd].waits) watch(fd, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
      clients[fd].waits = 1;
      return 1;
    }
    clients[fd].unsent -= (size_t) n;
  }
  if (clients[fd].waits) watch(fd, EPOLL_CTL_MOD, EPOLLIN);
  clients[fd].waits = 0;
  return !clients[fd].closes;
}

static size_t count_requests(int fd, const char *data, size_t len) {
  static const char empty_line[] = "\r\n\r\n";
  const char *end = data + len, *at = data;
  size_t count = 0;
  while (clients[fd].matched > 0 && at < end) {
    if (*at == empty_line[clients[fd].matched]) {
      at++;
      if (++clients[fd].matched == 4) {
        clients[fd].matched = 0;
        count++;
      }
    } else {
      clients[fd].matched = 0;
    }
  }
  while ((data = memmem(at, (size_t) (end - at), empty_line, 4)) != NULL) {
    at = data + 4;
    count++;
  }
  if (at < end) {
    size_t tail = (size_t) (end - at) < 3 ? (size_t) (end - at) : 3;
    while (tail > 0 && memcmp(end - tail, empty_line, tail) != 0) tail--;
    clients[fd].matched = (unsigned char) tail;
  }
  return count;
}

static int serve(int fd) {
  static char buf[1 << 16];
  ssize_t n = recv(fd, buf, sizeof buf, 0);
  if (n <= 0) return n < 0 && errno == EAGAIN;
  if (!clients[fd].known) {
    clients[fd].known = 1;
    clients[fd].closes = memmem(buf, (size_t) n, "Connection: close", 17) != NULL;
  }
  clients[fd].unsent += count_requests(fd, buf, (size_t) n) * ANSWER_LEN;
  return clients[fd].unsent == 0 || send_answers(fd);
}

static void accept_all(int listener) {
  int fd, on = 1;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    if (fd >= MAX_FDS) {
      close(fd);
      continue;
    }
    memset(&clients[fd], 0, sizeof clients[fd]);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(fd, EPOLL_CTL_ADD, EPOLLIN);
  }
}

int main(void) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  socklen_t address_len = sizeof address;
  struct epoll_event events[MAX_EVENTS];
  struct rlimit files;
  int i, n, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

  signal(SIGPIPE, SIG_IGN);
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  for (i = 0; i < BATCH; i++) memcpy(answers + (size_t) i * ANSWER_LEN, ANSWER, ANSWER_LEN);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  epoll = epoll_create1(EPOLL_CLOEXEC);
  if (listener < 0 || epoll < 0 || bind(listener, (struct sockaddr *) &address, address_len) < 0 ||
      listen(listener, 4096) < 0 ||
      getsockname(listener, (struct sockaddr *) &address, &address_len) < 0) {
    perror("limit");
    return 1;
  }
  watch(listener, EPOLL_CTL_ADD, EPOLLIN);
  printf("PORT %d\n", ntohs(address.sin_port));
  fflush(stdout);

  for (;;) {
    n = epoll_wait(epoll, events, MAX_EVENTS, -1);
    for (i = 0; i < n; i++) {
      int fd = events[i].data.fd, stays = 1;
      if (fd == listener) {
        accept_all(listener);
        continue;
      }
      if (events[i].events & EPOLLOUT) stays = send_answers(fd);
      if (stays && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) stays = serve(fd);
      if (!stays) close(fd);
    }
  }
}
