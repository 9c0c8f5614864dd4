// C++ exceptions that leave a handler, an error handler and an iterate callback, pass through the
// library and are caught by the loop, which goes on.
#include <stdexcept>
#include <string>

#include "check.h"
#include "mongoose.h"

static mg_server *server;

// Its destructor shows that the frames between are unwound.
struct Witness {
  const char *name;
  ~Witness() { SAY("unwound %s", name); }
};

static int throws(mg_connection *conn) {
  const Witness witness = {"handler"};
  if (conn->query_string != NULL) {
    mg_printf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
  }
  throw std::runtime_error(conn->uri);
}

static void throws_for_each(mg_connection *conn, void *) {
  const Witness witness = {"callback"};
  throw std::runtime_error(std::string("each ") + conn->uri);
}

// Catches what it has caused itself, inside the handler.
static int iterates(mg_connection *conn) {
  std::string text = "nothing";
  try {
    mg_iterate_over_connections(server, throws_for_each, NULL);
  } catch (const std::runtime_error &error) {
    text = error.what();
  }
  mg_printf_data(conn, "%s", text.c_str());
  return 1;
}

// The poll that the exception leaves is the one that frees the server.
static int destroys_and_throws(mg_connection *conn) {
  mg_printf_data(conn, "never seen");
  mg_destroy_server(&server);
  throw std::runtime_error("last");
}

static int fine(mg_connection *conn) {
  mg_printf_data(conn, "fine");
  return 1;
}

int main() {
  server = mg_create_server(NULL);
  mg_set_option(server, "listening_port", "127.0.0.1:0");
  mg_set_option(server, "iterate_over", "all");
  mg_add_uri_handler(server, "/throws", throws);
  mg_add_uri_handler(server, "/iterates", iterates);
  mg_add_uri_handler(server, "/fine", fine);
  mg_add_uri_handler(server, "/last", destroys_and_throws);
  mg_set_http_error_handler(server, throws);
  SAY("PORT %s", port_of(mg_get_option(server, "listening_port")));
  while (server != NULL && !told_to_stop()) {
    try {
      mg_poll_server(server, 20);
    } catch (const std::runtime_error &error) {
      SAY("caught %s", error.what());
    }
  }
  mg_destroy_server(&server);
  return VERDICT;
}
