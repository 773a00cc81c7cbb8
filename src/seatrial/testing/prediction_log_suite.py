"""Every fact that a prediction log must satisfy. Inherit `PredictionLogSuite` and give it one fixture, `log`.

class TestMyLog(PredictionLogSuite):
    @pytest.fixture
    def log(self, tmp_path):
        return MyLog(tmp_path)
"""

from __future__ import annotations

from typing import Any

from seatrial.core.identity import uuid7
from seatrial.core.windows import DAY_US, Window, parse_window
from seatrial.stores.prediction_log import LoggedPrediction, LogSchema, PredictionLog, log_schema

NOON_US = 1_364_817_600_000_000  # 2013-04-01T12:00Z


def a_schema(**changes: Any) -> LogSchema:
    """A schema with one number, one category, a key, a time and a view."""
    given: dict[str, Any] = {
        "model": "late",
        "version": "3",
        "release": "rel_" + "a" * 32,
        "deployment": "late",
        "inputs": ("delay", "carrier"),
        "categories": ("carrier",),
        "fields": (("flight", "int"), ("leaves", "timestamp"), ("carrier", "category")),
        "views": ("carrier_delay",),
    }
    return log_schema(**given | changes)


def a_row(schema: LogSchema, **changes: Any) -> LoggedPrediction:
    """A record that fits `a_schema`; a fresh id unless given."""
    given: dict[str, Any] = {
        "schema": schema.id,
        "prediction_id": uuid7(),
        "request_id": "r-1",
        "row": 0,
        "caller": "tests",
        "arm": "live",
        "at_us": NOON_US,
        "recorded_at_us": NOON_US + 5,
        "inputs": (12.5, "AA"),
        "fields": (1545, NOON_US + 7, "AA"),
        "views": (("present", NOON_US - 2_000_000),),
        "prediction": 1,
        "probability": 0.75,
        "latency_ms": 0.2,
    }
    return LoggedPrediction(**given | changes)


def fill(log: PredictionLog, schema: LogSchema, count: int, **changes: Any) -> list[str]:
    """Append `count` records one by one; their ids."""
    rows = [a_row(schema, **changes) for _ in range(count)]
    for row in rows:
        log.append(schema, row)
    return [row.prediction_id for row in rows]


def ids(log: PredictionLog, **filters: Any) -> list[str]:
    """The ids of the records that match, in the log's order."""
    found: list[str] = log.rows(columns=["prediction_id"], **filters)["prediction_id"].to_pylist()
    return found


class PredictionLogSuite:
    """The facts. None of them knows where records lie."""

    def test_a_record_comes_back_as_it_went_in_under_the_names_of_its_schema(self, log: PredictionLog) -> None:
        schema = a_schema()
        row = a_row(schema, degraded=("online_store",))
        log.append(schema, row)
        (found,) = log.rows().to_pylist()
        assert found["prediction_id"] == row.prediction_id
        assert (found["model"], found["version"], found["release"]) == ("late", "3", schema.release)
        assert (found["feature_delay"], found["feature_carrier"]) == (12.5, "AA")
        assert (found["field_flight"], found["field_carrier"]) == (1545, "AA")
        assert found["field_leaves"].isoformat() == "2013-04-01T12:00:00.000007+00:00"
        assert found["at"].isoformat() == "2013-04-01T12:00:00+00:00"
        assert (found["view_carrier_delay_status"], found["view_carrier_delay_age_s"]) == ("present", 2.0)
        assert (found["prediction"], found["probability"], found["degraded"]) == (1.0, 0.75, ["online_store"])

    def test_missing_values_are_null_and_nothing_else_is(self, log: PredictionLog) -> None:
        schema = a_schema()
        log.append(
            schema,
            a_row(schema, inputs=(None, None), fields=(None, None, None), views=(("missing", None),), probability=None),
        )
        (found,) = log.rows().to_pylist()
        nulls = {name for name, value in found.items() if value is None}
        assert nulls == {
            "probability",
            "feature_delay",
            "feature_carrier",
            "field_flight",
            "field_leaves",
            "field_carrier",
            "view_carrier_delay_event_at",
            "view_carrier_delay_age_s",
        }

    def test_an_empty_log_has_no_rows_and_finds_nothing(self, log: PredictionLog) -> None:
        assert log.rows().num_rows == 0
        assert log.find("nothing") == []
        assert log.rows(columns=["prediction_id", "feature_delay"]).num_rows == 0
        assert log.rows(columns=["prediction_id"], optional=["feature_delay"]).column_names == ["prediction_id"]

    def test_records_are_filtered_by_model_release_deployment_and_window(self, log: PredictionLog) -> None:
        late, other = a_schema(), a_schema(model="fare", release="rel_" + "b" * 32, deployment="fare-b")
        first = fill(log, late, 2)
        second = fill(log, other, 3, at_us=NOON_US + DAY_US)
        for _ in range(2):
            assert ids(log) == first + second
            assert ids(log, model="late") == first
            assert ids(log, release=other.release) == second
            assert ids(log, deployment="fare-b") == second
            assert ids(log, window=parse_window("2013-04-02/2013-04-03")) == second
            assert ids(log, window=Window(NOON_US, NOON_US + DAY_US)) == first
            log.rotate()
            log.compact()

    def test_a_record_is_found_by_its_own_id_and_by_its_requests(self, log: PredictionLog) -> None:
        schema = a_schema()
        rows = [a_row(schema, request_id="batch", row=number) for number in range(3)]
        log.append_all([(schema, row) for row in rows])
        for _ in range(2):
            assert [found["row"] for found in log.find("batch")] == [0, 1, 2]
            assert [found["row"] for found in log.find(rows[1].prediction_id)] == [1]
            log.rotate()
            log.compact()

    def test_compaction_changes_nothing_that_a_reader_sees(self, log: PredictionLog) -> None:
        schema = a_schema()
        fill(log, schema, 5)
        fill(log, a_schema(version="4", inputs=("delay", "wind"), categories=()), 5, inputs=(1.0, None))
        before = log.rows()
        log.rotate()
        assert log.compact().records == 10
        assert log.rows().equals(before)
        assert log.compact().records == 0

    def test_an_open_segment_is_not_compacted(self, log: PredictionLog) -> None:
        written = fill(log, a_schema(), 3)
        assert log.compact().segments == 0
        written += fill(log, a_schema(), 1)
        assert ids(log) == written

    def test_a_column_that_changed_its_type_between_releases_is_a_string(self, log: PredictionLog) -> None:
        fill(log, a_schema(), 1)
        fill(log, a_schema(version="4", inputs=("delay", "carrier"), categories=()), 1, inputs=(1.0, 2.0))
        assert log.rows()["feature_carrier"].to_pylist() == ["AA", "2"]
