// examples/mongoose.hpp where the example does not go: exceptions that leave the loop, servers that are moved, long
// variables, and handlers that add handlers.
#include "../../examples/mongoose.hpp"
#include "check.h"

static mongoose::Server moved(mongoose::Server server) { return server; }

int main() {
  mongoose::Server first;
  first.set("listening_port", "127.0.0.1:0");
  first.on("/throws", [](mongoose::Connection &conn) { throw std::runtime_error(std::string(conn.path())); });
  mongoose::Server server = moved(std::move(first));

  try {
    server.set("idle_timeout_ms", "soon");
    CHECK(!"a bad value was taken");
  } catch (const mongoose::Error &error) {
    CHECK(std::string_view(error.what()).find("idle_timeout_ms: ") == 0);
  }
  try {
    server.get("no_such_option");
    CHECK(!"an unknown option has a value");
  } catch (const mongoose::Error &error) {
    CHECK_STR(error.what(), "no_such_option: No such option");
  }

  server.on("/variable", [](mongoose::Connection &conn) {
    conn.answer("text/plain", conn.variable("x").value_or("none"));
  });
  server.on("/fields", [](mongoose::Connection &conn) {
    conn.status(203).field("X-Own", "yes").write(conn.header("X-Sent").value_or("nothing")).write("").write("!");
  });
  server.on("/adds", [&](mongoose::Connection &conn) {
    // What runs now must stay while the list grows.
    for (int number = 0; number < 100; number++) {
      server.on("/adds", [number](mongoose::Connection &other) { other.write(std::to_string(number)); });
    }
    conn.write(conn.method());
  });
  server.on_message("/websocket", [&](mongoose::Connection &conn) {
    if (conn.content() == "all") {
      CHECK_INT(server.for_each([](mongoose::Connection &) { throw std::runtime_error("each"); }), 0);
    }
    if (conn.content() == "count") conn.send(std::to_string(server.send_to_all("everybody")));
    return conn.content() == "close";
  });

  SAY("PORT %s", port_of(server.get("listening_port").c_str()));
  while (!told_to_stop()) {
    try {
      server.poll(std::chrono::milliseconds(20));
    } catch (const std::runtime_error &error) {
      SAY("caught %s", error.what());
    }
  }
  return failures != 0;
}
