/* A daemon that sets its logs first, by paths relative to where it is, then goes to /, closes every
 * descriptor, and opens files of its own, which get the same numbers. Its argument is the folder. */
#include <fcntl.h>
#include <sys/stat.h>

#include "check.h"
#include "mongoose.h"

static int own[64];
static int num_own;

static int alive(struct mg_connection *conn) {
  mg_send_header(conn, "A", "b\r\nc"); /* an error for the log */
  mg_printf_data(conn, "alive");
  return 1;
}

/* All descriptors but those that the test speaks by. */
static void close_all(void) {
  int fd;
  for (fd = 3; fd < 256; fd++) close(fd);
}

/* As many as may have been closed. */
static void open_own(const char *folder) {
  char path[512];
  snprintf(path, sizeof(path), "%s/own", folder);
  for (num_own = 0; num_own < 16; num_own++) {
    own[num_own] = open(path, O_RDWR | O_CREAT | O_APPEND, 0644);
    CHECK(own[num_own] > 2);
  }
}

int main(int argc, char *argv[]) {
  struct mg_server *server = mg_create_server(NULL);
  int i;
  CHECK(argc > 1 && chdir(argv[1]) == 0);
  CHECK(mg_set_option(server, "access_log_file", "access.log") == NULL);
  CHECK(mg_set_option(server, "error_log_file", "error.log") == NULL);
  CHECK(chdir("/") == 0);
  close_all();
  open_own(argv[1]);
  CHECK(mg_set_option(server, "listening_port", "127.0.0.1:0") == NULL);
  mg_add_uri_handler(server, "/alive", alive);
  SAY("PORT %s", port_of(mg_get_option(server, "listening_port")));
  while (!told_to_stop()) mg_poll_server(server, 20);
  mg_destroy_server(&server);
  for (i = 0; i < num_own; i++) CHECK(fcntl(own[i], F_GETFD) != -1);
  return VERDICT;
}
