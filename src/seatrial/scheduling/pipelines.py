"""Pipelines: declared schedules as another scheduler is given them, those of one timing together."""

from __future__ import annotations

from collections.abc import Sequence

from seatrial.core.timing import Timing
from seatrial.core.windows import duration_us
from seatrial.export.tasks import Pipeline, Task, slug, timing_slug
from seatrial.scheduling.definition import PATH_ORDER, Schedule


def timed(schedules: Sequence[Schedule], *, project: str) -> list[Pipeline]:
    """A pipeline for each timing. Within one, tasks follow each other as on the path: features before a model's batch,
    that before its labels, report, retraining and rollout; the log's upkeep waits for nobody."""
    groups: dict[Timing, list[Schedule]] = {}
    for one in schedules:
        groups.setdefault(one.timing, []).append(one)
    return [
        Pipeline(
            f"{slug(project)}-{timing_slug(timing)}",
            [_task(one, group) for one in sorted(group, key=_rank)],
            f"{', '.join(one.name for one in sorted(group, key=_rank))}: {timing}.",
            timing,
        )
        for timing, group in groups.items()
    ]


def _task(schedule: Schedule, group: Sequence[Schedule]) -> Task:
    before = [one for one in group if _precedes(one, schedule)]
    latest = max((_rank(one) for one in before), default=0)
    return Task(
        schedule.name,
        ("schedules", "run", schedule.name),
        after=tuple(one.name for one in before if _rank(one) == latest),
        scheduled=True,
        timeout_us=schedule.timeout_us,
        retries=schedule.retries,
        back_off_us=duration_us(schedule.back_off),
    )


def _precedes(one: Schedule, other: Schedule) -> bool:
    related = not one.model or one.model == other.model
    return one.verb in PATH_ORDER and other.verb in PATH_ORDER and _rank(one) < _rank(other) and related


def _rank(schedule: Schedule) -> int:
    return PATH_ORDER.index(schedule.verb) if schedule.verb in PATH_ORDER else len(PATH_ORDER)
