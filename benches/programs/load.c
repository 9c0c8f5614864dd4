/* Load for one server, in slices on demand.

     load -p PORT [-u PATH] [-c CONNECTIONS] [-P PIPELINED] [-b BYTES] [-f FIELDS] [-n FILES] [-x]
          [-t SUITE [-r]]
     load -p PORT [-u PATH] [-c CONNECTIONS] -w BYTES | -B

   -b posts a body, -f adds header fields, -n asks for PATH0, PATH1, … in turn, -x takes a
   connection for each request. -t speaks TLS 1.3 with this cipher suite, -r resumes the last session
   with each new connection. -w sends websocket messages and waits for their echo; -B has one
   websocket tell the server to send 100 bytes to all of them.

   Prints "ready". Then reads its standard input:

     idle N     opens connections up to this number, which get one answer and then stay silent;
                answered by "idle N"
     run MS     a slice, answered by

     REQUESTS NANOSECONDS ERRORS IDLE P50 P99

   where REQUESTS are answers or messages, IDLE is how many idle connections are still open, and
   the latencies are in nanoseconds. At the end of a slice nothing is left unanswered, so what the
   server has spent between two slices is what these requests cost. The load goes to 127.0.0.1
   alone and ends with its input, or after twenty minutes. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tls.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum {
  MAX_EVENTS = 256,
  MAX_HEAD = 4096,
  MAX_SLICE_MS = 10000,
  PATIENCE_MS = 2000,
  MAX_SAMPLES = 1 << 20,
  PUSHED = 102,  /* a frame of 100 bytes */
  ADDRESSES = 16 /* to dial from, so that ports last */
};

/* Where in an answer a connection is. */
enum place { HEAD, LENGTH, UNTIL_CLOSE, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER };

struct conn {
  int fd;
  struct tls *tls;     /* NULL without TLS */
  enum place place;
  int unanswered;      /* requests that were sent, or are being sent */
  int closing;         /* nothing follows this answer */
  const char *request;
  size_t sent, to_send;
  size_t left;         /* of a body, chunk or frame */
  size_t head_len;
  long long asked;     /* when */
  char head[MAX_HEAD]; /* head, or a line between chunks */
};

static enum { HTTP, ECHO, PUSH } mode;
static int port, pipelined = 1, close_each, fields, epoll, idle_epoll;
static long body_len = -1, message_len;
static const char *path = "/";
static const char *suite; /* NULL without TLS */
static int resumes;
/* `variants` times `pipelined` requests; each connection takes the next one. */
static char **requests;
static size_t *request_lens;
static int variants = 1, next_variant;
static size_t frame_len; /* of an answer */
static long answered, errors, idle_open;
static int running;
static uint32_t *samples;
static size_t sample_count;

static struct conn *conns;
static int conn_count = 64;
static long long push_began;
static int pushed_to;

static long long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void sample(long long since) {
  long long ns = now() - since;
  if (sample_count < MAX_SAMPLES) {
    samples[sample_count++] = ns < UINT32_MAX ? (uint32_t) ns : UINT32_MAX;
  }
}

/* From one address there are some 28,000 ports to dial from. */
static void choose_address(int fd) {
  static uint32_t turn;
  struct sockaddr_in from = {.sin_family = AF_INET};
  int on = 1;
  from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + turn++ % ADDRESSES);
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
  if (bind(fd, (struct sockaddr *) &from, sizeof from) < 0) fail("bind");
}

static int dial(int flags, int spread) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short) port)};
  int on = 1, fd = socket(AF_INET, SOCK_STREAM | flags, 0);
  if (fd < 0) fail("socket");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  /* Others may pace, and would measure that. */
  setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
  if (spread) choose_address(fd);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, (struct sockaddr *) &to, sizeof to) < 0 && errno != EINPROGRESS) {
    close(fd);
    return -1;
  }
  return fd;
}

/* A server that does not resume sessions is measured at something else. */
static void end_tls(struct conn *c) {
  if (c->tls != NULL && tls_was_refused(c->tls)) errors++;
  tls_end(c->tls);
  c->tls = NULL;
}

static void hang_up(struct conn *c) {
  end_tls(c);
  if (c->fd >= 0) close(c->fd);
  c->fd = -1;
  c->unanswered = 0;
}

