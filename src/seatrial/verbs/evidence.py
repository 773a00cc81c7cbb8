"""Evidence: everything that the records say of a release, gathered for its model card and its bill of materials.

Reads only. What a record does not have (an older run, a release from elsewhere) is left out of the card. The owner's
parts are not: one that nobody wrote is shown as missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from seatrial import __version__
from seatrial.core.card import TITLES, BadCard, ModelCard, read_card, written
from seatrial.core.clock import from_us, iso
from seatrial.core.errors import SeatrialError, UsageError
from seatrial.core.records import Record
from seatrial.folder.workspace import Workspace
from seatrial.governance import bom
from seatrial.governance.card import Badge, Card, CardSection, CardTable, Cell, html, markdown, shown, table
from seatrial.monitoring.alerting.alerts import alerts
from seatrial.releases.bundle import LOCK, Bundle, open_bundle
from seatrial.stats.metrics import METRICS
from seatrial.verbs.custody import deleted_words, live_in, sample_words

Form = Literal["md", "html"]

UNIT = {"accuracy", "average_precision", "avg_precision", "f1", "precision", "recall", "roc_auc", "r2"}
"""Metrics that lie in 0 to 1, where more is better; they are drawn as bars."""
MOST_INPUTS, MOST_SLICES = 30, 12


class Written(msgspec.Struct, frozen=True):
    """A card that was written. missing: the parts that its owner did not write. path: the file, when there is one."""

    release: str
    model: str
    form: str
    missing: list[str]
    text: str
    path: str | None = None


class Bill(msgspec.Struct, frozen=True):
    """A bill of materials that was written. document: the CycloneDX JSON. path: the file, when there is one."""

    release: str
    libraries: int
    document: dict[str, Any]
    path: str | None = None


def write_card(workspace: Workspace, release: Record, form: Form, out: str | Path | None) -> Written:
    """The model card of a release as Markdown or as one HTML page."""
    card = model_card(workspace, release)
    text = html(card) if form == "html" else markdown(card)
    return Written(release.id, release.name, form, card.missing, text, _put(out, text))


def write_bill(workspace: Workspace, release: Record, out: str | Path | None) -> Bill:
    """The bill of materials of a release, CycloneDX 1.6."""
    bundle = _bundle(workspace, release)
    lock = bundle.files.get(LOCK, b"").decode(errors="replace").splitlines()
    run = _run(workspace, release)
    facts = bom.Facts(
        release=release.id,
        manifest=release.body["manifest"],
        lock=lock,
        card=_owner_words(workspace, release, run)[0],
        datasets=_datasets(workspace, release),
        slices=run.get("slices") or {},
        intervals=(run.get("intervals") or {}).get("of") or {},
        seatrial=__version__,
    )
    document = bom.bill(facts)
    libraries = sum(one["type"] == "library" for one in document["components"])
    return Bill(release.id, libraries, document, _put(out, msgspec.json.format(msgspec.json.encode(document)).decode()))


def card_of(card: ModelCard | str | None, folder: Path) -> dict[str, list[str]] | None:
    """The owner's words as a record keeps them; None when there are none. A text is the path of a Markdown file.

    Raises BadCard.
    """
    if card is None:
        return None
    if isinstance(card, ModelCard):
        return card.as_plain()
    try:
        text = (folder / card).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadCard(
            f"the model card {card} cannot be read: {error}.",
            expected=f"A Markdown file of the project with the headings {', '.join(TITLES.values())}.",
        ) from None
    return read_card(text, card).as_plain()


def model_card(workspace: Workspace, release: Record) -> Card:
    """The card, from the owner's words and from records."""
    manifest: dict[str, Any] = release.body["manifest"]
    run = _run(workspace, release)
    words, later = _owner_words(workspace, release, run)
    owner = [CardSection(title, tuple(words[name]), owner=True) for name, title in TITLES.items()]
    if later:
        note = "These words are the project's of now; the release itself was packed without them."
        owner.append(CardSection("About these words", (note,)))
    sections = [
        *owner,
        _people(manifest),
        _performance(manifest, run),
        _slices(run),
        _gates(manifest),
        _data(workspace, release, run),
        _inputs(manifest, run),
        _how(manifest),
        _parity(manifest["parity"]),
        _approvals(workspace, release),
        _monitoring(workspace, release),
        _lineage(release, manifest),
        _environment(workspace, release, run),
    ]
    return Card(
        model=release.name,
        release=release.id,
        version=release.body["version"],
        semantic_version=release.body["semantic_version"],
        headline=manifest["description"] or f"A {manifest['signature']['task']} model; it has no description.",
        badges=tuple(_badges(workspace, release, manifest, run)),
        sections=tuple(one for one in sections if one is not None),
    )


