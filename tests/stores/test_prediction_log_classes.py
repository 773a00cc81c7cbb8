"""The prediction log of models of several classes, and segments from before there were any."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from seatrial.stores.prediction_log import PredictionLog
from seatrial.testing.prediction_log_suite import a_row, a_schema

# written by the version before there were classes: p-1, and p-2 without a probability and degraded
BEFORE = (
    "U1RQTE9HAQA4uSVXlQAAADO+XAWaAM8LUD9doffJfKRsYXRloTPZJHJlbF9hYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh"
    "YaRsYXRlkqVkZWxheadjYXJyaWVykadjYXJyaWVyk5KmZmxpZ2h0o2ludJKmbGVhdmVzqXRpbWVzdGFtcJKnY2FycmllcqhjYXRl"
    "Z29yeZGtY2Fycmllcl9kZWxheZUAAAAzvlwFmgDPC1A/XaH3yXykbGF0ZaEz2SRyZWxfYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh"
    "YWFhYWFhYWGkbGF0ZZKlZGVsYXmnY2FycmllcpGnY2FycmllcpOSpmZsaWdodKNpbnSSpmxlYXZlc6l0aW1lc3RhbXCSp2NhcnJp"
    "ZXKoY2F0ZWdvcnmRrWNhcnJpZXJfZGVsYXl3AAAAc76sqdwAEAHPC1A/XaH3yXyjcC0xo3ItMQCldGVzdHOkbGl2Zc8ABNlLXDsw"
    "AM8ABNlLXDswBZLLQCkAAAAAAACiQUGTzQYJzwAE2UtcOzAHokFBkZKncHJlc2VudM8ABNlLXByrgAHLP+gAAAAAAADLP8mZmZmZ"
    "mZqQfAAAAMoSewDcABABzwtQP12h98l8o3AtMqNyLTEApXRlc3RzpGxpdmXPAATZS1w7MADPAATZS1w7MAWSy0ApAAAAAAAAokFB"
    "k80GCc8ABNlLXDswB6JBQZGSp3ByZXNlbnTPAATZS1wcq4ABwMs/yZmZmZmZmpGsb25saW5lX3N0b3Jl"
)
CLASSES = ("early", "late", "on time")


@pytest.fixture
def log(tmp_path):
    return PredictionLog(tmp_path / "log")


def classes_schema(**changes):
    return a_schema(model="trips", classes=CLASSES, **changes)


def classes_row(schema, values, **changes):
    likeliest = int(np.argmax(values))
    told = np.array(values, dtype="<f8").tobytes()
    return a_row(schema, prediction=likeliest, probability=values[likeliest], probabilities=told, **changes)


def test_a_segment_from_before_there_were_classes_is_read(log):
    folder = log.root / "segments"
    folder.mkdir(parents=True)
    (folder / "0.seg").write_bytes(base64.b64decode(BEFORE))
    found = log.rows()
    assert found["prediction_id"].to_pylist() == ["p-1", "p-2"]
    assert found["probability"].to_pylist() == [0.75, None]
    assert found["degraded"].to_pylist() == [[], ["online_store"]]
    assert "predicted_class" not in found.column_names
    assert log.compact().records == 2
    assert log.rows().equals(found)


def test_the_id_of_a_schema_without_classes_is_what_it_was_before(log):
    assert a_schema().id == 815221203935938940
    assert a_schema().id != classes_schema().id


@pytest.mark.parametrize("compacted", [False, True])
def test_every_class_has_its_probability_exactly(log, compacted):
    schema = classes_schema()
    values = [0.1, 0.7000000000000001, 0.2]
    log.append(schema, classes_row(schema, values))
    log.close()
    if compacted:
        log.compact()
    (row,) = log.rows().to_pylist()
    assert [row[f"probability_{name}"] for name in CLASSES] == values
    assert (row["predicted_class"], row["probability"], row["prediction"]) == ("late", values[1], None)


def test_models_with_and_without_classes_share_a_log(log):
    schema, other = classes_schema(), a_schema()
    log.append_all([(schema, classes_row(schema, [0.2, 0.3, 0.5])), (other, a_row(other))])
    log.close()
    found = log.rows()
    assert set(found["predicted_class"].to_pylist()) == {"on time", None}
    assert found["prediction"].type == "double"
    assert log.rows(model="late")["prediction"].to_pylist() == [1.0]


def test_a_release_with_another_class_leaves_the_others_null(log):
    schema, newer = classes_schema(), a_schema(model="trips", version="4", classes=("diverted", *CLASSES))
    log.append(schema, classes_row(schema, [0.2, 0.3, 0.5]))
    log.append(newer, classes_row(newer, [0.4, 0.1, 0.2, 0.3]))
    log.close()
    log.compact()
    found = log.rows(columns=["predicted_class", "probability_*"])
    assert found.column_names == ["predicted_class", *(f"probability_{name}" for name in (*CLASSES, "diverted"))]
    assert found["probability_diverted"].to_pylist() == [None, 0.4]
    assert found["predicted_class"].to_pylist() == ["on time", "diverted"]


def test_five_hundred_classes_are_kept_in_four_kilobytes_a_row(log):
    names = tuple(range(500))
    schema = a_schema(classes=names)
    values = np.random.default_rng(0).dirichlet(np.ones(500))
    log.append(schema, classes_row(schema, values.tolist()))
    before = sum(path.stat().st_size for path in (log.root / "segments").iterdir())
    log.append(schema, classes_row(schema, values.tolist()))
    assert sum(path.stat().st_size for path in (log.root / "segments").iterdir()) - before < 4300
    log.close()
    row = log.rows().to_pylist()[0]
    assert [row[f"probability_{name}"] for name in names] == values.tolist()
