"""How do the join's time and memory grow with the number of rows? A table, and a picture for the docs.

Three views of 10,000 to 10 million events each, 100 events per entity, a label row for every ten events, with
known-at: the contestants of `join.py`, run as there. One that is cut off at a size is left out of the larger ones.

    python benchmarks/features/curve.py [--events 1e4 1e5 1e6 1e7 --rounds 3]
    python benchmarks/features/curve.py --redraw figures.json     # the picture anew, from figures kept with --figures
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.histories import history
from join import KNOWN_AT, compete

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "join_time_and_memory.svg"
LARGE = 2_000_000  # events; from here on there is one round
VIEWS = 3
NAMES = {  # contestant -> its name in the picture
    "floor": "plain DuckDB ASOF, no rule for ties",
    f"seatrial {KNOWN_AT}": "seatrial",
    f"Feast duckdb {KNOWN_AT}": "Feast, duckdb engine",
    f"Feast dask {KNOWN_AT}": "Feast, default engine",
}
COLOURS = {  # on light, on dark
    "plain DuckDB ASOF, no rule for ties": ("#6b7280", "#9ca3af"),
    "seatrial": ("#1d4ed8", "#60a5fa"),
    "Feast, duckdb engine": ("#c2410c", "#fb923c"),
    "Feast, default engine": ("#a21caf", "#f0abfc"),
}

Point = dict[str, Any]
"""name, rows (events of all views), labels, seconds, peak_mb, cut (why it was cut off; empty when it was not)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--events", type=float, nargs="+", default=[1e4, 1e5, 1e6, 1e7], help="in each view")
    parser.add_argument("--engine", nargs="*", choices=["duckdb", "dask"], default=["duckdb", "dask"], help="of Feast")
    parser.add_argument("--no-feast", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=75.0, help="seconds for a run of Feast")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--figures", type=Path, help="also keep the figures in this file")
    parser.add_argument("--redraw", type=Path, help="measure nothing, and draw the figures of this file")
    options = parser.parse_args()
    if options.redraw:
        points = json.loads(options.redraw.read_text())
    else:
        points = measure(options)
    if options.figures:
        options.figures.write_text(json.dumps(points))
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    options.picture.write_text(picture(points))
    print(f"\ndrawn: {options.picture.name}")


