"""The whole demo, from raw data to the end of the year, as `make demo` runs it. Minutes long: `make long`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seatrial.cli import demo
from seatrial.cli.story import WEEKLY

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """The demo's account as JSON."""
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("sys.stdout.write", printed.append)
        demo.run(tmp_path_factory.mktemp("demo") / "flights", as_json=True)
    return json.loads("".join(printed))


def told(account, name, *words):
    """The lines of the steps of this name that hold all the words."""
    lines = [line for step in account["steps"] if step["step"] == name for line in step["outcome"]]
    return [line for line in lines if all(word in line for word in words)]


def test_april_is_asked_whole_while_its_events_are_pushed_as_they_become_known(account):
    assert account["predictions"] == 28_330
    assert told(account, "serve and predict", "28,330 flights", "140,348 events")


def test_the_alarm_of_april_is_told_and_the_silence_of_the_drift_statistics(account):
    assert account["alarm"] == "2013-04-23T04:00:00Z"
    assert told(account, "monitor", "nothing new")


def test_each_challenger_is_looked_at_every_week_and_the_first_look_that_says_better_is_the_last(account):
    assert told(account, "retrain", "6 May to 24 June: 8 looks, inconclusive")
    assert told(account, "retrain", "28 June: inconclusive")
    assert told(account, "retrain", "8 July to 9 September: 11 looks, inconclusive")
    assert told(account, "retrain", "16 September: better")
    assert told(account, "approve", "Refused")


def test_the_canary_takes_its_steps_and_the_notebooks_model_is_taken_back(account):
    assert told(account, "promote", "advance to 100 %")
    assert told(account, "deploy", "roll back")
    assert told(account, "rollback", "Version 1 answers again")


def test_the_dates_of_the_ending_are_those_on_which_the_trigger_fires_when_asked(account):
    losses = account["log_loss"]
    assert losses["never"] > losses["on alarm"] > losses["every week"] == WEEKLY
    assert told(account, "backtest", "when the trigger fired (29 April and 9 September)")
    assert told(account, "backtest", "had nobody rejected it, on 15 July: better")


def test_the_page_tells_what_the_steps_told(account):
    page = Path(account["page"]).read_text(encoding="utf-8")
    for date in ("16 September", "9 September", "15 July"):
        assert date in page
