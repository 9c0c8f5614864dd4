"""Clients for a server under load: those in GOOD know what they have to be answered and raise
Wrong otherwise, those in RUDE do what clients should not."""
import asyncio
import os
import random
import re
import socket

from http_client import Broken, Client, Digest, Websocket, Wrong, masked

MIB = 1 << 20
LISTED = 50
# Between two things that a client does, in seconds.
PAUSE = float(os.environ.get("SOAK_PAUSE", 0))
# Of the servers, in seconds.
REQUEST_TIMEOUT = 5


class Site:
    """The document root, and what a client has to be told of it."""

    def __init__(self, folder):
        self.root = f"{folder}/root"
        os.makedirs(f"{self.root}/dav")
        os.mkdir(f"{self.root}/listed")
        self.files = {
            "small.txt": b"few bytes\n" * 20,
            "medium.bin": random.randbytes(30_000),
            "big.bin": random.randbytes(8 * MIB),
            "part.txt": b"part",
            "page.shtml": b'<!--#include file="part.txt" -->, '
                          b'<!--#include virtual="repeat.cgi?in=a+page" -->.\n',
            "repeat.cgi": b'#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n%s %s " '
                        b'"$REQUEST_METHOD" "$QUERY_STRING"\nexec cat\n',
            "long.cgi": b'#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\nexec cat medium.bin\n',
            # Longer than anybody waits here: it has to be ended.
            "stay.cgi": b'#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\nbegun\\n"\n'
                        b"sleep 900 &\nsleep 900\n",
        }
        for number in range(LISTED):
            self.files[f"listed/{number}.txt"] = b"%d\n" % number * number
        for name, content in self.files.items():
            with open(f"{self.root}/{name}", "wb") as file:
                file.write(content)
            if name.endswith(".cgi"):
                os.chmod(f"{self.root}/{name}", 0o755)
        self.listing = None


class Context:
    """What the clients of a round share."""

    def __init__(self, port, site, folder, counts, tls=None, prefix=""):
        self.port, self.site, self.folder, self.counts = port, site, folder, counts
        self.tls, self.prefix = tls, prefix
        self.over = False
        self.names = 0

    def client(self):
        return Client(self.port, self.tls)

    def websocket(self):
        return Websocket(self.port, self.tls)

    def count(self, job, number=1):
        self.counts[f"{self.prefix}{job}"] += number

    def name(self):
        self.names += 1
        return f"{os.urandom(4).hex()}-{self.names}"


def same(got, expected, what):
    if got != expected:
        at = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b),
                  min(len(got), len(expected)))
        raise Wrong(f"{what}: {len(got)} bytes in place of {len(expected)}, different from byte {at} "
                    f"on: {got[at:at + 80]!r} in place of {expected[at:at + 80]!r}")


def expect(answer, status, what):
    if answer.status != status:
        raise Wrong(f"{what}: {answer.status} in place of {status}: {answer.body[:200]!r}")
    return answer


# Good ones. Each does one thing, on a connection that it finds, and leaves, open or closed.


async def hello(context, client):
    same(expect(await client.ask("GET", "/hello"), 200, "hello").body, b"hello\n", "hello")


async def echo(context, client, largest=40_000):
    body = random.randbytes(random.randrange(largest))
    chunked, method = random.random() < 0.3, random.choice(["POST", "PUT"])
    answer = await client.ask(method, "/echo", body, chunked=chunked)
    same(expect(answer, 200, "echo").body, body, "echo")


async def large_echo(context, client):
    await echo(context, client, MIB)


async def later(context, client):
    token = random.choice("scpw") + context.name()
    method = random.choice(["GET", "GET", "POST"])
    answer = await client.ask(method, f"/later?token={token}", b"x" if method == "POST" else None)
    same(expect(answer, 200, "later").body, f"later {token}".encode(), "later")


async def file(context, client):
    name = random.choice(["small.txt", "medium.bin", "part.txt", "listed/7.txt", "listed/49.txt"])
    content = context.site.files[name]
    answer = expect(await client.ask("GET", f"/{name}"), 200, name)
    same(answer.body, content, name)
    same(expect(await client.ask("HEAD", f"/{name}"), 200, name).body, b"", f"HEAD {name}")
    known = {"If-None-Match": answer.fields["etag"]}
    expect(await client.ask("GET", f"/{name}", fields=known), 304, f"{name}, known")
    expect(await client.ask("GET", f"/{name}.missing"), 404, "a missing file")


