"""A long log is read in batches, and says what the same log says when it is read at once."""

from __future__ import annotations

import gc
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from seatrial.core.clock import to_us
from seatrial.core.windows import Window
from seatrial.monitoring.imported import monitor_log, rehearse_log
from seatrial.monitoring.looks.drift import drift
from seatrial.monitoring.looks.quality import quality
from seatrial.monitoring.rows.against import BadReference, ReferenceTooSmall, of_window
from seatrial.monitoring.rows.foreign import LogColumnWrong, LogMissing, read_log, read_reference
from seatrial.monitoring.rows.mapping import read_map
from seatrial.monitoring.rows.streamed import CopyUnwritable
from seatrial.stores.prediction_log import PredictionLog

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW_US = to_us(START + timedelta(days=14))
DAY_US = 86_400_000_000


def table(count=4000, *, shift=0.0, days=14, sort=True):
    random = np.random.default_rng(5)
    at = np.sort(random.integers(0, days * DAY_US, count)) if sort else random.integers(0, days * DAY_US, count)
    late = at > days // 2 * DAY_US
    dark = random.random(count) < 0.05
    return pa.table(
        {
            "t": pa.array(to_us(START) + at, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
            "p": random.random(count),
            "y": (random.random(count) < 0.5).astype(int),
            "size": pa.array(random.normal(size=count) + shift * late, mask=dark),
            "weight": pa.array(random.normal(size=count).astype(np.float32), mask=dark),
            "on": random.random(count) < 0.5,
            "plan": pa.array(random.choice(["a", "b", "c"], count)).dictionary_encode(),
            "none": pa.nulls(count),
            "when": pa.array([START] * count),
        }
    )


@pytest.fixture
def given(tmp_path):
    (tmp_path / "map.toml").write_text('model = "m"\ntimestamp = "t"\nscore = "p"\nlabel = "y"\n')

    def write(rows, name="log.parquet", **how):
        pq.write_table(rows, tmp_path / name, **how)
        return tmp_path / name, tmp_path / "map.toml"

    return write


def both(log, mapping, **more):
    return [
        read_log(log, read_map(mapping), as_of_us=more.get("as_of_us", NOW_US), long=most).sample
        for most in (10**9, -1)
    ]


def same(one, other):
    """Sums of floats hang on the order in which they are added up."""

    def close(a, b):
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            [close(a[name], b[name]) for name in a]
        elif isinstance(a, list):
            [close(*pair) for pair in zip(a, b, strict=True)]
        else:
            assert a == (pytest.approx(b) if isinstance(b, float) else b)

    close(msgspec.to_builtins(one), msgspec.to_builtins(other))


@pytest.mark.parametrize("sort", [True, False])
def test_a_streamed_log_has_the_drift_and_quality_of_one_read_at_once(given, sort):
    log, mapping = given(table(shift=1.0, sort=sort), row_group_size=700)
    at_once, streamed = both(log, mapping)
    assert streamed.inputs is not None
    assert not [name for name in streamed.rows.column_names if name.startswith("feature_")]
    assert at_once.features == streamed.features == ["size", "weight", "on", "plan", "none"]
    halves = Window(to_us(START), to_us(START) + 7 * DAY_US), Window(to_us(START) + 7 * DAY_US, NOW_US)
    one, other = (of_window(each, halves[0]) for each in (at_once, streamed))
    assert one.together == other.together != {}
    found = [drift(each.within(halves[1]), one) for each in (at_once, streamed)]
    assert [each.name for each in found[0].columns if each.drifted] == ["size"]
    same(*found)
    same(drift(streamed.within(halves[1]), other), found[0])
    checks = [quality(each.within(halves[1]), one, until_us=NOW_US) for each in (at_once, streamed)]
    assert checks[0] == checks[1]


def test_what_is_not_known_yet_does_not_count_in_a_streamed_log_either(given):
    log, mapping = given(table())
    at_once, streamed = both(log, mapping, as_of_us=to_us(START) + 3 * DAY_US)
    reference = of_window(at_once, Window(to_us(START), to_us(START) + 3 * DAY_US))
    assert streamed.counted(reference).rows == at_once.rows.num_rows < 1500


def test_a_long_reference_is_read_column_by_column_and_is_the_same(given, tmp_path):
    log, mapping = given(table(count=3000))
    given(table(), "reference.parquet", row_group_size=500)
    sample = both(log, mapping)[0]
    one, other = (
        read_reference(tmp_path / "reference.parquet", read_map(mapping), sample, long=most) for most in (10**9, -1)
    )
    same(drift(sample, one), drift(sample, other))
    assert (one.together, one.rows_per_day) == (other.together, other.rows_per_day)
    timeless = table().drop_columns(["t", "p", "y"])
    given(timeless, "reference.parquet")
    one, other = (
        read_reference(tmp_path / "reference.parquet", read_map(mapping), sample, long=most) for most in (10**9, -1)
    )
    same(drift(sample, one), drift(sample, other))


def test_files_with_other_columns_or_types_are_put_together_as_when_they_are_read_at_once(given, tmp_path):
    (tmp_path / "log").mkdir()
    rows = table()
    pq.write_table(rows.slice(0, 2000), tmp_path / "log" / "1.parquet")
    later = (
        rows.slice(2000)
        .drop_columns(["weight"])
        .cast(
            pa.schema(
                [f.with_type(pa.float32()) if f.name == "size" else f for f in rows.drop_columns(["weight"]).schema]
            )
        )
    )
    pq.write_table(later, tmp_path / "log" / "2.parquet")
    _, mapping = given(rows)
    at_once, streamed = both(tmp_path / "log", mapping)
    reference = of_window(at_once, Window(to_us(START), to_us(START) + 5 * DAY_US))
    same(drift(at_once, reference), drift(streamed, reference))
    assert streamed.inputs.missing("weight") == at_once.rows["feature_weight"].null_count / 4000 > 0.5
    found = streamed.with_input(streamed.rows.slice(1900, 200), "weight")["feature_weight"]
    assert found.to_pylist() == at_once.rows["feature_weight"].slice(1900, 200).to_pylist()
    pq.write_table(later.set_column(1, "p", pa.array(["x"] * 2000)), tmp_path / "log" / "2.parquet")
    for most in (-1, 10**9):
        with pytest.raises(LogMissing):
            read_log(tmp_path / "log", read_map(mapping), as_of_us=NOW_US, long=most)


@pytest.mark.parametrize("sort", [True, False])
def test_where_rows_are_needed_every_so_many_th_comes_with_its_inputs(given, sort, monkeypatch):
    log, mapping = given(table(sort=sort), row_group_size=300)
    at_once, streamed = both(log, mapping)
    whole = streamed.few()
    assert whole.inputs is None
    for name in ("size", "plan", "none"):
        assert whole.rows[f"feature_{name}"].to_pylist() == at_once.rows[f"feature_{name}"].to_pylist()
    monkeypatch.setattr("seatrial.monitoring.rows.streamed.FEW", 5 * 500)
    few = streamed.few()
    assert few.rows["feature_size"].to_pylist() == at_once.rows["feature_size"].to_pylist()[::8]
    assert few.rows["score"].to_pylist() == at_once.rows["score"].to_pylist()[::8]
    assert few.within(Window(to_us(START), to_us(START) + DAY_US)).rows.num_rows > 20
    assert at_once.few() is at_once


def test_the_report_on_a_streamed_log_says_what_it_looked_at(given, monkeypatch):
    log, mapping = given(table())
    monkeypatch.setattr("seatrial.monitoring.rows.foreign.LONG", -1)
    monkeypatch.setattr("seatrial.monitoring.rows.streamed.FEW", 5 * 2000)
    report = monitor_log(log, mapping, as_of_us=NOW_US, window=Window(to_us(START), NOW_US))
    assert report.rows == 4000
    assert any("look at 2,000 of its 4,000 rows" in words for words in report.findings)


def test_incidents_are_planted_in_the_inputs_of_a_streamed_log(given, tmp_path, monkeypatch):
    log, mapping = given(table(6 * 24 * 200, days=6))
    mapping.write_text(mapping.read_text() + 'every = "1h"\nfeatures = ["size", "plan"]\n')
    pq.write_table(table(20_000), tmp_path / "ref.parquet")
    found = []
    for most in (10**9, -1):
        monkeypatch.setattr("seatrial.monitoring.rows.foreign.LONG", most)
        over = rehearse_log(log, mapping, tmp_path / "ref.parquet", as_of_us=NOW_US, over_us=6 * DAY_US)
        found.append({one.words: (one.found, one.planted) for one in over.incidents})
    assert found[0] == found[1]
    assert found[1]["an input moves by 0.5 sd"] == (4, 4)


def test_a_long_csv_is_copied_in_batches_and_says_what_the_parquet_says(given, tmp_path, monkeypatch):
    rows = table().drop_columns(["none", "when"])
    _, mapping = given(rows)
    csv = rows.set_column(0, "t", rows["t"].cast(pa.string())).set_column(6, "plan", rows["plan"].cast(pa.string()))
    pacsv.write_csv(csv, tmp_path / "log.csv")
    at_once, streamed = (
        read_log(path, read_map(mapping), as_of_us=NOW_US, long=most).sample
        for path, most in ((tmp_path / "log.csv", 10**9), (tmp_path / "log.csv", -1))
    )
    copy = streamed.inputs.copy.path
    assert copy.is_dir()
    reference = of_window(at_once, Window(to_us(START), to_us(START) + 7 * DAY_US))
    same(drift(at_once, reference), drift(streamed, reference))
    del streamed
    gc.collect()
    assert not copy.exists()
    mapping.write_text('model = "m"\ntimestamp = "t"\nscore = "plan"\n')
    monkeypatch.setattr("seatrial.monitoring.rows.foreign.LONG", -1)
    with pytest.raises(LogColumnWrong) as told:
        monitor_log(tmp_path / "log.csv", mapping, as_of_us=NOW_US)
    assert str(tmp_path / "log.csv") in str(told.value)
    assert "rows.parquet" not in str(told.value)


@pytest.mark.parametrize("compacted", [True, False, None])
def test_a_long_log_of_ours_has_the_drift_and_quality_of_one_read_at_once(tmp_path, monkeypatch, compacted):
    """Also where some lies in segments, and an input was a number once and text later."""
    random = np.random.default_rng(1)
    log = PredictionLog(tmp_path / "log")
    for n in range(1200):
        size = None if n % 17 == 0 else float(random.normal()) + (n > 600)
        word = n % 3 if n < 200 else "abc"[n % 3]
        at = START + timedelta(minutes=15 * int(random.integers(1200)))
        log.write(model="m", features={"size": size, "word": word}, prediction=0.0, probability=random.random(), at=at)
        if compacted is None and n == 700:
            log.rotate()
            log.compact()
    log.rotate()
    if compacted:
        log.compact()
    (tmp_path / "map.toml").write_text('model = "m"\nwithout = ["other"]\n')
    columns = read_map(tmp_path / "map.toml")
    at_once = read_log(tmp_path / "log", columns, as_of_us=NOW_US).sample
    monkeypatch.setattr("seatrial.monitoring.rows.streamed.LONG", -1)
    streamed = read_log(tmp_path / "log", columns, as_of_us=NOW_US).sample
    assert streamed.inputs is not None
    assert at_once.features == streamed.features == ["size", "word"]
    assert streamed.rows["prediction_id"].to_pylist() == at_once.rows["prediction_id"].to_pylist()
    reference = of_window(at_once, Window(to_us(START), to_us(START) + 5 * DAY_US))
    same(drift(at_once, reference), drift(streamed, reference))
    assert quality(at_once, reference, until_us=NOW_US) == quality(streamed, reference, until_us=NOW_US)
    few = streamed.few().rows
    assert few["feature_size"].to_pylist() == at_once.rows["feature_size"].to_pylist()
    assert few["feature_word"].to_pylist() == at_once.rows["feature_word"].to_pylist()
    log.close()


def test_a_copy_for_which_there_is_no_room_is_told(given, tmp_path, monkeypatch):
    rows = table(300).drop_columns(["none", "when", "plan"])
    _, mapping = given(rows)
    pacsv.write_csv(rows, tmp_path / "log.csv")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not there"))
    with pytest.raises(CopyUnwritable, match="No such file"):
        read_log(tmp_path / "log.csv", read_map(mapping), as_of_us=NOW_US, long=-1)


# Against a past window


def test_a_report_compares_with_the_days_before_its_window(given):
    log, mapping = given(table(shift=1.0))
    found = monitor_log(log, mapping, as_of_us=NOW_US, against="7d")
    assert found.drift.reference == "the predictions of 2024-01-01T00:00:00Z/2024-01-08T00:00:00Z"
    assert [one.name for one in found.drift.columns if one.drifted] == ["size"]
    assert found.verdict == "watch"
    named = monitor_log(log, mapping, as_of_us=NOW_US, against="2024-01-01/2024-01-08")
    assert named.drift == found.drift
    assert monitor_log(given(table())[0], mapping, as_of_us=NOW_US, against="7d").drift.columns[0].drifted is False


@pytest.mark.parametrize("against", ["yesterday", "training", "champion", "2024-01-01/2024-01-10", "-3d", "40000d"])
def test_what_cannot_be_compared_with_is_refused(given, against):
    log, mapping = given(table())
    with pytest.raises(BadReference):
        monitor_log(log, mapping, as_of_us=NOW_US, against=against)


def test_a_past_window_with_few_rows_says_how_many(given):
    log, mapping = given(table())
    with pytest.raises(ReferenceTooSmall, match="holds 0 predictions"):
        monitor_log(log, mapping, as_of_us=NOW_US, against="2023-01-01/2023-01-02")


def test_a_reference_and_a_past_window_are_one_too_many(given, tmp_path):
    log, mapping = given(table())
    with pytest.raises(BadReference, match="both"):
        monitor_log(log, mapping, log, as_of_us=NOW_US, against="7d")
