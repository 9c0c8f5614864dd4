"""Who takes part: how each server is built, installed and started, with settings as equal as they
allow: one worker, no logs, connections that stay open, files by sendfile."""

import os
import shutil
import subprocess
import time

from .programs import BIN, ROOT

# Seconds after which a file counts as old, and some more.
SETTLED = 0.5

PROGRAMS = os.path.join(ROOT, "benches", "programs")
# The same library and program, without the feature `tls`.
NO_TLS = os.path.join(ROOT, "build", "no-tls")

NGINX = """\
daemon off;
master_process off;
worker_rlimit_nofile 20000;
pid {scratch}/nginx.pid;
error_log /dev/null crit;
events {{ worker_connections {connections}; use epoll; }}
http {{
  access_log off;
  default_type application/octet-stream;
  sendfile on;
  tcp_nopush on;
  tcp_nodelay on;
  keepalive_timeout 3600s;
  keepalive_requests 1000000000;
  reset_timedout_connection off;
  client_body_temp_path {scratch}/body;
  proxy_temp_path {scratch}/proxy;
  fastcgi_temp_path {scratch}/fastcgi;
  uwsgi_temp_path {scratch}/uwsgi;
  scgi_temp_path {scratch}/scgi;
  {cache}
  server {{
    listen 127.0.0.1:{port}{ssl} backlog=4096;
    {certificate}
    root {root};
    location = /hello {{ default_type text/plain; return 200 "Hello"; }}
  }}
}}
"""
NGINX_CACHE = "open_file_cache max=10000 inactive=60s; open_file_cache_valid 60s;"

LIGHTTPD = """\
server.port = {port}
server.bind = "127.0.0.1"
server.document-root = "{root}"
server.errorlog = "/dev/null"
server.event-handler = "linux-sysepoll"
server.network-backend = "sendfile"
server.max-worker = 0
server.max-fds = 20000
server.max-connections = 19990
server.listen-backlog = 4096
server.max-keep-alive-requests = 65000
server.max-keep-alive-idle = 3600
server.max-read-idle = 3600
server.max-write-idle = 3600
mimetype.assign = ( "" => "application/octet-stream" )
"""

NGINX_CERTIFICATE = "ssl_certificate {0}; ssl_certificate_key {0}; ssl_protocols TLSv1.3;"

# The command or header that shows a package to be there, the package, and how to compile.
PEERS = {
    "nginx": ("nginx", "nginx-light", None),
    "lighttpd": ("lighttpd", "lighttpd", None),
    "h2o": ("h2o.h", "libh2o-evloop-dev", ["-DH2O_USE_LIBUV=0", "-lh2o-evloop", "-lssl", "-lcrypto"]),
    "microhttpd": ("microhttpd.h", "libmicrohttpd-dev", ["-lmicrohttpd"]),
    "civetweb": ("civetweb.h", "libcivetweb-dev", ["-lcivetweb"]),
}
OWN = ("limit", "first")
# What the works over TLS take, likewise.
TLS_NEEDS = (("openssl/ssl.h", "libssl-dev"), ("openssl", "openssl"))
KEYS = {"ec": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}
DESCRIPTIONS = {
    "limit": "answers without looking, see benches/programs/limit.c",
    "mongoose": "this library",
    "mongoose-no-tls": "the same, built without TLS",
    "nginx": "a worker; `return 200` for hello",
    "nginx-cache": "the same with open_file_cache",
    "lighttpd": "hello is a file there",
    "h2o": "libh2o on its own event loop",
    "microhttpd": "a thread with epoll",
    "civetweb": "a thread for each connection",
}


def run(*command, **options):
    subprocess.run(command, check=True, **options)


def is_there(what):
    if what.endswith(".h"):
        return os.path.exists("/usr/include/" + what)
    return shutil.which(what, path=os.environ.get("PATH", "") + ":/usr/sbin") is not None


def install(names):
    """Installs from Debian what is missing; returns what is there in the end."""
    needs = [*(PEERS[name][:2] for name in names), *TLS_NEEDS]
    missing = [package for what, package in needs if not is_there(what)]
    if missing and shutil.which("apt-get") and os.geteuid() == 0:
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        # Servers are not to be started by their packages.
        quiet = {"env": environment, "stdout": subprocess.DEVNULL}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends"]):
            extra = missing if command[0] == "install" else []
            if subprocess.run(["apt-get", *command, *extra], **quiet).returncode != 0:
                break
    return [name for name in names if is_there(PEERS[name][0])]


def has_tls():
    return all(is_there(what) for what, _ in TLS_NEEDS)


def compile_program(name, *flags):
    target, source = os.path.join(BIN, name), os.path.join(PROGRAMS, name + ".c")
    os.makedirs(BIN, exist_ok=True)
    compiler = os.environ.get("CC", "cc").split()
    run(*compiler, "-O2", "-Wall", "-Wextra", "-o", target, source, *flags)


