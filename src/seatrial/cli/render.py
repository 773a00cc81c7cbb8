"""Rendering: how do results look? Aligned text in a pipe, the same with colour on a terminal, or JSON.

A result becomes plain values first (`plain`), which are also what --json prints. A function per kind of result
turns them into blocks, lines and tables; `write` prints blocks. Only a terminal loads rich.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, inf, isfinite, log10
from textwrap import wrap
from typing import Any, Literal, TextIO

import msgspec

from seatrial.core.errors import counted
from seatrial.core.inert import inert

Plain = dict[str, Any]
Cell = str | int | float | bool | None
Style = Literal["", "bold", "green", "red", "dim"]


@dataclass(frozen=True)
class Line:
    """One line of text. hang: where it goes on below itself, between words, when a terminal is too narrow for it; 0
    leaves that to the terminal, so that a command can be copied."""

    text: str = ""
    style: Style = ""
    hang: int = 0


@dataclass(frozen=True)
class Table:
    """Rows under column names. True and False are shown as ✓ and ✗, None as a dash, numbers to the right. even: the
    numbers of a column have equally many decimals."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    even: bool = False


Block = Line | Table

DECLARE = "declare a source and a Model in project.py; its comments show how"
WIDEST = 120  # columns of text that a list takes
NARROWEST = 20  # of a terminal; one that says it has fewer, or none, is not believed
MAIN_METRICS = ("roc_auc", "log_loss", "f1", "rmse", "mae", "r2")


# Plain values and output


def plain(result: Any) -> Any:
    """The result as JSON values: dicts, lists, text, numbers, true, false, null. NaN and infinities are null."""
    if hasattr(result, "as_plain"):
        result = result.as_plain()
    elif isinstance(result, (list, tuple)):
        return [plain(one) for one in result]
    return msgspec.json.decode(msgspec.json.encode(result, enc_hook=_unknown_plain))


