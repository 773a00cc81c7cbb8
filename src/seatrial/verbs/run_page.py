"""The pages of runs: one training, or two beside each other, for people who were not there.

One file that holds everything it needs, in the style of the reports: the verdict first, then the evidence, then where
it all came from. Light and dark, and it prints.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from seatrial.core.clock import from_us, parse_time
from seatrial.monitoring.pages.page import METRIC_WORDS, document
from seatrial.monitoring.pages.pictures import Bar, Dot, bars, calibration_curve, safe, table, value_text
from seatrial.stats.metrics import MAIN
from seatrial.training.differences import Difference
from seatrial.verbs.runs import Compared, MetricChange, gate_words, in_metric_order, interval, lets_pass, trained_at

WIDTH, LEFT, RIGHT, ROW = 760, 196, 600, 40
CURVE = 56
MOST_INPUTS = 20
MOST_TRIALS, FEW_TRIALS = 200, 12
STYLE = """<style>
.ticks { list-style: none; padding: 0; }
.ticks li { display: grid; grid-template-columns: 1.9rem 1fr; margin: .45rem 0; }
.ticks b { color: var(--green); font-size: 1.05rem; } .ticks .no b { color: var(--red); }
.ticks span { display: block; color: var(--quiet); font-size: .92rem; }
dl.where { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .25rem 1.4rem; margin: .8rem 0; }
dl.where dt { color: var(--quiet); } dl.where dd { margin: 0; overflow-wrap: anywhere; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; margin: 1.2rem 0; }
.two div { background: var(--raised); border-radius: 8px; padding: .8rem 1rem; border-top: 4px solid var(--quiet); }
.two div + div { border-top-color: var(--blue); } .two h3 { margin: 0 0 .2rem; } .two p { margin: .1rem 0; }
.changed { border-left: 3px solid var(--rule); padding-left: 1rem; margin: .8rem 0; }
.changed ins, .changed del { text-decoration: none; padding: 0 .3rem; border-radius: 4px; overflow-wrap: anywhere; }
.changed del { background: var(--band); color: var(--quiet); } .changed ins { background: var(--gap); }
.changed ul { color: var(--quiet); font-size: .92rem; }
svg .range { stroke: var(--quiet); stroke-width: 5; stroke-linecap: round; opacity: .35; }
svg .range.b { stroke: var(--blue); } svg .was { fill: var(--quiet); } svg .is { fill: var(--blue); }
svg .is.worse { fill: var(--red); } svg .fold { fill: none; stroke: var(--blue); stroke-width: 1.5; opacity: .8; }
svg .guess { stroke: var(--ink); stroke-width: 2.5; } svg .part { fill: var(--blue); }
svg .part.test { fill: var(--red); }
svg .part.left { fill: var(--rule); } svg .joins { stroke: var(--quiet); stroke-width: 1.5; }
svg .curve { fill: none; stroke: var(--blue); stroke-width: 2; }
svg .so-far { fill: none; stroke: var(--blue); stroke-width: 1.5; opacity: .6; }
svg text.light { fill: var(--ground); font-weight: 650; }
svg.fit { min-width: 38rem; }
@media (max-width: 40rem) { .two { grid-template-columns: 1fr; }
  svg.fit { min-width: 0; } svg.fit text { font-size: 19px; } svg.fit text.more { display: none; } }
