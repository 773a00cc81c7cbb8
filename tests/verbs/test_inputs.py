"""Inputs: what verbs read, and what stops them."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest

from seatrial import (
    CsvSource,
    Entity,
    FrameSource,
    Model,
    ParquetSource,
    Project,
    QuerySource,
    Split,
    agg,
    expect,
    feature_view,
)
from seatrial.core.clock import FixedClock
from seatrial.data.expectations import DataRefused
from seatrial.features.definitions import BadDefinition
from seatrial.features.events import TypeNotKept, ValueNotNumeric
from seatrial.features.materialize import EventKeyNeeded
from seatrial.folder.loading import BrokenProject, UnknownName
from seatrial.stores.objects import ObjectRepaired
from seatrial.verbs.answering import PredictionRefused
from seatrial.verbs.history import request_fields

RAW = FrameSource(pa.table({"size": [i / 10 for i in range(40)], "heavy": [i > 20 for i in range(40)]}), name="raw")


def project(folder, *, at_most):
    derived = QuerySource(
        "SELECT size * 2 AS size, heavy FROM raw",
        name="derived",
        tables={"raw": RAW},
        expectations=[expect.between("size", 0, at_most)],
    )
    model = Model(
        "heavy",
        task="binary",
        target="heavy",
        labels=derived,
        features=["request:size"],
        estimator="sklearn.linear_model.LogisticRegression",
        cv_folds=0,
    )
    return Project(folder, definitions=[model])


def test_a_derived_source_is_held_to_its_expectations_too(tmp_path):
    with project(tmp_path, at_most=5) as refused:
        assert {report.source: report.passed for report in refused.validate()} == {"raw": True, "derived": False}
        with pytest.raises(DataRefused, match="derived"):
            refused.train()
        assert refused.runs() == []
    with project(tmp_path, at_most=8) as sound:
        assert all(report.passed for report in sound.validate())
        assert sound.train().passed


def test_an_unknown_source_is_named_with_those_there_are(tmp_path):
    with project(tmp_path, at_most=8) as opened, pytest.raises(UnknownName, match="Did you mean 'derived'"):
        opened.validate("derivd")


def test_a_project_file_may_print_and_does_not_reach_the_answer(tmp_path, capsys):
    (tmp_path / "project.py").write_text("print('hello')\n")
    with Project(tmp_path) as opened:
        assert opened.validate() == []
    assert capsys.readouterr() == ("", "hello\n")


@pytest.mark.parametrize("cause", ["raise BaseException('stop')", "raise SystemExit(3)", "1 / 0", "def ("])
def test_a_project_file_that_does_not_run_is_named_with_its_line(tmp_path, cause):
    (tmp_path / "project.py").write_text(f"x = 1\n{cause}\n")
    with Project(tmp_path) as opened, pytest.raises(BrokenProject, match=r"project\.py:2"):
        opened.validate()


def test_a_run_is_released_by_its_id(tmp_path):
    with project(tmp_path, at_most=8) as sound:
        trained = sound.train()
        released = sound.release(trained.run)
        assert (released.version, released.id) == (1, sound.release("heavy").id)


def test_an_infinite_number_is_refused_and_not_taken_for_missing(tmp_path):
    with project(tmp_path, at_most=8) as sound:
        sound.train()
        sound.release()
        sound.deploy(reason="a test")
        with pytest.raises(PredictionRefused, match="'size' is infinite"):
            sound.predict(None, [{"size": float("inf")}])


LABELLED = pa.table(
    {
        "at": pa.array([datetime(2024, 1, 1, tzinfo=UTC)] * 40),
        "shop": [f"s{i}" for i in range(40)],
        "size": [i / 10 for i in range(40)],
        "heavy": [i > 20 for i in range(40)],
    }
)


def with_view(folder, features, column, *, event_key=("receipt",)):
    """A project whose model uses one view: `features` of a source that has `column` beside its keys and times."""
    (name, values), count = next(iter(column.items())), 40
    rows = {"shop": LABELLED["shop"], "sold_at": LABELLED["at"], "receipt": pa.array(range(count)), name: values}
    source = FrameSource(pa.table(rows), name="sales", event_timestamp="sold_at", event_key=event_key)
    body = type("till", (), features)
    till = feature_view(entity=Entity("shop"), source=source)(body)
    model = Model(
        "heavy",
        task="binary",
        target="heavy",
        labels=FrameSource(LABELLED, name="labels", event_timestamp="at", label_known_at="at"),
        features=[till],
        estimator="sklearn.tree.DecisionTreeClassifier",
        split=Split("stratified"),
        cv_folds=0,
    )
    return Project(folder, definitions=[model])


@pytest.mark.parametrize("name", ['we"ird', "it's", "select", "a b", "Größe", "x;y", "{c}"])
def test_a_column_may_have_any_name(tmp_path, name):
    features = {
        "newest": agg.last(name),
        "total": agg.sum(name, window="1d"),
        "count": agg.count(name, window="2d"),
    }
    with with_view(tmp_path, features, {name: pa.array([float(i) for i in range(40)])}) as project:
        assert project.train().passed
        assert project.materialize()[0].written == 40


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[{"a": 1}]] * 40),
        pa.array([{"a": 1}] * 40),
        pa.array([timedelta(hours=1)] * 40),
        pa.array([b"x"] * 40),
        pa.array([time(12)] * 40),
    ],
)
@pytest.mark.parametrize(
    "feature", [agg.last("odd"), agg.sum("odd", window="1d"), agg.count_distinct("odd", window="1d")]
)
@pytest.mark.parametrize("verb", ["train", "materialize"])
def test_a_column_that_no_feature_can_hold_is_refused_by_name_and_type(tmp_path, values, feature, verb):
    with (
        with_view(tmp_path, {"f": feature}, {"odd": values}) as project,
        pytest.raises((TypeNotKept, ValueNotNumeric), match=r"view 'till' .* column 'odd'"),
    ):
        getattr(project, verb)()


def test_rows_with_any_value_are_counted_and_lists_are_last_values(tmp_path):
    features = {"count": agg.count("odd", window="1d"), "last": agg.last("odd")}
    with with_view(tmp_path, features, {"odd": pa.array([[1.0]] * 39 + [None])}) as project:
        assert project.materialize()[0].written == 40


def test_a_number_column_with_a_word_in_it_is_told_by_row_and_value(tmp_path):
    values = pa.array(["1", "n/a", *["2"] * 38])
    with (
        with_view(tmp_path, {"f": agg.mean("n", window="1d")}, {"n": values}) as project,
        pytest.raises(ValueNotNumeric, match="'n', whose type is string") as caught,
    ):
        project.materialize()
    assert "Row 1 (counted from 0) has 'n/a'" in str(caught.value)
    assert "nulls=" in str(caught.value)


def test_windows_that_could_not_be_kept_online_are_refused_at_train(tmp_path):
    features = {"f": agg.mean("n", window="1d")}
    with (
        with_view(tmp_path, features, {"n": pa.array([1.0] * 40)}, event_key=()) as project,
        pytest.raises(EventKeyNeeded, match="'till' has windowed features, but source 'sales' names no event_key"),
    ):
        project.train()


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (CsvSource("a.csv"), ParquetSource("b/a.parquet"), r"CsvSource\('a.csv'\) and ParquetSource\('b/a.parquet'\)"),
        (CsvSource("a.csv"), CsvSource("a.csv", expectations=[expect.not_null("x")]), "differ in expectations"),
        (CsvSource("a.csv"), CsvSource("a.csv", event_key=["x"]), "differ in event_key"),
        (FrameSource(LABELLED, name="a"), FrameSource(LABELLED.slice(1), name="a"), "differ in frame"),
    ],
)
def test_two_sources_of_one_name_are_refused_with_what_differs(tmp_path, one, other, words):
    with Project(tmp_path, definitions=[one, other]) as project, pytest.raises(BadDefinition, match=words):
        project.validate()


def test_one_source_may_be_declared_twice_in_the_same_words(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n")
    twice = [CsvSource("a.csv", event_key=["x"]), CsvSource("a.csv", event_key=("x",))]
    with Project(tmp_path, definitions=twice) as project:
        assert len(project.validate()) == 1


def test_decimals_of_a_request_are_numbers_in_training_prediction_and_replay(tmp_path):
    sizes = pa.array([Decimal(i) / 10 for i in range(40)], pa.decimal128(6, 2))
    labels = pa.table({"size": sizes, "heavy": [i > 20 for i in range(40)]})
    model = Model(
        "heavy",
        task="binary",
        target="heavy",
        labels=FrameSource(labels, name="labels"),
        features=["request:size"],
        estimator="sklearn.tree.DecisionTreeClassifier",
        cv_folds=0,
    )
    with Project(tmp_path, definitions=[model]) as decimals:
        decimals.train()
        decimals.release()
        decimals.deploy(reason="a test")
        rows = [{"size": Decimal("0.10")}, {"size": Decimal("3.90")}]
        assert [answer["prediction"] for answer in decimals.predict(None, rows)] == [0, 1]
    fields = request_fields(labels, ["size"])
    assert fields[1] == {"size": 0.1}
    assert type(fields[1]["size"]) is float


def timed(folder, targets, *, known=None, cutoff_hours=0):
    """A project whose labels have times; `known`: hours after the prediction at which each label is known, or None."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    at = [start + timedelta(hours=i) for i in range(len(targets))]
    columns = {"at": pa.array(at), "size": [i / 10 for i in range(len(targets))], "heavy": targets}
    if known is not None:
        columns["told"] = pa.array([a + timedelta(hours=h) for a, h in zip(at, known, strict=True)])
    model = Model(
        "heavy",
        task="binary",
        target="heavy",
        labels=FrameSource(
            pa.table(columns), name="labels", event_timestamp="at", label_known_at=None if known is None else "told"
        ),
        features=["request:size"],
        estimator="sklearn.tree.DecisionTreeClassifier",
        cv_folds=0,
    )
    return Project(folder, clock=FixedClock(at[-1] + timedelta(hours=cutoff_hours)), definitions=[model])