def _badges(workspace: Workspace, release: Record, manifest: dict[str, Any], run: dict[str, Any]) -> Iterable[Badge]:
    yield Badge(f"{manifest['signature']['task']}, version {manifest['version']}")
    live = live_in(workspace.metadata, release.id)
    yield Badge(f"live in {', '.join(live)}", "good") if live else Badge("not live")
    gone = deleted_words(workspace.metadata, release.id)
    if gone:
        yield Badge(f"deleted {gone}", "bad")
    gates = manifest["gates"]
    passed = sum(bool(gate["passed"]) for gate in gates)
    if gates:
        yield Badge(f"{passed} of {len(gates)} gates passed", "good" if passed == len(gates) else "bad")
    else:
        yield Badge("no gates", "bad")
    parity = manifest["parity"]
    yield Badge(
        "export proved exact" if parity["passed"] else "export not exact", "good" if parity["passed"] else "bad"
    )
    code = (run.get("environment") or {}).get("code") or {}
    clean = bool(code.get("commit")) and not code.get("dirty")
    yield Badge("made from a commit", "good") if clean else Badge("not made from a commit", "bad")
    if not manifest["owner"]:
        yield Badge("no owner", "bad")


def _people(manifest: dict[str, Any]) -> CardSection:
    rows = [(what, manifest[name] or "nobody") for what, name in (("owner", "owner"), ("on call", "on_call"))]
    return CardSection(
        "Who answers for it", tables=(table(("", ""), [*rows, ("runbook", manifest["runbook"] or "none")]),)
    )


def _performance(manifest: dict[str, Any], run: dict[str, Any]) -> CardSection:
    intervals = run.get("intervals") or {}
    of, baseline = intervals.get("of") or {}, run.get("baseline") or {}
    cv = (run.get("cv") or {}).get("mean") or {}
    spread = (run.get("cv") or {}).get("std") or {}
    rows: list[tuple[Cell, ...]] = []
    for name, value in manifest["metrics"].items():
        low_high = of.get(name)
        interval = f"{shown(low_high[0])} to {shown(low_high[1])}" if low_high else None
        folds = f"{shown(cv[name])} ± {shown(spread.get(name))}" if cv.get(name) is not None else None
        bar = value if name in UNIT else None
        rows.append((name, bar if bar is not None else (None if value is None else shown(value)), interval, folds,
                     baseline.get(name)))  # fmt: skip
    level = f"{intervals['level']:.0%}" if intervals.get("level") else ""
    more = manifest["lineage"]["more"]
    adopted = "origin" in more
    header = ("metric", "sample" if adopted else "test", f"{level} interval".strip(), "cross-validation", "a constant")
    keep = [0, 1, *(place for place in (2, 3, 4) if any(row[place] is not None for row in rows))]
    made = table([header[p] for p in keep], [[row[p] for p in keep] for row in rows], share=1)
    texts = [
        sample_words(more, bool(rows)) if adopted else _sentence(run.get("metrics_of") or "Measured on the test part.")
    ]
    if intervals.get("method"):
        texts.append(f"Intervals: {intervals['method']} ({intervals.get('clusters')} x {intervals.get('unit')}).")
    worst = _worst(run)
    if worst:
        texts.append(worst)
    elif rows:
        texts.append("No slice of the rows was measured by itself: a good mean can hide a bad part.")
    threshold = manifest["threshold"]
    if threshold is not None:
        stands = f"; positive is `{more['positive']}`" if isinstance(more.get("positive"), str) else ""
        texts.append(f"A row is positive from a probability of {shown(threshold)} on{stands}.")
    return CardSection("How good it is", tuple(texts), (made,) if rows else ())


