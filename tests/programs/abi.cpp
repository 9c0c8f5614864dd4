// The header as a C++ program sees it: the header structure is a member of the connection's, with
// and without its keyword; C linkage; a handler that is a static member.
#include "mongoose.h"

#include <cstdlib>
#include <cstring>

namespace {

const char *name_of(const struct mg_connection::mg_header &header) { return header.name; }

const char *value_of(const mg_connection::mg_header &header) { return header.value; }

struct Site {
  static int answer(struct mg_connection *conn) {
    for (int i = 0; i < conn->num_headers; i++) {
      const struct mg_connection::mg_header *header = &conn->http_headers[i];
      if (std::strcmp(name_of(*header), value_of(*header)) == 0) return 1;
    }
    return conn->server_param == NULL;
  }
};

}  // namespace

int main() {
  mg_handler_t handler = &Site::answer;
  mg_server *server = mg_create_server(NULL);
  const bool made = server != NULL;
  mg_add_uri_handler(server, "/", handler);
  mg_connection conn = mg_connection();
  mg_connection::mg_header header = {"a", "a"};
  conn.num_headers = 1;
  conn.http_headers[0] = header;
  const bool right = handler(&conn) == 1;
  mg_destroy_server(&server);
  return made && right && server == NULL ? EXIT_SUCCESS : EXIT_FAILURE;
}
