"""What Linux knows of processes and cores: times, memory, and what else ran."""

import ctypes
import os
import platform
import resource
import socket
import subprocess

PIDFD_OPEN, PIDFD_GETFD = 434, 438  # the same on every architecture
TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
libc = ctypes.CDLL(None, use_errno=True)


def raise_limits():
    """As many descriptors as are allowed; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def tree(pid):
    """A process and all below it."""
    found = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as children:
                for child in children.read().split():
                    found += tree(int(child))
    except OSError:
        pass
    return found


def run_times(pid):
    """Nanoseconds run, and nanoseconds waited for a core, of all threads of a process tree."""
    ran = waited = 0
    for process in tree(pid):
        try:
            for task in os.listdir(f"/proc/{process}/task"):
                with open(f"/proc/{process}/task/{task}/schedstat") as stat:
                    fields = stat.read().split()
                ran += int(fields[0])
                waited += int(fields[1])
        except OSError:
            pass  # it has just ended
    return ran, waited


def memory_kib(pid, field):
    """VmRSS or VmHWM, summed over a process tree."""
    total = 0
    for process in tree(pid):
        try:
            with open(f"/proc/{process}/status") as status:
                for line in status:
                    if line.startswith(field + ":"):
                        total += int(line.split()[1])
        except OSError:
            pass
    return total


def core_times(core):
    """Nanoseconds that a core was busy, and that the hypervisor took from it; in whole ticks."""
    with open("/proc/stat") as stat:
        for line in stat:
            name, *fields = line.split()
            if name == f"cpu{core}":
                user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
                return (user + nice + system + irq + softirq) * TICK_NS, steal * TICK_NS
    return 0, 0


def listening_socket(pid, port):
    """A copy of the listening socket of a process tree, borrowed by pidfd_getfd."""
    for process in tree(pid):
        pidfd = libc.syscall(PIDFD_OPEN, process, 0)
        if pidfd < 0:
            continue
        try:
            for fd in map(int, os.listdir(f"/proc/{process}/fd")):
                try:
                    if not os.readlink(f"/proc/{process}/fd/{fd}").startswith("socket:"):
                        continue
                    copy = libc.syscall(PIDFD_GETFD, pidfd, fd, 0)
                    if copy < 0:
                        continue
                    borrowed = socket.socket(fileno=copy)
                    listens = borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                    if listens and borrowed.getsockname()[1] == port:
                        return borrowed
                    borrowed.close()
                except (OSError, IndexError):
                    pass
        finally:
            os.close(pidfd)
    return None


def equalize(pid, port):
    """Sets reno and TCP_NODELAY on the listening socket, from where connections inherit them.

    Congestion control that paces, bbr for one, would measure its own pace on the loopback device.
    Servers need not know. False if it cannot be done.
    """
    listener = listening_socket(pid, port)
    if listener is None:
        return False
    with listener:
        try:
            listener.setsockopt(socket.SOL_TCP, socket.TCP_CONGESTION, b"reno")
            listener.setsockopt(socket.SOL_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            return False
    return True


def free_port():
    """A port for servers that cannot pick one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def describe():
    """The machine, for whoever reads the figures."""
    model = platform.machine()
    with open("/proc/cpuinfo") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break

    def first_line(*command):
        try:
            return subprocess.run(command, capture_output=True, text=True).stdout.split("\n")[0]
        except OSError:
            return "unknown"

    return {
        "processor": model,
        "cores": os.cpu_count(),
        "virtual": "hypervisor" in open("/proc/cpuinfo").read(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "rustc": first_line("rustc", "--version"),
        "cc": first_line("cc", "--version"),
    }
