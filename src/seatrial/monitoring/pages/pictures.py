"""Pictures: lines over time, bars against a limit, columns, a calibration curve, drawn as SVG inside of a page.

Each function takes plain values and returns one `<figure>`: the picture, a caption, and the numbers as a table for
whoever cannot see it. Nothing is loaded from anywhere: colours are those of `STYLE`, which a page holds once, and
follow its light or dark scheme. No meaning is carried by colour alone: what was predicted is dashed, what happened is
solid with dots, what lies beyond its limit is hatched and says so. Every text is escaped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from typing import Literal

from seatrial.core.clock import as_utc

WIDTH = 760
LONGEST = 300
"""Characters of one text; the rest is cut."""
MOST_ROWS = 400
"""Rows of one table of numbers."""

Shown = Literal["share", "number"]
Role = Literal["observed", "predicted", "plain"]

MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
DAYS = "Mon Tue Wed Thu Fri Sat Sun".split()

# Blue and vermilion of Okabe and Ito's palette (jfly.uni-koeln.de/color), told apart in every kind of colour
# blindness; in the dark scheme its sky blue and orange.
STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --raised: #f6f7f8; --ink: #16191d; --quiet: #59626d;
  --rule: #d9dde2; --blue: #0066a8; --red: #c04a00; --green: #00734f; --gap: rgba(213, 94, 0, .16);
  --band: rgba(120, 130, 145, .14); }
@media (prefers-color-scheme: dark) { :root { --ground: #14171b; --raised: #1d2228; --ink: #e9ecef; --quiet: #a3adb8;
  --rule: #363d46; --blue: #62b8ee; --red: #f0932b; --green: #45c49a; --gap: rgba(240, 147, 43, .22);
  --band: rgba(160, 170, 185, .15); } }
figure { margin: 1rem 0 1.5rem; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { color: var(--quiet); font-size: .9rem; max-width: 46rem; margin-top: .4rem; }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
svg .quiet { fill: var(--quiet); }
svg .strong { font-weight: 650; }
svg .end { text-anchor: end; }
svg .mid { text-anchor: middle; }
svg .rule { stroke: var(--rule); stroke-width: 1; }
svg .axis { stroke: var(--quiet); stroke-width: 1; }
svg .line { fill: none; stroke-width: 2.5; stroke-linejoin: round; stroke-linecap: round; }
svg .observed { stroke: var(--red); } svg .dot.observed, svg text.observed { fill: var(--red); }
svg .predicted { stroke: var(--blue); stroke-dasharray: 7 5; } svg text.predicted { fill: var(--blue); }
svg .plain { stroke: var(--blue); } svg .dot.plain, svg text.plain { fill: var(--blue); }
svg text.observed, svg text.predicted, svg text.plain { stroke: none; font-weight: 650; }
svg .dot.weak { fill: var(--ground); stroke-width: 2; }
svg .between { fill: var(--gap); }
svg .band { fill: var(--band); }
svg .mark { stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: 2 3; }
svg .badge { fill: var(--ink); } svg .badge.loud { fill: var(--red); }
svg text.number { fill: var(--ground); font-size: 11px; font-weight: 700; text-anchor: middle; }
svg .bar { fill: var(--blue); } svg .bar.beyond { fill: var(--red); } svg .bar.faint { fill: var(--rule); }
svg .hatch { stroke: var(--ground); stroke-width: 2; }
svg .whisker { stroke: var(--quiet); stroke-width: 2; } svg .whisker.observed { stroke: var(--red); }
svg .whisker.plain { stroke: var(--blue); }
svg .limit { stroke: var(--ink); stroke-width: 2.5; } svg .limit.under { stroke: var(--ground); stroke-width: 6.5; }
ol.marks { list-style: none; padding: 0; margin: .5rem 0 0; font-size: .9rem; }
ol.marks li { margin: .15rem 0; }
ol.marks b { display: inline-block; min-width: 1.25rem; text-align: center; border-radius: .7rem; margin-right: .45rem;
  background: var(--ink); color: var(--ground); font-size: .75rem; line-height: 1.25rem; }
ol.marks b.loud { background: var(--red); }
details { margin-top: .4rem; font-size: .9rem; }
summary { cursor: pointer; color: var(--quiet); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { color: var(--quiet); font-weight: 600; white-space: nowrap; }
td { overflow-wrap: break-word; }
td.n, th.n { text-align: right; white-space: nowrap; }
"""


