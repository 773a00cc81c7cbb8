"""Rendering: aligned text in a pipe, the same words with colour on a terminal, and nothing lost."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import msgspec
import pytest

from seatrial.cli import render
from seatrial.cli.render import Line, Table

RUN = {
    "model": "late",
    "run": "run_1",
    "version": 3,
    "passed": True,
    "metrics": {"roc_auc": 0.7256, "log_loss": 0.5331},
    "baseline": {"log_loss": 0.592},
    "cv": None,
    "gates": [
        {"gate": "roc_auc at least 0.7", "value": 0.7256, "threshold": 0.7, "passed": True, "reason": ""},
        {"gate": "log_loss not worse", "value": None, "threshold": None, "passed": False, "reason": "no rows"},
    ],
    "rows": {
        "kind": "time",
        "rows": {"given": 80013, "unlabelled": 2186, "label_not_known": 0, "used": 77827},
        "train": {"rows": 62000},
        "test": {"rows": 15566},
        "purged": 261,
        "refit_rows": 77827,
    },
    "training_set": "tset_1",
    "snapshots": ["snap_1"],
    "seconds": 3.2,
}
RELEASE = {
    "id": "rel_1",
    "model": "late",
    "version": 3,
    "semantic_version": "1.0.0",
    "explanation": "the first release",
    "format": "onnx",
    "parity": {"rows": 27564, "largest": 2.8e-07, "flipped": 0, "passed": True, "tolerance": 1e-06},
    "path": "objects/rel_1.seatrial",
    "bytes": 442_000,
    "new": True,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def piped(blocks) -> str:
    out = io.StringIO()
    render.write(blocks, out)
    return out.getvalue()


def on_terminal(blocks) -> str:
    out = Terminal()
    render.write(blocks, out)
    return out.getvalue()


def test_a_piped_table_is_aligned_numbers_to_the_right_and_has_no_colour():
    table = Table(("name", "rows", "ok"), [("flights", 336776, True), ("weather", None, False)])
    assert piped([table]) == "name        rows  ok\nflights  336,776  ✓\nweather        -  ✗\n"


def test_a_table_without_rows_shows_its_columns():
    assert piped([Table(("name", "rows"), [])]) == "name  rows\n"


def test_a_terminal_shows_the_same_words(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    blocks = render.trained(RUN)
    seen = on_terminal(blocks)
    assert "\x1b[" in seen
    for word in piped(blocks).split():
        assert word in seen


def test_no_color_is_respected(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[3" not in on_terminal([Line("✗ no", "red"), Table(("ok",), [(True,)])])


def test_brackets_in_names_are_not_taken_for_markup(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert "[red]late[/red]" in on_terminal([Line("[red]late[/red]"), Table(("x",), [("[bold]y",)])])
    assert "[bold]y" in on_terminal([Table(("x",), [("[bold]y",)])])


def test_plain_takes_structs_dataclasses_and_things_that_say_their_plain_form():
    class Struct(msgspec.Struct, frozen=True):
        a: int

    @dataclass(frozen=True)
    class Data:
        b: tuple[int, ...]

    class Own:
        def as_plain(self):
            return {"c": 1}

    assert render.plain([Struct(1), Data((1, 2)), Own(), {"d": Own()}]) == [
        {"a": 1},
        {"b": [1, 2]},
        {"c": 1},
        {"d": {"c": 1}},
    ]


def test_training_shows_every_gate_with_its_mark_and_what_to_do_next():
    shown = piped(render.trained(RUN))
    assert "✓  roc_auc at least 0.7  0.7256" in shown
    assert "✗  log_loss not worse         -          -  no rows" in shown
    assert "0.592" in shown
    assert "80,013 rows: 62,000 to train, 15,566 to test (time), 2,186 without label, 261 purged\n" in shown
    assert shown.endswith("✓ Version 3 of late is the candidate.\nNext: seatrial release late\n")


def test_training_shows_intervals_the_worst_slice_the_threshold_and_what_was_waived():
    gate = {
        "gate": "r2 at least 1",
        "value": 0.5,
        "threshold": 1,
        "passed": False,
        "reason": "low",
        "waived": "a pilot",
    }
    costs = {"value": 0.197, "costs": {"false_positive": 1}, "test_cost": 0.54, "test_cost_at_half": 0.83}
    values = [
        {"value": "UA", "rows": 900, "too_few": False, "metrics": {"roc_auc": 0.71}},
        {"value": "DL", "rows": 400, "too_few": False, "metrics": {"roc_auc": 0.61}},
        {"value": "HA", "rows": 9, "too_few": True, "metrics": {"roc_auc": None}},
    ]
    drawn = {"few": True, "clusters": 12, "unit": "hour", "of": {"roc_auc": [0.71, 0.74], "log_loss": None}}
    sliced = {"carrier": {"metric": "roc_auc", "worst": "DL", "slices": values}}
    text = piped(render.trained(RUN | {"gates": [gate], "threshold": costs, "intervals": drawn, "slices": sliced}))
    assert "0.71 to 0.74" in text
    assert "12 hours only: the intervals are too narrow" in text
    assert "Decisions at 0.197, where a test row costs 0.54 on average; at 0.5 it would be 0.83." in text
    (carrier,) = [line.split() for line in text.splitlines() if line.startswith("carrier")]
    assert carrier == ["carrier", "3", "DL", "400", "roc_auc", "0.61", "1"]
    assert "low; waived: a pilot" in text


def test_a_refused_training_says_that_the_run_is_kept():
    shown = piped(render.trained(RUN | {"passed": False, "version": None}))
    assert "the run is kept, no version was made" in shown
    assert "Next: seatrial release" not in shown


def test_a_release_shows_its_number_the_reason_and_the_parity():
    shown = piped(render.released(RELEASE))
    assert "late 1.0.0 (rel_1) packed" in shown
    assert "the first release" in shown
    assert "27,564 rows, largest difference 2.8e-07 (at most 1e-06 is allowed)" in shown
    assert "seatrial deploy late --release rel_1" in shown


def test_a_release_that_needs_a_second_person_says_so_before_the_deployment():
    lines = piped(render.released(RELEASE | {"needs_approval": True})).splitlines()
    assert lines[-2] == 'Next: seatrial approve rel_1 --reason "..." --actor SECOND_PERSON'
    assert lines[-1] == "Then: seatrial deploy late --release rel_1"


def test_predictions_say_which_views_had_nothing_fresh_and_show_the_features_that_were_asked_for():
    answer = {"prediction": 1, "prediction_id": "p", "views": {"delay": "missing", "here": "present"}}
    shown = piped(render.predicted([answer | {"features": {"delay__last": None, "distance": 5.0}}]))
    assert "view delay: missing\n" in shown
    assert "view here" not in shown
    assert "features of p\n  delay__last  -\n  distance     5\n" in shown
    assert "view delay: missing for 1 of 2 rows" in piped(render.predicted([answer, {"prediction": 0}]))


def test_a_list_of_features_is_no_wider_than_a_screen_and_says_what_it_leaves_out():
    one = {"column": "v__f", "definition": "mean(sql('a + b'), window=24h)", "entity": "shop", "source": "s"}
    assert "not shown here" not in piped(render.features([one]))
    wide = one | {"definition": "mean(" + "x" * 200 + ")", "tags": ["t" * 30], "source": "s" * 60}
    shown = piped(render.features([one, wide]))
    assert max(map(len, shown.splitlines())) <= 120
    assert "not shown here: tags, source, entity" in shown
    assert "xxx…" in shown


def test_what_was_written_is_explained_and_no_view_at_all_is_said():
    row = {
        "view": "v",
        "rows": 3,
        "written": 1,
        "unchanged": 1,
        "unknown": 1,
        "entities": 1,
        "release": "",
        "problem": "",
    }
    shown = piped(render.written([row]))
    assert all(f"{word}: " in shown for word in ("written", "unchanged", "unknown"))
    assert "problem" not in shown
    assert "no row" in piped(render.written([row | {"problem": "no row"}]))
    assert "declares no feature view" in piped(render.written([]))


def test_a_deployment_names_what_was_live_and_how_to_serve():
    done = {"deployment": "late", "generation": 2, "live": "rel_2", "version": "4", "previous": "rel_1"}
    done |= {"strategy": "blue_green"}
    shown = piped(render.deployed(done))
    assert "late: version 4 is live (rel_2)" in shown
    assert "rel_1" in shown
    assert shown.endswith("Next: seatrial serve\n")
    assert "nothing was live" in piped(render.deployed(done | {"previous": None}))


def test_a_replay_shows_how_good_the_answers_were():
    done = {"model": "late", "window": "a/b", "predictions": 27564, "pushed": 3, "labelled": 26000, "seconds": 9.5}
    done |= {"metrics": {"roc_auc": 0.7256}, "per_second": 2901.5}
    shown = piped(render.replayed(done))
    assert "27,564 predictions of late over a/b" in shown
    assert "roc_auc  0.7256" in shown
    assert "26,000" in shown


def test_validation_shows_the_rows_of_what_failed_only():
    report = {
        "source": "weather",
        "rows": 26115,
        "passed": False,
        "set_aside": [],
        "results": [
            {"expectation": "temp between -40 and 130", "passed": True, "failing": 0, "detail": "", "examples": []},
            {
                "expectation": "wind_speed between 0 and 150",
                "passed": False,
                "failing": 1,
                "detail": "",
                "examples": ["wind_speed 1048.36 at EWR 2013-02-12T08:00Z"],
            },
        ],
    }
    shown = piped(render.validated([report]))
    assert "weather: 26,115 rows" in shown
    assert "✓ temp between -40 and 130\n" in shown
    assert "✗ wind_speed between 0 and 150: 1 rows" in shown or "✗ wind_speed between 0 and 150: 1 row" in shown
    assert "1048.36 at EWR" in shown


def test_doctor_says_what_to_do_only_where_something_is_wrong():
    good = {"name": "python", "passed": True, "found": "3.11.7", "next": "unneeded"}
    bad = {"name": "disk", "passed": False, "found": "1 MB free", "next": "free some"}
    shown = piped(render.checked([good, bad]))
    assert "free some" in shown
    assert "unneeded" not in shown


def test_status_of_a_project_without_models_says_how_to_begin():
    assert "declare a Model" in piped(render.statuses([]))


def test_a_status_card_leaves_out_what_is_empty():
    card = {"model": "late", "owner": "flight-ops", "live": None, "release": None, "since": None, "candidate": None}
    card |= {"training_set": None, "snapshots": [], "parameters": {}, "performance": {}, "next": "seatrial train late"}
    assert piped(render.statuses([card])) == (
        "late\n  live          nothing\n  owner         flight-ops\n  Next: seatrial train late\n"
    )


def test_deployments_show_since_when_and_the_releases_to_return_to():
    arm = {"name": "live", "release": "rel_2", "share": 10000, "bundle": "x"}
    first = {"at": "2013-04-01T00:00:00Z", "kind": "deploy", "actor": "ann", "arms": [arm | {"release": "rel_1"}]}
    then = {"at": "2013-05-01T00:00:00Z", "kind": "deploy", "actor": "bob", "arms": [arm], "reason": "new data"}
    thing = {"deployment": "late", "generation": 2, "strategy": "blue_green", "arms": [arm], "history": [first, then]}
    assert piped(render.deployments([thing])).splitlines()[1].split() == (
        ["late", "rel_2", "2", "2013-05-01T00:00:00Z", "bob"]
    )
    shown = piped(render.deployment(thing))
    assert shown.startswith("late: rel_2\n")
    assert "rel_1" in shown
    assert "new data" in shown
    assert "rel_2 2.5 %" in piped(render.deployments([thing | {"arms": [arm | {"share": 250}]}]))


def test_a_list_leaves_out_fields_that_hold_things_themselves():
    things = [{"id": "a", "body": {"x": 1}, "many": [{"y": 1}], "names": ["n", "m"]}, {"id": "b", "rows": 2}]
    assert piped(render.listing(things)) == "id  names  rows\na   n, m      -\nb   -         2\n"


def test_audit_events_are_told_by_number_and_time():
    event = {"seq": 1200, "recorded_at_us": 0, "kind": "deploy", "subject": "deployment/late", "actor": "ann"}
    assert piped(render.events([event])).splitlines()[1].split() == (
        ["1200", "1970-01-01T00:00:00Z", "deploy", "deployment/late", "ann"]
    )


def test_the_audit_shows_the_anchor_or_the_first_bad_event():
    report = {"events": 1200, "head": {"seq": 1200, "hash": "ab"}, "anchors": 0, "first_bad": None}
    assert piped(render.audited(report)).startswith("✓ 1,200 events")
    assert "1200 ab" in piped(render.audited(report))
    broken = report | {"first_bad": {"seq": 7, "reason": "it was changed"}}
    assert piped(render.audited(broken)) == "✗ 1,200 events; event 7 is bad: it was changed.\n"


def test_a_list_of_nothing_says_so():
    assert piped(render.listing([])) == "None yet.\n"


def test_details_show_every_field_and_nested_ones_below():
    shown = piped(render.details({"id": "rel_1", "files": {"a.onnx": 12}, "list": [{"x": 1}], "none": None}))
    assert "id     rel_1" in shown
    assert "a.onnx  12" in shown
    assert "- x 1" in shown
    assert "none   -" in shown
    assert "1970-01-01T00:00:01Z" in piped(render.details({"cutoff_us": 1_000_000, "ttl_us": 5}))


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1,234,567"), (0.000012345678, "1.2346e-05"), (2.0, "2"), ("a\nb", "a b"), (False, "✗")],
)
def test_values_are_short(value, text):
    assert render.shown(value) == text


def test_a_release_whose_manifest_leaves_out_what_is_usual_is_shown():
    request = [{"name": "origin", "dtype": "category"}, {"name": "hour", "dtype": "int", "nullable": False}]
    manifest = {
        "id": "rel_1", "path": "x", "model": "late", "version": 1, "semantic_version": "1.0.0", "explanation": "First.",
        "model_format": "onnx", "signature": {"request": request}, "threshold": None,
        "parity": {}, "estimator": "e", "parameters": {}, "metrics": {}, "gates": [], "owner": "", "on_call": "",
        "runbook": "", "lineage": {"run": "run_1", "training_set": "", "commit": ""}, "example": {"origin": "JFK"},
    }  # fmt: skip
    shown = piped(render.release(manifest))
    assert "origin (category, may be null), hour (int)\n" in shown
    assert '{"features": {"origin": "JFK"}}' in shown


def test_an_answer_of_several_classes_shows_the_likeliest_ones():
    answer = {"prediction": "late", "probability": {"a": 0.1, "late": 0.6, "b": 0.25, "c": 0.05}, "request_id": "r"}
    told = piped(render.predicted([answer]))
    assert "late 0.600, b 0.250, a 0.100, 1 more" in told


ID = "rel_94d279f1a18dac3ebbc70223ef054089"
WIDE = Table(
    ("release", "model", "version", "live", "bytes", "actor", "why"),
    [(ID, "churn_of_customers", 12, "churn_of_customers", 24_816, "somebody", "because the old one was wrong")],
)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_narrow_terminal_breaks_no_id_and_no_word(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    lines = re.sub(r"\x1b\[\d*m", "", on_terminal([WIDE])).splitlines()
    assert max(map(len, lines)) <= width
    words = {word.rstrip(",") for line in lines for word in line.split()}
    assert ID in words
    assert "churn_of_customers" in words
    allowed = {word for column in (*WIDE.columns, *map(render.shown, WIDE.rows[0])) for word in column.split()}
    assert words - {"too", "narrow", "for:", "(--json", "has", "all)"} <= allowed


@pytest.mark.parametrize("width", [0, 2, 20])
def test_a_terminal_that_says_it_has_no_width_is_not_believed(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    shown = on_terminal([render.Line("what was found is told as it is", hang=2), Table(("ok",), [("yes",)])])
    assert shown.splitlines()[:2] == ["what was found is", "  told as it is"]
    assert "yes" in shown


def test_what_does_not_fit_is_left_out_the_least_important_first_and_named(monkeypatch):
    fit, widths, left = render.fitted(WIDE, 80)
    assert left[:2] == ["bytes", "actor"]
    assert fit.columns[0] == "release"
    assert widths[0] == len(ID)
    assert render.fitted(WIDE, 300)[2] == []


def test_an_id_stays_whole_where_there_is_room_for_nothing_else():
    fit, widths, left = render.fitted(WIDE, 30)
    assert (list(fit.columns), widths) == (["release"], [len(ID)])
    assert len(left) == 6


@pytest.mark.parametrize("shows", [piped, on_terminal])
def test_numbers_of_an_even_table_stand_below_each_other_by_their_decimal_points(monkeypatch, shows):
    monkeypatch.setenv("NO_COLOR", "1")
    rows = [["roc_auc", 0.81916, 336776], ["error", 0.0651, None], ["constant", 1.7e-16, 3], ["none", None, 4]]
    shown = shows([Table(("metric", "now", "rows"), rows, even=True)])
    lines = [line.rstrip() for line in shown.splitlines()[1:]]
    assert [line.split() for line in lines] == [
        ["roc_auc", "0.819", "336,776"],
        ["error", "0.065", "-"],
        ["constant", "0.000", "3"],
        ["none", "-", "4"],
    ]
    assert len({line.index(".") for line in lines[:3]}) == 1


def test_a_line_that_hangs_goes_on_between_words_where_it_is_told_to(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    words = "labels:  95 % of those that come are there within 8 % of the time"
    assert on_terminal([render.Line(words, hang=9)]).splitlines() == [
        "labels:  95 % of those that come are",
        "         there within 8 % of the time",
    ]
    assert piped([render.Line(words, hang=9)]) == words + "\n"
    assert on_terminal([render.Line(words)]) == words + "\n"


def test_steps_that_were_reused_are_named():
    assert "note: cross-validate: taken from an earlier run" in piped(
        render.trained(RUN | {"reused": ["cross-validate"]})
    )


def test_of_many_parameters_those_that_are_no_defaults_are_shown():
    from sklearn.linear_model import LogisticRegression

    given = {name: repr(value) for name, value in LogisticRegression(C=0.25).get_params().items()}
    assert render._stated(given, "sklearn.linear_model.LogisticRegression") == "C 0.25"
    assert render._stated({"steps": "[('a', A())]", "a": "A()"}, "sklearn.pipeline.Pipeline") == "[('a', A())]"


def test_files_written_here_are_not_written_to_a_full_stop():
    written = piped(render.exported({"folder": ".", "files": ["a"]}))
    assert "1 file written to this folder." in written