async def big_file(context, client):
    content = context.site.files["big.bin"]
    if random.random() < 0.7:
        start = random.randrange(len(content))
        end = min(start + random.randrange(MIB), len(content) - 1)
        answer = await client.ask("GET", "/big.bin", fields={"Range": f"bytes={start}-{end}"})
        same(expect(answer, 206, "a range").body, content[start : end + 1], "a range")
    else:
        same(expect(await client.ask("GET", "/big.bin"), 200, "big.bin").body, content, "big.bin")


async def slow_reader(context, client):
    """Takes a file piece by piece, so that the server has to wait again and again."""
    content = context.site.files["big.bin"][: 2 * MIB]
    await client.close()
    await client.open()
    client.send(f"GET /big.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=0-{len(content) - 1}\r\n\r\n".encode())
    status, fields = await client.head()
    if status != 206 or int(fields["content-length"]) != len(content):
        raise Wrong(f"a slow reader is answered {status}, {fields}")
    for at in range(0, len(content), 128 * 1024):
        piece = content[at : at + 128 * 1024]
        same(await client.reader.readexactly(len(piece)), piece, "what a slow reader gets")
        await asyncio.sleep(0.02)


async def listing(context, client):
    body = expect(await client.ask("GET", "/listed/"), 200, "a listing").body
    if context.site.listing is None:
        missing = [n for n in range(LISTED) if f'href="{n}.txt"'.encode() not in body]
        if missing:
            raise Wrong(f"a listing without {missing}: {body[:500]!r}")
        context.site.listing = body
    same(body, context.site.listing, "a listing")


async def cgi(context, client):
    token = context.name()
    answer = expect(await client.ask("GET", f"/repeat.cgi?{token}"), 200, "CGI")
    same(answer.body, f"GET {token} ".encode(), "CGI")
    body = random.randbytes(random.randrange(100_000))
    answer = await client.ask("POST", f"/repeat.cgi?{token}", body, chunked=random.random() < 0.3)
    same(expect(answer, 200, "CGI").body, f"POST {token} ".encode() + body, "CGI with content")
    answer = expect(await client.ask("GET", "/long.cgi"), 200, "CGI")
    same(answer.body, context.site.files["medium.bin"], "much from CGI")


async def page(context, client):
    answer = expect(await client.ask("GET", "/page.shtml"), 200, "SSI")
    same(answer.body, b"part, GET in=a+page .\n", "SSI")


async def pipeline(context, client):
    """Many requests at once: the answers have to come in their order."""
    await client.close()
    await client.open()
    tokens, requests, expected = [], b"", []
    for _ in range(random.randrange(2, 20)):
        token = context.name()
        kind = random.randrange(3)
        if kind == 0:
            requests += f"GET /later?token=w{token} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
            expected.append(f"later w{token}".encode())
        elif kind == 1:
            requests += (f"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {len(token)}\r\n\r\n"
                         f"{token}").encode()
            expected.append(token.encode())
        else:
            requests += b"GET /medium.bin HTTP/1.1\r\nHost: a\r\n\r\n"
            expected.append(context.site.files["medium.bin"])
    client.send(requests)
    for number, body in enumerate(expected):
        try:
            same(expect(await client.answer(), 200, "pipelined").body, body, "pipelined")
        except Broken:
            raise Wrong(f"{number} of {len(expected)} pipelined requests are answered") from None


async def half_close(context, client):
    """Says that nothing more will come, and waits for its answer all the same."""
    await client.close()
    await client.open()
    body = random.randbytes(random.randrange(1, 30_000))
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    client.writer.write_eof()
    try:
        same(expect(await client.answer(), 200, "half-closed").body, body, "half-closed")
    except Broken:
        raise Wrong("no answer to who has closed his half") from None
    if await client.reader.read(1):
        raise Wrong("bytes behind the answer to who has closed his half")
    await client.close()


