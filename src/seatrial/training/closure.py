"""Which files is this code made of? The definitions of a project, or a function, with everything of one's own they use.

What is installed is told by its version; what lies beside the definitions is told by its bytes. Imports are read from
the text, wherever they stand in it, and so are import paths in quotes ("estimators.Fast"), which is how a model names
its estimator. Nothing is run.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

INSTALLED = frozenset({"site-packages", "dist-packages"})
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def own_files(folder: Path, files: Sequence[Path]) -> list[Path]:
    """`files` and every Python file within `folder` that they import or name, directly or through others.

    Only what Python would find counts: files below those entries of sys.path that lie in the folder, and that are not
    where packages are installed. The order is that of finding; files that cannot be read or parsed end the search.
    """
    return closure([folder / file for file in files], import_roots(folder))


def import_roots(folder: Path) -> list[Path]:
    """The places within `folder` where Python looks for modules; none that is hidden, as state and environments are."""
    folder = folder.resolve()
    places = dict.fromkeys(Path(entry or ".").resolve() for entry in sys.path)
    within = [place for place in places if place.is_relative_to(folder) and not INSTALLED & set(place.parts)]
    return [place for place in within if not any(part.startswith(".") for part in place.relative_to(folder).parts)]


def closure(starts: Sequence[Path], roots: Sequence[Path]) -> list[Path]:
    """`starts` and every Python file below `roots` that they import or name, directly or through others."""
    found = list(dict.fromkeys(starts))
    seen = {path.resolve() for path in found}
    for path in found:  # which grows
        for below in _imported(path, roots) if roots else ():
            if below.resolve() not in seen:
                seen.add(below.resolve())
                found.append(below)
    return found


def module_names(files: Iterable[Path], roots: Sequence[Path]) -> list[str]:
    """The names under which files below `roots` are imported; files elsewhere have none."""
    names = []
    for file in files:
        for root in roots:
            if file.resolve().is_relative_to(root):
                parts = list(file.resolve().relative_to(root).with_suffix("").parts)
                names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return [name for name in dict.fromkeys(names) if name]


def _imported(path: Path, roots: Sequence[Path]) -> Iterator[Path]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(alias.name, roots)
        elif isinstance(node, ast.ImportFrom):
            above = path.resolve().parents[node.level - 1] if node.level else None
            places = roots if above is None else [above]
            module = node.module or ""
            for alias in node.names:
                yield from _files(f"{module}.{alias.name}".strip("."), places)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _DOTTED.fullmatch(node.value):
            yield from _files(node.value, roots)


def _files(dotted: str, roots: Sequence[Path]) -> Iterator[Path]:
    """The files of a module and of the packages above it; of `module.name` those of the module."""
    parts = dotted.split(".")
    for root in roots:
        for length in range(1, len(parts) + 1):
            place = root.joinpath(*parts[:length])
            for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
                if file.is_file():
                    yield file
