"""Reports on data for people: what is proposed, what came of expectations, and what differs, as text and as a page.

A page is one file in the style of the other pages: it asks no address, prints, and has a dark scheme.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from seatrial.cli.render import Block, Line, Plain, plain
from seatrial.core.clock import from_us, iso
from seatrial.monitoring.pages.page import document
from seatrial.monitoring.pages.pictures import safe, table

if TYPE_CHECKING:
    from seatrial.data.expectations import ValidationReport
    from seatrial.data.snapshot import SnapshotDiff

STYLE = """<style>
section { border-top: 1px solid var(--rule); margin-top: 2.2rem; padding-top: 1rem; }
section h2 { border: 0; margin: 0; padding: 0; }
ul.checks { list-style: none; padding: 0; margin: .8rem 0; }
ul.checks > li { padding: .45rem 0 .45rem 2.1rem; border-bottom: 1px solid var(--rule); position: relative; }
ul.checks li ul { margin: .2rem 0 .3rem; font-size: .9rem; }
ul.checks .sign { position: absolute; left: 0; top: .55rem; width: 1.35rem; height: 1.35rem; line-height: 1.35rem;
  text-align: center; border-radius: 50%; font-size: .8rem; font-weight: 700; color: var(--ground);
  background: var(--tone); }
ul.checks .found { color: var(--quiet); font-size: .9rem; display: block; }
ul.checks .found.broken { color: var(--tone); }
pre { background: var(--raised); padding: .7rem .9rem; border-radius: 8px; overflow-x: auto; font-size: .85rem; }
code { overflow-wrap: anywhere; }
.cells td:first-child { min-width: 0; } .cells td { overflow-wrap: anywhere; font-size: .95rem; }
dl.where { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .25rem 1.4rem; margin: .8rem 0; }
dl.where dt { color: var(--quiet); } dl.where dd { margin: 0; overflow-wrap: anywhere; }
</style>"""
TONES = {"error": ("act", "✗"), "warn": ("watch", "!"), "": ("ok", "✓")}


def proposed(found: list[Plain]) -> list[Block]:
    """The code alone, so that it can be piped into a file."""
    return [Line(line) for one in found for line in one["code"].splitlines()]


def validation_page(reports: Sequence[ValidationReport], at_us: int) -> str:
    """What came of every expectation, what stops the line first. at_us: the time that it was for the project."""
    shown = [one for report in reports if (one := plain(report)).get("kind") != "reuse"]
    results = [result for report in shown for result in report["results"]]
    counts = {kind: sum(_severity(result) == kind for result in results) for kind in TONES}
    if counts["error"]:
        failed = count_of(counts["error"], "expectation")
        words = f"{failed} of {len(results):,} failed. Nothing can be kept until it holds."
        tone, sign = TONES["error"]
    elif counts["warn"]:
        words = f"Nothing stops the line; {count_of(counts['warn'], 'expectation')} of {len(results):,} warned."
        tone, sign = TONES["warn"]
    else:
        words = f"All {len(results):,} expectations hold." if results else "Nothing is expected of these sources yet."
        tone, sign = TONES[""] if results else TONES["warn"]
    boxes = (
        ("sources", f"{len(shown):,}", ""),
        ("rows", f"{sum(report['rows'] for report in shown):,}", ""),
        ("expectations", f"{len(results):,}", f"{counts['error']} failed, {counts['warn']} warned"),
    )
    next_step = "" if results else '<p class="next">Next: <code>seatrial validate --propose</code></p>'
    body = [
        STYLE,
        f'<p class="kicker">Validation · {safe(iso(from_us(at_us // 1_000_000 * 1_000_000)))}</p>',
        f'<div class="verdict {tone}"><h1><span class="sign">{sign}</span>{safe(words)}</h1>{next_step}</div>',
        figures(boxes),
        *(_source(report) for report in sorted(shown, key=lambda one: one["passed"])),
        "<footer>Made by seatrial validate. Times in UTC.</footer>",
    ]
    return document("Validation", "".join(body))


def _source(report: Plain) -> str:
    aside = sum(removed.get("rows", 0) for removed in report["set_aside"])
    rows = f"{report['rows']:,} rows" + (f", {aside:,} set aside by rule" if aside else "")
    none = "" if report["results"] else '<p class="small">Nothing is expected of it.</p>'
    removed = [(one["where"], one["reason"], f"{one['rows']:,}") for one in report["set_aside"] if "where" in one]
    rules = f"<h3>Set aside</h3>{table(('where', 'why', 'rows'), removed, numbers=[2])}" if removed else ""
    kicker = "" if report.get("kind") else f'<p class="small">{rows}</p>'
    tried = checks(report["results"], report["rows"])
    return f"<section><h2>{safe(report['source'])}</h2>{kicker}{none}{tried}{rules}</section>"


def checks(results: Sequence[Plain], rows: int) -> str:
    """What came of each expectation, what stops the line first."""
    ordered = sorted(results, key=lambda result: list(TONES).index(_severity(result)))
    return f'<ul class="checks">{"".join(_check(result, rows) for result in ordered)}</ul>'


def _check(result: Plain, rows: int) -> str:
    severity = _severity(result)
    tone, sign = TONES[severity]
    found = result["detail"] if result["failing"] is None else ""
    if result["failing"]:
        found = f"{count_of(result['failing'], 'row')} of {rows:,}" + ("" if severity else ", which is tolerated")
    words = f'<span class="found{" broken" if severity else ""}">{safe(found)}</span>' if found else ""
    examples = "".join(f"<li>{safe(example)}</li>" for example in result["examples"]) if severity else ""
    remedy = ""
    if result["remedy"]:
        rule = f'SetAside(where="{result["remedy"]}", reason="why these rows are wrong")'
        remedy = f"<details><summary>The rule that would take them out</summary><pre>{safe(rule, 2000)}</pre></details>"
    listed = f"<ul>{examples}</ul>" if examples else ""
    return (
        f'<li class="{tone}"><span class="sign">{sign}</span><code>{safe(result["expectation"])}</code>'
        f"{words}{listed}{remedy}</li>"
    )


def _severity(result: Plain) -> str:
    return "" if result["passed"] else str(result.get("severity", "error"))


def diff_page(found: SnapshotDiff) -> str:
    """What is different between two snapshots."""
    one = plain(found)
    keyed = one["keyed"]
    schema = [
        *(("gone", name, "") for name in one["removed"]),
        *(("new", name, "") for name in one["added"]),
        *(("another type", change["name"], f"{change['before']} → {change['after']}") for change in one["retyped"]),
    ]
    columns = keyed["columns"] if keyed else one["changed"]
    words = "The two snapshots are the same." if one["same"] else _difference(one, len(columns), len(schema))
    tone = "ok" if one["same"] else "watch"
    boxes = [("rows", f"{one['rows_after']:,}", f"{one['rows_before']:,} before")]
    if keyed:
        boxes += [
            ("rows added and removed", f"+{keyed['added']:,} −{keyed['removed']:,}", f"by {', '.join(keyed['key'])}"),
            ("rows changed", f"{keyed['changed']:,}", f"{keyed['unchanged']:,} unchanged"),
        ]
    else:
        boxes += [("columns changed", f"{len(columns):,}", "row by row"), ("schema", f"{len(schema):,}", "changes")]
    body = [
        STYLE,
        f'<p class="kicker"><code>{safe(one["before"])}</code> → <code>{safe(one["after"])}</code></p>',
        f'<div class="verdict {tone}"><h1>{safe(words)}</h1></div>',
        figures(boxes),
    ]
    if schema:
        rows = table(("what", "column", "type"), schema)
        body.append(f"<section><h2>Schema</h2>{rows}</section>")
    for column in columns:
        where = "key" if keyed else "row"
        cells = [(str(e[where]), e["before"], e["after"]) for e in column["examples"]]
        examples = table((where, "before", "after"), cells) if cells else ""
        count = f'<p class="small">{count_of(column["cells"] or 0, "cell")} changed; the first:</p>' if cells else ""
        body.append(f"<section class='cells'><h2>{safe(column['name'])}</h2>{count}{examples}</section>")
    for title, name in (("Rows that came", "came"), ("Rows that went", "went")):
        if keyed and keyed[name]:
            rows = table(("key",), [(key,) for key in keyed[name]])
            body.append(f"<section><h2>{title}</h2><p class='small'>The first of them.</p>{rows}</section>")
    body.append("<footer>Made by seatrial snapshots diff.</footer>")
    return document("Snapshots compared", "".join(body))


def _difference(one: Plain, columns: int, schema: int) -> str:
    parts = [f"{count_of(columns, 'column')} with other values"] if columns else []
    parts += [f"{count_of(schema, 'change')} of schema"] if schema else []
    if one["rows_before"] != one["rows_after"]:
        parts.append(f"{one['rows_after'] - one['rows_before']:+,} rows")
    if one["reordered"]:
        parts.append("columns in another order")
    words = ", ".join(parts) or "the same rows in another order"
    return words[0].upper() + words[1:] + "."


def figures(boxes: Sequence[tuple[str, str, str]]) -> str:
    """Numbers in boxes: what it is, the number, and small print."""
    cells = "".join(
        f"<div><dt>{safe(name)}</dt><dd>{safe(value)}<span>{safe(small)}</span></dd></div>"
        for name, value, small in boxes
    )
    return f'<dl class="figures">{cells}</dl>'


def count_of(count: int, what: str) -> str:
    """A number of things in words."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
