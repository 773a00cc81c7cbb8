"""Declarations: each column that a view, model or deployment names and no source has is named, before training."""

from __future__ import annotations

import json
import textwrap

import pytest

from seatrial.cli import run

PROJECT = """
    from seatrial import CsvSource, Deployment, Entity, Model, QuerySource, agg, feature_view, on_request

    events = CsvSource("events.csv", event_timestamp="at")
    joined = QuerySource("SELECT *, delay * 2 AS twice FROM events", tables={"events": events}, name="joined",
                         event_timestamp="at")

    @feature_view(entity=Entity("carrier"), source=joined)
    class lateness:
        last = agg.last("twice")

    @on_request
    def share(distance: float, lateness__last: float) -> float:
        return lateness__last / distance

    Model("late", task="binary", target="late", key=["id"], features=[lateness, share, "request:origin"],
          labels=CsvSource("labels.csv", event_timestamp="at"), estimator="lightgbm.LGBMClassifier")
    Deployment("late", route_by="carrier")
"""


@pytest.fixture
def validated(tmp_path, capsys):
    """Validate the project after replacing words in it: (exit code, differences by what names them, error code)."""
    (tmp_path / "events.csv").write_text("carrier,at,delay\nAA,2013-01-01T00:00:00Z,3\n")
    (tmp_path / "labels.csv").write_text("id,at,carrier,origin,distance,late\n1,2013-01-02T00:00:00Z,AA,JFK,100,true\n")

    def validate(old="", new=""):
        assert old in PROJECT
        (tmp_path / "project.py").write_text(textwrap.dedent(PROJECT.replace(old, new) if old else PROJECT))
        code = run(["validate", "--project", str(tmp_path), "--json"])
        out = capsys.readouterr()
        reports = [one for one in json.loads(out.out) if one.get("kind") == "declaration"]
        found = {one["source"]: [f"{r['expectation']}: {r['detail']}" for r in one["results"]] for one in reports}
        return code, found, json.loads(out.err)["code"] if out.err else None

    return validate


def test_a_project_whose_columns_are_all_there_is_sound(validated):
    assert validated() == (0, {}, None)


@pytest.mark.parametrize(
    ("old", "new", "where", "near"),
    [
        ('target="late"', 'target="lat"', "model late", "Did you mean 'late'?"),
        ('key=["id"]', 'key=["idd"]', "model late", "Did you mean 'id'?"),
        ('"request:origin"', '"request:orign"', "model late", "Did you mean 'origin'?"),
        ("distance", "distanc", "model late", "Did you mean 'distance'?"),
        ("lateness__last", "lateness__lasst", "model late", "lasst"),
        ('agg.last("twice")', 'agg.last("twise")', "view lateness", "Did you mean 'twice'?"),
        ('Entity("carrier")', 'Entity("carier")', "view lateness", "Did you mean 'carrier'?"),
        ('route_by="carrier"', 'route_by="carriers"', "deployment late", "Did you mean 'carrier'?"),
        ('Deployment("late"', 'Deployment("lates"', "deployment lates", "Did you mean 'late'?"),
    ],
)
def test_a_misspelt_column_is_named_with_the_one_that_was_meant(validated, old, new, where, near):
    code, found, problem = validated(old, new)
    assert (code, problem) == (1, "project.declarations_differ")
    assert any(near in difference for difference in found[where])


def test_every_difference_is_told_at_once_and_for_people_too(validated, tmp_path, capsys):
    validated('target="late", key=["id"]', 'target="lat", key=["idd"]')
    assert run(["validate", "--project", str(tmp_path)]) == 1
    out = capsys.readouterr()
    assert "✗ its target, 'lat', is there: source 'labels' has id, at, carrier, origin, distance, late." in out.out
    assert "its key, 'idd'" in out.err
    assert "its target, 'lat'" in out.err


@pytest.mark.parametrize(
    ("functions", "features", "words"),
    [
        (["a(b)", "b(a)"], "a, b", "request-time functions need each other: a needs b needs a."),
        (["a(c)", "b(a)", "c(b)"], "a, b, c", "need each other: a needs c needs b needs a."),
        (["a(b)", "b(distance)"], "a, b", "request-time function 'a' needs 'b', which the model lists after it."),
        (["a(gone__last)"], "a", "no view is named 'gone'. Declared are lateness."),
    ],
)
def test_functions_that_cannot_be_put_in_an_order_are_named(validated, functions, features, words):
    defined = "".join(
        f"    @on_request\n    def {head}:\n        return {head.split('(')[1].rstrip(')')} + 1\n\n"
        for head in functions
    )
    code, found, problem = validated(
        '    Model("late", task="binary", target="late", key=["id"], features=[lateness, share, "request:origin"]',
        f'{defined}    Model("late", task="binary", target="late", key=["id"], features=[lateness, {features}]',
    )
    assert (code, problem) == (1, "project.declarations_differ")
    assert words in found["model late"][0]


def test_functions_in_the_order_in_which_they_are_needed_are_sound(validated):
    new = '    @on_request\n    def twice(share):\n        return share * 2\n\n    Model("late", task="binary",'
    text = 'key=["id"], features=[lateness, share, "request:origin"]'
    code, found, _ = validated(
        f'    Model("late", task="binary", target="late", {text}',
        f'{new} target="late", key=["id"], features=[lateness, share, twice]',
    )
    assert (code, found) == (0, {})


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        (
            'name="joined",\n                         event_timestamp="at")',
            'name="joined")',
            2,
            "names no event_timestamp",
        ),
        ('event_timestamp="at")\n    joined', 'event_timestamp="att")\n    joined', 1, "no column 'att'"),
        (
            'name="joined",\n                         event_timestamp="at"',
            'name="joined", event_timestamp="att"',
            1,
            "'att'",
        ),
    ],
)
def test_a_source_without_its_time_column_is_one_clear_error(validated, tmp_path, capsys, old, new, code, words):
    validated()
    (tmp_path / "project.py").write_text(textwrap.dedent(PROJECT.replace(old, new)))
    assert PROJECT.replace(old, new) != PROJECT
    for verb in ("validate", "materialize"):
        assert run([verb, "--project", str(tmp_path)]) == code
        assert words in capsys.readouterr().err


def test_an_expression_that_cannot_be_computed_is_named(validated):
    code, found, _ = validated('agg.last("twice")', 'agg.last(__import__("seatrial").sql("twise + 1"))')
    assert code == 1
    assert "the expression of feature 'last' can be computed" in found["view lateness"][0]
    assert "Did you mean 'twice'" in found["view lateness"][0]