def test_training_counts_the_rows_without_a_label_and_with_one_that_is_not_known_yet(tmp_path):
    targets = [None if i % 10 == 0 else i % 2 == 0 for i in range(100)]
    with timed(tmp_path, targets, known=[2] * 100) as project:
        trained = project.train()
        assert trained.notes == []
        shown = project.run_show(trained.run)["split"]["rows"]
    assert trained.rows["rows"] == {"given": 100, "unlabelled": 10, "label_not_known": 2, "used": 88} == shown


def test_labels_with_times_and_no_time_of_knowing_are_told_in_one_note(tmp_path):
    with timed(tmp_path, [i % 2 == 0 for i in range(100)]) as project:
        (note,) = (trained := project.train()).notes
        assert "no label_known_at" in note
        assert project.run_show(trained.run)["warnings"] == [note]


@pytest.mark.parametrize(
    "verb", [lambda one: one.snapshot("raw"), lambda one: one.train("heavy")], ids=["snapshot", "train"]
)
def test_rows_that_were_damaged_where_they_are_kept_are_kept_again(tmp_path, verb):
    model = Model(
        "heavy",
        task="binary",
        target="heavy",
        labels=RAW,
        features=["request:size"],
        split=Split("stratified"),
        estimator="sklearn.linear_model.LogisticRegression",
        cv_folds=0,
    )
    Project(tmp_path, definitions=[model]).snapshot("raw")
    (kept,) = (tmp_path / ".seatrial" / "objects" / "snapshots").glob("*.parquet")
    whole = kept.read_bytes()
    kept.chmod(0o644)
    kept.write_bytes(whole[:60] + bytes([whole[60] ^ 0xFF]) + whole[61:])  # the footer stays as it was
    with pytest.warns(ObjectRepaired):
        verb(Project(tmp_path, definitions=[model]))
    assert kept.read_bytes() == whole
