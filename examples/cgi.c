/* A folder with programs and pages with includes: examples/cgi has a guest book. The second
 * argument is the folder, the third, if there is one, runs the programs, as php-cgi.
 *
 *   cc cgi.c -o cgi -lmongoose && ./cgi 8080 examples/cgi
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "mongoose.h"

static volatile sig_atomic_t stop;

static void on_signal(int number) {
  (void) number;
  stop = 1;
}

static int set(struct mg_server *server, const char *name, const char *value) {
  const char *problem = mg_set_option(server, name, value);
  if (problem != NULL) fprintf(stderr, "%s=%s: %s\n", name, value, problem);
  return problem == NULL;
}

int main(int argc, char *argv[]) {
  struct mg_server *server = mg_create_server(NULL);
  int ready = set(server, "document_root", argc > 2 ? argv[2] : "examples/cgi") &
              set(server, "index_files", "index.shtml,index.php") &
              set(server, "ssi_pattern", "**.shtml$") &
              set(server, "cgi_interpreter", argc > 3 ? argv[3] : NULL) &
              set(server, "hide_files_patterns", "entries.txt") &
              /* What programs complain of. */
              set(server, "error_log_file", "/dev/stderr") &
              set(server, "listening_port", argc > 1 ? argv[1] : "8080");

  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  if (ready) {
    printf("Listening on http://127.0.0.1:%s/\n", mg_get_option(server, "listening_port"));
    fflush(stdout);
    while (!stop) mg_poll_server(server, 1000);
  }
  mg_destroy_server(&server);
  return ready ? EXIT_SUCCESS : EXIT_FAILURE;
}
