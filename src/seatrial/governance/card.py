"""The model card: what is this model for, how good is it, what is it made of, and who answers for it?

A card is sections of text and tables; `markdown` and `html` write the same content. The owner's words stand first, and
what the owner did not write is said to be missing, not left out. All the rest is taken from records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Literal

import msgspec

NOT_WRITTEN = "not written by the owner"

Cell = str | float | int | bool | None
Tone = Literal["good", "bad", "plain"]


class CardTable(msgspec.Struct, frozen=True):
    """Rows under names. share: the column whose numbers, in 0 to 1, are drawn as bars too; None: none."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    share: int | None = None
    caption: str = ""


class CardSection(msgspec.Struct, frozen=True):
    """One part of a card. owner: it is the owner's to write; then empty texts mean that it was not written."""

    title: str
    texts: tuple[str, ...] = ()
    tables: tuple[CardTable, ...] = ()
    owner: bool = False
    folded: bool = False


class Badge(msgspec.Struct, frozen=True):
    """A fact at a glance."""

    words: str
    tone: Tone = "plain"


class Card(msgspec.Struct, frozen=True):
    """A model card. missing: the titles of what the owner did not write."""

    model: str
    release: str
    version: int
    semantic_version: str
    headline: str
    badges: tuple[Badge, ...]
    sections: tuple[CardSection, ...]

    @property
    def missing(self) -> list[str]:
        return [one.title for one in self.sections if one.owner and not one.texts]


def markdown(card: Card) -> str:
    """The card as Markdown."""
    lines = [f"# {card.model} {card.semantic_version}", "", card.headline, ""]
    lines += [" · ".join(_marked(badge) for badge in card.badges), ""]
    for section in card.sections:
        lines += [f"## {section.title}", ""]
        if section.owner and not section.texts:
            lines += [f"> **{NOT_WRITTEN.capitalize()}.**", ""]
        many = len(section.texts) > 1
        for text in section.texts:
            lines += [f"- {text}"] if many else [text, ""]
        lines += [""] if many else []
        for table in section.tables:
            if table.caption:
                lines += [f"**{table.caption}**", ""]
            lines += [_md_row(table.columns), "|" + "---|" * len(table.columns)]
            lines += [_md_row([shown(cell) for cell in row]) for row in table.rows]
            lines.append("")
    lines += [f"Made from the records of release `{card.release}`.", ""]
    return "\n".join(lines)


def html(card: Card) -> str:
    """The card as one page that asks no address, prints, and has a dark scheme."""
    badges = "".join(f'<li class="{badge.tone}">{escape(badge.words)}</li>' for badge in card.badges)
    body = "".join(_section(section) for section in card.sections if not section.folded)
    folded = "".join(_section(section) for section in card.sections if section.folded)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(card.model)} {escape(card.semantic_version)}: model card</title><style>{_STYLE}</style></head>
