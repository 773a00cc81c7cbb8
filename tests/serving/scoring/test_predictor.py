"""From a request's bytes to its answer's: scores, routes, the log, and what is said when there is no answer."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.core.errors import Unavailable
from seatrial.core.routing import bucket
from seatrial.core.signature import Signature, encode
from seatrial.core.types import Field
from seatrial.core.windows import Window
from seatrial.features.plan import AggregationPlan, FeaturePlan, ViewPlan
from seatrial.releases.runtime import Runtime
from seatrial.serving.meters.metrics import Metrics
from seatrial.serving.scoring.fields import ArmsDiffer
from seatrial.serving.scoring.predictor import NoOnlineStore, Predictor, Share
from seatrial.stores.online_sqlite import SqliteOnlineStore
from seatrial.stores.prediction_log import PredictionLog
from tests.serving.worlds import (
    DOUBLED,
    GOOD,
    REQUEST,
    SIGNATURE,
    WITH_FUNCTION,
    columns,
    native,
    onnx,
    predictor,
    release,
)

VIEW = ViewPlan("plane", "d" * 64, ("tail",), None, {"last": AggregationPlan("last", "distance")})


def ask(served: Predictor, row=GOOD, **more):
    answer = served.handle(json.dumps({"features": row, **more}).encode())
    return answer.status, json.loads(answer.body)


def ask_many(served: Predictor, rows, **more):
    answer = served.handle(json.dumps({"instances": rows, **more}).encode())
    return answer.status, json.loads(answer.body)


@pytest.fixture
def log(tmp_path):
    log = PredictionLog(tmp_path / "log")
    yield log
    log.close()


def test_an_answer_holds_what_the_native_model_says():
    table = columns(100, 3)
    names = ("distance", "seats", "night", "carrier")
    rows = [{name: np.asarray(table[name])[position].item() for name in names} for position in range(100)]
    x, _ = encode(SIGNATURE, table)
    wanted = native().scorer()(x)
    served = predictor()
    found = [ask(served, row)[1] for row in rows]
    assert np.abs(np.array([one["probability"] for one in found]) - wanted).max() < 1e-6
    assert [one["prediction"] for one in found] == (wanted >= 0.5).astype(int).tolist()
    _, many = ask_many(served, rows)
    assert [one["probability"] for one in many["predictions"]] == pytest.approx(wanted.tolist(), abs=1e-6)


def test_an_answer_says_who_answered():
    status, found = ask(predictor(release(version="7")), request_id="r-1")
    assert status == 200
    assert list(found) == [
        "prediction",
        "probability",
        "model_version",
        "request_id",
        "prediction_id",
        "latency_ms",
        "release",
    ]
    assert (found["request_id"], found["model_version"], found["release"]) == ("r-1", "7", f"rel_{0:032x}")


def test_a_regression_answers_with_a_value_and_no_probability():
    signature = SIGNATURE.__class__("regression", REQUEST, SIGNATURE.inputs, SIGNATURE.categories, SIGNATURE.integers)
    _, found = ask(predictor(release(signature=signature)))
    assert isinstance(found["prediction"], float)
    assert found["probability"] is None


def test_the_threshold_decides():
    _, found = ask(predictor(release()))
    exactly = found["probability"]
    assert ask(predictor(release(threshold=exactly)))[1]["prediction"] == 1
    assert ask(predictor(release(threshold=math.nextafter(exactly, 1))))[1]["prediction"] == 0


def test_missing_and_unseen_values_reach_the_model_as_missing_and_are_counted():
    metrics = Metrics()
    served = predictor(metrics=metrics)
    _, unseen = ask(served, GOOD | {"carrier": "never seen"})
    _, missing = ask(served, GOOD | {"carrier": None})
    assert unseen["probability"] == missing["probability"]
    text = metrics.render().decode()
    assert 'model_unseen_categories_total{input="carrier",model_name="late",model_version="1"} 1.0' in text


def test_functions_are_computed_from_the_request():
    served = predictor(release(plan=DOUBLED, signature=WITH_FUNCTION))
    _, found = ask(served, return_features=True)
    assert found["features"] == {"doubled": 1088.0, "seats": 150, "carrier": "DL", "night": False}
    x, _ = encode(WITH_FUNCTION, {"doubled": [1088.0], "seats": [150], "carrier": ["DL"], "night": [False]})
    assert found["probability"] == Runtime(onnx(inputs=WITH_FUNCTION.inputs)).score(x)[0]


def test_every_answer_is_in_the_log_before_it_leaves(log):
    served = predictor(log=log, now_us=lambda: 1_364_792_400_000_000)
    _, one = ask(served, GOOD | {"tail": "N1"}, request_id="r-1")
    _, many = ask_many(served, [GOOD, GOOD | {"carrier": None}])
    rows = log.rows().to_pylist()
    assert [row["prediction_id"] for row in rows] == [
        one["prediction_id"],
        *(answer["prediction_id"] for answer in many["predictions"]),
    ]
    first = rows[0]
    assert first["probability"] == one["probability"]
    assert first["latency_ms"] == one["latency_ms"]
    assert (first["request_id"], first["arm"], first["version"]) == ("r-1", "arm0", "1")
    assert first["at"].isoformat() == "2013-04-01T05:00:00+00:00"
    assert (first["field_tail"], first["feature_distance"], first["feature_carrier"]) == ("N1", 544.0, "DL")
    assert [row["row"] for row in rows] == [0, 0, 1]
    assert rows[2]["feature_carrier"] is None
    assert {row["request_id"] for row in rows[1:]} == {many["request_id"]}


def test_an_answer_that_cannot_be_logged_is_not_given(tmp_path):
    (tmp_path / "log").write_text("a file stands in the way")
    status, found = ask(predictor(log=PredictionLog(tmp_path / "log")))
    assert (status, found["code"]) == (503, "log.unwritable")
    assert "probability" not in found


def test_the_caller_is_logged_up_to_200_characters(log):
    predictor(log=log).handle(json.dumps({"features": GOOD}).encode(), "c" * 500)
    assert log.rows()["caller"].to_pylist() == ["c" * 200]


class TestShadow:
    def served(self, log, **shadow):
        shares = [Share("live", release(0)), Share("shadow", release(1, version="2", **shadow), 0)]
        return Predictor("late", shares, metrics=Metrics(), log=log)

    def test_it_scores_every_row_that_is_answered_and_answers_none(self, log):
        served = self.served(log)
        one = ask(served, request_id="r1")[1]
        many = ask_many(served, [GOOD, GOOD | {"distance": 10.0}], request_id="r2")[1]
        answered = [one["probability"], *(row["probability"] for row in many["predictions"])]
        told, hidden = log.rows(), log.rows(deployment="late~shadow")
        assert told["probability"].to_pylist() == answered
        assert set(told["version"].to_pylist()) == {"1"}
        assert (hidden["version"].to_pylist(), hidden["arm"].to_pylist()) == (["2"] * 3, ["shadow"] * 3)
        assert hidden["request_id"].to_pylist() == ["r1", "r2", "r2"]
        assert hidden["row"].to_pylist() == [0, 0, 1]
        alone = predictor(release(1, version="2"))
        expected = [ask(alone)[1], ask(alone)[1], ask(alone, GOOD | {"distance": 10.0})[1]]
        assert hidden["probability"].to_pylist() == pytest.approx([row["probability"] for row in expected], abs=1e-6)

    def test_its_faults_are_counted_as_its_own_and_reach_nobody(self, log):
        def broken(_x):
            raise ZeroDivisionError

        served = self.served(log, score=broken)
        assert ask(served)[0] == 200
        log.failures.close()
        ever = Window(0, 2**62)
        assert log.failures.count(window=ever, deployment="late") == 0
        assert log.failures.count(window=ever, deployment="late~shadow", release=release(1).id) == 1

    def test_what_is_refused_is_not_scored(self, log):
        assert ask(self.served(log), {})[0] == 422
        assert log.rows(deployment="late~shadow").num_rows == 0


def test_a_fault_is_counted_for_the_release_that_was_to_answer(log):
    def broken(_x):
        raise ZeroDivisionError

    shares = [Share("live", release(0), 5000), Share("new", release(1, version="2", score=broken), 5000)]
    served = Predictor("late", shares, metrics=Metrics(), log=log)
    statuses = [ask(served, request_id=f"r{number}")[0] for number in range(60)]
    log.failures.close()
    failed = {one.id: log.failures.count(window=Window(0, 2**62), release=one.id) for one in (release(0), release(1))}
    assert failed == {release(0).id: 0, release(1).id: statuses.count(500)}
    assert 10 < statuses.count(500) < 50


def test_a_refusal_is_counted_for_the_release_because_of_which_it_is_one(log):
    wants = SIGNATURE.__class__(
        "binary", (*REQUEST, Field("wind", "float")), SIGNATURE.inputs, SIGNATURE.categories, SIGNATURE.integers
    )
    shares = [Share("live", release(0), 5000), Share("new", release(1, version="2", signature=wants), 5000)]
    served = Predictor("late", shares, metrics=Metrics(), log=log)
    statuses = [ask(served, request_id=f"r{number}")[0] for number in range(60)]
    assert ask(served, {})[0] == ask(served, GOOD | {"rain": 1})[0] == 422  # the fault of no release
    log.failures.close()
    ever = Window(0, 2**62)
    refused = [log.failures.count(window=ever, release=one.id, refused=True) for one in (release(0), release(1))]
    assert refused == [0, statuses.count(422)]
    assert 10 < statuses.count(422) < 50
    assert log.failures.count(window=ever, refused=True) == statuses.count(422)
    assert log.failures.count(window=ever) == 0


class TestRouting:
    def test_a_key_stays_in_its_arm_and_the_split_follows_the_shares(self):
        control, treatment = release(0), release(1, version="2")
        shares = [Share("control", control, 9000), Share("treatment", treatment, 1000)]
        served = Predictor("late", shares, metrics=Metrics(), log=None, salt="pepper", route_by="tail")
        versions = {}
        for number in range(1000):
            _, found = ask(served, GOOD | {"tail": f"N{number}"}, request_id=f"r{number}")
            versions[number] = found["model_version"]
            assert versions[number] == ("1" if bucket("pepper", f"N{number}") < 9000 else "2")
        assert 60 < sum(version == "2" for version in versions.values()) < 140
        again = [ask(served, GOOD | {"tail": f"N{number}"})[1]["model_version"] for number in range(100)]
        assert again == [versions[number] for number in range(100)]

    def test_without_a_key_the_request_id_decides(self):
        served = predictor(release(0), release(1, version="2"), salt="s")
        for number in range(50):
            _, found = ask(served, request_id=f"r{number}")
            assert found["model_version"] == ("1" if bucket("s", f"r{number}") < 5000 else "2")

    def test_rows_of_one_request_may_go_to_different_arms_and_come_back_in_order(self, log):
        served = predictor(release(0), release(1, version="2"), route_by="tail", log=log)
        rows = [GOOD | {"tail": f"N{number}"} for number in range(40)]
        _, many = ask_many(served, rows)
        alone = [ask(served, row)[1] for row in rows]
        assert [row["probability"] for row in many["predictions"]] == pytest.approx(
            [row["probability"] for row in alone], abs=1e-6
        )
        assert {row["model_version"] for row in many["predictions"]} == {"1", "2"}
        assert log.rows()["version"].to_pylist()[:40] == [row["model_version"] for row in many["predictions"]]

    def test_arms_that_want_one_field_with_two_types_are_refused(self):
        fields = (Field("distance", "string"), *REQUEST[1:])
        other = SIGNATURE.__class__("binary", fields, SIGNATURE.inputs, SIGNATURE.categories, SIGNATURE.integers)
        with pytest.raises(ArmsDiffer, match="distance"):
            predictor(release(0), release(1, signature=other))

    def test_a_split_by_a_field_that_is_not_there_is_refused(self):
        with pytest.raises(ArmsDiffer, match="'customer'"):
            predictor(route_by="customer")


def wanting(*fields: Field, without: tuple[str, ...] = (), integers=SIGNATURE.integers):
    names = {field.name for field in fields}
    kept = tuple(field for field in REQUEST if field.name not in names and field.name not in without)
    return Signature("binary", (*kept, *fields), SIGNATURE.inputs, SIGNATURE.categories, integers)


def by_arm(served, row, rows=200):
    """For each version (200) or code (else) how many of some requests got it; and by id, what each got."""
    found = {f"r{number}": ask(served, row, request_id=f"r{number}") for number in range(rows)}
    return Counter(body.get("model_version") or body["code"] for _, body in found.values()), found


class TestArmsThatWantUnlikeFields:
    WIND = Field("wind", "float")

    def served(self, *signatures, shares=(9500, 500), **options):
        arms = [
            Share(name, release(place, version=str(place + 1), signature=one), share)
            for place, (name, one, share) in enumerate(zip(("live", "new"), signatures, shares, strict=False))
        ]
        return Predictor("late", arms, **{"metrics": Metrics(), "log": None} | options)

    def test_only_the_arm_that_needs_a_new_field_refuses_those_who_do_not_send_it(self):
        served = self.served(SIGNATURE, wanting(self.WIND), shares=(9000, 1000))
        counts, found = by_arm(served, GOOD)
        assert set(counts) == {"1", "request.missing_field"}
        assert 5 < counts["request.missing_field"] < 40
        refused = next(body for status, body in found.values() if status == 422)
        assert (refused["field"], "'wind'" in refused["detail"]) == ("wind", True)
        sent, _ = by_arm(served, GOOD | {"wind": 3.0})
        assert sent == {"1": counts["1"], "2": counts["request.missing_field"]}

    def test_only_the_arm_that_takes_no_null_refuses_one(self):
        served = self.served(SIGNATURE, wanting(Field("distance", "float", nullable=False)), shares=(9000, 1000))
        counts, _ = by_arm(served, GOOD | {"distance": None})
        assert set(counts) == {"1", "request.bad_field"}
        assert 5 < counts["request.bad_field"] < 40
        assert set(by_arm(served, GOOD)[0]) == {"1", "2"}

    def test_an_arm_without_a_field_does_not_ask_for_it(self):
        served = self.served(SIGNATURE, wanting(without=("night",)), shares=(5000, 5000))
        without = {name: value for name, value in GOOD.items() if name != "night"}
        counts, _ = by_arm(served, without)
        assert set(counts) == {"request.missing_field", "2"}

    def test_of_many_rows_the_one_that_does_not_suit_its_arm_is_named(self):
        served = self.served(SIGNATURE, wanting(self.WIND), shares=(5000, 5000), route_by="tail")
        goes = {
            number: ask(served, GOOD | {"tail": f"N{number}", "wind": 1.0})[1]["model_version"] for number in range(9)
        }
        first = next(number for number, version in goes.items() if version == "2")
        status, told = ask_many(served, [GOOD | {"tail": f"N{number}"} for number in range(9)])
        assert (status, told["code"], told["row"]) == (422, "request.missing_field", first)

    def test_a_whole_number_that_only_one_arm_cannot_hold_is_refused_by_that_one(self):
        served = self.served(SIGNATURE, wanting(integers=()), shares=(5000, 5000))
        counts, _ = by_arm(served, GOOD | {"seats": 2**24 + 1})
        assert set(counts) == {"signature.input_not_exact", "2"}

    def test_what_is_wrong_for_every_arm_is_refused_before_one_is_chosen(self):
        served = self.served(SIGNATURE, wanting(self.WIND))
        assert set(by_arm(served, GOOD | {"rain": 1.0}, 5)[0]) == {"request.unknown_field"}
        assert set(by_arm(served, GOOD | {"wind": "strong"}, 5)[0]) == {"request.bad_field"}
        assert set(by_arm(served, {}, 5)[0]) == {"request.missing_field"}

    def test_a_shadow_that_wants_more_refuses_nobody_and_counts_its_own_faults(self, log):
        stricter = wanting(self.WIND, Field("distance", "float", nullable=False))
        shares = [Share("live", release(0)), Share("shadow", release(1, version="2", signature=stricter), 0)]
        served = Predictor("late", shares, metrics=Metrics(), log=log)
        rows = [GOOD, GOOD | {"wind": 1.0}, GOOD | {"wind": 1.0, "distance": None}, GOOD | {"wind": None}]
        assert [ask(served, row)[0] for row in rows] == [200] * 4
        log.failures.close()
        ever = Window(0, 2**62)
        assert log.failures.count(window=ever, deployment="late", refused=True) == 0
        assert log.failures.count(window=ever, deployment="late~shadow", release=release(1).id, refused=True) == 2
        assert log.rows(deployment="late~shadow").num_rows == 2

    @given(
        st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=2, max_size=2),
        st.sampled_from(["absent", None, 3.0]),
    )
    @settings(deadline=None, max_examples=40)
    def test_an_arm_of_several_takes_what_it_would_take_alone(self, arms, wind):
        signatures = [
            wanting(*([Field("wind", "float", nullable=nullable, optional=optional)] if there else []))
            for there, nullable, optional in arms
        ]
        row = GOOD if wind == "absent" else GOOD | {"wind": wind}
        together = self.served(*signatures, shares=(5000, 5000), salt="s")
        for number in range(6):
            arm = 0 if bucket("s", f"r{number}") < 5000 else 1
            alone = self.served(signatures[arm], shares=(10_000,))
            own = row if arms[arm][0] else GOOD  # a field that this arm alone would not know
            assert ask(together, row, request_id=f"r{number}")[0] == ask(alone, own)[0] or (
                not any(there for there, _, _ in arms) and wind != "absent"
            )


SENT = {"distance": "float", "wind": "float", "why": "string", "since": "timestamp"}


class TestFieldsOfAnotherRelease:
    def test_they_are_taken_and_ignored(self, log):
        served = predictor(sent=SENT, log=log)
        plain = ask(served)[1]
        for more in ({"wind": 3.5}, {"wind": None}, {"why": "a reason", "since": "2013-04-01T05:00:00Z"}):
            status, told = ask(served, GOOD | more, return_features=True)
            assert (status, told["probability"]) == (200, plain["probability"])
            assert not told["features"].keys() & SENT.keys() - {"distance"}
        assert ask_many(served, [GOOD | {"wind": 1.0}, GOOD])[0] == 200
        assert not set(log.rows().column_names) & {"wind", "why", "since"}
        assert served.ignored == ["wind", "why", "since"]

    def test_they_are_checked_like_any_other(self):
        served = predictor(sent=SENT)
        assert ask(served, GOOD | {"wind": "strong"})[1]["code"] == "request.bad_field"
        assert ask(served, GOOD | {"rain": 1.0})[1]["code"] == "request.unknown_field"
        twice = b'{"features": {"distance": 1.0, "seats": 1, "night": true, "carrier": "DL", "wind": 1.0, "wind": 2.0}}'
        assert json.loads(served.handle(twice).body)["code"] == "request.duplicate_key"

    def test_several_arms_ignore_them_as_well(self):
        wind = Field("wind", "float")
        served = predictor(release(0), release(1, version="2", signature=wanting(wind)), sent=SENT)
        assert served.ignored == ["why", "since"]
        assert set(by_arm(served, GOOD | {"wind": 1.0, "why": "x"}, 40)[0]) == {"1", "2"}


class TestLookUps:
    PLAN = FeaturePlan((VIEW,))
    LOOKS_UP = SIGNATURE.__class__(
        "binary", REQUEST, ("plane__last", "seats", "carrier", "night"), SIGNATURE.categories, SIGNATURE.integers
    )

    def looking_up(self, **options):
        score = Runtime(onnx()).score
        return predictor(release(plan=self.PLAN, signature=self.LOOKS_UP, score=score), **options)

    def release_score(self, last):
        x, _ = encode(self.LOOKS_UP, {"plane__last": [last], "seats": [150], "carrier": ["DL"], "night": [False]})
        return Runtime(onnx()).score(x)[0]

    def test_a_row_without_features_is_answered_and_said_to_miss_them_in_the_log(self, tmp_path, log):
        served = self.looking_up(online=SqliteOnlineStore(tmp_path / "online.db"), log=log)
        status, found = ask(served, GOOD | {"tail": "N1"})
        assert status == 200
        assert "degraded" not in found
        (row,) = log.rows().to_pylist()
        assert (row["view_plane_status"], row["view_plane_event_at"]) == ("missing", None)
        assert row["feature_plane__last"] is None

    def test_many_rows_ask_the_store_once(self, tmp_path):
        store = SqliteOnlineStore(tmp_path / "online.db")
        asked = []
        get = store.get
        store.get = lambda keys: asked.append(len(keys)) or get(keys)
        served = self.looking_up(online=store)
        status, _ = ask_many(served, [GOOD | {"tail": f"N{i}"} for i in range(5)])
        assert status == 200
        assert asked == [5]

    def test_without_a_store_such_a_release_is_refused(self):
        with pytest.raises(NoOnlineStore, match="plane"):
            self.looking_up()

    def test_a_store_that_is_down_is_a_503_or_a_flag_as_was_declared(self, tmp_path, log):
        path = tmp_path / "online.db"
        store = SqliteOnlineStore(path)
        refusing = self.looking_up(online=store, log=log)
        flagging = self.looking_up(online=store, on_store_failure="missing", log=log)
        store.close()
        path.unlink()
        for other in tmp_path.glob("online.db-*"):
            other.unlink()
        path.mkdir()
        status, found = ask(refusing, GOOD)
        assert (status, found["code"]) == (503, "serving.online_store_down")
        status, found = ask(flagging, GOOD)
        assert (status, found["degraded"]) == (200, ["online_store"])
        assert found["probability"] == self.release_score(None)
        assert log.rows()["degraded"].to_pylist() == [["online_store"]]
        log.close()
        assert log.failures.count(window=Window(0, 2**62)) == 1


class TestNoAnswer:
    def test_a_score_that_is_not_finite_is_never_an_answer(self, log):
        for bad in (math.nan, math.inf):
            served = predictor(release(score=lambda x, bad=bad: np.full(len(x), bad)), log=log)
            for status, found in (ask(served), ask_many(served, [GOOD, GOOD])):
                assert (status, found["code"]) == (422, "serving.no_score")
        assert log.rows().num_rows == 0

    def test_a_value_that_the_model_cannot_miss_is_named(self):
        served = predictor(release(no_missing=(0, 2)))
        for row, name in ((GOOD | {"distance": None}, "distance"), (GOOD | {"carrier": "never seen"}, "carrier")):
            for status, found in (ask(served, row), ask_many(served, [GOOD, row])):
                assert (status, found["code"]) == (422, "runtime.missing_not_accepted")
                assert f"'{name}'" in found["detail"]
        assert ask_many(served, [GOOD, GOOD | {"carrier": None}])[1]["row"] == 1
        assert ask(served)[0] == 200

    def test_a_fault_of_the_server_is_a_500_that_tells_nothing(self):
        def broken(_x):
            raise ZeroDivisionError("secret-4711 in /srv/secret")

        answer = predictor(release(score=broken)).handle(json.dumps({"features": GOOD}).encode())
        assert answer.status == 500
        assert b"secret" not in answer.body
        assert b"Traceback" not in answer.body

    def test_a_number_beyond_float32_is_refused_by_name(self):
        status, found = ask(predictor(), GOOD | {"distance": 1e300})
        assert (status, found["code"]) == (400, "signature.input_not_exact")
        assert "'distance'" in found["detail"]

    def test_refusals_are_counted_by_code(self):
        metrics = Metrics()
        served = predictor(metrics=metrics)
        for _ in range(3):
            ask(served, {})
        text = metrics.render().decode()
        assert 'model_prediction_errors_total{code="request.missing_field",model_name="late"} 3.0' in text
        assert "model_predictions_total{" in text
        assert 'model_predictions_total{model_name="late",model_version="1"} 0.0' in text


def test_predictions_and_their_latency_are_counted_by_the_names_that_dashboards_know():
    metrics = Metrics()
    served = predictor(release(version="3"), metrics=metrics)
    ask(served)
    ask_many(served, [GOOD] * 4)
    text = metrics.render().decode()
    assert 'model_predictions_total{model_name="late",model_version="3"} 5.0' in text
    assert 'model_prediction_latency_seconds_count{model_name="late"} 2.0' in text


def test_unavailable_is_what_a_retry_may_help():
    from seatrial.serving.scoring.predictor import StoreDown

    assert issubclass(StoreDown, Unavailable)


SERVED = predictor()


@given(
    st.binary(max_size=300)
    | st.dictionaries(
        st.sampled_from(["features", "instances", "request_id", "at", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(st.sampled_from([*GOOD, "tail", "leaves", "secret"]), inner, max_size=5)
            ),
            max_leaves=6,
        ),
    ).map(lambda value: json.dumps(value).encode())
)
@settings(deadline=None, max_examples=300)
def test_no_body_makes_a_5xx_and_the_next_good_request_is_answered(data):
    answer = SERVED.handle(data)
    assert answer.status in (200, 400, 422)
    json.loads(answer.body)
    assert ask(SERVED)[0] == 200