def write_json(value: Any, out: TextIO | None = None) -> None:
    """One JSON document and a line end."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode(), file=out or sys.stdout)


def write(blocks: Iterable[Block], out: TextIO | None = None) -> None:
    """Print blocks: through rich on a terminal, as aligned text elsewhere."""
    out = out or sys.stdout
    if out.isatty():
        _write_rich(blocks, out)
    else:
        for block in blocks:
            print(text(block), file=out)


def text(block: Block) -> str:
    """A block without colour: columns are aligned and two spaces apart."""
    if isinstance(block, Line):
        return inert(block.text)
    cells = [[inert(name) for name in block.columns], *_cells(block)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(block.columns))]
    right = _right_aligned(block)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    )


def shown(cell: Cell) -> str:
    """One value for people: five significant digits, thousands separated.

    >>> shown(77827), shown(0.72561234), shown(True), shown(None)
    ('77,827', '0.72561', '✓', '-')
    """
    match cell:
        case None:
            return "-"
        case bool():
            return "✓" if cell else "✗"
        case int():
            return f"{cell:,}"
        case float():
            return f"{cell:.5g}"
    return inert(cell.replace("\n", " "))


def decimals(numbers: Iterable[Cell]) -> int:
    """How many decimals show two digits of the smallest of these numbers and four of the largest, three at least of a
    share. What is nothing but rounding (below a millionth) is not looked at.

    >>> decimals([0.829, 0.0622, 1e-17]), decimals([0.0004, 0.9]), decimals([1043.2, 8.1])
    (3, 5, 1)
    """
    sizes = [abs(one) for one in numbers if isinstance(one, float) and 1e-6 <= abs(one) < inf]
    if not sizes:
        return 0
    return max(0, 1 - floor(log10(min(sizes))), min(3, 3 - floor(log10(max(sizes)))))


def fixed(number: float, places: int) -> str:
    """A number with so many decimals; what rounds to nothing has no sign.

    >>> fixed(1234.5, 1), fixed(-1e-9, 3)
    ('1,234.5', '0.000')
    """
    words = f"{number:,.{places}f}"
    return words.removeprefix("-") if not words.strip("-0.") else words


def _cells(table: Table) -> list[list[str]]:
    """What each cell shows."""
    columns = list(zip(*table.rows, strict=True))
    places = [decimals(column) if table.even else None for column in columns]
    return [
        [
            fixed(cell, many) if many is not None and isinstance(cell, float) and isfinite(cell) else shown(cell)
            for cell, many in zip(row, places, strict=True)
        ]
        for row in table.rows
    ]


def _write_rich(blocks: Iterable[Block], out: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=out, highlight=False, soft_wrap=False, no_color=bool(os.environ.get("NO_COLOR")) or None)
    console.width = max(console.width, NARROWEST)
    for block in blocks:
        if isinstance(block, Line):
            for line in _hanging(block, console.width):
                console.print(Text(line, style=block.style), soft_wrap=True)
            continue
        fit, widths, left_out = fitted(block, console.width)
        table = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for name, at_right, width in zip(fit.columns, _right_aligned(fit), widths, strict=True):
            table.add_column(inert(name), justify="right" if at_right else "left", width=width, overflow="fold")
        for row, said in zip(fit.rows, _cells(fit), strict=True):
            table.add_row(*(Text(word, style=_mark_style(cell)) for cell, word in zip(row, said, strict=True)))
        console.print(table)
        if left_out:
            words = f"too narrow for: {', '.join(left_out)} (--json has all)"
            console.print(Text(words, style="dim"), soft_wrap=True)


def _hanging(line: Line, width: int) -> list[str]:
    """A line as it fits into a width."""
    words = inert(line.text)
    if not line.hang or len(words) <= width:
        return [words]
    kept = words.replace(" %", "\xa0%")
    lines = wrap(kept, width, subsequent_indent=" " * line.hang, break_long_words=False, break_on_hyphens=False)
    return [one.replace("\xa0", " ") for one in lines]


def fitted(table: Table, width: int) -> tuple[Table, list[int], list[str]]:
    """The table as it fits into a width without a word or an id being broken: its columns, how wide each is, and the
    names of those that were left out, the least important first. Long texts go over several lines between words."""
    kept, left_out = list(range(len(table.columns))), []
    words = _cells(table)
    cells = [[name, *(row[i] for row in words)] for i, name in enumerate(table.columns)]
    needed = [max((len(word) for cell in column for word in cell.split()), default=0) for column in cells]
    while len(kept) > 1 and sum(needed[i] + 2 for i in kept) > width:
        out = max(kept[1:], key=lambda i: (_rank(table.columns[i]), not any(map(_is_id, cells[i])), i))
        kept.remove(out)
        left_out.append(table.columns[out])
    widths = {i: max(max(map(len, cells[i])), 1) for i in kept}
    while sum(widths[i] + 2 for i in kept) > width:
        room = [i for i in kept if widths[i] > max(needed[i], 1)]
        if not room:
            break
        widths[max(room, key=lambda i: widths[i])] -= 1
    rows = [[row[i] for i in kept] for row in table.rows]
    return Table([table.columns[i] for i in kept], rows, table.even), [widths[i] for i in kept], left_out


SPARED = ("bytes", "columns", "actor", "by", "taken at", "trained at", "since", "cutoff", "sample", "generation", "id")
"""Columns that a narrow terminal does without, the first first."""


def _rank(name: str) -> int:
    return len(SPARED) - SPARED.index(name) if name in SPARED else 0


def _is_id(cell: str) -> bool:
    prefix, _, digits = cell.partition("_")
    return prefix.isalpha() and len(digits) >= 16 and not set(digits) - set("0123456789abcdef-")


def _right_aligned(table: Table) -> list[bool]:
    columns = zip(*table.rows, strict=True) if table.rows else [()] * len(table.columns)
    return [
        any(isinstance(cell, (int, float)) for cell in column)
        and all(cell is None or (isinstance(cell, (int, float)) and not isinstance(cell, bool)) for cell in column)
        for column in columns
    ]


def _mark_style(cell: Cell) -> Style:
    if isinstance(cell, bool):
        return "green" if cell else "red"
    return ""


def _unknown_plain(value: Any) -> Any:
    return value.as_plain() if hasattr(value, "as_plain") else str(value)


# Results of verbs


def initialised(result: Plain) -> list[Block]:
    """Files that `init` wrote, and the next step."""
    enter = f"cd {result['folder']} && " if result["folder"] != "." else ""
    return [
        *(Line(f"  {name}") for name in result["files"]),
        *(Line(result[name], "bold") for name in ("told", "needs") if result.get(name)),
        Line(f"✓ {counted(len(result['files']), 'file')} written to {_place(result['folder'])}.", "green"),
        Line(f"Next: {enter}seatrial validate"),
    ]


def validated(reports: list[Plain]) -> list[Block]:
    """Per source its expectations; for those that failed the reason and the first rows."""
    if not reports:
        return [Line("The project reads no source yet."), Line(f"Next: {DECLARE}")]
    blocks: list[Block] = []
    for report in reports:
        aside = sum(removed.get("rows", 0) for removed in report["set_aside"])
        words = f"{report['source']}: {report['rows']:,} rows" + (f", {aside:,} set aside by rule" if aside else "")
        blocks.append(Line(report["source"] if report.get("kind") else words, "bold"))
        if report.get("kind") == "reuse":
            blocks += [Line(f"  note: {result['detail']}", "dim") for result in report["results"]]
            continue
        if not report["results"]:
            blocks.append(Line("  nothing is expected of it", "dim"))
        for result in report["results"]:
            failing = f": {result['failing']:,} rows" if result["failing"] and not result["passed"] else ""
            detail = f": {result['detail']}" if result["detail"] and not result["passed"] else ""
            warns = not result["passed"] and result.get("severity") == "warn"
            mark = "!" if warns else shown(result["passed"])
            style: Style = "" if result["passed"] or warns else "red"
            blocks.append(Line(f"  {mark} {result['expectation']}{failing}{detail}", style))
            if not result["passed"]:
                blocks += [Line(f"      {example}") for example in result["examples"]]
    return blocks


def snapshotted(taken: list[Plain]) -> list[Block]:
    """One row per source: its id, and whether its content is new."""
    rows = [
        (
            one["source"],
            one["id"],
            one["rows"],
            one["columns"],
            sum(one["set_aside"].values()) or None,
            "new" if one["new"] else "same as before",
            ", ".join(one["changed_columns"]) or None,
        )
        for one in taken
    ]
    head = ("source", "snapshot", "rows", "columns", "set aside", "content", "changed columns")
    return [Table(head, rows), *(line for one in taken for line in _data_notes(one))]


def _data_notes(taken: Plain) -> list[Block]:
    """What is otherwise than last time; warnings stand out."""
    marks = {"warn": "!", "info": "·"}
    return [
        Line(
            f"{marks[note['severity']]} {taken['source']}: {note['words']}", "" if note["severity"] == "warn" else "dim"
        )
        for note in taken.get("notes", [])
    ]


def written(views: list[Plain]) -> list[Block]:
    """What materialize or push did, one row per view."""
    if not views:
        return [Line("The project declares no feature view, so there is nothing to write.")]
    columns = ["view", "rows", "written", "unchanged", "unknown", "entities"]
    columns += [name for name in ("without_key", "release", "problem") if any(one.get(name) for one in views)]
    return [
        Table(
            columns,
            [
                [one[column] or None if isinstance(one[column], str) else one[column] for column in columns]
                for one in views
            ],
        ),
        Line("written: changed the online store; unchanged: was there already, or is too old to matter;", "dim"),
        Line("unknown: not yet known at that time, so not taken.", "dim"),
        *(
            [Line("without_key: no entity's key is in them, so nothing would find them.", "dim")]
            if "without_key" in columns
            else []
        ),
    ]


def taken_in(taken: Plain) -> list[Block]:
    """What came of a stream."""
    counts = f"{taken['rows']:,} rows taken, {taken['written']:,} changes made online, {taken['refused']:,} refused"
    blocks: list[Block] = [Line(f"{counts}.")]
    if taken["refused"]:
        blocks.append(Line("The refused are in the stream of the same name with `:refused`, each with its reason."))
    if taken["lag"]:
        blocks.append(Line(f"{taken['lag']:,} are still to come.", "dim"))
    return blocks


def trained(run: Plain) -> list[Block]:
    """The gates first, then the metrics, then what came of it."""
    blocks: list[Block] = [Line(f"Model {run['model']}, run {run['run']}", "bold"), Line(split_words(run["rows"]))]
    blocks += _evidence(run)
    blocks += [Line(f"note: {note}", "dim") for note in run.get("notes", [])]
    blocks += [Line(f"note: {run['leak_guard']}", "dim")] if run.get("leak_guard") else []
    if run.get("reused"):
        words = f"{', '.join(run['reused'])}: taken from an earlier run, made of the same; --fresh does it again"
        blocks.append(Line(f"note: {words}", "dim"))
    blocks.append(Line())
    if run.get("sample") is not None:
        blocks.append(Line(f"✓ It trains. A sample of {run['sample']:,} rows makes no version.", "green"))
        blocks.append(Line(f"Next: seatrial train {run['model']}"))
    elif run["passed"]:
        blocks.append(Line(f"✓ Version {run['version']} of {run['model']} is the candidate.", "green"))
        blocks.append(Line(f"Next: seatrial release {run['model']}"))
    else:
        blocks.append(Line("✗ A gate said no: the run is kept, no version was made.", "red"))
    return blocks


def split_words(split: Plain) -> str:
    """Which rows were used for what, in words."""
    rows = split["rows"]
    left_out = [(rows["unlabelled"], "without label"), (rows["label_not_known"], "not known by the cut-off")]
    left_out.append((split["purged"], "purged"))
    words = [f"{shown(count)} {what}" for count, what in left_out if count]
    return (
        f"{shown(rows['given'])} rows: {shown(split['train']['rows'])} to train, {shown(split['test']['rows'])} to test"
        f" ({split['kind']}){''.join(f', {one}' for one in words)}"
    )


def released(release: Plain) -> list[Block]:
    """What was packed, why this number, and how near the packed model is to the trained one."""
    state = "packed" if release["new"] else "was packed before, with the same content"
    size = f"{release['bytes'] / 1000:,.0f} kB"
    return [
        Line(f"✓ {release['model']} {release['semantic_version']} ({release['id']}) {state}.", "green"),
        Line(f"  Version   {release['version']} of {release['model']}; {release['explanation']}"),
        Line(f"  Parity    {parity_words(release['parity'])}"),
        *_form_lines(release),
        *(Line(f"  Note      {note}") for note in release.get("notes", ())),
        Line(f"  Bundle    {release['path']}  ({release['format']}, {size})"),
        *_on_the_way(release),
    ]


def _on_the_way(release: Plain) -> list[Block]:
    """What comes next: somebody else's approval where policy wants one, then the deployment."""
    deploy = f"seatrial deploy {release['model']} --release {release['id']}"
    if not release.get("needs_approval"):
        return [Line(f"Next: {deploy}")]
    approve = f'seatrial approve {release["id"]} --reason "..." --actor SECOND_PERSON'
    return [Line(f"Next: {approve}"), Line(f"Then: {deploy}")]


