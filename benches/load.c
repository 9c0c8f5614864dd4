/* Load for one server, in slices on demand.

     load -p PORT [-u PATH] [-c CONNECTIONS] [-P PIPELINED] [-i IDLE] [-x]

   -x asks for a connection per request. IDLE connections are opened first; each gets one answer and
   then stays silent.

   Prints "ready". Each line "run MILLISECONDS" on standard input is a slice, answered by

     REQUESTS NANOSECONDS ERRORS IDLE

   At the end of a slice no request is left unanswered, so what the server has spent between two
   slices is what these requests cost. The load goes to 127.0.0.1 alone and ends with its input, or
   after ten minutes. */

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_EVENTS = 256, MAX_HEAD = 4096, MAX_SLICE_MS = 10000, PATIENCE_MS = 2000 };

/* Where in an answer a connection is. */
enum place { HEAD, LENGTH, UNTIL_CLOSE, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER };

struct conn {
  int fd;
  enum place place;
  int unanswered;      /* requests that were sent, or are being sent */
  int closing;         /* nothing follows this answer */
  size_t sent, to_send;
  size_t left;         /* of a body or chunk */
  size_t head_len;
  char head[MAX_HEAD]; /* head, or a line between chunks */
};

static int port, pipelined = 1, close_each, epoll, idle_epoll;
static const char *path = "/";
static char *request;
static size_t request_len; /* of one; `request` holds `pipelined` of them */
static long answered, errors, idle_open;
static int running;

static long long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static int dial(int flags) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short) port)};
  int on = 1, fd = socket(AF_INET, SOCK_STREAM | flags, 0);
  if (fd < 0) fail("socket");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  /* Others may pace, and would measure that. */
  setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, (struct sockaddr *) &to, sizeof to) < 0 && errno != EINPROGRESS) {
    close(fd);
    return -1;
  }
  return fd;
}

static void hang_up(struct conn *c) {
  if (c->fd >= 0) close(c->fd);
  c->fd = -1;
  c->unanswered = 0;
}

/* Sends what is to be sent; an error shows itself when the answer is read. */
static void push(struct conn *c) {
  while (c->sent < c->to_send) {
    ssize_t n = send(c->fd, request + c->sent, c->to_send - c->sent, MSG_NOSIGNAL);
    if (n < 0) return;
    c->sent += (size_t) n;
  }
}

static void ask(struct conn *c) {
  c->place = HEAD;
  c->head_len = 0;
  c->closing = 0;
  c->unanswered = pipelined;
  c->sent = 0;
  c->to_send = request_len * (size_t) pipelined;
  push(c);
}

static void open_conn(struct conn *c) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
  c->fd = dial(SOCK_NONBLOCK);
  if (c->fd < 0) {
    errors++;
    return;
  }
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) < 0) fail("epoll_ctl");
  ask(c);
}

static void answer_ends(struct conn *c) {
  answered++;
  c->unanswered--;
  c->place = HEAD;
  c->head_len = 0;
}

/* Reads status and framing off a complete head. */
static int judge(struct conn *c) {
  const char *length;
  c->head[c->head_len] = 0;
  if (strncmp(c->head, "HTTP/1.", 7) != 0 || strncmp(c->head + 8, " 200", 4) != 0) return -1;
  c->closing = strcasestr(c->head, "\r\nConnection: close") != NULL;
  c->head_len = 0;
  if (strcasestr(c->head, "\r\nTransfer-Encoding: chunked") != NULL) {
    c->place = CHUNK_SIZE;
  } else if ((length = strcasestr(c->head, "\r\nContent-Length:")) != NULL) {
    c->left = strtoul(length + 17, NULL, 10);
    if (c->left > 0) c->place = LENGTH;
    else answer_ends(c);
  } else {
    c->place = UNTIL_CLOSE;
  }
  return 0;
}