</style>"""


def html(run: Mapping[str, Any], *, version: int | None, reproduced: Sequence[Mapping[str, Any]] = ()) -> str:
    """One run as a page. run: as `Project.run_show` tells it. reproduced: what came of training it again."""
    if run.get("state", "finished") == "failed":
        return _failed(run)
    if "series" in run:
        return _tracked(run)
    words, tone, sign = _verdict(run, version)
    rows = run["split"]["train"]["rows"] + run["split"]["test"]["rows"]
    main = MAIN.get(run["task"], "roc_auc")
    value, spread = run["metrics"].get(main), ((run.get("cv") or {}).get("std") or {}).get(main)
    figures = [
        (
            _name(main),
            _number(value),
            f"± {_number(spread)} over the folds" if spread is not None else "on the test part",
        ),
        ("rows", f"{rows:,}", f"{run['split']['test']['rows']:,} of them held back for the test"),
        ("inputs", f"{len(run['inputs'])}", f"by {run['definition']['estimator'].rpartition('.')[2]}"),
    ]
    boxes = "".join(f"<div><dt>{safe(a)}</dt><dd>{safe(b)}<span>{safe(c)}</span></dd></div>" for a, b, c in figures)
    body = [
        STYLE,
        f'<p class="kicker">Model <strong>{safe(run["model"])}</strong> · {safe(_moment(trained_at(run["id"])))}</p>',
        f'<div class="verdict {tone}"><h1><span class="sign">{sign}</span>{safe(words)}</h1>',
        f"{_next(run, version)}</div>",
        f'<dl class="figures">{boxes}</dl>',
        "" if "logged" in run else _gates(run),
        _metrics(run),
        _decisions(run),
        _calibration(run),
        _slices(run),
        _importance(run),
        _tuning(run),
        _split(run),
        _where(run, reproduced),
        _settings(run),
        f"<footer>{safe(run['id'])} · times in UTC</footer>",
    ]
    return document(f"{run['model']}: {words}", "".join(body))


def _failed(run: Mapping[str, Any]) -> str:
    error = run["error"]
    body = [
        STYLE,
        f'<p class="kicker">Model <strong>{safe(run["model"])}</strong> · {safe(_moment(trained_at(run["id"])))}</p>',
        '<div class="verdict act"><h1><span class="sign">✗</span>',
        f"It failed at: {safe(error['stage'] or 'the start')}</h1>",
        f"<p>{safe(error['found'], 1000)}</p><p>{safe(error['expected'])}</p>",
        f'<p class="next">{safe(error["next"])}</p></div>',
        _series(run) if run.get("series") else "",
        f"<footer>{safe(run['id'])} · <code>{safe(error['code'])}</code> · times in UTC</footer>",
    ]
    return document(f"{run['model']}: a training that failed", "".join(body))


def _tracked(run: Mapping[str, Any]) -> str:
    """A run of which only numbers, words and files were kept."""
    took = (run["ended_us"] - run["begun_us"]) / 1e6
    facts = {
        **run["definition"]["params"],
        **run["tags"],
        "files": ", ".join(run["files"]),
        **_made_in(run),
        "took": f"{value_text(took, 'number')} s",
    }
    body = [
        STYLE,
        f'<p class="kicker">Run <strong>{safe(run["model"])}</strong> · {safe(_moment(trained_at(run["id"])))}</p>',
        '<div class="verdict watch"><h1><span class="sign">~</span>Numbers that were logged; there is no model in it',
        "</h1></div>",
        _series(run),
        f"<h2>What was told with them</h2>{_facts(facts.items())}",
        f"<footer>{safe(run['id'])} · times in UTC</footer>",
    ]
    return document(f"{run['model']}: a run that was logged", "".join(body))


def _series(run: Mapping[str, Any]) -> str:
    """Each metric that was logged: its last value, and a line where there are several."""
    if not run["series"]:
        return "<h2>Metrics</h2><p>None was logged.</p>"
    drawn: list[str] = []
    for name, series in run["series"].items():
        points = [
            (float(step), float(value)) for step, value in series if value is not None and math.isfinite(float(value))
        ]
        if len(points) > 1:
            drawn += _curve(name, points, 12.0 + CURVE * (len(drawn) // 4))
    rows = [(_name(name), _last(series[-1][1]), f"{len(series):,}") for name, series in run["series"].items()]
    numbers = table(("metric", "last", "values"), rows, numbers=[1, 2])
    if not drawn:
        return f"<h2>Metrics</h2>{numbers}"
    caption = "Each metric over its steps, on a scale of its own; at the right the last value."
    lines = _figure("Metrics over their steps", 12 + CURVE * (len(drawn) // 4), drawn, caption)
    return f"<h2>Metrics</h2>{lines}{numbers}"


def _curve(name: str, points: Sequence[tuple[float, float]], top: float) -> list[str]:
    """Four parts of a drawing: a name, a line through the points, the last point and its value."""
    across = _scale([step for step, _ in points])
    values = [value for _, value in points]
    low, high = min(values), max(values)
    room = CURVE - 16
    y = [top + room * (0.5 if high == low else (high - value) / (high - low)) for value in values]
    places = " ".join(f"{across(step):.1f},{at:.1f}" for (step, _), at in zip(points, y, strict=True))
    last = across(points[-1][0])
    return [
        _label(name, top + room / 2),
        f'<polyline class="curve" points="{places}"><title>{_number(low)} to {_number(high)}</title></polyline>',
        _circle(last, y[-1], 4, "is", f"{name} last: {_number(values[-1])}"),
        f'<text class="strong" x="{RIGHT + 18}" y="{y[-1] + 4.5:.1f}">{safe(_number(values[-1]))}</text>',
    ]


def _last(value: Any) -> str:
    """A logged value: of what is no number its name."""
    return _number(value) if isinstance(value, int | float) and math.isfinite(value) else str(value)


def compared_html(found: Compared) -> str:
    """Two runs as a page: how the metrics moved, the gates, and what was different."""
    worse = [one.metric for one in found.metrics if one.notable and one.better is False]
    better = [one.metric for one in found.metrics if one.notable and one.better]
    refused = [one for one in found.gates if one.b is False]
    moved = [words for words, names in (("better", better), ("worse", worse)) if names]
    if refused:
        headline, tone, sign = f"{_gates_words(len(refused))} said no", "act", "✗"
    elif worse:
        headline, tone, sign = f"It passes its gates, and is {' and '.join(moved)}", "watch", "~"
    else:
        headline = f"It passes its gates, and is {'better' if better else 'as good, as far as chance lets one see'}"
        tone, sign = "ok", "✓"
    sides = "".join(
        f"<div><h3>{title}</h3><p><code>{safe(one.run[:17])}</code></p>"
        f"<p>{safe(_moment(one.trained_at))}{f', version {one.version}' if one.version is not None else ''}"
        f"{f', a sample of {one.sample:,} rows' if one.sample is not None else ''}</p>"
        f"<p class='small'>{_commit(one.commit, one.dirty)} · {one.rows:,} rows, {one.test_rows:,} to test</p></div>"
        for title, one in (
            (f"Base{f', newest on {safe(found.base)}' if found.base else ''}", found.a),
            ("This", found.b),
        )
    )
    body = [
        STYLE,
        f'<p class="kicker">Model <strong>{safe(found.model)}</strong> · two trainings</p>',
        f'<div class="verdict {tone}"><h1><span class="sign">{sign}</span>{safe(headline)}</h1>'
        f"<p>{safe(_because(found))}</p></div>",
        f'<section class="two">{sides}</section>',
        "<h2>How the metrics moved</h2>",
        _moves(found.metrics),
        _gate_changes(found),
        _differences(found.differences),
        _weights(found),
        "<footer>Times in UTC</footer>",
    ]
    return document(f"{found.model}: two trainings", "".join(body))


# One run


def _verdict(run: Mapping[str, Any], version: int | None) -> tuple[str, str, str]:
    if "logged" in run:
        commit, became = run["logged"]["commit"], f" and became version {version}" if version is not None else ""
        if commit:
            return f"A fit that was logged from commit {commit[:12]}{became}", "ok", "✓"
        return f"A fit that was logged, and that nobody can make again: {run['logged']['why']}", "watch", "~"
    refused = [gate for gate in run["gates"] if not lets_pass(gate)]
    if "sample" in run:
        return f"A sample of {run['sample']['rows']:,} rows: it trains, and decides nothing", "watch", "~"
    if refused:
        return f"{len(refused)} of {_gates_words(len(run['gates']))} said no, so it became no version", "act", "✗"
    several = "its gate" if len(run["gates"]) == 1 else f"all of its {len(run['gates'])} gates"
    gates = f"It passed {several}" if run["gates"] else "It has no gates"
    became = f" and became version {version}" if version is not None else ""
    return f"{gates}{became}", "ok" if run["gates"] else "watch", "✓" if run["gates"] else "~"


def _gates_words(count: int) -> str:
    return "1 gate" if count == 1 else f"{count} gates"


def _next(run: Mapping[str, Any], version: int | None) -> str:
    refused = [gate for gate in run["gates"] if not lets_pass(gate)]
    if "sample" in run:
        return f'<p class="next">Next: <code>seatrial train {safe(run["model"])}</code></p>'
    if refused:
        return f'<p class="next">{safe(refused[0]["reason"])}.</p>'
    if version is not None:
        return f'<p class="next">Next: <code>seatrial release {safe(run["model"])}:{version}</code></p>'
    if run.get("logged", {}).get("commit"):
        return f'<p class="next">Next: <code>seatrial release {safe(run["id"])}</code></p>'
    return ""


def _gates(run: Mapping[str, Any]) -> str:
    if not run["gates"]:
        return "<h2>Gates</h2><p>The model declares none, so nothing was asked of it.</p>"
    rows = "".join(
        f'<li class="{"yes" if lets_pass(gate) else "no"}">'
        f"<b>{'✓' if gate['passed'] else '~' if lets_pass(gate) else '✗'}</b>"
        f"<div>{safe(gate['gate'])}{' · of the project' if gate.get('of_project') else ''}"
        f"<span>{safe(gate_words(gate))}</span></div></li>"
        for gate in run["gates"]
    )
    return f'<h2>Gates</h2><ul class="ticks">{rows}</ul>'


def _metrics(run: Mapping[str, Any]) -> str:
    """A row for each metric on a scale of its own: test part, its interval, the folds, and the constant guess."""
    folds = [fold["metrics"] for fold in (run.get("cv") or {}).get("folds", [])]
    rows = []
    for name, value in in_metric_order(run).items():
        if not isinstance(value, int | float):
            continue
        marks = [fold.get(name) for fold in folds]
        rows.append((name, value, interval(run, name), [m for m in marks if m is not None], run["baseline"].get(name)))
    if not rows:
        return ""
    if not any(between or marks or guess is not None for _, _, between, marks, guess in rows):
        alone = table(("metric", "test"), [(_name(one[0]), _number(one[1])) for one in rows], numbers=[1])
        return f"<h2>How good it is</h2>{alone}<p class='small'>No folds, no interval and no constant guess.</p>"
    drawn = []
    for place, (name, value, between, marks, guess) in enumerate(rows):
        y = 20 + place * ROW
        x = _scale([value, *marks, *(between or ()), *([guess] if guess is not None else [])])
        drawn += [_label(name, y), f'<line class="rule" x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>']
        if between:
            drawn.append(_range(x(between[0]), x(between[1]), y, "b", f"interval {_pair(between)}"))
        drawn += [_circle(x(mark), y, 4, "fold", f"fold {i}: {_number(mark)}") for i, mark in enumerate(marks, 1)]
        if guess is not None:
            at = x(guess)
            drawn.append(
                f'<line class="guess" x1="{at:.1f}" x2="{at:.1f}" y1="{y - 9}" y2="{y + 9}">'
                f"<title>constant guess: {_number(guess)}</title></line>"
            )
        drawn.append(_circle(x(value), y, 6.5, "is", f"{name} of the test part: {_number(value)}"))
        up = 3.5 if between else -4.5
        drawn.append(f'<text class="strong" x="{RIGHT + 18}" y="{y - up}">{safe(_number(value))}</text>')
        if between:
            drawn.append(f'<text class="quiet more" x="{RIGHT + 18}" y="{y + 12}">{safe(_pair(between))}</text>')
    caption = "Filled: the test part."
    caption += " Rings: the folds of cross-validation." if folds else ""
    if any(one[4] is not None for one in rows):
        caption += " Upright stroke: the mean label as a constant guess."
    caption += " Each line has a scale of its own."
    if any(one[2] for one in rows):
        caption += " Band: the interval of the test part."
    numbers = [
        (_name(n), _number(v), _pair(b) if b else "–", _number(_mean(m)) if m else "–", _number(g))
        for n, v, b, m, g in rows
    ]
    head = ("metric", "test", "interval", "mean of folds", "constant")
    return "<h2>How good it is</h2>" + _figure(
        "Metrics of the test part and of the folds",
        12 + ROW * len(rows),
        drawn,
        caption,
        table(head, numbers, numbers=[1, 2, 3, 4]),
    )


def _decisions(run: Mapping[str, Any]) -> str:
    """At the operating threshold: how often right, and how often wrong either way."""
    found, threshold = run.get("confusion") or {}, run.get("threshold") or {}
    names = ("true_positive", "false_negative", "false_positive", "true_negative")
    if not all(isinstance(found.get(name), int) for name in names):
        return ""
    rows = [
        ("it happened", *(f"{found[name]:,}" for name in names[:2])),
        ("it did not", *(f"{found[name]:,}" for name in names[2:])),
    ]
    said = table(("", "said yes", "said no"), rows, numbers=[1, 2])
    on = str(threshold.get("chosen_on", ""))
    why = on.removeprefix("nothing: ") if on.startswith("nothing: ") else f"chosen on {on}"
    words = f"It says yes from a score of {_number(threshold.get('value'))} on; {why}." if threshold else ""
    return f"<h2>What it decides</h2><p>{safe(words)}</p>{said}"


def _calibration(run: Mapping[str, Any]) -> str:
    dots = []
    for one in run.get("calibration") or []:
        predicted = one.get("predicted", one.get("mean_score"))
        observed = one.get("observed", one.get("rate"))
        if predicted is not None and observed is not None:
            dots.append(Dot(float(predicted), float(observed), int(one.get("rows", one.get("count", 1)))))
    if not dots:
        return ""
    title = "Predicted and observed on the test part"
    return f"<h2>Can its probabilities be taken at their word?</h2>{calibration_curve(dots, title=title)}"


def _slices(run: Mapping[str, Any]) -> str:
    found = []
    main = MAIN.get(run["task"], "roc_auc")
    for column, one in (run.get("slices") or {}).items():
        parts = one.get("slices", []) if isinstance(one, Mapping) else []
        rows = [
            (
                str(part["value"]),
                f"{part['rows']:,}",
                _number(part["metrics"].get(main)),
                "few rows" if part.get("too_few") else "worst" if part["value"] == one.get("worst") else "",
            )
            for part in parts
        ]
        if rows:
            found.append(f"<h3>{safe(column)}</h3>{table(('value', 'rows', _name(main), ''), rows, numbers=[1, 2])}")
    return f"<h2>By slice</h2>{''.join(found)}" if found else ""


def _importance(run: Mapping[str, Any]) -> str:
    weights, shuffled = run["importance"], (run.get("permutation") or {}).get("inputs") or {}
    if shuffled:
        return "<h2>What it looks at</h2>" + _shuffled(run["permutation"])
    if not weights:
        return ""
    total = sum(weights.values()) or 1.0
    heaviest = sorted(weights.items(), key=lambda pair: -pair[1])
    return "<h2>What it looks at</h2>" + bars(
        [Bar(name, weight / total) for name, weight in heaviest],
        title="Inputs by weight",
        caption="Each input's share of the weight that the estimator itself states.",
        shown="share",
        most=MOST_INPUTS,
    )


def _shuffled(found: Mapping[str, Any]) -> str:
    """What it costs when an input is shuffled, the dearest first; those that cost nothing have no bar."""
    ordered = sorted(found["inputs"].items(), key=lambda pair: -pair[1]["mean"])
    rows = [Bar(name, max(one["mean"], 0.0), note=f"± {one['std']:.2g}") for name, one in ordered]
    caption = f"What is lost when an input is shuffled among {found['rows']:,} test rows: the rise of {found['loss']}."
    return bars(rows, title="What shuffling each input costs", caption=caption, most=MOST_INPUTS)


def ranked_trials(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Trials of a tuning: those that finished, the best first, then the pruned, then those that failed."""
    sign = -1 if record["better"] == "higher" else 1
    states = ("finished", "pruned", "failed")

    def rank(one: Mapping[str, Any]) -> tuple[int, float, int]:
        value = one["value"]
        return states.index(one["state"]), math.inf if value is None else sign * value, one["number"]

    return sorted(record["trials"], key=rank)


