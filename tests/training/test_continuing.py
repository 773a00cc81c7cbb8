"""Going on from a fit: the same again, what cannot be continued is refused, and forgetting is caught by the gate."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial.core.errors import SeatrialError
from tests.retraining.worlds import PER_DAY, TRAINED, made, opened, rows, write

DAY = timedelta(days=1)
LATER = TRAINED + 10 * DAY
SGD = "sklearn.linear_model.SGDClassifier"
FITS = {
    SGD: '{"loss": "log_loss", "alpha": 0.01}',
    "lightgbm.LGBMClassifier": '{"n_estimators": 10, "num_leaves": 7}',
    "xgboost.XGBClassifier": '{"n_estimators": 10, "max_depth": 3}',
}
WARM = "on=[], warm_start=True"
MAY = ", Gate.remembers(2.0)"  # the world changed, so much of what was known is to be forgotten


@pytest.fixture(params=sorted(FITS))
def warm(request, tmp_path):
    how = {"estimator": request.param, "params": FITS[request.param], "more": MAY}
    with made(tmp_path, retrain=WARM, **how) as project:
        project.clock.set(LATER)
        yield project


def refused(act) -> SeatrialError:
    with pytest.raises(SeatrialError) as error:
        act()
    return error.value


def test_it_learns_the_rows_since_the_cut_off_from_the_champions_fit_and_says_so(warm):
    champion = warm._live_release("late")
    done = warm.retrain("late", "train", reason="x matters now")
    assert done.proposal.state == "judging", done.words
    run = warm.record(done.proposal.run)
    assert run.body["continued"]["release"] == champion.id
    assert run.inputs[-1] == champion.id
    assert run.body["split"]["train"]["rows"] + run.body["split"]["test"]["rows"] <= 10 * PER_DAY
    assert run.body["gates"][-1]["kind"] == "remembers"
    assert champion.id in {node.id for node in warm.lineage(run.id).nodes}
    warm.clock.set(LATER + 9 * DAY)
    assert warm.retrain("late", "compare").proposal.state == "better"


def test_the_same_again_is_the_same_model(warm):
    first = warm.train("late", continue_from="champion")
    assert warm.reproduce(first.run).verdict in ("identical", "equivalent")
    anew = warm.train("late")
    assert warm.run_show(anew.run)["metrics"] != warm.run_show(first.run)["metrics"]


def test_what_has_no_partial_fit_or_other_parameters_or_other_inputs_is_refused(tmp_path):
    with made(tmp_path, retrain=WARM, estimator=SGD, params=FITS[SGD]) as project:
        project.clock.set(LATER)

    def asked(**how):
        write(tmp_path, **{"retrain": WARM, "estimator": SGD, "params": FITS[SGD], **how})
        with opened(tmp_path, LATER) as project:
            return refused(lambda: project.train("late", continue_from="champion"))

    assert "has no partial_fit" in asked(estimator="sklearn.linear_model.LogisticRegression", params="{}").found
    assert "is no fit of what model" in asked(params='{"loss": "log_loss", "alpha": 0.5}').found
    assert "is no fit of what model" in asked(estimator="lightgbm.LGBMClassifier", params="{}").found
    file = tmp_path / "project.py"
    write(tmp_path, retrain=WARM, estimator=SGD, params=FITS[SGD])
    file.write_text(file.read_text().replace('"request:y"]', '"request:y", "request:z"]'))
    table = pq.read_table(tmp_path / "rows.parquet")
    pq.write_table(table.append_column("z", table["x"]), tmp_path / "rows.parquet")
    with opened(tmp_path, LATER) as project:
        error = refused(lambda: project.train("late", continue_from="champion"))
    assert (error.code, "inputs" in error.found, "z" in error.found) == ("training.not_continued", True, True)


def test_a_category_that_the_fit_does_not_know_is_refused_by_name(tmp_path):
    table = rows()
    where = np.array(table["where"].to_pylist(), dtype=object)
    where[14 * PER_DAY :: 7] = "east"
    table = table.set_column(table.column_names.index("where"), "where", pa.array(where.tolist()))
    how = {"retrain": WARM, "estimator": "lightgbm.LGBMClassifier", "params": FITS["lightgbm.LGBMClassifier"]}
    how["more"] = MAY
    with made(tmp_path, table, features='"request:x", "request:where"', **how) as project:
        project.clock.set(TRAINED + 3 * DAY)
        assert project.train("late", continue_from="champion").passed
        project.clock.set(LATER)
        assert "where=east" in refused(lambda: project.train("late", continue_from="champion")).found
        assert project.train("late").passed


def test_forgetting_is_caught_by_the_gate(tmp_path):
    table = rows(turns=None)
    x, day = table["x"].to_numpy(), np.arange(table.num_rows) // PER_DAY
    late = np.random.default_rng(3).random(x.size) < 1 / (1 + np.exp(-np.where(day < 10, 2.0, -4.0) * x))
    table = table.set_column(table.column_names.index("late"), "late", pa.array(late))
    with made(tmp_path, table, retrain=WARM, estimator=SGD, params=FITS[SGD]) as project:
        project.clock.set(LATER)
        done = project.retrain("late", "train", reason="the world turned")
        assert done.proposal.state == "gates refused"
        assert "on rows that the release learned from, its loss was" in done.words


def test_without_a_champion_or_with_one_from_elsewhere_there_is_nothing_to_go_on_from(tmp_path):
    write(tmp_path, retrain=WARM, estimator=SGD, params=FITS[SGD])
    pq.write_table(rows(), tmp_path / "rows.parquet")
    with opened(tmp_path, TRAINED) as project:
        assert (
            "nothing of model 'late' is live" in refused(lambda: project.train("late", continue_from="champion")).found
        )
