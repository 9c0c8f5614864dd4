"""A client that asks one thing at a time, and only when the server sleeps: each request has a turn of
the server's loop of its own."""

import base64
import re
import socket
import ssl
import struct
import sys
import time

PATIENCE = 60


class Client:
    """One connection that waits for the server to sleep."""

    def __init__(self, pid, port, over_tls=False):
        self.pid, self.port = pid, port
        self.state_file = f"/proc/{pid}/stat"
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if over_tls:
            self.socket = tls_context().wrap_socket(self.socket)
        self.received = b""

    def close(self):
        self.socket.close()

    def wait_for_sleep(self):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with open(self.state_file) as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "S":
                    return
        sys.exit("the server never sleeps")

    def read_until(self, complete):
        """Reads until `complete(received)` gives the length of an answer."""
        while not (length := complete(self.received)):
            piece = self.socket.recv(65536)
            if not piece:
                sys.exit("the server has closed the connection")
            self.received += piece
        answer, self.received = self.received[:length], self.received[length:]
        return answer

    def ask(self, path, fields="", times=1):
        """Asks so many times at once."""
        self.wait_for_sleep()
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"
        self.socket.sendall(request.encode() * times)
        for _ in range(times):
            answer = self.read_until(answer_length)
            if not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 101")):
                sys.exit(f"{path}: {answer[:40]!r}")

    def upgrade(self):
        key = base64.b64encode(bytes(16)).decode()
        self.ask("/echo", "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                 f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n")

    def echo(self, message):
        mask = b"\x12\x34\x56\x78"
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(message))
        self.wait_for_sleep()
        self.socket.sendall(struct.pack("BB", 0x82, 0x80 | len(message)) + mask + masked)
        length = 2 + len(message)
        if self.read_until(lambda got: length if len(got) >= length else 0)[2:] != message:
            sys.exit("the echo is another message")


def tls_context():
    """TLS 1.3, and whatever certificate: it is the benches' own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def answer_length(received):
    head, end, _ = received.partition(b"\r\n\r\n")
    if not end:
        return 0
    field = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    length = len(head) + 4 + (int(field.group(1)) if field else 0)
    return length if len(received) >= length else 0