def measure(options: argparse.Namespace) -> list[Point]:
    print(f"{VIEWS} views, {options.threads} threads, {KNOWN_AT}; median of {options.rounds}, of one from {LARGE:,} on")
    print(f"{'events':>12}{'labels':>11}  {'':<36}{'seconds':>9}{'us a label':>12}{'peak MB':>9}")
    points: list[Point] = []
    engines = list(options.engine)
    for events in map(int, options.events):
        data = history(events=events, entities=max(events // 100, 1), labels=events // 10, views=VIEWS)
        rounds = 1 if events >= LARGE else options.rounds
        asked = dict(vars(options), known_at=True, rounds=rounds, engine=engines, sample=1)
        with tempfile.TemporaryDirectory() as folder:
            entrants = compete(data, Path(folder), argparse.Namespace(**asked))
        for entrant in entrants:
            one = entrant.contestant
            point = {"name": NAMES[one.name], "rows": events * VIEWS, "labels": events // 10}
            point |= {"seconds": one.seconds, "peak_mb": one.peak_mb, "cut": one.cut}
            points.append(point)
            each = f"{'> ' if one.cut else ''}{one.seconds / point['labels'] * 1e6:,.1f}"
            print(f"{events * VIEWS:>12,}{events // 10:>11,}  {point['name']:<36}", end="")
            print(f"{one.seconds_text():>9}{each:>12}{one.peak_mb:>9,.0f}", flush=True)
            if one.cut and one.name.startswith("Feast"):
                engines.remove(one.name.split()[1])
    return points


def picture(points: Sequence[Point]) -> str:
    """Two panels, time and memory against events, both axes logarithmic; its own colours on a light and a dark page."""
    names = [name for name in COLOURS if any(point["name"] == name for point in points)]
    light = "".join(f".s{i}{{--c:{COLOURS[name][0]}}}" for i, name in enumerate(names))
    dark = "".join(f".s{i}{{--c:{COLOURS[name][1]}}}" for i, name in enumerate(names))
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 350" role="img" '
        'aria-label="Time and peak memory of the point-in-time join against the number of events">',
        "<style>svg{--ink:#1f2937;--soft:#6b7280;--grid:#e5e7eb;--page:#ffffff}",
        light,
        "@media(prefers-color-scheme:dark){svg{--ink:#e5e7eb;--soft:#9ca3af;--grid:#374151;--page:#0d1117}",
        dark,
        "}",
        "text{font:12px system-ui,sans-serif;fill:var(--soft)}.t{font-weight:600;fill:var(--ink)}",
        ".g{stroke:var(--grid);stroke-width:1}.l{stroke:var(--c);stroke-width:2;fill:none}",
        ".d{fill:var(--c)}.o{fill:var(--page);stroke:var(--c);stroke-width:2}.n{fill:var(--ink)}</style>",
        '<rect width="760" height="350" style="fill:var(--page)"/>',
    ]
    for i, name in enumerate(names):
        x, y = 56 + (i % 2) * 330, 18 + (i // 2) * 18
        parts.append(f'<g class="s{i}"><path class="l" d="M{x} {y - 4}h22"/><circle class="d" cx="{x + 11}" ')
        parts.append(f'cy="{y - 4}" r="3.5"/><text class="n" x="{x + 30}" y="{y}">{escape(name)}</text></g>')
    parts += panel(points, names, "seconds", "Time, seconds", 56, _seconds)
    parts += panel(points, names, "peak_mb", "Peak memory", 430, _megabytes)
    cut = any(point["cut"] for point in points)
    note = f"events in {VIEWS} views; a label row for every ten events of one"
    parts.append(f'<text x="380" y="342" text-anchor="middle">{note}{"; ring: cut off there" if cut else ""}</text>')
    return "\n".join([*parts, "</svg>", ""])


def panel(
    points: Sequence[Point], names: Sequence[str], what: str, title: str, left: int, tick: Callable[[float], str]
) -> list[str]:
    """One chart, 300 x 220."""
    width, top, height = 300, 78, 220
    rows = [point["rows"] for point in points]
    first, last = math.log10(min(rows)), math.log10(max(rows)) if max(rows) > min(rows) else math.log10(min(rows)) + 1
    low = math.floor(math.log10(min(point[what] for point in points)))
    high = max(low + 1, math.ceil(math.log10(max(point[what] for point in points))))

    def x(value: float) -> float:
        return left + (math.log10(value) - first) / (last - first) * width

    def y(value: float) -> float:
        return top + height - (math.log10(value) - low) / (high - low) * height

    parts = [f'<text class="t" x="{left}" y="{top - 12}">{title}</text>']
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(f'<path class="g" d="M{left} {at:.1f}h{width}"/>')
        parts.append(f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{tick(10.0**power)}</text>')
    for value in sorted(set(rows)):
        parts.append(f'<text x="{x(value):.1f}" y="{top + height + 18}" text-anchor="middle">{_count(value)}</text>')
    for i, name in enumerate(names):
        mine = sorted((point for point in points if point["name"] == name), key=lambda point: point["rows"])
        line = " ".join(f"{'L' if n else 'M'}{x(p['rows']):.1f} {y(p[what]):.1f}" for n, p in enumerate(mine))
        parts.append(f'<g class="s{i}"><path class="l" d="{line}"/>')
        for p in mine:
            kind, radius = ("o", 4.5) if p["cut"] else ("d", 3.5)
            parts.append(f'<circle class="{kind}" cx="{x(p["rows"]):.1f}" cy="{y(p[what]):.1f}" r="{radius}"/>')
        parts.append("</g>")
    return parts


def _seconds(value: float) -> str:
    return f"{value:g}"


def _megabytes(value: float) -> str:
    return f"{value / 1000:g} GB" if value >= 1000 else f"{value:g} MB"


def _count(value: float) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k"


if __name__ == "__main__":
    main()
