/* Makes a program slow that is started with this library (LD_PRELOAD): some calls of the system take up to
   so many milliseconds more, by a number that is not foreseen. MG_TEST_DELAYS names them: "log=60,recv=3".

   log     a write to a log, that is, to a file that is open for appending
   wait    the wait for events, before and behind it
   accept  taking a client
   recv    receiving
   send    sending, before and behind it
   close   closing a socket */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Waits a part of the time that the variable has for this call. */
static void delay(const char *call) {
  const char *delays = getenv("MG_TEST_DELAYS"), *found = delays ? strstr(delays, call) : NULL;
  struct timespec now, time = {0, 0};
  int longest = found ? atoi(found + strlen(call)) : 0, saved = errno;
  if (longest > 0) {
    clock_gettime(CLOCK_MONOTONIC, &now);
    time.tv_nsec = now.tv_nsec / 1000 % (longest * 1000L + 1) * 1000;
    time.tv_sec = time.tv_nsec / 1000000000;
    time.tv_nsec %= 1000000000;
    nanosleep(&time, NULL);
  }
  errno = saved;
}

static int is_log(int fd) {
  struct stat stat;
  int flags = fcntl(fd, F_GETFL);
  return flags != -1 && (flags & O_APPEND) && fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode);
}

static int is_socket(int fd) {
  struct stat stat;
  return fstat(fd, &stat) == 0 && S_ISSOCK(stat.st_mode);
}

ssize_t write(int fd, const void *bytes, size_t len) {
  int saved = errno;
  if (is_log(fd)) delay("log=");
  errno = saved;
  return syscall(SYS_write, fd, bytes, len);
}

int epoll_wait(int epoll, struct epoll_event *events, int count, int timeout) {
  int found;
  delay("wait=");
  found = (int) syscall(SYS_epoll_pwait, epoll, events, count, timeout, NULL, 8);
  delay("wait=");
  return found;
}

int accept4(int fd, struct sockaddr *address, socklen_t *len, int flags) {
  delay("accept=");
  return (int) syscall(SYS_accept4, fd, address, len, flags);
}

ssize_t recv(int fd, void *bytes, size_t len, int flags) {
  delay("recv=");
  return syscall(SYS_recvfrom, fd, bytes, len, flags, NULL, NULL);
}

ssize_t send(int fd, const void *bytes, size_t len, int flags) {
  ssize_t sent;
  delay("send=");
  sent = syscall(SYS_sendto, fd, bytes, len, flags, NULL, 0);
  delay("send=");
  return sent;
}

int close(int fd) {
  if (is_socket(fd)) delay("close=");
  return (int) syscall(SYS_close, fd);
}
