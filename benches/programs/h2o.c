/* libh2o in the comparison, on its own event loop.

     h2o [ROOT]

   /hello and /post answer alike; ROOT is served where they are not. Picks a port of 127.0.0.1 and
   prints "PORT n". */

#include <errno.h>
#include <h2o.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

static h2o_globalconf_t config;
static h2o_context_t context;
static h2o_accept_ctx_t accepting;

static int serve(h2o_handler_t *handler, h2o_req_t *request) {
  static h2o_generator_t generator = {NULL, NULL};
  h2o_iovec_t body = h2o_iovec_init(H2O_STRLIT("Hello"));
  (void) handler;
  request->res.status = 200;
  request->res.reason = "OK";
  request->res.content_length = body.len;
  h2o_add_header(&request->pool, &request->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL,
                 H2O_STRLIT("text/plain"));
  h2o_start_response(request, &generator);
  h2o_send(request, &body, 1, 1);
  return 0;
}

static void on_accept(h2o_socket_t *listener, const char *error) {
  int left = 16;
  h2o_socket_t *socket;
  if (error != NULL) return;
  while (left-- > 0 && (socket = h2o_evloop_socket_accept(listener)) != NULL) {
    h2o_accept(&accepting, socket);
  }
}

static void add_handler(h2o_hostconf_t *host, const char *path) {
  h2o_create_handler(h2o_config_register_path(host, path, 0), sizeof(h2o_handler_t))->on_req =
      serve;
}

int main(int argc, char **argv) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  socklen_t address_len = sizeof address;
  h2o_hostconf_t *host;
  h2o_socket_t *listener;
  struct rlimit files;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

  signal(SIGPIPE, SIG_IGN);
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  h2o_config_init(&config);
  config.http1.req_timeout = 3600 * 1000;
  config.max_request_entity_size = 1 << 30;
  host = h2o_config_register_host(&config, h2o_iovec_init(H2O_STRLIT("default")), 65535);
  add_handler(host, "/hello");
  add_handler(host, "/post");
  if (argc > 1) {
    h2o_file_register(h2o_config_register_path(host, "/", 0), argv[1], NULL, NULL, 0);
  }
  h2o_context_init(&context, h2o_evloop_create(), &config);
  accepting.ctx = &context;
  accepting.hosts = config.hosts;

  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || bind(fd, (struct sockaddr *) &address, address_len) < 0 || listen(fd, 4096) < 0 ||
      getsockname(fd, (struct sockaddr *) &address, &address_len) < 0) {
    perror("h2o");
    return 1;
  }
  listener = h2o_evloop_socket_create(context.loop, fd, H2O_SOCKET_FLAG_DONT_READ);
  h2o_socket_read_start(listener, on_accept);
  printf("PORT %d\n", ntohs(address.sin_port));
  fflush(stdout);
  while (h2o_evloop_run(context.loop, INT32_MAX) == 0 || errno == EINTR) continue;
  return 1;
}