def _worst(run: dict[str, Any]) -> str:
    """The worst slice of all columns, in a sentence; empty when none was large enough to be judged."""
    higher = {metric.name: metric.better == "higher" for metrics in METRICS.values() for metric in metrics.values()}
    found = []
    for column, one in (run.get("slices") or {}).items():
        for part in one["slices"]:
            value = part["metrics"].get(one["metric"])
            if part["value"] == one.get("worst") and value is not None:
                rank = value if higher.get(one["metric"], True) else -value
                found.append((rank, column, part, one["metric"], value))
    if not found:
        return ""
    _, column, part, metric, value = min(found, key=lambda one: one[0])
    whole = (run.get("metrics") or {}).get(metric)
    beside = f"; {shown(whole)} of all rows" if whole is not None else ""
    return (
        f"The worst slice is `{column}` = `{part['value']}`: {metric} {shown(value)} on {part['rows']:,} rows{beside}."
    )


def _slices(run: dict[str, Any]) -> CardSection | None:
    """The test part by slice, the worst named."""
    slices = run.get("slices") or {}
    if not slices:
        return None
    tables, texts = [], []
    for column, one in slices.items():
        metric, worst = one["metric"], one.get("worst")
        rows = [
            (
                str(part["value"]),
                part["rows"],
                part["metrics"].get(metric),
                "worst" if part["value"] == worst else "too few to judge" if part.get("too_few") else None,
            )
            for part in one["slices"][:MOST_SLICES]
        ]
        if worst is not None:
            texts.append(f"By `{column}` it is worst for `{worst}`.")
        share = 2 if metric in UNIT else None
        tables.append(table((column, "rows", metric, ""), rows, share=share, caption=f"By {column}"))
    return CardSection("Where it is better and worse", tuple(texts), tuple(tables))


def _gates(manifest: dict[str, Any]) -> CardSection:
    rows = [(bool(gate["passed"]), gate["gate"], gate.get("reason") or "") for gate in manifest["gates"]]
    if not rows:
        return CardSection("Gates", ("It was judged by no gate.",))
    return CardSection("Gates", tables=(table(("", "gate", "evidence"), rows),))


def _data(workspace: Workspace, release: Record, run: dict[str, Any]) -> CardSection:
    definition, split = run.get("definition") or {}, run.get("split") or {}
    facts: list[tuple[Cell, ...]] = []
    if definition.get("target"):
        facts.append(("target", definition["target"]))
    for part in ("train", "test"):
        if isinstance(split.get(part), Mapping):
            words = f"{split[part]['rows']:,} rows"
            mean = split[part].get("label_mean")
            facts.append((f"{part} part", f"{words}, label mean {shown(mean)}" if mean is not None else words))
    if split.get("kind"):
        facts.append(("split", f"{split['kind']}; {split.get('purged') or 0:,} rows purged"))
    if split.get("refit_rows"):
        facts.append(("fitted again on", f"{split['refit_rows']:,} rows"))
    if run.get("cutoff_us") is not None:
        facts.append(("known at", iso(from_us(run["cutoff_us"]))))
    tables: list[CardTable] = [table(("", ""), facts)] if facts else []
    datasets = [(one["name"], one["rows"], one["id"]) for one in _datasets(workspace, release)]
    if datasets:
        tables.append(table(("data", "rows", "content"), [(n, r, f"`{i}`") for n, r, i in datasets]))
    guard = run.get("leak_guard") or {}
    texts = []
    if guard:
        checked = sum(one.get("status") == "checked" for one in guard.get("columns", ()))
        texts.append(
            f"No column was found to know more than could be known; {checked or 'no'} columns could be checked."
        )
    texts += [_sentence(one) for one in run.get("warnings") or ()]
    return CardSection("What it learned from", tuple(texts), tuple(tables))


