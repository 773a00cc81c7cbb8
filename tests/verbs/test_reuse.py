"""Reuse: who uses a feature, which versions it had, and whether it exists already."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Project
from seatrial.cli import run
from seatrial.core.clock import FixedClock
from seatrial.verbs.reuse import UnknownFeature

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)

PROJECT = """
from seatrial import Entity, Model, ParquetSource, QuerySource, Split, agg, feature_view, on_request

sales = ParquetSource("sales.parquet", event_timestamp="sold_at", event_key=["receipt"])
big = QuerySource("SELECT * FROM sales WHERE amount > 1", tables={"sales": sales}, name="big",
                  event_timestamp="sold_at", event_key=["receipt"])
shop = Entity("shop")

@feature_view(entity=shop, source=sales, ttl="7d", owner="tills", tags=["money"])
class till:
    \"\"\"What a shop takes in.\"\"\"
    total = agg.sum("amount", window="1d")
    newest = agg.last("amount")

@feature_view(entity=shop, source=big, owner="buyers")
class large:
    count = agg.count(window="1d")

@on_request
def share(till__total: float, plan: float) -> float:
    \"\"\"How much of the plan was sold.\"\"\"
    return till__total / plan

labels = ParquetSource("labels.parquet", event_timestamp="at", label_known_at="at")
common = dict(task="binary", target="busy", labels=labels, estimator="sklearn.tree.DecisionTreeClassifier",
              split=Split("stratified"), cv_folds=0)
