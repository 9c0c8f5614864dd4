/* Serves a directory that one user may write to, until it is killed:
 * serve ADDRESS ROOT PASSWORDS USER PASSWORD [NAME VALUE...]. Prints the address. */
#include <mongoose.h>

int main(int argc, char *argv[]) {
  struct mg_server *server = mg_create_server(NULL);
  const char *problem = NULL;
  int i;

  if (argc < 6) return 2;
  if (!mg_modify_passwords_file(argv[3], "mydomain.com", argv[4], argv[5])) return 1;
  mg_set_option(server, "document_root", argv[2]);
  mg_set_option(server, "dav_auth_file", argv[3]);
  for (i = 6; i + 1 < argc && problem == NULL; i += 2) {
    problem = mg_set_option(server, argv[i], argv[i + 1]);
  }
  if (problem == NULL) problem = mg_set_option(server, "listening_port", argv[1]);
  if (problem != NULL) {
    fprintf(stderr, "%s\n", problem);
    return 1;
  }
  printf("%s\n", mg_get_option(server, "listening_port"));
  fflush(stdout);
  for (;;) mg_poll_server(server, 1000);
}
