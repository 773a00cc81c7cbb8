"""The source closure: what definitions use of their own, and nothing that is installed, hidden or only near."""

from __future__ import annotations

import pytest

from seatrial.training.closure import closure, import_roots, module_names, own_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(folder, **files):
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(folder, *files):
    return sorted(path.relative_to(folder).as_posix() for path in own_files(folder, [folder / name for name in files]))


@pytest.mark.parametrize(
    "text",
    [
        "import own",
        "from own import fast",
        "import own as other",
        "def late():\n    import own\n",
        'estimator = "own.Fast"',
        "if False:\n    from own import *\n",
    ],
)
def test_a_module_counts_however_it_is_named(folder, text):
    write(folder, project=text, own="fast = 1", near="1")
    assert names(folder, "project.py") == ["own.py", "project.py"]


def test_modules_are_followed_through_packages_and_circles(folder):
    write(folder, project="from pack.deep import one", pack__deep="from . import two\nimport project", pack__two="1")
    (folder / "pack" / "__init__.py").write_text("")
    assert names(folder, "project.py") == ["pack/__init__.py", "pack/deep.py", "pack/two.py", "project.py"]


def test_what_python_would_not_find_there_does_not_count(tmp_path):
    write(tmp_path, project="import own", own="1")
    assert names(tmp_path, "project.py") == ["project.py"]


def test_installed_and_hidden_places_are_no_roots(folder, monkeypatch):
    for place in ("venv/lib/site-packages", ".seatrial/environments/a/own"):
        (folder / place).mkdir(parents=True)
        monkeypatch.syspath_prepend(str(folder / place))
    assert import_roots(folder) == [folder]


def test_a_file_that_is_no_python_ends_the_search(folder):
    write(folder, project="import own", own="this is no python")
    assert names(folder, "project.py") == ["own.py", "project.py"]


def test_files_have_the_names_under_which_they_are_imported(folder):
    files = [folder / "own.py", folder / "pack" / "__init__.py", folder / "pack" / "deep.py"]
    assert module_names(files, [folder]) == ["own", "pack", "pack.deep"]
    assert closure([], [folder]) == []