def tuning_words(record: Mapping[str, Any]) -> str:
    """What was tried, in a sentence."""
    states = [f"{record[state]} {state}" for state in ("pruned", "failed") if record[state]]
    said = f" ({', '.join(states)})" if states else ""
    return (
        f"Tuned by {_name(record['metric'])} on the folds of the training part: {len(record['trials'])} trials{said}; "
        f"trial {record['best']['number']} is the best."
    )


def _tuning(run: Mapping[str, Any]) -> str:
    """How the parameters were found: the value of each trial, which parameters mattered, and the trials themselves."""
    record = run.get("tuning")
    if not record:
        return ""
    ranked, names = ranked_trials(record), list(record["best"]["params"])
    rows = [
        (
            f"{one['number']}{' (best)' if one['number'] == record['best']['number'] else ''}",
            _number(one["value"]),
            one["state"] + (f": {one['error']}" if one.get("error") else ""),
            f"{one['folds']}",
            f"{one['seconds']:.2f}",
            *(_parameter(one["params"].get(name)) for name in names),
        )
        for one in ranked[:MOST_TRIALS]
    ]
    head = ("trial", _name(record["metric"]), "state", "folds", "seconds", *names)
    weights = record.get("importance") or {}
    mattered = bars(
        [Bar(name, share) for name, share in weights.items()],
        title="Parameters by what they changed",
        caption="Each parameter's share of what the values of the trials vary by (fANOVA).",
        shown="share",
        most=MOST_INPUTS,
    )
    more = len(ranked) - MOST_TRIALS
    return (
        f"<h2>How its parameters were found</h2><p>{safe(tuning_words(record))}</p>{_trials(record)}"
        f"{f'<h3>What mattered</h3>{mattered}' if weights else ''}"
        f"<details{'' if len(ranked) > FEW_TRIALS else ' open'}><summary>The trials, the best first</summary>"
        f"{table(head, rows, numbers=[0, 1, 3, 4])}{f'<p>and {more:,} more</p>' if more > 0 else ''}</details>"
    )


