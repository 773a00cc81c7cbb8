"""Runs: how two differ, a page and a comment of that, and a project made of one that trains the same again."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime

import pytest

from seatrial import Project
from seatrial.cli import run as cli
from seatrial.core.clock import parse_time
from seatrial.core.errors import SeatrialError, UsageError
from seatrial.verbs.runs import (
    FolderNotEmpty,
    NoBaseRun,
    NotExtractable,
    SnapshotMissing,
    interval,
    markdown,
    trained_at,
)
from tests.worlds import edit, git, nudged, rewrite, write_project


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A repository with a run on main, and one on a branch that changed a parameter, a gate and a cell."""
    folder = write_project(tmp_path_factory.mktemp("world"))
    (folder / ".gitignore").write_text(".seatrial\n*.parquet\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Start")
    with Project(folder) as project:
        first = project.train().run
    git(folder, "checkout", "--quiet", "-b", "wider")
    edit(folder, '"num_leaves": 7', '"num_leaves": 3')
    edit(folder, 'Gate.at_least("roc_auc", 0.55)', 'Gate.at_least("roc_auc", 0.99)')
    git(folder, "commit", "--quiet", "--all", "--message", "Prune")
    rewrite(folder, "departures", nudged)
    with Project(folder) as project:
        second = project.train().run
    return folder, first, second


@pytest.fixture
def folder(world, tmp_path):
    return shutil.copytree(world[0], tmp_path / "copy")


def test_two_runs_are_compared_by_metrics_gates_and_every_input(world):
    folder, first, second = world
    with Project(folder) as project:
        found = project.run_compare(first, second)
    assert (found.a.run, found.b.run, found.a.version, found.b.version) == (first, second, 1, None)
    by_name = {one.metric: one for one in found.metrics}
    assert next(iter(by_name)) == "roc_auc"
    loss = by_name["log_loss"]
    assert loss.better is (loss.b < loss.a)
    assert loss.notable is (abs(loss.b - loss.a) > loss.spread)
    assert [(one.gate, one.a, one.b) for one in found.gates] == [
        ("roc_auc at least 0.99", None, False),
        ("roc_auc at least 0.55", True, None),
    ]
    kinds = [(one.kind, one.name) for one in found.differences]
    assert kinds[:3] == [("data", "departures"), ("code", "project.py"), ("parameter", "num_leaves")]
    assert ("declaration", "gates") in kinds
    assert ("commit", "commit") in kinds
    assert found.differences[0].detail[:2] == (
        "by flight: 0 rows added, 0 removed, 1 changed, 399 unchanged",
        "changed: delay, in 1 row",
    )


def test_a_run_and_itself_are_the_same(world):
    folder, first, _ = world
    with Project(folder) as project:
        found = project.run_compare(first, first)
    assert found.differences == []
    assert {one.better for one in found.metrics} == {None}


def test_the_base_is_the_newest_run_from_a_commit_that_the_branch_has(world):
    folder, first, second = world
    with Project(folder) as project:
        found = project.run_compare(base="main")
        assert (found.a.run, found.b.run, found.base) == (first, second, "main")
        with pytest.raises(NoBaseRun, match="no other run"):
            project.run_compare(first, base="main")
        with pytest.raises(NoBaseRun, match="no branch 'nowhere'"):
            project.run_compare(base="nowhere")


def test_runs_of_a_dirty_tree_are_no_base(folder):
    git(folder, "checkout", "--quiet", "main")
    edit(folder, '"num_leaves": 7', '"num_leaves": 5')
    with Project(folder) as project:
        dirty = project.train().run
        assert project.runs()[-1]["commit"].endswith("+")
        assert project.run_compare(base="main").a.run != dirty


def test_the_comment_says_what_moved_and_what_was_changed(world):
    folder, first, second = world
    with Project(folder) as project:
        text = markdown(project.run_compare(first, second))
    assert text.startswith("### `late`: ❌ 1 of 1 gates say no\n")
    assert "| metric | base | this | change |" in text
    assert "- `num_leaves`: 7 → 3" in text
    assert "  - changed: delay, in 1 row" in text
    assert "**Environment:** the same" in text
    assert text.count("<details") == text.count("</details>") == 3


def test_a_text_of_the_project_does_not_break_the_comments_table(folder):
    edit(folder, '"subsample_freq": 1', '"subsample_freq": 1, "metric": "auc|<b>`x`"')
    edit(folder, "0.99", "0.5")
    with Project(folder) as project:
        project.train()
        text = markdown(project.run_compare())
    assert "auc\\|&lt;b>'x'" in text


