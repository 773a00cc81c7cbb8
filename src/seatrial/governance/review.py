"""Review: which red flags does each model show, on what evidence, and what is the next single step?"""

from __future__ import annotations

from typing import Any

import msgspec

STALE_LABELS_DAYS = 30
TAKEN_BACK_DAYS = 7


class Flag(msgspec.Struct, frozen=True):
    """One red flag. evidence: what was seen; next: the step that would take the flag down."""

    name: str
    evidence: str
    next: str


class Reviewed(msgspec.Struct, frozen=True):
    """A model and its red flags, the gravest first; none is a good sign, and no proof."""

    model: str
    live: str | None
    flags: list[Flag]
    next: str


class Facts(msgspec.Struct, frozen=True):
    """What a review looks at.

    reachable: every route that `on_call` names has an address here.
    monitored_at: instant of the newest report, or None; predictions, labels: how many are known of the model.
    open_alerts: all that are not resolved; severities: how many of each.
    taken_back: the words of a roll-back of the last TAKEN_BACK_DAYS days, or empty.
    run: body of the run behind the live (or newest) release, or None. approved_by: who approved the live release.
    """

    model: str
    owner: str
    on_call: str
    runbook: str
    live: str | None
    live_release: str | None
    declared_monitor: bool
    monitored_at: str | None
    predictions: int
    labels: int
    run: dict[str, Any] | None
    approved_by: str | None
    open_alerts: int
    retrain_declared: bool
    reachable: bool
    taken_back: str = ""
    severities: dict[str, int] = {}


def review(facts: Facts) -> Reviewed:
    """The flags that the facts raise."""
    flags = [flag for flag in (check(facts) for check in _CHECKS) if flag is not None]
    return Reviewed(facts.model, facts.live, flags, flags[0].next if flags else "")


def _alerts(facts: Facts) -> Flag | None:
    if not facts.open_alerts:
        return None
    counts = [f"{facts.severities[name]} {name}" for name in ("high", "medium", "low") if facts.severities.get(name)]
    words = f"open alerts: {facts.open_alerts}" + (f" ({', '.join(counts)})" if counts else "")
    return Flag("open alerts", words, f"seatrial alerts list {facts.model}")


def _owner(facts: Facts) -> Flag | None:
    missing = [name for name in ("owner", "on_call", "runbook") if not getattr(facts, name)]
    if not missing:
        return None
    words = f"Model('{facts.model}') has no {', no '.join(missing)}"
    if facts.run is not None and "origin" in facts.run:  # declared nowhere
        options = " ".join(f"--{name.replace('_', '-')} ..." for name in missing)
        again = f"seatrial release {facts.model} --from MODEL --sample ROWS {options}"
        return Flag("nobody to call", words.replace(f"Model('{facts.model}')", f"model '{facts.model}'"), again)
    return Flag("nobody to call", words, f"Give {', '.join(f'{name}=' for name in missing)} to the model.")


def _webhook(facts: Facts) -> Flag | None:
    routes = [one.strip().partition(":") for one in facts.on_call.split(",")]
    if facts.reachable or not any(kind in ("webhook", "route") for kind, _, _ in routes):
        return None
    kind, _, name = next(one for one in routes if one[0] in ("webhook", "route"))
    words = f"on_call='{facts.on_call}' has no address here, so nobody is told of an alert"
    return Flag("alerts go nowhere", words, f'Set {name} = "${{VARIABLE}}" under [{kind}s] in seatrial.toml.')


def _monitor(facts: Facts) -> Flag | None:
    if facts.live is None:
        return None
    if facts.monitored_at is None:
        return Flag("not monitored", "no report was ever made", f"seatrial monitor {facts.model}")
    if not facts.declared_monitor:
        words = f"reports are made (last {facts.monitored_at}), but no Monitor is declared"
        return Flag("default monitor", words, f"Declare Monitor('{facts.model}', alarms=[...]) in the project file.")
    return None


def _labels(facts: Facts) -> Flag | None:
    if not facts.predictions or facts.labels:
        return None
    words = f"{facts.predictions} predictions, no label"
    return Flag("no labels", words, f"seatrial label {facts.model}")


def _reproducible(facts: Facts) -> Flag | None:
    if facts.run is not None and "origin" in facts.run:
        words = f"trained elsewhere: it is from {facts.run['origin'].get('from', 'an unknown place')}"
        return Flag("not reproducible", words, "Keep its code where it was trained, or declare and train it here.")
    code = ((facts.run or {}).get("environment") or {}).get("code") or {}
    if facts.run is None or (code.get("commit") and not code.get("dirty")):
        return None
    words = "trained from code with uncommitted changes" if code.get("commit") else "trained outside a git repository"
    return Flag("not reproducible", words, "Commit the project, then train again.")


def _taken_back(facts: Facts) -> Flag | None:
    if not facts.taken_back:
        return None
    return Flag("taken back", f"release {facts.taken_back}", f"seatrial deployments status {facts.model}")


def _approval(facts: Facts) -> Flag | None:
    if facts.live_release is None or facts.approved_by is not None:
        return None
    words = f"{facts.live_release} is live without a second person's approval"
    return Flag("not approved", words, 'Set [policy] approval = "required" in seatrial.toml.')


def _manual(facts: Facts) -> Flag | None:
    if facts.live is None or facts.retrain_declared:
        return None
    words = "nothing proposes a retraining: somebody has to remember it"
    return Flag("manual step", words, f"Declare Retrain('{facts.model}') in the project file.")


def _waived(facts: Facts) -> Flag | None:
    waived = [gate for gate in (facts.run or {}).get("gates", []) if gate.get("waived")]
    if not waived:
        return None
    words = "; ".join(
        f"{gate['gate']} ({'passed' if gate['passed'] else 'not passed'}): {gate['waived']}" for gate in waived
    )
    reach = f"Reach the gate, then take it out of waives of Model('{facts.model}')."
    return Flag("waived gates", f"excused from gates of the project: {words}", reach)


def _unrepeatable(facts: Facts) -> Flag | None:
    found = (facts.run or {}).get("repeatable") or {}
    if found.get("same") is not False:
        return None
    words = "the estimator gave another model when it was fitted again with the same seed"
    return Flag("not repeatable", words, "Seed every source of chance in the estimator, then train again.")


_CHECKS = (
    _alerts,
    _taken_back,
    _owner,
    _webhook,
    _monitor,
    _labels,
    _approval,
    _waived,
    _reproducible,
    _unrepeatable,
    _manual,
)
