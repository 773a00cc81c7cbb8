"""Lineage: what was this made from, and what was made from it?

A walk over the inputs of records, both ways. It starts at a record, by its id or the start of it, or at something that
is no record but names records: a prediction, which names its release. Each record comes with the facts that a person
asks for (commit, lock, files, counts) and with what happened to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import UsageError, listed
from seatrial.core.records import Record
from seatrial.stores.metadata import MetadataStore

FACTS: dict[str, tuple[str, ...]] = {
    "snapshot": ("content.rows", "object"),
    "training_set": ("content.rows",),
    "run": (
        "environment.code.commit",
        "environment.code.dirty",
        "environment.code.patch",
        "environment.code.definitions",
        "environment.lock.digest",
        "environment.python",
        "environment.cpu",
        "metrics",
    ),
    "release": (
        "manifest.lineage.commit",
        "manifest.lineage.dirty",
        "manifest.lineage.lock",
        "manifest.estimator",
        "manifest.metrics",
    ),
    "deployment": ("arms",),
    "batch": ("to", "set_aside"),
}
"""For each kind the places in a record's body that matter, besides the single values at its top."""

HAPPENED: dict[str, tuple[str, ...]] = {
    "snapshot.taken": ("files", "set_aside"),
}
"""For each kind of event the places in its body that matter, besides the single values at its top."""

_LONGEST = 200  # characters of a value at the top of a body; longer ones are content, not facts


class UnknownId(UsageError):
    """Nothing with this id is kept."""

    code = "lineage.unknown_id"


class AmbiguousId(UsageError):
    """More than one id starts like this."""

    code = "lineage.ambiguous_id"


class Happened(msgspec.Struct, frozen=True):
    """An event about a record. at_us: domain time, recorded_at_us: the machine's; microseconds since 1970 (UTC)."""

    seq: int
    kind: str
    actor: str
    at_us: int
    recorded_at_us: int
    facts: dict[str, Any]


class Node(msgspec.Struct, frozen=True):
    """A record, or the start of the walk. kept: False when only its id is known here (it was made elsewhere)."""

    id: str
    kind: str
    name: str
    facts: dict[str, Any] = {}
    events: tuple[Happened, ...] = ()
    kept: bool = True


class Edge(msgspec.Struct, frozen=True):
    """`product` was made from `source`; both are ids of nodes."""

    product: str
    source: str


class Lineage(msgspec.Struct, frozen=True):
    """A part of the graph. nodes: each once, the start first, near ones before far ones."""

    start: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


class LineageStart(msgspec.Struct, frozen=True):
    """Something that is no record but was made from records, such as a prediction.

    inputs: ids of the records it names: a prediction's release. facts: what a person wants to know of it.
    """

    id: str
    inputs: tuple[str, ...]
    kind: str = "prediction"
    name: str = ""
    facts: dict[str, Any] = {}


def resolve(metadata: MetadataStore, text: str) -> Record:
    """The record with this id, or the only one whose id starts like this. Raises UnknownId and AmbiguousId."""
    exact = metadata.record(text)
    if exact is not None:
        return exact
    found = metadata.find(text) if text else []
    if len(found) > 1:
        raise AmbiguousId(
            f"more than one id starts with '{text}'.",
            expected=f"One of them is expected: {listed(found)}.",
            state="Nothing was changed.",
        )
    record = metadata.record(found[0]) if found else None
    if record is None:
        near = _near(metadata, text)
        raise UnknownId(
            f"nothing with the id '{text}' is kept.",
            expected=f"Did you mean {' or '.join(near)}?" if near else "An id, or the start of one, is expected.",
            state="Nothing was changed.",
        )
    return record


def upstream(metadata: MetadataStore, start: str | LineageStart) -> Lineage:
    """What `start` was made from, to the very sources. Raises UnknownId and AmbiguousId."""
    return _lineage(metadata, start, (_sources,))


def downstream(metadata: MetadataStore, start: str | LineageStart) -> Lineage:
    """What was made from `start`, to the last product. Raises UnknownId and AmbiguousId."""
    return _lineage(metadata, start, (_products,))


def both(metadata: MetadataStore, start: str | LineageStart) -> Lineage:
    """What `start` was made from and what was made from it. Raises UnknownId and AmbiguousId."""
    return _lineage(metadata, start, (_sources, _products))


def as_tree(lineage: Lineage) -> list[str]:
    """The lineage as lines of text: the start, below it what it was made from, then what was made from it.

    A record that stands there already is named again without its facts.
    """
    nodes = {node.id: node for node in lineage.nodes}
    up: dict[str, list[str]] = {}
    down: dict[str, list[str]] = {}
    for edge in lineage.edges:
        up.setdefault(edge.product, []).append(edge.source)
        down.setdefault(edge.source, []).append(edge.product)
    start = nodes[lineage.start]
    lines = [_title(start), *(f"    {fact}" for fact in _facts_text(start))]
    for title, below in (("made from", up), ("went into", down)):
        if below.get(lineage.start):
            lines.append(title)
            lines += _branches(nodes, below, lineage.start)
    return lines


_Step = Callable[[MetadataStore, str, "Record | LineageStart | None"], list[tuple[str, "Record | None"]]]


