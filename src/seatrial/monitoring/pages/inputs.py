"""What the page says of the inputs beyond drift: what is unusual about them, and what moved the predictions."""

from __future__ import annotations

from seatrial.monitoring.figures import METHODS, signed
from seatrial.monitoring.pages.pictures import safe, table, value_text
from seatrial.monitoring.report import Report

MOST_SHOWN = 100


def unusual(report: Report) -> str:
    """What was noticed, as safe mark-up for the page; empty when nothing was."""
    found = [one for one in report.quality if one.noticed and one.passed]
    if not found:
        return ""
    rows = [(one.name, one.column, one.found, one.expected) for one in found[:MOST_SHOWN]]
    more = f'<p class="small">And {len(found) - MOST_SHOWN} more.</p>' if len(found) > MOST_SHOWN else ""
    words = safe(f"{len(found)} of the checks that passed found something unusual, which is no fault by itself.")
    inner = table(("check", "column", "found", "expected"), rows)
    return f"<h3>What is unusual about them</h3><p>{words}</p>{inner}{more}"


def what_moved(report: Report) -> str:
    """A part of the page, as safe mark-up; empty when there is nothing to tell."""
    found = report.attribution
    if found is None or not (found.parts or found.note):
        return ""
    if not found.parts:
        return f'<h3>What moved the predictions?</h3><p class="small">Not known: {safe(found.note, 600)}.</p>'
    rows = [(part.name or "the others that moved", signed(part.moved)) for part in found.parts]
    rows += [("the rest: other inputs, how they go together", signed(found.rest))] if found.rest is not None else []
    moved = "" if found.moved is None else f"The mean prediction is {signed(found.moved)} from the reference's. "
    words = f"{moved}An estimate, from {value_text(found.rows, 'number')} rows: {METHODS[found.method]}."
    note = f'<p class="small">{safe(found.note[0].upper() + found.note[1:], 600)}.</p>' if found.note else ""
    return (
        f"<h3>What moved the predictions?</h3><p>{safe(words, 600)}</p>"
        + table(("input", "moved the mean prediction by"), rows, numbers=(1,))
        + note
    )


def replayed(report: Report) -> str:
    """Whether features were online what they are offline, as safe mark-up; empty where none is looked up."""
    found = report.skew
    if found is None:
        return ""
    words = f"{found.words[0].upper()}{found.words[1:]}. Asked {found.as_of[:16].replace('T', ' ')} UTC."
    rows = [
        (
            one.feature,
            value_text(one.share, "share"),
            ", ".join(f"{kind} {count:,}" for kind, count in one.kinds.items()),
        )
        for one in found.features
    ]
    inner = table(("feature", "of the predictions joined again", "how it differs"), rows, numbers=(1,)) if rows else ""
    return f"<h3>Were they online what they are offline?</h3><p>{safe(words, 600)}</p>{inner}"
