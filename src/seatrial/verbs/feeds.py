"""Feeds: what of a model should keep coming, read from what the project keeps.

Cheap enough to be asked every few minutes: the newest events, and of the prediction log the last quarter of an hour;
only when nothing is in it, the same hours of earlier weeks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from seatrial.core.clock import from_us, iso, parse_time, to_us
from seatrial.core.windows import DAY_US, Window, duration_text, duration_us
from seatrial.features.definitions import FeatureView
from seatrial.monitoring.alerting.cadence import QUIET_US, WEEK_US, Cadence, judged, volume

if TYPE_CHECKING:
    from seatrial.core.records import Event
    from seatrial.training.model import Model
    from seatrial.verbs.building import Building

NEWEST = 20_000
"""So many of the newest events are looked at first."""
ENOUGH = 200
"""Times that are enough to say how often something comes."""
WEEKS, DAYS = 4, 6
HISTORY_US = 60 * DAY_US


def cadences(project: Building, model: Model) -> list[Cadence]:
    """How everything of a model keeps coming: predictions, labels, reports, then its views."""
    monitor = project.definitions.monitors.get(model.name)
    predictions = _predictions(project, model.name)
    within_us = duration_us(monitor.labels_within) if monitor and monitor.labels_within else 0
    labels = _labels(project, model.name, within_us)
    reported = [event.at_us for event in _newest(project, kind="report.made") if _of_report(project, event, model.name)]
    every = duration_us(monitor.every) if monitor and monitor.every else None
    since = None if every is None else _live_since(project, model.name)
    reports = judged(model.name, "report", reported, project.now_us, declared_us=every, since_us=since)
    return [predictions, labels, reports, *_views(project, model)]


def _predictions(project: Building, model: str) -> Cadence:
    now_us = project.now_us
    last_us = _newest_prediction(project, model)
    if last_us is None or now_us - last_us < QUIET_US:
        return volume(model, last_us, now_us, same_time={}, days=_days(project, model))
    days = _days(project, model)
    same_time: dict[str, list[int]] = {}
    if now_us - last_us < WEEK_US and days:
        steps = (("weeks", WEEK_US, WEEKS), ("days", DAY_US, DAYS))
        # of a model younger than two weeks no week before can be asked
        when, step, most = steps[0] if now_us - days[0] >= 2 * WEEK_US else steps[1]
        spans = [(last_us + 1 - back * step, now_us - back * step) for back in range(1, most + 1)]
        # what began before the first day, and of days what reaches into the silence, says nothing
        same_time[when] = [
            _count(project, model, Window(start, end)) for start, end in spans if start >= days[0] and end <= last_us
        ]
        if len(same_time[when]) < 2:
            same_time = {}
    return volume(model, last_us, now_us, same_time=same_time, days=days)


def _labels(project: Building, model: str, within_us: int) -> Cadence:
    events = _newest(project, subject=f"model/{model}", kind="labels.told")
    times = [event.at_us for event in events if event.body.get("rows")]
    if not within_us:
        return judged(model, "labels", times, project.now_us)
    now_us = project.now_us
    last_us = max((time for time in times if time <= now_us), default=None)
    # a label is due only for a prediction that was made, and long enough ago
    start_us = (last_us if last_us is not None else max(now_us - HISTORY_US, 0) + within_us) - within_us
    due = Window(max(start_us, 0), now_us - within_us)
    waits = due.end_us > due.start_us and _count(project, model, due) > 0
    since_us = _first_prediction(project, model)
    if not waits and last_us is not None:
        words = f"the labels of '{model}': no prediction waits for one longer than {duration_text(within_us)}"
        return Cadence(model, "labels", "on time", words, duration_text(within_us), True, iso(from_us(last_us)))
    return judged(model, "labels", times, now_us, declared_us=within_us, since_us=since_us)


def _views(project: Building, model: Model) -> Iterator[Cadence]:
    for view in views_of(project, model):
        events = _newest(project, subject=f"view/{view}", kind="features.materialized")
        declared = project.definitions.views[view].every_us
        since_us = _live_since(project, model.name) if declared else None
        times = [event.at_us for event in events]
        yield judged(model.name, f"view {view}", times, project.now_us, declared_us=declared, since_us=since_us)


def views_of(project: Building, model: Model) -> list[str]:
    """The names of the model's views that this project materializes; one of another project is that one's."""
    taken = [getattr(feature, "view", feature) for feature in model.features]
    mine = {name for name, view in project.definitions.views.items() if type(view) is FeatureView}
    names = [getattr(view, "name", "") for view in taken if type(view) is FeatureView]
    return [name for name in dict.fromkeys(names) if name in mine]


def _newest(project: Building, *, kind: str, subject: str | None = None) -> list[Event]:
    """The newest events of a kind, all of them when there are few; a long log is not read from its start."""
    last = project.metadata.appended()
    reach = NEWEST
    while True:
        after = max(last - reach, 0)
        found = project.metadata.events(subject=subject, kind=kind, after=after)
        if len(found) >= ENOUGH or not after:
            return found
        reach *= 10


def _of_report(project: Building, event: Event, model: str) -> bool:
    named = event.body.get("model")
    if named is None:  # an event of a version that did not say
        record = project.metadata.record(event.subject)
        named = record.name if record else None
    return named == model


def _live_since(project: Building, model: str) -> int | None:
    """When the model's first release went live; None when none did."""
    names = project._deployments_of(model)
    return min((events[0].at_us for name in names if (events := _deployed(project, name))), default=None)


