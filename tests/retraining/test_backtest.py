"""A backtest: at each instant what was known by then is learned from, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score

from seatrial import Tune
from seatrial.core.clock import to_us
from seatrial.core.errors import UsageError
from seatrial.retraining.backtest import backtest, classes_of
from seatrial.training.rows import TrainingRefused
from seatrial.verbs.inputs import columns
from tests.training.factories import HOUR, START, model, put, request_of, table

DAY = timedelta(days=1)
FIRST, SECOND = START + 5 * DAY, START + 10 * DAY


def done(declared, rows, instants=(FIRST, SECOND), **how):
    return backtest(declared, rows, request_of(declared), [to_us(one) for one in instants], columns, **how)


def several(rows=400):
    """The factories' rows with a target of three classes, of which "cancelled" is first heard of on day 7."""
    plain = table(rows)
    distance = plain["distance"].to_numpy()
    named = np.where(distance > 0.7, "late", np.where(distance < -0.7, "early", "on time")).astype(object)
    named[7 * 24 :: 9] = "cancelled"
    return put(plain, "late", named.tolist())


def test_rows_before_the_first_instant_have_no_score_and_all_others_have():
    scores = done(model(), table())
    first = 5 * 24
    assert np.isnan(scores[:first]).all()
    assert not np.isnan(scores[first:]).any()


def test_what_became_known_later_changes_nothing():
    rows = table()
    labels = rows["late"].to_pylist()
    changed = put(rows, "late", labels[: 5 * 24] + [not one for one in labels[5 * 24 :]])
    until = slice(5 * 24, 10 * 24)
    assert np.array_equal(done(model(), rows)[until], done(model(), changed)[until])
    assert not np.array_equal(done(model(), rows)[10 * 24 :], done(model(), changed)[10 * 24 :])


def test_a_model_of_classes_has_a_column_for_each_and_zero_for_one_that_was_not_known_yet():
    declared, rows = model(task="multiclass"), several()
    assert classes_of(declared, rows) == ("cancelled", "early", "late", "on time")
    scores = done(declared, rows)
    assert scores.shape == (400, 4)
    assert np.isnan(scores[: 5 * 24]).all()
    assert (scores[5 * 24 : 10 * 24, 0] == 0).all()
    assert (scores[10 * 24 :, 0] > 0).all()
    assert scores[5 * 24 :].sum(axis=1) == pytest.approx(1)
    told = np.array(classes_of(declared, rows))[scores[5 * 24 : 7 * 24].argmax(axis=1)]
    assert accuracy_score(rows["late"].to_pylist()[5 * 24 : 7 * 24], told) > 0.7


def test_a_tuned_model_is_refitted_with_the_parameters_of_the_run_that_is_named():
    tuned = model(tune=Tune({"C": Tune.number(1e-3, 10, log=True)}, trials=2))
    with pytest.raises(UsageError, match="is tuned, and no run was named"):
        done(tuned, table())
    chosen = {"best": {"params": {"C": 0.01}}}
    wanted = done(model(params={"C": 0.01}), table())
    assert np.array_equal(done(tuned, table(), tuning=chosen), wanted, equal_nan=True)
    assert not np.array_equal(done(model(), table()), wanted, equal_nan=True)


def test_an_instant_at_which_too_little_was_known_is_refused_as_training_refuses_it():
    with pytest.raises(TrainingRefused):
        done(model(), table(), [START + HOUR])


def test_a_last_instant_after_all_rows_scores_nothing():
    rows = table()
    later = START + timedelta(hours=rows.num_rows) + DAY
    assert np.array_equal(done(model(), rows, [FIRST, later]), done(model(), rows, [FIRST]), equal_nan=True)


def test_the_scores_are_those_of_a_fit_on_the_known_rows():
    declared, rows = model(features=["request:distance"]), table()
    from sklearn.linear_model import LogisticRegression

    known = rows.filter(pa.compute.less_equal(rows["label_known_at"], pa.scalar(FIRST, rows["at"].type)))
    fitted = LogisticRegression(random_state=declared.seed).fit(
        known["distance"].to_numpy().astype(np.float32)[:, None], known["late"].to_numpy(zero_copy_only=False)
    )
    wanted = fitted.predict_proba(rows["distance"].to_numpy().astype(np.float32)[5 * 24 :, None])[:, 1]
    assert done(replace(declared), rows, [FIRST])[5 * 24 :] == pytest.approx(wanted, abs=1e-9)
