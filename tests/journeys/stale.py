"""A day on which every departure that reaches the online store is one of the day before, under the date of today.

It is what a job does whose date is off by one: nothing is missing, nothing looks old, and every value was right
yesterday. Arrivals and weather come as they should. A wider fault, events of all kinds a day late, is another thing to
see: it stands beside the narrow one in `without_serving`.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seatrial import Project
from seatrial.core.signature import as_floats
from seatrial.core.windows import Window
from seatrial.data.sources import Source
from seatrial.features.plan import make_plan
from seatrial.features.skew import recompute
from seatrial.monitoring.looks.drift import Drift, drift
from seatrial.monitoring.looks.quality import of_counts
from seatrial.monitoring.rows.tally import tallies
from seatrial.serving.batch.table import score
from seatrial.serving.clients.client import Client
from seatrial.serving.clients.replay import Asked, replay
from seatrial.stats.metrics import log_loss
from seatrial.verbs.history import Feed, business_keys, in_window, request_fields, times_us
from tests.journeys.pictures import rounded

DAY_US = 86_400_000_000
LATE = {"right": (), "stale": ("departures",), "wide": ("departures", "arrivals", "observations")}
"""By the name of a way to be served: the sources whose events come a day late, under the date of today."""
DAY = pa.scalar(timedelta(days=1), pa.duration("us"))


PLANE_AGE = "plane_arrival__hours_since"
"""How long ago the plane arrived: an age that is an input of the model."""


def a_day_late(project: Project, url: str, span: Window) -> int:
    """As `Project.replay`, but with the departures of the day before; how many events were pushed."""
    model = project.definitions.model("late")
    plan = make_plan(model.features, project.definitions.views)
    sources = {source.name: source for source in (project.definitions.views[view.name].source for view in plan.views)}
    tables, _ = project._inputs.tables([model.labels, *sources.values()], None)
    rows = in_window(tables[model.labels.name], model.labels, span)
    fields = request_fields(rows, list(dict.fromkeys([*plan.request_columns, *model.request_features])))
    at_us = times_us(rows, model.labels.event_timestamp).tolist()
    asked = [Asked(*one) for one in zip(at_us, fields, business_keys(rows, model), strict=True)]
    tables["departures"] = dated_tomorrow(tables["departures"], sources["departures"])
    feed = Feed(plan.views, tables, span, project.online)
    with Client(url, caller=project.actor) as client:
        for _ in replay(client, "late", asked, feed.up_to, progress=lambda *_: None):
            pass
    return feed.rows


def dated_tomorrow(rows: pa.Table, source: Source) -> pa.Table:
    """The rows of a source, each as if it happened and became known a day later."""
    for name in dict.fromkeys(one for one in (source.event_timestamp, source.known_at) if one):
        rows = rows.set_column(rows.column_names.index(name), name, pc.add(rows[name], DAY))
    return rows


def compared(project: Project, span: Window) -> SimpleNamespace:
    """What statistics and what the replay of features say of a day; `right`: what they would with right features;
    `before`: the report beside the seven days before, which have ages of features to compare with."""
    project.label("late")
    report = project.monitor("late", window=span, keep=False)
    before = project.monitor("late", window=span, against="7d", keep=False)
    skew = project.feature_verify("late", window=span)
    (right,) = without_serving(project, span)
    return SimpleNamespace(report=report, before=before, skew=skew, right=right.right, touched=touched(project, span))


def touched(project: Project, span: Window) -> int:
    """How many flights of `span` are asked after a departure from their airport or of their carrier, of the day or of
    the day before under its date: those that the fault serves something wrong, when it begins with `span`."""
    model = project.definitions.model("late")
    source = project.definitions.views["origin_departures"].source
    gone = project._inputs.uncut(source)
    both = [in_window(rows, source, span) for rows in (gone, dated_tomorrow(gone, source))]
    rows = in_window(project._inputs.uncut(model.labels), model.labels, span)
    at_us = times_us(rows, model.labels.event_timestamp)
    wrong = np.zeros(at_us.size, dtype=bool)
    for column in ("origin", "carrier"):
        first: dict[str, int] = {}
        for departures in both:
            for who, when in zip(
                departures[column].to_pylist(), times_us(departures, source.event_timestamp), strict=True
            ):
                first[who] = min(first.get(who, when), when)
        wrong |= at_us >= np.array([first.get(who, span.end_us) for who in rows[column].to_pylist()])
    return int(wrong.sum())


def without_serving(project: Project, span: Window) -> list[SimpleNamespace]:
    """Each day of `span`, scored by the live release as if served in each of the ways of `LATE`: by its name the drift
    from training, the rules about values that fail, how old 95 of 100 of the planes' last arrivals are (hours), and the
    log loss."""
    model = project.definitions.model("late")
    live = project.record(project.deployment_status("late").live)
    bundle, reference = project._bundle(live), project._reference(live)
    plan = make_plan(model.features, project.definitions.views)
    sources = {view.name: project.definitions.views[view.name].source for view in plan.views}
    events = {name: project._inputs.uncut(source) for name, source in sources.items()}
    rows = in_window(project._inputs.uncut(model.labels), model.labels, span)
    fields = [name for name in rows.column_names if name != model.labels.event_timestamp]
    asked = pa.table({"at": rows[model.labels.event_timestamp]} | {f"field_{name}": rows[name] for name in fields})
    labels = as_floats(rows["late"].to_pylist())
    at_us = times_us(rows, model.labels.event_timestamp)
    day = (at_us - span.start_us) // DAY_US
    ways: dict[str, list[SimpleNamespace]] = {}
    for way, late in LATE.items():
        given = {
            name: dated_tomorrow(rows, sources[name]) if sources[name].name in late else rows
            for name, rows in events.items()
        }
        joined = recompute(asked, plan, given)
        inputs = {name: rows[name] for name in model.request_features}
        table = pa.table(inputs | {name: joined[name] for name in plan.feature_columns})
        scores = score(bundle, table)
        logged = table.rename_columns([f"feature_{name}" for name in table.column_names])
        logged = logged.append_column("score", pa.array(scores))
        arrived = joined["plane_arrival__event_timestamp"].cast(pa.int64()).cast(pa.float64(), safe=False).to_numpy()
        ways[way] = []
        for number in range(int(day.max()) + 1):
            of_day = day == number
            known = of_day & ~np.isnan(labels)
            found = tallies(logged.filter(pa.array(of_day)), reference)
            ways[way].append(
                SimpleNamespace(
                    drift=drift(found, reference),
                    failed=[(check.name, check.column) for check in of_counts(found, reference) if not check.passed],
                    planes=float(np.nanquantile(at_us[of_day] - arrived[of_day], 0.95)) / 3.6e9,
                    log_loss=log_loss(labels[known], scores[known]),
                )
            )
    return [SimpleNamespace(**dict(zip(ways, each, strict=True))) for each in zip(*ways.values(), strict=True)]


def drifted(found: Drift) -> list[str]:
    """The columns that have moved."""
    return sorted(one.name for one in found.columns if one.drifted)


def ages(report: Any) -> list[Any]:
    """What the rule about the age of features says."""
    return [check for check in report.quality if check.name == "age of features"]


def of_stale(one: SimpleNamespace) -> dict[str, Any]:
    """The figures of a day for the story."""
    report = one.report
    return {
        "rows": one.skew.rows,
        "mismatched": one.skew.mismatched / one.skew.rows,
        "views": sorted({feature.view for feature in one.skew.features if feature.mismatches and feature.view}),
        "drifted": drifted(report.drift),
        "drifted of the right inputs": drifted(one.right.drift),
        "prediction": rounded(report.drift.prediction.value),
        "prediction of the right inputs": rounded(one.right.drift.prediction.value),
        "headline": report.headline,
        "failed": [check.name for check in report.quality if not check.passed],
        "noticed": [f"{check.name} {check.column}: {check.found}" for check in report.quality if check.noticed],
        "ages": {check.column: [check.found, check.expected, check.noticed] for check in ages(one.before)},
        "asked after a departure": one.touched / one.skew.rows,
        "log_loss": rounded(report.performance.metrics["log_loss"]),
        "log_loss of the right inputs": rounded(one.right.log_loss),
    }


def of_month(days: list[SimpleNamespace]) -> list[dict[str, Any]]:
    """The figures of `without_serving` for the story, by day: columns that have moved, the distance of the predictions,
    log loss; what fails a rule; whether the plane's age, as an input, has moved."""
    return [
        {
            way: [len(drifted(one.drift)), rounded(one.drift.prediction.value), rounded(one.log_loss)]
            for way, one in vars(day).items()
        }
        | {"failed": {way: [column for _, column in one.failed] for way, one in vars(day).items()}}
        | {"plane's age moved": [way for way, one in vars(day).items() if PLANE_AGE in drifted(one.drift)]}
        for day in days
    ]


def thrown_away(project: Project) -> Path:
    """Close the project and throw its online store away; the project's folder."""
    project.close()
    for file in (project.folder / ".seatrial").glob("online.db*"):
        file.unlink()
    return project.folder
