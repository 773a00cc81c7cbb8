"""How a rollout is drawn on a terminal."""

from __future__ import annotations

from seatrial.cli.rolling import _evidence, drawn, guardrails, left, split_bar, status
from seatrial.cli.rolling_page import page


def figure(low, value, high, *, name="errors", margin=0.01, state="open"):
    return {"name": name, "margin": margin, "live": 0.01, "new": 0.01 + value, "difference": value, "low": low,
            "high": high, "state": state}  # fmt: skip


def test_an_interval_lies_between_its_ends_on_a_line_with_the_margin():
    assert drawn(figure(-0.005, 0.0, 0.005), 21) == "        ├─●─┤  ┃     "


def test_an_interval_that_goes_on_has_an_arrow_and_a_margin_on_both_sides_where_both_count():
    assert drawn(figure(0.004, 0.015, 0.5), 21) == "          ┊ ├──┃──● ▸".replace("● ▸", "●─▸")
    both = drawn(figure(-0.9, -0.001, 0.0, name="mean_score"), 21)
    assert (both[0], both[5], both[15]) == ("◂", "┃", "┃")


def test_a_share_is_a_bar_with_a_mark_where_it_was_wanted():
    assert split_bar(0.5, 0.25, 8) == "██┃█░░░░"
    assert split_bar(0.001, None, 8) == "▏░░░░░░░"
    assert split_bar(0.0, 1.0, 4) == "░░░┃"


def test_what_was_not_measured_is_said_and_drawn_by_nothing():
    none = {**figure(0, 0, 0), "difference": None, "low": None, "high": None, "live": None, "new": None}
    (*_, line) = guardrails([none | {"state": "not measured"}], 120)
    assert "not measured" in line.text


def test_time_that_is_left_is_told_in_words():
    analysis = {"as_of": "2024-01-01T00:00:00.5Z", "ends": "2024-01-02T07:30:00Z"}
    assert left(analysis) == "1d7h29m more at the least, until 2024-01-02T07:30:00Z"
    assert left(analysis | {"as_of": "2024-01-03T00:00:00Z"}) == "its shortest time was over 2024-01-02T07:30:00Z"


def test_looks_in_a_row_that_came_to_the_same_are_one_line():
    looks = [{"as_of": f"2024-01-0{day}", "verdict": verdict, "why": f"look {day}"}
             for day, verdict in enumerate(["hold", "hold", "hold", "advance", "hold"], 1)]  # fmt: skip
    thing = {"deployment": "late", "rollout": None, "analysis": None, "history": looks}
    assert list(status(thing)[-1].rows) == [
        ("2024-01-03", "hold ×3", "look 3"), ("2024-01-04", "advance", "look 4"), ("2024-01-05", "hold", "look 5"),
    ]  # fmt: skip


def test_a_release_that_loses_is_told_by_how_much_and_not_by_how_little_it_gains():
    said = {"unit": "day", "days": 9, "state": "undecided", "ripening": 0, "gain": -0.0406, "low": -0.07, "high": 0.01}
    metric = said | {"name": "revenue", "margin": None, "missing": {"live": 0, "new": 0}, "mixed": 0, "stray": 0,
                     "requests": {"live": 9, "new": 9}, "warning": ""}  # fmt: skip
    analysis = {
        "rows": {"live": 950, "new": 50}, "wanted": 0.5, "observed": 0.5, "split": 1, "needed": 1000, "labels": said,
        "metric": metric, "verdict": "hold", "why": "undecided", "guardrails": [], "as_of": "2024-01-01T00:00:00Z",
        "ends": "2024-01-02T00:00:00Z",
    }  # fmt: skip
    text = "\n".join(line.text for line in _evidence(analysis))
    assert "the loss is higher by +0.0406 [-0.01, +0.07] a day" in text
    assert "worse by +0.0406 [-0.01, +0.07] a day" in text


def test_a_rollout_is_a_page_with_every_figure_and_nothing_that_is_not_escaped():
    unmeasured = figure(0, 0, 0) | dict.fromkeys(("difference", "low", "high", "live", "new"))
    guarded = [figure(-0.002, 0.001, 0.004), figure(0.02, 0.05, 0.9, state="crossed"), unmeasured]
    analysis = {
        "as_of": "2024-01-01T00:00:00Z", "ends": "2024-01-02T00:00:00Z", "rows": {"live": 950, "new": 50},
        "wanted": 0.05, "observed": 0.05, "needed": 1000, "labels": None, "metric": None, "verdict": "hold",
        "why": "not <b>enough</b>", "guardrails": guarded,
    }  # fmt: skip
    rollout = {"strategy": "canary", "live": "rel_1", "new": "rel_2", "step": 0, "steps": [5, 100], "since": "x"}
    looks = [{"as_of": "2024-01-01", "verdict": "hold", "why": "not enough data"}]
    made = page({"deployment": "late<", "rollout": rollout, "analysis": analysis, "history": looks})
    assert "not &lt;b&gt;enough" in made
    assert "late<" not in made
    assert made.count('<line class="interval') == 2
    assert '<line class="interval crossed"' in made
    assert "not enough data" in made
    assert "no rollout is under way" in page(
        {"deployment": "late", "rollout": None, "analysis": None, "history": looks}
    )
