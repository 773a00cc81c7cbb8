"""Personal columns in service: whichever release answers, and by whichever door, none of their values is logged."""

from __future__ import annotations

import json

import pytest
from msgspec import structs

from seatrial.core.personal import PersonalKeyMissing, derived_key, pseudonym
from seatrial.serving.scoring.personal import as_strict, hashed_rows
from seatrial.serving.scoring.predictor import Share
from seatrial.stores.prediction_log import PredictionLog
from tests.serving.worlds import GOOD, SIGNATURE, predictor, release

KEY = derived_key(b"a secret of these tests")
PERSONAL = structs.replace(SIGNATURE, personal={"tail": "hash", "carrier": "hash", "seats": "drop"})


@pytest.fixture
def log(tmp_path):
    log = PredictionLog(tmp_path / "log", personal_key=lambda: KEY)
    yield log
    log.close()


def ask(served, **changes):
    answer = served.handle(json.dumps({"features": GOOD | {"tail": "N4711"} | changes}).encode())
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def test_the_log_has_pseudonyms_and_the_answer_is_what_it_was(log):
    plain = ask(predictor(release()))
    answered = ask(predictor(release(signature=PERSONAL), log=log))
    assert answered["probability"] == plain["probability"]
    (row,) = log.rows().to_pylist()
    assert row["field_tail"] == pseudonym(KEY, "tail", "N4711")
    assert row["feature_carrier"] == row["field_carrier"] == pseudonym(KEY, "carrier", "DL")
    assert not {"field_seats", "feature_seats"} & set(row)
    assert row["feature_distance"] == 544.0
    log.close()
    assert not any(b"N4711" in path.read_bytes() for path in log.root.rglob("*.seg"))


def test_many_rows_and_missing_values_are_masked_too(log):
    served = predictor(release(signature=PERSONAL), log=log)
    body = {"instances": [GOOD | {"tail": "N1"}, GOOD | {"carrier": None}, GOOD | {"tail": "N1"}]}
    assert served.handle(json.dumps(body).encode()).status == 200
    tails = log.rows()["field_tail"].to_pylist()
    assert tails == [pseudonym(KEY, "tail", "N1"), None, pseudonym(KEY, "tail", "N1")]


def test_a_release_that_declares_nothing_is_as_strict_as_the_others_of_its_deployment(log):
    served = predictor(release(0), release(1, "2", signature=PERSONAL), log=log)
    for number in range(20):
        ask(served, distance=100.0 + number)
    rows = log.rows().to_pylist()
    assert {row["version"] for row in rows} == {"1", "2"}
    assert {row["field_tail"] for row in rows} == {pseudonym(KEY, "tail", "N4711")}
    asked_for = as_strict(release(0), [Share("a", release(0), 5000), Share("b", release(signature=PERSONAL), 5000)])
    assert asked_for.signature.personal == PERSONAL.personal


def test_without_the_key_a_release_that_hashes_is_not_served_and_one_that_drops_is(tmp_path):
    log = PredictionLog(tmp_path / "log")
    with pytest.raises(PersonalKeyMissing):
        predictor(release(signature=PERSONAL), log=log)
    ask(predictor(release(signature=structs.replace(SIGNATURE, personal={"tail": "drop"})), log=log))
    assert "field_tail" not in log.rows().column_names
    log.close()


def test_rows_that_are_none_are_left_to_whoever_tells_what_is_wrong_with_them():
    assert hashed_rows([3, None, {"other": 1}], {"tail": "hash"}, None) == [3, None, {"other": 1}]
    with pytest.raises(PersonalKeyMissing):
        hashed_rows([{"tail": "N1"}], {"tail": "hash"}, None)
