// The header mongoose.hpp: handlers are lambdas, texts are string_views, and what fails is an exception. A thread tells
// all websockets how many visits there were.
//
//   c++ -std=c++17 lambdas.cpp -o lambdas -lmongoose -lpthread && ./lambdas 8080
#include <atomic>
#include <csignal>
#include <iostream>
#include <map>
#include <thread>

#include "mongoose.hpp"

static std::atomic<bool> stop;

static const char PAGE[] = R"(<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Lambdas</title>
<body style="font:16px/1.5 system-ui;margin:2rem auto;max-width:32rem;padding:0 1rem;color-scheme:light dark">
<h1>Visits</h1>
<p><a href="/visit/a">a</a>, <a href="/visit/b">b</a>, <a href="/visit/c">c</a></p>
<p id="sum">…</p>
<script>
  const socket = new WebSocket(location.href.replace('http', 'ws') + 'talk');
  socket.onmessage = event => { document.getElementById('sum').textContent = event.data; };
</script>
)";

int main(int argc, char *argv[]) try {
  mongoose::Server server;
  std::map<std::string, int> visits;
  std::atomic<int> sum{0};

  server.set("listening_port", argc > 1 ? argv[1] : "8080");
  server.on("/", [](mongoose::Connection &conn) { conn.answer("text/html; charset=utf-8", PAGE); });
  server.on("/visit/", [&](mongoose::Connection &conn) {
    const int count = ++visits[std::string(conn.path())];
    ++sum;
    conn.answer("text/plain", std::to_string(count) + " visits of " + std::string(conn.path()) + "\n");
  });
  server.on("/double", [](mongoose::Connection &conn) {
    // Both may throw: there may be no such variable, and it may be no number.
    const int number = std::stoi(conn.variable("of").value());
    conn.answer("text/plain", std::to_string(2L * number) + "\n");
  });
  server.on_message("/talk", [](mongoose::Connection &conn) {
    if (conn.opcode() <= 2) conn.send(conn.content(), conn.opcode());
    return conn.opcode() == 8;
  });
  server.on_exception([](mongoose::Connection &conn, std::exception_ptr thrown) {
    try {
      std::rethrow_exception(thrown);
    } catch (const std::exception &error) {
      if (!conn.is_websocket()) conn.answer("text/plain", std::string("Not possible: ") + error.what() + "\n", 400);
    }
  });

  std::signal(SIGINT, [](int) { stop = true; });
  std::signal(SIGTERM, [](int) { stop = true; });
  std::cout << "Listening on http://127.0.0.1:" << server.get("listening_port") << "/" << std::endl;

  std::atomic<bool> has_ended{false};
  std::thread push([&] {
    for (int told = -1; !stop; std::this_thread::sleep_for(std::chrono::milliseconds(50))) {
      const int now = sum;
      if (now != told && server.send_to_all(std::to_string(now) + " visits in all") > 0) told = now;
    }
    has_ended = true;
  });
  // Until the thread has ended it may wait for a turn.
  while (!has_ended) server.poll(std::chrono::milliseconds(stop ? 1 : 200));
  push.join();
  return 0;
} catch (const std::exception &error) {
  std::cerr << error.what() << std::endl;
  return 1;
}
