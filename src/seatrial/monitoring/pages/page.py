"""The page: a report, or a story of several, for people who read nothing else: what happened, and what to do?

One file that holds everything it needs: no address is asked when it is opened, it prints, and it has a dark scheme.
It opens with the verdict in one sentence and what to do; the pictures show why; numbers and small print come last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from seatrial.core.clock import parse_time
from seatrial.monitoring.pages import inputs, outcome
from seatrial.monitoring.pages.pictures import (
    STYLE,
    At,
    Bar,
    Dot,
    Series,
    Shown,
    Span,
    bars,
    calibration_curve,
    columns,
    line_chart,
    part,
    safe,
    span_text,
    table,
    value_text,
)
from seatrial.monitoring.report import AlarmResult, ColumnDrift, Day, Mark, Report
from seatrial.monitoring.watched import NOT_WATCHED

DAY = timedelta(days=1)
FEW = 30
"""Labels of a day, or rows of a bin, below which its mean is drawn as an empty dot."""
MOST_POINTS = 400
MOST_COLUMNS = 300
LOUD = ("alert", "rollback")

VERDICTS = {
    "act": ("!", "Act", "harm is shown, or the data are broken"),
    "watch": ("~", "Watch", "something moved, no harm is shown"),
    "unknown": ("?", "Not known yet", "too little to say"),
    "ok": ("✓", "All is well", "nothing was found"),
}
METRIC_WORDS = {
    "roc_auc": "how well it ranks (ROC AUC, 0.5 is a coin)",
    "log_loss": "how wrong its probabilities are (log loss, lower is better)",
    "brier": "squared error of its probabilities (Brier, lower is better)",
    "avg_precision": "precision over all thresholds (average precision)",
    "average_precision": "precision over all thresholds (average precision)",
    "expected_calibration_error": "how far off its level is (calibration error, lower is better)",
    "accuracy": "share of right answers (accuracy)",
    "precision": "of those it called positive, how many were (precision)",
    "recall": "of the positives, how many it called (recall)",
    "f1": "precision and recall in one number (F1)",
    "rmse": "typical error, large ones count more (RMSE, lower is better)",
    "mae": "mean error (MAE, lower is better)",
    "r2": "share of the variation it explains (R²)",
}
OF_SEVERAL = {
    "roc_auc": "how well it tells each class from the others, mean over classes (ROC AUC, 0.5 is a coin)",
    "precision": "of those it called a class, how many were, mean over classes (precision)",
    "recall": "of those of a class, how many it called so, mean over classes (recall)",
    "f1": "precision and recall in one number, mean over classes (F1)",
}
"""Of several classes these metrics mean something else."""
HISTORY = ("log_loss", "rmse", "roc_auc", "mae")

PAGE_STYLE = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Liberation Sans", sans-serif; overflow-wrap: break-word; }
td:first-child { min-width: 6rem; }
main { max-width: 52rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.55rem; line-height: 1.3; margin: .3rem 0 .8rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .2rem; padding-top: 1.1rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.4rem 0 .2rem; }
p { margin: .3rem 0 .6rem; max-width: 46rem; }
.kicker, .small { color: var(--quiet); font-size: .9rem; }
.verdict { border-left: 6px solid var(--tone); background: var(--raised); padding: 1.1rem 1.3rem;
  border-radius: 0 8px 8px 0; }
.verdict .word { color: var(--tone); font-weight: 700; }
.verdict .sign { display: inline-block; width: 1.5rem; height: 1.5rem; line-height: 1.5rem; text-align: center;
  border-radius: 50%; background: var(--tone); color: var(--ground); margin-right: .5rem; font-weight: 700; }
.act { --tone: var(--red); } .watch, .unknown { --tone: var(--blue); } .ok { --tone: var(--green); }
.next { font-weight: 600; margin: 0; }
.people { margin: .7rem 0 0; }
dl.figures { display: grid; grid-template-columns: repeat(3, 1fr);
  gap: .7rem; margin: 1.2rem 0 0; }
dl.figures div { background: var(--raised); border-radius: 8px; padding: .7rem .9rem; }
dl.figures dt { color: var(--quiet); font-size: .85rem; }
dl.figures dd { margin: 0; font-size: 1.35rem; font-weight: 650; font-variant-numeric: tabular-nums; }
dl.figures dd span { display: block; font-size: .85rem; font-weight: 400; color: var(--quiet); }
ul { padding-left: 1.2rem; margin: .3rem 0 .8rem; } li { margin: .2rem 0; }
.part { border-top: 1px solid var(--rule); padding: .9rem 0 .2rem; margin: 0; font-size: 1rem; }
.part > summary { color: var(--ink); list-style: none; display: grid; grid-template-columns: 1.3rem 1fr; }
.part > summary::-webkit-details-marker { display: none; }
.part > summary::before { content: "›"; color: var(--quiet); font-size: 1.3rem; line-height: 1.5rem;
  transition: transform .1s; }
.part[open] > summary::before { transform: rotate(90deg); transform-origin: .3rem .85rem; }
.part h2 { border: 0; margin: 0; padding: 0; font-size: 1.12rem; }
.part > summary .told { grid-column: 2; } div.part { padding-left: 1.3rem; }
.told { display: block; color: var(--quiet); max-width: 46rem; } .told.loud { color: var(--red); font-weight: 600; }
.part > :not(summary) { margin-left: 1.3rem; } div.part > * { margin-left: 0; }
.part + .part { margin-top: .5rem; } .verdict + dl + .part { margin-top: 2rem; }
.blind { border-left: 4px solid var(--red); padding-left: .8rem; font-weight: 600; }
.chapter { border-left: 3px solid var(--rule); padding-left: 1.2rem; margin-top: 2rem; }
.chapter h2 { border: 0; padding: 0; margin: 0 0 .3rem; }
.chapter .when { color: var(--quiet); font-size: .9rem; font-weight: 600; }
.chapter.loud { border-left-color: var(--red); } .chapter.good { border-left-color: var(--green); }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--rule); color: var(--quiet);
  font-size: .85rem; }
code { font: .9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@media (max-width: 40rem) { dl.figures { grid-template-columns: repeat(2, 1fr); } }
@media print { figure svg { min-width: 0 !important; }
  main { max-width: none; padding: 0; }
  .verdict, dl.figures div { border: 1px solid var(--rule); }
  figure, .chapter h2, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  details:not([open]):not(.part) { display: none; } }
"""