def _form_lines(release: Plain) -> list[Block]:
    """Why it is no ONNX, and what that costs; nothing for ONNX."""
    refused = release["parity"].get("refused")
    if not refused:
        return []
    lines: list[Block] = [Line(f"  Not ONNX  {refused}")]
    if release.get("cost"):
        lines.append(Line(f"  Cost      {cost_words(release['cost'])}"))
    return lines


def cost_words(cost: Plain) -> str:
    """What the process that scores a release costs."""
    return (
        f"a process of its own: {cost['start_s']:.1f} s to start, {cost['bytes'] / 1e6:,.0f} MB, "
        f"{cost['us_alone']:,.0f} us for a row alone, {cost['us_many']:,.1f} us for one of many"
    )


def parity_words(parity: Plain) -> str:
    """How near the packed model is to the trained one, in words."""
    if not parity:
        return "not compared"
    words = f"{shown(parity.get('rows'))} rows, largest difference {shown(parity.get('largest'))}"
    tolerance = parity.get("tolerance")
    return f"{words} (at most {tolerance:g} is allowed)" if tolerance is not None else words


def deployed(done: Plain) -> list[Block]:
    """What is live now, what was before, and the command that serves it."""
    if not done.get("changed", True):
        return [
            Line(f"{done['deployment']}: version {done['version']} is live already ({done['live']})."),
            Line(f"  Nothing was changed; it is generation {done['generation']}."),
            *([Line(f"  The newest run became no version: {done['refused']}", "red")] if done.get("refused") else []),
            Line(f"Next: seatrial runs show {done['refused']}" if done.get("refused") else "Next: seatrial serve"),
        ]
    from seatrial.cli.rolling import begun, callers

    if done.get("share", 100) < 100:
        return begun(done)
    return [
        Line(f"✓ {done['deployment']}: version {done['version']} is live ({done['live']}).", "green"),
        Line(f"  Before      {done['previous'] or 'nothing was live'}"),
        Line(f"  Generation  {done['generation']}, {done['strategy'].replace('_', '-')}"),
        *callers(done),
        Line("Next: seatrial serve"),
    ]


