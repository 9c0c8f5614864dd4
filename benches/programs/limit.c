/* The yardstick: servers that do next to nothing, to show what kernel and machine allow.

     limit hello          a fixed answer for each empty line that ends a request
     limit post BYTES     the same, behind a body of so many bytes
     limit file PATH      a fixed header and the file, by sendfile
     limit websocket      echoes messages; one that is "B" sends 100 bytes to every websocket

   All answers to one read are sent by one write. A client that says "Connection: close" in its first
   read is closed after one answer. Nothing else is understood. Picks a port of 127.0.0.1 and prints
   "PORT n". */

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
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define ANSWER "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nHello"
/* The key of every client here is the one of RFC 6455, section 1.3. */
#define UPGRADED                                                                          \
  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"     \
  "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

enum { MAX_FDS = 1 << 16, MAX_EVENTS = 256, BATCH = 64, PUSHED = 100 };
static const size_t ANSWER_LEN = sizeof ANSWER - 1;

struct bytes {
  char *data;
  size_t len, room;
};

static struct client {
  size_t unsent;         /* bytes of answers: these are all alike, so a number will do */
  size_t body_left;      /* of a request */
  unsigned char matched; /* of the empty line, at the end of the last read */
  unsigned char known, closes, waits, upgraded;
  size_t files;          /* to be sent, the one at `offset` included */
  off_t offset;          /* -1 before the header */
  struct bytes in, out;  /* of a websocket */
} clients[MAX_FDS];

static enum { HELLO, POST, FILES, WEBSOCKET } mode;
static char answers[BATCH * (sizeof ANSWER - 1)];
static size_t body_len;
static int epoll, file, highest;
static off_t file_len;
static char file_header[128];
static size_t file_header_len;

static void watch(int fd, int operation, unsigned events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  epoll_ctl(epoll, operation, fd, &event);
}

static void wait_for_room(int fd, int waits) {
  if (clients[fd].waits != waits) watch(fd, EPOLL_CTL_MOD, EPOLLIN | (waits ? EPOLLOUT : 0));
  clients[fd].waits = (unsigned char) waits;
}

static void append(struct bytes *to, const char *data, size_t len) {
  if (to->room - to->len < len) {
    to->room = (to->len + len) * 2;
    to->data = realloc(to->data, to->room);
    if (to->data == NULL) abort();
  }
  memcpy(to->data + to->len, data, len);
  to->len += len;
}

static void drop(struct bytes *from, size_t len) {
  memmove(from->data, from->data + len, from->len - len);
  from->len -= len;
}

/* 0 if the client is to be closed; so with all that follow. */
static int send_answers(int fd) {
  while (clients[fd].unsent > 0) {
    size_t begun = (ANSWER_LEN - clients[fd].unsent % ANSWER_LEN) % ANSWER_LEN;
    size_t len = sizeof answers - begun;
    ssize_t n;
    if (len > clients[fd].unsent) len = clients[fd].unsent;
    n = send(fd, answers + begun, len, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno != EAGAIN) return 0;
      wait_for_room(fd, 1);
      return 1;
    }
    clients[fd].unsent -= (size_t) n;
  }
  wait_for_room(fd, 0);
  return !clients[fd].closes;
}

static int send_files(int fd) {
  struct client *c = &clients[fd];
  while (c->files > 0) {
    ssize_t n;
    if (c->offset < 0) {
      n = send(fd, file_header, file_header_len, MSG_NOSIGNAL | MSG_MORE);
      if (n != (ssize_t) file_header_len) return 0;
      c->offset = 0;
    }
    n = sendfile(fd, file, &c->offset, (size_t) (file_len - c->offset));
    if (n < 0 && errno != EAGAIN) return 0;
    if (c->offset < file_len) {
      wait_for_room(fd, 1);
      return 1;
    }
    c->files--;
    c->offset = -1;
  }
  wait_for_room(fd, 0);
  return !c->closes;
}

static int send_frames(int fd) {
  struct bytes *out = &clients[fd].out;
  ssize_t n = send(fd, out->data, out->len, MSG_NOSIGNAL);
  if (n < 0 && errno != EAGAIN) return 0;
  if (n > 0) drop(out, (size_t) n);
  wait_for_room(fd, out->len > 0);
  return 1;
}

static int send_waiting(int fd) {
  switch (mode) {
    case FILES: return send_files(fd);
    case WEBSOCKET: return send_frames(fd);
    default: return send_answers(fd);
  }
}

