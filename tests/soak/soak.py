"""The rounds of the suite: soak.py FOLDER SECONDS. See run."""
import asyncio
import collections
import logging
import math
import os
import resource
import signal
import sys
import time

import clients
import crowd
import plot
from server import PATIENCE, Failure, Server
from turns import Turns

MIB = 1 << 20
# The load program ends by itself after twenty minutes.
LONGEST_ROUND = 300
IDLE_MS = int(1000 * clients.REQUEST_TIMEOUT)
# The server keeps large buffers for 5 s after one was last needed.
SETTLE = 6

# What the server may have grown by since the end of the warm-up, when all clients have left. The
# heap is what malloc counts as in use, without noise; what differs are the last buffers and tables
# that grew, some 100 KiB. RSS has what malloc cannot give back on top: pages of which a part is
# in use, in an arena for each thread, some MiB after large bodies.
#
# An hour has 2700 s behind the warm-up: 200 bytes lost for each of something that happens 4 times
# a second make 2 MiB of the heap, 16 times a second 8 MiB of RSS, and requests come by the
# thousand. In 20 s there are still enough of those for a handler to lose 200 bytes for each.
HEAP_MAY_GROW = 2 * MIB
RSS_MAY_GROW = 8 * MIB

# Connections that other threads know have slots that rest until as many others have gone: until
# then, each takes a new one, and that is no leak. src/server/slots.rs.
RESTING = 65_536
SLOT_BYTES = 900

LOADS = [
    ["-u", "/hello", "-c", "16", "-P", "4"],
    ["-u", "/echo", "-c", "8", "-b", "3000"],
    ["-u", "/listed/", "-c", "4"],
    ["-u", "/small.txt", "-c", "8", "-x"],
    ["-u", "/later", "-c", "16", "-x"],
]


WORKERS = 2