@dataclass(frozen=True)
class Series:
    """One line. values: as many as there are instants; None where there is none, which leaves a gap in the line.

    weak: per value whether it rests on too little to lean on; drawn as an empty dot.
    """

    name: str
    values: Sequence[float | None]
    role: Role = "plain"
    weak: Sequence[bool] = ()


@dataclass(frozen=True)
class At:
    """Something that happened at an instant: a numbered mark on the picture, explained below it. loud: stands out."""

    at: datetime
    words: str
    loud: bool = False


@dataclass(frozen=True)
class Span:
    """A stretch of time that is shaded, with its name on top."""

    start: datetime
    end: datetime
    words: str


@dataclass(frozen=True)
class Bar:
    """One bar of `bars`. value None: there is none, and `note` says why. beyond: past its limit, stands out."""

    name: str
    value: float | None
    limit: float | None = None
    beyond: bool = False
    note: str = ""


@dataclass(frozen=True)
class Dot:
    """One dot of `calibration_curve`: mean of what was predicted, mean of what happened, over so many rows.

    interval: of what happened; None: there is none.
    """

    predicted: float
    observed: float
    rows: int
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Whisker:
    """One row of `whiskers`: a value and its interval. beyond: stands out. note: beside it."""

    name: str
    value: float
    interval: tuple[float, float] | None = None
    beyond: bool = False
    note: str = ""


def line_chart(
    times: Sequence[datetime],
    series: Sequence[Series],
    *,
    title: str,
    caption: str = "",
    shown: Shown = "share",
    marks: Sequence[At] = (),
    spans: Sequence[Span] = (),
    step: timedelta = timedelta(days=1),
    limit: tuple[float, str] | None = None,
) -> str:
    """Lines over time. The area between what was predicted and what was observed is shaded.

    times: aware, ascending; each stands for `step` around it. marks outside of them are left out.
    limit: a level that is drawn across, and its name.
    """
    times = [as_utc(time) for time in times]
    values = [value for one in series for value in one.values if value is not None and math.isfinite(value)]
    values += [limit[0]] if limit else []
    if not times or not values:
        return _figure("", title, caption or "There is nothing to draw.")
    start, end = _around(times, step)
    high, left, right, top, bottom = 290, 52, WIDTH - 132, 34, 250
    scale = _Scale.of(values, bottom, top, from_zero=shown == "share" or min(values) >= 0)

    def x(time: datetime) -> float:
        return left + (right - left) * ((time - start) / (end - start))

    placed = [x(time) for time in times]
    drawn = [_span(one, start, end, x, top, bottom) for one in spans]
    drawn += [
        _level(scale, tick, left, right, words)
        for tick, words in zip(scale.ticks, tick_texts(scale.ticks, shown), strict=True)
    ]
    drawn += _time_axis(times, placed, step, bottom)
    drawn += _between(series, placed, scale)
    if limit:
        y = scale.y(limit[0])
        drawn.append(f'<line class="limit" x1="{left}" x2="{right}" y1="{_n(y)}" y2="{_n(y)}"/>')
        drawn.append(_text(left + 6, y - 6, limit[1], "quiet"))
    inside = [mark for mark in sorted(marks, key=lambda one: as_utc(one.at)) if start <= as_utc(mark.at) <= end]
    drawn += _marks(inside, x, top, bottom)
    for one in series:
        drawn += _line(one, times, placed, scale, shown, step)
    drawn += _ends(series, scale, shown, right)
    numbers = _numbers(
        ("time", *(one.name for one in series)),
        [
            (_when(time, step, long=True), *(_cell(one.values[i], shown) for one in series))
            for i, time in enumerate(times)
        ],
    )
    legend = "".join(
        f"<li><b{' class=loud' if one.loud else ''}>{i}</b>{safe(_moment(one.at))}: {safe(one.words)}</li>"
        for i, one in enumerate(inside, start=1)
    )
    return _figure(
        _svg(WIDTH, high, title, drawn),
        title,
        caption,
        (f'<ol class="marks">{legend}</ol>' if legend else "") + numbers,
    )


