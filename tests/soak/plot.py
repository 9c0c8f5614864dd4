"""How the servers did over the time of a run, as two plots."""
import os
import sys

sys.path.append(f"{os.path.dirname(__file__)}/../../benches/harness")
import svg

MIB = 1 << 20
POINTS = 60


class Sample:
    def __init__(self, when, servers):
        self.when = when
        self.rss = [server.rss() for server in servers]
        self.descriptors = sum(len(server.descriptors()) for server in servers)
        self.threads = sum(server.threads() for server in servers)
        self.children = sum(server.children() for server in servers)


def peaks(began, samples, value):
    """The highest value of each of `POINTS` parts of the time, in minutes."""
    last = samples[-1].when - began
    parts = {}
    for sample in samples:
        part = min(int((sample.when - began) / last * POINTS), POINTS - 1)
        parts[part] = max(parts.get(part, 0), value(sample))
    return [((part + 1) * last / POINTS / 60, most) for part, most in sorted(parts.items())]


def write(folder, began, samples):
    def curve(value):
        return peaks(began, samples, value)

    plots = {
        "memory": ("Memory under an hour of mixed load", "RSS in MiB, the highest of each minute", {
            "one process": curve(lambda sample: sample.rss[0] / MIB),
            "two that share": curve(lambda sample: sample.rss[1] / MIB)}),
        "counts": ("What is open under an hour of mixed load", "the highest number of each minute", {
            "descriptors": curve(lambda sample: sample.descriptors),
            "threads": curve(lambda sample: sample.threads),
            "children": curve(lambda sample: sample.children)}),
    }
    for name, (title, unit, series) in plots.items():
        with open(f"{folder}/soak-{name}.svg", "w") as file:
            file.write(svg.curves(title, series, "minutes", unit, log_x=False))