@dataclass(frozen=True)
class Chapter:
    """One step of a story. when: as it should be read. words: a paragraph each. pictures: from `pages.pictures`,
    or from the functions below. tone: how it stands out."""

    heading: str
    words: Sequence[str] = ()
    pictures: Sequence[str] = field(default=(), repr=False)
    when: str = ""
    tone: str = ""


def html(report: Report) -> str:
    """The report as one page."""
    _, word, _ = VERDICTS[report.verdict]
    known = "" if report.window.endswith(report.as_of) else f" · with what was known on {_moment(report.as_of)}"
    body = [
        f'<p class="kicker">Model <strong>{safe(report.model)}</strong> · '
        f"{safe(_span_words(report.window))}{safe(known)}</p>",
        _verdict(report),
        _figures(report),
        _findings(report),
        _performance(report),
        outcome.section(report),
        _drift(report),
        inputs.what_moved(report),
        _quality(report),
        inputs.unusual(report),
        inputs.replayed(report),
        _alarms(report),
        _history(report),
        _system(report),
        _small_print(report),
    ]
    return document(f"{report.model}: {word}", "".join(body))


def story(title: str, lead: Sequence[str], chapters: Sequence[Chapter], *, foot: str = "") -> str:
    """Several reports and the decisions between them as one page. lead: paragraphs that tell the whole in short."""
    body = [f"<h1>{safe(title)}</h1>", *(f"<p>{safe(words, 2000)}</p>" for words in lead)]
    for one in chapters:
        when = f'<p class="when">{safe(one.when)}</p>' if one.when else ""
        words = "".join(f"<p>{safe(text, 2000)}</p>" for text in one.words)
        tone = f" {one.tone}" if one.tone in ("loud", "good") else ""
        body.append(
            f'<section class="chapter{tone}">{when}<h2>{safe(one.heading)}</h2>{words}{"".join(one.pictures)}</section>'
        )
    if foot:
        body.append(f"<footer>{safe(foot, 2000)}</footer>")
    return document(title, "".join(body))


