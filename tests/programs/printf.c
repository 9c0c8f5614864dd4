/* The printf family: every answer is formatted by the library and by the C library, and both must
 * agree in bytes and in length. */
#include <float.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <wchar.h>

#include "check.h"
#include "mongoose.h"

int mg_vprintf(struct mg_connection *, const char *, va_list, int);

enum way { RAW, DATA, VRAW, VCHUNKED };

static enum way way;

/* Formats by the function under test, which for the chunked ones returns no byte count. */
__attribute__((format(printf, 3, 4))) static void compare(struct mg_connection *conn, int wanted,
                                                          const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  CHECK_INT(mg_vprintf(conn, format, arguments, way == VCHUNKED), wanted);
  va_end(arguments);
}

#define WRITE(...)                                          \
  do {                                                      \
    int length_ = snprintf(NULL, 0, __VA_ARGS__);           \
    if (way == RAW) {                                       \
      CHECK_INT(mg_printf(conn, __VA_ARGS__), length_);     \
    } else if (way == DATA) {                               \
      mg_printf_data(conn, __VA_ARGS__);                    \
    } else {                                                \
      compare(conn, length_, __VA_ARGS__);                  \
    }                                                       \
  } while (0)

static int answer(struct mg_connection *conn) {
  static char big[200000];
  const char *query = conn->query_string ? conn->query_string : "";
  int sizes[] = {1, 8191, 8192, 8193, 16384, 65535, 65536, 199999}, i;

  way = strcmp(query, "data") == 0       ? DATA
        : strcmp(query, "vraw") == 0     ? VRAW
        : strcmp(query, "vchunked") == 0 ? VCHUNKED
                                         : RAW;
  if (way == RAW || way == VRAW) WRITE("HTTP/1.%d 200 %s\r\n\r\n", 1, "OK");
  WRITE("%d %u %ld %lld %zu %hhd %jd|", -1, 4000000000u, LONG_MIN, LLONG_MAX, (size_t) 7,
        (signed char) -8, (intmax_t) 9);
  WRITE("%x %X %#o %08d %+d %-6d|", 255u, 255u, 8u, 5, 6, 7);
  WRITE("%f %.2f %e %g %a %Lf|", 1.5, 2.345, 12345.678, 1e-10, 1.0, (long double) 2.25);
  WRITE("%f %F %.0f|", DBL_MAX, -DBL_MIN, 0.5);
  WRITE("%s %.*s %*s %-*s %.3s %c%%|", "text", 3, "abcdef", 8, "right", 8, "left", "cut", 'c');
  WRITE("%2$s %1$s|", "second", "first");
  WRITE("%1$d %2$f %3$s %4$d %5$f %6$s %7$d %8$d %9$d|", 1, 2.0, "3", 4, 5.0, "6", 7, 8, 9);
  WRITE("%d %f %d %f %d %f %d %f %d %f %d %f %d %f %d %f %d %f %d %f|", 1, 1.0, 2, 2.0, 3, 3.0, 4,
        4.0, 5, 5.0, 6, 6.0, 7, 7.0, 8, 8.0, 9, 9.0, 10, 10.0);
  WRITE("%s", "");
  /* There is no such character in this locale: the format fails. */
  if (way == RAW) CHECK_INT(mg_printf(conn, "lost %ls", L"\x20ac"), -1);
  memset(big, 'x', sizeof(big) - 1);
  for (i = 0; i < (int) (sizeof(sizes) / sizeof(sizes[0])); i++) {
    WRITE("%.*s|", sizes[i], big);
    WRITE("%*d|", sizes[i], 1);
  }
  return 1;
}

int main(void) {
  struct mg_server *server = mg_create_server(NULL);
  mg_set_option(server, "listening_port", "127.0.0.1:0");
  mg_add_uri_handler(server, "/", answer);
  SAY("PORT %s", port_of(mg_get_option(server, "listening_port")));
  while (!told_to_stop()) mg_poll_server(server, 20);
  mg_destroy_server(&server);
  return VERDICT;
}
