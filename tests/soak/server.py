"""A server under test, and what the system says of its process."""
import os
import re
import select
import signal
import subprocess
import time

# How long something may take that takes no time on a machine with nothing else to do.
PATIENCE = 60


class Failure(Exception):
    """Why the suite fails."""


def wait_for(condition, what):
    """Until `condition()` gives something true, which is returned."""
    end = time.monotonic() + PATIENCE
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise Failure(what() if callable(what) else what)
        time.sleep(0.05)


class Server:
    def __init__(self, folder, name, **options):
        self.mark = f"SOAK={folder}/{name}"
        self.errors = f"{folder}/{name}.errors"
        self.stderr_name = f"{folder}/{name}.stderr"
        arguments = [f"{folder}/server", "127.0.0.1:0", f"{folder}/passwords",
                     "error_log_file", self.errors, "cgi_environment", self.mark]
        for option, value in options.items():
            arguments += [option, str(value)]
        with open(self.stderr_name, "w") as stderr:
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stderr=stderr,
                                            stdout=subprocess.PIPE, bufsize=0)
        self.pid = self.process.pid
        self.port = int(self.line().rpartition(":")[2])

    def line(self):
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            raise Failure("the server does not react to signals any more")
        line = self.process.stdout.readline().decode().strip()
        if not line:
            self.process.wait()
            self.check()
        return line

    def check(self):
        """It is alive, and has not complained where a panic or the C library would."""
        said = open(self.stderr_name, errors="replace").read()
        status = self.process.poll()
        if status is not None:
            raise Failure(f"the server ended with {status}: {said[-2000:]}")
        if said:
            raise Failure(f"the server wrote to its standard error: {said[-2000:]}")

    def rss(self):
        try:
            return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{self.pid}/status").read())[1]) * 1024
        except (OSError, TypeError):
            self.process.wait()
            self.check()
            raise

    def descriptors(self):
        found = []
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                target = os.readlink(f"/proc/{self.pid}/fd/{fd}")
            except FileNotFoundError:
                continue
            # Numbers of sockets and pipes say nothing.
            found.append(re.sub(r"\[\d+\]", "", target))
        return sorted(found)

    def report(self):
        """Connections that other threads were told of, and bytes of the heap in use. What is free
        goes back to the system before, and files that are merely kept open are closed."""
        self.process.send_signal(signal.SIGUSR1)
        _, known, _, used = self.line().split()
        return int(known), int(used)

    def descendants(self):
        """Its children, and whatever a CGI program of it has started: that has the mark in its
        environment."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                # The name of a program may hold anything.
                state, parent = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[:2]
                environment = open(f"/proc/{pid}/environ", "rb").read().split(b"\0")
            except (OSError, ValueError):
                continue
            if int(parent) == self.pid or (self.mark.encode() in environment and int(pid) != self.pid):
                found.append((int(pid), state))
        return found

    def wait_until_quiet(self, descriptors):
        """Until nothing is open that was not before, and no child is left."""
        def extra():
            self.report()
            now = self.descriptors()
            # Logs are opened when there is something to log.
            for name in [*descriptors, self.errors, "/dev/null"]:
                if name in now:
                    now.remove(name)
            return now

        wait_for(lambda: not extra(),
                 lambda: f"{len(extra())} descriptors are left open: {extra()[:10]}")
        wait_for(lambda: not self.descendants(),
                 lambda: f"programs are left: {self.descendants()[:10]}")
        self.check()

    def complaints(self):
        """The end of its error log."""
        try:
            with open(self.errors, "rb") as errors:
                return errors.read()[-2000:].decode("latin-1")
        except FileNotFoundError:
            return ""

    def forget_complaints(self):
        if os.path.exists(self.errors):
            os.truncate(self.errors, 0)

    def stop(self):
        self.check()
        self.process.terminate()
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failure("the server does not end") from None
        said = open(self.stderr_name, errors="replace").read()
        if status != 0 or said:
            raise Failure(f"the server ended with {status}: {said[-2000:]}")

    def kill(self):
        """However it is. It ends its programs, if it still can; else that is left to us."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid, _ in self.descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