def document(title: str, body: str) -> str:
    """A whole page around mark-up that is already safe."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{safe(title)}</title><style>{STYLE}{PAGE_STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


# Pictures of reports, also for stories


def days_picture(
    days: Sequence[Day],
    *,
    shown: Shown = "share",
    marks: Sequence[Mark] = (),
    spans: Sequence[Span] = (),
    title: str = "Predicted and observed, day by day",
    caption: str = "",
) -> str:
    """What was predicted and what happened, by day, of rows whose label is known."""
    times = [one.middle for one in days]
    predicted = [one.mean_score if not one.labelled else one.mean_score_labelled for one in days]
    series = [
        Series("observed", [one.observed for one in days], "observed", [one.labelled < FEW for one in days]),
        Series("predicted", predicted, "predicted"),
    ]
    return line_chart(times, series, title=title, caption=caption, shown=shown, marks=as_marks(marks), spans=spans)


def calibration_picture(report: Report, *, caption: str = "") -> str:
    """What happened where how much was predicted."""
    dots = [Dot(one.mean_score, one.observed, one.rows) for one in report.performance.bins]
    title = "Observed against predicted"
    return calibration_curve(dots, title=title, caption=caption, shown=_shown(report), few=FEW)


def drift_picture(report: Report, *, most: int = 20, caption: str = "") -> str:
    """How far each input has moved from the reference, beside what ordinary weeks differ by."""
    found = [_drift_bar(one) for one in report.drift.columns[:MOST_COLUMNS]]
    if report.drift.prediction is not None:
        found.insert(0, _drift_bar(report.drift.prediction, name="the predictions"))
    return bars(found, title="How far the inputs moved", caption=caption, most=most)


def labels_picture(report: Report, *, caption: str = "") -> str:
    """How many of each day's labels have arrived."""
    days = report.performance.days
    return columns(
        [one.middle for one in days],
        [one.rows for one in days],
        [one.labelled for one in days],
        title="Labels that have arrived",
        names=("predictions", "label known"),
        caption=caption,
    )


def history_picture(reports: Sequence[tuple[str, dict[str, float | None]]], metric: str, marks: Sequence[Mark]) -> str:
    """A metric over several reports. reports: end of window (ISO) and numbers by name, oldest first."""
    times = [parse_time(at) for at, _ in reports]
    words = "mean prediction minus mean label" if metric == "gap" else METRIC_WORDS.get(metric, metric)
    return line_chart(
        times,
        [Series(metric.replace("_", " "), [numbers.get(metric) for _, numbers in reports])],
        title=f"{metric.replace('_', ' ')} over time",
        caption=f"{words[0].upper()}{words[1:]}. Each point is one report, at the end of its window.",
        shown="number",
        marks=as_marks(marks),
        step=_step(times),
    )


def as_marks(marks: Sequence[Mark]) -> list[At]:
    """What happened, for pictures; alerts and roll-backs stand out."""
    return [At(parse_time(one.at), f"{one.kind}: {one.words}", one.kind in LOUD) for one in marks]


# The parts of a report


