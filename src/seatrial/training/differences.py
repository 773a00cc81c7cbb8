"""What was other? Two trainings, or a training and the present, compared input by input: data, code, settings, machine.

Every difference names the input, what it was and what it is, in the order in which one would look for the cause of
a model that came out otherwise: data, code, declaration, seed, threads, packages, machine. Plain values in, plain
values out; whoever calls has read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from seatrial.core.errors import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.data.snapshot import Content

Kind = Literal[
    "data", "training set", "code", "parameter", "declaration", "seed", "threads", "package", "machine", "commit"
]
ORDER: tuple[Kind, ...] = (
    "data",
    "code",
    "parameter",
    "declaration",
    "seed",
    "threads",
    "package",
    "machine",
    "training set",
    "commit",
)
SILENT = ("commit",)
"""Kinds that by themselves move no model: what a commit changes shows as code, too."""
MACHINE = ("python", "platform", "cpu", "hash_seed", "blas", "thread_variables")
NOT_LEARNED = ("gates", "waives", "slices", "personal", "owner", "on_call", "runbook", "description")
"""Parts of a declaration that decide about a model, or describe it, but that it does not learn from."""


class Difference(msgspec.Struct, frozen=True):
    """One input that differs.

    name: of the source, file, parameter, package or fact. before, after: in words; "none" where there is nothing.
    detail: more, a line each: the columns and the cells that changed.
    """

    kind: Kind
    name: str
    before: str
    after: str
    detail: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.before} -> {self.after}"

    @property
    def moves(self) -> bool:
        """Whether a model can come out otherwise because of it."""
        return self.kind not in SILENT and not (self.kind == "declaration" and self.name in NOT_LEARNED)


def in_order(differences: Sequence[Difference]) -> list[Difference]:
    """Those that can move a model first, and by kind, as one would look for the cause."""
    return sorted(differences, key=lambda one: (not one.moves, ORDER.index(one.kind)))


def of_code(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Differences between two `environment.code` facts: files, the commit, and uncommitted changes."""
    found: list[Difference] = []
    old, new = before.get("files"), after.get("files")
    if old is None or new is None:  # a run of an earlier version names no files
        if before["definitions"] != after["definitions"]:
            found.append(_difference("code", "definitions", before["definitions"][:12], after["definitions"][:12]))
    else:
        found += [
            _difference("code", place, _short(old.get(place)), _short(new.get(place)))
            for place in sorted({**old, **new})
            if old.get(place) != new.get(place)
        ]
    if before["commit"] != after["commit"]:
        found.append(_difference("commit", "commit", _short(before["commit"]), _short(after["commit"])))
    if before["patch"] != after["patch"]:
        words = [f"patch {patch[:12]}" if patch else "none" for patch in (before["patch"], after["patch"])]
        found.append(_difference("commit", "uncommitted changes", *words))
    return found


def of_declaration(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Differences between two declarations of a model, as a run's record keeps them."""
    found: list[Difference] = []
    old, new = before.get("params", {}), after.get("params", {})
    found += [
        _difference("parameter", name, old.get(name), new.get(name))
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    for what in dict.fromkeys([*before, *after]):
        if what != "params" and what in before and what in after and before[what] != after[what]:
            kind: Kind = what if what in ("seed", "threads") else "declaration"  # type: ignore[assignment]
            found.append(_difference(kind, what, before[what], after[what]))
    return found


def of_environment(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Differences between two environments: packages by name and version, interpreter, processor, BLAS, variables."""
    old, new = versions(before["packages"]), versions(after["packages"])
    found = [
        _difference("package", name, old.get(name, "not installed"), new.get(name, "not installed"))
        for name in sorted({**old, **new})
        if old.get(name) != new.get(name)
    ]
    # one that was installed in addition comes last: it is the least likely cause
    found.sort(key=lambda one: (one.before == "not installed", one.name))
    for what in MACHINE:
        if before.get(what) != after.get(what):
            found.append(_difference("machine", what, _machine(before.get(what)), _machine(after.get(what))))
    return found


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Package -> version of lines name==version."""
    return dict(line.split("==", 1) for line in packages if "==" in line)


def of_data(
    source: str,
    before: Content,
    after: Content,
    tables: tuple[pa.Table, pa.Table] | None = None,
    kind: Kind = "data",
    keys: Sequence[Sequence[str]] = (),
) -> Difference | None:
    """How a source's rows differ, by column and, with both tables, by cell; None when they do not.

    keys: columns that may name a row; by the first that does in both tables the rows are compared, else by position.
    Rows in another order and rows put at the end are told as what they are.
    """
    from seatrial.data.keyed import by_first_key
    from seatrial.data.snapshot import diff

    if before.id == after.id:
        return None
    was, now = (f"{one.id[:17]} ({counted(one.rows, 'row')})" for one in (before, after))
    if tables is not None and not _retyped(before, after):
        old, new = tables
        if before.rows == after.rows and _same_rows(old, new):
            return Difference(kind, source, was, now, ("the same rows in another order",))
        if before.rows < after.rows and _starts_with(new, old, before):
            return Difference(kind, source, was, now, (f"{_rows_were(after.rows - before.rows)} put at the end",))
    found = diff(before, after, *(tables or ()))
    keyed = by_first_key(*tables, keys) if tables is not None else None
    lines = str(replace(found, keyed=keyed)).splitlines()[1:]
    return Difference(kind, source, was, now, tuple(line.strip() for line in lines))


def _rows_were(count: int) -> str:
    return f"{counted(count, 'row')} {'was' if count == 1 else 'were'}"


def _retyped(before: Content, after: Content) -> bool:
    return [(c.name, c.type) for c in before.columns] != [(c.name, c.type) for c in after.columns]


def _same_rows(old: pa.Table, new: pa.Table) -> bool:
    """Whether two tables of one schema have the same rows, whatever their order."""
    from seatrial.data.snapshot import content

    first, second = _sorted(old), _sorted(new)
    return first is not None and second is not None and content(first) == content(second)


def _sorted(table: pa.Table) -> pa.Table | None:
    """The rows by all columns; None where a column cannot be sorted by."""
    import pyarrow as pa

    if any(pa.types.is_nested(field.type) for field in table.schema):
        return None
    return table.sort_by([(name, "ascending") for name in table.column_names])


def _starts_with(new: pa.Table, old: pa.Table, before: Content) -> bool:
    from seatrial.data.snapshot import content

    return content(new.slice(0, old.num_rows)) == before


def _difference(kind: Kind, name: str, before: Any, after: Any) -> Difference:
    return Difference(kind, name, _words(before), _words(after))


def _words(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_words(one)}" for name, one in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_words, value)) or "none"
    return " ".join(str(value).split())


def _machine(value: Any) -> str:
    """BLAS libraries as "openblas 0.3.30 SkylakeX"; anything else in words."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        kinds = [" ".join(str(part) for part in one.values() if part) for one in value]
        return ", ".join(dict.fromkeys(kinds)) or "none"
    return _words(value)


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"