def _deployed(project: Building, deployment: str) -> list[Event]:
    return project.metadata.events(subject=f"deployment/{deployment}", limit=1)


# The prediction log


def _newest_prediction(project: Building, model: str) -> int | None:
    """The newest instant that was predicted for, up to now; of the last two months."""
    now_us = project.now_us
    end_us = now_us + 1
    for back_us in (QUIET_US, DAY_US):
        found = _instants(project, model, Window(max(now_us - back_us, 0), end_us))
        if found:
            return max(found)
    for day_us in reversed(_days(project, model)):
        found = _instants(project, model, Window(day_us, min(day_us + DAY_US, end_us)))
        if found:
            return max(found)
    return None


def _first_prediction(project: Building, model: str) -> int | None:
    days = _days(project, model)
    found = _instants(project, model, Window(days[0], days[0] + DAY_US)) if days else []
    return min(found, default=None)


def _instants(project: Building, model: str, window: Window) -> list[int]:
    """The first and the last instant of the window's predictions; empty without any."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if window.end_us <= window.start_us:
        return []
    rows = project.log.rows(model=model, window=window, columns=["at"])
    if not rows.num_rows:
        return []
    span = pc.min_max(rows["at"].cast(pa.int64())).as_py()
    return [int(span["min"]), int(span["max"])]


def _count(project: Building, model: str, window: Window) -> int:
    if window.end_us <= window.start_us:
        return 0
    return int(project.log.rows(model=model, window=window, columns=["at"]).num_rows)


def _days(project: Building, model: str) -> list[int]:
    """The starts of the days of the last two months that have predictions, oldest first: what the log's files say of
    themselves, and what is not in a file yet."""
    from seatrial.stores.log_batches import standing

    now_us = project.now_us
    batches, _ = standing((project.log.shipped_batches() | project.log.local_batches()).values())
    named = {part.day for batch in batches for part in batch.parts if part.model == model and part.records}
    days = {to_us(parse_time(f"{day}T00:00:00Z")) for day in named}
    for back in (0, 1):
        day_us = (now_us // DAY_US - back) * DAY_US
        if day_us not in days and day_us >= 0 and _count(project, model, Window(day_us, day_us + DAY_US)):
            days.add(day_us)
    return sorted(day for day in days if now_us - HISTORY_US <= day <= now_us)