def bars(rows: Sequence[Bar], *, title: str, caption: str = "", shown: Shown = "number", most: int = 20) -> str:
    """Bars from 0 to the right, each with the tick of its limit. Those beyond `most` are in the table only."""
    drawn_rows = rows[:most]
    values = [n for one in drawn_rows for n in (one.value, one.limit) if n is not None and math.isfinite(n)]
    if not drawn_rows or not values:
        return _figure("", title, caption or "There is nothing to draw.", _bar_table(rows, shown))
    left, right, row_high = 190, WIDTH - 205, 26
    high = 8 + row_high * len(drawn_rows) + 24
    scale = _Scale.of([0.0, *values], left, right, from_zero=True)
    bottom = high - 24
    drawn = []
    for tick, words in zip(scale.ticks, tick_texts(scale.ticks, shown), strict=True):
        at = _n(scale.y(tick))
        drawn.append(f'<line class="rule" x1="{at}" x2="{at}" y1="4" y2="{bottom}"/>')
        drawn.append(_text(scale.y(tick), bottom + 16, words, "quiet mid"))
    for i, one in enumerate(drawn_rows):
        drawn += _bar(one, 8 + i * row_high, scale, left, right, shown)
    more = f" {len(rows) - most:,} more are in the table." if len(rows) > most else ""
    return _figure(_svg(WIDTH, high, title, drawn), title, caption + more, _bar_table(rows, shown))


def columns(
    times: Sequence[datetime],
    totals: Sequence[int],
    parts: Sequence[int],
    *,
    title: str,
    names: tuple[str, str],
    caption: str = "",
    step: timedelta = timedelta(days=1),
) -> str:
    """A column for each instant, of which the filled part is `parts` of `totals`. names: of the whole and the part."""
    times = [as_utc(time) for time in times]
    if not times or not any(totals):
        return _figure("", title, caption or "There is nothing to draw.")
    high, left, right, top, bottom = 210, 52, WIDTH - 132, 14, 172
    scale = _Scale.of([0.0, *map(float, totals)], bottom, top, from_zero=True)
    wide = (right - left) / len(times)
    drawn = [_level(scale, tick, left, right, f"{tick:,.0f}") for tick in scale.ticks if tick == round(tick)]
    placed = [left + wide * (i + 0.5) for i in range(len(times))]
    drawn += _time_axis(times, placed, step, bottom)
    for center, time, total, part in zip(placed, times, totals, parts, strict=True):
        tip = f"{_when(time, step, long=True)}: {part:,} of {total:,}"
        for kind, count in (("faint", total), ("", part)):
            y = scale.y(count)
            drawn.append(
                f'<rect class="bar {kind}" x="{_n(center - wide * 0.4)}" width="{_n(wide * 0.8)}" y="{_n(y)}" '
                f'height="{_n(bottom - y)}"><title>{safe(tip)}</title></rect>'
            )
    for i, (kind, name) in enumerate((("faint", names[0]), ("", names[1]))):
        drawn.append(f'<rect class="bar {kind}" x="{right + 12}" y="{top + 10 + i * 24}" width="12" height="12"/>')
        drawn.append(_text(right + 30, top + 21 + i * 24, name, ""))
    numbers = _numbers(
        ("time", *names),
        [(_when(t, step, long=True), f"{a:,}", f"{b:,}") for t, a, b in zip(times, totals, parts, strict=True)],
    )
    return _figure(_svg(WIDTH, high, title, drawn), title, caption, numbers)


