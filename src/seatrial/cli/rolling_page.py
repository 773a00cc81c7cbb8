"""A rollout as a page: its verdict, the split, each guardrail's interval against its margin, and every look."""

from __future__ import annotations

from collections.abc import Sequence

from seatrial.cli.data import STYLE, figures
from seatrial.cli.render import Plain
from seatrial.cli.rolling import ended_words, left
from seatrial.monitoring.pages.page import document
from seatrial.monitoring.pages.pictures import Bar, bars, safe, table

TONES = {"advance": "good", "hold": "", "roll back": "bad", "keep the live release": ""}
ROW, WIDTH, NAMES, NUMBERS = 34, 760, 130, 190
PAGE_STYLE = """<style>
.looks td:first-child { white-space: nowrap; } .looks td:nth-child(2) { overflow-wrap: anywhere; min-width: 9rem; }
svg .interval { stroke: var(--blue); stroke-width: 3; } svg .interval.crossed { stroke: var(--red); }
svg .seen { fill: var(--blue); } svg .seen.crossed { fill: var(--red); }
</style>"""


def page(thing: Plain) -> str:
    """The whole page of `deployments status`."""
    name, rollout, analysis = thing["deployment"], thing["rollout"], thing["analysis"]
    title = f"Rollout of {name}"
    if rollout is None or analysis is None:
        as_of = f'<p class="kicker">{safe(thing.get("live", ""))} · as of {safe(thing.get("as_of", ""))}</p>'
        ended = f"<p>{safe(ended_words(thing['ended']), 1000)}</p>" if thing.get("ended") else ""
        body = [
            STYLE,
            PAGE_STYLE,
            as_of,
            f'<div class="verdict"><h1>{safe(name)}: no rollout is under way</h1>{ended}</div>',
        ]
        return document(title, "".join([*body, _looks(thing["history"])]))
    rows = analysis["rows"]
    strategy = rollout["strategy"].replace("_", "/")
    body = [
        STYLE,
        PAGE_STYLE,
        f'<p class="kicker">{safe(name)} · {safe(strategy)} · as of {safe(analysis["as_of"])}</p>',
        f'<div class="verdict {TONES[analysis["verdict"]]}"><h1>{safe(analysis["verdict"])}</h1>'
        f"<p>{safe(analysis['why'], 1000)}</p></div>",
        figures(
            [
                ("new release", f"{analysis['wanted'] * 100:g} %", rollout["new"]),
                ("live release", f"{100 - analysis['wanted'] * 100:g} %", rollout["live"]),
                ("answers", f"{rows['new']:,}", f"of {analysis['needed']:,} that the step needs"),
                ("step", f"{rollout['step'] + 1} of {len(rollout['steps'])}", left(analysis)),
            ]
        ),
    ]
    if analysis["wanted"]:
        none = "no answers yet" if analysis["observed"] is None else ""
        split = [Bar("wanted", analysis["wanted"]), Bar("observed", analysis["observed"], note=none)]
        body.append(bars(split, title="Share of the new release", shown="share"))
    body.append(f"<section><h2>Guardrails</h2>{intervals(analysis['guardrails'])}</section>")
    decision = analysis["labels"] or analysis.get("metric")
    if decision:
        facts = [(key.replace("_", " "), str(value)) for key, value in decision.items() if value not in (None, "")]
        body.append(f"<section><h2>Labels or metric</h2>{table(('', ''), facts)}</section>")
    history = [one for one in thing["history"] if one.get("rollout", "") in ("", rollout.get("started", ""))]
    return document(title, "".join([*body, _looks(history), "<footer>Times in UTC.</footer>"]))


def intervals(guardrails: Sequence[Plain]) -> str:
    """Each guardrail's difference with its interval, drawn from twice its margin below none to twice above."""
    measured = [one for one in guardrails if one["difference"] is not None]
    drawn = []
    for place, one in enumerate(measured):
        drawn += _interval(one, 20 + place * ROW)
    high = 20 + len(measured) * ROW
    title = "Difference of the new release from the live one, with its interval over all looks"
    svg = (
        f'<div class="scroll"><svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {WIDTH} {high}" '
        f'style="min-width: 38rem" aria-label="{title}"><title>{title}</title>{"".join(drawn)}</svg></div>'
    )
    head = ("guardrail", "live", "new", "difference", "low", "high", "borne", "state")
    keys = ("name", "live", "new", "difference", "low", "high", "margin", "state")
    cells = [[_cell(one[key]) for key in keys] for one in guardrails]
    caption = "The thick line is what is borne: an interval that lies beyond it as a whole takes the traffic back."
    numbers = table(head, cells, numbers=range(1, 7))
    return f"<figure>{svg if measured else ''}<figcaption>{caption}</figcaption>{numbers}</figure>"


def _interval(figure: Plain, y: int) -> list[str]:
    reach: float = 2 * figure["margin"]
    first, last = NAMES, WIDTH - NUMBERS

    def x(value: float) -> float:
        return round(first + (min(max(value, -reach), reach) + reach) / (2 * reach) * (last - first), 1)

    tone = " crossed" if figure["state"] == "crossed" else ""
    margins = [figure["margin"], *([-figure["margin"]] if figure["name"] == "mean_score" else [])]
    low, high, zero = x(figure["low"]), x(figure["high"]), x(0)
    words = f"{figure['state']}: {figure['difference']:+.2g} of {figure['margin']:g}"
    return [
        f'<text class="end" x="{first - 12}" y="{y + 4}">{safe(figure["name"])}</text>',
        f'<line class="rule" x1="{zero}" x2="{zero}" y1="{y - 12}" y2="{y + 12}"/>',
        *(f'<line class="limit" x1="{x(one)}" x2="{x(one)}" y1="{y - 12}" y2="{y + 12}"/>' for one in margins),
        f'<line class="interval{tone}" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>',
        f'<circle class="seen{tone}" cx="{x(figure["difference"])}" cy="{y}" r="5"/>',
        f'<text class="quiet" x="{last + 12}" y="{y + 4}">{safe(words)}</text>',
    ]


def _cell(value: object) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _looks(history: Sequence[Plain]) -> str:
    if not history:
        return ""
    rows = [(one["as_of"], one.get("release", ""), one["verdict"], one["why"]) for one in history]
    looks = table(("at", "of", "verdict", "why"), rows[-200:])
    return f'<section class="looks"><h2>Looks, newest last</h2>{looks}</section>'
