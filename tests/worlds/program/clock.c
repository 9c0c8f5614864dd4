/* The clocks of the process, which may jump: these functions take the place of the C library's, for the library
 * under test, too. A real monotonic clock jumps so when a machine, or a container, has been frozen. */
#define _GNU_SOURCE
#include "world.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

atomic_llong monotonic_offset, realtime_offset;

/* The function `syscall` of the C library is taken over below. */
static long call(long number, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
  long result;
  register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = number, result __asm__("x0") = a, x1 __asm__("x1") = b,
                x2 __asm__("x2") = c, x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
  __asm__ volatile("svc 0"
                   : "+r"(result)
                   : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                   : "memory");
#else
#error "the world has no clock on this machine"
#endif
  if (result >= 0 || result < -4095) return result;
  errno = (int) -result;
  return -1;
}

static void shift(struct timespec *time, long long ms) {
  long long nanoseconds = time->tv_nsec + ms % 1000 * 1000000;
  time->tv_sec += (time_t) (ms / 1000);
  while (nanoseconds < 0) nanoseconds += 1000000000, time->tv_sec--;
  while (nanoseconds >= 1000000000) nanoseconds -= 1000000000, time->tv_sec++;
  time->tv_nsec = (long) nanoseconds;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  int result = (int) call(SYS_clock_gettime, clock, (long) time, 0, 0, 0, 0);
  if (result != 0) return result;
  switch (clock) {
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_BOOTTIME: shift(time, monotonic_offset); break;
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE: shift(time, realtime_offset); break;
  }
  return 0;
}

time_t time(time_t *place) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  if (place != NULL) *place = now.tv_sec;
  return now.tv_sec;
}

int gettimeofday(struct timeval *restrict place, void *restrict zone) {
  struct timespec now;
  (void) zone;
  clock_gettime(CLOCK_REALTIME, &now);
  place->tv_sec = now.tv_sec;
  place->tv_usec = now.tv_nsec / 1000;
  return 0;
}

/* A deadline for the kernel is one of the kernel's clock. */
long syscall(long number, ...) {
  long arguments[6];
  struct timespec deadline;
  va_list list;
  int i;
  va_start(list, number);
  for (i = 0; i < 6; i++) arguments[i] = va_arg(list, long);
  va_end(list);
  if (number == SYS_futex && arguments[3] != 0 &&
      (arguments[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET && !(arguments[1] & FUTEX_CLOCK_REALTIME)) {
    deadline = *(struct timespec *) arguments[3];
    shift(&deadline, -monotonic_offset);
    if (deadline.tv_sec < 0) deadline.tv_sec = 0;
    arguments[3] = (long) &deadline;
  }
  return call(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}

double real_seconds(void) {
  struct timespec now = {0, 0};
  call(SYS_clock_gettime, CLOCK_MONOTONIC, (long) &now, 0, 0, 0, 0);
  return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}
