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