def predicted(answers: list[Plain]) -> list[Block]:
    """One row per prediction; then which views had nothing fresh to say, and the features where they were asked for."""
    columns = ("prediction", "probability", "model_version", "request_id", "prediction_id", "latency_ms")
    blocks: list[Block] = [
        _table([answer | {"probability": _likeliest(answer.get("probability"))} for answer in answers], columns)
    ]
    states = Counter((view, state) for one in answers for view, state in one.get("views", {}).items())
    for (view, state), count in sorted(states.items()):
        if state != "present":
            of = "" if len(answers) == 1 else f" for {count:,} of {len(answers):,} rows"
            blocks.append(Line(f"view {view}: {state}{of}"))
    for one in answers:
        if one.get("features"):
            blocks += [Line(), Line(f"features of {one['prediction_id']}", "bold"), *details(one["features"])]
    return blocks


def _likeliest(probability: Any, *, most: int = 3) -> Any:
    """The probability; of several classes the likeliest ones, in words."""
    if not isinstance(probability, dict):
        return probability
    ranked = sorted(probability.items(), key=lambda pair: -pair[1])
    more = f", {len(ranked) - most} more" if len(ranked) > most else ""
    return ", ".join(f"{name} {value:.3f}" for name, value in ranked[:most]) + more


def replayed(done: Plain) -> list[Block]:
    """How much history went through the service, and how good the answers were where the label is known."""
    blocks: list[Block] = [
        Line(f"✓ {done['predictions']:,} predictions of {done['model']} over {done['window']}.", "green"),
        Line(f"  Pushed    {done['pushed']:,} rows, as they became known"),
        Line(f"  Took      {done['seconds']:.1f} s ({done['per_second']:,.0f} a second)"),
        Line(f"  Labelled  {done['labelled']:,} of them"),
    ]
    if done["metrics"]:
        blocks += [Line(), Table(("metric", "value"), list(done["metrics"].items()))]
    return blocks


def audited(report: Plain) -> list[Block]:
    """Whether the audit log is what was written, and the anchor to keep elsewhere."""
    bad, head = report["first_bad"], report["head"]
    if bad:
        return [Line(f"✗ {report['events']:,} events; event {bad['seq']} is bad: {bad['reason']}.", "red")]
    if not report["events"]:
        return [Line("The audit log has no events yet.", "dim")]
    return [
        Line(f"✓ {report['events']:,} events, each as it was written.", "green"),
        Line(f"  To notice a tail that is cut off later, keep this elsewhere: {head['seq']} {head['hash']}"),
    ]


def checked(checks: list[Plain]) -> list[Block]:
    """What doctor looked at; the next step only where something is wrong."""
    rows = [(c["passed"], c["name"], c["found"], "" if c["passed"] else c["next"]) for c in checks]
    return [Table(("", "check", "found", "next"), rows)]


def rollout_words(rollout: Plain) -> str:
    """A rollout that is under way, in one line."""
    kind = {"ab_test": "A/B test"}.get(rollout["strategy"], rollout["strategy"])
    share = f"{rollout['share']:g} % of the traffic" if rollout["share"] else "no traffic"
    return (
        f"{kind}: {rollout['new']} has {share}, step {rollout['step']} of {rollout['steps']} since {rollout['since']}"
    )


