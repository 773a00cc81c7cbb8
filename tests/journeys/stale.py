"""A day on which every event that reaches the online store is one of the day before, under the date of today.

It is what a job does whose date is off by one: nothing is missing, nothing looks old, and every value was right
yesterday.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.compute as pc

from seatrial import Project
from seatrial.core.windows import Window
from seatrial.data.sources import Source
from seatrial.features.plan import make_plan
from seatrial.serving.clients.client import Client
from seatrial.serving.clients.replay import Asked, replay
from seatrial.verbs.history import Feed, business_keys, in_window, request_fields, times_us

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
    """What statistics and what the replay of features say of a day, and what its labels say in the end."""
    project.label("late")
    report = project.monitor("late", window=span, keep=False)
    return SimpleNamespace(report=report, skew=project.feature_verify("late", window=span))


def thrown_away(project: Project) -> Path:
    """Close the project and throw its online store away; the project's folder."""
    project.close()
    for file in (project.folder / ".seatrial").glob("online.db*"):
        file.unlink()
    return project.folder
