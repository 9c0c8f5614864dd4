/* libmicrohttpd in the comparison: one thread with epoll. Picks a port of 127.0.0.1 and prints
   "PORT n". Answers every request alike, behind its body. */

#include <arpa/inet.h>
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static struct MHD_Response *answer;

static enum MHD_Result serve(void *unused, struct MHD_Connection *conn, const char *url,
                             const char *method, const char *version, const char *body,
                             size_t *body_len, void **state) {
  static int begun;
  (void) unused, (void) url, (void) method, (void) version, (void) body;
  if (*state == NULL) {
    *state = &begun;
    return MHD_YES;
  }
  if (*body_len > 0) {
    *body_len = 0;
    return MHD_YES;
  }
  return MHD_queue_response(conn, MHD_HTTP_OK, answer);
}

int main(void) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  struct MHD_Daemon *daemon;
  struct rlimit files;

  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  answer = MHD_create_response_from_buffer(5, "Hello", MHD_RESPMEM_PERSISTENT);
  MHD_add_response_header(answer, "Content-Type", "text/plain");
  daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, serve, NULL,
                            MHD_OPTION_SOCK_ADDR, (struct sockaddr *) &address,
                            MHD_OPTION_CONNECTION_LIMIT, (unsigned) files.rlim_cur - 20,
                            MHD_OPTION_CONNECTION_TIMEOUT, 0U, MHD_OPTION_LISTEN_BACKLOG_SIZE,
                            4096U, MHD_OPTION_END);
  if (daemon == NULL) {
    perror("libmicrohttpd");
    return 1;
  }
  printf("PORT %d\n", MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
  fflush(stdout);
  for (;;) pause();
}
