-- The library from LuaJIT, by its ffi: a page, and a websocket that echoes.
--
--     MONGOOSE_LIBRARY=../../../build/libmongoose.so.5 luajit server.lua [PORT]

local ffi = require('ffi')

ffi.cdef [[
struct mg_server;
struct mg_header { const char *name; const char *value; };
struct mg_connection {
  const char *request_method, *uri, *http_version, *query_string;
  char remote_ip[48];
  int remote_port, num_headers;
  struct mg_header http_headers[30];
  char *content;
  int content_len, is_websocket, status_code;
  unsigned char wsbits;
  void *server_param, *connection_param;
};
typedef int (*mg_handler_t)(struct mg_connection *);
struct mg_server *mg_create_server(void *);
void mg_destroy_server(struct mg_server **);
const char *mg_set_option(struct mg_server *, const char *, const char *);
const char *mg_get_option(const struct mg_server *, const char *);
unsigned int mg_poll_server(struct mg_server *, int);
void mg_add_uri_handler(struct mg_server *, const char *, mg_handler_t);
void mg_send_status(struct mg_connection *, int);
void mg_send_header(struct mg_connection *, const char *, const char *);
void mg_send_data(struct mg_connection *, const void *, int);
int mg_websocket_write(struct mg_connection *, int, const char *, size_t);
typedef long sigset_t_words[16];
int sigemptyset(void *);
int sigaddset(void *, int);
int sigprocmask(int, const void *, void *);
int sigpending(void *);
int sigismember(const void *, int);
]]

local C = ffi.load(os.getenv('MONGOOSE_LIBRARY') or 'libmongoose.so.5')
local SIGINT, SIGTERM, SIG_BLOCK = 2, 15, 0

local function answer(conn, status, kind, content)
  C.mg_send_status(conn, status)
  C.mg_send_header(conn, 'Content-Type', kind)
  C.mg_send_data(conn, content, #content)
end

-- What C keeps a pointer to must not be collected. A callback is never freed, and there are some hundred at most:
-- make one for each path, not one for each request.
local kept = {}

-- An error must not cross the C code.
local function handle(server, prefix, handler)
  local callback = ffi.cast('mg_handler_t', function(conn)
    local done, result = pcall(handler, conn)
    if done then return result end
    io.stderr:write('a handler has failed: ', tostring(result), '\n')
    if conn.is_websocket == 0 then answer(conn, 500, 'text/plain', 'Internal error\n') end
    return 1
  end)
  kept[#kept + 1] = callback
  C.mg_add_uri_handler(server, prefix, callback)
end

local page = [[
<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>LuaJIT</title>
<body style="font:1.1rem/1.5 system-ui;margin:2rem;color-scheme:light dark">
<h1>Served by LuaJIT</h1>
<input id="text" placeholder="Say something"><pre id="lines"></pre>
<script>
const socket = new WebSocket(location.href.replace('http', 'ws') + 'echo');
socket.onmessage = (event) => { lines.textContent = event.data + '\n' + lines.textContent; };
text.onchange = () => { socket.send(text.value); text.value = ''; };
</script>
]]

local server = C.mg_create_server(nil)
local problem = C.mg_set_option(server, 'listening_port', '127.0.0.1:' .. (arg[1] or '8080'))
if problem ~= nil then
  io.stderr:write(ffi.string(problem), '\n')
  os.exit(1)
end

handle(server, '/', function(conn)
  answer(conn, 200, 'text/html; charset=utf-8', page)
  return 1
end)

handle(server, '/fails', function() error('an error in a handler') end)

handle(server, '/echo', function(conn)
  if conn.is_websocket == 0 then
    answer(conn, 426, 'text/plain', 'A websocket is spoken here.\n')
    return 1
  end
  local opcode = bit.band(conn.wsbits, 15)
  if opcode == 1 or opcode == 2 then C.mg_websocket_write(conn, opcode, conn.content, conn.content_len) end
  return opcode == 8 and 1 or 0
end)

-- A callback must not be called amid compiled code, as a handler of signals would be: these are blocked, and asked for.
local set, pending = ffi.new('sigset_t_words'), ffi.new('sigset_t_words')
ffi.C.sigemptyset(set)
ffi.C.sigaddset(set, SIGINT)
ffi.C.sigaddset(set, SIGTERM)
ffi.C.sigprocmask(SIG_BLOCK, set, nil)

local function is_over()
  ffi.C.sigpending(pending)
  return ffi.C.sigismember(pending, SIGINT) == 1 or ffi.C.sigismember(pending, SIGTERM) == 1
end

-- Calls back into Lua, which a compiled trace cannot: without this line it ends with "bad callback".
local function poll() C.mg_poll_server(server, 200) end
jit.off(poll)

io.write('Listening on http://', ffi.string(C.mg_get_option(server, 'listening_port')), '/\n')
io.flush()
while not is_over() do poll() end
local place = ffi.new('struct mg_server *[1]', server)
C.mg_destroy_server(place)