def _verdict(report: Report) -> str:
    sign, word, meaning = VERDICTS[report.verdict]
    people = [
        f"{name} {safe(value)}"
        for name, value in (("Owner:", report.owner), ("On call:", report.on_call), ("Runbook:", report.runbook))
        if value
    ]
    return (
        f'<section class="verdict {report.verdict}"><span class="sign" aria-hidden="true">{sign}</span>'
        f'<span class="word">{word}</span> <span class="small">({meaning})</span>'
        f'<h1>{safe(report.headline, 1000)}</h1><p class="next">What to do: {safe(report.next, 1000)}</p>'
        + (f'<p class="people small">{" · ".join(people)}</p>' if people else "")
        + "</section>"
    )


def _figures(report: Report) -> str:
    one = report.performance
    moved = sum(column.drifted for column in report.drift.columns)
    share = one.labelled / one.rows if one.rows else None
    cards = [
        ("Predictions", f"{report.rows:,}", f"in {_length(report.window)}"),
        ("Labels known", value_text(share, "share"), f"{one.labelled:,} of {one.rows:,}"),
        *_levels(report),
    ]
    if report.drift.columns:
        cards.append(("Inputs that moved", f"{moved} of {len(report.drift.columns)}", "further than weeks differ"))
    failed = sum(not check.passed for check in report.quality)
    if report.quality:
        cards.append(
            ("Checks of the data", "all passed" if not failed else f"{failed} failed", f"of {len(report.quality)}")
        )
    inner = "".join(
        f"<div><dt>{safe(name)}</dt><dd>{safe(value)}<span>{safe(note)}</span></dd></div>"
        for name, value, note in cards
    )
    return f'<dl class="figures">{inner}</dl>'


def _levels(report: Report) -> list[tuple[str, str, str]]:
    """What was said and what happened; of several classes, how sure the model was and how often it was right."""
    one, shown = report.performance, _shown(report)
    said, happened = value_text(one.mean_score, shown), value_text(one.observed, shown)
    if report.task == "multiclass":
        sure = "mean probability of the class that it said, where the label is known"
        return [("How sure it was", said, sure), ("How often it was right", happened, "share of the labels: accuracy")]
    return [
        ("The model said", said, "mean prediction, where the label is known"),
        ("What happened", happened, "mean of the labels"),
    ]


def _findings(report: Report) -> str:
    if not report.findings:
        return ""
    found = "".join(f"<li>{safe(text, 600)}</li>" for text in report.findings[:20])
    more = f"<li>{len(report.findings) - 20} more</li>" if len(report.findings) > 20 else ""
    return f"<h2>What was found</h2><ul>{found}{more}</ul>"


def _performance(report: Report) -> str:
    one, shown = report.performance, _shown(report)
    heading, parts = "Was the model right?", []
    if not one.rows:
        return part(heading, "There are no predictions in this window.", "")
    if not one.labelled:
        told = f"Nobody knows yet: {one.note or 'no label has arrived'}. Only what it said is drawn."
    else:
        told = _level_sentence(report)
        if one.note:
            parts.append(f"<p>{safe(one.note[0].upper() + one.note[1:], 600)}.</p>")
    lines = "Dashed: how sure the model was. Solid: how often it was right."
    if report.task != "multiclass":
        lines = "Dashed: what the model said. Solid: what happened."
    caption = (
        f"{lines} The shaded area between them is how far it was off. Empty dots are days with fewer than {FEW} labels."
    )
    if any(day.partial for day in one.days):
        caption += " The first and last of the days may be there in part only: the window begins or ends within them."
    parts.append(days_picture(one.days, shown=shown, marks=report.marks, caption=caption))
    if one.bins and report.calibration is None:
        parts.append("<h3>Can its numbers be taken at their word?</h3>")
        words = (
            "Predictions of one size are put together, and compared with what became of them. On the dashed line what "
            "was said is what happened. Larger dots hold more predictions."
        )
        parts.append(calibration_picture(report, caption=words))
    parts.append("<h3>How much of the truth has arrived?</h3>")
    parts.append(f"<p>{safe(_labels_sentence(report))}</p>")
    parts.append(labels_picture(report))
    parts.append(_metrics(report))
    return part(heading, told, "".join(parts), open=True)


