"""The page of a view's statistics: for each feature the shape of its values, and how they went over time.

One file that holds everything it needs, like the page of a report.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from seatrial.core.clock import parse_time
from seatrial.features.statistics import FeatureSpread, Spread, Statistics
from seatrial.monitoring.pages.page import document
from seatrial.monitoring.pages.pictures import Series, line_chart, safe, table, value_text

MOST_WITHOUT_OVERVIEW = 6
WIDTH, HIGH, LEFT, BOTTOM = 420, 150, 8, 122
STYLE = """<style>
section { border-top: 1px solid var(--rule); margin-top: 2.2rem; padding-top: 1rem; }
section h2 { border: 0; margin: 0; padding: 0; font-size: 1.1rem; }
.beside { display: grid; grid-template-columns: minmax(0, 27rem) minmax(0, 1fr); gap: 1.5rem; align-items: center; }
.beside.top { align-items: start; }
.beside figure { margin: .6rem 0; }
dl.facts { display: grid; grid-template-columns: auto auto; gap: .1rem 1rem; margin: 0; justify-content: start;
  font-variant-numeric: tabular-nums; font-size: .92rem; }
dl.facts dt { color: var(--quiet); } dl.facts dd { margin: 0; text-align: right; }
@media (max-width: 40rem) { .beside { grid-template-columns: 1fr; } }
</style>"""


def html(found: Statistics) -> str:
    """The statistics as one page."""
    body = [
        STYLE,
        f'<p class="kicker">Feature view <strong>{safe(found.view)}</strong></p>',
        f"<h1>{found.rows:,} events from {safe(_moment(found.start))} to {safe(_moment(found.end))}</h1>",
        "<p>Each value is the view's own at one of its events. Under each picture the dot is the median, and the line "
        "beside it the middle half of the values. Where a few lie far out, the first and the last bar reach out to "
        "them.</p>",
        _overview(found.features) if len(found.features) > MOST_WITHOUT_OVERVIEW else "",
        *(_feature(one) for one in found.features),
        f"<footer>{safe(found.id)} · view {safe(found.digest[:12])} · times in UTC</footer>",
    ]
    return document(f"{found.view}: statistics", "".join(body))


def _overview(features: Sequence[FeatureSpread]) -> str:
    """A row per feature, with a link to its section."""
    rows = []
    for one in features:
        whole = one.whole
        ends = [value if isinstance(value, str) else value_text(value, "number") for value in (whole.min, whole.max)]
        cells = (
            value_text(whole.null_rate, "share"),
            f"{whole.distinct_count:,}",
            value_text(whole.mean, "number") if one.kind == "number" else "–",
            *(safe(end) for end in ends),
        )
        numbers = "".join(f'<td class="n">{cell}</td>' for cell in cells)
        rows.append(f'<tr><td><a href="#{safe(one.feature)}">{safe(one.feature)}</a></td>{numbers}</tr>')
    head = "".join(
        f'<th scope="col"{" class=n" if place else ""}>{word}</th>'
        for place, word in enumerate(("feature", "missing", "different", "mean", "min", "max"))
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _feature(one: FeatureSpread) -> str:
    picture = "" if one.kind == "time" else most_frequent(one) if one.kind == "text" else histogram(one)
    top = " top" if one.kind == "text" else ""
    name = safe(one.feature)
    return (
        f'<section id="{name}"><h2>{name}</h2><p class="small"><code>{safe(one.definition)}</code></p>'
        f'<div class="beside{top}">{picture}{_facts(one)}</div>{_over_time(one)}</section>'
    )


def histogram(one: FeatureSpread) -> str:
    """How many rows lie in each of the bins; the quartiles are marked under the axis."""
    whole = one.whole
    if not whole.counts:
        return "<figure><figcaption>There is no value to draw.</figcaption></figure>"
    low, high = whole.edges[0], whole.edges[-1]
    right, wide = WIDTH - LEFT, (WIDTH - 2 * LEFT) / len(whole.counts)
    drawn = []
    for place, count in enumerate(whole.counts):
        tall = (BOTTOM - 8) * count / max(whole.counts)
        tip = f"{_number(whole.edges[place])} to {_number(whole.edges[place + 1])}: {count:,} rows"
        drawn.append(
            f'<rect class="bar" x="{LEFT + place * wide + 0.5:.1f}" y="{BOTTOM - tall:.1f}" width="{wide - 1:.1f}" '
            f'height="{tall:.1f}"><title>{escape(tip)}</title></rect>'
        )
    drawn.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{BOTTOM}" y2="{BOTTOM}"/>')
    if high > low and whole.p25 is not None and whole.p50 is not None and whole.p75 is not None:
        places = [LEFT + place * wide for place in range(len(whole.edges))]
        a, b, c = (float(np.interp(value, whole.edges, places)) for value in (whole.p25, whole.p50, whole.p75))
        drawn.append(f'<line class="line observed" x1="{a:.1f}" x2="{c:.1f}" y1="{BOTTOM + 5}" y2="{BOTTOM + 5}"/>')
        drawn.append(f'<circle class="dot observed" cx="{b:.1f}" cy="{BOTTOM + 5}" r="4"/>')
    first, last = _ends(whole.edges)
    drawn.append(f'<text class="quiet" x="{LEFT}" y="{HIGH - 6}">{escape(first)}</text>')
    drawn.append(f'<text class="quiet end" x="{right}" y="{HIGH - 6}">{escape(last)}</text>')
    rows = [
        (f"{_number(whole.edges[place])} to {_number(whole.edges[place + 1])}", f"{count:,}")
        for place, count in enumerate(whole.counts)
    ]
    return _figure(one, drawn, rows)


def _ends(edges: Sequence[float]) -> tuple[str, str]:
    """What is written under the first and the last bar: where it ends, and where it begins when it is wider."""
    widths = np.diff(edges)
    wider = [len(widths) > 2 and widths[end] > 1.001 * widths[beside] for end, beside in ((0, 1), (-1, -2))]
    first = f"{_number(edges[0])} to {_number(edges[1])}" if wider[0] else _number(edges[0])
    last = f"{_number(edges[-2])} to {_number(edges[-1])}" if wider[1] else _number(edges[-1])
    return first, last


def most_frequent(one: FeatureSpread) -> str:
    """The most frequent texts, longest bar first."""
    most = one.whole.most
    if not most:
        return "<figure><figcaption>There is no value to draw.</figcaption></figure>"
    drawn, step = [], min(24.0, (HIGH - 10) / len(most))
    for place, (value, count) in enumerate(most):
        long, y = (WIDTH - 190) * count / most[0][1], 6 + place * step
        words = value if len(value) <= 16 else value[:15] + "…"
        drawn.append(f'<text class="end" x="122" y="{y + step * 0.7:.1f}">{safe(words)}</text>')
        drawn.append(
            f'<rect class="bar" x="130" y="{y:.1f}" width="{long:.1f}" height="{step * 0.8:.1f}">'
            f"<title>{safe(value)}: {count:,} rows</title></rect>"
        )
        drawn.append(f'<text class="quiet" x="{136 + long:.1f}" y="{y + step * 0.7:.1f}">{count:,}</text>')
    return _figure(one, drawn, [(value, f"{count:,}") for value, count in most], "The most frequent values.")


def _figure(one: FeatureSpread, drawn: Sequence[str], rows: Sequence[tuple[str, str]], caption: str = "") -> str:
    title = f"How the values of {one.feature} are spread"
    words = f"<figcaption>{caption}</figcaption>" if caption else ""
    numbers = f"<details><summary>The numbers</summary>{table(('value', 'rows'), rows, numbers=[1])}</details>"
    return (
        f'<figure aria-label="{safe(title)}"><svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {WIDTH} {HIGH}" aria-label="{safe(title)}"><title>{safe(title)}</title>{"".join(drawn)}</svg>'
        f"{words}{numbers}</figure>"
    )


def _facts(one: FeatureSpread) -> str:
    whole = one.whole
    facts = [
        ("rows", f"{whole.count:,}"),
        ("missing", value_text(whole.null_rate, "share")),
        ("different", f"{whole.distinct_count:,}"),
    ]
    if one.kind == "number":
        names = (("mean", "mean"), ("std", "std"), ("min", "min"), ("p25", "p25"), ("p50", "median"), ("p75", "p75"))
        facts += [(words, value_text(getattr(whole, name), "number")) for name, words in (*names, ("max", "max"))]
    if one.kind == "time":
        facts += [("first", str(whole.min or "–")), ("last", str(whole.max or "–"))]
    return f'<dl class="facts">{"".join(f"<dt>{safe(a)}</dt><dd>{safe(b)}</dd>" for a, b in facts)}</dl>'


def _over_time(one: FeatureSpread) -> str:
    """The mean of each piece of time, and what was missing."""
    if len(one.buckets) < 2:
        return ""
    times = [parse_time(piece.start) for piece in one.buckets]
    step = times[1] - times[0]
    missing = line_chart(
        times,
        [Series("missing", [piece.null_rate for piece in one.buckets])],
        title=f"Missing values of {one.feature} over time",
        caption="Share of the rows without a value.",
        step=step,
    )
    if one.kind != "number":
        return missing
    values = line_chart(
        times,
        [_series(name, attribute, one.buckets) for name, attribute in (("mean", "mean"), ("median", "p50"))],
        title=f"{one.feature} over time",
        caption="Mean (solid) and median (dashed) of each piece of time.",
        shown="number",
        step=step,
    )
    return values + (missing if any(piece.null_rate for piece in one.buckets) else "")


def _series(name: str, attribute: str, pieces: Sequence[Spread]) -> Series:
    values = [getattr(piece, attribute) for piece in pieces]
    return Series(name, values, "plain" if name == "mean" else "predicted")


def _moment(text: str) -> str:
    """A time in words; a midnight is its day."""
    return text.replace("T", " ").replace("Z", "").removesuffix(":00").removesuffix(" 00:00")


def _number(value: float) -> str:
    return value_text(value, "number")
