//! The library from Zig, by its header: a page, and a websocket that echoes.
//!
//!     zig build-exe server.zig -lc -I../../../include -L../../../build -lmongoose -rpath ../../../build
//!     ./server [PORT]

const std = @import("std");
const c = @cImport({
    @cInclude("mongoose.h");
    @cInclude("signal.h");
    @cInclude("stdio.h");
});

const page =
    \\<!doctype html>
    \\<meta charset="utf-8"><meta name="viewport" content="width=device-width">
    \\<title>Zig</title>
    \\<body style="font:1.1rem/1.5 system-ui;margin:2rem;color-scheme:light dark">
    \\<h1>Served by Zig</h1>
    \\<input id="text" placeholder="Say something"><pre id="lines"></pre>
    \\<script>
    \\const socket = new WebSocket(location.href.replace('http', 'ws') + 'echo');
    \\socket.onmessage = (event) => { lines.textContent = event.data + '\n' + lines.textContent; };
    \\text.onchange = () => { socket.send(text.value); text.value = ''; };
    \\</script>
    \\
;

var over = std.atomic.Value(bool).init(false);

fn onSignal(_: c_int) callconv(.C) void {
    over.store(true, .seq_cst);
}

fn answer(conn: *c.struct_mg_connection, status: c_int, kind: [*:0]const u8, content: []const u8) void {
    c.mg_send_status(conn, status);
    c.mg_send_header(conn, "Content-Type", kind);
    c.mg_send_data(conn, content.ptr, @intCast(content.len));
}

const Failure = error{Broken};
const Work = fn (*c.struct_mg_connection) Failure!c_int;

/// A handler for C of one that may fail: errors of Zig are values, and C does not know them.
fn guarded(comptime work: Work) fn ([*c]c.struct_mg_connection) callconv(.C) c_int {
    return struct {
        fn call(conn: [*c]c.struct_mg_connection) callconv(.C) c_int {
            return work(conn) catch |failure| {
                std.debug.print("a handler has failed: {}\n", .{failure});
                if (conn.*.is_websocket == 0) answer(conn, 500, "text/plain", "Internal error\n");
                return 1;
            };
        }
    }.call;
}

fn start(conn: *c.struct_mg_connection) Failure!c_int {
    answer(conn, 200, "text/html; charset=utf-8", page);
    return 1;
}

fn fails(_: *c.struct_mg_connection) Failure!c_int {
    return error.Broken;
}

fn echo(conn: *c.struct_mg_connection) Failure!c_int {
    if (conn.is_websocket == 0) {
        answer(conn, 426, "text/plain", "A websocket is spoken here.\n");
        return 1;
    }
    const opcode: c_int = conn.wsbits & 15;
    if (opcode == 1 or opcode == 2) {
        _ = c.mg_websocket_write(conn, opcode, conn.content, @intCast(conn.content_len));
    }
    return if (opcode == 8) 1 else 0;
}

pub fn main() u8 {
    var buf: [32]u8 = undefined;
    const port: []const u8 = if (std.os.argv.len > 1) std.mem.span(std.os.argv[1]) else "8080";
    const address = std.fmt.bufPrintZ(&buf, "127.0.0.1:{s}", .{port}) catch return 1;

    var server = c.mg_create_server(null);
    const problem = c.mg_set_option(server, "listening_port", address);
    if (problem != null) {
        std.debug.print("{s}\n", .{problem});
        return 1;
    }
    c.mg_add_uri_handler(server, "/", guarded(start));
    c.mg_add_uri_handler(server, "/fails", guarded(fails));
    c.mg_add_uri_handler(server, "/echo", guarded(echo));
    _ = c.signal(c.SIGINT, onSignal);
    _ = c.signal(c.SIGTERM, onSignal);
    _ = c.printf("Listening on http://%s/\n", c.mg_get_option(server, "listening_port"));
    _ = c.fflush(null);
    while (!over.load(.seq_cst)) _ = c.mg_poll_server(server, 200);
    c.mg_destroy_server(&server);
    return 0;
}
