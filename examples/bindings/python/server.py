#!/usr/bin/env python3
"""The library from Python, by ctypes: a class with decorators, and a program that uses it.

    server.py [PORT]

It serves a page, echoes what websockets say, and pushes the time to all of them from a second thread. Needs
nothing but Python 3 and the library, which MONGOOSE_LIBRARY names if it is not where the loader looks.
"""

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from ctypes import POINTER, c_char, c_char_p, c_int, c_size_t, c_ubyte, c_uint, c_void_p


class Header(ctypes.Structure):
    _fields_ = [('name', c_char_p), ('value', c_char_p)]


class Connection(ctypes.Structure):
    """`struct mg_connection`. Its texts are the library's, and are good until the handler returns; what Python
    reads from a c_char_p is a copy, which may be kept."""

    _fields_ = [
        ('request_method', c_char_p),
        ('uri', c_char_p),
        ('http_version', c_char_p),
        ('query_string', c_char_p),
        ('remote_ip', c_char * 48),
        ('remote_port', c_int),
        ('num_headers', c_int),
        ('http_headers', Header * 30),
        ('content', POINTER(c_char)),
        ('content_len', c_int),
        ('is_websocket', c_int),
        ('status_code', c_int),
        ('wsbits', c_ubyte),
        ('server_param', c_void_p),
        ('connection_param', c_void_p),
    ]


HANDLER = ctypes.CFUNCTYPE(c_int, POINTER(Connection))
VISITOR = ctypes.CFUNCTYPE(None, POINTER(Connection), c_void_p)