def calibration_curve(
    dots: Sequence[Dot], *, title: str, caption: str = "", shown: Shown = "share", few: int = 30
) -> str:
    """What happened against what was predicted; on the diagonal the two are equal. Larger dots hold more rows.

    few: dots of fewer rows are drawn empty.
    """
    dots = [one for one in dots if math.isfinite(one.predicted) and math.isfinite(one.observed)]
    if not dots:
        return _figure("", title, caption or "There is nothing to draw.")
    both = [value for one in dots for value in (one.predicted, one.observed)]
    both += [0.0, 1.0] if shown == "share" and min(both) >= 0 and max(both) <= 1 else []
    left, right, top, bottom, high = 62, 392, 12, 342, 392
    up = _Scale.of(both, bottom, top)
    across = _Scale(up.low, up.high, left, right, up.ticks)
    drawn = []
    for tick, words in zip(up.ticks, tick_texts(up.ticks, shown), strict=True):
        drawn.append(_level(up, tick, left, right, words))
        drawn.append(_text(across.y(tick), bottom + 18, words, "quiet mid"))
    drawn.append(
        f'<line class="line predicted" x1="{left}" y1="{bottom}" x2="{right}" y2="{top}">'
        "<title>Equal: as predicted, so it happened</title></line>"
    )
    drawn.append(_text(left + 12, top + 20, "more happened", "quiet"))
    drawn.append(_text(left + 12, top + 37, "than was predicted", "quiet"))
    drawn.append(_text(right - 12, bottom - 29, "less happened", "quiet end"))
    drawn.append(_text(right - 12, bottom - 12, "than was predicted", "quiet end"))
    drawn.append(_text((left + right) / 2, bottom + 40, "predicted", "predicted mid"))
    middle = (top + bottom) / 2
    drawn.append(
        f'<text class="observed mid" transform="rotate(-90 16 {_n(middle)})" x="16" y="{_n(middle)}">observed</text>'
    )
    points = [(across.y(one.predicted), up.y(one.observed)) for one in dots]
    drawn.append(f'<polyline class="line observed" points="{" ".join(f"{_n(a)},{_n(b)}" for a, b in points)}"/>')
    largest = max(one.rows for one in dots) or 1
    for one, (a, _) in zip(dots, points, strict=True):
        if one.interval is not None and all(map(math.isfinite, one.interval)):
            ends = [min(max(up.y(value), top), bottom) for value in one.interval]
            drawn.append(f'<line class="whisker" x1="{_n(a)}" x2="{_n(a)}" y1="{_n(ends[0])}" y2="{_n(ends[1])}"/>')
    for one, (a, b) in zip(dots, points, strict=True):
        means = f"{value_text(one.predicted, shown)} predicted, {value_text(one.observed, shown)} observed"
        radius = 3.5 + 7 * math.sqrt(one.rows / largest)
        weak = " weak" if one.rows < few else ""
        drawn.append(
            f'<circle class="dot observed{weak}" cx="{_n(a)}" cy="{_n(b)}" r="{_n(radius)}">'
            f"<title>{safe(f'{means}, {one.rows:,} rows')}</title></circle>"
        )
    numbers = _numbers(
        ("predicted", "observed", "between", "rows"),
        [
            (
                value_text(one.predicted, shown),
                value_text(one.observed, shown),
                span_text(one.interval, shown),
                f"{one.rows:,}",
            )
            for one in dots
        ],
    )
    return _figure(_svg(420, high, title, drawn, narrow=True), title, caption, numbers)


def whiskers(
    rows: Sequence[Whisker],
    *,
    title: str,
    caption: str = "",
    shown: Shown = "number",
    zero: tuple[float, str] = (0.0, "no change"),
    borne: float | None = None,
) -> str:
    """Values with their intervals, a row each, around a line that means nothing happened.

    zero: where that line stands, and its name. borne: how far from it counts as nothing; shaded.
    """
    rows = [one for one in rows if math.isfinite(one.value)]
    if not rows:
        return _figure("", title, caption or "There is nothing to draw.")
    level, name = zero
    ends = [value for one in rows for value in one.interval or () if math.isfinite(value)]
    spread = [level, *(one.value for one in rows), *ends]
    spread += [] if borne is None else [level - borne, level + borne]
    left, right, row_high, top = 236, WIDTH - 150, 28, 22
    scale = _Scale.of(spread, left, right)
    bottom = top + row_high * len(rows) + 4
    drawn = []
    if borne is not None:
        start, end = scale.y(level - borne), scale.y(level + borne)
        drawn.append(
            f'<rect class="band" x="{_n(start)}" y="{top}" width="{_n(end - start)}" height="{bottom - top}"/>'
        )
    for tick, words in zip(scale.ticks, tick_texts(scale.ticks, shown), strict=True):
        at = _n(scale.y(tick))
        drawn.append(f'<line class="rule" x1="{at}" x2="{at}" y1="{top}" y2="{bottom}"/>')
        drawn.append(_text(scale.y(tick), bottom + 16, words, "quiet mid"))
    at = _n(scale.y(level))
    drawn.append(f'<line class="axis" x1="{at}" x2="{at}" y1="{top}" y2="{bottom}"/>')
    drawn.append(_text(scale.y(level), top - 8, name, "quiet mid"))
    for number, one in enumerate(rows):
        y = top + 4 + row_high * number + 10
        kind = "observed" if one.beyond else "plain"
        drawn.append(_text(left - 12, y + 5, _short(one.name, 32), "end strong" if one.beyond else "end", tip=one.name))
        if one.interval is not None and all(map(math.isfinite, one.interval)):
            low, high = map(scale.y, one.interval)
            drawn.append(f'<line class="whisker {kind}" x1="{_n(low)}" x2="{_n(high)}" y1="{y}" y2="{y}"/>')
        tip = f"{one.name}: {value_text(one.value, shown)} ({span_text(one.interval, shown)})"
        place = f'cx="{_n(scale.y(one.value))}" cy="{y}" r="5"'
        drawn.append(f'<circle class="dot {kind}" {place}><title>{safe(tip)}</title></circle>')
        drawn.append(_text(right + 14, y + 5, _short(one.note, 20), "strong" if one.beyond else "quiet"))
    numbers = _numbers(
        ("", "value", "between", "note"),
        [(one.name, value_text(one.value, shown), span_text(one.interval, shown), one.note) for one in rows],
    )
    return _figure(_svg(WIDTH, bottom + 24, title, drawn), title, caption, numbers)