def _inputs(manifest: dict[str, Any], run: dict[str, Any]) -> CardSection:
    signature, importance = manifest["signature"], run.get("importance") or {}
    total = sum(abs(float(value)) for value in importance.values() if isinstance(value, (int, float))) or 1.0
    requested = {field["name"]: field for field in signature["request"]}
    rows: list[tuple[Cell, ...]] = []
    for name in sorted(signature["inputs"], key=lambda one: -abs(float(importance.get(one) or 0))):
        where = "request" if name in requested else "feature" if "__" in name else "computed"
        kind = "category" if name in signature["categories"] else requested.get(name, {}).get("dtype", "number")
        share = abs(float(importance[name])) / total if isinstance(importance.get(name), (int, float)) else None
        rows.append((f"`{name}`", where, kind, share))
    more = len(rows) - MOST_INPUTS
    texts = (f"The {MOST_INPUTS} inputs that weigh most; {more} more weigh less.",) if more > 0 else ()
    asked = ", ".join(f"`{name}`" for name in requested)
    texts = (f"A request holds {asked}.", *texts)
    made = table(("input", "from", "type", "share of importance"), rows[:MOST_INPUTS], share=3)
    return CardSection("What it looks at", texts, (made,))


def _how(manifest: dict[str, Any]) -> CardSection:
    parameters = [(f"`{name}`", f"`{value}`") for name, value in manifest["parameters"].items()]
    more = manifest["lineage"]["more"]
    words = f"`{manifest['estimator']}`, served as {manifest['model_format']}"
    if more.get("seed") is not None:
        threads = more.get("threads") or 1
        words += f", seed {more['seed']}, {threads} thread{'' if threads == 1 else 's'}"
    tables = (table(("parameter", "value"), parameters),) if parameters else ()
    return CardSection("How it was made", (f"{words}. {manifest['explanation']}",), tables)


def _parity(parity: dict[str, Any]) -> CardSection:
    words = (
        f"The served form was compared with the trained model on {parity['rows']:,} rows, on "
        f"{parity['missing_rows']:,} rows with missing values put in and on {parity['single_rows']:,} rows one by one: "
        f"the largest difference is {parity['largest']:.2g}, and {parity['flipped']} decisions differ."
    )
    refused = parity["refuses_missing"]
    texts = [words]
    if refused:
        texts.append(f"It refuses rows that lack {', '.join(f'`{name}`' for name in refused)}.")
    return CardSection("Is what is served what was trained?", tuple(texts))


def _approvals(workspace: Workspace, release: Record) -> CardSection:
    events = [
        event
        for event in workspace.metadata.events(subject=release.id)
        if event.kind in ("release.packed", "release.approved", "release.rejected", "release.resigned")
    ]
    rows = [
        (
            iso(from_us(event.at_us))[:19].replace("T", " "),
            event.kind.removeprefix("release."),
            event.actor,
            event.body.get("reason") or "",
        )
        for event in events
    ]
    approved = any(event.kind == "release.approved" for event in events)
    text = () if approved else ("No second person has approved it.",)
    return CardSection("Decisions", text, (table(("at", "what", "by", "why"), rows),) if rows else ())


