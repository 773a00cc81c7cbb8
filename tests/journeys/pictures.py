"""The pictures of docs/story.md, drawn from what the journeys saw.

    STORY=$PWD/docs/pictures/story.json python -m pytest -m "slow or long" tests/journeys/test_story.py \
        tests/journeys/test_summer.py tests/journeys/test_year.py      # records anew, many minutes
    python -m tests.journeys.pictures                                  # draws what is recorded
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from seatrial.core.clock import parse_time
from seatrial.monitoring.pages.pictures import STYLE, Series, Whisker, line_chart, whiskers

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "pictures"
RECORD = FOLDER / "story.json"
HALF = timedelta(hours=12)


def note(name: str, facts: Any) -> None:
    """Record what the story is told from, in the file that STORY names; nothing without it."""
    if os.environ.get("STORY"):
        file = Path(os.environ["STORY"])
        kept = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(kept | {name: facts}, indent=1, sort_keys=True, default=str) + "\n")


def rounded(value: float | None) -> float | None:
    """As many digits as the story needs."""
    return None if value is None else round(value, 4)


def of_days(report: Any) -> list[list[Any]]:
    """Each day of a report: what was said, and what happened."""
    return [[one.start, rounded(one.mean_score_labelled), rounded(one.observed)] for one in report.performance.days]


def of_comparison(seen: Any) -> dict[str, Any]:
    """The daily gains of a challenger, and what they come to."""
    figures = {"gain": seen.gain, "low": seen.low, "high": seen.high}
    days = [[one.start, rounded(one.gain)] for one in seen.days]
    return {name: rounded(value) for name, value in figures.items()} | {"verdict": seen.verdict, "days": days}


def of_looks(looks: list[tuple[int, Any]]) -> list[dict[str, Any]]:
    """What an A/B test said after each day."""
    found = []
    for number, look in looks:
        labels = look.analysis.labels
        (score,) = (one for one in look.analysis.guardrails if one.name == "mean_score")
        figures = {"gain": labels.gain, "low": labels.low, "high": labels.high}
        found.append(
            {name: rounded(value) for name, value in figures.items()}
            | {"day": number, "verdict": look.analysis.verdict, "state": labels.state, "labelled": labels.labelled}
            | {"mean_score": [rounded(score.difference), rounded(score.low), rounded(score.high)]}
        )
    return found


def drawn(seen: dict[str, Any]) -> dict[str, str]:
    """The pictures by the names of their files."""
    found = {}
    week = seen["week"]
    found["story_week.svg"] = line_chart(
        [parse_time(day) + HALF for day, _, _ in week],
        [
            Series("happened", [observed for _, _, observed in week], "observed"),
            Series("was said", [predicted for _, predicted, _ in week], "predicted"),
        ],
        title="Share of flights that were late, and what the model had said, by day",
    )
    for name, challenger in (("april", "29 April"), ("july", "1 July")):
        days = seen[name]["days"]
        found[f"story_{name}.svg"] = line_chart(
            [parse_time(day) + HALF for day, _ in days],
            [Series("better by", [gain for _, gain in days], "plain")],
            title=f"How much lower the log loss of the challenger of {challenger} was on each day",
            shown="number",
            limit=(0.0, ""),
        )
    found["story_experiment.svg"] = whiskers(
        [
            Whisker(
                f"after day {one['day']}",
                one["gain"],
                (one["low"], one["high"]),
                beyond=one["verdict"] == "advance",
                note="decided" if one["verdict"] == "advance" else one["state"],
            )
            for one in seen["experiment"]
            if one["low"] is not None
        ],
        title="By how much the log loss of the challenger was lower, after each day of the A/B test",
        zero=(0.0, "no difference"),
    )
    month = seen["month"]
    first = parse_time("2013-07-10T04:00:00Z")
    found["story_stale.svg"] = line_chart(
        [first + number * 2 * HALF + HALF for number in range(len(month))],
        [
            Series("a day old", [day["stale"][0] for day in month], "observed"),
            Series("right", [day["right"][0] for day in month], "plain"),
        ],
        title="Columns that the drift report names, by day: with departures that are a day old, and with right ones",
        shown="number",
    )
    return {name: alone(figure) for name, figure in found.items()}


def alone(figure: str) -> str:
    """The picture of a page's figure as a file of its own."""
    svg = figure[figure.index("<svg") : figure.index("</svg>") + len("</svg>")]
    head = svg.index(">") + 1
    style = STYLE + "svg { background: var(--ground); }"
    return f"{svg[:head]}<style>{style}</style>{svg[head:]}\n"


def main() -> None:
    for name, svg in drawn(json.loads(RECORD.read_text())).items():
        (FOLDER / name).write_text(svg, encoding="utf-8")
        sys.stdout.write(f"{FOLDER / name}\n")


if __name__ == "__main__":
    main()
