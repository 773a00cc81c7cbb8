"""Skew in a report: what a replay found, and from when on somebody is told."""

from __future__ import annotations

import pytest
from scipy.stats import binom

from seatrial.features.skew import FeatureSkew, SkewReport
from seatrial.monitoring.looks.skew import TOLERATED, alarm, behind, skew


def replayed(mismatched, rows=200, *, notes=(), **classes):
    classes = classes or {"materialized late": mismatched}
    features = [FeatureSkew("till__amount", "till", rows, mismatched, mismatched / max(rows, 1), classes)]
    share = mismatched / max(rows, 1)
    return skew(SkewReport("late", "a/b", 4 * rows, rows, mismatched, share, features, notes=list(notes)), 0)


@pytest.mark.parametrize("mismatched", [0, 5, 10, 15, 18, 22, 24, 40, 200])
def test_an_alarm_takes_more_mismatches_than_are_tolerated_beyond_chance(mismatched):
    by_chance = binom.sf(mismatched - 1, 200, TOLERATED)
    assert by_chance < 0.0006 or by_chance > 0.006  # so that it is clear
    told = alarm(replayed(mismatched), "late")
    assert (told.state, told.severity, told.value) == (
        "fired" if by_chance < 0.001 else "quiet",
        "medium",
        mismatched / 200,
    )


def test_the_worst_feature_is_named_with_what_most_of_its_mismatches_are():
    words = replayed(30, **{"missing online": 4, "materialized late": 26, "different value": 0}).words
    assert words == (
        "of 200 of 800 predictions that were joined again 15.0% had other features online "
        "('till__amount' materialized late)"
    )
    assert replayed(0).words.endswith("every feature was online what it is offline")


def test_what_could_not_be_joined_again_is_not_quiet():
    told = alarm(replayed(0, rows=0, notes=["view 'till' was not joined again: its source is gone"]), "late")
    assert (told.state, told.value) == ("not_enough_data", None)
    assert "its source is gone" in told.note


def test_a_feature_is_behind_when_it_is_late_or_missing_and_not_wrong_in_another_way():
    assert behind(replayed(30, **{"missing online": 4, "materialized late": 26})) == {"till__amount"}
    assert behind(replayed(30, **{"missing online": 4, "different value": 26})) == set()
    assert behind(replayed(3)) == behind(None) == set()  # a few always are
