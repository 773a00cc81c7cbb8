"""The story's page and pictures against the record that they are made of."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta

import pytest

from tests.journeys.pictures import FOLDER, RECORD, drawn
from tests.journeys.test_summer import FAULT

PAGE = FOLDER.parent / "story.md"


@pytest.fixture(scope="module")
def record():
    return json.loads(RECORD.read_text(encoding="utf-8"))


def test_every_picture_is_what_the_record_draws_and_the_page_shows_it(record):
    pictures = drawn(record)
    shown = set(re.findall(r"\(pictures/(story_\w+\.svg)\)", PAGE.read_text(encoding="utf-8")))
    assert shown == set(pictures)
    for name, svg in pictures.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == svg, f"{name}: python -m tests.journeys.pictures"


def test_the_page_says_the_figures_of_the_record(record):
    page = PAGE.read_text(encoding="utf-8")
    figures = [record[name][key] for name in ("april", "july", "left alone") for key in ("gain", "low", "high")]
    figures += [record["year"][name] for name in ("never", "on alarm", "weekly")]
    decided = record["experiment"][-1]
    figures += [decided["gain"], decided["low"], decided["high"]]
    figures += [record["stale"]["day"][key] for key in ("log_loss", "log_loss of the right inputs")]
    for figure in figures:
        assert re.search(rf"(?<![\d.]){told(figure)}(?!\d)", page), figure


def test_the_page_says_the_dates_that_the_looks_and_the_trigger_gave(record):
    page = PAGE.read_text(encoding="utf-8")
    last = date.fromisoformat(record["july"]["days"][-1][0][:10])
    looked = last + timedelta(days=2)  # the day between waits for the flights that are in the air
    dates = [date.fromisoformat(one) for one in (*record["year"]["fired"], record["left alone"]["when"])]
    for one in (*dates, looked, FAULT):
        assert f"{one:%-d %B}" in page


def test_the_page_says_on_which_days_of_july_a_rule_failed_whatever_was_served(record):
    failed = [number + 10 for number, day in enumerate(record["month"]) if day["failed"]["right"]]
    assert [number + 10 for number, day in enumerate(record["month"]) if day["failed"]["stale"]] == failed
    (*most, last) = failed
    assert f"({', '.join(map(str, most))} and {last} July)" in PAGE.read_text(encoding="utf-8")


def told(figure: float) -> str:
    """As the page writes it: with three or four digits, and no zero before the point."""
    ways = {f"{figure:.{digits}f}".replace("0.", ".", 1) for digits in (3, 4)}
    return "(" + "|".join(map(re.escape, ways)) + ")"


def test_the_experiment_of_the_record_decided_in_its_second_week_and_the_challenger_of_april_never(record):
    assert [one["verdict"] for one in record["experiment"]][:-1] == ["hold"] * (len(record["experiment"]) - 1)
    assert 7 <= record["experiment"][-1]["day"] <= 16
    assert (record["april"]["verdict"], record["july"]["verdict"]) == ("inconclusive", "better")
