"""Rendering of what comes after a prediction: labels, retraining, decisions, one prediction explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seatrial.cli.render import MAIN_METRICS, Block, Line, Plain, Style, Table, decimals, fixed
from seatrial.core.errors import counted

if TYPE_CHECKING:
    from seatrial.governance.explain import Explained
    from seatrial.retraining.refusals import Refusal

MOST_DAYS = 14


def labelled(done: Plain) -> list[Block]:
    """What was told, and how all labels stand."""
    blocks: list[Block] = [
        Line(f"{done['told']:,} labels of '{done['model']}' told in {done['seconds']:.1f} s", "bold"),
        Line(f"{done['matched']:,} of {done['predictions']:,} predictions have a label"),
    ]
    odd = {
        "unmatched": "fit no prediction",
        "duplicate": "were told again",
        "contradicting": "contradict another; the one known last counts",
        "before": "were known before their prediction, and do not count",
        "later": "are known only later than now, and count from then on",
    }
    if not done["told"]:
        blocks.insert(1, Line("  nothing new is known"))
    return blocks + [Line(f"{done[name]:,} labels {words}") for name, words in odd.items() if done[name]]


def scored(done: Plain) -> list[Block]:
    """History scored in batch."""
    blocks: list[Block] = [
        Line(f"{done['predictions']:,} rows of '{done['model']}' scored in {done['seconds']:.1f} s", "bold"),
        Line(f"  release {done['release']}"),
    ]
    blocks += [Line(f"  in {one}") for one in done["to"]]
    before = done["predictions"] - done["logged"]
    if before:
        blocks.append(Line(f"  {before:,} of them it had answered before; they were not logged again"))
    told = [f"{name} {value:.4f}" for name, value in done["metrics"].items() if value is not None]
    if told:
        blocks.append(Line(f"  of {done['labelled']:,} with a label: {', '.join(told)}"))
    return blocks


def retrained(done: Plain) -> list[Block]:
    """What the step did, where the proposal stands, what is next."""
    blocks: list[Block] = [Line(f"{done['model']}: {done['words']}", "bold", hang=2)]
    if done["proposal"]:
        blocks += proposal(done["proposal"])
    elif done["next"]:
        blocks.append(Line(f"Next: {done['next']}"))
    return blocks


def proposals(things: list[Plain]) -> list[Block]:
    """Proposed retrainings, a line each."""
    if not things:
        return [Line("no retraining was ever proposed")]
    rows = [[one["id"], one["model"], one["opened_at"][:10], one["state"], one["trigger"]] for one in things]
    table = Table(["proposal", "model", "opened", "state", "trigger"], rows)
    return [table, Line(f"Next: seatrial proposals show {things[-1]['id']}")]


def proposal(one: Plain) -> list[Block]:
    """Why, by whom, whom against whom, every look, and what is next."""
    return [*_standing(one), *_next(one)]


def proposal_and_evidence(one: Plain) -> list[Block]:
    """The same, and before what is next what the newest look compared: metrics, days, and what has a margin."""
    found = one["comparison"]
    compared = [*_metrics(found), *_days(found), *_changes(found), Line()] if found else []
    return [*_standing(one), *compared, *_next(one)]


def _standing(one: Plain) -> list[Block]:
    facts = [
        ("why", one["reason"]),
        ("proposed", f"{one['opened_at'][:10]} by {', '.join(one['proposers'])} (asserted)"),
        ("champion", f"{one['champion']}, generation {one['generation']} of '{one['deployment']}'"),
        ("challenger", one["challenger"] or "none yet"),
        *(("look", look) for look in one["looks"]),
    ]
    blocks = [Line(f"proposal {one['id']}, {one['state']}"), *(_fact(*fact) for fact in facts)]
    blocks += [_fact("broke off", failed, "red") for failed in one["failed"]]
    blocks += [_fact("beyond", change, "red") for change in one["significant"]]
    return [*blocks, *([_fact("ended", one["ended"])] if one["ended"] else [])]


def _fact(name: str, words: str, style: Style = "") -> Line:
    return Line(f"  {name:<10} {words}", style, hang=13)


def _next(one: Plain) -> list[Block]:
    return [Line(f"Next: {one['next']}")] if one["next"] else []


def _metrics(found: Plain) -> list[Block]:
    where = "the same live requests" if found["shadow"] == "live" else "the same rows of history"
    told = f"Both on {where}, {found['rows']:,} with a label, {found['start'][:10]} to {found['as_of'][:10]}"
    before, after = found["champion_metrics"], found["challenger_metrics"]
    names = dict.fromkeys(name for name in (*MAIN_METRICS, *sorted(before)) if before.get(name) is not None)
    places = decimals([*before.values(), *after.values()])
    rows = [[name, before[name], after.get(name), _moved(before[name], after.get(name), places)] for name in names]
    if not rows:
        return [Line(), Line(told, "bold", hang=2)]
    table = Table(["metric", "champion", "challenger", "change"], rows, even=True)
    return [Line(), Line(told, "bold", hang=2), table]


def _moved(before: float | None, after: float | None, places: int) -> str:
    if before is None or after is None:
        return ""
    words = fixed(after - before, places)
    return words if words.startswith("-") or not words.strip("0.") else f"+{words}"


def _days(found: Plain) -> list[Block]:
    days = found["days"]
    if not days:
        return []
    rows = [[day["start"][:10], day["rows"], day["gain"]] for day in days[-MOST_DAYS:]]
    lost = any(day["gain"] < 0 for day in days[-MOST_DAYS:])
    gained = f"{found['loss']} lower by{' (-: higher by)' if lost else ''}"
    more = [Line(f"the last {MOST_DAYS} of {len(days)} days", "dim")] if len(days) > MOST_DAYS else []
    return [Line(), Table(["day", "labels", gained], rows, even=True), *more]


def _changes(found: Plain) -> list[Block]:
    if not found["changes"]:
        return []
    states = {"beyond": "BEYOND", "within": "within"}
    rows = [
        [
            one["what"],
            one["where"],
            one["rows"],
            one["champion"],
            one["challenger"],
            one["margin"],
            states.get(one["state"], one["state"]),
        ]
        for one in found["changes"]
    ]
    head = ["metric", "in", "rows", "champion", "challenger", "margin", ""]
    return [Line(), Table(head, rows, even=True)]


def refusals(things: list[Plain]) -> list[Block]:
    """Every refusal, with its reason."""
    if not things:
        return [Line("no retraining was refused")]
    blocks: list[Block] = []
    for one in things:
        when = one["at"] if one["times"] == 1 else f"{one['at']} to {one['last']}, {one['times']} times"
        blocks += [
            Line(f"{when}  {one['model']} {one['step']}  {one['code']}", "red"),
            _fact("asked by", one["trigger"]),
            _fact("refused", one["reason"]),
        ]
    return blocks


def refused(things: list[Refusal]) -> list[Block]:
    """That there are refusals, and the newest one."""
    if not things:
        return []
    times, newest = sum(one.times for one in things), things[-1]
    return [
        Line(f"refused {counted(times, 'time')}, last on {newest.last[:10]}: {newest.reason}", "red", hang=2),
        Line("All of them: seatrial proposals refusals"),
    ]


def decided(done: Plain) -> list[Block]:
    """An approval or a rejection."""
    style: Style = "green" if done["decision"] == "approved" else "red"
    what = f"release {done['release']}" if done["release"] else f"proposal {done['proposal']}, which has no challenger,"
    return [
        Line(f"{done['decision']}: {what} for '{done['deployment']}'", style),
        Line(f"  by         {done['actor']} (asserted), not by {', '.join(done['proposers']) or 'nobody'}"),
        Line(f"  because    {done['reason']}"),
        Line(f"  binds      generation {done['generation']} and {len(done['evidence'])} records of evidence"),
    ]


def rolled_back(done: Plain) -> list[Block]:
    from seatrial.cli.rolling import callers

    blocks: list[Block] = [
        Line(f"'{done['deployment']}' answers with {done['live']} again, generation {done['generation']}", "green"),
        Line(f"  in {done['seconds']:.3f} s"),
        *callers(done),
    ]
    if not done["settled"]:
        words = "The metadata store is away: this host alone was rolled back; the store is told when it is back."
        blocks.append(Line(words, "red"))
    return blocks


def reviewed(models: list[Plain]) -> list[Block]:
    """Each model and its red flags."""
    blocks: list[Block] = []
    for model in models:
        live = f"version {model['live']} is live" if model["live"] else "nothing is live"
        blocks.append(Line(f"{model['model']}: {live}, {len(model['flags'])} red flags", "bold"))
        blocks += [Line(f"  ✗ {flag['name']}: {flag['evidence']}", "red") for flag in model["flags"]]
        if model["next"]:
            blocks.append(Line(f"  next: {model['next']}"))
    return blocks or [Line("the project has no model")]


def explained(one: Explained) -> list[Block]:
    """One prediction, top to bottom: what was said, from what, by whom, and whether it was right."""
    from seatrial.governance.lineage import as_tree

    score = "no score" if one.score is None else f"{one.score:.4f}"
    happened = f"what happened: {one.label['label']:g}, known {one.label['known_at']}" if one.label else "no label yet"
    blocks: list[Block] = [
        Line(f"prediction {one.prediction_id}: {score}; {happened}", "bold"),
        Line(f"  request {one.request_id} at {one.at}, {one.model} version {one.version}, caller {one.caller or '?'}"),
    ]
    if one.others:
        few = ", ".join(one.others[:5]) + (" and more" if len(one.others) > 5 else "")
        blocks.append(Line(f"  the first of {len(one.others) + 1:,} predictions of this request; the others: {few}"))
    if one.degraded:
        blocks.append(Line(f"  degraded: {', '.join(one.degraded)}", "red"))
    blocks.append(Line())
    rows: list[list[Any]] = [
        [
            i.name,
            _value(i.served) if i.logged else "not logged",
            _value(i.recomputed) if i.known else "?",
            i.equal if i.known else "?",
            i.status,
            _age(i.age_s),
        ]
        for i in one.inputs
    ]
    blocks.append(Table(["input", "as served", "recomputed", "equal", "look-up", "age"], rows))
    words = f"{one.different} of {len(one.inputs)} inputs differ from the recomputation as of that instant"
    blocks += [Line(one.note or words, "red" if one.different or one.note else "green"), Line()]
    for replay in one.replays:
        scored = f"answers {replay.score:.4f}" if replay.score is not None else ""
        said = "; ".join(words for words in (scored, replay.note) if words)
        same = {True: ", as logged", False: ", NOT as logged", None: ""}[replay.same]
        blocks.append(Line(f"{replay.role}: version {replay.version} ({replay.release}): {said}{same}"))
    blocks += [
        Line(f"{said['decision']} by {said['actor']} (asserted) at {said['at']}: {said['reason']}")
        for said in one.approvals
    ]
    if not one.approvals:
        blocks.append(Line("no second person approved this release", "red"))
    return [*blocks, Line(), *(Line(line) for line in as_tree(one.lineage))]


def _value(value: Any) -> str:
    if value is None:
        return "missing"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{seconds / 60:.0f} min"
