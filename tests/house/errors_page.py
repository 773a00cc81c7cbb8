"""docs/errors.md, made from the error classes: `python -m tests.house.errors_page` (or `make docs`) rewrites it."""

from __future__ import annotations

import inspect
from pathlib import Path

from tests.house.tree import ROOT, error_classes

PAGE = ROOT / "docs" / "errors.md"
HEAD = """# Errors, by code

Every error that seatrial raises has a code that does not change. On the command line it stands in brackets behind
the error's name; over HTTP it is the field `code` of the problem document, and `status` is the answer's status.

Exit codes of the command line: 0 done, 1 failed, 2 the call is wrong, 3 a gate refused, 4 not allowed, 5 conflict,
6 something that is needed did not answer, 130 interrupted.

This page is made from the classes (`make docs`).

| code | class | meaning | exit code | status |
|---|---|---|---|---|
"""


def page() -> str:
    """The page as it should be."""
    lines = [
        f"| `{kind.code}` | `{kind.__name__}` | {_meaning(kind)} | {kind.exit_code} | {kind.http_status} |"
        for kind in error_classes()
        if "code" in vars(kind)
    ]
    return HEAD + "\n".join(lines) + "\n"


def write(path: Path = PAGE) -> None:
    """Rewrite the page."""
    path.write_text(page(), encoding="utf-8")


def _meaning(kind: type) -> str:
    """The first sentence of the class's docstring."""
    first = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    return first.replace("|", "\\|")


if __name__ == "__main__":
    write()
