/* Checks for programs that judge themselves: what fails is printed, and the exit status tells. */
#ifndef CHECK_H
#define CHECK_H

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int failures;

#define CHECK(condition)                                                  \
  do {                                                                    \
    if (!(condition)) {                                                   \
      failures++;                                                         \
      printf("FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition);       \
      fflush(stdout);                                                     \
    }                                                                     \
  } while (0)

#define CHECK_INT(expression, wanted)                                     \
  do {                                                                    \
    long found_ = (long) (expression), wanted_ = (long) (wanted);         \
    if (found_ != wanted_) {                                              \
      failures++;                                                         \
      printf("FAILED %s:%d: %s is %ld, not %ld\n", __FILE__, __LINE__,    \
             #expression, found_, wanted_);                               \
      fflush(stdout);                                                     \
    }                                                                     \
  } while (0)

#define CHECK_STR(expression, wanted)                                     \
  do {                                                                    \
    const char *found_ = (expression), *wanted_ = (wanted);               \
    if (found_ == NULL || strcmp(found_, wanted_) != 0) {                 \
      failures++;                                                         \
      printf("FAILED %s:%d: %s is \"%s\", not \"%s\"\n", __FILE__,        \
             __LINE__, #expression, found_ ? found_ : "(NULL)", wanted_); \
      fflush(stdout);                                                     \
    }                                                                     \
  } while (0)

/* Prints one line at once, for a test that waits for it. */
#define SAY(...)                                                          \
  do {                                                                    \
    printf(__VA_ARGS__);                                                  \
    putchar('\n');                                                        \
    fflush(stdout);                                                       \
  } while (0)

/* Whether the test has closed standard input, that is, whether to stop. Input is thrown away. */
__attribute__((unused)) static int told_to_stop(void) {
  struct pollfd input = {0, POLLIN, 0};
  char bytes[64];
  return poll(&input, 1, 0) > 0 && read(0, bytes, sizeof(bytes)) <= 0;
}

/* The port behind the last colon of an address. */
__attribute__((unused)) static const char *port_of(const char *address) {
  const char *colon = address ? strrchr(address, ':') : NULL;
  return colon ? colon + 1 : address ? address : "none";
}

/* The exit status of such a program. */
#define VERDICT (failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE)

#endif
