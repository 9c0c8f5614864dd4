"""What is asked of the servers, and what the library is to reach."""

from dataclasses import dataclass, field

EVERYONE = ("nginx", "lighttpd", "h2o", "microhttpd")
FILE_SERVERS = ("nginx", "nginx-cache", "lighttpd", "h2o")


@dataclass
class Work:
    name: str
    title: str
    load: list  # arguments of the load
    limit: list  # arguments of the yardstick
    peers: tuple = ()
    goal: float = None  # CPU time of the library, as a ratio to that of the yardstick
    unit: str = "request"
    limit_load: list = None  # where the yardstick is given something else
    goal_peer: str = None  # whom to stay below, in place of a ratio to the yardstick
    key: str = None  # the kind of key over TLS; without TLS none

    @property
    def base(self):
        """Whom ratios are to: no yardstick would encrypt for less than a server does."""
        return "nginx" if self.key else "limit"

    def arguments(self, contender):
        if contender == "limit" and self.limit_load is not None:
            return self.limit_load
        return self.load

    def contenders(self, chosen):
        own = ("mongoose",) if self.key else ("limit", "mongoose")
        return [name for name in (*own, *self.peers) if name in chosen]


def plain(root):
    """All works that are a load on servers side by side."""
    hello = ["-u", "/hello", "-c", "64"]
    works = [
        Work("hello", "hello, keep-alive, 64 connections", hello, ["hello"],
             (*EVERYONE, "civetweb"), 1.08),
        Work("pipelined", "hello, pipelined by 16", [*hello, "-P", "16"], ["hello"],
             EVERYONE, 1.4),
        Work("connect", "new connection per request", [*hello, "-x"], ["hello"], EVERYONE, 0.95),
    ]
    for name, size, connections, goal in (
        ("1k", "1 KiB", 64, 0.94), ("64k", "64 KiB", 64, 1.04), ("10m", "10 MiB", 8, 1.08)
    ):
        works.append(Work(f"file-{name}", f"file of {size}",
                          ["-u", f"/{name}.bin", "-c", str(connections)],
                          ["file", f"{root}/{name}.bin"], FILE_SERVERS, goal))
    works += [
        Work("post-4k", "POST of 4 KiB, keep-alive; limit: hello",
             ["-u", "/post", "-b", "4096"], ["hello"], ("h2o", "microhttpd", "civetweb"), 1.35,
             limit_load=hello),
        Work("post-1m", "POST of 1 MiB", ["-u", "/post", "-b", str(1 << 20), "-c", "8"],
             ["post", str(1 << 20)], ("h2o", "microhttpd", "civetweb"), goal_peer="civetweb"),
        Work("echo-32", "websocket echo, 32 bytes", ["-u", "/echo", "-w", "32"], ["websocket"],
             (), 1.05, "message"),
        Work("echo-16k", "websocket echo, 16 KiB", ["-u", "/echo", "-w", "16384"], ["websocket"],
             (), 0.85, "message"),
        Work("broadcast", "broadcast to 1,000 websockets", ["-u", "/push", "-B", "-c", "1000"],
             ["websocket"], (), 1.15, "message"),
    ]
    return {work.name: work for work in (*works, *over_tls())}


def over_tls():
    """The same over TLS, and handshakes."""
    def work(name, title, goal, *load, key="ec"):
        return Work("tls-" + name, title, [*load, "-t", SUITE], [], ("nginx",), goal, key=key)

    new = ["-u", "/hello", "-c", "64", "-x"]
    return [
        work("hello", "hello over TLS", 0.6, "-u", "/hello", "-c", "64"),
        work("64k", "file of 64 KiB over TLS", 0.5, "-u", "/64k.bin", "-c", "64"),
        work("10m", "file of 10 MiB over TLS", 0.6, "-u", "/10m.bin", "-c", "8"),
        work("full", "TLS handshake, P-256, and a hello", 0.76, *new),
        work("full-rsa", "TLS handshake, RSA of 2,048 bits, and a hello", None, *new, key="rsa"),
        work("resumed", "resumed TLS handshake, and a hello", 0.65, *new, "-r"),
    ]


# What curl and openssl ask for first.
SUITE = "TLS_AES_256_GCM_SHA384"

# Of one kind each; see compare.
IDLE, START, SIZE = "idle", "start", "size"
TLS_IDLE = "tls-idle"
IDLE_COUNTS = (100, 1000, 5000, 10000, 19000)
IDLE_PEERS = ("nginx", "h2o", "microhttpd")
TLS_IDLE_PEERS = ("nginx",)
START_PEERS = ("nginx", "lighttpd", "h2o", "microhttpd", "civetweb")

GOALS = {
    "idle_speed": 0.97,     # requests/s beside the most idle connections, to that beside the fewest
    "idle_kib": 0.8,        # an idle connection
    "tls_idle_kib": 4.3,
    "start_ms": 4.0,
    "start_mib": 2.5,
    "library_kib": 600,     # like memory at the start, without TLS
}
