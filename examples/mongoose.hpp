// The library for C++17, in a header alone: copy it beside your sources, and link the library.
//
//   mongoose::Server server;
//   server.set("listening_port", "8080");
//   server.on("/hello", [](mongoose::Connection &conn) { conn.answer("text/plain", "Hello!\n"); });
//   for (;;) server.poll(std::chrono::seconds(1));
//
// What is a std::string_view here belongs to the library, and is good until the handler returns: copy what you keep.
// A Server is used by one thread, the one that polls, but for `for_each` and `send_to_all`, which any thread may call.
// The other threads must have ended before the server does.
#ifndef MONGOOSE_HPP_INCLUDED
#define MONGOOSE_HPP_INCLUDED

#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <mongoose.h>

namespace mongoose {

// An option that was refused: `what()` has its name, and the library's sentence.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A connection and its request or message, as a handler sees them. A view: it owns nothing.
class Connection {
 public:
  explicit Connection(mg_connection *conn) noexcept : conn_(conn) {}

  std::string_view method() const noexcept { return text(conn_->request_method); }
  std::string_view path() const noexcept { return text(conn_->uri); }
  std::string_view query() const noexcept { return text(conn_->query_string); }
  std::string_view address() const noexcept { return conn_->remote_ip; }

  // The content of the request, or the payload of the websocket message.
  std::string_view content() const noexcept {
    return {conn_->content, static_cast<std::size_t>(conn_->content_len)};
  }

  std::optional<std::string_view> header(const char *name) const noexcept {
    const char *value = mg_get_header(conn_, name);
    return value == nullptr ? std::nullopt : std::optional<std::string_view>(value);
  }

  // A variable of the query or of a form, whatever its length.
  std::optional<std::string> variable(const char *name) const {
    // A decoded value is no longer than what it was read from.
    std::string value(query().size() + content().size() + 1, '\0');
    const int length = mg_get_var(conn_, name, value.data(), value.size());
    if (length < 0) return std::nullopt;
    value.resize(static_cast<std::size_t>(length));
    return value;
  }

  bool is_websocket() const noexcept { return conn_->is_websocket != 0; }
  // Of a websocket message: 1 is text, 2 binary, 8 the end.
  int opcode() const noexcept { return conn_->wsbits & 15; }

  // A whole answer.
  void answer(const char *type, std::string_view body, int status_code = 200) {
    status(status_code).field("Content-Type", type).write(body);
  }

  // An answer in pieces: status and fields first, in this order. It ends when the handler returns.
  Connection &status(int code) noexcept {
    mg_send_status(conn_, code);
    return *this;
  }
  Connection &field(const char *name, const char *value) noexcept {
    mg_send_header(conn_, name, value);
    return *this;
  }
  Connection &write(std::string_view piece) noexcept {
    // An empty piece would end an answer that is given later.
    while (!piece.empty()) {
      const std::string_view part = piece.substr(0, std::numeric_limits<int>::max());
      mg_send_data(conn_, part.data(), static_cast<int>(part.size()));
      piece.remove_prefix(part.size());
    }
    return *this;
  }

  // A websocket message. Returns whether it was queued.
  bool send(std::string_view payload, int opcode = 1) noexcept {
    return mg_websocket_write(conn_, opcode, payload.data(), payload.size()) > 0;
  }

  mg_connection *get() const noexcept { return conn_; }

 private:
  static std::string_view text(const char *text) noexcept {
    return text == nullptr ? std::string_view() : std::string_view(text);
  }

  mg_connection *conn_;
};

// A server, which closes all of its connections at the end of its life. Can be moved, also while handlers are set.
class Server {
 public:
  using Handler = std::function<void(Connection &)>;
  // Returns whether the websocket is to be closed.
  using MessageHandler = std::function<bool(Connection &)>;
  using ExceptionHandler = std::function<void(Connection &, std::exception_ptr)>;

  Server() : state_(std::make_unique<State>()) {
    state_->server = mg_create_server(state_.get());
    if (state_->server == nullptr) throw std::bad_alloc();
  }

  void set(const char *name, const std::string &value) {
    const char *problem = mg_set_option(state_->server, name, value.c_str());
    if (problem != nullptr) throw Error(std::string(name) + ": " + problem);
  }