class Suite:
    """Two servers of one folder: one process with threads and TLS, and two that share a port."""

    def __init__(self, folder, seconds):
        self.folder, self.seconds = folder, seconds
        self.counts = collections.Counter()
        self.site = clients.Site(folder)
        self.silent = []
        self.left = 0  # when the clients of a round have
        self.lag = 0
        self.samples = []
        self.turns = Turns(folder)
        self.servers = []
        self.server = self.start("mixed", ports="127.0.0.1:0,127.0.0.1:0s",
                                 ssl_certificate=self.turns.certificate)
        self.forked = self.start("forked", workers=WORKERS)

    def start(self, name, **options):
        server = Server(
            self.folder, name, document_root=self.site.root, idle_timeout_ms=IDLE_MS,
            request_timeout_ms=IDLE_MS, cgi_timeout_ms=IDLE_MS, ssi_pattern="**.shtml$",
            deferred_answers="all", access_log_file=f"{self.folder}/{name}.access", file_cache_bytes=MIB,
            **options)
        self.servers.append(server)
        return server

    def contexts(self):
        """Who is asked, and by whom."""
        def make(port, **more):
            return clients.Context(port, self.site, self.folder, self.counts, **more)

        return [(make(self.server.port), clients.GOOD, clients.RUDE),
                (make(self.server.tls_port, tls=self.turns.trusting(), prefix="tls "),
                 clients.SEALED, clients.RUDE_SEALED),
                (make(self.forked.port, prefix="forked "), clients.FORKED, clients.RUDE_FORKED)]

    async def once(self):
        """Everything once, without load: what is wrong here has nothing to do with load."""
        async def do(context, job, good):
            client = context.client()
            try:
                await asyncio.wait_for(job(context, client), PATIENCE)
            except (OSError, EOFError, clients.Broken) as error:
                if good:
                    raise Failure(f"{context.prefix}{job.__name__}, without load: {error!r}") from error
            except asyncio.TimeoutError:
                raise Failure(f"{context.prefix}{job.__name__}, without load, has no end") from None
            await client.close()

        await asyncio.gather(*(do(context, job, jobs is good) for context, good, rude in self.contexts()
                               for jobs in (good, rude) for job in jobs))

    async def round(self, seconds):
        contexts, busy = self.contexts(), {}
        tasks = [asyncio.ensure_future(clients.work(context, job, jobs is rude, busy))
                 for context, good, rude in contexts for jobs in (good, rude)
                 for job, number in jobs.items() for _ in range(number)]
        plain = contexts[0][0]
        tasks += map(asyncio.ensure_future, (
            self.bulk(plain, LOADS), self.look(plain, busy), self.turns.work(plain, self.servers)))

        def end():
            for context, _, _ in contexts:
                context.over = True

        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION, timeout=seconds)
            self.raise_first(done)
            # They are to stay when the others leave.
            self.silent = clients.ghosts(self.server.port) + clients.ghosts(self.forked.port)
            end()
            done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION,
                                            timeout=2 * PATIENCE)
            self.raise_first(done)
            if left:
                raise Failure(f"no end of {sorted(name for _, name in busy.values())}")
        finally:
            end()
            self.left = time.monotonic()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    def raise_first(tasks):
        for task in tasks:
            if not task.cancelled() and task.exception():
                raise task.exception()

    async def look(self, context, busy):
        """At the servers, and whether one of us waits in vain."""
        loop = asyncio.get_running_loop()
        while not context.over:
            before = loop.time()
            await asyncio.sleep(0.5)
            self.lag = max(self.lag, loop.time() - before - 0.5)
            for server in self.servers:
                server.check()
            self.samples.append(plot.Sample(time.monotonic(), self.servers))
            for since, name in busy.values():
                if loop.time() - since > PATIENCE:
                    raise Failure(f"{name} waits for {PATIENCE} s")

    async def bulk(self, context, loads):
        """Slices of load, one program after the other."""
        loop = asyncio.get_running_loop()
        programs = {}  # and when each was used last

        async def end(program):
            if program.returncode is None:
                program.kill()
            await program.wait()

        async def ready(number):
            # Its connections are closed when it has paused for too long, on a machine that is too slow.
            if number in programs and loop.time() - programs[number][1] > clients.REQUEST_TIMEOUT / 2:
                await end(programs.pop(number)[0])
            if number not in programs:
                program = await asyncio.create_subprocess_exec(
                    f"{self.folder}/load", "-p", str(self.server.port), *loads[number],
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
                programs[number] = program, loop.time()
                await program.stdout.readline()
            return programs[number][0]

        try:
            while not context.over:
                for number, arguments in enumerate(loads):
                    program = await ready(number)
                    paused = programs[number][1]
                    program.stdin.write(b"run 200\n")
                    line = (await program.stdout.readline()).split()
                    paused, programs[number] = loop.time() - paused, (program, loop.time())
                    if len(line) != 6:
                        raise Failure(f"load {arguments} has ended")
                    if int(line[2]) and paused > clients.REQUEST_TIMEOUT / 2:
                        # It came to send so late that its connections may have been closed before.
                        await end(programs.pop(number)[0])
                    elif int(line[2]):
                        raise Failure(f"load {arguments}: {int(line[2])} of {int(line[0])} answers "
                                      f"are missing or wrong")
                    context.count(f"load {arguments[1]}", int(line[0]))
                    await asyncio.sleep(0.1 + clients.PAUSE)
        finally:
            for program, _ in programs.values():
                await end(program)

    async def use_slots_up(self):
        """Until slots that rested are used again: then there are no new ones any more."""
        context = self.contexts()[0][0]
        load = asyncio.ensure_future(self.bulk(context, LOADS[-1:]))
        while not load.done() and self.server.report()[0] < RESTING + 1000:
            await asyncio.sleep(0.5)
        context.over = True
        await load

    def quiet(self, descriptors):
        """All clients have left or are silent: nothing of them may remain. Returns for each server the
        connections that other threads know, bytes of the heap, and RSS."""
        for server, own in zip(self.servers, descriptors):
            server.wait_until_quiet(own)
        for ghost in self.silent:
            ghost.close()
        left = [name for name in os.listdir(f"{self.site.root}/dav") if name.startswith(".mongoose")]
        if left:
            raise Failure(f"WebDAV has left {left}")
        # Appended to, so that this works under the server's hands.
        for server in self.servers:
            server.forget_complaints()
        time.sleep(max(0, self.left + SETTLE - time.monotonic()))
        return [(*server.report(), server.rss()) for server in self.servers]

    def run(self):
        """A quarter of the time to warm up, and what is measured."""
        began = time.monotonic()
        # Behind the first poll, which opens what the server itself needs.
        for server in self.servers:
            server.report()
        descriptors = [server.descriptors() for server in self.servers]
        asyncio.run(self.once())
        self.quiet(descriptors)
        if self.seconds >= 120:
            asyncio.run(self.use_slots_up())
        number, base = 0, None
        for part in (self.seconds / 4, self.seconds * 3 / 4):
            rounds = math.ceil(part / LONGEST_ROUND)
            for _ in range(rounds):
                number += 1
                asyncio.run(self.round(part / rounds))
                at = self.quiet(descriptors)
                memory = "; ".join(f"{heap / 1024:.0f} KiB in use, RSS {rss / 1024:.0f} KiB" for _, heap, rss in at)
                print(f"round {number}, {time.monotonic() - began:.0f} s: {sum(self.counts.values())} "
                      f"exchanges; quiet with {sum(map(len, descriptors))} descriptors, {memory}", flush=True)
            if base is None:
                base, after_warm_up = at, self.counts.copy()
        self.judge(base, at, after_warm_up)
        if os.environ.get("SOAK_PLOT"):
            plot.write(os.environ["SOAK_PLOT"], began, self.samples)
        for server in self.servers:
            server.stop()

    def judge(self, base, at, after_warm_up):
        counts = self.counts - after_warm_up
        print("behind the warm-up:", ", ".join(f"{n} {name}" for name, n in counts.most_common()))
        missing = [f"{context.prefix}{job.__name__}" for context, good, rude in self.contexts()
                   for job in (*good, *rude) if not self.counts[f"{context.prefix}{job.__name__}"]]
        if missing or not self.counts["turn"]:
            raise Failure(f"nothing was done by {missing or 'turns'}")
        print(f"under load: RSS up to {max(s.rss[0] for s in self.samples) / MIB:.1f} MiB and "
              f"{max(s.rss[1] for s in self.samples) / MIB:.1f} MiB, "
              f"{max(s.descriptors for s in self.samples)} descriptors")
        for server, before, after in zip(self.servers, base, at):
            slots = max(0, min(after[0], RESTING) - min(before[0], RESTING)) * SLOT_BYTES
            heap, rss = after[1] - before[1], after[2] - before[2]
            print(f"{server.name} has grown behind the warm-up: {heap / 1024:.0f} KiB in use, RSS "
                  f"{rss / 1024:.0f} KiB, of which {slots / 1024:.0f} KiB may be slots that rest", flush=True)
            for what, grown, bound in (("the heap", heap, HEAP_MAY_GROW), ("RSS", rss, RSS_MAY_GROW)):
                most = bound * len(server.pids) + slots
                if grown > most:
                    raise Failure(f"{what} of {server.name} has grown by {grown} bytes, more than {most}")


# Neither raises an Exception: the event loop would merely log that.
def too_long(*_):
    sys.exit("soak: the suite takes longer than it may")


def end(*_):
    sys.exit(1)


def main(folder, seconds):
    # It tells of each rude client that goes on although its server has closed.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = crowd.MOST + 1000
    resource.setrlimit(resource.RLIMIT_NOFILE,
                       (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGALRM, too_long)
    # A round may be late by its patience, and so may the crowd.
    signal.alarm(seconds + math.ceil(seconds / LONGEST_ROUND + 4) * 4 * PATIENCE)
    suite = None
    try:
        suite = Suite(folder, seconds)
        suite.run()
        crowd.run(folder)
    except Failure as error:
        print(f"soak: {error}", file=sys.stderr)
        if suite is not None:
            time.sleep(1)  # clients notice the end of a server before its parent does
            for server in suite.servers:
                try:
                    if server.process.poll() != 0:
                        server.check()
                except Failure as reason:
                    print(f"soak: {reason}", file=sys.stderr)
                print(server.complaints(), file=sys.stderr)
            print(f"soak: we ourselves were late by {suite.lag:.1f} s at most", file=sys.stderr)
        return 1
    finally:
        for server in suite.servers if suite is not None else ():
            server.kill()
    print("soak: all passed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
