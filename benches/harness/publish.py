"""A run as plots and tables: in a directory, and in the README."""

import os
import statistics

from . import report, svg
from .contenders import PEERS

TABLE, PAGE, GROWTH = "table.md", "README.md", "growth.md"
BEGIN, END = "<!-- benchmarks -->\n", "<!-- end of benchmarks -->\n"


def page_head(everything):
    machine = everything["machine"]
    kind = "virtual machine" if machine["virtual"] else "machine"
    def span(what):
        # Works of one page may come from several runs.
        found = {result.get(what, everything.get(what, 0)) for result in everything["works"].values()}
        return "–".join(str(number) for number in sorted(found))

    slices = f"{span('starts')} starts of {span('slices')} slices of {everything['slice_ms']} ms"
    if span("nice") != "0":
        slices += f", at nice {span('nice')}"
    return (
        f"{everything['when']}: a {kind} with {machine['cores']} cores, {machine['processor']}, "
        f"Linux {machine['kernel']}; {machine['rustc']}; {machine['cc']}. "
        f"{slices}.\n"
    )


def base_of(result):
    """Whom the ratios of a work are to."""
    return result.get("base", "limit")


def over_tls(everything):
    """A line for each work over TLS, where nginx is what ratios are to."""
    lines = ["| CPU time of the server | nginx | mongoose |", "|---|---|---|"]
    for result in everything["works"].values():
        if result["kind"] == "plain" and base_of(result) == "nginx":
            rows = result["rows"]
            lines.append(f"| {result['title']} | {report.duration(rows['nginx']['cpu_ns'])} | "
                         f"**{rows['mongoose']['cpu_ratio']:.2f}** |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def noise(everything):
    """How far apart the middle half of all ratios typically lies, in percent."""
    widths = [
        (high - low) / row["cpu_ratio"] * 100
        for result in everything["works"].values() if result["kind"] == "plain"
        for name, row in result["rows"].items() if name != base_of(result)
        for low, high in [row["cpu_ratio_quartiles"]]
    ]
    disturbed = any(row["noisy"] for result in everything["works"].values()
                    if result["kind"] == "plain" for row in result["rows"].values())
    text = (f"Within a work, half of all ratios lie within {statistics.median(widths):.0f} % of each "
            "other: what differs by less is noise.")
    if disturbed:
        text += " The machine had other things to do in some of the slices."
    return text + "\n"


def table(everything):
    """One line a work: what the library takes, and where others stand."""
    found = dict.fromkeys(
        name for result in everything["works"].values()
        if result["kind"] == "plain" and base_of(result) == "limit"
        for name in result["rows"] if name not in ("limit", "mongoose")
    )
    order = [*PEERS, "nginx-cache"]
    names = sorted(found, key=lambda name: order.index(name) if name in order else len(order))
    lines = ["| CPU time of the server | limit | mongoose | " + " | ".join(names) + " |",
             "|---" * (3 + len(names)) + "|"]
    for result in everything["works"].values():
        if result["kind"] != "plain" or base_of(result) != "limit":
            continue
        rows = result["rows"]
        cells = [report.duration(rows["limit"]["cpu_ns"])]
        for name in ("mongoose", *names):
            row = rows.get(name)
            cells.append("" if row is None else f"{row['cpu_ratio']:.2f}")
        cells[1] = f"**{cells[1]}**"
        lines.append(f"| {result['title']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def other_table(everything):
    """What is no time for a request."""
    lines = ["| | " + " | ".join(["mongoose", "others"]) + " |", "|---|---|---|"]
    for result in everything["works"].values():
        rows = result["rows"]

        def others(form, what):
            return ", ".join(f"{name} {form.format(row[what])}" for name, row in rows.items()
                             if not name.startswith("mongoose"))

        def own(form, what):
            plain = rows["mongoose-no-tls"][what]
            return f"**{form.format(rows['mongoose'][what])}**, without TLS {form.format(plain)}"

        if result["kind"] == "idle":
            each = "memory for an idle connection" + (" with TLS" if result.get("over_tls") else "")
            for title, form, what in (
                (result["title"] + ": requests/s", "×{:.2f}", "speed_ratio"),
                (each + ", KiB", "{:.2f}", "kib_each"),
            ):
                lines.append(f"| {title} | **{form.format(rows['mongoose'][what])}** | "
                             f"{others(form, what)} |")
        elif result["kind"] == "start":
            for title, form, what in (("start to first answer, ms", "{:.1f}", "ms"),
                                      ("memory then, MiB", "{:.1f}", "mib")):
                lines.append(f"| {title} | {own(form, what)} | {others(form, what)} |")
        elif result["kind"] == "size":
            lines.append(f"| {result['title']}, KiB | {own('{:.0f}', 'kib')} | |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def plots(everything):
    """{file name: SVG}"""
    found = {}
    note = f"CPU time of the server, {everything['when']}"
    for work, result in everything["works"].items():
        rows = result["rows"]
        if result["kind"] == "plain":
            ordered = sorted(rows.items(), key=lambda item: item[1]["cpu_ratio"])
            bars = [(name, row["cpu_ratio"],
                     f"{row['cpu_ratio']:.2f}, {report.duration(row['cpu_ns'])}")
                    for name, row in ordered]
            found[work + ".svg"] = svg.bars(result["title"], bars,
                                            note=f"{note}, against {base_of(result)}")
        elif result["kind"] == "idle":
            speeds = {name: [(point["idle"], point["per_second"]) for point in row["points"]]
                      for name, row in rows.items()}
            memory = {name: [(point["idle"], point["memory_kib"] / 1024)
                             for point in row["points"]] for name, row in rows.items()}
            found[work + "-speed.svg"] = svg.curves("Speed beside idle connections", speeds,
                                                 "idle connections", "requests/s")
            found[work + "-memory.svg"] = svg.curves("Memory with idle connections", memory,
                                                  "idle connections", "MiB", log_x=False)
        elif result["kind"] == "start":
            for what, title in (("ms", "Start to first answer"), ("mib", "Memory after it")):
                unit = "ms" if what == "ms" else "MiB"
                bars = sorted(((name, row[what], f"{row[what]:.1f} {unit}")
                               for name, row in rows.items()), key=lambda bar: bar[1])
                found[f"start-{what}.svg"] = svg.bars(title, bars, note=everything["when"])
        elif result["kind"] == "growth":
            series = {name: [(point["x"], point["y"]) for point in row["points"]]
                      for name, row in rows.items()}
            found[f"growth-{work}.svg"] = svg.curves(result["title"], series, result["x_label"],
                                                     result["y_label"],
                                                     log_y=result["x_label"] == "bytes")
    return found


def write(everything, directory):
    os.makedirs(directory, exist_ok=True)
    files = plots(everything)
    if any(result["kind"] == "plain" for result in everything["works"].values()):
        shown = [text for text in (table(everything), over_tls(everything)) if text]
        tables = "\n".join([page_head(everything), *shown, noise(everything)])
        if other_table(everything):
            tables += "\n" + other_table(everything)
        files[TABLE] = tables
        files[PAGE] = page("Figures", "compare", tables, files)
        files[PAGE] += f"\nAs more is around a request: [{GROWTH}]({GROWTH}).\n"
    else:
        files[GROWTH] = page("Growth", "growth", page_head(everything), files)
    for name, content in files.items():
        with open(os.path.join(directory, name), "w") as file:
            file.write(content)


def write_readme(everything, path, plots_at):
    """Puts the tables and the curves between the markers of a README that has them."""
    with open(path) as file:
        text = file.read()
    if BEGIN not in text or END not in text:
        return
    before, rest = text.split(BEGIN, 1)
    _, behind = rest.split(END, 1)
    with open(os.path.join(plots_at, TABLE)) as file:
        block = "\n" + file.read()
    beside = os.path.relpath(plots_at, os.path.dirname(path))
    for name in ("idle-speed.svg", "idle-memory.svg"):
        if os.path.exists(os.path.join(plots_at, name)):
            block += f"\n![{name.removesuffix('.svg')}]({beside}/{name})\n"
    with open(path, "w") as file:
        file.write(before + BEGIN + block + "\n" + END + behind)


def page(title, command, text, files):
    page = f"# {title}\n\nWritten by `benches/{command} --publish`; how it measures, and what the\n"
    page += f"figures mean: [benches/README.md](../../benches/README.md).\n\n{text}"
    for name in files:
        if name.endswith(".svg"):
            page += f"\n![{name.removesuffix('.svg')}]({name})\n"
    return page
