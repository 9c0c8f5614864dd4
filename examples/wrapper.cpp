// A C++ class around the server: the object passes itself as server_param, so that the handlers,
// which are plain functions to the library, find their way back to it.
//
//   c++ wrapper.cpp -o wrapper -lmongoose && ./wrapper 8080
#include <csignal>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>

#include "mongoose.h"

class CounterSite {
 public:
  explicit CounterSite(const std::string &port) : server_(mg_create_server(this)) {
    const char *problem = mg_set_option(server_, "listening_port", port.c_str());
    if (problem != NULL) {
      mg_destroy_server(&server_);
      throw std::runtime_error(problem);
    }
    mg_add_uri_handler(server_, "/", &handle<&CounterSite::count>);
    mg_add_uri_handler(server_, "/total", &handle<&CounterSite::total>);
  }

  ~CounterSite() { mg_destroy_server(&server_); }

  std::string port() const { return mg_get_option(server_, "listening_port"); }

  void poll(int milliseconds) { mg_poll_server(server_, milliseconds); }

 private:
  CounterSite(const CounterSite &);
  CounterSite &operator=(const CounterSite &);

  // One C function for each member function that handles a path.
  template <int (CounterSite::*Member)(mg_connection *)>
  static int handle(mg_connection *conn) {
    return (static_cast<CounterSite *>(conn->server_param)->*Member)(conn);
  }

  int count(mg_connection *conn) {
    const int visits = ++visits_[conn->uri];
    mg_printf_data(conn, "%s: %d visits\n", conn->uri, visits);
    return 1;
  }

  int total(mg_connection *conn) {
    int sum = 0;
    for (std::map<std::string, int>::const_iterator page = visits_.begin(); page != visits_.end();
         ++page) {
      sum += page->second;
    }
    mg_printf_data(conn, "%d visits in all\n", sum);
    return 1;
  }

  mg_server *server_;
  std::map<std::string, int> visits_;
};

static volatile std::sig_atomic_t stop;

static void on_signal(int) { stop = 1; }

int main(int argc, char *argv[]) try {
  CounterSite site(argc > 1 ? argv[1] : "8080");
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  std::cout << "Listening on http://127.0.0.1:" << site.port() << "/" << std::endl;
  while (!stop) site.poll(1000);
  return 0;
} catch (const std::exception &error) {
  std::cerr << error.what() << std::endl;
  return 1;
}