Model("busy", features=[till], **common)
Model("planned", features=[share, "request:plan"], **common)
"""


@pytest.fixture
def folder(tmp_path):
    """A project of two models, of which one is live and the other a candidate."""
    (tmp_path / "project.py").write_text(PROJECT)
    rows = [
        {"sold_at": NOON - timedelta(hours=i), "shop": f"s{i}", "receipt": f"r{i}", "amount": float(i)}
        for i in range(40)
    ]
    labels = [{"at": NOON, "shop": f"s{i}", "plan": 10.0, "busy": i > 20} for i in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "sales.parquet")
    pq.write_table(pa.Table.from_pylist(labels), tmp_path / "labels.parquet")
    with opened(tmp_path) as project:
        for model in ("busy", "planned"):
            project.train(model)
            project.release(model)
        project.deploy("busy", reason="a test")
    return tmp_path


def opened(folder):
    return Project(folder, clock=FixedClock(NOON))


def changed(folder, old, new):
    assert old in PROJECT
    (folder / "project.py").write_text(PROJECT.replace(old, new))


def more(folder, text):
    (folder / "project.py").write_text(PROJECT + text)


# Who uses it


@pytest.mark.parametrize(
    ("name", "kind", "views", "functions", "models", "states"),
    [
        ("till", "view", [], ["share"], ["busy", "planned"], ["live", "candidate"]),
        ("till__total", "feature", ["till"], ["share"], ["busy", "planned"], ["live", "candidate"]),
        ("till__newest", "feature", ["till"], [], ["busy"], ["live"]),
        ("share", "function", [], [], ["planned"], ["candidate"]),
        ("sales", "source", ["till", "large"], ["share"], ["busy", "planned"], ["live", "candidate"]),
        ("labels", "source", [], [], ["busy", "planned"], []),
        ("big", "source", ["large"], [], [], []),
        ("large", "view", [], [], [], []),
    ],
)
def test_everybody_who_uses_a_name_is_named(folder, name, kind, views, functions, models, states):
    with opened(folder) as project:
        use = project.features_used_by(name)
    assert (use.kind, use.views, use.functions, use.models) == (kind, views, functions, models)
    assert [one.state for one in use.releases] == states
    assert use.deployments == (["busy"] if "live" in states else [])
    assert all(one.as_declared for one in use.releases)


def test_a_view_that_was_changed_or_taken_out_is_still_used_by_its_release(folder):
    changed(folder, 'window="1d")\n    newest', 'window="2d")\n    newest')
    with opened(folder) as project:
        assert [one.as_declared for one in project.features_used_by("till").releases] == [False, False]
    (folder / "project.py").write_text(PROJECT.split("@feature_view")[0])
    with opened(folder) as project:
        assert [one.release for one in project.features_used_by("till").releases] != []
        assert project.features_used_by("till__newest").deployments == ["busy"]


def test_a_name_that_nobody_has_is_an_error_that_knows_a_near_one(folder):
    with opened(folder) as project, pytest.raises(UnknownFeature, match="'tills'") as caught:
        project.features_used_by("tills")
    assert "Did you mean 'till'?" in str(caught.value)


# What it is and was


def test_the_list_says_whose_it_is_and_whether_it_is_live(folder):
    with opened(folder) as project:
        by_column = {one.column: one for one in project.features()}
        assert by_column["till__total"].tags == ["money"]
        assert by_column["till__total"].live == ["busy"]
        assert by_column["large__count"].live == []
    changed(folder, 'window="1d")\n    newest', 'window="2d")\n    newest')
    with opened(folder) as project:
        (live,) = next(one.live for one in project.features() if one.view == "till")
    assert live.startswith("busy (as ")


def test_show_tells_the_versions_and_what_was_changed_since_the_last(folder):
    with opened(folder) as project:
        shown = project.feature_show("till")
        assert [(one["by"], one["declared"], one["declared_in"]) for one in shown["versions"]] == [
            ("train", True, "project.py:10")
        ]
        assert shown["changed_since_frozen"] == []
        assert shown["used_by"]["models"] == ["busy", "planned"]
    changed(folder, 'window="1d")\n    newest', 'window="2d")\n    newest')
    with opened(folder) as project:
        shown = project.feature_show("till")
        assert shown["changed_since_frozen"] == ["feature total: sum(amount, window=1d) -> sum(amount, window=2d)"]
        project.materialize("till")
        shown = project.feature_show("till")
        assert [(one["by"], one["declared"]) for one in shown["versions"]] == [("materialize", True), ("train", False)]
        assert project.feature_show("till__newest")["used_by"]["deployments"] == ["busy"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("till", ["till__newest", "till__total", "share"]),
        ("money total", ["till__total"]),
        ("AMOUNT last", ["till__newest"]),
        ("buyers", ["large__count"]),
        ("plan sold", ["share"]),
        ("zebra", []),
    ],
)
def test_search_finds_names_words_owners_tags_columns_and_expressions(folder, text, names):
    with opened(folder) as project:
        assert [one.name for one in project.features_search(text).found] == names


def test_a_search_that_finds_nothing_proposes_words(folder):
    with opened(folder) as project:
        assert project.features_search("mony").did_you_mean == "money"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("features list", "till__total"),
        ("features show till", "What a shop takes in."),
        ("features search money", "tags"),
        ("features search mony", "Did you mean 'money'?"),
        ("features used-by sales", "large"),
        ("features used-by large", "Nobody uses it."),
    ],
)
def test_the_commands_answer_in_text_and_in_json(folder, capsys, words, said):
    assert run([*words.split(), "--project", str(folder)]) == 0
    assert said in capsys.readouterr().out
    assert run([*words.split(), "--project", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_validate_ends_with_5_when_a_live_release_would_break(folder, capsys):
    changed(
        folder,
        'sales = ParquetSource("sales.parquet", event_timestamp="sold_at", event_key=["receipt"])',
        'sales = ParquetSource("sales.parquet", event_timestamp="sold_at", event_key=["shop", "receipt"])',
    )
    assert run(["validate", "--project", str(folder)]) == 5
    out = capsys.readouterr()
    assert "view 'till', live in busy, can be fed: Source 'sales' had event_key=['receipt']" in out.out
    assert "BreaksLiveRelease [project.breaks_live_release]: release rel_" in out.err
    assert run(["train", "busy", "--project", str(folder)]) == 5


# Is it there already

AGAIN = """
copy = ParquetSource("sales.parquet", name="copy", event_timestamp="sold_at", event_key=["receipt"])

