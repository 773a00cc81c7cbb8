"""The demo, as `make demo` runs it, on one day of April."""

from __future__ import annotations

import json

import pytest

from seatrial import Project
from seatrial.cli import demo
from seatrial.core.windows import parse_window

pytestmark = pytest.mark.slow

DAY = parse_window("2013-04-01T04:00:00Z/2013-04-02T04:00:00Z")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The demo's folder and its account as JSON."""
    folder = tmp_path_factory.mktemp("demo") / "flights"
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("sys.stdout.write", printed.append)
        demo.run(folder, as_json=True, window=DAY)
    return folder, json.loads("".join(printed))


def test_it_goes_the_whole_path_and_says_how_to_open_the_service(told):
    folder, account = told
    assert [step["step"] for step in account["steps"]] == [
        "init", "validate", "snapshot", "materialize", "train", "release", "deploy", "serve and predict", "lineage",
        "audit", "export",
    ]  # fmt: skip
    assert any("1048.36" in line for line in account["steps"][1]["outcome"])
    assert account["predictions"] > 900
    assert account["open"] == f"cd {folder} && seatrial serve --replay"


def test_lineage_names_the_commit_and_the_files_of_the_data(told):
    folder, account = told
    with Project(folder) as project:
        nodes = project.lineage(account["release"]).nodes
    (run,) = (node for node in nodes if node.kind == "run")
    assert run.facts["code.commit"] == account["commit"]
    snapshots = [node for node in nodes if node.kind == "snapshot"]
    assert any("data/flights.csv" in str(node.events) for node in snapshots)


def test_it_replaces_an_earlier_demo_and_nothing_else(told, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(demo.FolderTaken):
        demo.run(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"
