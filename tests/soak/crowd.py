"""A crowd of slow clients around a fast one."""
import resource
import select
import socket
import threading
import time

from server import PATIENCE, Failure, Server

MOST = 10_000
TIMEOUT = 4
# What a slow client may cost the server: its connection and slot, a buffer for what it has sent,
# at most 1 KiB here, and the pages that are touched of one for a long body. Buffers as large as
# a head may be, or as what a body was announced with, would exceed this.
PER_CONNECTION = 4 << 10
# And whatever does not depend on their number: large buffers that are kept for the next bodies,
# up to 16 MiB (src/server/spares.rs), those of the loop, and of the fast client.
BASE = 20 << 20

STARTS = [
    # These go on, a byte now and then.
    b"GET /hello HTTP/1.1\r\nHost: a\r\nX: ",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx",
    # These do not.
    b"GET /hello HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 900,
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 900,
]


class Fast(threading.Thread):
    """Asks all the time, on one connection and on new ones."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.over, self.answers, self.longest, self.error = port, False, 0, 0, None

    def run(self):
        try:
            while not self.over:
                with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as client:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    for _ in range(20):
                        self.ask(client)
                        # The slow ones, in the same interpreter, need their time, too.
                        time.sleep(0.001)
        except (OSError, Failure) as error:
            self.error = f"a fast client among slow ones: {error!r}"

    def ask(self, client):
        body = b"%d" % self.answers * 50
        began = time.monotonic()
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        got = b""
        while not got.endswith(b"\r\n0\r\n\r\n"):
            piece = client.recv(65536)
            if not piece:
                raise Failure(f"the connection ends after {got!r}")
            got += piece
        self.longest = max(self.longest, time.monotonic() - began)
        head, _, content = got.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 ") or content != b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body):
            raise Failure(f"a wrong answer: {got!r}")
        self.answers += 1


def run(folder):
    # Some descriptors are our own, or the server's.
    count = min(MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100)
    if count < 100:
        raise Failure(f"a crowd of {count}: raise `ulimit -n`")
    server = Server(folder, "crowd", request_timeout_ms=TIMEOUT * 1000, idle_timeout_ms=TIMEOUT * 3000)
    crowd = {}
    try:
        return watch(server, crowd, count)
    finally:
        for client, *_ in crowd.values():
            client.close()
        server.kill()


def watch(server, crowd, count):
    server.report()
    before, descriptors = server.rss(), server.descriptors()
    fast = Fast(server.port)
    fast.start()
    poll = select.epoll()
    endings = {"408": 0, "closed": 0}
    peak_rss = peak_open = opened = at = 0
    last = None  # when nothing of it should be left
    next_look = time.monotonic()
    trickling = []
    while opened < count or crowd:
        for _ in range(min(100, count - opened)):
            client = socket.socket()
            client.settimeout(PATIENCE)
            began = time.monotonic()
            client.connect(("127.0.0.1", server.port))
            client.setblocking(False)
            client.send(STARTS[opened % 4])
            poll.register(client, select.EPOLLIN)
            crowd[client.fileno()] = client, began
            if opened % 4 < 2:
                trickling.append((client.fileno(), client))
            opened += 1
        for fd, _ in poll.poll(0 if opened < count else 0.01, 1000):
            client, began = crowd.pop(fd)
            lasted = time.monotonic() - began
            endings[ending(client)] += 1
            client.close()
            # Counted from before its connection was made. How late we look is our own matter,
            # but early it cannot be.
            if lasted < 0.9 * TIMEOUT:
                raise Failure(f"a slow client was sent away after {lasted:.1f} s of {TIMEOUT} s")
            if lasted > TIMEOUT + PATIENCE:
                raise Failure(f"a slow client was only sent away after {lasted:.1f} s of {TIMEOUT} s")
        # Each of them once in a second or two.
        for _ in range(min(50, len(trickling))):
            at = (at + 1) % len(trickling)
            fd, client = trickling[at]
            if crowd.get(fd, (None,))[0] is client:
                try:
                    client.send(b"z")
                except OSError:
                    pass  # what the server has said is read above
        now = time.monotonic()
        if now > next_look:
            next_look = now + 0.1
            peak_rss = max(peak_rss, server.rss())
            peak_open = max(peak_open, len(server.descriptors()) - len(descriptors))
            if fast.error:
                raise Failure(fast.error)
        last = last or (now if opened == count else None)
        if last and now > last + TIMEOUT + PATIENCE:
            raise Failure(f"{len(crowd)} slow clients are still there")
    fast.over = True
    fast.join(PATIENCE)
    if fast.is_alive():
        raise Failure("the fast client is not answered")
    if fast.error:
        raise Failure(fast.error)
    if fast.answers < 100:
        raise Failure(f"the fast client got only {fast.answers} answers")
    server.wait_until_quiet(descriptors)
    server.report()
    grown = peak_rss - before
    print(f"crowd: {count} slow clients, {peak_open} at once; {endings['408']} got 408, "
          f"{endings['closed']} were closed; the fast one got {fast.answers} answers, the slowest "
          f"in {fast.longest * 1000:.0f} ms; {grown / 1024 / 1024:.1f} MiB at the peak, "
          f"{grown / max(peak_open, 1):.0f} bytes for each, {(server.rss() - before) / 1024:.0f} KiB "
          f"afterwards", flush=True)
    if grown > BASE + PER_CONNECTION * peak_open:
        raise Failure(f"memory grew by {grown} bytes for {peak_open} connections, more than {BASE} "
                      f"and {PER_CONNECTION} for each")
    server.stop()


def ending(client):
    got = b""
    try:
        while True:
            piece = client.recv(4096)
            if not piece:
                break
            got += piece
    except BlockingIOError:
        pass  # the end follows
    except OSError:
        return "closed"
    if got and not got.startswith(b"HTTP/1.1 408 "):
        raise Failure(f"a slow client is answered {got[:100]!r}")
    return "408" if got else "closed"
