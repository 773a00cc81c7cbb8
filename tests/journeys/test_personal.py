"""Personal columns, from the declaration to reports: no value reaches the log, and labels find their predictions."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from seatrial import BlueGreen, Deployment, FrameSource, Model, Project, Split
from seatrial.core.clock import FixedClock
from seatrial.core.windows import Window
from seatrial.features.definitions import BadDefinition
from seatrial.serving.service import NotReady

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
NOON_US = int(NOON.timestamp() * 1e6)
SHOPS = [f"shop-{i}" for i in range(6)]
CHANCE = random.Random(4)
ROWS = [
    {
        "at": NOON + timedelta(minutes=place),
        "shop": CHANCE.choice(SHOPS),
        "age": float(place % 60),
        "amount": float(place),
        "back": place % 60 > 30,
    }
    for place in range(240)
]
SECRET = "shop-"


def model(**changes):
    given = {
        "task": "binary",
        "target": "back",
        "key": ["shop", "amount"],
        "labels": FrameSource(pa.Table.from_pylist(ROWS), name="rows", event_timestamp="at", label_known_at="at"),
        "features": ["request:shop", "request:age", "request:amount"],
        "estimator": "sklearn.ensemble.HistGradientBoostingClassifier",
        "split": Split("random"),
        "cv_folds": 0,
        "owner": "shops",
        "runbook": "none",
        "personal": {"shop": "hash", "age": "drop"},
    }
    return Model("back", **given | changes)


LABELS = [{"shop": row["shop"], "amount": row["amount"], "label": row["back"]} for row in ROWS[:40]]


def request(row):
    return {name: row[name] for name in ("shop", "age", "amount")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("personal")
    with opened(folder) as project:
        assert project.train().passed
        project.release()
        project.deploy(reason="a test")
        for row in ROWS[:40]:
            project.predict("back", [request(row)], at=row["at"])
    return folder


def opened(folder, **changes):
    clock = FixedClock(NOON + timedelta(days=1))
    definitions = [model(**changes), Deployment("back", strategy=BlueGreen())]
    return Project(folder, definitions=definitions, clock=clock, actor="ops")


def test_no_value_reaches_the_log_or_the_labels(folder):
    with opened(folder) as project:
        project.label("back", LABELS)
        rows = project.log.rows()
    kept = b"".join(path.read_bytes() for path in (folder / ".seatrial" / "log").rglob("*") if path.is_file())
    assert SECRET.encode() not in kept
    assert SECRET not in json.dumps(rows.to_pylist(), default=str)
    assert {"field_shop", "feature_shop", "feature_amount"} <= set(rows.column_names)
    assert "feature_age" not in rows.column_names
    assert "field_age" not in rows.column_names
    assert rows["field_shop"].to_pylist() == rows["feature_shop"].to_pylist()
    assert len(set(rows["field_shop"].to_pylist())) == len({row["shop"] for row in ROWS[:40]})
    assert rows["feature_amount"].to_pylist() == [float(place) for place in range(40)]


def test_labels_find_their_predictions_by_the_hashed_key(folder):
    with opened(folder) as project:
        told = project.label("back", LABELS)
        assert (told.matched, told.unmatched) == (40, 0)
        sample = project._sample(project._model("back"), None)
        assert sample.label_values().tolist() == [float(row["back"]) for row in ROWS[:40]]


def test_labels_of_the_source_are_told_once(folder):
    with opened(folder) as project:
        project.label("back")
        assert project.label("back").told == 0


def test_drift_of_a_hashed_column_is_measured_on_pseudonyms_and_of_a_dropped_one_not(folder):
    with opened(folder) as project:
        report = project.monitor("back", window=Window(NOON_US, NOON_US + 3_600_000_000), keep=False)
        columns = {one.name: one for one in report.drift.columns}
    assert "age" not in columns
    assert columns["shop"].unseen == 0.0
    assert columns["shop"].rows == 40


def test_explaining_says_what_is_not_known(folder):
    with opened(folder) as project:
        id = project.log.rows(columns=["prediction_id"])["prediction_id"][0].as_py()
        explained = project.explain(id)
    assert "personal" in explained.note
    assert explained.replays[0].score is None
    assert explained.replays[0].note == "not known: it reads shop, age, not logged"
    assert {one.name: one.logged for one in explained.inputs}["age"] is False


def test_history_scored_in_batch_is_logged_the_same_way(folder):
    with opened(folder) as project:
        window = Window(NOON_US + 100 * 60_000_000, NOON_US + 110 * 60_000_000)
        assert project.predict_batch("back", window).logged == 10
        rows = project.log.rows(window=window)
    assert SECRET not in json.dumps(rows.to_pylist(), default=str)


def test_a_server_without_the_key_does_not_serve_the_release(folder, tmp_path):
    (folder / ".seatrial" / "keys" / "personal.key").rename(tmp_path / "personal.key")
    try:
        with opened(folder) as project, pytest.raises(NotReady) as error:
            project.predict("back", [request(ROWS[0])])
        assert "personal.no_key" in str(error.value)
    finally:
        (tmp_path / "personal.key").rename(folder / ".seatrial" / "keys" / "personal.key")


def test_the_key_is_in_no_release_and_only_its_owner_reads_it(folder):
    key = folder / ".seatrial" / "keys" / "personal.key"
    assert key.stat().st_mode & 0o077 == 0
    for path in (folder / ".seatrial" / "objects").rglob("*"):
        assert not path.is_file() or key.read_bytes().strip() not in path.read_bytes()


def test_a_column_of_the_key_cannot_be_dropped():
    with pytest.raises(BadDefinition, match="labels find their predictions"):
        model(personal={"shop": "drop"})
    with pytest.raises(BadDefinition, match="personal"):
        model(personal={"shop": "encrypt"})


def test_a_window_of_releases_before_and_after_the_declaration_is_not_called_broken(tmp_path):
    for changes, rows in (({"personal": {}}, ROWS[:60]), ({}, ROWS[60:90])):
        with opened(tmp_path, **changes) as project:
            assert project.train().passed
            project.release()
            project.deploy(reason="a test")
            for row in rows:
                project.predict("back", [request(row)], at=row["at"])
    with opened(tmp_path) as project:
        window = Window(NOON_US, NOON_US + 90 * 60_000_000)
        report = project.monitor("back", window=window, keep=False)
    assert not [check for check in report.quality if not check.passed]
    assert {one.name for one in report.drift.columns} == {"amount"}
    assert any("age, shop of this window cannot be compared" in one for one in report.findings)
