"""How the registry and its releases look to people."""

from __future__ import annotations

from seatrial.cli.render import MAIN_METRICS, Block, Line, Plain, Table


def model(shown: Plain) -> list[Block]:
    """A model: its versions, newest last, and what its aliases name."""
    rows = []
    for one in shown["versions"]:
        metric = next((f"{name} {one['metrics'][name]:.4f}" for name in MAIN_METRICS if one["metrics"].get(name)), "")
        state = f"live in {', '.join(one['live'])}" if one["live"] else ""
        state = f"deleted {one['deleted']}" if one["deleted"] else state
        release = f"{one['semantic_version']} {one['release']}" if one["release"] else None
        rows.append((one["version"], ", ".join(one["aliases"]), release, metric, one["actor"], state))
    blocks: list[Block] = [Line(shown["model"], "bold")]
    blocks.append(Table(("version", "aliases", "release", "test", "by", ""), rows))
    return [*blocks, Line(), Line(f"Moves of aliases: seatrial models history {shown['model']}", "dim")]


def aliased(done: Plain) -> list[Block]:
    """An alias after it was set or removed."""
    name = f"{done['model']}@{done['alias']}"
    if done["version"] is None:
        return [Line(f"{name} was removed.")]
    return [Line(f"{name} names version {done['version']}" + ("." if done["changed"] else " already."))]


def moves(things: list[Plain]) -> list[Block]:
    """Moves of aliases, oldest first."""
    if not things:
        return [Line("No alias was moved yet.", "dim")]
    rows = [(one["at"], one["alias"], one["before"], one["after"], one["actor"], one["reason"]) for one in things]
    return [Table(("at", "alias", "from", "to", "by", "why"), rows)]


def deleted(done: Plain) -> list[Block]:
    """What was taken out of use."""
    with_it = [f"alias {alias}" for alias in done["aliases"]]
    with_it += [f"release {done['release']}"] if done["release"] and done["kind"] == "version" else []
    what = f"{done['kind']} {done['id']} (version {done['version']} of {done['model']})"
    return [
        Line(f"Deleted: {what}" + (f", with {', '.join(with_it)}" if with_it else "") + "."),
        Line(f"Its history stays: seatrial lineage {done['id']}", "dim"),
    ]
