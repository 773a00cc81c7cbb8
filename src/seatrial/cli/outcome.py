"""Rendering of what comes after a prediction: labels, retraining, decisions, one prediction explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seatrial.cli.render import Block, Line, Plain, Style, Table

if TYPE_CHECKING:
    from seatrial.governance.explain import Explained
    from seatrial.retraining.refusals import Refusal


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
    blocks: list[Block] = [Line(f"{done['model']}: {done['words']}", "bold")]
    if done["proposal"]:
        blocks += proposal(done["proposal"])
    elif done["next"]:
        blocks.append(Line(f"next: {done['next']}"))
    return blocks


def proposals(things: list[Plain]) -> list[Block]:
    if not things:
        return [Line("no retraining was ever proposed")]
    rows = [
        [one["id"], one["model"], one["opened_at"][:10], one["state"], one["trigger"], one["challenger"]]
        for one in things
    ]
    return [Table(["proposal", "model", "opened", "state", "trigger", "challenger"], rows)]


def proposal(one: Plain) -> list[Block]:
    blocks: list[Block] = [
        Line(f"proposal {one['id']}, {one['state']}"),
        Line(f"  why        {one['reason']}"),
        Line(f"  proposed   {one['opened_at'][:10]} by {', '.join(one['proposers'])} (asserted)"),
        Line(f"  champion   {one['champion']}, generation {one['generation']} of '{one['deployment']}'"),
        Line(f"  challenger {one['challenger'] or 'none yet'}"),
    ]
    blocks += [Line(f"  broke off  {failed}", "red") for failed in one["failed"]]
    blocks += [Line(f"  look       {look}") for look in one["looks"]]
    blocks += [Line(f"  significant {change}", "red") for change in one["significant"]]
    if one["ended"]:
        blocks.append(Line(f"  ended      {one['ended']}"))
    if one["next"]:
        blocks.append(Line(f"next: {one['next']}"))
    return blocks


def proposal_and_evidence(one: Plain) -> list[Block]:
    """The same, then what the newest look at its challenger compared: metrics, days, and what the margins look at."""
    *blocks, last = proposal(one)
    found = one["comparison"]
    if found is None:
        return [*blocks, last]
    where = "the same live requests" if found["shadow"] == "live" else "the same rows of history"
    metrics = [
        [name, _number(value), _number(found["challenger_metrics"].get(name))]
        for name, value in found["champion_metrics"].items()
    ]
    blocks += [
        Line(),
        Line(
            f"Both on {where}, {found['rows']:,} with a label, {found['start'][:10]} to {found['as_of'][:10]}", "bold"
        ),
        Table(["metric", "champion", "challenger"], metrics),
    ]
    if found["changes"]:
        changes = [
            [
                one["what"],
                one["where"],
                f"{one['rows']:,}",
                _number(one["champion"]),
                _number(one["challenger"]),
                f"{one['margin']:g}",
                "BEYOND" if one["state"] == "beyond" else one["state"],
            ]
            for one in found["changes"]
        ]
        head = ["what may not change much", "of", "rows", "champion", "challenger", "borne", ""]
        blocks += [Line(), Table(head, changes)]
    return [*blocks, Line(), last]


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4f}"


def refusals(things: list[Plain]) -> list[Block]:
    """Every refusal, with its reason."""
    if not things:
        return [Line("no retraining was refused")]
    blocks: list[Block] = []
    for one in things:
        when = one["at"] if one["times"] == 1 else f"{one['at']} to {one['last']}, {one['times']} times"
        blocks += [
            Line(f"{when}  {one['model']} {one['step']}  {one['code']}", "red"),
            Line(f"  asked by   {one['trigger']}"),
            Line(f"  refused    {one['reason']}"),
        ]
    return blocks


def refused(things: list[Refusal]) -> list[Block]:
    """That there are refusals, and the newest one."""
    if not things:
        return []
    times, newest = sum(one.times for one in things), things[-1]
    return [
        Line(f"refused {times:,} times, last on {newest.last[:10]}: {newest.reason}", "red"),
        Line("next: seatrial proposals refusals"),
    ]


def decided(done: Plain) -> list[Block]:
    """An approval or a rejection."""
    style: Style = "green" if done["decision"] == "approved" else "red"
    return [
        Line(f"{done['decision']}: release {done['release']} for '{done['deployment']}'", style),
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