def _level_sentence(report: Report) -> str:
    one, shown = report.performance, _shown(report)
    worse = [day for day in one.days if day.observed is not None and day.mean_score_labelled is not None]
    if one.mean_score is None or one.observed is None:
        return "The labels do not give a level."
    above = sum((day.observed or 0) > (day.mean_score_labelled or 0) for day in worse)
    if report.task == "multiclass":
        sure, right = value_text(one.mean_score, shown), value_text(one.observed, shown)
        return f"It gave the class that it said {sure} on average, and was right {right} of the time."
    level = f"On average it said {value_text(one.mean_score, shown)}, and {value_text(one.observed, shown)} happened"
    if len(worse) < 2:
        return f"{level}."
    more, count = ("more", above) if above * 2 >= len(worse) else ("less", len(worse) - above)
    return f"{level}. On {count} of {len(worse)} days {more} happened than it said."


def _labels_sentence(report: Report) -> str:
    one = report.performance
    share = value_text(one.labelled / one.rows, "share")
    words = [f"{share} of this window's labels have arrived: {one.labelled:,} of {one.rows:,}."]
    told = {
        "late": "became known only after the window's end",
        "unmatched": "belong to no known prediction",
        "duplicate": "were told again",
        "contradicting": "say otherwise than the one that counts",
        "before": "were known before their prediction, and do not count",
    }
    words += [f"{one.labels[name]:,} {meaning}." for name, meaning in told.items() if one.labels.get(name)]
    return " ".join(words)


def _metrics(report: Report) -> str:
    one = report.performance
    if all(value is None for value in one.metrics.values()):
        return ""
    several = report.task == "multiclass"
    meaning = METRIC_WORDS | OF_SEVERAL if several else METRIC_WORDS
    rows = [
        (
            meaning.get(name, name.replace("_", " ")),
            value_text(value, "number"),
            span_text(one.intervals.get(name), "number"),
            value_text(one.constant.get(name), "number"),
            value_text(one.training.get(name), "number"),
        )
        for name, value in one.metrics.items()
    ]
    always = "always saying the classes' shares" if several else "always saying the mean"
    head = ("", "now", "between", always, "when it was tested")
    kept = [0, 1, *([2] if any(row[2] != "–" for row in rows) else []), 3, *([4] if one.training else [])]
    narrow = ", which are few: they are too narrow" if one.few_blocks else ""
    drawn = f'<p class="small">Intervals of 95 % draw {safe(one.blocks)}{narrow}.</p>' if one.blocks else ""
    figures = table([head[i] for i in kept], [[row[i] for i in kept] for row in rows], numbers=(1, 2, 3, 4))
    return f"<h3>The figures behind it</h3>{figures}{drawn}"


def _drift(report: Report) -> str:
    found = report.drift
    heading, parts = "Did the inputs move?", []
    if not found.columns and found.prediction is None:
        return part(heading, f"{found.note or 'Nothing was compared'}.", "")
    moved = [one.name for one in found.columns if one.drifted]
    if moved:
        words = f"{len(moved)} of {len(found.columns)} inputs moved: {', '.join(moved[:5])}"
        words += f" and {len(moved) - 5} more." if len(moved) > 5 else "."
        known = sum(one.drifted and bool(one.before) for one in found.columns)
        if known == len(moved):
            words += " All of that had moved before this window already: it is no news."
        elif known:
            words += f" {known} of them had moved before this window already."
    elif all(one.value is None for one in found.columns):
        words = "They could not be compared."
    else:
        words = f"None of {len(found.columns)} inputs moved further than ordinary weeks differ."
    if found.note:
        parts.append(f"<p>{safe(found.note, 600)}</p>")
    caption = (
        "Each bar is the distance between this window and the reference"
        f"{f' ({found.reference})' if found.reference else ''}: 0 is the same, 1 has nothing in common. The black tick "
        "is the distance that counts as nothing. Hatched bars lie beyond it, and not by chance."
    )
    parts.append(drift_picture(report, caption=caption))
    rows = [
        (
            one.name,
            f"{one.distance} {value_text(one.value, 'number')}",
            value_text(one.tolerated, "number"),
            f"{value_text(one.reference_missing, 'share')} → {value_text(one.missing, 'share')}",
            value_text(one.unseen, "share"),
            f"{value_text(one.reference_mean, 'number')} → {value_text(one.mean, 'number')}"
            if one.mean is not None
            else "–",
            f"{one.rows:,}",
        )
        for one in found.columns[:MOST_COLUMNS]
    ]
    head = ("input", "distance", "tolerated", "missing", "never seen before", "mean", "rows")
    left = len(found.columns) - MOST_COLUMNS
    more = f"<p>{left:,} more columns, none of which moved further, are in the report as JSON.</p>" if left > 0 else ""
    parts.append(f"<details><summary>Every input in numbers</summary>{table(head, rows, numbers=(6,))}{more}</details>")
    return part(heading, words, "".join(parts), open=bool(moved))


