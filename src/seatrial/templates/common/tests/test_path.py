"""The whole path, from raw data to a logged prediction, holds together."""

import pytest


def test_every_model_passes_its_gates_and_goes_live(project, live):
    for model, (trained, released, deployed) in live.items():
        assert trained.passed
        assert released.version == trained.version
        assert deployed.live == released.id
        (status,) = [status for status in project.status() if status.model == model]
        assert status.live


def test_packing_the_same_run_again_gives_the_same_release(project, live):
    for model, (_, released, _) in live.items():
        again = project.release(model)
        assert again.id == released.id
        assert not again.new


def test_a_release_can_be_followed_back_to_the_data(project, live):
    for trained, released, _ in live.values():
        made_from = {node.id for node in project.lineage(released.id).nodes}
        assert {trained.run, trained.training_set, *trained.snapshots} <= made_from


@pytest.mark.usefixtures("live")
def test_the_audit_log_is_whole(project):
    assert project.audit_verify().intact
