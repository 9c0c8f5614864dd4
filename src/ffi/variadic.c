/* The functions of the interface that take a variable number of arguments. Stable Rust can call
   such functions but not define them. The functions here are hidden inside the library: variadic.rs
   gives each of them its exported name by a single jump, and owns the MD5.

   This file does not know how bytes are sent: a text is formatted and passed to mg_write or
   mg_send_data, which check all arguments but for NULL. */

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#define HIDDEN __attribute__((visibility("hidden")))

struct mg_connection;

/* Functions of the public interface. */
int mg_write(struct mg_connection *conn, const void *buf, int len);
void mg_send_data(struct mg_connection *conn, const void *data, int data_len);

/* Functions of variadic.rs. */
typedef const char *(*next_string)(void *strings);
HIDDEN void mongoose_md5_of(char *buf, next_string next, void *strings);

HIDDEN int mongoose_vprintf(struct mg_connection *conn, const char *format, va_list args,
                            int chunked);
HIDDEN int mongoose_printf(struct mg_connection *conn, const char *format, ...);
HIDDEN void mongoose_printf_data(struct mg_connection *conn, const char *format, ...);
HIDDEN char *mongoose_md5(char *buf, ...);

/* Most texts fit into this number of bytes. Threads of the program may have small stacks. */
enum { STACK_TEXT = 4096 };

static int hand_over(struct mg_connection *conn, const char *text, int len, int chunked) {
  if (chunked) {
    mg_send_data(conn, text, len);
    return len;
  }
  return len > 0 ? mg_write(conn, text, len) : 0;
}

int mongoose_vprintf(struct mg_connection *conn, const char *format, va_list args, int chunked) {
  char small[STACK_TEXT], *large;
  int len, again, queued, error = errno;
  va_list copy;

  if (conn == NULL || format == NULL) return 0;

  va_copy(copy, args);
  len = vsnprintf(small, sizeof small, format, copy);
  va_end(copy);
  if (len < 0) return -1;
  if ((size_t) len < sizeof small) return hand_over(conn, small, len, chunked);

  large = malloc((size_t) len + 1);
  if (large == NULL) return 0;
  errno = error; /* The format may contain %m. */
  va_copy(copy, args);
  again = vsnprintf(large, (size_t) len + 1, format, copy);
  va_end(copy);
  /* Another thread may have changed a string between the two passes. */
  if (again < len) len = again;
  queued = len < 0 ? -1 : hand_over(conn, large, len, chunked);
  free(large);
  return queued;
}

int mongoose_printf(struct mg_connection *conn, const char *format, ...) {
  va_list args;
  int len;

  va_start(args, format);
  len = mongoose_vprintf(conn, format, args, 0);
  va_end(args);
  return len;
}

void mongoose_printf_data(struct mg_connection *conn, const char *format, ...) {
  va_list args;

  va_start(args, format);
  mongoose_vprintf(conn, format, args, 1);
  va_end(args);
}

/* A va_list may be an array, which becomes a pointer as an argument; a structure does not. */
struct strings {
  va_list list;
};

static const char *next(void *strings) {
  return va_arg(((struct strings *) strings)->list, const char *);
}

char *mongoose_md5(char *buf, ...) {
  struct strings strings;

  if (buf == NULL) return NULL;
  va_start(strings.list, buf);
  mongoose_md5_of(buf, next, &strings);
  va_end(strings.list);
  return buf;
}

#ifdef MONGOOSE_HIDE
/* Hides a function that another crate exports: of all declarations of a symbol in the linked files,
   the one with the narrowest visibility counts. See build.rs. */
extern void MONGOOSE_HIDE(void) __attribute__((weak, visibility("hidden")));
static void (*const hide)(void) __attribute__((used)) = MONGOOSE_HIDE;
#endif
