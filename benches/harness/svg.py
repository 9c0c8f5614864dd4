"""Bars and curves as SVG, in the colours of whoever reads: light or dark."""

from html import escape
from math import ceil, floor, log10

STYLE = """\
<style>
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-size: 14px; font-weight: 600 }
  .faint { fill: #6e7781 }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .goal { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 4 3 }
  .c0 { fill: #0969da; stroke: #0969da } .c1 { fill: #8c959f; stroke: #8c959f }
  .c2 { fill: #1a7f37; stroke: #1a7f37 } .c3 { fill: #bc4c00; stroke: #bc4c00 }
  .c4 { fill: #8250df; stroke: #8250df } .c5 { fill: #bf3989; stroke: #bf3989 }
  .c6 { fill: #9a6700; stroke: #9a6700 } .c7 { fill: #1b7c83; stroke: #1b7c83 }
  rect { stroke: none !important }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .faint { fill: #8d96a0 } .grid { stroke: #3d444d }
    .goal { stroke: #f85149 }
    .c0 { fill: #4493f8; stroke: #4493f8 } .c1 { fill: #7d8590; stroke: #7d8590 }
    .c2 { fill: #3fb950; stroke: #3fb950 } .c3 { fill: #f0883e; stroke: #f0883e }
    .c4 { fill: #ab7df8; stroke: #ab7df8 } .c5 { fill: #db61a2; stroke: #db61a2 }
    .c6 { fill: #d29922; stroke: #d29922 } .c7 { fill: #39c5cf; stroke: #39c5cf }
  }
</style>
"""
# Whoever is in several plots has one colour in all of them.
COLORS = {"mongoose": 0, "limit": 1, "nginx": 2, "h2o": 3, "lighttpd": 4, "microhttpd": 5,
          "nginx-cache": 6, "civetweb": 7}
WIDTH = 680


def color(name, position=0):
    return f"c{COLORS.get(name, position % 8)}"


def text(x, y, content, anchor="start", css=""):
    css = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{css}>{escape(content)}</text>'


def line(x1, y1, x2, y2, css):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def document(height, title, parts):
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img" aria-label="{escape(title)}">\n')
    return head + STYLE + "\n".join(parts) + "\n</svg>\n"


def short(value):
    """A number for an axis."""
    for limit, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def short_bytes(value):
    for limit, suffix in ((1 << 20, " MiB"), (1 << 10, " KiB")):
        if value >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:g}"


def powers(low, high):
    """Powers of ten that enclose two numbers."""
    return [10.0 ** power for power in range(floor(log10(low)), ceil(log10(high)) + 1)]


def steps(top, count=5):
    """Round numbers from 0 to at least `top`."""
    if top <= 0:
        return [0, 1]
    rough = top / count
    power = 10 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [step * number for number in range(ceil(top / step - 1e-9) + 1)]


def bars(title, rows, goal=None, note=""):
    """Horizontal bars. `rows` are (name, value, label)."""
    left, right, top, each = 100, 120, 40, 24
    scale = steps(max([value for _, value, _ in rows] + [goal or 0]))
    bottom = top + each * len(rows)

    def at(value):
        return left + (WIDTH - left - right) * value / scale[-1]

    parts = [text(8, 20, title, css="title")]
    for value in scale:
        parts.append(line(at(value), top - 4, at(value), bottom, "grid"))
        parts.append(text(at(value), bottom + 16, short(value), "middle", "faint"))
    for number, (name, value, label) in enumerate(rows):
        y = top + each * number
        parts.append(text(left - 8, y + 15, name, "end"))
        parts.append(f'<rect x="{left}" y="{y + 3}" width="{at(value) - left:.1f}" '
                     f'height="{each - 7}" rx="2" class="{color(name, number)}"/>')
        parts.append(text(at(value) + 6, y + 15, label, css="faint"))
    if goal is not None:
        parts.append(line(at(goal), top - 4, at(goal), bottom, "goal"))
    parts.append(text(8, bottom + 36, note, css="faint"))
    return document(bottom + 46, title, parts)


def curves(title, series, x_label, y_label, log_x=True, log_y=False):
    """Lines. `series` is {name: [(x, y)]}."""
    left, right, top, bottom = 64, 130, 56, 316
    points = [point for line_points in series.values() for point in line_points]
    xs, ys = sorted({x for x, _ in points}), [y for _, y in points]
    scale = powers(min(ys), max(ys)) if log_y else steps(max(ys))
    show_x = short_bytes if x_label == "bytes" else short

    def share(value, low, high, log):
        if log:
            value, low, high = log10(value), log10(low), log10(high)
        return (value - low) / ((high - low) or 1)

    def at(x, y):
        return (left + (WIDTH - left - right) * share(x, xs[0], xs[-1], log_x),
                bottom - (bottom - top) * share(y, scale[0], scale[-1], log_y))

    parts = [text(8, 20, title, css="title"), text(8, 40, y_label, css="faint")]
    for value in scale:
        _, y = at(xs[0], value)
        parts.append(line(left, y, WIDTH - right, y, "grid"))
        parts.append(text(left - 6, y + 4, short(value), "end", "faint"))
    shown = -100
    for value in xs:
        x, _ = at(value, scale[0])
        if x - shown >= 44:
            parts.append(text(x, bottom + 16, show_x(value), "middle", "faint"))
            shown = x
    parts.append(text((left + WIDTH - right) / 2, bottom + 34, x_label, "middle", "faint"))
    labels = []
    for number, (name, line_points) in enumerate(series.items()):
        css = color(name, number)
        path = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in line_points)
        parts.append(f'<polyline points="{path}" class="{css}" style="fill:none;stroke-width:2"/>')
        for x, y in line_points:
            cx, cy = at(x, y)
            parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="2.5" class="{css}"/>')
        labels.append([at(*line_points[-1])[1], name, css])
    # Names stand beside the ends of their lines, and not on each other.
    labels.sort()
    for above, below in zip(labels, labels[1:]):
        below[0] = max(below[0], above[0] + 15)
    too_low = max(0, labels[-1][0] - bottom)
    for y, name, css in labels:
        parts.append(f'<text x="{WIDTH - right + 8}" y="{y - too_low + 4:.1f}" class="{css}" '
                     f'style="stroke:none">{escape(name)}</text>')
    return document(bottom + 46, title, parts)