def statuses(models: list[Plain]) -> list[Block]:
    """A card per model: what is live, the data, parameters, performance, owner, and the next step."""
    if not models:
        return [Line("The project declares no model."), Line("Next: declare a Model in project.py")]
    from seatrial.cli.schedules import by_itself

    blocks: list[Block] = []
    for model in models:
        live = "nothing"
        if model["live"]:
            live = f"version {model['live']}, {model['release']}, since {model['since']}"
        performance = {name: value for name, value in model["performance"].items() if name in MAIN_METRICS}
        card = {
            "live": live,
            "rollout": rollout_words(model["rollout"]) if model.get("rollout") else None,
            "candidate": f"version {model['candidate']}" if model["candidate"] else None,
            "data": ", ".join([*([model["training_set"]] if model["training_set"] else []), *model["snapshots"]]),
            "parameters": _stated(model["parameters"]),
            "performance": f"{inline(performance)} (in the test part)" if performance else "",
            "owner": model["owner"],
        }
        blocks.append(Line(model["model"], "bold"))
        blocks += [Line(f"  {name:<12}  {value}") for name, value in card.items() if value]
        if model.get("rolled_back"):
            blocks.append(Line(f"  newest        was {model['rolled_back']}", "red"))
        if model.get("distrusted"):
            blocks.append(Line(f"  signature     by {model['distrusted']}, a key that was revoked", "red"))
        blocks += [Line(f"  silent        {words}", "red") for words in model.get("silent") or ()]
        blocks += _what_rings(model)
        if model.get("refused"):
            blocks.append(
                Line(f"  last run      {model['refused']} was refused: {'; '.join(model['refused_because'])}", "red")
            )
            if not model["next"].endswith(model["refused"]):
                blocks.append(Line(f"                see: seatrial runs show {model['refused']}"))
        blocks += by_itself(model)
        blocks += [Line(f"  Next: {model['next']}"), Line()]
    return blocks[:-1]


def _what_rings(model: Plain) -> list[Block]:
    """What the newest report said, which alerts are open, which retraining waits."""
    blocks: list[Block] = []
    report, alerts, proposal = (model.get(name) for name in ("report", "alerts", "proposal"))
    if report:
        red: Style = "red" if report["verdict"] == "act" else ""
        blocks.append(Line(f"  report        {report['verdict'].upper()}: {report['headline']} ({report['id']})", red))
    if alerts:
        counts = [f"{alerts[name]} {name}" for name in ("high", "medium", "low") if alerts[name]]
        seen = "" if alerts["unseen"] else ", acknowledged"
        words = f"{' and '.join(counts)}{seen}; the worst is {alerts['worst']}: {alerts['words']}"
        blocks.append(Line(f"  alerts        {words}", "red"))
    if proposal:
        blocks.append(Line(f"  retraining    {proposal['id']}, {proposal['state']}: {proposal['reason']}"))
    return blocks


def exported(result: Plain) -> list[Block]:
    """The files that were written."""
    return [
        *(Line(f"  {name}") for name in result["files"]),
        *(Line(result[name], "bold") for name in ("told", "needs") if result.get(name)),
        Line(f"✓ {counted(len(result['files']), 'file')} written to {_place(result['folder'])}.", "green"),
    ]


def manifests(result: Plain) -> list[Block]:
    """The manifests that were written, and what to know of them."""
    return [*exported(result), *(Line(note) for note in result["notes"])]


def _place(folder: str) -> str:
    """A folder in a sentence: "." would be its end."""
    return "this folder" if folder in (".", "") else folder


def lines(texts: Iterable[str]) -> list[Block]:
    """Text that is made elsewhere, line by line."""
    return [Line(text) for text in texts]


# Lists and single things


def listing(things: list[Plain], *, next: str = "") -> list[Block]:
    """A table of things of one kind: every field but those that hold things themselves.

    next: the command that would make the first one.
    """
    if not things:
        return [Line("None yet.", "dim"), *([Line(f"Next: {next}")] if next else [])]
    names = dict.fromkeys(name for thing in things for name in thing)
    return [_table(things, [name for name in names if not any(_nested(thing.get(name)) for thing in things)])]


def features(things: list[Plain]) -> list[Block]:
    """A table of features; what a view is about is left to `features show`."""
    if not things:
        return [
            Line("The project declares no feature view."),
            Line("Next: declare one with @feature_view in project.py"),
        ]
    columns = [
        "column",
        "definition",
        "entity",
        "source",
        "ttl",
        "owner",
        "tags",
        "online_rows",
        "materialized_through",
    ]
    shown_things = [{name: value or None if name == "tags" else value for name, value in one.items()} for one in things]
    columns += [name for name in ("live", "same_as", "shared_from", "problem") if any(one.get(name) for one in things)]
    left_out: list[str] = []
    found = _table(shown_things, columns)
    for name in ("tags", "source", "entity", "ttl", "owner", "materialized_through", "same_as", "shared_from", "live"):
        if _width(found) <= WIDEST:
            break
        if any(one.get(name) for one in shown_things) and name in columns:
            columns.remove(name)
            left_out.append(name.replace("_", " "))
            found = _table(shown_things, columns)
    if _width(found) > WIDEST:
        room = max(WIDEST - _width(found) + max(len(str(one.get("definition", ""))) for one in things), 20)
        cut = [{**one, "definition": shortened(str(one.get("definition", "")), room)} for one in shown_things]
        found = _table(cut, columns)
    more = [Line(f"not shown here: {', '.join(left_out)} (--json, or `features show`)", "dim")] if left_out else []
    return [found, *more]