def _load():
    library = ctypes.CDLL(os.environ.get('MONGOOSE_LIBRARY', 'libmongoose.so.5'))
    conn = POINTER(Connection)
    # Without these a pointer would be cut to the 32 bits of an int.
    signatures = {
        'mg_create_server': (c_void_p, [c_void_p]),
        'mg_destroy_server': (None, [POINTER(c_void_p)]),
        'mg_set_option': (c_char_p, [c_void_p, c_char_p, c_char_p]),
        'mg_get_option': (c_char_p, [c_void_p, c_char_p]),
        'mg_poll_server': (c_uint, [c_void_p, c_int]),
        'mg_add_uri_handler': (None, [c_void_p, c_char_p, HANDLER]),
        'mg_iterate_over_connections': (c_int, [c_void_p, VISITOR, c_void_p]),
        'mg_send_status': (None, [conn, c_int]),
        'mg_send_header': (None, [conn, c_char_p, c_char_p]),
        'mg_send_data': (None, [conn, c_char_p, c_int]),
        'mg_websocket_write': (c_int, [conn, c_int, c_char_p, c_size_t]),
        'mg_get_header': (c_char_p, [conn, c_char_p]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Request:
    """What a handler gets: the request or the websocket message, and the ways to answer. Good until it returns."""

    def __init__(self, library, conn):
        self._library, self._conn = library, conn
        fields = conn.contents
        self.method = fields.request_method.decode('latin-1')
        self.path = fields.uri.decode('utf-8', 'replace')
        self.query = (fields.query_string or b'').decode('latin-1')
        self.address = fields.remote_ip.decode()
        self.content = ctypes.string_at(fields.content, fields.content_len) if fields.content else b''
        self.is_websocket = bool(fields.is_websocket)
        self.opcode = fields.wsbits & 15

    def header(self, name):
        value = self._library.mg_get_header(self._conn, name.encode())
        return None if value is None else value.decode('latin-1')

    def answer(self, content, kind='text/plain; charset=utf-8', status=200):
        content = content.encode() if isinstance(content, str) else content
        self._library.mg_send_status(self._conn, status)
        self._library.mg_send_header(self._conn, b'Content-Type', kind.encode())
        self._library.mg_send_data(self._conn, content, len(content))

    def send(self, message):
        """Sends a websocket message: text for str, binary for bytes. Returns whether it was queued."""
        return _send(self._library, self._conn, message)


def _send(library, conn, message):
    opcode = 1 if isinstance(message, str) else 2
    data = message.encode() if isinstance(message, str) else message
    return library.mg_websocket_write(conn, opcode, data, len(data)) > 0


class Server:
    """A server. Options are keyword arguments; what is refused is a ValueError."""

    def __init__(self, **options):
        self._library = _load()
        self._server = c_void_p(self._library.mg_create_server(None))
        if not self._server:
            raise MemoryError('mg_create_server')
        # The library keeps pointers to these, which Python must not collect.
        self._kept = []
        try:
            for name, value in options.items():
                self.set(name, value)
        except ValueError:
            self.close()
            raise

    def set(self, name, value):
        error = self._library.mg_set_option(self._server, name.encode(), str(value).encode())
        if error is not None:
            raise ValueError('%s: %s' % (name, error.decode()))

    def get(self, name):
        value = self._library.mg_get_option(self._server, name.encode())
        if value is None:
            raise KeyError(name)
        return value.decode()

    def route(self, prefix):
        """A decorator: the function gets every request whose path begins so."""
        def decorate(function):
            self._add(prefix, self._guarded(function))
            return function
        return decorate

    def websocket(self, prefix):
        """A decorator: the function gets every message of the websockets below a path. If it returns True, the
        websocket is closed."""
        def decorate(function):
            def handle(request):
                if request.is_websocket:
                    return function(request)
                request.answer('A websocket is spoken here.\n', status=426)
                return True
            self._add(prefix, self._guarded(handle))
            return function
        return decorate

    def _add(self, prefix, callback):
        self._kept.append(callback)
        self._library.mg_add_uri_handler(self._server, prefix.encode(), callback)

    def _guarded(self, function):
        """An exception must not cross the C code: ctypes would print it, and answer 0."""
        def call(conn):
            request = Request(self._library, conn)
            try:
                closes = function(request)
                return int(bool(closes)) if request.is_websocket else 1
            except Exception:
                traceback.print_exc()
                if not request.is_websocket:
                    request.answer('Internal error\n', status=500)
                return 1
        return HANDLER(call)

    def push(self, message):
        """Sends a message to every websocket, from any thread. Returns how many there are."""
        visit = VISITOR(lambda conn, _: _send(self._library, conn, message) and None)
        return self._library.mg_iterate_over_connections(self._server, visit, None)

    def poll(self, milliseconds=200):
        """One turn of the loop. ctypes lets go of Python's lock meanwhile, so that other threads run."""
        self._library.mg_poll_server(self._server, milliseconds)

    def close(self):
        self._library.mg_destroy_server(ctypes.byref(self._server))


PAGE = '''<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Python</title>
<body style="font:1.1rem/1.5 system-ui;margin:2rem;color-scheme:light dark">
<h1>Served by Python</h1>
<input id="text" placeholder="Say something"><pre id="lines"></pre>
<script>
const socket = new WebSocket(location.href.replace('http', 'ws') + 'echo');
socket.onmessage = (event) => { lines.textContent = event.data + '\\n' + lines.textContent; };
text.onchange = () => { socket.send(text.value); text.value = ''; };
</script>
'''


def main():
    port = sys.argv[1] if len(sys.argv) > 1 else '8080'
    server = Server(listening_port='127.0.0.1:' + port)
    over = threading.Event()

    @server.route('/')
    def page(request):
        request.answer(PAGE, 'text/html; charset=utf-8')

    @server.route('/fails')
    def fails(request):
        raise RuntimeError('an exception in a handler')

    @server.websocket('/echo')
    def echo(request):
        if request.opcode in (1, 2):
            request.send(request.content.decode() if request.opcode == 1 else request.content)
        return request.opcode == 8

    def push():
        while not over.wait(0.5):
            server.push(time.strftime('It is %H:%M:%S'))

    # Handlers of signals run in the main thread, between two lines of Python.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    thread = threading.Thread(target=push)
    thread.start()
    address = server.get('listening_port').rpartition(':')[2]
    print('Listening on http://127.0.0.1:%s/' % address, flush=True)
    while not over.is_set():
        server.poll()
    # The thread may wait for a turn of the loop.
    while thread.is_alive():
        server.poll(10)
    server.close()


if __name__ == '__main__':
    main()
