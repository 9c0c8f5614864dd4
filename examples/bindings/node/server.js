// The library from Node, by koffi: a page, and a websocket that echoes.
//
//     npm install && MONGOOSE_LIBRARY=../../../build/libmongoose.so.5 node server.js [PORT]

'use strict';

const koffi = require('koffi');

const library = koffi.load(process.env.MONGOOSE_LIBRARY || 'libmongoose.so.5');

koffi.opaque('mg_server');
koffi.struct('mg_header', { name: 'const char *', value: 'const char *' });
// Texts become strings of JavaScript, which are copies; `content` stays a pointer.
const Connection = koffi.struct('mg_connection', {
  request_method: 'const char *', uri: 'const char *', http_version: 'const char *', query_string: 'const char *',
  remote_ip: koffi.array('char', 48), remote_port: 'int', num_headers: 'int',
  http_headers: koffi.array('mg_header', 30), content: 'void *', content_len: 'int', is_websocket: 'int',
  status_code: 'int', wsbits: 'uchar', server_param: 'void *', connection_param: 'void *',
});
const Handler = koffi.proto('int mg_handler_t(void *conn)');

const C = {
  create: library.func('mg_server *mg_create_server(void *param)'),
  destroy: library.func('void mg_destroy_server(_Inout_ mg_server **server)'),
  set: library.func('const char *mg_set_option(mg_server *server, const char *name, const char *value)'),
  get: library.func('const char *mg_get_option(mg_server *server, const char *name)'),
  poll: library.func('unsigned int mg_poll_server(mg_server *server, int milliseconds)'),
  handle: library.func('void mg_add_uri_handler(mg_server *server, const char *uri, mg_handler_t *handler)'),
  status: library.func('void mg_send_status(void *conn, int status)'),
  header: library.func('void mg_send_header(void *conn, const char *name, const char *value)'),
  data: library.func('void mg_send_data(void *conn, const void *data, int length)'),
  frame: library.func('int mg_websocket_write(void *conn, int opcode, const void *data, size_t length)'),
};

function answer(conn, status, kind, content) {
  const data = Buffer.from(content);
  C.status(conn, status);
  C.header(conn, 'Content-Type', kind);
  C.data(conn, data, data.length);
}

function handle(server, prefix, handler) {
  // Registered callbacks are kept by koffi until they are unregistered. An exception must not cross the C code.
  const callback = koffi.register((conn) => {
    const fields = koffi.decode(conn, Connection);
    try {
      return handler(conn, fields);
    } catch (error) {
      console.error(error);
      if (!fields.is_websocket) answer(conn, 500, 'text/plain', 'Internal error\n');
      return 1;
    }
  }, koffi.pointer(Handler));
  C.handle(server, prefix, callback);
}

const page = `<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Node</title>
<body style="font:1.1rem/1.5 system-ui;margin:2rem;color-scheme:light dark">
<h1>Served through Node</h1>
<input id="text" placeholder="Say something"><pre id="lines"></pre>
<script>
const socket = new WebSocket(location.href.replace('http', 'ws') + 'echo');
socket.onmessage = (event) => { lines.textContent = event.data + '\\n' + lines.textContent; };
text.onchange = () => { socket.send(text.value); text.value = ''; };
</script>
`;

const server = C.create(null);
const problem = C.set(server, 'listening_port', '127.0.0.1:' + (process.argv[2] || '8080'));
if (problem !== null) {
  console.error(problem);
  process.exit(1);
}
handle(server, '/', (conn) => {
  answer(conn, 200, 'text/html; charset=utf-8', page);
  return 1;
});
handle(server, '/fails', () => { throw new Error('an exception in a handler'); });
handle(server, '/echo', (conn, fields) => {
  if (!fields.is_websocket) {
    answer(conn, 426, 'text/plain', 'A websocket is spoken here.\n');
    return 1;
  }
  const opcode = fields.wsbits & 15;
  if (opcode === 1 || opcode === 2) C.frame(conn, opcode, fields.content, fields.content_len);
  return opcode === 8 ? 1 : 0;
});

let over = false;
for (const name of ['SIGINT', 'SIGTERM']) process.on(name, () => { over = true; });
console.log(`Listening on http://${C.get(server, 'listening_port')}/`);

// The loop of the library has its turn between those of Node. While it waits Node does not run: a few milliseconds.
function turn() {
  if (over) {
    C.destroy([server]);
    process.exit(0);
  }
  C.poll(server, 5);
  setImmediate(turn);
}
turn();