def _sources(metadata: MetadataStore, _: str, thing: Record | LineageStart | None) -> list[tuple[str, Record | None]]:
    return [(source, metadata.record(source)) for source in dict.fromkeys(thing.inputs)] if thing else []


def _products(
    metadata: MetadataStore, thing_id: str, _: Record | LineageStart | None
) -> list[tuple[str, Record | None]]:
    return [(record.id, record) for record in metadata.made_from(thing_id)]


def _lineage(metadata: MetadataStore, start: str | LineageStart, steps: Sequence[_Step]) -> Lineage:
    """Each step is walked by itself from the start: cousins are no ancestors."""
    first = start if isinstance(start, LineageStart) else resolve(metadata, start)
    nodes = {first.id: _node(metadata, first.id, first)}
    edges: dict[Edge, None] = {}
    for step in steps:
        seen = {first.id}
        waiting: list[tuple[str, Record | LineageStart | None]] = [(first.id, first)]
        for thing_id, thing in waiting:  # grows while it is walked: breadth first
            for next_id, record in step(metadata, thing_id, thing):
                edges[Edge(thing_id, next_id) if step is _sources else Edge(next_id, thing_id)] = None
                if next_id not in seen:
                    seen.add(next_id)
                    waiting.append((next_id, record))
                    nodes.setdefault(next_id, _node(metadata, next_id, record))
    return Lineage(first.id, tuple(nodes.values()), tuple(edges))


def _node(metadata: MetadataStore, thing_id: str, thing: Record | LineageStart | None) -> Node:
    if thing is None:
        return Node(thing_id, thing_id.partition("_")[0], "", kept=False)
    if isinstance(thing, LineageStart):
        return Node(thing.id, thing.kind, thing.name, thing.facts)
    events = tuple(
        Happened(
            seq=event.seq,
            kind=event.kind,
            actor=event.actor,
            at_us=event.at_us,
            recorded_at_us=event.recorded_at_us,
            facts=_facts(event.body, HAPPENED.get(event.kind, ())),
        )
        for event in [
            *metadata.events(subject=thing_id),
            # a deployment's events are about its name and say which record they made
            *(e for e in metadata.events(subject=f"{thing.kind}/{thing.name}") if e.body.get("record") == thing_id),
        ]
    )
    return Node(thing_id, thing.kind, thing.name, _facts(thing.body, FACTS.get(thing.kind, ())), events)


def _facts(body: dict[str, Any], places: Iterable[str]) -> dict[str, Any]:
    """The single values at the top of a body, and what stands at `places`, named by the last two steps."""
    facts = {
        name: value
        for name, value in body.items()
        if isinstance(value, int | float) or (isinstance(value, str) and 0 < len(value) <= _LONGEST)
    }
    for place in places:
        value: Any = body
        for part in place.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value not in (None, "", [], {}):
            facts[".".join(place.split(".")[-2:])] = value
    return facts


def _near(metadata: MetadataStore, text: str) -> list[str]:
    """Up to three ids that share the longest start with `text`, beyond the prefix of their kind."""
    _, _, rest = text.partition("_")
    for length in range(len(text) - 1, len(text) - len(rest), -1):
        found = metadata.find(text[:length])
        if found:
            return found[:3]
    return []


def _branches(nodes: dict[str, Node], below: dict[str, list[str]], top: str) -> list[str]:
    """Lines of everything below `top`. A stack and no recursion: a chain of champions may be long."""
    lines: list[str] = []
    shown = {top}
    stack: list[tuple[str, str, bool]] = [*_children(below, top, "")]
    while stack:
        thing_id, indent, is_last = stack.pop()
        again = thing_id in shown
        shown.add(thing_id)
        node = nodes[thing_id]
        lines.append(f"{indent}{'└─' if is_last else '├─'} {_title(node)}{' (see above)' if again else ''}")
        if again:
            continue
        deeper = indent + ("   " if is_last else "│  ")
        children = list(_children(below, thing_id, deeper))
        lines += [f"{deeper}{'│' if children else ' '}  {fact}" for fact in _facts_text(node)]
        stack += children
    return lines


def _children(below: dict[str, list[str]], thing_id: str, indent: str) -> Iterator[tuple[str, str, bool]]:
    """The last first, as a stack wants them."""
    for position, child in enumerate(reversed(below.get(thing_id, ()))):
        yield child, indent, position == 0


def _title(node: Node) -> str:
    return " ".join(part for part in (node.kind, node.name, node.id, "" if node.kept else "(not kept here)") if part)


def _facts_text(node: Node) -> Iterator[str]:
    for name, value in node.facts.items():
        yield from _fact_text(name, value)
    for event in node.events:
        yield f"{event.kind} by {event.actor} at {iso(from_us(event.at_us))}"
        for name, value in event.facts.items():
            yield from (f"  {line}" for line in _fact_text(name, value))


def _fact_text(name: str, value: Any) -> Iterator[str]:
    """One line, or one for each thing in a list of things."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for item in value:
            yield f"{name}: {_value_text(item)}"
        return
    if name.endswith("_us") and isinstance(value, int) and not isinstance(value, bool):
        name, value = name.removesuffix("_us"), iso(from_us(value))
    yield f"{name}: {_value_text(value)}"


def _value_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value_text(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_value_text(part) for part in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)