  std::string get(const char *name) const {
    const char *value = mg_get_option(state_->server, name);
    if (value == nullptr) throw Error(std::string(name) + ": No such option");
    return value;
  }

  // Calls `handler` for every request whose path begins so; of several that match, for the one added last.
  void on(std::string prefix, Handler handler) {
    state_->add(std::move(prefix), std::move(handler), MessageHandler());
  }

  // Calls `handler` for every message of the websockets there. Other requests get 426.
  void on_message(std::string prefix, MessageHandler handler) {
    state_->add(std::move(prefix), Handler(), std::move(handler));
  }

  // What is called with an exception that leaves a handler. Without one it leaves `poll`, and the connection is closed;
  // the next `poll` goes on with the others.
  void on_exception(ExceptionHandler handler) { state_->on_exception = std::move(handler); }

  // One turn of the loop, which waits at most for so long. Handlers run here.
  void poll(std::chrono::milliseconds wait) {
    mg_poll_server(state_->server, static_cast<int>(wait.count()));
  }

  // Calls `visit` for each websocket, on the thread that polls, and returns when that is done: their number, or -1 if
  // nobody polled. `visit` may throw where this is called by the polling thread itself or by a handler.
  int for_each(std::function<void(Connection &)> visit) {
    struct Visit {
      const std::function<void(Connection &)> *function;
      std::exception_ptr thrown;
    } all{&visit, nullptr};
    const int count = mg_iterate_over_connections(
        state_->server,
        [](mg_connection *conn, void *param) {
          Visit &one = *static_cast<Visit *>(param);
          if (one.thrown) return;
          try {
            Connection connection(conn);
            (*one.function)(connection);
          } catch (...) {
            // It is not the caller's stack that this runs on.
            one.thrown = std::current_exception();
          }
        },
        &all);
    if (all.thrown) std::rethrow_exception(all.thrown);
    return count;
  }

  // Sends a message to each websocket, from any thread.
  int send_to_all(std::string_view payload, int opcode = 1) {
    return for_each([&](Connection &conn) { conn.send(payload, opcode); });
  }

  mg_server *get() const noexcept { return state_->server; }

 private:
  struct Route {
    std::string prefix;
    Handler handler;
    MessageHandler message_handler;
  };

  // Has one place for the whole life of a server: `server_param` points to it.
  struct State {
    mg_server *server = nullptr;
    // Handlers may add handlers: what runs has to stay.
    std::vector<std::shared_ptr<const Route>> routes;
    ExceptionHandler on_exception;

    State() = default;
    State(const State &) = delete;
    State &operator=(const State &) = delete;
    ~State() { mg_destroy_server(&server); }

    void add(std::string prefix, Handler handler, MessageHandler message_handler) {
      routes.push_back(std::make_shared<const Route>(
          Route{std::move(prefix), std::move(handler), std::move(message_handler)}));
      mg_add_uri_handler(server, routes.back()->prefix.c_str(), &State::handle);
    }

    // The handler that the library knows: it cannot be told which of the prefixes led here, and looks anew, in the
    // library's order.
    static int handle(mg_connection *raw) {
      State &state = *static_cast<State *>(raw->server_param);
      Connection conn(raw);
      std::shared_ptr<const Route> route;
      for (auto next = state.routes.rbegin(); next != state.routes.rend() && !route; ++next) {
        const std::string &prefix = (*next)->prefix;
        if (conn.path().substr(0, prefix.size()) == prefix) route = *next;
      }
      if (!route) return 0;
      if (!state.on_exception) return call(*route, conn);
      try {
        return call(*route, conn);
      } catch (...) {
        state.on_exception(conn, std::current_exception());
        return 1;
      }
    }

    static int call(const Route &route, Connection &conn) {
      if (conn.is_websocket()) return route.message_handler ? route.message_handler(conn) : 1;
      if (route.handler) {
        route.handler(conn);
      } else {
        conn.answer("text/plain", "A websocket is spoken here.\n", 426);
      }
      return 1;
    }
  };

  std::unique_ptr<State> state_;
};

}  // namespace mongoose

#endif