def arrival_steps(
    points: Sequence[tuple[float, float]],
    *,
    title: str,
    caption: str = "",
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """A share that rises with age. points: hours and shares, ascending. marks: ages, drawn across with their words."""
    points = [one for one in points if math.isfinite(one[0]) and math.isfinite(one[1])]
    if not points:
        return _figure("", title, caption or "There is nothing to draw.")
    days = points[-1][0] > 72
    unit = 24.0 if days else 1.0
    high, left, right, top, bottom = 230, 52, WIDTH - 132, 30, 182
    across = _Scale.of([0.0, points[-1][0] / unit], left, right, from_zero=True)
    up = _Scale.of([0.0, 1.0], bottom, top, from_zero=True)
    drawn = [
        _level(up, tick, left, right, words)
        for tick, words in zip(up.ticks, tick_texts(up.ticks, "share"), strict=True)
    ]
    for tick, words in zip(across.ticks, tick_texts(across.ticks, "number"), strict=True):
        drawn.append(_text(across.y(tick), bottom + 18, words, "quiet mid"))
    drawn.append(
        _text((left + right) / 2, bottom + 38, f"{'days' if days else 'hours'} after the prediction", "quiet mid")
    )
    path = [(float(left), float(bottom))]
    for age, share in points:
        path += [(across.y(age / unit), path[-1][1]), (across.y(age / unit), up.y(share))]
    path.append((right, path[-1][1]))
    drawn.append(f'<polyline class="line plain" points="{" ".join(f"{_n(a)},{_n(b)}" for a, b in path)}"/>')
    for age, words in marks:
        at = across.y(age / unit)
        if left <= at <= right:
            drawn.append(f'<line class="mark" x1="{_n(at)}" x2="{_n(at)}" y1="{top - 6}" y2="{bottom}"/>')
            drawn.append(_text(at, top - 12, words, "quiet mid"))
    numbers = _numbers(("hours", "share known"), [(f"{a:,.3g}", value_text(b, "share")) for a, b in points])
    return _figure(_svg(WIDTH, high, title, drawn), title, caption, numbers)


def part(heading: str, told: str, body: str, *, loud: bool = False, open: bool = False) -> str:
    """A section of a page: its heading and one sentence, the rest on demand. told: text. body: safe mark-up."""
    words = f'<span class="told{" loud" if loud else ""}">{safe(told, 400)}</span>' if told else ""
    if not body:
        return f'<div class="part"><h2>{safe(heading)}</h2>{words}</div>'
    return (
        f'<details class="part"{" open" if open or loud else ""}><summary><h2>{safe(heading)}</h2>{words}</summary>'
        f"{body}</details>"
    )


def span_text(interval: tuple[float, float] | None, shown: Shown) -> str:
    """An interval for people, a dash where there is none."""
    return "–" if interval is None else f"{value_text(interval[0], shown)} to {value_text(interval[1], shown)}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    """A table of texts; those columns whose position is in `numbers` stand to the right."""
    kind = dict.fromkeys(numbers, ' class="n"')
    body = "".join(
        "<tr>" + "".join(f"<td{kind.get(i, '')}>{safe(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    names = "".join(f'<th scope="col"{kind.get(i, "")}>{safe(name)}</th>' for i, name in enumerate(head))
    return f'<div class="scroll"><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>'


def safe(text: object, most: int = LONGEST) -> str:
    """A text for a page: no mark-up, no control or direction characters, at most `most` characters."""
    words = _UNSEEN.sub(" ", str(text)).encode("utf-8", "replace").decode()
    return escape(words if len(words) <= most else words[: most - 1] + "…")


def value_text(value: float | None, shown: Shown) -> str:
    """A number as people read it; whole per cent from ten on, one digit below.

    >>> value_text(0.482, "share"), value_text(0.054, "share"), value_text(1234.5, "number")
    ('48 %', '5.4 %', '1,234')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if shown == "share":
        percent = value * 100
        return (
            f"{percent:.0f} %" if abs(percent) >= 9.95 or abs(percent - round(percent)) < 1e-9 else f"{percent:.1f} %"
        )
    if abs(value) < 1e-9:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def tick_texts(ticks: Sequence[float], shown: Shown) -> list[str]:
    """The numbers beside an axis, with as many decimals as tell them apart.

    >>> tick_texts([0, 0.0005, 0.001, 0.0015], "share"), tick_texts([0, 0.5], "share")
    (['0.00 %', '0.05 %', '0.10 %', '0.15 %'], ['0 %', '50 %'])
    """
    texts = [value_text(tick, shown) for tick in ticks]
    times, unit = (100, " %") if shown == "share" else (1, "")
    decimals = 0
    while len(set(texts)) < len(set(ticks)) and decimals < 12:
        decimals += 1
        texts = [f"{tick * times:,.{decimals}f}{unit}" for tick in ticks]
    return texts


_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


# Scales and axes


@dataclass(frozen=True)
class _Scale:
    """Maps `low` to the pixel `start` and `high` to `end`."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]

    @staticmethod
    def of(values: Sequence[float], start: float, end: float, *, from_zero: bool = False) -> _Scale:
        low, high = min(values), max(values)
        if from_zero:
            low, high = min(low, 0.0), max(high, 0.0)
        if high - low < 1e-12 * max(abs(high), abs(low), 1e-290):
            low, high = (
                (low, high + (abs(high) or 1)) if from_zero else (low - (abs(low) or 1), high + (abs(high) or 1))
            )
        step = _nice((high - low) / 4)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        ticks = [(first + i) * step for i in range(last - first + 1)]
        return _Scale(ticks[0], ticks[-1], start, end, ticks)

    def y(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)


def _nice(step: float) -> float:
    """The next larger of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def _level(scale: _Scale, tick: float, left: float, right: float, words: str) -> str:
    y = scale.y(tick)
    rule = "axis" if tick == 0 else "rule"
    return f'<line class="{rule}" x1="{left}" x2="{right}" y1="{_n(y)}" y2="{_n(y)}"/>' + _text(
        left - 8, y + 4.5, words, "quiet end"
    )


def _around(times: Sequence[datetime], step: timedelta) -> tuple[datetime, datetime]:
    """Half a step before the first time and after the last, as far as there are dates."""
    first, last = times[0], times[-1]
    before, after = first.replace(tzinfo=None) - datetime.min, datetime.max - last.replace(tzinfo=None)
    return first - min(step / 2, before), last + min(step / 2, after)


def _time_axis(times: Sequence[datetime], placed: Sequence[float], step: timedelta, bottom: float) -> list[str]:
    every = -(-len(times) // (7 if len(times) <= 14 else 9))
    return [
        _text(placed[i], bottom + 20, _when(times[i], step, weekday=len(times) <= 14), "quiet mid")
        for i in range(0, len(times), every)
    ]


def _span(one: Span, start: datetime, end: datetime, x: Callable[[datetime], float], top: float, bottom: float) -> str:
    first, last = max(as_utc(one.start), start), min(as_utc(one.end), end)
    if first >= last:
        return ""
    a, b = x(first), x(last)
    rect = f'<rect class="band" x="{_n(a)}" width="{_n(b - a)}" y="{top - 22}" height="{bottom - top + 22}"/>'
    return rect + _text((a + b) / 2, top - 8, one.words, "quiet mid")


# Lines


def _line(
    one: Series, times: Sequence[datetime], placed: Sequence[float], scale: _Scale, shown: Shown, step: timedelta
) -> list[str]:
    known = [(i, float(v)) for i, v in enumerate(one.values) if v is not None and math.isfinite(v)]
    drawn = []
    for run in _runs([i for i, _ in known]):
        points = " ".join(f"{_n(placed[i])},{_n(scale.y(float(one.values[i] or 0.0)))}" for i in run)
        drawn.append(f'<polyline class="line {one.role}" points="{points}"/>')
    radius = 4.5 if len(times) <= 45 else 2.5 if len(times) <= 150 else 0
    for i, value in known:
        weak = bool(one.weak) and one.weak[i]
        alone = not _finite(_get(one.values, i - 1)) and not _finite(_get(one.values, i + 1))
        tip = f"{_when(times[i], step, long=True)}: {one.name} {value_text(value, shown)}"
        if one.role == "predicted" and not alone:
            kind, size = "dot predicted", 0.0
        else:
            kind, size = f"dot {one.role}{' weak' if weak else ''}", radius or (3.0 if alone else 0.0)
        if size:
            drawn.append(
                f'<circle class="{kind}" cx="{_n(placed[i])}" cy="{_n(scale.y(value))}" r="{size}">'
                f"<title>{safe(tip + (', few labels' if weak else ''))}</title></circle>"
            )
    return drawn


def _between(series: Sequence[Series], placed: Sequence[float], scale: _Scale) -> list[str]:
    observed = next((one for one in series if one.role == "observed"), None)
    predicted = next((one for one in series if one.role == "predicted"), None)
    if observed is None or predicted is None:
        return []
    both = [i for i in range(len(placed)) if _finite(observed.values[i]) and _finite(predicted.values[i])]
    drawn = []
    for run in _runs(both):
        there = [f"{_n(placed[i])},{_n(scale.y(float(observed.values[i] or 0.0)))}" for i in run]
        back = [f"{_n(placed[i])},{_n(scale.y(float(predicted.values[i] or 0.0)))}" for i in reversed(run)]
        drawn.append(f'<polygon class="between" points="{" ".join(there + back)}"/>')
    return drawn


def _ends(series: Sequence[Series], scale: _Scale, shown: Shown, right: float) -> list[str]:
    """The name of each line behind its end, moved apart where they would touch."""
    found = []
    for one in series:
        known = [value for value in one.values if value is not None and math.isfinite(value)]
        last = known[-1] if known else None
        if last is not None:
            found.append((scale.y(last), one, last))
    drawn = []
    lowest = -math.inf
    for y, one, value in sorted(found, key=lambda item: item[0]):
        lowest = max(y, lowest + 34)
        drawn.append(_text(right + 10, lowest - 3, one.name, one.role))
        drawn.append(_text(right + 10, lowest + 13, f"{value_text(value, shown)} at the end", "quiet"))
    return drawn


def _marks(inside: Sequence[At], x: Callable[[datetime], float], top: float, bottom: float) -> list[str]:
    drawn, ends = [], [-99.0, -99.0, -99.0]  # the right edge of each row of badges
    for number, one in enumerate(inside, start=1):
        at = x(as_utc(one.at))
        row = next((i for i, edge in enumerate(ends) if at - 10 > edge), 0)
        ends[row] = at + 10
        y = top + 2 + row * 21
        drawn.append(f'<line class="mark" x1="{_n(at)}" x2="{_n(at)}" y1="{_n(y)}" y2="{bottom}"/>')
        drawn.append(
            f'<g><circle class="badge{" loud" if one.loud else ""}" cx="{_n(at)}" cy="{_n(y)}" r="9.5"/>'
            f'<text class="number" x="{_n(at)}" y="{_n(y + 4)}">{number}</text>'
            f"<title>{safe(f'{_moment(one.at)}: {one.words}')}</title></g>"
        )
    return drawn


def _runs(places: Sequence[int]) -> list[list[int]]:
    """Neighbouring positions together."""
    found: list[list[int]] = []
    for place in places:
        if found and found[-1][-1] == place - 1:
            found[-1].append(place)
        else:
            found.append([place])
    return found


# Bars


def _bar(one: Bar, y: float, scale: _Scale, left: float, right: float, shown: Shown) -> list[str]:
    drawn = [_text(left - 10, y + 16, _short(one.name, 26), "end strong" if one.beyond else "end", tip=one.name)]
    if one.value is None or not math.isfinite(one.value):
        return [*drawn, _text(left + 8, y + 16, _short(one.note or "not known", 60), "quiet")]
    end = scale.y(max(one.value, 0.0))
    kind = " beyond" if one.beyond else ""
    drawn.append(
        f'<rect class="bar{kind}" x="{left}" y="{y + 4}" width="{_n(max(end - left, 1))}" height="16">'
        f"<title>{safe(f'{one.name}: {value_text(one.value, shown)}')}</title></rect>"
    )
    if one.beyond:
        drawn += [
            f'<line class="hatch" x1="{_n(at)}" y1="{y + 20}" x2="{_n(at + 8)}" y2="{y + 4}"/>'
            for at in _steps(left + 8, end - 9, 12)
        ]
    words = value_text(one.value, shown)
    if one.limit is not None and math.isfinite(one.limit):
        at = _n(scale.y(one.limit))
        drawn += [
            f'<line class="limit{kind}" x1="{at}" x2="{at}" y1="{y + 1}" y2="{y + 23}"/>' for kind in (" under", "")
        ]
    note = one.note or ("beyond its limit" if one.beyond else "")
    drawn.append(
        _text(right + 14, y + 16, words + (f", {_short(note, 22)}" if note else ""), "strong" if one.beyond else "")
    )
    return drawn


def _bar_table(rows: Sequence[Bar], shown: Shown) -> str:
    return _numbers(
        ("name", "value", "limit", "note"),
        [
            (
                one.name,
                value_text(one.value, shown),
                value_text(one.limit, shown),
                one.note or ("beyond its limit" if one.beyond else ""),
            )
            for one in rows
        ],
    )


def _steps(first: float, last: float, by: float) -> list[float]:
    return [first + i * by for i in range(max(0, int((last - first) // by) + 1))]


# Words and mark-up


def _figure(svg: str, title: str, caption: str, more: str = "") -> str:
    words = f"<figcaption>{safe(caption, 1000)}</figcaption>" if caption else ""
    return f'<figure aria-label="{safe(title)}">{svg}{words}{more}</figure>'


def _svg(width: int, high: float, title: str, drawn: Iterable[str], *, narrow: bool = False) -> str:
    size = f' style="max-width: {width}px"' if narrow else ' style="min-width: 38rem"'
    return (
        '<div class="scroll"><svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {width} {_n(high)}"{size} '
        f'aria-label="{safe(title)}"><title>{safe(title)}</title>{"".join(drawn)}</svg></div>'
    )


def _numbers(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    left_out = f"<p>{len(rows) - MOST_ROWS:,} more rows are left out.</p>" if len(rows) > MOST_ROWS else ""
    body = table(head, rows[:MOST_ROWS], numbers=range(1, len(head) - (head[-1] == "note")))
    return f"<details><summary>The numbers</summary>{body}{left_out}</details>"


def _text(x: float, y: float, words: str, kind: str, *, tip: str = "") -> str:
    hover = f"<title>{safe(tip)}</title>" if tip else ""
    return f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}">{safe(words)}{hover}</text>'


def _short(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"


def _when(time: datetime, step: timedelta, *, weekday: bool = False, long: bool = False) -> str:
    if step < timedelta(days=1):
        clock = f"{time:%H:%M}"
        return f"{time.day} {MONTHS[time.month - 1]} {clock}" if long else clock
    words = f"{time.day} {MONTHS[time.month - 1]}"
    if long:
        return f"{DAYS[time.weekday()]} {words} {time.year}"
    return f"{DAYS[time.weekday()]} {words}" if weekday else words


def _moment(at: datetime) -> str:
    at = as_utc(at)
    return f"{at.day} {MONTHS[at.month - 1]} {at.year} {at:%H:%M} UTC"


def _cell(value: float | None, shown: Shown) -> str:
    return value_text(value, shown)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _get(values: Sequence[float | None], place: int) -> float | None:
    return values[place] if 0 <= place < len(values) else None


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
