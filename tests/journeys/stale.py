"""A day on which every event that reaches the online store is one of the day before, under the date of today.

It is what a job does whose date is off by one: nothing is missing, nothing looks old, and every value was right
yesterday.
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
from seatrial.serving.batch.table import score
from seatrial.serving.clients.client import Client
from seatrial.serving.clients.replay import Asked, replay
from seatrial.stats.metrics import measure
from seatrial.verbs.history import Feed, business_keys, in_window, request_fields, times_us
from tests.journeys.pictures import rounded

DAY = pa.scalar(timedelta(days=1), pa.duration("us"))


def a_day_late(project: Project, url: str, span: Window) -> int:
    """As `Project.replay`, but with the events of the day before as those of `span`; the number of events pushed."""
    model = project.definitions.model("late")
    plan = make_plan(model.features, project.definitions.views)
    sources = {source.name: source for source in (project.definitions.views[view.name].source for view in plan.views)}
    tables, _ = project._inputs.tables([model.labels, *sources.values()], None)
    rows = in_window(tables[model.labels.name], model.labels, span)
    fields = request_fields(rows, list(dict.fromkeys([*plan.request_columns, *model.request_features])))
    at_us = times_us(rows, model.labels.event_timestamp).tolist()
    asked = [Asked(*one) for one in zip(at_us, fields, business_keys(rows, model), strict=True)]
    later = {name: dated_tomorrow(tables[name], source) for name, source in sources.items()}
    feed = Feed(plan.views, later, span, project.online)
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
    """What statistics and what the replay of features say of a day, and what the live model is like on right inputs."""
    project.label("late")
    report = project.monitor("late", window=span, keep=False)
    rows, _, _, _ = project._inputs.rows(project.definitions.model("late"), window=span)
    live = score(project._bundle(project.record(project.deployment_status("late").live)), rows)
    labels = as_floats(rows["late"].to_pylist())
    known = ~np.isnan(labels)
    return SimpleNamespace(
        report=report,
        skew=project.feature_verify("late", window=span),
        right=measure("binary", labels[known], live[known]),
    )


def of_stale(one: SimpleNamespace) -> dict[str, Any]:
    """The figures of a day for the story."""
    report = one.report
    columns = [column for column in report.drift.columns if column.drifted]
    return {
        "rows": one.skew.rows,
        "mismatched": one.skew.mismatched / one.skew.rows,
        "views": sorted({feature.view for feature in one.skew.features if feature.mismatches and feature.view}),
        "drifted": sorted(column.name for column in columns),
        "drift": {column.name: rounded(column.value) for column in report.drift.columns},
        "prediction": rounded(report.drift.prediction.value),
        "headline": report.headline,
        "failed": [check.name for check in report.quality if not check.passed],
        "noticed": [f"{check.name} {check.column}: {check.found}" for check in report.quality if check.noticed],
        "ages": {check.column: check.found for check in report.quality if check.name == "age of features"},
        "log_loss": rounded(report.performance.metrics["log_loss"]),
        "log_loss of the right inputs": rounded(one.right["log_loss"]),
    }


def thrown_away(project: Project) -> Path:
    """Close the project and throw its online store away; the project's folder."""
    project.close()
    for file in (project.folder / ".seatrial").glob("online.db*"):
        file.unlink()
    return project.folder
