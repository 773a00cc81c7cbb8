"""An incident as a page: what rings, what to do, and everything that happened around it, day by day."""

from __future__ import annotations

from itertools import groupby

from seatrial.core.clock import parse_time
from seatrial.core.errors import counted
from seatrial.monitoring.alerting.alerts import Alert
from seatrial.monitoring.alerting.incident import Incident, Moment
from seatrial.monitoring.pages.page import document
from seatrial.monitoring.pages.pictures import safe

PAGE_STYLE = """<style>
.over { --tone: var(--green); } .open { --tone: var(--red); }
ol.times { list-style: none; padding: 0; margin: .4rem 0 0; border-left: 2px solid var(--rule); }
ol.times li { position: relative; display: grid; grid-template-columns: 4.2rem 6.6rem 1fr; gap: .2rem .8rem;
  padding: .35rem 0 .35rem 1.1rem; margin: 0; }
ol.times li::before { content: ""; position: absolute; left: -5px; top: .85rem; width: 8px; height: 8px;
  border-radius: 50%; background: var(--quiet); }
ol.times li.bad::before { background: var(--red); } ol.times li.good::before { background: var(--green); }
ol.times li.here { background: var(--raised); border-radius: 0 8px 8px 0; }
ol.times time { color: var(--quiet); font-variant-numeric: tabular-nums; }
ol.times .kind { color: var(--quiet); }
ol.times .who { display: block; color: var(--quiet); font-size: .85rem; }
h3.day { margin: 1.3rem 0 0; }
.alert { background: var(--raised); border-radius: 8px; padding: .7rem .9rem; margin: .6rem 0; }
.alert p { margin: .15rem 0; } .alert .sev { color: var(--quiet); }
.alert.high { border-left: 4px solid var(--red); } .alert.resolved { border-left-color: var(--green); }
@media (max-width: 40rem) {
  ol.times li { grid-template-columns: 4.2rem 1fr; } ol.times .words { grid-column: 1 / -1; }
}
</style>"""
SIGNS = {"open": ("!", "Open"), "over": ("✓", "Over")}


def html(incident: Incident) -> str:
    """The whole page."""
    sign, word = SIGNS[incident.state]
    people = [
        f"Owner {safe(incident.owner)}" if incident.owner else "",
        f"on call {safe(incident.on_call)}" if incident.on_call else "",
        f"runbook {safe(incident.runbook, 300)}" if incident.runbook else "",
    ]
    what = "Incident" if incident.id else "Alert"
    body = [
        PAGE_STYLE,
        f'<p class="kicker">{what} of model <strong>{safe(incident.model)}</strong> · '
        f"{safe(_day(incident.since))} to {safe(_day(incident.until))} · {safe(incident.id or incident.alert)}</p>",
        f'<div class="verdict {incident.state}"><p><span class="sign">{sign}</span><span class="word">{word}</span></p>'
        f"<h1>{safe(incident.headline, 1000)}</h1>",
        f'<p class="next">{safe(incident.action, 1000)}</p>' if incident.action and incident.state == "open" else "",
        f'<p class="small">The newest report: {safe(incident.newest, 1000)}</p>' if incident.newest else "",
        f'<p class="people small">{" · ".join(one for one in people if one)}</p></div>',
        f"<section><h2>What rang</h2>{''.join(map(_alert, incident.alerts))}</section>",
        f"<section><h2>What happened</h2>{_days(incident)}</section>",
        "<section><h2>Look closer</h2><ul>",
        *(f"<li><code>{safe(command, 300)}</code></li>" for command in incident.next),
        "</ul></section><footer>Every line is an event of the audit log. Times in UTC, names as asserted.</footer>",
    ]
    return document(f"{incident.model}: {what.lower()} {word.lower()}", "".join(body))


def _alert(one: Alert) -> str:
    ended = f", resolved {_minute(one.resolved_at)}" if one.resolved_at else ""
    why = f" ({one.reason})" if one.resolved_at and one.reason else ""
    worst = f"<p>{safe(one.worst[:1].upper() + one.worst[1:], 600)}.</p>" if one.worst else ""
    quiet = f", muted until {_minute(one.muted_until)}" if one.muted_until else ""
    return (
        f'<div class="alert {one.severity} {one.state}"><p><strong>{safe(one.alarm)}</strong> '
        f'<span class="sev">{one.severity}, {one.state}{safe(quiet)}</span></p><p>{safe(one.words, 600)}</p>'
        f"{worst}"
        f'<p class="small">opened {safe(_minute(one.opened_at))}{safe(ended)}{safe(why, 300)} '
        f"· seen {counted(one.seen, 'time')} "
        f"· <code>{safe(one.id)}</code></p></div>"
    )


def _days(incident: Incident) -> str:
    if not incident.moments:
        return "<p>Nothing is in the audit log of that time.</p>"
    asked = incident.alert
    parts = []
    for day, moments in groupby(incident.moments, key=lambda one: one.at[:10]):
        items = "".join(_moment(one, asked) for one in moments)
        parts.append(f'<h3 class="day">{safe(_day(day + "T00:00:00Z"))}</h3><ol class="times">{items}</ol>')
    return "".join(parts)


def _moment(one: Moment, asked: str) -> str:
    here = " here" if one.id == asked else ""
    who = f'<span class="who">{safe(one.actor)}</span>' if one.actor else ""
    return (
        f'<li class="{one.tone}{here}"><time>{safe(one.at[11:16])}</time><span class="kind">{one.kind}</span>'
        f'<span class="words">{safe(one.words, 600)}{who}</span></li>'
    )


def _day(at: str) -> str:
    moment = parse_time(at)
    return f"{moment:%A} {moment.day} {moment:%B %Y}"


def _minute(at: str) -> str:
    return at[:16].replace("T", " ")
