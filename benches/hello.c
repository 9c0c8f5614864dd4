/* The library in the comparison: one handler with a short answer. Picks a port of 127.0.0.1 and
   prints "PORT n". */

#include <mongoose.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static int hello(struct mg_connection *conn) {
  static const char answer[] =
      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nHello";
  mg_write(conn, answer, (int) sizeof answer - 1);
  return 1;
}

int main(void) {
  struct mg_server *server = mg_create_server(NULL);
  struct rlimit files;
  const char *error;

  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  mg_set_option(server, "idle_timeout_ms", "0");
  error = mg_set_option(server, "listening_port", "127.0.0.1:0");
  if (error != NULL) {
    fprintf(stderr, "%s\n", error);
    return 1;
  }
  mg_add_uri_handler(server, "/", hello);
  printf("PORT %s\n", strrchr(mg_get_option(server, "listening_port"), ':') + 1);
  fflush(stdout);
  for (;;) mg_poll_server(server, 1000);
}
