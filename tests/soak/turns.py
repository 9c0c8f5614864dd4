"""What changes while a server serves: certificates, logs, ports."""
import asyncio
import os
import socket
import ssl
import subprocess

from http_client import Client, Wrong
from server import PATIENCE

EVERY = 5


class Turns:
    def __init__(self, folder):
        self.certificate = f"{folder}/certificate.pem"
        self.next = [self.make(f"{folder}/{name}") for name in ("one", "other")]
        self.renew()

    @staticmethod
    def make(path):
        """A certificate with its key; and its bytes as a client sees them."""
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "2", "-subj", "/CN=localhost", "-keyout", f"{path}.key", "-out", f"{path}.crt"],
            check=True, stdin=subprocess.DEVNULL, capture_output=True)
        with open(f"{path}.crt") as certificate, open(f"{path}.key") as key:
            pem = certificate.read()
            return pem + key.read(), ssl.PEM_cert_to_DER_cert(pem)

    def renew(self):
        with open(f"{self.certificate}.new", "w") as file:
            file.write(self.next[0][0])
        os.replace(file.name, self.certificate)
        self.next.reverse()

    @staticmethod
    def trusting():
        """Who is spoken to is compared here, not by the library of TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    async def work(self, context, servers):
        while not context.over:
            for server in servers:
                await asyncio.to_thread(self.turn, server)
                await self.use(context, server)
                context.count("turn")
            for _ in range(EVERY * 10):
                if not context.over:
                    await asyncio.sleep(0.1)

    def turn(self, server):
        """New logs, a new certificate, one more port."""
        old = f"{server.access}.old"
        os.rename(server.access, old)
        self.renew()
        server.ports = server.turn()
        # Each process has written its last line into the old log.
        with open(old, "rb") as file:
            for line in file:
                if not line.startswith(b"127.") or not line.endswith(b"\n"):
                    raise Wrong(f"half a line in the access log: {line!r}")
        os.remove(old)

    async def use(self, context, server):
        """What has changed has: who came by a port stays when the port goes."""
        client = Client(int(server.ports[-1].rpartition(":")[2].rstrip("s")))
        await self.hello(client)
        if not os.path.exists(server.access):
            raise Wrong("no new access log behind an answer")
        if len(server.pids) > 1:
            await client.close()
            return
        shown = await asyncio.to_thread(self.shown, server.tls_port)
        if shown != self.next[1][1]:
            raise Wrong("a certificate that was renewed is not shown")
        port = client.port
        server.ports = await asyncio.to_thread(server.turn)
        await self.hello(client)
        await client.close()
        try:
            socket.create_connection(("127.0.0.1", port), PATIENCE).close()
            raise Wrong("a port that is no longer listened at still is")
        except ConnectionRefusedError:
            pass

    @staticmethod
    async def hello(client):
        answer = await client.ask("GET", "/hello")
        if (answer.status, answer.body) != (200, b"hello\n"):
            raise Wrong(f"hello at another port is answered {answer.status}, {answer.body!r}")

    def shown(self, port):
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as plain:
            with self.trusting().wrap_socket(plain) as sealed:
                return sealed.getpeercert(binary_form=True)
