"""Snapshots for people, as text and as a page: which there are, what one holds, and what changed since the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seatrial.cli.data import STYLE, TONES, checks, count_of, figures
from seatrial.cli.render import Block, Line, Plain, Style, Table, inline
from seatrial.monitoring.pages.page import document
from seatrial.monitoring.pages.pictures import Bar, bars, safe, table, value_text

LEVELS = "▁▂▃▄▅▆▇█"
MOST_SHOWN = 3
MOST_PARTS = 12
MOST_COLUMNS = 300
WIDE, HIGH = 240, 46
MARKS: dict[str, tuple[str, Style]] = {"warn": ("!", "bold"), "info": ("·", "")}
PAGE_STYLE = """<style>
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr)); gap: .7rem;
  margin: 1rem 0; }
.cards > div { background: var(--raised); border-radius: 8px; padding: .7rem .9rem; border-top: 3px solid var(--rule);
  min-width: 0; }
.cards > div.changed { border-top-color: var(--blue); }
.cards h3 { margin: 0; overflow-wrap: anywhere; } .cards p { margin: .1rem 0 .4rem; }
.cards .ends { display: flex; justify-content: space-between; gap: .6rem; margin: .2rem 0 0; color: var(--quiet);
  font-size: .8rem; font-variant-numeric: tabular-nums; }
.cards .ends span:last-child { text-align: right; }
.cards ol { list-style: none; margin: .2rem 0 0; padding: 0; font-size: .85rem; }
.cards li { display: grid; grid-template-columns: minmax(0, 1fr) max-content; gap: .6rem; position: relative;
  padding: .05rem .3rem; margin: .15rem 0; }