<body><main>
<header><p class="kicker">Model card</p>
<h1>{escape(card.model)} <span class="version">{escape(card.semantic_version)}</span></h1>
<p class="headline">{escape(card.headline)}</p><ul class="badges">{badges}</ul></header>
{body}{folded}
<footer>Made from the records of release <code>{escape(card.release)}</code>.</footer>
</main></body></html>
"""


def shown(cell: Cell) -> str:
    """One value for people.

    >>> shown(77827), shown(0.72561234), shown(True), shown(None)
    ('77,827', '0.7256', 'yes', '–')
    """
    match cell:
        case None:
            return "–"
        case bool():
            return "yes" if cell else "NO"
        case int():
            return f"{cell:,}"
        case float():
            return f"{cell:,.0f}" if abs(cell) >= 10_000 else f"{cell:.4g}"
    return cell


def _marked(badge: Badge) -> str:
    return f"**{badge.words}**" if badge.tone == "bad" else badge.words


def _md_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _section(section: CardSection) -> str:
    if section.owner and not section.texts:
        words = f'<p class="missing">{NOT_WRITTEN.capitalize()}.</p>'
    elif len(section.texts) > 1:
        words = "<ul>" + "".join(f"<li>{_prose(text)}</li>" for text in section.texts) + "</ul>"
    else:
        words = "".join(f"<p>{_prose(text)}</p>" for text in section.texts)
    inner = words + "".join(_table(table) for table in section.tables)
    if section.folded:
        return f"<details><summary>{escape(section.title)}</summary>{inner}</details>"
    kind = ' class="owner"' if section.owner else ""
    return f"<section{kind}><h2>{escape(section.title)}</h2>{inner}</section>"


def _prose(text: str) -> str:
    """Text with `code` marked."""
    parts = escape(text).split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))


def _table(table: CardTable) -> str:
    numeric = [
        any(_is_number(row[place]) for row in table.rows)
        and all(row[place] is None or _is_number(row[place]) for row in table.rows)
        for place in range(len(table.columns))
    ]
    head = "".join(
        f"<th{_right(right)}>{escape(name)}</th>" for name, right in zip(table.columns, numeric, strict=True)
    )
    rows = "".join(
        "<tr>" + "".join(_cell(cell, numeric[place], place == table.share) for place, cell in enumerate(row)) + "</tr>"
        for row in table.rows
    )
    caption = f"<h3>{escape(table.caption)}</h3>" if table.caption else ""
    if not any(table.columns):
        return f'{caption}<div class="wide"><table class="facts"><tbody>{rows}</tbody></table></div>'
    return f'{caption}<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cell(cell: Cell, numeric: bool, share: bool) -> str:
    if isinstance(cell, bool):
        return f'<td><span class="mark {"good" if cell else "bad"}">{"✓" if cell else "✗"}</span></td>'
    if share and isinstance(cell, str):
        return f'<td class="n">{escape(cell)}</td>'
    if share and isinstance(cell, (int, float)):
        width = max(0.0, min(1.0, float(cell))) * 100
        return f'<td class="n bar"><span style="--w:{width:.1f}%"></span><b>{escape(shown(cell))}</b></td>'
    return f"<td{_right(numeric)}>{_prose(shown(cell))}</td>"


def _right(right: bool) -> str:
    return ' class="n"' if right else ""


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, (int, float)) and not isinstance(cell, bool)


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], **more: object) -> CardTable:
    """A table of lists."""
    made = CardTable(tuple(columns), tuple(tuple(row) for row in rows))
    return msgspec.structs.replace(made, **more)


_STYLE = """
:root { color-scheme: light dark; --ground: #fbfaf7; --raised: #ffffff; --ink: #1c2430; --quiet: #5d6776;
  --rule: #e2dfd7; --blue: #1f5fa8; --soft: #dbe8f6; --green: #1d7a4c; --greensoft: #e1f2e8; --red: #b3261e;
  --redsoft: #fbe9e7; }
@media (prefers-color-scheme: dark) { :root { --ground: #14181e; --raised: #1b2129; --ink: #e6e9ee; --quiet: #9aa5b4;
  --rule: #2d3642; --blue: #7db4ee; --soft: #24405f; --green: #6cc799; --greensoft: #1c3a2b; --red: #f19a93;
  --redsoft: #43231f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Liberation Sans", sans-serif; overflow-wrap: break-word; }
main { max-width: 56rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
header { border-bottom: 1px solid var(--rule); padding-bottom: 1.4rem; margin-bottom: 1.6rem; }
.kicker { margin: 0; color: var(--quiet); font-size: .8rem; letter-spacing: .12em; text-transform: uppercase; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: .15rem 0 .5rem; letter-spacing: -.015em; }
.version { color: var(--quiet); font-weight: 400; }
.headline { font-size: 1.1rem; margin: 0 0 1rem; max-width: 44rem; }
.badges { list-style: none; display: flex; flex-wrap: wrap; gap: .45rem; margin: 0; padding: 0; }
.badges li { font-size: .85rem; padding: .2rem .7rem; border-radius: 99px; background: var(--soft); color: var(--ink); }
.badges .good { background: var(--greensoft); color: var(--green); }
.badges .bad { background: var(--redsoft); color: var(--red); font-weight: 600; }
section { margin: 0 0 1.8rem; }
h2 { font-size: 1.15rem; margin: 0 0 .4rem; }
h3 { font-size: .95rem; margin: 1.1rem 0 .3rem; color: var(--quiet); font-weight: 600; }
p { margin: .2rem 0 .6rem; max-width: 46rem; } ul { margin: .2rem 0 .6rem; padding-left: 1.2rem; max-width: 46rem; }
section.owner { background: var(--raised); border: 1px solid var(--rule); border-left: 4px solid var(--blue);
  border-radius: 0 8px 8px 0; padding: .9rem 1.2rem .6rem; margin-bottom: .9rem; }
section.owner:has(.missing) { border-left-color: var(--red); }
section.owner + section:not(.owner) { margin-top: 2.2rem; }
.missing { color: var(--red); font-style: italic; }
.wide { overflow-x: auto; } .wide + .wide { margin-top: 1.1rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th { text-align: left; font-weight: 600; color: var(--quiet); font-size: .82rem; }
th, td { padding: .32rem .9rem .32rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td:first-child { white-space: nowrap; }
th.n, td.n { padding-left: .9rem; }
.facts td:first-child { width: 11rem; color: var(--quiet); }
td:has(.mark) { width: 1.6rem; }
.bar { position: relative; min-width: 11rem; text-align: right; }
.bar span { position: absolute; left: 0; top: .55rem; height: .75rem; width: calc(var(--w) * .7); border-radius: 3px;
  background: var(--blue); opacity: .75; }
.bar b { font-weight: 400; }
.mark { font-weight: 700; } .mark.good { color: var(--green); } .mark.bad { color: var(--red); }
code { font: .88em ui-monospace, "SF Mono", Menlo, "Liberation Mono", monospace; overflow-wrap: anywhere; }
details { border-top: 1px solid var(--rule); padding: .6rem 0; } summary { cursor: pointer; font-weight: 600; }
footer { border-top: 1px solid var(--rule); margin-top: 1.5rem; padding-top: .8rem; color: var(--quiet);
  font-size: .85rem; }
@media (max-width: 40rem) { .bar span { display: none; } .bar { min-width: 0; } td { overflow-wrap: break-word; }
  .facts td:first-child { width: auto; } th, td { padding-right: .6rem; } th.n, td.n { padding-left: 0; } }
@media print { body { background: #fff; } main { padding: 0; } details { display: block; } }
"""
