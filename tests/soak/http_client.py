"""Just enough of HTTP, digest authentication and websockets to judge answers byte for byte."""
import asyncio
import base64
import hashlib
import os
import re
import socket
import struct

from server import Failure

LIMIT = 1 << 16


class Wrong(Failure):
    """A well-behaved client was answered wrongly."""


def md5(text):
    return hashlib.md5(text.encode()).hexdigest()


class Digest:
    """Joe's answers to challenges."""

    def __init__(self, user="joe", password="secret"):
        self.user, self.password = user, password
        self.challenge, self.count = None, 0

    def learn(self, field):
        self.challenge = dict(re.findall(r'(\w+)="?([^",]+)"?', field))
        self.count = 0

    def field(self, method, uri):
        if self.challenge is None:
            return {}
        self.count += 1
        nonce, realm = self.challenge["nonce"], self.challenge["realm"]
        nc, cnonce = f"{self.count:08x}", os.urandom(8).hex()
        response = md5(":".join([md5(f"{self.user}:{realm}:{self.password}"), nonce, nc, cnonce,
                                 "auth", md5(f"{method}:{uri}")]))
        return {"Authorization": f'Digest username="{self.user}", realm="{realm}", nonce="{nonce}", '
                                 f'uri="{uri}", qop=auth, nc={nc}, cnonce="{cnonce}", '
                                 f'response="{response}", algorithm=MD5'}


class Answer:
    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body


class Broken(Exception):
    """The connection ended before an answer began."""


class Client:
    """A connection that is opened when it is needed, and again when the server has closed it."""

    def __init__(self, port, tls=None):
        self.port, self.tls = port, tls
        self.reader = self.writer = None

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self.port, limit=LIMIT, ssl=self.tls)
        return self

    async def close(self):
        if self.writer is not None:
            self.writer.close()
            try:
                await self.writer.wait_closed()
            except OSError:
                pass
            self.writer = None

    def reset(self):
        """Leaves without a word: what the server sends from now on is answered by a reset."""
        if self.writer is not None:
            # With TLS there is none any more if the server has closed.
            plain = self.writer.get_extra_info("socket")
            if plain is not None:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
            self.writer = None

    def send(self, data):
        self.writer.write(data)

    async def head(self):
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise Wrong(f"half a head: {error.partial[-200:]!r}") from None
            raise Broken from None
        except ConnectionError:
            raise Broken from None
        lines = head.decode("latin-1").split("\r\n")
        if not re.fullmatch(r"HTTP/1\.1 \d{3} .+", lines[0]):
            raise Wrong(f"no status line: {lines[0]!r}")
        fields = {}
        for line in lines[1:-2]:
            name, colon, value = line.partition(":")
            if not colon:
                raise Wrong(f"no header field: {line!r}")
            fields[name.lower()] = value.strip()
        return int(lines[0][9:12]), fields

    async def answer(self, method="GET"):
        status, fields = await self.head()
        try:
            body = await self.body(method, status, fields)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Wrong(f"half an answer, {status}: {error}") from None
        answer = Answer(status, fields, body)
        if fields.get("connection", "").lower() == "close":
            if await self.reader.read(1):
                raise Wrong("bytes behind the last answer")
            await self.close()
        return answer

    async def body(self, method, status, fields):
        if method == "HEAD" or status in (204, 304) or status < 200:
            return b""
        if fields.get("transfer-encoding") == "chunked":
            pieces = []
            while True:
                size = int((await self.reader.readuntil(b"\r\n")).rstrip(b"\r\n"), 16)
                piece = await self.reader.readexactly(size + 2)
                if piece[-2:] != b"\r\n":
                    raise Wrong(f"a chunk ends with {piece[-2:]!r}")
                if size == 0:
                    return b"".join(pieces)
                pieces.append(piece[:-2])
        if "content-length" in fields:
            return await self.reader.readexactly(int(fields["content-length"]))
        return await self.reader.read()

    async def ask(self, method, target, body=None, fields=None, chunked=False, expect=False):
        """The answer. A connection that had been used before may end at any time before the
        next answer begins; then the request is repeated on a new one."""
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n"
        for name, value in (fields or {}).items():
            head += f"{name}: {value}\r\n"
        if chunked:
            head += "Transfer-Encoding: chunked\r\n"
            third = len(body) // 3 + 1
            pieces = [body[at : at + third] for at in range(0, len(body), third)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        elif body is not None:
            head += f"Content-Length: {len(body)}\r\n"
        if expect:
            head += "Expect: 100-continue\r\n"
        head = (head + "\r\n").encode()
        while True:
            fresh = self.writer is None
            if fresh:
                await self.open()
            try:
                if expect:
                    self.send(head)
                    answer = await self.answer(method)
                    if answer.status != 100:
                        # The content was not sent, and will not be.
                        await self.close()
                        return answer
                    self.send(body)
                else:
                    self.send(head + (body or b""))
                # Read meanwhile: the server may answer before all has come.
                return await self.answer(method)
            except Broken:
                await self.close()
                if fresh:
                    raise Wrong(f"no answer to {method} {target}") from None


def masked(opcode, payload, fin=True):
    key = os.urandom(4)
    length = len(payload)
    repeated = int.from_bytes(key * (length // 4) + key[: length % 4], "big")
    content = (int.from_bytes(payload, "big") ^ repeated).to_bytes(length, "big")
    head = bytes([opcode | (0x80 if fin else 0)])
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 65536:
        head += struct.pack("!BH", 0x80 | 126, length)
    else:
        head += struct.pack("!BQ", 0x80 | 127, length)
    return head + key + content


class Websocket(Client):
    async def shake(self):
        await self.open()
        key = base64.b64encode(os.urandom(16)).decode()
        self.send(f"GET /websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                  f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                  f"Sec-WebSocket-Key: {key}\r\n\r\n".encode())
        try:
            status, fields = await self.head()
        except Broken:
            raise Wrong("no answer to a websocket's handshake") from None
        accept = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        if status != 101 or fields.get("sec-websocket-accept") != base64.b64encode(accept).decode():
            raise Wrong(f"a websocket is answered {status}, {fields}")
        return self

    async def frame(self):
        try:
            first, length = await self.reader.readexactly(2)
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first, await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Wrong("a websocket ends without a word") from None
