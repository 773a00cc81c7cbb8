"""Runs: what came of each training, what is different between two, and a project made of one.

A comparison reads what the two runs recorded, and nothing else: neither has to be trained again, and the project may
look otherwise by now.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import Failed, SeatrialError, UsageError, listed
from seatrial.core.records import Record
from seatrial.folder.workspace import Workspace
from seatrial.stats.metrics import METRICS
from seatrial.training.differences import Difference, in_order, of_code, of_data, of_declaration, of_environment

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.data.snapshot import Content

DEFINITIONS = "definitions.zip"
MOST_COMPARED = 1_000_000
"""Rows of a source up to which two snapshots of it are compared cell by cell; of larger ones the columns are named."""


class NoBaseRun(UsageError):
    """No run was trained from a commit that the branch has."""

    code = "runs.no_base"


class SnapshotMissing(Failed):
    """The rows that a run was trained on are not in the object store."""

    code = "runs.snapshot_missing"


class NotExtractable(Failed):
    """A run did not keep what a project could be made of."""

    code = "runs.not_extractable"


class FolderNotEmpty(UsageError):
    """A project would be written over files that are there."""

    code = "runs.folder_not_empty"


class RunFacts(msgspec.Struct, frozen=True):
    """One of two runs. version: None when it became none. sample: the rows of a sample. commit: empty without git."""

    run: str
    trained_at: str
    passed: bool
    version: int | None
    sample: int | None
    commit: str
    dirty: bool
    cutoff: str | None
    rows: int
    test_rows: int


class MetricChange(msgspec.Struct, frozen=True):
    """A metric of the test parts. better: whether `b` is; None when it is the same or not known.

    spread: the larger of the two spreads over the folds. interval_a, interval_b: where they were recorded.
    notable: the change is larger than the spread, or than the intervals allow; None when neither is known.
    """

    metric: str
    a: float | None
    b: float | None
    better: bool | None
    spread: float | None = None
    interval_a: tuple[float, float] | None = None
    interval_b: tuple[float, float] | None = None
    notable: bool | None = None


class GateChange(msgspec.Struct, frozen=True):
    """A gate of either run; None where a run did not have it."""

    gate: str
    a: bool | None
    b: bool | None
    reason: str


class Compared(msgspec.Struct, frozen=True):
    """Two runs of one model: `a` is what `b` is compared with. differences: of inputs, the likeliest causes first."""

    model: str
    a: RunFacts
    b: RunFacts
    metrics: list[MetricChange]
    gates: list[GateChange]
    differences: list[Difference]
    importance: list[tuple[str, float | None, float | None]]
    base: str = ""


def compare(workspace: Workspace, a: Record, b: Record, *, base: str = "") -> Compared:
    """What is different in `b`. Raises UsageError for runs of two models."""
    for one in (a, b):
        if not finished(one):
            raise UsageError(
                f"run {one.id} failed: {one.body['error']['found']}",
                expected="Runs that came to an end are compared.",
                state="Nothing was compared.",
            )
    if a.name != b.name:
        raise UsageError(
            f"run {a.id} is of model '{a.name}', and {b.id} of '{b.name}'.",
            expected="Two runs of one model are compared.",
            state="Nothing was compared.",
        )
    differing = _data(workspace, a, b)
    differing += of_code(a.body["environment"]["code"], b.body["environment"]["code"])
    differing += of_declaration(a.body["definition"], b.body["definition"])
    differing += of_environment(a.body["environment"], b.body["environment"])
    return Compared(
        model=a.name,
        a=facts(workspace, a),
        b=facts(workspace, b),
        metrics=_metrics(a.body, b.body),
        gates=_gates(a.body, b.body),
        differences=in_order(differing),
        importance=_importance(a.body, b.body),
        base=base,
    )


def finished(run: Record) -> bool:
    """Whether a training came to its end; one that failed half-way has no metrics."""
    return bool(run.body.get("state", "finished") == "finished")


def facts(workspace: Workspace, run: Record) -> RunFacts:
    """A run in short."""
    version = workspace.registry.version_of(run.id)
    code, split = run.body["environment"]["code"], run.body["split"]
    return RunFacts(
        run=run.id,
        trained_at=trained_at(run.id),
        passed=run.body["passed"],
        version=None if version is None else int(version.body["version"]),
        sample=run.body.get("sample", {}).get("rows"),
        commit=code["commit"] or "",
        dirty=bool(code["dirty"]),
        cutoff=None if run.body["cutoff_us"] is None else iso(from_us(run.body["cutoff_us"])),
        rows=split["train"]["rows"] + split["test"]["rows"],
        test_rows=split["test"]["rows"],
    )


def trained_at(id: str) -> str:
    """When a run was made, which its id tells: a version-7 UUID starts with the milliseconds since 1970."""
    digits = id.partition("_")[2].replace("-", "")[:12]
    try:
        return iso(from_us(int(digits, 16) // 1000 * 1_000_000))
    except (ValueError, OverflowError):
        return ""


def interval(body: Mapping[str, Any], metric: str) -> tuple[float, float] | None:
    """The interval of a metric of the test part; None where none was recorded."""
    intervals = body.get("intervals") or {}
    found = intervals.get("of", intervals).get(metric)
    if isinstance(found, Mapping):
        found = (found.get("low"), found.get("high"))
    if not isinstance(found, list | tuple) or len(found) != 2 or any(not isinstance(one, int | float) for one in found):
        return None
    return float(found[0]), float(found[1])


def base_run(workspace: Workspace, run: Record, branch: str) -> Record:
    """The newest run of the same model whose commit is in the history of a git branch. Raises NoBaseRun."""
    _require_branch(workspace.folder, branch)
    looked: dict[str, bool] = {}
    for one in reversed(workspace.metadata.records("run", run.name)):
        commit = one.body["environment"]["code"]["commit"]
        if (
            one.id == run.id
            or not finished(one)
            or commit is None
            or "sample" in one.body
            or one.body["environment"]["code"]["dirty"]
        ):
            continue
        if commit not in looked:
            looked[commit] = _is_ancestor(workspace.folder, commit, branch)
        if looked[commit]:
            return one
    raise NoBaseRun(
        f"no other run of model '{run.name}' was trained from a clean commit that '{branch}' has.",
        expected=f"{len(looked)} commits of runs were looked for in its history.",
        state="Nothing was compared.",
        next=f"Train on '{branch}' first, or name two runs: `seatrial runs compare A B`.",
    )


def newest_runs(workspace: Workspace, model: str | None, count: int) -> list[Record]:
    """The newest runs of a model, oldest first; without a name, of the model of the newest run."""
    runs = [one for one in workspace.metadata.records("run", model) if finished(one)]
    if runs and model is None:
        runs = [one for one in runs if one.name == runs[-1].name]
    if len(runs) < count:
        raise UsageError(
            f"there {'is 1 run' if len(runs) == 1 else f'are {len(runs)} runs'} of "
            f"{f'model {model!r}' if model else 'any model'}, and {count} are needed.",
            state="Nothing was compared.",
            next="Run `seatrial train` first.",
        )
    return runs[-count:]


def _require_branch(folder: Path, branch: str) -> None:
    done = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{branch}^{{commit}}")
    if done.returncode:
        raise NoBaseRun(
            f"git knows no branch '{branch}' in {folder}.",
            expected="A branch, tag or commit of the project's repository; a build often fetches one branch only.",
            state="Nothing was compared.",
            next=f"Run `git fetch origin {branch}:{branch}`, or name two runs.",
        )


def _is_ancestor(folder: Path, commit: str, branch: str) -> bool:
    """Whether the branch has the commit; no when the repository does not know it."""
    return _git(folder, "merge-base", "--is-ancestor", commit, branch).returncode == 0


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoBaseRun(f"git does not answer: {error}.", state="Nothing was compared.") from None


def _data(workspace: Workspace, a: Record, b: Record) -> list[Difference]:
    """Differences of the raw rows, by source."""
    from seatrial.data.snapshot import Content

    first, second = sources_of(workspace, a), sources_of(workspace, b)
    found = []
    for source in dict.fromkeys([*first, *second]):
        if source not in first or source not in second:
            read = ["read" if source in one else "not read" for one in (first, second)]
            found.append(Difference("data", source, read[0], read[1]))
            continue
        if first[source] == second[source]:
            continue
        before, after = (Content.from_plain(workspace.record(one[source]).body["content"]) for one in (first, second))
        tables = None
        if max(before.rows, after.rows) <= MOST_COMPARED:
            with suppress(SeatrialError):  # one that is gone or damaged is told by `reproduce`; columns are known here
                tables = tuple(recorded_rows(workspace, one, source)[1] for one in (first, second))
        one = of_data(source, before, after, tables, keys=keys_of(workspace, [source]))
        found += [one] if one else []
    return found


def keys_of(workspace: Workspace, sources: Sequence[str]) -> list[tuple[str, ...]]:
    """The columns that may name a row of these sources, as declared now: of events, and of a model's labels."""
    try:
        declared = workspace.definitions
    except SeatrialError:  # the project may look otherwise by now, or not at all
        return []
    found: list[tuple[str, ...]] = []
    for name in sources:
        source = declared.own_sources.get(name)
        if source is None:
            continue
        keys = [tuple(source.event_key)]
        keys += [tuple(model.key) for model in declared.models.values() if model.labels.name == name]
        at = (source.event_timestamp,) if source.event_timestamp else ()
        found += [key for one in keys if one for key in (one, (*one, *at))]
    return list(dict.fromkeys(found))


