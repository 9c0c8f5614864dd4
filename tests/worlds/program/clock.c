/* The clocks of the process, which may jump: these functions take the place of the C library's, for the library
 * under test, too. A real monotonic clock jumps so when a machine, or a container, has been frozen. */
#define _GNU_SOURCE
#include "world.h"

#include <dlfcn.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

atomic_llong monotonic_offset, realtime_offset;

/* The functions of the C library, which those below stand in front of. */
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static long (*real_syscall)(long, ...);

__attribute__((constructor)) static void find_functions(void) {
  *(void **) &real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  *(void **) &real_syscall = dlsym(RTLD_NEXT, "syscall");
  if (real_clock_gettime == NULL || real_syscall == NULL) abort();
}

static void shift(struct timespec *time, long long ms) {
  long long nanoseconds = time->tv_nsec + ms % 1000 * 1000000;
  time->tv_sec += (time_t) (ms / 1000);
  while (nanoseconds < 0) nanoseconds += 1000000000, time->tv_sec--;
  while (nanoseconds >= 1000000000) nanoseconds -= 1000000000, time->tv_sec++;
  time->tv_nsec = (long) nanoseconds;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  /* Constructors of libraries run earlier. */
  if (real_clock_gettime == NULL) find_functions();
  if (real_clock_gettime(clock, time) != 0) return -1;
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
  if (real_syscall == NULL) find_functions();
  if (number == SYS_futex && arguments[3] != 0 &&
      (arguments[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET && !(arguments[1] & FUTEX_CLOCK_REALTIME)) {
    deadline = *(struct timespec *) arguments[3];
    shift(&deadline, -monotonic_offset);
    if (deadline.tv_sec < 0) deadline.tv_sec = 0;
    arguments[3] = (long) &deadline;
  }
  return real_syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}

double real_seconds(void) {
  struct timespec now = {0, 0};
  real_clock_gettime(CLOCK_MONOTONIC, &now);
  return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}
