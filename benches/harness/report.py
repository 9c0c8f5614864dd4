"""Results as text, and whether the goals are reached."""

from .works import GOALS


def duration(ns):
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= scale:
            return f"{ns / scale:.3g} {unit}"
    return f"{ns:.0f} ns"


def memory(kib):
    return f"{kib / 1024:.1f} MiB" if kib >= 1024 else f"{kib:.0f} KiB"


def verdicts(result):
    """What the library is to reach in a work: (what, reached, goal, whether)."""
    own = result["rows"].get("mongoose")
    if own is None:
        return []

    def at_most(what, value, goal, form="{:.2f}"):
        return (what, form.format(value), "≤ " + form.format(goal), value <= goal)

    if result["kind"] == "plain":
        peer = result["rows"].get(result["goal_peer"])
        if result["goal"] is not None:
            return [at_most("CPU ratio", own["cpu_ratio"], result["goal"])]
        if peer is not None:
            what = f"CPU µs, below {result['goal_peer']}"
            return [at_most(what, own["cpu_ns"] / 1000, peer["cpu_ns"] / 1000, "{:.0f}")]
        return []
    if result["kind"] == "idle":
        speed = own["speed_ratio"]
        if result.get("over_tls"):
            return [at_most("KiB for a connection", own["kib_each"], GOALS["tls_idle_kib"])]
        return [
            ("requests/s", f"{speed:.3f}", f"≥ {GOALS['idle_speed']}", speed >= GOALS["idle_speed"]),
            at_most("KiB for a connection", own["kib_each"], GOALS["idle_kib"]),
        ]
    without_tls = result["rows"]["mongoose-no-tls"]
    if result["kind"] == "start":
        return [at_most("ms", own["ms"], GOALS["start_ms"]),
                at_most("MiB without TLS", without_tls["mib"], GOALS["start_mib"])]
    return [at_most("KiB without TLS", without_tls["kib"], GOALS["library_kib"], "{:.0f}")]


def columns(result):
    """Headings and rows of a table."""
    rows = result["rows"]
    if result["kind"] == "plain":
        heads = [f"CPU per {result['unit']}", "ratio", "middle half", f"{result['unit']}s/s",
                 "p50", "p99", "peak memory", "slices used"]
        return heads, {
            name: [duration(row["cpu_ns"]), f"{row['cpu_ratio']:.3f}",
                   "{:.2f}–{:.2f}".format(*row["cpu_ratio_quartiles"]),
                   f"{row['per_second']:,.0f}", duration(row["p50_ns"]), duration(row["p99_ns"]),
                   memory(row["peak_kib"]), f"{row['used']}/{row['slices']}"
                   + (" noisy" if row["noisy"] else "")]
            for name, row in rows.items()
        }
    if result["kind"] == "idle":
        counts = [point["idle"] for point in next(iter(rows.values()))["points"]]
        heads = [*(f"{count:,} idle" for count in counts), "requests/s", "CPU", "for each"]
        return heads, {
            name: [*(duration(point["cpu_ns"]) for point in row["points"]),
                   f"×{row['speed_ratio']:.3f}", f"×{row['cpu_ratio']:.3f}",
                   f"{row['kib_each']:.2f} KiB"]
            for name, row in rows.items()
        }
    if result["kind"] == "start":
        return ["time", "memory"], {
            name: [f"{row['ms']:.2f} ms", f"{row['mib']:.2f} MiB"] for name, row in rows.items()
        }
    return ["size"], {name: [f"{row['kib']:.0f} KiB"] for name, row in rows.items()}


def complaints(result):
    found = []
    for name, row in result["rows"].items():
        if row["errors"]:
            found.append(f"{name}: {row['errors']} errors")
        if row.get("lost"):
            found.append(f"{name}: {row['lost']} idle connections lost")
    return found


def show(name, result):
    heads, rows = columns(result)
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows.values())]
    print(f"\n{name}: {result['title']}")
    for title, cells in [("", heads), *rows.items()]:
        print(f"  {title:16}" + "".join(f"  {c:>{w}}" for c, w in zip(cells, widths)))
    for what, reached, goal, holds in verdicts(result):
        print(f"  goal: {what} {goal}, reached {reached}: {'yes' if holds else 'NO'}")
    for complaint in complaints(result):
        print(f"  {complaint}")
    print(end="", flush=True)


def failed(everything):
    """Errors of the library or the yardstick, and works that ended early; slow is no failure."""
    own = ("mongoose:", "limit:")
    return bool(everything["failed"]) or any(complaint.startswith(own)
               for result in everything["works"].values() for complaint in complaints(result))