def _parameter(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)


def _trials(record: Mapping[str, Any]) -> str:
    """The value of each trial in order, and the best so far as a line."""
    known = [one for one in record["trials"] if one["value"] is not None]
    if not known:
        return ""
    finished = [one["value"] for one in known if one["state"] == "finished"]
    values = [one["value"] for one in known]
    # a trial far off, as the first ones may be, would press all others into a line
    ordered = sorted(finished or values)
    middle, far = (
        ordered[len(ordered) // 2],
        8 * ((ordered[-1 - len(ordered) // 4] - ordered[len(ordered) // 4]) or 0.0),
    )
    inside = [one for one in values if not far or abs(one - middle) <= far]
    low, high = min(inside), max(inside)
    room = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    low, high = low - room, high + room
    left, right, top, bottom = 88, WIDTH - 16, 12, 214
    last = max(one["number"] for one in record["trials"]) or 1

    def x(number: int) -> float:
        return left + 12 + (right - left - 24) * number / last

    def y(value: float) -> float:
        return float(bottom - (bottom - top) * (min(max(value, low), high) - low) / (high - low))

    drawn = []
    for tick in (low + room, (low + high) / 2, high - room):
        drawn.append(f'<line class="rule" x1="{left}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        drawn.append(f'<text class="end quiet" x="{left - 8}" y="{y(tick) + 4:.1f}">{safe(_number(tick))}</text>')
    path, best = "", None
    lower = record["better"] != "higher"
    for one in known:
        if one["state"] == "finished" and (best is None or (one["value"] < best if lower else one["value"] > best)):
            path += f"M{x(one['number']):.1f} {y(one['value']):.1f}" if best is None else ""
            path += f"H{x(one['number']):.1f}V{y(one['value']):.1f}"
            best = one["value"]
    drawn.append(f'<path class="so-far" d="{path}H{right - 12}"/>' if path else "")
    for one in known:
        kind = "is" if one["state"] == "finished" else "fold"
        size = 6.5 if one["number"] == record["best"]["number"] else 4
        chosen = ", ".join(f"{name} {_parameter(value)}" for name, value in one["params"].items())
        tip = f"trial {one['number']}, {one['state']}: {_number(one['value'])}; {chosen}"
        drawn.append(_circle(x(one["number"]), round(y(one["value"]), 1), size, kind, tip))
    drawn.append(f'<text class="quiet" x="{left + 8}" y="{bottom + 22}">trial 0</text>')
    drawn.append(f'<text class="end quiet" x="{right - 8}" y="{bottom + 22}">trial {last}</text>')
    caption = (
        f"Each trial's {_name(record['metric'])}; {record['better']} is better. Filled: it finished; the largest is "
        "the best. Rings: pruned before its last fold. Line: the best so far."
    )
    beyond = len(values) - len(inside)
    caption += f" {beyond} lie beyond the edge of the picture." if beyond else ""
    return _figure("The value of each trial", bottom + 30, drawn, caption)


def _split(run: Mapping[str, Any]) -> str:
    """Which rows were learned from, and which were held back."""
    split = run["split"]
    parts = [
        ("train", split["train"]["rows"], ""),
        ("purged", split.get("purged", 0), "left"),
        ("test", split["test"]["rows"], "test"),
    ]
    total = sum(count for _, count, _ in parts) or 1
    drawn, x = [], 0.0
    for name, count, kind in parts:
        wide = WIDTH * count / total
        drawn.append(
            f'<rect class="part {kind}" x="{x:.1f}" y="6" width="{max(wide - 2, 0):.1f}" height="34" rx="3">'
            f"<title>{count:,} rows {name}</title></rect>"
        )
        if wide > 90:
            drawn.append(f'<text class="light" x="{x + 10:.1f}" y="28">{count:,} to {name}</text>')
        x += wide
    counts = split["rows"]
    left = [
        (counts["unlabelled"], "had no label"),
        (counts["label_not_known"], "had a label that was not known by the cut-off"),
    ]
    left += [(split.get("purged", 0), "were purged: their label became known after the test part begins")]
    words = ". ".join(f"{count:,} rows {what}" for count, what in left if count)
    kinds = {"time": "by time: the last rows are the test", "grouped": "by group", "given": "as it was given"}
    kind = kinds.get(split["kind"], split["kind"])
    caption = f"Split {kind}. {words}{'.' if words else ''} {run['metrics_of'].capitalize()}."
    return f"<h2>Which rows</h2>{_figure('Rows to train and to test', 46, drawn, caption)}"


def _where(run: Mapping[str, Any], reproduced: Sequence[Mapping[str, Any]]) -> str:
    environment, code = run["environment"], run["environment"]["code"]
    blas = ", ".join(dict.fromkeys(" ".join(str(v) for v in one.values() if v) for one in environment["blas"]))
    defined = "" if "logged" in run else ", ".join(code.get("files", {})) or code["definitions"][:12]
    commit = _made_in(run) if "logged" in run else {"commit": _commit(code["commit"] or "", bool(code["dirty"]))}
    facts = [
        *((f"rows of {source}", snapshot) for source, snapshot in run.get("data", {}).items()),
        ("training set", run["training_set"]),
        ("cut-off", _moment_us(run["cutoff_us"])),
        *commit.items(),
        ("definitions", defined),
        ("seed and threads", "" if run["seed"] is None else f"{run['seed']}, {run['threads']}"),
        ("interpreter", f"{environment['python']} on {environment['platform']}"),
        ("processor", environment["cpu"]),
        ("BLAS", blas),
        ("took", ", ".join(f"{name} {value_text(seconds, 'number')} s" for name, seconds in run["timings"].items())),
    ]
    facts += [
        ("trained again", f"{one['verdict']}, from {one.get('trained_from', 'what was recorded')}")
        for one in reproduced
    ]
    again = f'<p class="small">Make it again: <code>seatrial reproduce {safe(run["id"][:17])}</code></p>'
    packages = table(("package", "version"), [line.split("==", 1) for line in environment["packages"] if "==" in line])
    return (
        f"<h2>Where it came from</h2>{_facts(facts)}"
        f"<details><summary>{len(environment['packages']):,} packages</summary>{packages}</details>"
        f"{'' if 'logged' in run else again}"
    )


def _facts(facts: Iterable[tuple[str, Any]]) -> str:
    listed = "".join(f"<dt>{safe(a)}</dt><dd>{safe(b)}</dd>" for a, b in facts if b)
    return f'<dl class="where">{listed}</dl>'


def _made_in(run: Mapping[str, Any]) -> dict[str, str]:
    """From which code a logged run came."""
    logged = run["logged"]
    return {
        "made in": f"{logged['kind']} {logged['place']}".strip(),
        "commit": f"commit {logged['commit'][:12]}" if logged["commit"] else f"none: {logged['why']}",
    }


def _settings(run: Mapping[str, Any]) -> str:
    definition = run["definition"]
    parameters = list(definition["params"].items())
    effective = [(name, str(value)) for name, value in run["estimator"].get("params", {}).items()]
    stated = table(("parameter", "value"), parameters) if parameters else "<p>The estimator's own defaults.</p>"
    every = table(("parameter", "value"), effective)
    more = f"<details><summary>All {len(effective)} in effect</summary>{every}</details>" if effective else ""
    notes = "".join(f"<li>{safe(one)}</li>" for one in run["warnings"])
    heard = f"<h2>What was noted</h2><ul>{notes}</ul>" if notes else ""
    return f"<h2>Parameters</h2><p><code>{safe(definition['estimator'])}</code></p>{stated}{more}{heard}"


# Two runs


def _because(found: Compared) -> str:
    moving = [one for one in found.differences if one.moves]
    if not moving:
        return "Data, code, parameters and environment are the same."
    counts: dict[str, int] = {}
    for one in moving:
        counts[one.kind] = counts.get(one.kind, 0) + 1
    words = [
        kind if kind in ("data", "code", "seed", "threads", "machine") else f"{count} {kind}{'s' if count > 1 else ''}"
        for kind, count in counts.items()
    ]
    return f"Different: {', '.join(words)}."


def _moves(metrics: Sequence[MetricChange]) -> str:
    rows = [one for one in metrics if one.a is not None and one.b is not None]
    if not rows:
        return "<p>The two have no metric in common.</p>"
    drawn = []
    for place, one in enumerate(rows):
        a, b = float(one.a or 0.0), float(one.b or 0.0)
        y = 20 + place * ROW
        around = [a - (one.spread or 0.0), a + (one.spread or 0.0)]
        x = _scale([a, b, *around, *(one.interval_a or ()), *(one.interval_b or ())])
        drawn += [_label(one.metric, y), f'<line class="rule" x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>']
        if one.interval_a and one.interval_b:
            drawn.append(_range(x(one.interval_a[0]), x(one.interval_a[1]), y - 7, "", f"base {_pair(one.interval_a)}"))
            drawn.append(
                _range(x(one.interval_b[0]), x(one.interval_b[1]), y + 7, "b", f"this {_pair(one.interval_b)}")
            )
        elif one.spread:
            drawn.append(_range(x(around[0]), x(around[1]), y, "", f"spread over the folds: {_number(one.spread)}"))
        drawn.append(f'<line class="joins" x1="{x(a):.1f}" x2="{x(b):.1f}" y1="{y}" y2="{y}"/>')
        drawn.append(_circle(x(a), y, 6, "was", f"base: {_number(a)}"))
        worse = " worse" if one.better is False and one.notable is not False else ""
        drawn.append(_circle(x(b), y, 6, f"is{worse}", f"this: {_number(b)}"))
        mark = "" if one.better is None else (" ▲" if one.better else " ▼")
        strong = "strong" if one.notable else "quiet"
        drawn.append(f'<text class="{strong}" x="{RIGHT + 18}" y="{y + 4.5}">{safe(_delta(a, b) + mark)}</text>')
    ranged = any(one.interval_a and one.interval_b for one in rows)
    spread = any(one.spread and not (one.interval_a and one.interval_b) for one in rows)
    bands = ["the two intervals" if ranged else "", "the spread over the folds around the base" if spread else ""]
    said = " or ".join(one for one in bands if one)
    red = any(one.better is False and one.notable is not False for one in rows)
    colours = f"blue{'; red where it is worse' if red else ''}{' by more than chance moves' if red and said else ''}"
    caption = f"From the base (grey) to this run ({colours}), each on a scale of its own. ▲ better, ▼ worse"
    caption += f"; bold where it moved further than chance does. Bands: {said}." if said else "."
    numbers = [
        (
            _name(o.metric),
            _number(o.a),
            _number(o.b),
            _delta(o.a or 0.0, o.b or 0.0),
            *(
                (_pair(o.interval_a) if o.interval_a else "–", _pair(o.interval_b) if o.interval_b else "–")
                if ranged
                else ()
            ),
            *((_number(o.spread),) if spread else ()),
        )
        for o in rows
    ]
    head = ("metric", "base", "this", "change", *(("interval of base", "interval of this") if ranged else ()))
    head += ("spread over folds",) if spread else ()
    return _figure(
        "How the metrics moved", 12 + ROW * len(rows), drawn, caption, table(head, numbers, numbers=range(1, len(head)))
    )


def _gate_changes(found: Compared) -> str:
    if not found.gates:
        return ""
    words = {True: "passed", False: "said no", None: "not asked"}
    rows = "".join(
        f'<li class="{"no" if gate.b is False else "yes"}"><b>{"–" if gate.b is None else "✓" if gate.b else "✗"}</b>'
        f"<div>{safe(gate.gate)}<span>{safe(gate.reason)}"
        f"{f' · base: {words[gate.a]}' if gate.a != gate.b else ''}</span></div></li>"
        for gate in found.gates
    )
    return f'<h2>Gates</h2><ul class="ticks">{rows}</ul>'


def _differences(differences: Sequence[Difference]) -> str:
    titles = (
        ("Data", ("data",)),
        ("Parameters and declaration", ("parameter", "declaration", "seed", "threads")),
        ("Code", ("code", "commit")),
        ("Environment", ("package", "machine")),
    )
    found = []
    for title, kinds in titles:
        chosen = [one for one in differences if one.kind in kinds]
        if not chosen:
            found.append(f'<h3>{title}</h3><p class="small">The same.</p>')
            continue
        rows = "".join(
            f'<div class="changed"><strong>{safe(one.name)}</strong> '
            f"<del>{safe(one.before)}</del> → <ins>{safe(one.after)}</ins>"
            + (f"<ul>{''.join(f'<li>{safe(detail)}</li>' for detail in one.detail[:30])}</ul>" if one.detail else "")
            + "</div>"
            for one in chosen
        )
        found.append(f"<h3>{title}</h3>{rows}")
    return f"<h2>What was different</h2>{''.join(found)}"


def _weights(found: Compared) -> str:
    """The inputs whose share of the weight moved most."""
    rows = [(name, a, b) for name, a, b in found.importance if a != b]
    if not rows:
        return ""
    rows.sort(key=lambda row: -abs((row[2] or 0.0) - (row[1] or 0.0)))
    texts = [(name, value_text(a, "share"), value_text(b, "share")) for name, a, b in rows[:MOST_INPUTS]]
    head = table(("input", "base", "this"), texts, numbers=[1, 2])
    return f"<h2>What it looks at</h2><p>Each input's share of the weight, those that moved most first.</p>{head}"


# Drawing


def _scale(values: Sequence[float]) -> Any:
    """A function from a value to its place; some room is left at both ends."""
    known = [one for one in values if math.isfinite(one)]
    low, high = min(known), max(known)
    room = (high - low) * 0.06 or abs(high) or 1.0
    low, high = low - room, high + room
    return lambda value: LEFT + 8 + (RIGHT - LEFT - 16) * (value - low) / (high - low)


def _label(name: str, y: float) -> str:
    tip = safe(METRIC_WORDS.get(name, name))
    return f'<text class="end" x="{LEFT - 14}" y="{y + 4.5}">{safe(_name(name))}<title>{tip}</title></text>'


def _range(start: float, end: float, y: float, kind: str, tip: str) -> str:
    place = f'x1="{start:.1f}" x2="{end:.1f}" y1="{y}" y2="{y}"'
    return f'<line class="range {kind}" {place}><title>{safe(tip)}</title></line>'


def _circle(x: float, y: float, radius: float, kind: str, tip: str) -> str:
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y}" r="{radius}"><title>{safe(tip)}</title></circle>'


def _figure(title: str, high: float, drawn: Sequence[str], caption: str, numbers: str = "") -> str:
    more = f"<details><summary>The numbers</summary>{numbers}</details>" if numbers else ""
    return (
        f'<figure aria-label="{safe(title)}"><div class="scroll"><svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {WIDTH} {high}" class="fit" aria-label="{safe(title)}"><title>{safe(title)}</title>'
        f"{''.join(drawn)}</svg></div><figcaption>{safe(caption, 1000)}</figcaption>{more}</figure>"
    )


def _name(metric: str) -> str:
    """A metric's name as people write it."""
    known = {"roc_auc": "ROC AUC", "brier": "Brier", "f1": "F1", "mae": "MAE", "rmse": "RMSE", "r2": "R²"}
    return known.get(metric, metric.replace("expected_", "").replace("_", " "))


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _pair(between: tuple[float, float]) -> str:
    return f"{between[0]:.3g} to {between[1]:.3g}"


def _delta(a: float, b: float) -> str:
    return "the same" if a == b else f"{b - a:+.3g}".replace("-", "−")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _commit(commit: str, dirty: bool) -> str:
    if not commit:
        return "no commit"
    return f"commit {safe(commit[:12])}{', with uncommitted changes' if dirty else ''}"


def _moment(text: str) -> str:
    if not text:
        return ""
    at = parse_time(text)
    return f"{at.day} {at:%B %Y, %H:%M} UTC"


def _moment_us(us: int | None) -> str:
    return "" if us is None else f"{from_us(us):%Y-%m-%d %H:%M:%S} UTC"
