"""How the registry and its releases look to people."""

from __future__ import annotations

import json

from seatrial.cli.render import MAIN_METRICS, Block, Line, Plain, Table, inline


def listed(things: list[Plain]) -> list[Plain]:
    """The versions of every model; whether one was rolled back only where one was."""
    if any(one["rolled_back"] for one in things):
        return things
    return [{name: value for name, value in one.items() if name != "rolled_back"} for one in things]


def model(shown: Plain) -> list[Block]:
    """A model: its versions, newest last, and what its aliases name."""
    rows = []
    for one in shown["versions"]:
        metric = next((f"{name} {one['metrics'][name]:.4f}" for name in MAIN_METRICS if one["metrics"].get(name)), "")
        if one["measured_on"] == "sample":
            metric = f"{metric} (sample)" if metric else "not measured"
        state = f"live in {', '.join(one['live'])}" if one["live"] else ""
        state = f"deleted {one['deleted']}" if one["deleted"] else state
        release = f"{one['semantic_version']} {one['release']}" if one["release"] else None
        rows.append((one["version"], ", ".join(one["aliases"]), release, metric, one["actor"], state))
    blocks: list[Block] = [Line(shown["model"], "bold")]
    measured = "metric" if any(one["measured_on"] == "sample" for one in shown["versions"]) else "test"
    blocks.append(Table(("version", "aliases", "release", measured, "by", ""), rows))
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


def resigned(done: Plain) -> list[Block]:
    """Releases that were signed again."""
    if not done["releases"]:
        return [Line(f"Everything named is signed by {done['key']} already.")]
    routes = f"; routes written anew: {', '.join(done['routes'])}" if done["routes"] else ""
    return [Line(f"Signed by {done['key']} now: {', '.join(done['releases'])}{routes}.")]


def keys(things: list[Plain]) -> list[Block]:
    """Keys, those that are trusted first."""
    if not things:
        return [Line("There is no key yet; the first release makes one.", "dim")]
    rows = [
        (
            one["id"],
            f"{one['state']}, signs ({one['source']})" if one["own"] else one["state"],
            one["releases"],
            one["history"][-1] if one["history"] else "",
        )
        for one in things
    ]
    return [Table(("key", "state", "releases", "last"), rows)]


def key(shown: Plain) -> list[Block]:
    """One key and what it signed."""
    one = shown["key"]
    blocks: list[Block] = [Line(f"{one['id']}: {one['state']}{', signs now' if one['own'] else ''}", "bold")]
    blocks += [Line(f"  {words}") for words in one["history"]]
    if not shown["signed"]:
        return [*blocks, Line("It signed no release that is kept here.", "dim")]
    rows = [
        (one["release"], one["model"], one["semantic_version"], ", ".join(one["live"]), one["packed"] or "NOT BY US")
        for one in shown["signed"]
    ]
    return [*blocks, Line(), Table(("release", "model", "version", "live in", "packed"), rows)]


def key_changed(done: Plain) -> list[Block]:
    """A key that was rotated, revoked or trusted."""
    blocks: list[Block] = [
        Line(
            f"Signs from now on: {done['id']}; before: {done['before'] or 'none'}, which stays trusted."
            if done["what"] == "rotated"
            else f"{done['what'].capitalize()}: {done['id']}."
        )
    ]
    return [*blocks, Line(f"Next: {done['next']}", "dim")] if done["next"] else blocks


def verified(done: Plain) -> list[Block]:
    """A bundle that was checked, and each check."""
    title = f"{done['model']} {done['semantic_version']} ({done['release']}) is whole."
    return [Line(title, "bold"), Table(("", "checked", "found"), [(True, *one) for one in done["checked"]])]


def difference(found: Plain) -> list[Block]:
    """Two releases beside each other."""
    blocks: list[Block] = [Line(found["words"], "bold"), Line()]
    replays = [
        (
            one["equal"],
            one["golden_of"],
            one["scored_by"],
            one["rows"] or None,
            one["largest"],
            one["decisions"],
            one["problem"],
        )
        for one in found["replays"]
    ]
    blocks.append(Table(("equal", "golden rows of", "scored by", "rows", "largest", "decisions", ""), replays))
    rows = [(one["group"], one["name"], _short(one["a"]), _short(one["b"])) for one in found["changed"]]
    return [*blocks, Line(), Table(("changed", "what", "a", "b"), rows)] if rows else blocks


def _short(value: object) -> str | int | float | bool | None:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    words = inline(value)
    return words if len(words) <= 60 else f"{words[:57]}..."


def card(done: Plain) -> list[Block]:
    """A model card, or where it was written."""
    missing = [Line(f"Not written by the owner: {', '.join(done['missing'])}.", "red")] if done["missing"] else []
    if done["path"] is None:
        return [Line(line) for line in done["text"].splitlines()]
    return [Line(f"The card of {done['model']} ({done['release']}) is in {done['path']}."), *missing]


def bill(done: Plain) -> list[Block]:
    """A bill of materials, or where it was written."""
    if done["path"] is None:
        return [Line(line) for line in json.dumps(done["document"], indent=2, ensure_ascii=False).splitlines()]
    return [Line(f"{done['libraries']} libraries, the model, its data and its files are in {done['path']}.")]