def shortened(words: str, most: int) -> str:
    return words if len(words) <= most else f"{words[: most - 1]}…"


def _width(table: Table) -> int:
    return max(len(line) for line in text(table).splitlines())


def feature(thing: Plain) -> list[Block]:
    """A view or a feature with everything; what was changed since it was frozen, a line each."""
    changed = thing.get("changed_since_frozen", [])
    silent = {name for name in ("same_as", "shared_from", "problem") if not thing.get(name)} | {"changed_since_frozen"}
    blocks: list[Block] = details({name: one for name, one in thing.items() if name not in silent})
    if changed:
        blocks += [Line("  changed since it was frozen last"), *(Line(f"    {line}") for line in changed)]
    return blocks


def searched(result: Plain) -> list[Block]:
    """The features found, best first; else what was perhaps meant."""
    if not result["found"]:
        near = f" Did you mean '{result['did_you_mean']}'?" if result["did_you_mean"] else ""
        return [Line(f"No feature has all of '{result['text']}'.{near}"), Line("Next: seatrial features list")]
    rows = [
        (one["name"], one["definition"], one["owner"] or None, ", ".join(one["where"]), one["description"] or None)
        for one in result["found"]
    ]
    return [Table(("feature", "definition", "owner", "found in", "description"), rows)]


def used_by(use: Plain) -> list[Block]:
    """Who uses a feature: the project's parts, then releases."""
    blocks: list[Block] = [Line(f"{use['name']} ({use['kind']})", "bold")]
    parts = {name: ", ".join(use[name]) for name in ("views", "functions", "models", "deployments") if use[name]}
    blocks += _facts(parts)
    if use["releases"]:
        columns = ("release", "model", "version", "state", "deployments", "as declared")
        rows = [
            (one["release"], one["model"], one["version"], one["state"], ", ".join(one["deployments"]) or None,
             one["as_declared"])
            for one in use["releases"]
        ]  # fmt: skip
        blocks += [Line(), Table(columns, rows)]
    if not parts and not use["releases"]:
        blocks.append(Line("  Nobody uses it."))
    return blocks


def run(thing: Plain) -> list[Block]:
    """One training for people; the whole record is what --json prints."""
    definition, environment = thing["definition"], thing["environment"]
    if "series" in thing:
        return _tracked_run(thing)
    if thing.get("state") == "failed":
        return _failed_run(thing)
    verdict = "passed its gates" if thing["passed"] else "was refused by a gate"
    logged = thing.get("logged")
    if logged is not None:
        verdict = "was logged" if logged["commit"] else f"was logged, and is not reproducible: {logged['why']}"
    facts = {
        "cut-off": _instant(thing["cutoff_us"]) if thing["cutoff_us"] is not None else None,
        "training set": thing["training_set"],
        "snapshots": inline(thing["snapshots"]),
        "estimator": definition["estimator"],
        "parameters": _stated(definition["params"], definition["estimator"]),
        "seed": thing["seed"],
        "python": environment.get("python"),
        "owner": definition["owner"],
        "leak guard": leak_words(thing["leak_guard"]) if "leak_guard" in thing else None,
    }
    return [
        Line(f"{thing['id']} of {thing['model']} {verdict}.", "bold"),
        Line(f"  {split_words(thing['split'])}"),
        *_facts(facts),
        *_evidence(thing),
        Line(),
        Line("The whole record: --json", "dim"),
    ]


def _tracked_run(thing: Plain) -> list[Block]:
    """A run of which only numbers were kept."""
    facts = {
        "failure": thing["failure"],
        "parameters": inline(thing["definition"]["params"]),
        "tags": inline(thing["tags"]),
        "files": ", ".join(thing["files"]),
        "from": thing["logged"]["place"],
    }
    columns = ["metric", "last", "values"]
    rows = [[name, shown(series[-1][1]), shown(len(series))] for name, series in thing["series"].items()]
    title = Line(f"{thing['id']} of {thing['model']} {thing['state']}; it tracks numbers only.", "bold")
    return [title, *_facts(facts), Line(), Table(columns, rows), Line("The whole record: --json", "dim")]


def _failed_run(thing: Plain) -> list[Block]:
    """A training that did not end: what happened, and where."""
    error = thing["error"]
    facts = {
        "while": error["stage"],
        "found": error["found"],
        "expected": error["expected"],
        "next": error["next"],
        "training set": thing["training_set"],
        "snapshots": inline(thing["snapshots"]),
        "estimator": thing["definition"]["estimator"],
        "parameters": inline(thing["definition"]["params"]),
    }
    title = Line(f"{thing['id']} of {thing['model']} failed [{error['code']}].", "bold")
    return [title, *_facts(facts), Line(), Line("The whole record: --json", "dim")]


