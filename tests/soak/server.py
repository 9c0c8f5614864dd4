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
    """One of `workers` processes, or one that serves itself."""

    def __init__(self, folder, name, workers=0, ports="127.0.0.1:0", **options):
        self.mark = f"SOAK={folder}/{name}"
        self.name = name
        self.errors, self.access = f"{folder}/{name}.errors", options.get("access_log_file")
        self.stderr_name = f"{folder}/{name}.stderr"
        arguments = [f"{folder}/server", str(workers), ports, f"{folder}/{name}.passwords",
                     "error_log_file", self.errors, "cgi_environment", self.mark]
        for option, value in options.items():
            arguments += [option, str(value)]
        with open(self.stderr_name, "w") as stderr:
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stderr=stderr,
                                            stdout=subprocess.PIPE, bufsize=0)
        self.pid = self.process.pid
        self.ports = self.line().split(",")
        self.port = int(self.ports[0].rpartition(":")[2])
        self.tls_port = int(self.ports[-1].rpartition(":")[2].rstrip("s"))
        self.pids = [int(self.line().split()[1]) for _ in range(workers)] or [self.pid]

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
        return sum(self.status(pid, "VmRSS") for pid in self.pids) * 1024

    def threads(self):
        return sum(self.status(pid, "Threads") for pid in self.pids)

    def status(self, pid, name):
        try:
            return int(re.search(rf"{name}:\s+(\d+)", open(f"/proc/{pid}/status").read())[1])
        except (OSError, TypeError):
            self.process.wait()
            self.check()
            raise

    def descriptors(self):
        found = []
        for pid in self.pids:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                try:
                    target = os.readlink(f"/proc/{pid}/fd/{fd}")
                except FileNotFoundError:
                    continue
                # Numbers of sockets and pipes say nothing.
                found.append(re.sub(r"\[\d+\]", "", target))
        return sorted(found)

    def report(self):
        """Connections that other threads were told of, and bytes of the heap in use. What is free
        goes back to the system before, and files that are merely kept open are closed."""
        lines = self.tell(signal.SIGUSR1)
        return sum(int(line[1]) for line in lines), sum(int(line[3]) for line in lines)

    def turn(self):
        """Has logs and certificates opened again, and ports changed. Returns the ports."""
        return self.tell(signal.SIGHUP)[0][1].split(",")

    def tell(self, number):
        """The words of the line that each process answers a signal with."""
        for pid in self.pids:
            os.kill(pid, number)
        return [self.line().split() for _ in self.pids]

    def children(self):
        """The number of its children, without a look at all processes."""
        return sum(len(open(f"/proc/{pid}/task/{task}/children").read().split())
                   for pid in self.pids for task in os.listdir(f"/proc/{pid}/task"))

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
            own = int(pid) == self.pid or int(pid) in self.pids
            if not own and (int(parent) in (self.pid, *self.pids) or self.mark.encode() in environment):
                found.append((int(pid), state))
        return found

    def wait_until_quiet(self, descriptors):
        """Until nothing is open that was not before, and no child is left."""
        def extra():
            self.report()
            now = self.descriptors()
            # Logs are opened when there is something to log.
            for name in [*descriptors, *[self.errors, self.access] * len(self.pids)]:
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