.cards li span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; position: relative; }
.cards li i { position: absolute; inset: 0 auto 0 0; background: var(--blue); opacity: .22; border-radius: 3px; }
.cards svg { display: block; width: 100%; height: 46px; } .cards svg rect { fill: var(--blue); }
.tag { color: var(--blue); font-weight: 650; }
.notes { padding: 0; list-style: none; } .notes .warn { color: var(--red); font-weight: 650; }
.taken td { white-space: nowrap; }
</style>"""


def listing(found: list[Plain]) -> list[Block]:
    """A row for each time that a snapshot was taken."""
    if not found:
        return [Line("None yet.", "dim"), Line("Next: seatrial snapshot")]
    names = ("source", "id", "rows", "columns", "changed_columns", "warnings", "taken_at", "actor")
    rows = [[_changes(one) if name == "changed_columns" else one[name] for name in names] for one in found]
    return [Table([name.replace("_", " ") for name in names], rows)]


def _changes(one: Plain) -> str | None:
    names = one["changed_columns"]
    if names is None:
        return None
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return ", ".join(names[:MOST_SHOWN]) + more if names else "none"


def details(thing: Plain) -> list[Block]:
    """One snapshot: where it came from, what changed, what came of its expectations, and each column."""
    title = f"{thing['id']} of {thing['source']}: {thing['rows']:,} rows, {len(thing['columns'])} columns."
    blocks: list[Block] = [Line(title, "bold")]
    blocks += [Line(f"  {name:<12}  {value}") for name, value in _facts(thing)]
    blocks += [Line(), Line(_since(thing))]
    for note in thing["notes"]:
        mark, style = MARKS[note["severity"]]
        blocks.append(Line(f"  {mark} {note['words']}", style))
    if thing["expectations"] is not None:
        blocks += [Line(), Line(_held(thing["expectations"]))]
        for one in thing["expectations"]:
            mark = TONES[_severity(one)][1]
            blocks.append(Line(f"  {mark} {one['expectation']}{_found(one, thing['rows'])}"))
    rows = [
        [column["name"], column["type"], *_row(thing, column), column["digest"][:15]] for column in thing["columns"]
    ]
    head = ("column", "type", "missing", "values", "spread", "digest")
    return [*blocks, Line(), Table(head, rows), Line("The whole description: --json", "dim")]


def _facts(thing: Plain) -> list[tuple[str, str]]:
    newest = thing["taken"][-1]
    facts = [("taken at", f"{thing['taken_at']} by {thing['actor']}")]
    facts += [("file", f"{one['path']}, {one['bytes']:,} bytes, {one['digest'][:16]}") for one in newest["files"]]
    facts += [("set aside", f"{one['rows']:,} where {one['where']}: {one['reason']}") for one in newest["set_aside"]]
    facts += [("cut", f"nanoseconds of {n:,} values of {name}") for name, n in newest.get("truncated", {}).items()]
    facts += [("version", inline(newest["versions"]))] if newest.get("versions") else []
    reference = newest.get("reference")
    return facts + ([("stays in", f"{reference['path']}, version {reference['version']}")] if reference else [])


def _since(thing: Plain) -> str:
    if thing["before"] is None:
        return "It is the first snapshot of its source."
    names = thing["changed_columns"]
    rows = thing["rows"] - thing["rows_before"]
    words = f"{rows:+,} rows" if rows else "as many rows"
    more = f" and {len(names) - MOST_PARTS} more" if len(names) > MOST_PARTS else ""
    which = f"other values in {', '.join(names[:MOST_PARTS])}{more}" if names else "the same columns"
    return f"Since {thing['before']}: {words}, {which}."


def _held(results: Sequence[Plain]) -> str:
    if not results:
        return "Nothing was expected of it."
    warned = sum(not one["passed"] for one in results)
    words = f"{count_of(len(results), 'expectation')} held"
    return f"{words}." if not warned else f"{len(results) - warned} of {count_of(len(results), 'expectation')} held."


def _severity(one: Plain) -> str:
    return "" if one["passed"] else str(one["severity"])


def _found(one: Plain, rows: int) -> str:
    if one["failing"]:
        return f": {count_of(one['failing'], 'row')} of {rows:,}{', tolerated' if one['passed'] else ''}"
    return f": {one['detail']}" if one["failing"] is None and one["detail"] != "as expected" else ""


def _row(thing: Plain, column: Plain) -> list[Any]:
    """Missing values, values and spread of a column, as text; dashes where no profile was kept."""
    seen = profile_of(thing, column["name"])
    if seen is None:
        return [None, None, None]
    missing = _share(seen["nulls"], thing["rows"]) if seen["nulls"] else "0 %"
    if seen["values"] is not None:
        ordered = _ordered(seen["values"])
        texts = [f"{value} {_share(rows, thing['rows'])}" for value, rows in ordered[:MOST_SHOWN]]
        more = [f"{len(ordered) - MOST_SHOWN} more"] if len(ordered) > MOST_SHOWN else []
        return [missing, ", ".join([*texts, *more]) or None, _spark([rows for _, rows in ordered[: 2 * MOST_PARTS]])]
    if seen["low"] is None:
        return [missing, None, None]
    infinite = f", {seen['infinite']:,} infinite" if seen["infinite"] else ""
    return [missing, f"{_end(seen['low'])} to {_end(seen['high'])}{infinite}", _spark(seen.get("bins") or [])]


def _spark(counts: Sequence[int]) -> str | None:
    """Counts as a line of blocks; an empty part is the lowest, and one with anything in it is not."""
    most = max(counts, default=0)
    if not most:
        return None
    return "".join(LEVELS[-(-count * (len(LEVELS) - 1) // most)] for count in counts)


def profile_of(thing: Plain, name: str) -> Mapping[str, Any] | None:
    columns = (thing["profile"] or {}).get("columns", ())
    return next((one for one in columns if one["name"] == name), None)


def _ordered(values: Mapping[str, int]) -> list[tuple[str, int]]:
    """The most frequent first."""
    return sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))


def _share(count: int, rows: int) -> str:
    return value_text(count / rows if rows else 0.0, "share")


def _end(value: float | str) -> str:
    if isinstance(value, str):
        return _minute(value).removesuffix(" 00:00")
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else f"{value:.5g}"


def _minute(time: str) -> str:
    """An instant in ISO 8601 to the minute."""
    return time[:16].replace("T", " ")


# Pages


def listing_page(found: Sequence[Plain]) -> str:
    """Every snapshot that was taken, source by source, the newest first."""
    sources = list(dict.fromkeys(one["source"] for one in found))
    warned = sum(one["warnings"] > 0 for one in found)
    words = (
        f"{count_of(len(found), 'snapshot')} of {count_of(len(sources), 'source')}" if found else "No snapshot yet"
    ) + (f", {warned} with something that warns." if warned else ".")
    tone = "watch" if warned or not found else "ok"
    next_step = "" if found else '<p class="next">Next: <code>seatrial snapshot</code></p>'
    body = [
        STYLE,
        PAGE_STYLE,
        '<p class="kicker">Snapshots</p>',
        f'<div class="verdict {tone}"><h1><span class="sign">{TONES["warn" if tone == "watch" else ""][1]}</span>'
        f"{safe(words)}</h1>{next_step}</div>",
        *(_source(name, [one for one in found if one["source"] == name]) for name in sources),
        "<footer>Made by seatrial snapshots list. Times in UTC.</footer>",
    ]
    return document("Snapshots", "".join(body))


def _source(name: str, taken: Sequence[Plain]) -> str:
    newest = list(reversed(taken))
    rows = [
        (
            _minute(one["taken_at"]),
            one["id"][:17],
            f"{one['rows']:,}",
            f"{one['columns']}",
            _changes(one) or "the first",
            f"{one['warnings']}" if one["warnings"] else "",
            one["actor"],
        )
        for one in newest
    ]
    head = ("taken at", "snapshot", "rows", "columns", "changed columns", "warnings", "by")
    picture = (
        bars(
            [Bar(_minute(one["taken_at"]), float(one["rows"])) for one in newest[:MOST_PARTS]],
            title=f"Rows of {name}, the newest first",
            shown="number",
        )
        if len(taken) > 1
        else ""
    )
    return f"<section class='taken'><h2>{safe(name)}</h2>{picture}{table(head, rows, numbers=[2, 3, 5])}</section>"


def page(thing: Plain) -> str:
    """One snapshot as a page."""
    warnings = sum(note["severity"] == "warn" for note in thing["notes"])
    warnings += sum(_severity(one) == "warn" for one in thing["expectations"] or ())
    tone, sign = TONES["warn" if warnings else ""]
    missing = sum(one["nulls"] > 0 for one in (thing["profile"] or {}).get("columns", ()))
    shown = [
        ("rows", f"{thing['rows']:,}", f"{thing['rows_before']:,} before" if thing["before"] else "the first snapshot"),
        ("columns", f"{len(thing['columns']):,}", f"{missing} with missing values" if thing["profile"] else ""),
        ("changed columns", f"{len(thing['changed_columns']):,}", "since the last")
        if thing["before"]
        else ("changed columns", "–", "nothing to compare with"),
    ]
    notes = "".join(
        f'<li class="{note["severity"]}">{MARKS[note["severity"]][0]} {safe(note["words"])}</li>'
        for note in thing["notes"]
    )
    facts = "".join(f"<dt>{safe(name)}</dt><dd>{safe(value, 1000)}</dd>" for name, value in _facts(thing))
    results = thing["expectations"]
    body = [
        STYLE,
        PAGE_STYLE,
        f'<p class="kicker">Snapshot of <strong>{safe(thing["source"])}</strong> · '
        f"{safe(_minute(thing['taken_at']))} UTC</p>",
        f'<div class="verdict {tone}"><h1><span class="sign">{sign}</span>{safe(_headline(thing, warnings))}</h1>'
        f"<p><code>{safe(thing['id'])}</code></p></div>",
        figures(shown),
        f"<section><h2>Since the last</h2><p>{safe(_since(thing), 2000)}</p>"
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
        + "</section>",
        ""
        if results is None
        else f"<section><h2>Expectations</h2><p class='small'>{safe(_held(results))}</p>"
        f"{checks(results, thing['rows'])}</section>",
        f'<section><h2>Columns</h2><div class="cards">{_cards(thing)}</div></section>',
        f'<section><h2>Where it came from</h2><dl class="where">{facts}</dl></section>',
        "<footer>Made by seatrial snapshots show. Times in UTC.</footer>",
    ]
    return document(f"Snapshot of {thing['source']}", "".join(body))


def _headline(thing: Plain, warnings: int) -> str:
    if warnings:
        return f"{count_of(warnings, 'thing')} to look at."
    if thing["before"] is None:
        return "The first snapshot of this source."
    return "Nothing stands out against the last snapshot."


def _cards(thing: Plain) -> str:
    changed = set(thing.get("changed_columns") or ())
    cards = [_card(thing, column, changed) for column in thing["columns"][:MOST_COLUMNS]]
    more = len(thing["columns"]) - MOST_COLUMNS
    return "".join(cards) + (f"<p>and {more:,} more columns</p>" if more > 0 else "")


def _card(thing: Plain, column: Plain, changed: set[str]) -> str:
    name = column["name"]
    seen = profile_of(thing, name)
    tag = '<span class="tag">changed</span> · ' if name in changed else ""
    missing = "" if seen is None else f" · {_share(seen['nulls'], thing['rows'])} missing" if seen["nulls"] else ""
    return (
        f"<div{' class=changed' if name in changed else ''}><h3>{safe(name)}</h3>"
        f'<p class="small">{tag}{safe(column["type"])}{missing}</p>{_picture(seen, thing["rows"])}</div>'
    )


def _picture(seen: Mapping[str, Any] | None, rows: int) -> str:
    """A histogram of numbers and times, the most frequent of a few values, or nothing."""
    if seen is None:
        return ""
    if seen["values"]:
        ordered = _ordered(seen["values"])
        most = ordered[0][1]
        parts = "".join(
            f'<li><i style="width:{100 * count / most:.1f}%"></i><span>{safe(value, 60)}</span>'
            f"<span>{_share(count, rows)}</span></li>"
            for value, count in ordered[: MOST_PARTS // 2]
        )
        more = len(ordered) - MOST_PARTS // 2
        return f"<ol>{parts}</ol>" + (f'<p class="small">and {more} more</p>' if more > 0 else "")
    if seen["low"] is None:
        return ""
    ends = f'<div class="ends"><span>{safe(_end(seen["low"]))}</span><span>{safe(_end(seen["high"]))}</span></div>'
    counts = seen.get("bins") or []
    most = max(counts, default=0)
    if not most:
        return ends
    wide = WIDE / len(counts)
    drawn = "".join(
        f'<rect x="{i * wide:.1f}" y="{HIGH - high:.1f}" width="{wide - 1.5:.1f}" height="{high:.1f}">'
        f"<title>{count:,} rows</title></rect>"
        for i, count in enumerate(counts)
        if (high := max(1.5, (HIGH - 2) * count / most) if count else 0)
    )
    title = f"How the values of {seen['name']} are spread"
    return (
        f'<svg role="img" viewBox="0 0 {WIDE} {HIGH}" preserveAspectRatio="none" aria-label="{safe(title)}">'
        f"<title>{safe(title)}</title>{drawn}</svg>{ends}"
    )