def build(peers=()):
    """The release library, and all C programs."""
    run("make", "-s", "-C", ROOT, "lib")
    for name in OWN:
        compile_program(name)
    build_mongoose()
    tls = ["-DWITH_TLS", "-lssl", "-lcrypto"] if has_tls() else []
    compile_program("load", os.path.join(PROGRAMS, "tls.c"), *tls)
    for name in peers:
        if PEERS[name][2] is not None:
            compile_program(name, *PEERS[name][2])


def build_mongoose():
    library = os.path.join(ROOT, "build")
    include = os.path.join(ROOT, "include")
    compile_program(
        "mongoose", "-I" + include, "-L" + library, "-lmongoose", "-Wl,-rpath,$ORIGIN/.."
    )


def build_without_tls():
    """For what depends on how much code there is. The program looks for its library beside it."""
    run("make", "-s", "-C", ROOT, "lib", "CARGO_FLAGS=--no-default-features --features webdav,cgi,deflate", "BUILD=" + NO_TLS,
        env=dict(os.environ, CARGO_TARGET_DIR=os.path.join(ROOT, "target", "no-tls")))
    os.makedirs(os.path.join(NO_TLS, "bench"), exist_ok=True)
    shutil.copy(os.path.join(BIN, "mongoose"), os.path.join(NO_TLS, "bench"))


def write(path, text):
    with open(path, "w") as file:
        file.write(text)
    return path


def program(name, *arguments):
    return [os.path.join(BIN, name), *arguments]


def nginx(scratch, root, connections, cache="", certificate=None):
    # It takes idle connections away when a sixteenth of those it has room for is left, and its
    # memory is that of those it has room for.
    tls = NGINX_CERTIFICATE.format(certificate) if certificate else ""
    template = NGINX.format(scratch=scratch, root=root, cache=cache, port="@PORT@",
                            ssl=" ssl" if certificate else "", certificate=tls,
                            connections=max(1024, 2 * connections))
    return configured(scratch, "nginx" + ("-cache" if cache else ""), template,
                      "exec nginx -e stderr -p {scratch} -c {config}")


def lighttpd(scratch, root):
    template = LIGHTTPD.format(root=root, port="@PORT@")
    return configured(scratch, "lighttpd", template, "exec lighttpd -D -f {config}")


def configured(scratch, name, template, command):
    """A command that writes the configuration for its port, and becomes the server."""
    path = write(os.path.join(scratch, name + ".template"), template)
    config = os.path.join(scratch, name + ".{port}.conf")
    line = f"PATH=$PATH:/usr/sbin; sed s/@PORT@/{{port}}/ {path} > {config} && "
    return ["/bin/sh", "-c", line + command.replace("{scratch}", scratch).replace("{config}", config)]


def command(name, scratch, root, limit=(), idle=0, certificate=None):
    """How a contender is started. `limit` is what the yardstick is to do."""
    if name == "limit":
        return program("limit", *limit)
    if name == "mongoose":
        tls = ["-s", certificate] if certificate else []
        return program("mongoose", "-r", root, *tls)
    if name == "mongoose-no-tls":
        return [os.path.join(NO_TLS, "bench", "mongoose"), "-r", root]
    if name == "nginx":
        return nginx(scratch, root, idle, certificate=certificate)
    if name == "nginx-cache":
        return nginx(scratch, root, idle, NGINX_CACHE)
    if name == "lighttpd":
        return lighttpd(scratch, root)
    if name == "h2o":
        return program("h2o", root)
    return program(name)


def make_certificate(scratch, key):
    """A file of a new key and its certificate."""
    path = os.path.join(scratch, key + ".pem")
    if not os.path.exists(path):
        secret, public = path + ".key", path + ".crt"
        run("openssl", "req", "-x509", "-newkey", *KEYS[key], "-nodes", "-days", "30",
            "-subj", "/CN=localhost", "-keyout", secret, "-out", public,
            stderr=subprocess.DEVNULL)
        with open(secret) as one, open(public) as other:
            write(path, one.read() + other.read())
    return path


def make_files(root, many=0):
    """The files that are asked for."""
    os.makedirs(root, exist_ok=True)
    write(os.path.join(root, "hello"), "Hello")
    for name, size in (("1k", 1 << 10), ("64k", 64 << 10), ("10m", 10 << 20)):
        with open(os.path.join(root, name + ".bin"), "wb") as file:
            file.write(os.urandom(1 << 10) * (size >> 10))
    for number in range(many):
        with open(os.path.join(root, f"file{number}"), "wb") as file:
            file.write(bytes([97 + number % 26]) * 1024)
    # A file that has just been written may change again without another time, and is looked at more often.
    time.sleep(SETTLED)