def leak_words(guard: Plain) -> str:
    """What the leak guard found, in a few words."""
    counts = Counter(one["status"] for one in guard["columns"])
    said = [f"{counts[status]} {status}" for status in ("verified", "leaks", "unverifiable") if counts[status]]
    return f"{', '.join(said) or 'no columns'}, on {guard['rows']:,} rows at {len(guard['instants'])} instants"


def release(thing: Plain) -> list[Block]:
    """One release for people; the whole manifest is what --json prints."""
    lineage, signature = thing["lineage"], thing["signature"]
    asked = [
        f"{one['name']} ({one['dtype']}{', may be null' if one.get('nullable', True) else ''})"
        for one in signature["request"]
    ]
    facts = {
        "version": f"{thing['version']} of {thing['model']}; {thing['explanation']}",
        "rolled back": thing.get("rolled_back"),
        "asks for": ", ".join(asked),
        "example": json.dumps({"features": thing["example"]}, ensure_ascii=False),
        "threshold": _threshold_words(thing["threshold"], lineage.get("more", {}).get("positive")),
        "parity": parity_words(thing["parity"]),
        "not ONNX": thing["parity"].get("refused"),
        "cost": cost_words(thing["cost"]) if thing.get("cost") else None,
        "estimator": thing["estimator"],
        "parameters": _stated(thing["parameters"], thing["estimator"]),
        "run": lineage["run"],
        "training set": lineage["training_set"],
        "commit": lineage["commit"],
        "owner": thing["owner"],
        "on call": thing["on_call"],
        "runbook": thing["runbook"],
        "bundle": thing["path"],
    }
    title = f"{thing['model']} {thing['semantic_version']} ({thing['id']}), {thing['model_format']}"
    return [Line(title, "bold"), *_facts(facts), *_evidence(thing), Line(), Line("The whole manifest: --json", "dim")]


MOST_PARAMETERS = 10
LIBRARIES = ("sklearn", "lightgbm", "xgboost", "catboost")


def _stated(parameters: Mapping[str, Any], estimator: str = "") -> str:
    """The parameters that are not the estimator's defaults, on one line; --json has all of them."""
    if "steps" in parameters:  # a pipeline's steps tell what is other in them
        return " ".join(str(parameters["steps"]).split())
    known = _defaults(estimator) if len(parameters) > MOST_PARAMETERS else {}
    told = {
        name: value
        for name, value in parameters.items()
        if value not in (None, "None") and known.get(name) != str(value)
    }
    more = len(told) - MOST_PARAMETERS
    return inline(dict(list(told.items())[:MOST_PARAMETERS])) + (f" and {more} more: --json" if more > 0 else "")


def _defaults(estimator: str) -> dict[str, str]:
    """What an estimator of a known library takes when nothing is said; empty for others."""
    from importlib import import_module
    from inspect import signature

    module, _, name = estimator.rpartition(".")
    if module.partition(".")[0] not in LIBRARIES:
        return {}
    try:
        return {
            one.name: repr(one.default) for one in signature(getattr(import_module(module), name)).parameters.values()
        }
    except (ImportError, AttributeError, TypeError, ValueError):
        return {}


def _threshold_words(threshold: float | None, positive: object) -> str | None:
    """From which probability on it says yes, and what a yes is called in the data."""
    if threshold is None:
        return None
    return f"{shown(threshold)}; 1 = {positive}" if isinstance(positive, str) else shown(threshold)


def _facts(facts: Mapping[str, Any]) -> list[Block]:
    """A line for each fact that is there."""
    return [Line(f"  {name:<12}  {inline(value)}") for name, value in facts.items() if value not in (None, "")]


def _evidence(thing: Plain) -> list[Block]:
    """Metrics with their intervals beside those of a constant, the threshold, the worst slices, and the gates."""
    baseline = thing.get("baseline") or {}
    drawn = thing.get("intervals") or {}
    within = {name: f"{shown(one[0])} to {shown(one[1])}" for name, one in drawn.get("of", {}).items() if one}
    more = thing.get("lineage", {}).get("more", {})
    adopted = "origin" in more
    columns = ("metric", "sample" if adopted else "test", "constant", *(("95 %",) if within else ()))
    metrics = [
        (name, value, baseline.get(name), *((within.get(name),) if within else ()))
        for name, value in thing["metrics"].items()
    ]
    gates = [(one["passed"], one["gate"], one["value"], one["threshold"], _gate_words(one)) for one in thing["gates"]]
    blocks: list[Block] = [Line(), Table(columns, metrics)] if metrics else []
    if adopted:
        from seatrial.verbs.custody import sample_words

        blocks += [*([] if metrics else [Line()]), Line(sample_words(more, bool(metrics)), "dim")]
    if drawn.get("few"):
        of = f"has {drawn['clusters']} {drawn['unit']}s only" if drawn["clusters"] < 20 else "lies within one hour"
        words = f"the test part {of}: the intervals are too narrow"
        blocks.append(Line(f"note: {words}", "dim"))
    threshold = thing.get("threshold")
    blocks += _threshold(threshold) if isinstance(threshold, dict) else []  # a manifest's is a number
    blocks += _slices(thing.get("slices") or {})
    return blocks + ([Line(), Table(("", "gate", "value", "threshold", "reason"), gates)] if gates else [])