/* Sends past the buffer if that is empty. */
static int send_frame(int fd, const char *data, size_t len) {
  ssize_t n = 0;
  if (clients[fd].out.len == 0) {
    n = send(fd, data, len, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) return 0;
    if (n < 0) n = 0;
  }
  if ((size_t) n < len) {
    append(&clients[fd].out, data + n, len - (size_t) n);
    wait_for_room(fd, 1);
  }
  return 1;
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

/* The client sends a request at a time, and its head in one piece. */
static size_t count_posts(int fd, const char *data, size_t len) {
  const char *head_end;
  if (clients[fd].body_left == 0) {
    if ((head_end = memmem(data, len, "\r\n\r\n", 4)) == NULL) return 0;
    len -= (size_t) (head_end + 4 - data);
    clients[fd].body_left = body_len;
  }
  clients[fd].body_left -= len < clients[fd].body_left ? len : clients[fd].body_left;
  return clients[fd].body_left == 0;
}

static size_t frame_header(char *to, size_t len) {
  to[0] = (char) 0x82;
  if (len < 126) {
    to[1] = (char) len;
    return 2;
  }
  to[1] = 126;
  to[2] = (char) (len >> 8);
  to[3] = (char) len;
  return 4;
}

static void push_to_all(void) {
  char frame[2 + PUSHED];
  int fd;
  frame_header(frame, PUSHED);
  memset(frame + 2, 'x', PUSHED);
  for (fd = 0; fd <= highest; fd++) {
    if (clients[fd].upgraded) send_frame(fd, frame, sizeof frame);
  }
}

/* Messages of less than 64 KiB, which are masked. */
static int echo(int fd, const char *data, size_t data_len) {
  static char echoed[1 << 18];
  struct bytes *in = &clients[fd].in;
  size_t at = 0, echoed_len = 0, i;
  append(in, data, data_len);
  while (in->len - at >= 2) {
    unsigned char *frame = (unsigned char *) in->data + at, *payload;
    size_t len = frame[1] & 127, header_len = 6;
    uint32_t mask;
    uint64_t wide, word;
    if (len == 126) {
      if (in->len - at < 4) break;
      len = (size_t) frame[2] << 8 | frame[3];
      header_len = 8;
    }
    if (in->len - at < header_len + len) break;
    payload = frame + header_len;
    memcpy(&mask, payload - 4, 4);
    wide = (uint64_t) mask << 32 | mask;
    for (i = 0; i + 8 <= len; i += 8) {
      memcpy(&word, payload + i, 8);
      word ^= wide;
      memcpy(payload + i, &word, 8);
    }
    for (; i < len; i++) payload[i] ^= ((unsigned char *) &mask)[i % 4];
    if (len == 1 && payload[0] == 'B') {
      push_to_all();
    } else {
      /* What was read is at most 64 KiB, and what was left of it before, too. */
      echoed_len += frame_header(echoed + echoed_len, len);
      memcpy(echoed + echoed_len, payload, len);
      echoed_len += len;
    }
    at += header_len + len;
  }
  drop(in, at);
  return echoed_len == 0 || send_frame(fd, echoed, echoed_len);
}

static int serve(int fd) {
  static char buf[1 << 16];
  struct client *c = &clients[fd];
  ssize_t n = recv(fd, buf, sizeof buf, 0);
  size_t count;
  if (n <= 0) return n < 0 && errno == EAGAIN;
  if (c->upgraded) return echo(fd, buf, (size_t) n);
  if (!c->known) {
    c->known = 1;
    c->closes = memmem(buf, (size_t) n, "Connection: close", 17) != NULL;
  }
  count = mode == POST ? count_posts(fd, buf, (size_t) n) : count_requests(fd, buf, (size_t) n);
  if (count == 0) return 1;
  switch (mode) {
    case FILES:
      c->files += count;
      return send_files(fd);
    case WEBSOCKET:
      c->upgraded = 1;
      return send_frame(fd, UPGRADED, sizeof UPGRADED - 1);
    default:
      c->unsent += count * ANSWER_LEN;
      return send_answers(fd);
  }
}

static void hang_up(int fd) {
  free(clients[fd].in.data);
  free(clients[fd].out.data);
  clients[fd].upgraded = 0;
  close(fd);
}

static void accept_all(int listener) {
  int fd, on = 1;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    if (fd >= MAX_FDS) {
      close(fd);
      continue;
    }
    if (fd > highest) highest = fd;
    memset(&clients[fd], 0, sizeof clients[fd]);
    clients[fd].offset = -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(fd, EPOLL_CTL_ADD, EPOLLIN);
  }
}

static int choose_mode(int argc, char **argv) {
  struct stat status;
  int i;
  for (i = 0; i < BATCH; i++) memcpy(answers + (size_t) i * ANSWER_LEN, ANSWER, ANSWER_LEN);
  if (argc == 2 && strcmp(argv[1], "hello") == 0) {
    mode = HELLO;
  } else if (argc == 3 && strcmp(argv[1], "post") == 0) {
    mode = POST;
    body_len = strtoul(argv[2], NULL, 10);
  } else if (argc == 2 && strcmp(argv[1], "websocket") == 0) {
    mode = WEBSOCKET;
  } else if (argc == 3 && strcmp(argv[1], "file") == 0) {
    mode = FILES;
    file = open(argv[2], O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &status) < 0) {
      perror(argv[2]);
      return -1;
    }
    file_len = status.st_size;
    file_header_len = (size_t) sprintf(file_header,
                                       "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
                                       "Content-Length: %lld\r\n\r\n",
                                       (long long) file_len);
  } else {
    fprintf(stderr, "usage: limit hello | post BYTES | file PATH | websocket\n");
    return -1;
  }
  return 0;
}

int main(int argc, char **argv) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  socklen_t address_len = sizeof address;
  struct epoll_event events[MAX_EVENTS];
  struct rlimit files;
  int i, n, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

  if (choose_mode(argc, argv) < 0) return 2;
  signal(SIGPIPE, SIG_IGN);
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
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
      if (events[i].events & EPOLLOUT) stays = send_waiting(fd);
      if (stays && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) stays = serve(fd);
      if (!stays) hang_up(fd);
    }
  }
}