def _quality(report: Report) -> str:
    heading, parts = "Are the data sound?", []
    failed = [one for one in report.quality if not one.passed]
    passed = [one for one in report.quality if one.passed]
    if not report.quality:
        return part(heading, "Nothing was checked: there is no reference to check against.", "")
    told = f"All {len(passed)} checks passed."
    if failed:
        told = f"{len(failed)} of {len(report.quality)} checks failed."
        parts.append(
            table(
                ("check", "column", "found", "expected"),
                [(f"✗ {one.name}", one.column, one.found, one.expected) for one in failed[:MOST_COLUMNS]],
            )
        )
    if passed:
        rows = [(f"✓ {one.name}", one.column, one.found, one.expected) for one in passed[:MOST_COLUMNS]]
        inner = table(("check", "column", "found", "expected"), rows)
        parts.append(f"<details><summary>What passed</summary>{inner}</details>" if failed else inner)
    return part(heading, told, "".join(parts), loud=bool(failed))


def _alarms(report: Report) -> str:
    if not report.alarms:
        return part("Alarms", "None is declared.", "")
    rows = [(_state(one), one.name, _evidence(one), one.severity, one.action) for one in report.alarms]
    head = ("", "alarm", "evidence", "severity", "what to do")
    fired = sum(one.state == "fired" for one in report.alarms)
    unjudged = sum(one.state == "not_enough_data" for one in report.alarms)
    told = f"{fired or 'None'} of {len(report.alarms)} fired" + (
        f", {unjudged} could not be judged." if unjudged else "."
    )
    return part("Alarms", told, table(head, rows), loud=bool(fired))


def _state(alarm: AlarmResult) -> str:
    if alarm.note.startswith(NOT_WATCHED):
        return "? not watched"
    return {"fired": "! fired", "quiet": "✓ quiet", "not_enough_data": "? not judged"}[alarm.state]


def _evidence(alarm: AlarmResult) -> str:
    return alarm.evidence or alarm.note


def _history(report: Report) -> str:
    now = report.performance
    end = report.window.partition("/")[2]
    found = {one.at: one.metrics for one in report.history if one.at <= end}  # of several at one instant the newest
    if now.rows:
        found[end] = {**now.metrics, "gap": now.gap, "mean_score": now.mean_score, "observed": now.observed}
    reports = sorted(found.items(), key=lambda one: one[0])[-MOST_POINTS:]
    if len(reports) < 2:
        return ""
    parts = []
    times = [parse_time(at) for at, _ in reports]
    parts.append(
        line_chart(
            times,
            [
                Series("observed", [numbers.get("observed") for _, numbers in reports], "observed"),
                Series("predicted", [numbers.get("mean_score") for _, numbers in reports], "predicted"),
            ],
            title="Predicted and observed, report by report",
            caption=f"The last {len(reports)} reports, each at the end of its window ({_length(report.window)} now).",
            shown=_shown(report),
            marks=as_marks(report.marks),
            step=_step(times),
        )
    )
    metric = next((name for name in HISTORY if sum(n.get(name) is not None for _, n in reports) > 1), None)
    if metric:
        parts.append(history_picture(reports, metric, report.marks))
    return part("How did it come to this?", f"The last {len(reports)} reports.", "".join(parts))


