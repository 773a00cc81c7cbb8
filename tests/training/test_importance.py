import numpy as np
import pytest
from sklearn.inspection import permutation_importance as oracle
from sklearn.linear_model import LinearRegression, LogisticRegression

from seatrial.training import importance
from seatrial.training.importance import permutation_importance
from tests.training.factories import LIGHTGBM, model, run, table


def world(rows=600, task="binary"):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(rows, 3))
    target = 2 * inputs[:, 0] + 0.7 * inputs[:, 1] + random.normal(size=rows)
    return inputs, (target > 0).astype(float) if task == "binary" else target


def columns(inputs):
    return {f"x{number}": column for number, column in enumerate(inputs.T)}


def stacked(named):
    return np.column_stack([named[f"x{number}"] for number in range(3)])


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_it_is_of_the_size_that_scikit_learn_finds(task):
    inputs, labels = world(task=task)
    if task == "binary":
        fitted, scoring = LogisticRegression().fit(inputs, labels), "neg_log_loss"
        found = permutation_importance(
            task, columns(inputs), labels, lambda rows: fitted.predict_proba(stacked(rows))[:, 1], seed=0
        )
    else:
        fitted, scoring = LinearRegression().fit(inputs, labels), "neg_mean_squared_error"
        found = permutation_importance(
            task, columns(inputs), labels, lambda rows: fitted.predict(stacked(rows)), seed=0
        )
    theirs = oracle(fitted, inputs, labels, scoring=scoring, n_repeats=20, random_state=0)
    for number in range(3):
        expected = theirs.importances_mean[number]
        assert found["inputs"][f"x{number}"]["mean"] == pytest.approx(expected, abs=0.15 * expected + 0.01)
    assert list(found["inputs"]) == ["x0", "x1", "x2"]


def test_it_takes_a_probability_for_each_class():
    inputs, _ = world()
    labels = np.digitize(inputs[:, 0], [-0.5, 0.5]).astype(float)
    fitted = LogisticRegression().fit(inputs, labels)
    found = permutation_importance(
        "multiclass", columns(inputs), labels, lambda rows: fitted.predict_proba(stacked(rows)), seed=0
    )
    assert found["loss"] == "log_loss"
    assert next(iter(found["inputs"])) == "x0"
    assert found["inputs"]["x0"]["mean"] > 10 * abs(found["inputs"]["x2"]["mean"])


def test_rows_are_capped_and_the_cap_is_told():
    scored = []

    def score(rows):
        scored.append(rows["x0"].size)
        return np.full(rows["x0"].size, 0.5)

    inputs, labels = world(5000)
    found = permutation_importance("binary", columns(inputs), labels, score, seed=0)
    assert found["rows"] == importance.ROWS
    assert sum(scored) <= importance.SCORED + importance.ROWS
    assert {one["mean"] for one in found["inputs"].values()} == {0.0}


def test_a_run_keeps_it_beside_the_estimators_own_and_the_same_seed_gives_the_same():
    declared = model(estimator=LIGHTGBM, params={"n_estimators": 20})
    first, second = run(declared, table()), run(declared, table())
    assert first.permutation == second.permutation
    assert first.permutation["inputs"].keys() == first.importance.keys()
    assert first.permutation["rows"] == 80
    found = {name: one["mean"] for name, one in first.permutation["inputs"].items()}
    assert max(found, key=found.get) == "distance"
    assert abs(found["stops"]) < 0.1 * found["distance"]
