"""Interleaved, shuffled slices, and the sums over them."""

import random
import statistics
import subprocess

from .programs import BIN, Bench, Failure
from . import machine


def rounds_of(benches, options):
    """Rounds of {key: figures}: one slice of each, in an order of its own."""
    rounds = []
    for _ in range(options.slices):
        figures = {}
        for key in random.sample(sorted(benches, key=str), len(benches)):
            figures[key] = benches[key].slice()
        rounds.append(figures)
    return rounds


def start_all(entries, options):
    """Benches for {key: (name, command, load arguments, idle connections)}."""
    benches = {}
    try:
        for key, (name, command, arguments, idle) in entries.items():
            benches[key] = Bench(name, command, arguments, options)
            benches[key].warm_up(idle)
    except Failure:
        stop_all(benches)
        raise
    return benches


def stop_all(benches):
    for bench in benches.values():
        bench.stop()


def median(values, default=None):
    values = list(values)
    return statistics.median(values) if values else default


def pairs(rounds, key, base):
    """Slices and those of the base in the same round: the undisturbed ones, and where these are
    few the quieter half."""
    together = [(figures[key], figures[base]) for figures in rounds]
    quiet = [pair for pair in together if not any(figures["disturbed"] for figures in pair)]
    if len(quiet) * 4 >= len(together):
        return quiet
    together.sort(key=lambda pair: max(figures["foreign"] for figures in pair))
    return together[: (len(together) + 1) // 2]


def summary(rounds, key, base):
    """Medians of one contender, ratios taken within each round."""
    found = pairs(rounds, key, base)

    def of(what):
        return median(figures[what] for figures, _ in found)

    def ratio(what):
        return median(figures[what] / against[what] for figures, against in found)

    ratios = sorted(figures["cpu_ns"] / against["cpu_ns"] for figures, against in found)
    return {
        "cpu_ns": of("cpu_ns"),
        "per_second": of("per_second"),
        "p50_ns": of("p50"),
        "p99_ns": of("p99"),
        "cpu_ratio": ratio("cpu_ns"),
        # Half of all slices were between these.
        "cpu_ratio_quartiles": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
        "speed_ratio": ratio("per_second"),
        "errors": sum(figures[key]["errors"] for figures in rounds),
        "idle_open": min(figures[key]["idle"] for figures in rounds),
        "slices": len(rounds),
        "disturbed": sum(figures[key]["disturbed"] for figures in rounds),
        "used": len(found),
        "noisy": any(figures["disturbed"] for pair in found for figures in pair),
    }


def side_by_side(entries, base, options):
    """Runs all slices of all starts. {key: summary with peak memory}."""
    rounds, peaks, memory = [], {}, {}
    for _ in range(options.starts):
        benches = start_all(entries, options)
        try:
            rounds += rounds_of(benches, options)
            for key, bench in benches.items():
                peaks[key] = max(peaks.get(key, 0), bench.peak_kib())
                memory.setdefault(key, []).append(bench.memory_kib())
        finally:
            stop_all(benches)
    result = {}
    for key in entries:
        result[key] = summary(rounds, key, base(key) if callable(base) else base)
        result[key]["peak_kib"] = peaks[key]
        result[key]["memory_kib"] = median(memory[key])
    return result


def first_answer(command, core):
    """Milliseconds to the first answer of a fresh process, and KiB then."""
    arguments = ["-u", "/hello"]
    if any("{port}" in word for word in command):
        port = str(machine.free_port())
        arguments += ["-p", port]
        command = [word.replace("{port}", port) for word in command]
    done = subprocess.run(
        ["taskset", "-c", str(core), f"{BIN}/first", *arguments, *command],
        capture_output=True, text=True,
    )
    if done.returncode != 0:
        raise Failure(f"{command[0]}: {done.stderr.strip()}")
    ns, kib = map(int, done.stdout.split())
    return ns / 1e6, kib