async def trickle(context, client):
    """A head that comes byte by byte, but in time."""
    loop = asyncio.get_running_loop()
    await client.close()
    await client.open()
    began = loop.time()
    for byte in b"GET /hello HTTP/1.1\r\nA: b\r\n\r\n":
        client.send(bytes([byte]))
        await asyncio.sleep(0.005)
        if loop.time() - began > REQUEST_TIMEOUT / 2:
            # We ourselves are too slow for that now.
            return await client.close()
    try:
        same(expect(await client.answer(), 200, "trickled").body, b"hello\n", "trickled")
    except Broken:
        raise Wrong("no answer to a head that trickled in") from None


async def listen(context, client):
    """Some events of an endless stream."""
    await client.close()
    await client.open()
    client.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
    try:
        status, fields = await client.head()
    except Broken:
        raise Wrong("no stream of events") from None
    if status != 200 or fields.get("content-type") != "text/event-stream":
        raise Wrong(f"a stream of events is answered {status}, {fields}")
    before = None
    for _ in range(random.randrange(1, 40)):
        try:
            event = await client.reader.readuntil(b"\n\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Wrong("a stream of events ends") from None
        found = re.fullmatch(rb"data: (\d+)\n\n", event)
        if not found or (before is not None and int(found[1]) != before + 1):
            raise Wrong(f"event {event!r} follows {before}")
        before = int(found[1])
        if context.over:
            break
    await client.close()


async def websocket(context, _):
    """Echoes, whole and in fragments, with pushes between them."""
    client = await context.websocket().shake()
    client.send(masked(1, b"subscribe"))
    pushed = None
    for _ in range(random.randrange(1, 30)):
        payload = random.randbytes(random.choice([0, 1, 125, 126, 4000, random.randrange(100_000)]))
        if random.random() < 0.3:
            cut = random.randrange(len(payload) + 1)
            client.send(masked(2, payload[:cut], fin=False) + masked(9, b"ping") +
                        masked(0, payload[cut:]))
            waiting = [(0x8A, b"ping"), (0x82, payload)]
        else:
            client.send(masked(2, payload))
            waiting = [(0x82, payload)]
        while waiting:
            first, content = await client.frame()
            if first == 0x89:
                client.send(masked(10, content))
            elif first == 0x81:
                found = re.fullmatch(rb"push (\d+)", content)
                if not found or (pushed is not None and int(found[1]) != pushed + 1):
                    raise Wrong(f"{content!r} was pushed after {pushed}")
                pushed = int(found[1])
            elif first == waiting[0][0]:
                same(content, waiting.pop(0)[1], "a websocket's echo")
            else:
                raise Wrong(f"a frame {first:#x}, {content[:80]!r}")
        await asyncio.sleep(random.choice([0, 0, 0.06]))
        if context.over:
            break
    client.send(masked(8, b"\x03\xe8"))
    while True:
        first, content = await client.frame()
        if first == 0x88:
            same(content, b"\x03\xe8", "a websocket's end")
            break
    if await client.reader.read(1):
        raise Wrong("bytes behind a websocket's end")
    await client.close()


class Drive:
    """WebDAV as joe."""

    def __init__(self, client):
        self.client, self.digest = client, Digest()

    async def ask(self, status, method, target, body=None, **fields):
        fields = {name.replace("_", "-"): value for name, value in fields.items()}
        # The first has no nonce yet, and one that is old has to be replaced.
        for _ in range(3):
            given = fields | self.digest.field(method, target)
            answer = await self.client.ask(method, target, body, given, expect=method == "PUT")
            if answer.status != 401 or status == 401:
                break
            self.digest.learn(answer.fields["www-authenticate"])
        return expect(answer, status, f"{method} {target}")


async def dav(context, client):
    drive = Drive(client)
    name = f"/dav/{context.name()}"
    largest = random.choice([1, 2000, 50_000, 50_000, 2 * MIB])
    body, other = random.randbytes(random.randrange(largest)), random.randbytes(1000)
    await drive.ask(401, "PUT", name, body)
    await drive.ask(201, "PUT", name, body)
    same((await drive.ask(200, "GET", name)).body, body, "GET after PUT")
    told = (await drive.ask(207, "PROPFIND", name, Depth="0")).body
    if b"getcontentlength>%d<" % len(body) not in told:
        raise Wrong(f"PROPFIND tells {told!r}")
    lock = (b'<?xml version="1.0"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
            b"<D:locktype><D:write/></D:locktype></D:lockinfo>")
    token = (await drive.ask(200, "LOCK", name, lock, Timeout="Second-600")).fields["lock-token"]
    await drive.ask(423, "PUT", name, other)
    await drive.ask(204, "PUT", name, other, If=f"({token})")
    await drive.ask(207, "PROPPATCH", name,
                    b'<?xml version="1.0"?><D:propertyupdate xmlns:D="DAV:" xmlns:x="soak:"><D:set><D:prop>'
                    b"<x:word>soaked</x:word></D:prop></D:set></D:propertyupdate>", If=f"({token})")
    await drive.ask(204, "UNLOCK", name, Lock_Token=token)
    if b"soaked" not in (await drive.ask(207, "PROPFIND", name, Depth="0")).body:
        raise Wrong("a property is lost")
    folder = f"{name}.d"
    await drive.ask(201, "MKCOL", folder)
    await drive.ask(201, "COPY", name, Destination=f"{folder}/copy")
    await drive.ask(201, "MOVE", folder, Destination=f"{folder}.moved")
    same((await drive.ask(200, "GET", f"{folder}.moved/copy")).body, other, "GET after MOVE")
    await drive.ask(204, "DELETE", f"{folder}.moved")
    await drive.ask(404, "GET", f"{folder}.moved/copy")
    await drive.ask(204, "DELETE", name)
    await drive.ask(404, "GET", name)


async def curl(context, _):
    """Another client than ours: up with a password, down, and away."""
    name = context.name()
    body = random.randbytes(random.randrange(1, 300_000))
    local, url = f"{context.folder}/{name}", f"http://127.0.0.1:{context.port}/dav/{name}"
    with open(local, "wb") as sent:
        sent.write(body)
    for arguments, status in (
        (["-T", local], b"201"), (["-o", f"{local}.back"], b"200"), (["-X", "DELETE"], b"204"),
    ):
        process = await asyncio.create_subprocess_exec(
            "curl", "-q", "-sS", "--noproxy", "*", "--digest", "-u", "joe:secret", "-m", "60",
            "-w", "%{http_code}", *arguments, url,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        out, err = await process.communicate()
        if out != status or err:
            raise Wrong(f"curl {arguments}: {out!r} in place of {status!r}, {err!r}")
    same(open(f"{local}.back", "rb").read(), body, "what curl got")
    os.remove(local)
    os.remove(f"{local}.back")


GOOD = {hello: 4, echo: 6, large_echo: 2, later: 6, file: 4, big_file: 2, slow_reader: 2, listing: 1,
        cgi: 3, page: 2, pipeline: 3, half_close: 2, trickle: 2, listen: 6, websocket: 8, dav: 4, curl: 1}
# What is asked of processes that share a port, where a challenge counts only for the one that made it, and
# of one that speaks TLS, where nobody can close a half.
FORKED = {hello: 2, echo: 2, large_echo: 1, later: 2, file: 2, big_file: 1, cgi: 1, pipeline: 1, listen: 2,
          websocket: 2}
SEALED = {hello: 2, echo: 2, large_echo: 1, later: 1, file: 1, big_file: 1, slow_reader: 1, cgi: 1, pipeline: 1,
          trickle: 1, listen: 1, websocket: 2, dav: 1}


# Rude ones. `client` is not connected.

WAYS = [b"GET /hello HTTP/1.1\r\nHost: a\r\nX-Long: yes",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 5000,
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4000\r\n" + b"x" * 3000,
        b"POST /repeat.cgi HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 5000]


async def leave(client):
    """By a reset, or by a close."""
    if random.random() < 0.5:
        client.reset()
    else:
        await client.close()


async def breaks_off_request(context, client):
    await client.open()
    client.send(random.choice(WAYS))
    await asyncio.sleep(random.choice([0, 0.001, 0.02]))
    await leave(client)


async def breaks_off_answer(context, client):
    await client.open()
    target = random.choice(["/big.bin", "/later?token=s", "/later?token=c", "/listed/", "/page.shtml",
                            "/events", "/long.cgi", "/hello"])
    client.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * random.choice([1, 1, 5]))
    if random.random() < 0.7:
        await client.reader.read(random.choice([1, 10_000, 100_000]))
    await leave(client)


async def closes_half(context, client):
    await client.open()
    client.send(random.choice(WAYS + [b"", b"GET /later?token=s HTTP/1.1\r\nHost: a\r\n\r\n"]))
    client.writer.write_eof()
    while await client.reader.read(65536):
        pass
    await client.close()


async def trickles(context, client):
    """Until the server has had enough."""
    await client.open()
    client.send(b"GET /hello HTTP/1.1\r\nA: ")
    answer = asyncio.ensure_future(client.reader.read())
    try:
        while not answer.done() and not context.over:
            client.send(b"x")
            await asyncio.wait([answer], timeout=0.2)
        if answer.done() and not answer.result().startswith(b"HTTP/1.1 408 "):
            raise Wrong(f"a head without an end is answered {answer.result()[:100]!r}")
    finally:
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)
    client.reset()


async def garbage(context, client):
    await client.open()
    client.send(random.choice([
        random.randbytes(random.randrange(1, 5000)) + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(500) + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    ]))
    client.writer.write_eof()
    answer = await client.reader.read()
    await client.close()
    if answer and not re.match(rb"HTTP/1\.1 [45]\d\d ", answer):
        raise Wrong(f"garbage is answered {answer[:100]!r}")


async def websocket_vanishes(context, _):
    client = await context.websocket().shake()
    client.send(random.choice([b"", masked(1, b"subscribe"), masked(2, b"x" * 50_000)[:20_000],
                               masked(2, b"x" * 100) * 50, b"\xff" * 100, masked(1, b"\xff\xfe")]))
    await asyncio.sleep(random.choice([0, 0.01, 0.2]))
    await leave(client)


async def upload_breaks_off(context, client):
    drive = Drive(client)
    name = f"/dav/broken-{context.name()}"
    drive.digest.learn((await drive.ask(401, "PUT", name, b"")).fields["www-authenticate"])
    await client.close()
    await client.open()
    field = drive.digest.field("PUT", name)["Authorization"]
    client.send(f"PUT {name} HTTP/1.1\r\nHost: a\r\nAuthorization: {field}\r\n"
                f"Content-Length: 1000000\r\n\r\n".encode() + b"x" * random.randrange(200_000))
    await asyncio.sleep(random.choice([0, 0.01]))
    await leave(client)


async def program_is_left(context, client):
    await client.open()
    client.send(b"GET /stay.cgi HTTP/1.1\r\nHost: a\r\n\r\n")
    if random.random() < 0.5:
        await client.reader.readuntil(b"begun\n")
    await leave(client)
    await asyncio.sleep(0.1)


RUDE = {breaks_off_request: 2, breaks_off_answer: 2, closes_half: 2, trickles: 3, garbage: 2,
        websocket_vanishes: 3, upload_breaks_off: 1, program_is_left: 2}
RUDE_FORKED = {breaks_off_request: 1, breaks_off_answer: 1, websocket_vanishes: 1}
RUDE_SEALED = {breaks_off_request: 1, breaks_off_answer: 1, websocket_vanishes: 1, upload_breaks_off: 1}


async def work(context, job, rude, busy):
    """One client: the same again and again."""
    client = context.client()
    loop = asyncio.get_running_loop()
    while not context.over:
        busy[id(client)] = (loop.time(), job.__name__)
        try:
            await job(context, client)
        except (Broken, OSError, asyncio.IncompleteReadError) as error:
            # Who behaves like this has to expect the same.
            if not rude:
                raise Wrong(f"{context.prefix}{job.__name__}: the connection broke: {error!r}") from error
        except Wrong as error:
            raise Wrong(f"{context.prefix}{job.__name__}: {error}") from error
        context.count(job.__name__)
        if rude:
            await client.close()
            await asyncio.sleep(random.random() * 0.03)
        elif random.random() < 0.1:
            await client.close()
        else:
            await asyncio.sleep(PAUSE)
    busy.pop(id(client), None)
    await client.close()


def ghosts(port):
    """Clients that are there, and do nothing any more: the server has to get rid of them."""
    key = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    upgrade = b"GET /websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + key
    found = []
    for start in (*WAYS, b"", b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", upgrade,
                  upgrade + masked(2, b"x" * 100)[:50], b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n",
                  b"GET /stay.cgi HTTP/1.1\r\nHost: a\r\n\r\n"):
        for _ in range(3):
            ghost = socket.socket()
            ghost.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            ghost.settimeout(30)
            ghost.connect(("127.0.0.1", port))
            ghost.sendall(start)
            found.append(ghost)
    return found
