"""The test part of a release as labelled predictions: it measures what the run measured, on the inputs it had."""

from __future__ import annotations

import numpy as np
import pytest

from seatrial import Project
from seatrial.core.records import Record
from seatrial.monitoring.looks.performance import measure_sample
from seatrial.verbs.tested import ROWS, SCORES, labelled_test_part
from tests.worlds import write_project


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = write_project(tmp_path_factory.mktemp("world"))
    with Project(folder) as project:
        yield project, project.record(project.train().run)


def release_of(*inputs):
    return Record("rel_1", "release", "late", inputs)


def part_of(project, run):
    return labelled_test_part(project, release_of("version_1", run.id), 0.5, 0.5)


def test_it_measures_what_the_run_measured(world):
    project, run = world
    found = part_of(project, run)
    assert found is not None
    assert found.name == "the test part of the release"
    assert found.timed
    measured, _ = measure_sample(found.sample, np.ones(found.rows, dtype=bool))
    tested = run.body["metrics"]
    for name in ("roc_auc", "log_loss", "brier"):
        assert measured[name] == pytest.approx(tested[name]), name


def test_it_has_the_inputs_of_the_model_in_the_order_of_time(world):
    project, run = world
    sample = part_of(project, run).sample
    assert set(sample.features) == set(run.body["signature"]["inputs"])
    assert (np.diff(sample.at_us()) >= 0).all()
    # the label follows the distance, so the rows of both files belong together
    distance = sample.rows["feature_distance"].to_numpy()
    labels = sample.label_values()
    assert distance[labels == 1].mean() > distance[labels == 0].mean() + 0.5


def test_a_release_without_a_run_here_has_none(world):
    project, run = world
    assert labelled_test_part(project, None, 0.5, 0.5) is None
    assert labelled_test_part(project, release_of("version_1", "run_of_another_environment"), 0.5, 0.5) is None
    assert run.body["files"][SCORES] != run.body["files"][ROWS]


def test_a_damaged_file_is_as_none(world):
    project, run = world
    path = project.objects.path(run.body["files"][SCORES])
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[: len(whole) // 2])
    try:
        assert part_of(project, run) is None
    finally:
        path.write_bytes(whole)
    assert part_of(project, run) is not None
