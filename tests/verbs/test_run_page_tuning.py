"""How the parameters of a run were found, in the terminal and on its page."""

from __future__ import annotations

import io

from seatrial.cli import render
from seatrial.cli.runs import tuning
from seatrial.verbs.run_page import _tuning, ranked_trials


def trial(number, value, state="finished", **more):
    return {
        "number": number,
        "params": {"C": 0.5, "k": "a"},
        "value": value,
        "state": state,
        "folds": 3,
        "seconds": 1.0,
    } | more


def record(trials, better="lower", **more):
    best = next(one for one in trials if one["state"] == "finished")
    return {
        "metric": "log_loss",
        "better": better,
        "trials": trials,
        "best": {name: best[name] for name in ("number", "params", "value")},
        "pruned": sum(one["state"] == "pruned" for one in trials),
        "failed": sum(one["state"] == "failed" for one in trials),
    } | more


TRIALS = [
    trial(0, 0.4),
    trial(1, 0.3, "pruned", folds=1),
    trial(2, None, "failed", error="<b>no</b>"),
    trial(3, 0.5),
    trial(4, 0.6),
]


def test_trials_are_ranked_by_value_and_those_that_did_not_finish_come_last():
    assert [one["number"] for one in ranked_trials(record(TRIALS))] == [0, 3, 4, 1, 2]
    assert [one["number"] for one in ranked_trials(record(TRIALS, better="higher"))] == [4, 3, 0, 1, 2]


def test_the_terminal_shows_the_best_trials_and_what_mattered():
    out = io.StringIO()
    render.write(tuning(record([*TRIALS, trial(5, 0.7)], importance={"C": 0.9, "k": 0.1})), out)
    text = out.getvalue()
    assert "6 trials (1 pruned, 1 failed); trial 0 is the best" in text
    assert "1 more trials" in text
    assert "What mattered: C 90%, k 10%" in text


def test_the_page_draws_each_trial_with_a_value_and_escapes_errors():
    page = _tuning({"tuning": record(TRIALS, importance={"C": 0.9, "k": 0.1})})
    assert page.count("<circle") == 4
    assert "&lt;b&gt;no" in page
    assert "<b>no" not in page
    assert "fANOVA" in page
    assert "0 (best)" in page


def test_a_record_without_importance_and_a_run_without_tuning_are_shown():
    assert "What mattered" not in _tuning({"tuning": record(TRIALS[:1])})
    assert _tuning({}) == ""


def test_a_trial_far_off_does_not_press_the_others_into_a_line():
    page = _tuning({"tuning": record([trial(i, 0.5 + i / 100) for i in range(9)] + [trial(9, 1e6)])})
    assert "1 lie beyond the edge" in page
