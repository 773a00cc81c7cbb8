import json
import shutil
import subprocess

import numpy as np
import pytest

from seatrial.training.environment import DefinitionUnreadable, definitions_digest, describe

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "project.py").write_text("answer = 42\n")
    return tmp_path


def git(folder, *arguments):
    name = ["-c", "user.name=A", "-c", "user.email=a@example.invalid", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *name, *arguments], capture_output=True, check=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(folder):
    git(folder, "init", "-q")
    git(folder, "add", "project.py")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


def code_of(folder, *files):
    found = describe(folder, [folder / name for name in files or ["project.py"]], 1)
    return found.facts["code"], found.patch


def test_the_facts_are_plain_and_complete(folder):
    facts = describe(folder, [folder / "project.py"], 2, seed=42).facts
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["threads"], facts["seed"]) == (2, 42)
    assert f"numpy=={np.__version__}" in facts["packages"]
    assert facts["packages"] == sorted(set(facts["packages"]))
    assert facts["cpu"]
    assert {pool["internal_api"] for pool in facts["blas"]}
    assert str(folder) not in json.dumps(facts)


def test_without_git_commit_and_dirty_are_none(folder):
    code, patch = code_of(folder)
    assert (code["commit"], code["dirty"], code["patch"], patch) == (None, None, None, b"")


def test_the_lock_file_is_digested_when_there_is_one(folder):
    first = describe(folder, [], 1).facts["lock"]
    assert first["file"] is None
    (folder / "requirements.lock").write_text("numpy==2.0\n")
    second = describe(folder, [], 1).facts["lock"]
    assert second["file"]
    assert second["digest"] == first["digest"]


@needs_git
def test_a_clean_tree_has_a_commit_and_no_patch(repository):
    code, patch = code_of(repository)
    assert code["commit"] == git(repository, "rev-parse", "HEAD")
    assert (code["dirty"], code["patch"], patch) == (False, None, b"")


@needs_git
def test_uncommitted_changes_and_new_definition_files_are_in_the_patch_which_applies(repository, tmp_path_factory):
    (repository / "project.py").write_text("answer = 43\n")
    (repository / "more.py").write_text("extra = 1\n")
    (repository / "data.csv").write_text("not a definition\n")
    code, patch = code_of(repository, "project.py", "more.py")
    assert code["dirty"] is True
    assert b"answer = 43" in patch
    assert b"not a definition" not in patch

    clone = tmp_path_factory.mktemp("clone")
    git(clone, "clone", "-q", str(repository), ".")
    (clone / ".git" / "saved.patch").write_bytes(patch)
    git(clone, "apply", str(clone / ".git" / "saved.patch"))
    assert (clone / "project.py").read_text() == "answer = 43\n"
    assert (clone / "more.py").read_text() == "extra = 1\n"
    again, _ = code_of(clone, "project.py", "more.py")
    assert again["definitions"] == code["definitions"]


@needs_git
def test_another_change_gives_another_patch_digest(repository):
    (repository / "project.py").write_text("answer = 43\n")
    first, _ = code_of(repository)
    (repository / "project.py").write_text("answer = 44\n")
    second, _ = code_of(repository)
    assert first["patch"] != second["patch"]
    assert first["commit"] == second["commit"]


@needs_git
def test_an_untracked_file_makes_the_tree_dirty_only_when_the_definitions_use_it(repository):
    (repository / "notes.txt").write_text("new\n")
    (repository / "page.html").write_text("new\n")
    assert code_of(repository)[0]["dirty"] is False
    (repository / "more.py").write_text("new\n")
    code, patch = code_of(repository, "project.py", "more.py")
    assert code["dirty"] is True
    assert b"more.py" in patch


@needs_git
def test_a_definition_file_outside_of_the_repository_makes_it_dirty(repository, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "shared.py"
    elsewhere.write_text("x = 1\n")
    found = describe(repository, [repository / "project.py", elsewhere], 1)
    assert found.facts["code"]["dirty"] is True
    assert b"project.py" not in found.patch


@needs_git
def test_a_repository_without_a_commit_is_dirty_and_has_none(folder):
    git(folder, "init", "-q")
    code, patch = code_of(folder)
    assert (code["commit"], code["dirty"], patch) == (None, True, b"")


def test_the_definitions_digest_depends_on_places_and_bytes_not_on_order(folder):
    (folder / "a.py").write_text("x")
    (folder / "b.py").write_text("y")
    first = definitions_digest(folder, [folder / "a.py", folder / "b.py"])
    assert definitions_digest(folder, [folder / "b.py", folder / "a.py"]) == first
    (folder / "b.py").rename(folder / "c.py")
    assert definitions_digest(folder, [folder / "a.py", folder / "c.py"]) != first


def test_a_definition_file_that_is_gone_is_named(folder):
    with pytest.raises(DefinitionUnreadable, match=r"gone\.py"):
        describe(folder, [folder / "gone.py"], 1)