/* Collects up to and including `end`; how many bytes were used, 0 if it has not come, -1 if it is
   too long. */
static ssize_t collect(struct conn *c, const char *data, size_t len, const char *end) {
  size_t end_len = strlen(end), before = c->head_len;
  size_t take = len < MAX_HEAD - 1 - before ? len : MAX_HEAD - 1 - before;
  size_t from = before > end_len - 1 ? before - (end_len - 1) : 0;
  char *found;
  memcpy(c->head + before, data, take);
  found = memmem(c->head + from, before + take - from, end, end_len);
  if (found == NULL) {
    c->head_len += take;
    return c->head_len == MAX_HEAD - 1 ? -1 : 0;
  }
  c->head_len = (size_t) (found - c->head) + end_len;
  return (ssize_t) (c->head_len - before);
}

static int take_in(struct conn *c, const char *data, size_t len) {
  while (len > 0) {
    ssize_t used = 0;
    switch (c->place) {
      case HEAD:
        if (c->unanswered == 0) return -1;
        if ((used = collect(c, data, len, "\r\n\r\n")) <= 0) return (int) used;
        if (judge(c) < 0) return -1;
        break;
      case LENGTH:
      case CHUNK_DATA:
        used = (ssize_t) (len < c->left ? len : c->left);
        c->left -= (size_t) used;
        if (c->left > 0) break;
        if (c->place == LENGTH) answer_ends(c);
        else c->place = CHUNK_END;
        break;
      case UNTIL_CLOSE:
        return 0;
      case CHUNK_SIZE:
        if ((used = collect(c, data, len, "\r\n")) <= 0) return (int) used;
        c->left = strtoul(c->head, NULL, 16);
        c->head_len = 0;
        c->place = c->left > 0 ? CHUNK_DATA : TRAILER;
        break;
      case CHUNK_END:
        if ((used = collect(c, data, len, "\r\n")) <= 0) return (int) used;
        c->head_len = 0;
        c->place = CHUNK_SIZE;
        break;
      case TRAILER:
        if ((used = collect(c, data, len, "\r\n")) <= 0) return (int) used;
        if (c->head_len == 2) answer_ends(c);
        c->head_len = 0;
        break;
    }
    data += used;
    len -= (size_t) used;
  }
  return 0;
}

/* Reads all there is. Asks anew when everything is answered and the slice goes on. */
static void attend(struct conn *c) {
  static char buf[1 << 17];
  int over = 0;

  push(c);
  for (;;) {
    ssize_t n = recv(c->fd, buf, sizeof buf, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n == 0 && c->place == UNTIL_CLOSE) {
      c->closing = 1;
      answer_ends(c);
    }
    if (n <= 0) {
      over = 1;
      break;
    }
    if (take_in(c, buf, (size_t) n) < 0) {
      errors++;
      over = 1;
      break;
    }
    if ((size_t) n < sizeof buf && c->unanswered > 0) break; /* more makes another event */
    if (c->unanswered == 0) {
      if (close_each || c->closing) continue; /* until the server closes */
      if (running) ask(c);
      break;
    }
  }
  if (over) {
    if (c->unanswered > 0) errors++;
    hang_up(c);
    if (running) open_conn(c);
  }
}

static void watch(struct conn *conns, int count, long long until) {
  struct epoll_event events[MAX_EVENTS];
  for (;;) {
    long long left = until - now();
    int i, n, busy = running;
    for (i = 0; i < count && !busy; i++) {
      busy = conns[i].fd >= 0 && (conns[i].unanswered > 0 || close_each);
    }
    if (left <= 0 || !busy) return;
    n = epoll_wait(epoll, events, MAX_EVENTS, (int) (left / 1000000) + 1);
    for (i = 0; i < n; i++) {
      struct conn *c = events[i].data.ptr;
      if (c->fd >= 0) attend(c);
    }
  }
}

