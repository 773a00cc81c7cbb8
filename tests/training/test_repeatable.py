import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from seatrial.training.repeatable import NotRepeatable
from tests.training.factories import HISTOGRAM, LIGHTGBM, model, put, run, table


def unseeded():
    """A forest seeded by the machine's entropy, whatever seeds are set."""
    return RandomForestClassifier(n_estimators=5, random_state=int(np.random.default_rng().integers(2**31)))


def seeded_globally():
    """A forest seeded by numpy's global generator, which seatrial seeds."""
    return RandomForestClassifier(n_estimators=5, random_state=np.random.randint(2**31))


def test_an_estimator_that_ignores_its_seed_is_noted():
    fitted = run(model(estimator=unseeded), table())
    assert fitted.repeatable["same"] is False
    assert fitted.repeatable["difference"] > 1e-6
    assert "ignores its seed" in fitted.notes[0]
    assert fitted.notes[0] in fitted.warnings


def test_policy_refuses_it_before_the_long_stages():
    told = []
    with pytest.raises(NotRepeatable, match="two fits on the same 300 rows"):
        run(
            model(estimator=unseeded),
            table(),
            unrepeatable="refuse",
            progress=lambda *call: told.append(call[0]),
        )
    assert "cross-validate" not in told


@pytest.mark.parametrize(
    ("estimator", "params"),
    [
        (seeded_globally, {}),
        (LIGHTGBM, {"n_estimators": 10, "subsample": 0.5, "subsample_freq": 1}),
        (HISTOGRAM, {"max_iter": 10}),
        ("sklearn.ensemble.RandomForestClassifier", {"n_estimators": 10}),
    ],
)
def test_what_can_be_seeded_is_found_repeatable(estimator, params):
    declared = model(estimator=estimator, params=params, threads=2)
    fitted = run(declared, table(), unrepeatable="refuse")
    assert fitted.repeatable["same"] is True
    assert fitted.notes == ()


def test_a_sample_that_cannot_be_fitted_is_told_and_stops_nothing():
    neighbours = model(
        estimator="sklearn.neighbors.KNeighborsClassifier", params={"n_neighbors": 310}, cv_folds=0, timed=False
    )
    fitted = run(neighbours, table(timed=False))
    assert fitted.repeatable["same"] is None
    assert "n_neighbors" in fitted.repeatable["why"]


def test_the_sample_holds_a_rare_class():
    rare = put(table(2000), "late", [number % 400 == 0 for number in range(2000)])
    fitted = run(model(cv_folds=0), rare)
    assert fitted.repeatable["same"] is True
