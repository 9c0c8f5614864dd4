/* civetweb in the comparison. It takes a thread for each connection, so it gets as many as there
   are. Answers every request alike, behind its body. Picks a port of 127.0.0.1 and prints "PORT n". */

#include <civetweb.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

static int serve(struct mg_connection *conn, void *unused) {
  static const char answer[] =
      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nHello";
  static __thread char body[1 << 16];
  (void) unused;
  while (mg_read(conn, body, sizeof body) > 0) continue;
  mg_write(conn, answer, sizeof answer - 1);
  return 200;
}

int main(void) {
  static const char *options[] = {"listening_ports", "127.0.0.1:0", "num_threads", "80",
                                  "enable_keep_alive", "yes", "keep_alive_timeout_ms", "3600000",
                                  "request_timeout_ms", "3600000", "tcp_nodelay", "1",
                                  "listen_backlog", "4096", NULL};
  struct mg_callbacks callbacks = {0};
  struct mg_server_port port;
  struct mg_context *server;
  struct rlimit files;

  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  server = mg_start(&callbacks, NULL, options);
  if (server == NULL || mg_get_server_ports(server, 1, &port) != 1) {
    fprintf(stderr, "civetweb does not start\n");
    return 1;
  }
  mg_set_request_handler(server, "/", serve, NULL);
  printf("PORT %d\n", port.port);
  fflush(stdout);
  for (;;) pause();
}