static void slice(struct conn *conns, int count, int milliseconds) {
  long long start = now();
  int i;

  answered = errors = 0;
  running = 1;
  for (i = 0; i < count; i++) {
    if (conns[i].closing) hang_up(&conns[i]);
    if (conns[i].fd >= 0) ask(&conns[i]);
    else open_conn(&conns[i]);
  }
  watch(conns, count, start + milliseconds * 1000000LL);
  running = 0;
  watch(conns, count, now() + PATIENCE_MS * 1000000LL);
  for (i = 0; i < count; i++) {
    if (conns[i].fd >= 0 && conns[i].unanswered > 0) {
      errors++;
      hang_up(&conns[i]);
    }
  }
}

static void open_idle(int count) {
  struct timeval patience = {5, 0};
  char buf[4096];
  int i;

  for (i = 0; i < count; i++) {
    struct epoll_event event = {.events = EPOLLRDHUP, .data.fd = dial(0)};
    if (event.data.fd < 0) fail("idle connection");
    setsockopt(event.data.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (send(event.data.fd, request, request_len, MSG_NOSIGNAL) < 0 ||
        recv(event.data.fd, buf, sizeof buf, 0) <= 0) {
      fail("idle connection");
    }
    if (epoll_ctl(idle_epoll, EPOLL_CTL_ADD, event.data.fd, &event) < 0) fail("epoll_ctl");
    idle_open++;
  }
}

/* The server may have closed some meanwhile. */
static void count_idle(void) {
  struct epoll_event events[MAX_EVENTS];
  int i, n;
  while ((n = epoll_wait(idle_epoll, events, MAX_EVENTS, 0)) > 0) {
    for (i = 0; i < n; i++) close(events[i].data.fd);
    idle_open -= n;
  }
}

static void make_requests(void) {
  int i, len = asprintf(&request, "GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", path,
                        close_each ? "Connection: close\r\n" : "");
  if (len < 0) fail("request");
  request_len = (size_t) len;
  request = realloc(request, request_len * (size_t) pipelined + 1);
  if (request == NULL) fail("request");
  for (i = 1; i < pipelined; i++) memcpy(request + request_len * (size_t) i, request, request_len);
}

int main(int argc, char **argv) {
  struct rlimit files;
  struct conn *conns;
  char line[64];
  int option, i, count = 64, idle = 0;

  while ((option = getopt(argc, argv, "p:u:c:P:i:x")) > 0) {
    switch (option) {
      case 'p': port = atoi(optarg); break;
      case 'u': path = optarg; break;
      case 'c': count = atoi(optarg); break;
      case 'P': pipelined = atoi(optarg); break;
      case 'i': idle = atoi(optarg); break;
      case 'x': close_each = 1; break;
      default: return 2;
    }
  }
  if (port <= 0 || count <= 0 || pipelined <= 0 || idle < 0) return 2;
  if (close_each) pipelined = 1;
  alarm(600);
  signal(SIGPIPE, SIG_IGN);
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  epoll = epoll_create1(EPOLL_CLOEXEC);
  idle_epoll = epoll_create1(EPOLL_CLOEXEC);
  conns = calloc((size_t) count, sizeof *conns);
  if (epoll < 0 || idle_epoll < 0 || conns == NULL) fail("load");
  for (i = 0; i < count; i++) conns[i].fd = -1;
  make_requests();
  open_idle(idle);

  printf("ready\n");
  fflush(stdout);
  while (fgets(line, sizeof line, stdin) != NULL) {
    int milliseconds = 0;
    long long start;
    if (sscanf(line, "run %d", &milliseconds) != 1 || milliseconds <= 0) return 2;
    start = now();
    slice(conns, count, milliseconds < MAX_SLICE_MS ? milliseconds : MAX_SLICE_MS);
    start = now() - start;
    count_idle();
    printf("%ld %lld %ld %ld\n", answered, start, errors, idle_open);
    fflush(stdout);
  }
  return 0;
}