def _monitoring(workspace: Workspace, release: Record) -> CardSection:
    reports = workspace.metadata.records("report", release.name, newest=1)
    found = [one for one in alerts(workspace.metadata, release.name) if one.state != "resolved"]
    texts = []
    if reports:
        newest = reports[-1].body
        texts.append(f"Newest report: {newest['verdict']}. {newest['headline']}")
    else:
        texts.append("No report was made of this model yet.")
    rows = [(one.severity, one.headline, one.state) for one in found]
    tables = (table(("severity", "open alert", "state"), rows),) if rows else ()
    return CardSection("How it does in service", tuple(texts), tables)


def _lineage(release: Record, manifest: dict[str, Any]) -> CardSection:
    lineage = manifest["lineage"]
    origin = lineage["more"].get("origin") or {}
    facts: list[tuple[str, Any]] = [
        ("release", release.id), ("run", lineage["run"]), ("training set", lineage["training_set"]),
        *(("snapshot", one) for one in lineage["snapshots"]), ("commit", lineage["commit"]),
        ("uncommitted changes", lineage["dirty"]), ("definitions", lineage["definitions"]), ("lock", lineage["lock"]),
        *((f"origin, {name}", str(value)) for name, value in origin.items()),
    ]  # fmt: skip
    rows = [(name, f"`{value}`") for name, value in facts if value]
    text = ("It was trained elsewhere; what it was trained on is not known here.",) if origin else ()
    return CardSection("What it was made from", text, (table(("", "id"), rows),))


def _environment(workspace: Workspace, release: Record, run: dict[str, Any]) -> CardSection:
    environment = run.get("environment") or {}
    rows: list[tuple[Cell, ...]] = [
        (name, str(environment[name])) for name in ("python", "platform", "cpu", "threads") if environment.get(name)
    ]
    try:
        lock = _bundle(workspace, release).files.get(LOCK, b"").decode(errors="replace")
    except SeatrialError:
        lock = ""
    packages = [line.partition("==")[::2] for line in lock.splitlines() if "==" in line]
    tables = [table(("", ""), rows)] if rows else []
    if packages:
        tables.append(table(("package", "version"), packages))
    return CardSection(f"Environment, with {len(packages)} packages", (), tuple(tables), folded=True)


def _owner_words(workspace: Workspace, release: Record, run: dict[str, Any]) -> tuple[dict[str, list[str]], bool]:
    """The owner's words by part, and whether they are the project's of now, because the run has none."""
    kept = run.get("card")
    if kept:
        return written(kept), False
    try:
        declared = workspace.definitions.models.get(release.name)
        now = card_of(declared.card, workspace.folder) if declared is not None else None
    except SeatrialError:
        now = None
    return written(now or {}), bool(now and any(now.values()))


def _datasets(workspace: Workspace, release: Record) -> list[dict[str, Any]]:
    """The training set and the snapshots behind a release: id, name, rows, what it is."""
    lineage = release.body["manifest"]["lineage"]
    found = []
    for id in (lineage["training_set"], *lineage["snapshots"]):
        record = workspace.metadata.record(id) if id else None
        if record is None:
            continue
        names = [one.body["source"] for one in workspace.metadata.events(subject=id, kind="snapshot.taken")]
        name = names[-1] if names else "training set"
        what = f"snapshot of {name}" if names else "the rows that the model was trained and tested on"
        found.append({"id": id, "name": name, "rows": record.body["content"]["rows"], "what": what})
    return found


def _run(workspace: Workspace, release: Record) -> dict[str, Any]:
    """The body of the release's run, or, when it was trained elsewhere, of its adoption."""
    record = workspace.metadata.record(release.body["manifest"]["lineage"]["run"] or release.inputs[1])
    return dict(record.body) if record is not None else {}


def _bundle(workspace: Workspace, release: Record) -> Bundle:
    return open_bundle(workspace.objects.path(release.body["object"]), workspace.trusted)


def _put(out: str | Path | None, text: str) -> str | None:
    if out is None:
        return None
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror or error}.") from None
    return str(out)


def _sentence(words: str) -> str:
    words = words.strip()
    return f"{words[:1].upper()}{words[1:]}{'' if words.endswith('.') else '.'}"