def _gate_words(gate: Plain) -> str:
    words = str(gate.get("reason", ""))
    return f"{words}; waived: {gate['waived']}" if gate.get("waived") else words


def _threshold(threshold: Plain) -> list[Block]:
    """The operating threshold, when stated costs chose it."""
    if "costs" not in threshold:
        return []
    cost, at_half = shown(threshold["test_cost"]), shown(threshold["test_cost_at_half"])
    words = (
        f"Decisions at {threshold['value']:g}, where a test row costs {cost} on average; at 0.5 it would be {at_half}."
    )
    return [Line(), Line(words)]


def _slices(slices: Plain) -> list[Block]:
    """Of each column its worst slice, and how many have too few rows."""
    rows = []
    for by, found in slices.items():
        worst = next((one for one in found["slices"] if one["value"] == found["worst"]), None)
        few = sum(one["too_few"] for one in found["slices"])
        value = worst["metrics"][found["metric"]] if worst else None
        rows.append(
            (by, len(found["slices"]), found["worst"], worst["rows"] if worst else None, found["metric"], value, few)
        )
    columns = ("slices by", "values", "worst", "rows", "metric", "value", "too few rows")
    return [Line(), Table(columns, rows)] if rows else []


def deployments(things: list[Plain]) -> list[Block]:
    """A table of deployments: what is live, since when, by whom."""
    if not things:
        return [Line("Nothing is deployed yet.", "dim"), Line("Next: seatrial deploy")]
    rows = []
    for thing in things:
        last = thing["history"][-1] if thing["history"] else {}
        arms = ", ".join(_arm(arm) for arm in thing["arms"])
        rows.append((thing["deployment"], arms, thing["generation"], last.get("at"), last.get("actor")))
    return [Table(("deployment", "live", "generation", "since", "actor"), rows)]


def deployment(thing: Plain) -> list[Block]:
    """One deployment and the decisions that led here, newest last; a release to return to is among them."""
    history = [
        (
            one["at"],
            one["kind"],
            ", ".join(arm["release"] for arm in one.get("arms", [])) or None,
            one.get("generation"),
            one["actor"],
            one.get("reason") or None,
        )
        for one in thing["history"]
    ]
    return [
        Line(f"{thing['deployment']}: {', '.join(_arm(arm) for arm in thing['arms'])}", "bold"),
        Line(f"  generation {thing['generation']}, {thing['strategy'].replace('_', '-')}"),
        Line(),
        Table(("at", "what", "release", "generation", "actor", "reason"), history),
    ]


def events(things: list[Plain]) -> list[Block]:
    """A table of audit events, newest last."""
    if not things:
        return [Line("Nothing has happened yet.", "dim"), Line("Next: seatrial validate")]
    rows = [
        (str(one["seq"]), _instant(one["recorded_at_us"]), one["kind"], one["subject"], one["actor"]) for one in things
    ]
    return [Table(("number", "recorded at", "what", "about", "actor"), rows)]


def details(thing: Plain) -> list[Block]:
    """Every field of one thing under its own name, nested ones indented."""
    return [Line(line) for line in _detail_lines(thing, 1)]


def inline(value: Any) -> str:
    """A value on one line: mappings as "name value" pairs."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {inline(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(inline(one) for one in value)
    return shown(value)


def _table(things: Sequence[Plain], columns: Sequence[str]) -> Table:
    """The given columns, as far as any of the things has them."""
    present = [column for column in columns if any(thing.get(column) is not None for thing in things)]
    rows = [[_cell(thing.get(column)) for column in present] for thing in things]
    return Table([column.replace("_", " ") for column in present], rows)


def _cell(value: Any) -> Cell:
    return value if value is None or isinstance(value, (str, int, float, bool)) else inline(value)


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(one, Mapping) for one in value))


def _arm(arm: Plain) -> str:
    """A release and, when it is not alone, its share."""
    share = arm["share"] / 100
    return arm["release"] if share == 100 else f"{arm['release']} {share:g} %"


def _instant(us: int) -> str:
    from seatrial.core.clock import from_us, iso

    return iso(from_us(us))


def _detail_lines(value: Mapping[str, Any], depth: int) -> Iterable[str]:
    indent = "  " * depth
    width = max((len(name) for name in value), default=0)
    for name, one in value.items():
        if isinstance(one, Mapping) and one:
            yield f"{indent}{name}"
            yield from _detail_lines(one, depth + 1)
        elif _nested(one):
            yield f"{indent}{name}"
            yield from (f"{indent}  - {inline(inner)}" for inner in one)
        else:
            is_instant = name.endswith(("at_us", "cutoff_us")) and isinstance(one, int)
            words = _instant(one) if is_instant else inline(one)
            yield f"{indent}{name:<{width}}  {words or '-'}"