@feature_view(entity=shop, source=copy, owner="me")
class desk:
    sum_24h = agg.sum("amount", window="24h")
    other = agg.sum("amount", window="25h")
    newest = agg.last("amount")
"""


def test_a_feature_that_exists_already_is_pointed_out(folder, capsys):
    more(folder, AGAIN)
    with opened(folder) as project:
        same = {one.column: one.same_as for one in project.features() if one.same_as}
        assert same == {"desk__sum_24h": "till__total"}  # without the ttl, the newest one is another
        assert project.feature_show("desk")["same_as"] == same
        (report,) = [one.as_plain() for one in project.validate() if one.as_plain().get("kind") == "reuse"]
        assert report["passed"]
    assert run(["validate", "--project", str(folder)]) == 0
    out = capsys.readouterr()
    assert "note: desk__sum_24h is till__total again; use that one" in out.out
    assert run(["features", "list", "--project", str(folder)]) == 0
    assert "same as" in capsys.readouterr().out


def test_a_copy_of_the_rows_in_another_file_is_the_same_feature_once_both_were_kept(folder):
    (folder / "elsewhere.parquet").write_bytes((folder / "sales.parquet").read_bytes())
    more(folder, AGAIN.replace('"sales.parquet"', '"elsewhere.parquet"'))
    with opened(folder) as project:
        assert all(one.same_as is None for one in project.features())
        project.snapshot()
    with opened(folder) as project:
        assert {one.column for one in project.features() if one.same_as} == {"desk__sum_24h"}


def test_a_feature_that_was_frozen_under_another_name_is_pointed_out(folder):
    text = PROJECT.replace("class till", "class desk").replace("till__", "desk__").replace("[till]", "[desk]")
    (folder / "project.py").write_text(text)
    with opened(folder) as project:
        same = {one.column: one.same_as for one in project.features() if one.same_as}
    assert same == {
        f"desk__{name}": f"till__{name} (frozen 2024-01-01T12:00:00Z, no longer declared)"
        for name in ("total", "newest")
    }


def test_a_training_says_once_which_of_its_features_exist_already(folder):
    more(folder, AGAIN + 'Model("third", features=[desk], **common)')
    with opened(folder) as project:
        assert [note for note in project.train("third").notes if "again" in note] == [
            "desk__sum_24h is till__total again: the same function of the same rows; use that one."
        ]
        assert not any("again" in note for note in project.train("busy").notes)


def test_a_feature_of_another_project_is_pointed_out_when_its_rows_are_the_same(folder, tmp_path):
    second = tmp_path / "second"
    second.mkdir()
    with opened(folder) as project:
        digest = project.definitions.views["till"].digest
    for name in ("sales", "labels"):
        (second / f"{name}.parquet").write_bytes((folder / f"{name}.parquet").read_bytes())
    shared = f'\\nfrom seatrial import shared_view\\nshared_view("..", "till", digest="{digest}")\\n'.replace(
        "\\n", "\n"
    )
    text = PROJECT.replace("class till", "class desk").replace("till__", "desk__").replace("[till]", "[desk]")
    (second / "project.py").write_text(text + shared)
    with opened(second) as project:
        assert all(one.same_as is None for one in project.features())
        project.snapshot("sales")
    with opened(second) as project:
        listed = {one.column: one for one in project.features()}
    assert listed["desk__total"].same_as == "till__total"
    assert listed["till__total"].shared_from == ".."


def test_a_view_of_a_project_that_is_away_is_listed_with_the_problem(folder):
    more(folder, '\nfrom seatrial import shared_view\nshared_view("../away", "gone", digest="0123456789ab")\n')
    with opened(folder) as project:
        (gone,) = [one for one in project.features() if one.view == "gone"]
        assert "there is no folder" in gone.problem
        assert [one.name for one in project.features_search("money").found] != []