def sources_of(workspace: Workspace, run: Record) -> dict[str, str]:
    """The snapshot that a run read for each raw source, by the source's name."""
    recorded = run.body.get("data")
    if recorded is not None:
        return dict(recorded)
    found = {}  # a run of an earlier version: by who took the snapshot
    for snapshot in (one for one in run.inputs[1:] if one.startswith("snap_")):
        for event in workspace.metadata.events(subject=snapshot, kind="snapshot.taken"):
            found[event.body["source"]] = snapshot
    return found


def _metrics(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[MetricChange]:
    known = METRICS.get(b["task"], {})
    changes = []
    for name in dict.fromkeys([*in_metric_order(b), *a["metrics"]]):
        old, new = a["metrics"].get(name), b["metrics"].get(name)
        if any(one is not None and not isinstance(one, int | float) for one in (old, new)):
            continue
        spreads = [one for body in (a, b) if (one := ((body.get("cv") or {}).get("std") or {}).get(name)) is not None]
        spread = max(spreads, default=None)
        between = interval(a, name), interval(b, name)
        changes.append(
            MetricChange(
                metric=name,
                a=old,
                b=new,
                better=_better(old, new, known[name].better if name in known else None),
                spread=spread,
                interval_a=between[0],
                interval_b=between[1],
                notable=_notable(old, new, spread, between),
            )
        )
    return changes


def _better(old: float | None, new: float | None, better: str | None) -> bool | None:
    if old is None or new is None or old == new or better is None:
        return None
    return (new > old) == (better == "higher")


def _notable(
    old: float | None,
    new: float | None,
    spread: float | None,
    between: tuple[tuple[float, float] | None, tuple[float, float] | None],
) -> bool | None:
    """Whether a metric moved by more than chance does: out of the other's interval, or by more than the spread."""
    if old is None or new is None:
        return None
    first, second = between
    if first is not None and second is not None:
        return new < first[0] or new > first[1] or old < second[0] or old > second[1]
    return None if spread is None else abs(new - old) > spread


def _gates(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[GateChange]:
    first, second = ({one["gate"]: one for one in body["gates"]} for body in (a, b))
    return [
        GateChange(
            gate,
            lets_pass(first[gate]) if gate in first else None,
            lets_pass(second[gate]) if gate in second else None,
            gate_words(second.get(gate) or first[gate]),
        )
        for gate in dict.fromkeys([*second, *first])
    ]


def lets_pass(gate: Mapping[str, Any]) -> bool:
    """Whether a gate stops nothing: it passed, or the model is excused from it with a reason."""
    return bool(gate["passed"] or gate.get("waived"))


def gate_words(gate: Mapping[str, Any]) -> str:
    """Why a gate decided as it did, and why the model is excused, if it is."""
    waived = gate.get("waived")
    return f"{gate['reason']}; waived: {waived}" if waived and not gate["passed"] else str(gate["reason"])


def _importance(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, float | None, float | None]]:
    """Each input's share of the weight in either run, the heaviest of `b` first."""
    first, second = (
        {n: v / (sum(one.values()) or 1) for n, v in one.items()} for one in (a["importance"], b["importance"])
    )
    names = dict.fromkeys([*second, *first])
    return [(name, first.get(name), second.get(name)) for name in names]


# As a comment on a pull request


def markdown(found: Compared) -> str:
    """A comparison as a comment for a pull request, in GitHub's Markdown."""
    title = f"### `{found.model}`: {_headline(found)}"
    of = f" (newest on `{found.base}`)" if found.base else ""
    lines = [
        title,
        "",
        f"`{found.b.run[:17]}` {_made(found.b)}, compared with `{found.a.run[:17]}` {_made(found.a)}{of}.",
        "",
    ]
    lines += ["| metric | base | this | change |", "|---|---:|---:|---:|"]
    lines += [
        f"| {one.metric} | {_with_interval(one.a, one.interval_a)} | {_with_interval(one.b, one.interval_b)} "
        f"| {_change(one)} |"
        for one in found.metrics
    ]
    lines += [
        "",
        f"Test rows: {found.a.test_rows:,} → {found.b.test_rows:,}. "
        "A change is in bold when it is larger than chance explains.",
        "",
    ]
    if found.gates:
        lines += ["| gate | base | this | |", "|---|:---:|:---:|---|"]
        lines += [
            f"| {_cell(one.gate)} | {_tick(one.a)} | {_tick(one.b)} | {_cell(one.reason)} |" for one in found.gates
        ]
        lines.append("")
    lines += _sections(found.differences)
    return "\n".join(lines).rstrip() + "\n"


def _headline(found: Compared) -> str:
    refused = [one for one in found.gates if one.b is False]
    if found.b.sample is not None:
        return f"a sample of {found.b.sample:,} rows, which decides nothing"
    if refused:
        return f"❌ {len(refused)} of {len([one for one in found.gates if one.b is not None])} gates say no"
    notable = [one for one in found.metrics if one.notable]
    worse = [one.metric for one in notable if one.better is False]
    better = [one.metric for one in notable if one.better]
    words = [f"better in {listed(better)}"] if better else []
    words += [f"worse in {listed(worse)}"] if worse else []
    return f"{'⚠️' if worse else '✅'} every gate passes; {' and '.join(words) or 'no metric moved by more than chance'}"


def _made(one: RunFacts) -> str:
    commit = f" from `{one.commit[:8]}`{' with uncommitted changes' if one.dirty else ''}" if one.commit else ""
    version = f", version {one.version}" if one.version is not None else ""
    return f"of {one.trained_at[:16].replace('T', ' ')}{commit}{version}"


def _sections(differences: list[Difference]) -> list[str]:
    if not differences:
        return ["Data, code, parameters and environment are the same."]
    lines = []
    titles = {"data": "Data", "code": "Code", "commit": "Code", "package": "Environment", "machine": "Environment"}
    by: dict[str, list[Difference]] = {}
    for one in differences:
        by.setdefault(titles.get(one.kind, "Parameters"), []).append(one)
    for title in ("Parameters", "Data", "Code", "Environment"):
        if title not in by:
            lines.append(f"**{title}:** the same")
            lines.append("")
            continue
        lines += [
            f"<details{' open' if title == 'Parameters' else ''}>"
            f"<summary><b>{title}</b>: {len(by[title])} differ</summary>",
            "",
        ]
        for one in by[title]:
            lines.append(f"- `{one.name}`: {_cell(one.before)} → {_cell(one.after)}")
            lines += [f"  - {_cell(detail)}" for detail in one.detail]
        lines += ["", "</details>", ""]
    return lines


def _with_interval(value: float | None, between: tuple[float, float] | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" + (f" [{between[0]:.4f}, {between[1]:.4f}]" if between else "")


def _change(one: MetricChange) -> str:
    if one.a is None or one.b is None:
        return "–"
    words = f"{one.b - one.a:+.4f}" if one.b != one.a else "="
    mark = "" if one.better is None else (" ▲" if one.better else " ▼")
    return f"**{words}**{mark}" if one.notable else f"{words}{mark if one.notable is None else ''}"


def _tick(passed: bool | None) -> str:
    return "–" if passed is None else ("✅" if passed else "❌")


def _cell(text: str) -> str:
    """A text in a table of Markdown, on one line and without mark-up of its own."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


# What a run kept


def unpack(workspace: Workspace, run: Record, folder: Path) -> list[Path]:
    """Write the definitions that were kept with a run into `folder`; the files. Raises DefinitionsDamaged."""
    from seatrial.training.environment import unpack_definitions

    data = workspace.objects.read(run.body["files"][DEFINITIONS])
    written = []
    for place, source in unpack_definitions(data, run.body["environment"]["code"]["definitions"]).items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source)
        written.append(path)
    return written


def recorded_rows(workspace: Workspace, snapshots: Mapping[str, str], source: str) -> tuple[Content, pa.Table]:
    """The content and the rows that a run read of a raw source, each value checked. snapshots: see `sources_of`.

    Raises SnapshotMissing, SnapshotDamaged.
    """
    from seatrial.data.references import SnapshotGone
    from seatrial.stores.objects import ObjectMissing

    id = snapshots.get(source)
    if id is None:
        raise SnapshotMissing(
            f"the run recorded no snapshot of source '{source}'; it read {listed(snapshots)}.",
            state="Nothing was trained.",
        )
    record = workspace.record(id)
    key = record.body["object"]
    try:
        return workspace.snapshot_table(record)
    except (ObjectMissing, FileNotFoundError):
        raise SnapshotMissing(
            f"snapshot {id} of source '{source}' is not in {workspace.objects.root}.",
            expected="The rows that the run was trained on are kept there.",
            state="Nothing was trained.",
            next=f"Put {key} back from a backup.",
            source=source,
        ) from None
    except SeatrialError as error:
        error.state = "Nothing was trained."
        error.next = error.next if isinstance(error, SnapshotGone) else f"Put {key} back from a backup."
        raise


# A project made of a run


def extract(workspace: Workspace, run: Record, folder: Path) -> list[str]:
    """Write a project that trains this run again into `folder`; the names of the files.

    The definitions are as they were, byte by byte; `[sources]` of its seatrial.toml has each source read from the
    run's own rows, in data/. A README says how to train it, and what should come out.
    Raises NotExtractable, SnapshotMissing and FolderNotEmpty.
    """
    from seatrial.data.snapshot import write

    if DEFINITIONS not in run.body.get("files", {}):
        raise NotExtractable(
            f"run {run.id} kept no definitions: they were given in memory, or it is of an earlier version.",
            state="Nothing was written.",
            next="Train it again from a project file.",
        )
    snapshots = sources_of(workspace, run)
    shared = [name for name in snapshots if "@" in name]
    if shared:
        raise NotExtractable(
            f"run {run.id} uses views of another project: {listed(shared)}.",
            expected="A project that stands alone declares its views itself.",
            state="Nothing was written.",
        )
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise FolderNotEmpty(
            f"{folder} is not empty.", expected="A new or an empty folder is expected.", state="Nothing was written."
        )
    for name in snapshots:
        recorded_rows(workspace, snapshots, name)  # all of them are whole, before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    written = unpack(workspace, run, folder)
    (folder / "data").mkdir(exist_ok=True)
    for id in snapshots.values():
        target = folder / "data" / f"{id}.parquet"
        record = workspace.record(id)
        if workspace.objects.exists(record.body["object"]):
            shutil.copyfile(workspace.objects.path(record.body["object"]), target)
        else:  # its rows stayed in a table with versions
            write(*workspace.snapshot_table(record), target)
        written.append(target)
    texts = {
        "seatrial.toml": _settings(workspace, snapshots),
        "requirements.lock": "".join(f"{line}\n" for line in run.body["environment"]["packages"]),
        "README.md": _readme(workspace, run),
    }
    for place, text in texts.items():
        (folder / place).write_text(text, encoding="utf-8")
        written.append(folder / place)
    return sorted(path.relative_to(folder).as_posix() for path in written)


def _settings(workspace: Workspace, snapshots: Mapping[str, str]) -> str:
    lines = [
        f"name = {json.dumps(workspace.name)}",
        "",
        "# the rows that the run read, instead of where the sources are declared",
    ]
    lines += ["[sources]", *(f'{json.dumps(name)} = "data/{id}.parquet"' for name, id in snapshots.items())]
    return "\n".join(lines) + "\n"


def _readme(workspace: Workspace, run: Record) -> str:
    body, found = run.body, facts(workspace, run)
    code = body["environment"]["code"]
    cutoff = f" --cutoff {found.cutoff}" if found.cutoff else ""
    sample = f" --sample {body['sample']['size']}" if "sample" in body else ""
    dirty = ", with uncommitted changes" if code["dirty"] else ""
    commit = f"commit `{code['commit']}`{dirty}" if code["commit"] else "no commit"
    threads = f"{body['threads']} thread{'' if body['threads'] == 1 else 's'}"
    metrics = "\n".join(f"| {name} | {value} |" for name, value in in_metric_order(body).items())
    return f"""# Model `{run.name}`, run `{run.id}`

Made from what the run recorded: its definitions as they were ({commit}), and the rows that it read, in `data/`.

    seatrial train {run.name}{cutoff}{sample}

trains it again, with seed {body["seed"]} and {threads}, in {body["environment"]["python"]} with the packages of
`requirements.lock`. On the same packages and processor the same model comes out:

| metric of the test part | value |
|---|---|
{metrics}
"""


def in_metric_order(body: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a run's record in the order in which they are explained; records are kept sorted by name."""
    known = [name for name in METRICS.get(body["task"], {}) if name in body["metrics"]]
    return {name: body["metrics"][name] for name in dict.fromkeys([*known, *body["metrics"]])}
