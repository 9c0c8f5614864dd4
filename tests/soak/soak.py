"""The rounds of the suite: soak.py FOLDER SECONDS. See run."""
import asyncio
import collections
import math
import os
import resource
import signal
import sys
import time

import clients
import crowd
from server import PATIENCE, Failure, Server

MIB = 1 << 20
# The load program ends by itself after twenty minutes.
LONGEST_ROUND = 300
IDLE_MS = 2500
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


class Suite:
    def __init__(self, folder, seconds):
        self.folder, self.seconds = folder, seconds
        self.counts = collections.Counter()
        self.site = clients.Site(folder)
        self.silent = []
        self.left = 0  # when the clients of a round have
        self.lag = self.peak_rss = self.peak_descriptors = 0
        self.server = Server(
            folder, "mixed", document_root=self.site.root, idle_timeout_ms=IDLE_MS,
            request_timeout_ms=IDLE_MS, cgi_timeout_ms=IDLE_MS, ssi_pattern="**.shtml$",
            deferred_answers="all", access_log_file="/dev/null", file_cache_bytes=MIB)

    def context(self):
        return clients.Context(self.server.port, self.site, self.folder, self.counts)

    async def once(self):
        """Everything once, without load: what is wrong here has nothing to do with load."""
        context = self.context()

        async def do(job):
            client = clients.Client(self.server.port)
            try:
                await asyncio.wait_for(job(context, client), PATIENCE)
            except (OSError, EOFError, clients.Broken) as error:
                if job in clients.GOOD:
                    raise Failure(f"{job.__name__}, without load: {error!r}") from error
            except asyncio.TimeoutError:
                raise Failure(f"{job.__name__}, without load, has no end") from None
            await client.close()

        await asyncio.gather(*map(do, (*clients.GOOD, *clients.RUDE)))

    async def round(self, seconds):
        context, busy = self.context(), {}
        tasks = [asyncio.ensure_future(clients.work(context, job, jobs is clients.RUDE, busy))
                 for jobs in (clients.GOOD, clients.RUDE)
                 for job, number in jobs.items() for _ in range(number)]
        tasks += map(asyncio.ensure_future, (self.bulk(context, LOADS), self.look(context, busy)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION, timeout=seconds)
            self.raise_first(done)
            # They are to stay when the others leave.
            self.silent = clients.ghosts(self.server.port)
            context.over = True
            done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION,
                                            timeout=2 * PATIENCE)
            self.raise_first(done)
            if left:
                raise Failure(f"no end of {sorted(name for _, name in busy.values())}")
        finally:
            context.over = True
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
        """At the server, and whether one of us waits in vain."""
        loop = asyncio.get_running_loop()
        while not context.over:
            before = loop.time()
            await asyncio.sleep(0.5)
            self.lag = max(self.lag, loop.time() - before - 0.5)
            self.server.check()
            self.peak_rss = max(self.peak_rss, self.server.rss())
            self.peak_descriptors = max(self.peak_descriptors, len(self.server.descriptors()))
            for since, name in busy.values():
                if loop.time() - since > PATIENCE:
                    raise Failure(f"{name} waits for {PATIENCE} s")

    async def bulk(self, context, loads):
        """Slices of load, one program after the other."""
        programs = []
        try:
            for arguments in loads:
                programs.append(await asyncio.create_subprocess_exec(
                    f"{self.folder}/load", "-p", str(self.server.port), *arguments,
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE))
                await programs[-1].stdout.readline()
            while not context.over:
                for program, arguments in zip(programs, loads):
                    program.stdin.write(b"run 200\n")
                    line = (await program.stdout.readline()).split()
                    if len(line) != 6:
                        raise Failure(f"load {arguments} has ended")
                    if int(line[2]):
                        raise Failure(f"load {arguments}: {int(line[2])} of {int(line[0])} answers "
                                      f"are missing or wrong")
                    self.counts[f"load {arguments[1]}"] += int(line[0])
                    await asyncio.sleep(0.1)
        finally:
            for program in programs:
                if program.returncode is None:
                    program.kill()
                await program.wait()

    async def use_slots_up(self):
        """Until slots that rested are used again: then there are no new ones any more."""
        context = self.context()
        load = asyncio.ensure_future(self.bulk(context, LOADS[-1:]))
        while not load.done() and self.server.report()[0] < RESTING + 1000:
            await asyncio.sleep(0.5)
        context.over = True
        await load

    def quiet(self, descriptors):
        """All clients have left or are silent: nothing of them may remain."""
        self.server.wait_until_quiet(descriptors)
        for ghost in self.silent:
            ghost.close()
        left = [name for name in os.listdir(f"{self.site.root}/dav") if name.startswith(".mongoose")]
        if left:
            raise Failure(f"WebDAV has left {left}")
        # Appended to, so that this works under the server's hands.
        self.server.forget_complaints()
        time.sleep(max(0, self.left + SETTLE - time.monotonic()))
        known, heap = self.server.report()
        return known, heap, self.server.rss()

    def run(self):
        """A quarter of the time to warm up, and what is measured."""
        began = time.monotonic()
        # Behind the first poll, which opens what the server itself needs.
        self.server.report()
        descriptors = self.server.descriptors()
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
                print(f"round {number}, {time.monotonic() - began:.0f} s: {sum(self.counts.values())} "
                      f"exchanges; quiet with {len(descriptors)} descriptors, {at[1] / 1024:.0f} KiB "
                      f"in use, RSS {at[2] / 1024:.0f} KiB", flush=True)
            if base is None:
                base, after_warm_up = at, self.counts.copy()
        self.judge(base, at, after_warm_up)
        self.server.stop()

    def judge(self, base, at, after_warm_up):
        counts = self.counts - after_warm_up
        print("behind the warm-up:", ", ".join(f"{n} {name}" for name, n in counts.most_common()))
        missing = [job.__name__ for job in (*clients.GOOD, *clients.RUDE) if not self.counts[job.__name__]]
        if missing:
            raise Failure(f"nothing was done by {missing}")
        slots = max(0, min(at[0], RESTING) - min(base[0], RESTING)) * SLOT_BYTES
        heap, rss = at[1] - base[1], at[2] - base[2]
        print(f"under load: RSS up to {self.peak_rss / MIB:.1f} MiB, {self.peak_descriptors} descriptors\n"
              f"grown behind the warm-up: {heap / 1024:.0f} KiB in use, RSS {rss / 1024:.0f} KiB, of which "
              f"{slots / 1024:.0f} KiB may be slots that rest", flush=True)
        for what, grown, bound in (("the heap", heap, HEAP_MAY_GROW), ("RSS", rss, RSS_MAY_GROW)):
            if grown > bound + slots:
                raise Failure(f"{what} has grown by {grown} bytes, more than {bound + slots}")


# Neither raises an Exception: the event loop would merely log that.
def too_long(*_):
    sys.exit("soak: the suite takes longer than it may")


def end(*_):
    sys.exit(1)


def main(folder, seconds):
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
            try:
                time.sleep(1)  # clients notice the end of a server before its parent does
                if suite.server.process.poll() != 0:
                    suite.server.check()
            except Failure as reason:
                print(f"soak: {reason}", file=sys.stderr)
            print(f"soak: we ourselves were late by {suite.lag:.1f} s at most", file=sys.stderr)
            print(suite.server.complaints(), file=sys.stderr)
        return 1
    finally:
        if suite is not None:
            suite.server.kill()
    print("soak: all passed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
