"""What docstrings say in backticks: a module of the package that they name is there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.house.tree import ROOT, SOURCE, source_files

NAMED = re.compile(r"`([a-z_]+(?:\.\w+)+)(?<!\.parquet)`")


def is_there(names: list[str], folder: Path) -> bool:
    """Whether the names lead from the folder to a module, or to what a module has at its top."""
    first, *rest = names
    if (folder / first).is_dir():
        return not rest or is_there(rest, folder / first)
    if (module := folder / f"{first}.py").exists():
        return not rest or has(module, rest[0])
    return not rest and has(folder / "__init__.py", first)


def has(module: Path, name: str) -> bool:
    return re.search(rf'^(def |class |async def |    ")?{name}\b', module.read_text(), re.MULTILINE) is not None


def test_every_module_that_a_docstring_names_is_there():
    found = []
    for file in source_files():
        near = [folder for folder in file.parents if folder.is_relative_to(SOURCE)]
        for named in NAMED.findall(file.read_text()):
            names = named.removeprefix("seatrial.").split(".")
            meant = [folder for folder in near if (folder / names[0]).is_dir()]
            if meant and not any(is_there(names, folder) for folder in meant):
                found.append(f"{file.relative_to(ROOT)}: {named}")
    assert found == []
