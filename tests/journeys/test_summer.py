"""The summer of 2013, asked of a server flight by flight: an A/B test that a guardrail ends.

The model of the winter is live since 1 April. By 1 July it predicts too low, a challenger learns from all flights whose
outcome is known, and nobody can say yet whether it is better: half of the flights of the next weeks are its. Minutes
long: `make long`. What it found is told in docs/story.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from seatrial import Project
from seatrial.cli.canary_story import taken_up
from seatrial.core.clock import to_us
from seatrial.core.errors import SeatrialError
from seatrial.core.windows import Window
from tests.journeys.worlds import ENGINEER, REVIEWER, opened, served

pytestmark = pytest.mark.long
DAY = timedelta(days=1)
REASON = "the summer is later than the winter"


def day(month: int, number: int) -> datetime:
    """Midnight in New York (summer time) of a day of 2013."""
    return datetime(2013, month, number, 4, tzinfo=UTC)


def window(start: datetime, end: datetime) -> Window:
    return Window(to_us(start), to_us(end))


def at(project: Project, when: datetime, actor: str = ENGINEER) -> Project:
    project.clock.set(when)
    project.actor = actor
    return project


def winter(folder: Path) -> Project:
    """The project whose first release, of the winter, is live since 1 April."""
    Project.init(folder, "flights").close()
    file = folder / "project.py"
    text = file.read_text().replace("strategy=canary", 'strategy=ABTest(50, judge_for="28d")')
    file.write_text(text.replace("from seatrial import (\n", "from seatrial import (\n    ABTest,\n"))
    project = opened(folder, day(4, 1))
    project.release(project.train("late").run)
    at(project, day(4, 1), REVIEWER).approve("late", reason="every gate passed")
    at(project, day(4, 1)).deploy("late")
    return project


@pytest.fixture(scope="module")
def summer(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """1 July: the calibration of the winter's model, a challenger, and an A/B test until it has decided."""
    folder = tmp_path_factory.mktemp("summer") / "flights"
    project = at(winter(folder), day(7, 1))
    trained = project.retrain("late", "train", reason=REASON)
    early = refusal(lambda: at(project, day(7, 1), REVIEWER).promote("late"))
    approved = project.approve("late", reason="nobody knows yet: let half of the flights tell")
    champion = at(project, day(8, 1)).predict_batch("late", window(day(7, 1), day(8, 1)))
    at(project, day(7, 1)).materialize()
    looks: list[tuple[int, Any]] = []
    with served(folder, "--replay") as (_, url):
        begun = project.promote("late", reason="an experiment")
        taken_up(url, begun.generation)
        for number in range(1, 29):
            start = day(7, 1) + (number - 1) * DAY
            project.replay("late", window(start, start + DAY), url=url)
            at(project, start + DAY).label("late")
            looks.append((number, project.deployment_advance("late")))
            _note({"day": number, "look": looks[-1][1]})
            if looks[-1][1].analysis.verdict != "hold":
                break
    found = SimpleNamespace(
        trained=trained, early=early, approved=approved, champion=champion, begun=begun, looks=looks,
        after=project.status()[0], proposal=project.proposals("late")[-1],
    )  # fmt: skip
    _note({"july": champion.metrics, "live": found.after.live, "state": found.proposal.state})
    yield found
    project.close()


def _note(found: dict[str, Any]) -> None:
    """Keep what docs/story.md is written from, where somebody asked for it."""
    if os.environ.get("STORY"):
        with Path(os.environ["STORY"]).open("a") as file:
            file.write(json.dumps(msgspec.to_builtins(found), default=str) + "\n")


def refusal(act: Any) -> SeatrialError:
    with pytest.raises(SeatrialError) as error:
        act()
    return error.value


def test_the_winters_model_says_too_little_in_july(summer):
    assert 0.06 <= summer.champion.metrics["expected_calibration_error"] <= 0.10
    assert 0.55 <= summer.champion.metrics["log_loss"] <= 0.567


def test_a_challenger_that_nobody_knows_to_be_better_may_only_be_tried(summer):
    assert summer.early.code == "approval.not_better"
    assert summer.approved.experiment == "ab_test of 'late', decided by labels"
    assert (summer.begun.share, summer.trained.proposal.state) == (50, "judging")


def test_the_guardrail_of_the_mean_score_takes_back_what_only_labels_could_have_shown_to_be_better(summer):
    (number, last) = summer.looks[-1]
    assert 7 <= number <= 10
    assert last.analysis.verdict == "roll back"
    (crossed,) = [one for one in last.analysis.guardrails if one.state == "crossed"]
    assert (crossed.name, 0.1 < crossed.low < crossed.difference < 0.15) == ("mean_score", True)
    assert last.analysis.labels.state == "undecided"
    assert {look.analysis.verdict for _, look in summer.looks[:-1]} == {"hold"}


def test_the_winters_model_has_all_of_the_traffic_again_and_the_proposal_is_over(summer):
    assert summer.after.live == "1"
    assert summer.proposal.state == "rolled back"