def test_pages_hold_everything_they_need_and_escape_what_they_show(world, tmp_path):
    folder, first, second = world
    page, compared = tmp_path / "run.html", tmp_path / "compared.html"
    assert cli(["--project", str(folder), "runs", "show", second, "--html", str(page)]) == 0
    assert cli(["--project", str(folder), "runs", "compare", first, second, "--html", str(compared)]) == 0
    for text in (page.read_text(), compared.read_text()):
        assert not re.search(r"https?://(?!www\.w3\.org/)", text)
        assert not re.search(r"<(script|link|img|iframe)\b", text)
        assert "prefers-color-scheme: dark" in text
    assert "1 of 1 gate said no, so it became no version" in page.read_text()
    assert "num_leaves" in compared.read_text()


def test_lists_say_when_which_version_and_which_commit(world):
    folder, first, second = world
    with Project(folder) as project:
        listed = project.runs("late")
    assert [(one["run"], one["version"], one["passed"]) for one in listed] == [(first, 1, True), (second, None, False)]
    assert all(re.fullmatch(r"[0-9a-f]{8}\+?", one["commit"]) for one in listed)
    age = datetime.now(UTC) - parse_time(listed[0]["trained_at"])
    assert 0 <= age.total_seconds() < 3600


def test_a_run_that_failed_has_a_page_and_is_not_compared_or_made_again(folder):
    edit(folder, '"num_leaves": 3', '"num_leaves": 3, "objective": "nonsense"')
    with Project(folder) as project:
        with pytest.raises(SeatrialError, match="nonsense"):
            project.train()
        failed = project.runs()[-1]["run"]
        assert "It failed at" in project.run_page(failed)
        assert failed not in (project.run_compare().a.run, project.run_compare().b.run)
        for attempt in (lambda: project.run_compare(failed, "late:1"), lambda: project.reproduce(failed)):
            with pytest.raises(SeatrialError, match=f"run {failed} failed"):
                attempt()


def test_an_id_that_tells_no_time_gives_none():
    assert trained_at("run_older") == ""


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ({"of": {"roc_auc": [0.6, 0.8]}, "level": 0.95}, (0.6, 0.8)),
        ({"roc_auc": {"low": 0.6, "high": 0.8}}, (0.6, 0.8)),
        ({"of": {"roc_auc": None}}, None),
        (None, None),
        ({}, None),
    ],
)
def test_intervals_are_read_where_they_were_recorded(kept, expected):
    assert interval({"intervals": kept}, "roc_auc") == expected


def test_an_extracted_run_trains_to_the_same_model_without_the_project(world, tmp_path):
    folder, first, _ = world
    target = tmp_path / "extracted"
    assert cli(["--project", str(folder), "runs", "extract", first, "--to", str(target)]) == 0
    assert (target / "project.py").read_text().count('"num_leaves": 7')
    readme = (target / "README.md").read_text()
    command = re.search(r"seatrial (train .*)", readme).group(1).split()
    assert cli(["--project", str(target), *command]) == 0
    with Project(folder) as project, Project(target) as extracted:
        was, again = project.run_show(first), extracted.run_show(extracted.runs()[-1]["run"])
        natives = [
            one.objects.read(run["files"]["native.lightgbm"]) for one, run in ((project, was), (extracted, again))
        ]
    assert again["metrics"] == was["metrics"]
    assert again["training_set"] == was["training_set"]
    assert again["data"] == was["data"]
    assert natives[0] == natives[1]


def test_extracting_writes_over_nothing_and_says_what_is_missing(folder, world, tmp_path):
    first = world[1]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with Project(folder) as project:
        with pytest.raises(FolderNotEmpty):
            project.run_extract(first, tmp_path / "full")
        snapshot = project.run_show(first)["data"]["departures"]
        (folder / ".seatrial" / "objects" / "snapshots" / f"{snapshot}.parquet").unlink()
        with pytest.raises(SnapshotMissing):
            project.run_extract(first, tmp_path / "new")
        assert not (tmp_path / "new").exists()


def test_definitions_given_in_memory_cannot_be_extracted(tmp_path):
    write_project(tmp_path)
    with Project(tmp_path) as project:
        given = list(project.definitions.models.values())
    with Project(tmp_path, definitions=given) as project:
        run = project.train().run
        with pytest.raises(NotExtractable, match="given in memory"):
            project.run_extract(run, tmp_path / "x")
        assert project.reproduce(run).verdict == "identical"


def test_with_fewer_runs_than_are_needed_nothing_is_compared(tmp_path):
    write_project(tmp_path)
    with Project(tmp_path) as project, pytest.raises(UsageError, match="are 0 runs of any model"):
        project.run_compare()


def test_a_row_that_went_is_one_row_and_not_a_change_of_every_cell_behind_it(folder):
    with Project(folder) as project:
        before = project.train("late").run
        rewrite(folder, "departures", lambda rows: rows.slice(1))
        after = project.train("late").run
        found = project.run_compare(before, after)
        (data,) = [one for one in found.differences if one.name == "departures"]
        words = "\n".join(data.detail)
        diff = str(project.snapshots_diff(*dict.fromkeys(one["id"] for one in project.snapshots("departures")[-2:])))
    for told in (words, diff):
        assert "0 rows added, 1 removed, 0 changed" in told
        assert "cells" not in told
