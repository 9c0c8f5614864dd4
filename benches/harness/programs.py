"""Servers and loads as processes: started, pinned, measured, stopped."""

import os
import signal
import socket
import subprocess
import time

from . import machine

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
BIN = os.path.join(ROOT, "build", "bench")


class Failure(Exception):
    """A program did not do what it was started for."""


def placed(core, nice):
    """Puts a new process on its core; the less nice, the less do others disturb it."""
    def place():
        os.sched_setaffinity(0, {core})
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    return place


class Server:
    """A server that listens on 127.0.0.1, pinned to a core.

    Either it prints a line "PORT n", or its command has "{port}" in it.
    """

    def __init__(self, name, command, core, nice):
        self.name = name
        self.port = None
        if any("{port}" in word for word in command):
            self.port = machine.free_port()
            command = [word.replace("{port}", str(self.port)) for word in command]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=placed(core, nice),
        )
        try:
            self._wait()
        except Failure:
            self.stop()
            raise
        if not machine.equalize(self.pid, self.port):
            print(f"{name}: cannot set the congestion control")

    def _wait(self):
        if self.port is None:
            for line in self.process.stdout:
                if line.startswith("PORT "):
                    self.port = int(line.split()[1])
                    return
            raise Failure(f"{self.name}: no line PORT n")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.01)
        raise Failure(f"{self.name}: does not listen")

    @property
    def pid(self):
        return self.process.pid

    def stop(self):
        # The group that was made for it, and nothing else.
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process.stdout.close()


class Load:
    """The client: slices on demand."""

    def __init__(self, port, arguments, core, nice):
        self.process = subprocess.Popen(
            [os.path.join(BIN, "load"), "-p", str(port), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=placed(core, nice),
        )
        if self.process.stdout.readline().strip() != "ready":
            self.stop()
            raise Failure("the load does not start")

    def _ask(self, line, fields):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self.process.stdout.readline().split()
        if len(answer) != fields:
            raise Failure("the load ended early")
        return answer

    def idle(self, count):
        """Opens idle connections up to this number."""
        self._ask(f"idle {count}", 2)

    def slice(self, milliseconds):
        names = ("requests", "ns", "errors", "idle", "p50", "p99")
        return dict(zip(names, map(int, self._ask(f"run {milliseconds}", len(names)))))

    def stop(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.wait()
        self.process.stdout.close()


class Bench:
    """A server and its load, measured in slices."""

    def __init__(self, name, command, arguments, options):
        self.name = name
        self.options = options
        self.load = None
        self.server = Server(name, command, options.server_core, options.nice)
        try:
            self.load = Load(self.server.port, arguments, options.client_core, options.nice)
        except Failure as failure:
            self.stop()
            raise Failure(f"{name}: {failure}") from None

    def warm_up(self, idle=0):
        try:
            self.load.slice(self.options.slice_ms)
            if idle:
                self.load.idle(idle)
        except Failure as failure:
            raise Failure(f"{self.name}: {failure}") from None

    def slice(self):
        """The figures of a slice. If something else ran meanwhile it is taken again, and the
        quietest one counts."""
        best = None
        try:
            for _ in range(self.options.retries + 1):
                figures = self._slice_once()
                if best is None or figures["foreign"] < best["foreign"]:
                    best = figures
                if not best["disturbed"]:
                    break
        except Failure as failure:
            raise Failure(f"{self.name}: {failure}") from None
        return best

    def _state(self):
        server_core, client_core = self.options.server_core, self.options.client_core
        state = [
            machine.run_times(self.server.pid),
            machine.run_times(self.load.process.pid),
            machine.core_times(server_core),
            machine.core_times(client_core),
        ]
        return [number for pair in state for number in pair]

    def _slice_once(self):
        before = self._state()
        figures = self.load.slice(self.options.slice_ms)
        passed = [after - was for was, after in zip(before, self._state())]
        ran, waited, load_ran, load_waited, busy, stolen, load_busy, load_stolen = passed
        if figures["requests"] == 0:
            raise Failure("no answer")
        figures["cpu_ns"] = ran / figures["requests"]
        figures["per_second"] = figures["requests"] * 1e9 / figures["ns"]
        figures["foreign"] = self._foreign(passed) / figures["ns"]
        figures["disturbed"] = figures["foreign"] > self.options.disturbance / 100
        return figures

    def _foreign(self, passed):
        """Nanoseconds that something else had one of the cores, as far as that can be seen."""
        ran, waited, load_ran, load_waited, busy, stolen, load_busy, load_stolen = passed
        if self.options.server_core == self.options.client_core:
            return max(stolen, load_stolen)
        # Threads of one server wait for each other, which is its own affair.
        alone = len(os.listdir(f"/proc/{self.server.pid}/task")) == 1
        waits = max(waited if alone else 0, load_waited)
        # Ticks are coarse: some may be of the moments around the slice.
        others = max(busy - ran, load_busy - load_ran) - 3 * machine.TICK_NS
        return max(others, waits, stolen, load_stolen)

    def peak_kib(self):
        return machine.memory_kib(self.server.pid, "VmHWM")

    def memory_kib(self):
        return machine.memory_kib(self.server.pid, "VmRSS")

    def stop(self):
        if self.load:
            self.load.stop()
        self.server.stop()