def _system(report: Report) -> str:
    one = report.system
    rows = [
        ("half of the answers within", _ms(one.p50_ms)),
        ("95 of 100 within", _ms(one.p95_ms)),
        ("99 of 100 within", _ms(one.p99_ms)),
        ("answered with something missing", value_text(one.degraded, "share")),
        ("requests that failed", value_text(one.error_rate, "share")),
        *_promises(report),
        ("the server took, for all of its deployments", one.resources.words if one.resources else "–"),
    ]
    rows = [row for row in rows if row[1] != "–"]
    note = f'<p class="small">{safe(one.note[0].upper() + one.note[1:], 600)}.</p>' if one.note else ""
    told = "; ".join(one.broken) or ", ".join(f"{name} {value}" for name, value in rows[1:2] + rows[3:5])
    body = (table(("", ""), rows, numbers=(1,)) if rows else "") + note
    words = f"{told[:1].upper()}{told[1:]}." if told else ""
    return part("How did the service do?", words, body, loud=bool(one.broken))


def _promises(report: Report) -> list[tuple[str, str]]:
    """What was promised, beside what was kept."""
    one = report.system
    if one.promised is None:
        return []
    available, share, within = one.promised
    rows = []
    if one.availability is not None:
        rows.append((f"requests that were answered ({available:.4g} promised)", f"{one.availability:.5g}"))
    if one.prompt is not None:
        rows.append((f"answers within {within:g} ms ({share:.4g} promised)", f"{one.prompt:.5g}"))
    return rows


def _small_print(report: Report) -> str:
    served = ", ".join(f"{name} ({count:,})" for name, count in list(report.releases.items())[:10])
    lines = [
        f"Window {report.window}, start included, end not. As of {report.as_of}: labels known later do not count.",
        "A day is 24 hours from the window's start.",
        f"Answered by: {served}." if served else "",
        f"Report {report.id}." if report.id else "",
    ]
    return "<footer>" + "".join(f"<p>{safe(line, 1000)}</p>" for line in lines if line) + "</footer>"


def _drift_bar(one: ColumnDrift, *, name: str = "") -> Bar:
    moved = "had moved before" if one.before else "moved"
    note = moved if one.drifted else ("" if one.value is not None else one.note)
    return Bar(name or one.name, one.value, one.tolerated, one.drifted, note)


# Words


def _shown(report: Report) -> Shown:
    return "number" if report.task == "regression" else "share"


def _step(times: Sequence[datetime]) -> timedelta:
    """What one point stands for: the usual distance between two."""
    apart = sorted(b - a for a, b in pairwise(times) if b > a)
    return apart[len(apart) // 2] if apart else DAY


def _window(text: str) -> tuple[datetime, datetime]:
    start, _, end = text.partition("/")
    return parse_time(start), parse_time(end)


def _span_words(window: str) -> str:
    start, _, end = window.partition("/")
    return f"{_moment(start)} to {_moment(end)}"


def _length(window: str) -> str:
    start, end = _window(window)
    days, rest = divmod(end - start, DAY)
    if days and not rest:
        return f"{days} day{'s' if days > 1 else ''}"
    hours = (end - start) / timedelta(hours=1)
    return f"{hours:.3g} hours"


def _moment(text: str) -> str:
    time = parse_time(text)
    clock = "" if (time.hour, time.minute) == (0, 0) else f" {time:%H:%M} UTC"
    return f"{time.day} {_MONTHS[time.month - 1]} {time.year}{clock}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.3g} ms" if value < 1000 else f"{value / 1000:,.3g} s"


_MONTHS = "January February March April May June July August September October November December".split()
