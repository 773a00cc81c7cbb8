"""The project under test: this folder's definitions and data, with a state of its own that is thrown away."""

from pathlib import Path

import pytest

from seatrial import Project

FOLDER = Path(__file__).parents[1]

# Train on labels known by then; None: on all that are known now. A fixed time keeps the tests alike from day to day:
#     from datetime import UTC, datetime
#     CUTOFF = datetime(2024, 4, 1, tzinfo=UTC)
CUTOFF = None


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """The project, opened beside an empty state: nothing that the tests do touches .seatrial/ of this folder."""
    copy = tmp_path_factory.mktemp("project")
    for entry in FOLDER.iterdir():
        if entry.name not in (".seatrial", ".git", ".venv", "tests"):
            (copy / entry.name).symlink_to(entry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_POLICY_APPROVAL", "none")  # nobody has to approve what a test deploys
        opened = Project(copy, actor="tests")
    with opened:
        yield opened


@pytest.fixture(scope="session")
def models(project):
    """The names of the declared models."""
    names = [status.model for status in project.status()]
    if not names:
        pytest.skip("project.py declares no Model yet")
    return names


@pytest.fixture(scope="session")
def live(project, models):
    """The whole path, once: what came of it by model, as (Trained, Released, Deployed)."""
    done = {}
    for model in models:
        trained = project.train(model, cutoff=CUTOFF)
        assert trained.passed, f"{model}: {[gate for gate in trained.gates if not gate['passed']]}"
        released = project.release(model)
        deployed = project.deploy(model, release=released.id, reason="tests")
        done[model] = trained, released, deployed
    project.materialize(at=CUTOFF)
    return done
