"""A file system (FUSE) of a few files that takes its time for each call, as one of a network may.

The kernel's protocol, spoken over /dev/fuse; nothing stays in the kernel's caches. Needs the right to mount."""

import ctypes
import multiprocessing
import os
import struct
import threading
import time

LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 17, 18, 25, 26
OPENDIR, READDIR, RELEASEDIR, INTERRUPT, BATCH_FORGET = 27, 28, 29, 36, 42
NO_REPLY = (FORGET, INTERRUPT, BATCH_FORGET)
ENOENT, ENOSYS = 2, 38
ASYNC_READ, PARALLEL_LOOKUPS = 1, 1 << 18
READ_AHEAD = 1 << 17
MNT_DETACH = 2


class SlowFolder:
    """Mounts `files`, names and contents, on the directory `path`; each call takes `delay` seconds."""

    def __init__(self, path, files, delay):
        self.path, self.delay = path, delay
        self.names = {name.encode(): number for number, name in enumerate(files, 2)}
        self.contents = dict(zip(self.names.values(), files.values()))
        self.device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self.device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        self.libc = ctypes.CDLL(None, use_errno=True)
        if self.libc.mount(b"slow", path.encode(), b"fuse", 0, options) != 0:
            os.close(self.device)
            raise OSError(ctypes.get_errno(), "a FUSE file system cannot be mounted")
        self.process = multiprocessing.Process(target=self.serve, daemon=True)
        self.process.start()
        os.close(self.device)

    def end(self):
        self.libc.umount2(self.path.encode(), MNT_DETACH)
        self.process.terminate()
        self.process.join()

    def serve(self):
        while True:
            try:
                request = os.read(self.device, (1 << 17) + 4096)
            except OSError:
                return
            threading.Thread(target=self.answer, args=(request,), daemon=True).start()

    def answer(self, request):
        _, opcode, unique, node = struct.unpack_from("=IIQQ", request)
        if opcode in NO_REPLY:
            return
        if opcode != INIT:
            time.sleep(self.delay)
        found = self.find(opcode, node, request[40:])
        error, body = (-found, b"") if isinstance(found, int) else (0, found)
        try:
            os.write(self.device, struct.pack("=IiQ", 16 + len(body), error, unique) + body)
        except OSError:
            # Nobody waits any more.
            pass

    def find(self, opcode, node, body):
        if opcode == INIT:
            return struct.pack("=IIIIHHI", 7, 31, READ_AHEAD, ASYNC_READ | PARALLEL_LOOKUPS, 0, 0, 1 << 17).ljust(64, b"\0")
        if opcode == LOOKUP:
            number = self.names.get(body.split(b"\0")[0])
            return struct.pack("=QQQQII", number, 0, 0, 0, 0, 0) + self.attributes(number) if number else ENOENT
        if opcode == GETATTR:
            return bytes(16) + self.attributes(node)
        if opcode == OPEN:
            return bytes(16)
        if opcode == READ:
            _, offset, size = struct.unpack_from("=QQI", body)
            return self.contents[node][offset:offset + size]
        if opcode in (RELEASE, FLUSH, RELEASEDIR, READDIR):
            return b""
        return {OPENDIR: bytes(16), STATFS: bytes(80)}.get(opcode, ENOSYS)

    def attributes(self, node):
        size = len(self.contents.get(node, b""))
        mode = 0o100644 if node in self.contents else 0o040755
        times = (1_000_000_000,) * 3
        return struct.pack("=6Q10I", node, size, (size + 511) // 512, *times, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
