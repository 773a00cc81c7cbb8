"""The same flights split by other lots: on which day would an A/B test by request have decided, and how?"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from seatrial import ABTest, Project
from seatrial.deployment.analysis import Answers, analyse
from seatrial.features.training_set import LABEL_KNOWN_AT
from seatrial.stats.metrics import losses
from seatrial.verbs.history import times_us

DAY_US = 86_400_000_000
LOTS = 200
DAYS = 28
EXPERIMENT = ABTest(50, judge_for=f"{DAYS}d", unit="request", guardrails=[])


def decided(project: Project, proposal: Any) -> dict[str, Any]:
    """What of `LOTS` splits of the flights after both cut-offs the labels say by the end of the last day, how many had
    said so by the end of each day, and the median day. Both releases score every flight; a label counts from when it
    was known."""
    model = project.definitions.model("late")
    releases = project.record(proposal.champion), project.record(proposal.challenger)
    both = project._both_on_labels(model, releases, tuple(project._bundle(one) for one in releases), None)
    known_us = times_us(both.inputs, LABEL_KNOWN_AT)
    inside = both.at_us < both.start_us + DAYS * DAY_US
    at_us, known_us, labels = both.at_us[inside], known_us[inside], both.labels[inside]
    lost = [losses(model.task, labels, scores[inside]) for scores in (both.champion, both.challenger)]

    def answers(loss: Any, arm: Any) -> Answers:
        nothing = np.zeros(int(arm.sum()))
        return Answers(at_us[arm], nothing, nothing.astype(bool), nothing, loss[arm], failed=0)

    found: list[tuple[str, int]] = []
    for lot in range(LOTS):
        new = np.random.default_rng(lot).random(at_us.size) < 0.5
        for day in range(1, DAYS + 1):
            as_of_us = both.start_us + day * DAY_US
            past = at_us < as_of_us
            told = [np.where(known_us <= as_of_us, one, np.nan) for one in lost]
            seen = analyse(
                EXPERIMENT,
                50,
                answers(told[0], ~new & past),
                answers(told[1], new & past),
                since_us=both.start_us,
                as_of_us=as_of_us,
                ripe_after_us=both.ripe_after_us,
            )
            if seen.labels is not None and seen.labels.state in ("better", "worse"):
                break
        found.append((seen.labels.state, day))
    days = [day for state, day in found if state != "undecided"]
    return {
        "states": dict(Counter(state for state, _ in found)),
        "by": {day: sum(one <= day for one in days) for day in range(1, DAYS + 1)},
        "median": float(np.median(days)) if days else None,
    }