/* Sends what is to be sent; an error shows itself when the answer is read. */
static void push(struct conn *c) {
  while (c->sent < c->to_send) {
    const char *data = c->request + c->sent;
    size_t len = c->to_send - c->sent;
    ssize_t n = c->tls != NULL ? tls_send(c->tls, data, len)
                               : send(c->fd, data, len, MSG_NOSIGNAL);
    if (n <= 0) return;
    c->sent += (size_t) n;
  }
}

static void ask(struct conn *c) {
  c->place = HEAD;
  c->head_len = 0;
  c->closing = 0;
  c->unanswered = pipelined;
  c->left = frame_len;
  c->sent = 0;
  c->request = requests[next_variant];
  c->to_send = request_lens[next_variant];
  next_variant = (next_variant + 1) % variants;
  c->asked = now();
  push(c);
}

static void watch_conn(struct conn *c) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) < 0) fail("epoll_ctl");
}

static void open_conn(struct conn *c) {
  c->fd = dial(SOCK_NONBLOCK, close_each);
  if (c->fd < 0) {
    errors++;
    return;
  }
  if (suite != NULL && (c->tls = tls_begin(c->fd)) == NULL) fail("TLS");
  watch_conn(c);
  ask(c);
}

static void answer_ends(struct conn *c) {
  answered++;
  sample(c->asked);
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

static int take_answers(struct conn *c, const char *data, size_t len) {
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

static void begin_push(void) {
  int i;
  pushed_to = 0;
  for (i = 0; i < conn_count; i++) {
    conns[i].unanswered = 1;
    conns[i].left = frame_len;
  }
  push_began = now();
  ask(&conns[0]);
}

/* Frames all look alike; the first byte and the number of bytes tell whether they are right. */
static int take_frames(struct conn *c, const char *data, size_t len) {
  while (len > 0) {
    size_t used = len < c->left ? len : c->left;
    if (c->unanswered == 0) return -1;
    if (c->left == frame_len && (unsigned char) *data != 0x82) return -1;
    c->left -= used;
    data += used;
    len -= used;
    if (c->left > 0) continue;
    if (mode == ECHO) {
      answer_ends(c);
      continue;
    }
    answered++;
    c->unanswered = 0;
    if (++pushed_to < conn_count) continue;
    sample(push_began);
    if (running) begin_push();
  }
  return 0;
}

/* A handshake may have come to its end while something was to be read. */
static int may_speak_now(struct conn *c) {
  if (c->tls == NULL || c->sent == c->to_send) return 0;
  push(c);
  return c->sent == c->to_send;
}

/* Reads all there is. Asks anew when everything is answered and the slice goes on. */
static void attend(struct conn *c) {
  static char buf[1 << 18];
  int over = 0;

  push(c);
  for (;;) {
    ssize_t n = c->tls != NULL ? tls_recv(c->tls, buf, sizeof buf)
                               : recv(c->fd, buf, sizeof buf, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      if (!may_speak_now(c)) break;
      continue;
    }
    if (n == 0 && mode == HTTP && c->place == UNTIL_CLOSE) {
      c->closing = 1;
      answer_ends(c);
    }
    if (n <= 0) {
      over = 1;
      break;
    }
    if ((mode == HTTP ? take_answers : take_frames)(c, buf, (size_t) n) < 0) {
      errors++;
      over = 1;
      break;
    }
    /* More makes another event, unless it has been read ahead. */
    if ((size_t) n < sizeof buf && c->unanswered > 0 && c->tls == NULL) break;
    if (c->unanswered == 0) {
      if (close_each || c->closing) continue; /* until the server closes */
      if (running && mode != PUSH) ask(c);
      break;
    }
  }
  if (over) {
    if (c->unanswered > 0 || mode != HTTP) errors++;
    hang_up(c);
    if (running && mode == HTTP) open_conn(c);
  }
}

static void watch(long long until) {
  struct epoll_event events[MAX_EVENTS];
  for (;;) {
    long long left = until - now();
    int i, n, busy = running;
    for (i = 0; i < conn_count && !busy; i++) {
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

static void slice(int milliseconds) {
  long long start = now();
  int i;

  answered = errors = 0;
  sample_count = 0;
  running = 1;
  if (mode == PUSH) begin_push();
  for (i = 0; mode != PUSH && i < conn_count; i++) {
    if (conns[i].closing) hang_up(&conns[i]);
    if (conns[i].fd >= 0) ask(&conns[i]);
    else if (mode == HTTP) open_conn(&conns[i]);
    else errors++;
  }
  watch(start + milliseconds * 1000000LL);
  running = 0;
  watch(now() + PATIENCE_MS * 1000000LL);
  for (i = 0; i < conn_count; i++) {
    if (conns[i].fd >= 0 && conns[i].unanswered > 0) {
      errors++;
      hang_up(&conns[i]);
    }
  }
}

static int open_blocking(void) {
  struct timeval patience = {5, 0};
  int fd = dial(0, 1);
  if (fd < 0) fail("connect");
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  return fd;
}

/* Asks once, and then keeps the socket alone: the server cannot tell. */
static int ask_once(int fd) {
  char buf[4096];
  struct tls *tls;
  int is_well;
  if (suite == NULL) {
    return send(fd, requests[0], request_lens[0], MSG_NOSIGNAL) > 0 &&
           recv(fd, buf, sizeof buf, 0) > 0;
  }
  if ((tls = tls_begin(fd)) == NULL) fail("TLS");
  is_well = tls_send(tls, requests[0], request_lens[0]) > 0 && tls_recv(tls, buf, sizeof buf) > 0;
  tls_end(tls);
  return is_well;
}

static void open_idle(int count) {
  for (; idle_open < count; idle_open++) {
    struct epoll_event event = {.events = EPOLLRDHUP, .data.fd = open_blocking()};
    if (!ask_once(event.data.fd)) fail("idle connection");
    if (epoll_ctl(idle_epoll, EPOLL_CTL_ADD, event.data.fd, &event) < 0) fail("epoll_ctl");
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

static void open_websocket(struct conn *c) {
  char head[1024];
  int len = snprintf(head, sizeof head,
                     "GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                     "Sec-WebSocket-Version: 13\r\n\r\n",
                     path);
  c->fd = open_blocking();
  if (send(c->fd, head, (size_t) len, MSG_NOSIGNAL) != len) fail("websocket");
  /* The server speaks no further before it is spoken to. */
  len = (int) recv(c->fd, head, sizeof head - 1, 0);
  head[len > 0 ? len : 0] = 0;
  if (strncmp(head, "HTTP/1.1 101", 12) != 0 || strcmp(head + len - 4, "\r\n\r\n") != 0) {
    fprintf(stderr, "load: no websocket: %.40s\n", head);
    exit(1);
  }
  fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
  watch_conn(c);
}

static char *allocate(size_t len) {
  char *data = malloc(len);
  if (data == NULL) fail("request");
  return data;
}

static void make_request(int variant) {
  size_t body = body_len > 0 ? (size_t) body_len : 0;
  char *one = allocate(1024 + strlen(path) + 40 * (size_t) fields + body);
  int i, len = sprintf(one, "%s %s", body_len < 0 ? "GET" : "POST", path);
  if (variants > 1) len += sprintf(one + len, "%d", variant);
  len += sprintf(one + len, " HTTP/1.1\r\nHost: localhost\r\n");
  for (i = 0; i < fields; i++) len += sprintf(one + len, "X-Field-%d: some value\r\n", i);
  if (close_each) len += sprintf(one + len, "Connection: close\r\n");
  if (body_len >= 0) len += sprintf(one + len, "Content-Length: %ld\r\n", body_len);
  len += sprintf(one + len, "\r\n");
  memset(one + len, 'p', body);
  request_lens[variant] = ((size_t) len + body) * (size_t) pipelined;
  requests[variant] = allocate(request_lens[variant]);
  for (i = 0; i < pipelined; i++) {
    memcpy(requests[variant] + ((size_t) len + body) * (size_t) i, one, (size_t) len + body);
  }
  free(one);
}

static void make_message(void) {
  static const unsigned char mask[4] = {0x12, 0x34, 0x56, 0x78};
  unsigned char *frame = (unsigned char *) allocate((size_t) message_len + 8);
  long i;
  int header_len = 2;
  frame[0] = 0x82;
  frame[1] = (unsigned char) (0x80 | (message_len < 126 ? message_len : 126));
  if (message_len >= 126) {
    frame[2] = (unsigned char) (message_len >> 8);
    frame[3] = (unsigned char) message_len;
    header_len = 4;
  }
  memcpy(frame + header_len, mask, 4);
  for (i = 0; i < message_len; i++) {
    frame[header_len + 4 + i] = (mode == PUSH ? 'B' : 'm') ^ mask[i % 4];
  }
  requests[0] = (char *) frame;
  request_lens[0] = (size_t) (header_len + 4 + message_len);
  frame_len = mode == PUSH ? PUSHED : (size_t) (header_len + message_len);
}

static int compare(const void *left, const void *right) {
  uint32_t a = *(const uint32_t *) left, b = *(const uint32_t *) right;
  return a < b ? -1 : a > b;
}

static void report(long long ns) {
  uint32_t p50 = 0, p99 = 0;
  if (sample_count > 0) {
    qsort(samples, sample_count, sizeof *samples, compare);
    p50 = samples[sample_count / 2];
    p99 = samples[sample_count * 99 / 100];
  }
  printf("%ld %lld %ld %ld %u %u\n", answered, ns, errors, idle_open, p50, p99);
}

static int read_options(int argc, char **argv) {
  int option;
  while ((option = getopt(argc, argv, "p:u:c:P:b:f:n:w:xBt:r")) > 0) {
    switch (option) {
      case 'p': port = atoi(optarg); break;
      case 'u': path = optarg; break;
      case 'c': conn_count = atoi(optarg); break;
      case 'P': pipelined = atoi(optarg); break;
      case 'b': body_len = atol(optarg); break;
      case 'f': fields = atoi(optarg); break;
      case 'n': variants = atoi(optarg); break;
      case 'w': mode = ECHO, message_len = atol(optarg); break;
      case 'B': mode = PUSH, message_len = 1; break;
      case 'x': close_each = 1; break;
      case 't': suite = optarg; break;
      case 'r': resumes = 1; break;
      default: return -1;
    }
  }
  if (close_each || mode != HTTP) pipelined = 1;
  if ((suite != NULL && mode != HTTP) || (resumes && suite == NULL)) return -1;
  if (mode != HTTP && (message_len < 1 || message_len > 65535 || close_each)) return -1;
  return port > 0 && conn_count > 0 && pipelined > 0 && variants > 0 && fields >= 0 ? 0 : -1;
}

static void prepare(void) {
  struct rlimit files;
  int i;
  signal(SIGPIPE, SIG_IGN);
  if (suite != NULL && tls_prepare(suite, resumes) < 0) {
    fprintf(stderr, "load: no TLS, or no such suite\n");
    exit(1);
  }
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  epoll = epoll_create1(EPOLL_CLOEXEC);
  idle_epoll = epoll_create1(EPOLL_CLOEXEC);
  conns = calloc((size_t) conn_count, sizeof *conns);
  requests = calloc((size_t) variants, sizeof *requests);
  request_lens = calloc((size_t) variants, sizeof *request_lens);
  samples = malloc(MAX_SAMPLES * sizeof *samples);
  if (epoll < 0 || idle_epoll < 0 || !conns || !requests || !request_lens || !samples) {
    fail("load");
  }
  if (mode == HTTP) {
    for (i = 0; i < variants; i++) make_request(i);
  } else {
    make_message();
  }
  for (i = 0; i < conn_count; i++) {
    conns[i].fd = -1;
    if (mode != HTTP) open_websocket(&conns[i]);
  }
}

int main(int argc, char **argv) {
  char line[64];
  int number;

  if (read_options(argc, argv) < 0) {
    fprintf(stderr, "load: see the head of load.c for its options\n");
    return 2;
  }
  alarm(1200);
  prepare();
  printf("ready\n");
  fflush(stdout);
  while (fgets(line, sizeof line, stdin) != NULL) {
    if (sscanf(line, "run %d", &number) == 1 && number > 0) {
      long long start = now();
      slice(number < MAX_SLICE_MS ? number : MAX_SLICE_MS);
      start = now() - start;
      count_idle();
      report(start);
    } else if (sscanf(line, "idle %d", &number) == 1 && number >= 0) {
      open_idle(number);
      printf("idle %ld\n", idle_open);
    } else {
      return 2;
    }
    fflush(stdout);
  }
  return 0;
}
