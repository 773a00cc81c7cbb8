"""Lineage against a walk written as set operations, and as a person reads it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatrial.core.records import Record
from seatrial.governance import lineage
from seatrial.governance.lineage import AmbiguousId, Edge, LineageStart, UnknownId
from seatrial.stores.metadata import MetadataStore
from seatrial.testing.metadata_suite import add, record

ENVIRONMENT = {"code": {"commit": "c0ffee", "dirty": False, "patch": None}, "lock": {"digest": "10c4"}}


@pytest.fixture
def store(tmp_path):
    opened = MetadataStore(tmp_path / "metadata.db")
    yield opened
    opened.close()


@pytest.fixture
def path_of_a_model(store):
    """Two snapshots -> training set -> two runs -> version -> release, as a project records them."""
    with store.transaction() as transaction:
        for record_id, source in (("snap_aa1", "flights"), ("snap_ab2", "weather")):
            transaction.add(Record(record_id, "snapshot", "", (), {"content": {"rows": 10}}))
            files = [{"path": f"data/{source}.csv", "bytes": 5, "digest": "d19e57"}]
            transaction.event(
                "snapshot.taken", record_id, actor="ada", at_us=0, body={"source": source, "files": files}
            )
        transaction.add(
            Record("tset_1", "training_set", "late", ("snap_aa1", "snap_ab2"), {"cutoff_us": 86_400_000_000})
        )
        body = {"environment": ENVIRONMENT, "plan": {"views": []}, "passed": True}
        transaction.add(Record("run_1", "run", "late", ("tset_1", "snap_aa1", "snap_ab2"), body))
        transaction.add(Record("run_2", "run", "late", ("tset_1",), body))
        transaction.add(Record("ver_1", "version", "late", ("run_1",), {"version": 1}))
        transaction.add(Record("rel_1", "release", "late", ("ver_1",), {"semantic_version": "1.0.0"}))
    return store


def test_a_release_leads_to_everything_it_was_made_from(path_of_a_model):
    found = lineage.upstream(path_of_a_model, "rel_1")
    assert [node.id for node in found.nodes] == ["rel_1", "ver_1", "run_1", "tset_1", "snap_aa1", "snap_ab2"]
    assert Edge("run_1", "tset_1") in found.edges
    facts = {node.id: node.facts for node in found.nodes}
    assert facts["run_1"]["code.commit"] == "c0ffee"
    assert facts["run_1"]["code.dirty"] is False
    assert facts["run_1"]["lock.digest"] == "10c4"
    assert "plan" not in facts["run_1"]
    assert facts["snap_aa1"] == {"content.rows": 10}
    [taken] = found.nodes[-1].events
    assert taken.facts["files"] == [{"path": "data/weather.csv", "bytes": 5, "digest": "d19e57"}]


def test_a_snapshot_leads_to_everything_made_from_it(path_of_a_model):
    found = lineage.downstream(path_of_a_model, "snap_ab2")
    assert {node.id for node in found.nodes} == {"snap_ab2", "tset_1", "run_1", "run_2", "ver_1", "rel_1"}


def test_walking_both_ways_does_not_reach_siblings(path_of_a_model):
    found = lineage.both(path_of_a_model, "run_1")
    assert {node.id for node in found.nodes} == {"run_1", "tset_1", "snap_aa1", "snap_ab2", "ver_1", "rel_1"}


def test_a_prediction_starts_at_the_release_that_made_it(path_of_a_model):
    start = LineageStart("0193-1", ("rel_1",), name="late", facts={"at_us": 0, "probability": 0.25})
    found = lineage.upstream(path_of_a_model, start)
    assert found.nodes[0].facts["probability"] == 0.25
    assert {node.id for node in found.nodes} == {
        "0193-1", "rel_1", "ver_1", "run_1", "tset_1", "snap_aa1", "snap_ab2"
    }  # fmt: skip
    assert Edge("0193-1", "rel_1") in found.edges


def test_a_prediction_reads_as_a_tree(path_of_a_model):
    start = LineageStart("0193-1", ("rel_1",), name="late", facts={"at_us": 0, "probability": 0.25})
    text = "\n".join(lineage.as_tree(lineage.upstream(path_of_a_model, start)))
    assert (
        text
        == """\
prediction late 0193-1
    at: 1970-01-01T00:00:00Z
    probability: 0.25
made from
└─ release late rel_1
   │  semantic_version: 1.0.0
   └─ version late ver_1
      │  version: 1
      └─ run late run_1
         │  passed: yes
         │  code.commit: c0ffee
         │  code.dirty: no
         │  lock.digest: 10c4
         ├─ training_set late tset_1
         │  │  cutoff: 1970-01-02T00:00:00Z
         │  ├─ snapshot snap_aa1
         │  │     content.rows: 10
         │  │     snapshot.taken by ada at 1970-01-01T00:00:00Z
         │  │       source: flights
         │  │       files: bytes 5, digest d19e57, path data/flights.csv
         │  └─ snapshot snap_ab2
         │        content.rows: 10
         │        snapshot.taken by ada at 1970-01-01T00:00:00Z
         │          source: weather
         │          files: bytes 5, digest d19e57, path data/weather.csv
         ├─ snapshot snap_aa1 (see above)
         └─ snapshot snap_ab2 (see above)"""
    )


def test_a_deployment_comes_with_the_event_that_is_about_its_name(path_of_a_model):
    with path_of_a_model.transaction() as transaction:
        for number in (1, 2):
            transaction.add(Record(f"dep_{number}", "deployment", "late", ("rel_1",), {"strategy": "blue_green"}))
            body = {"record": f"dep_{number}", "reason": f"reason {number}"}
            transaction.event("deployment.changed", "deployment/late", actor="ada", at_us=0, body=body)
    [happened] = lineage.upstream(path_of_a_model, "dep_2").nodes[0].events
    assert happened.facts["reason"] == "reason 2"


def test_both_ways_read_one_after_the_other(path_of_a_model):
    lines = lineage.as_tree(lineage.both(path_of_a_model, "tset_1"))
    assert [line for line in lines if not line.startswith((" ", "│", "├", "└"))] == [
        "training_set late tset_1", "made from", "went into"
    ]  # fmt: skip


def test_what_was_made_elsewhere_is_named_and_said_not_to_be_here(store):
    add(store, record("rel_1", "ver_far"))
    found = lineage.upstream(store, "rel_1")
    assert [(node.id, node.kind, node.kept) for node in found.nodes] == [
        ("rel_1", "run", True),
        ("ver_far", "ver", False),
    ]
    assert "ver ver_far (not kept here)" in lineage.as_tree(found)[-1]


def test_the_start_of_an_id_is_enough_when_only_one_has_it(path_of_a_model):
    assert lineage.resolve(path_of_a_model, "snap_aa").id == "snap_aa1"
    assert lineage.resolve(path_of_a_model, "ver").id == "ver_1"
    assert lineage.upstream(path_of_a_model, "snap_ab").start == "snap_ab2"
    with pytest.raises(AmbiguousId, match="snap_aa1, snap_ab2"):
        lineage.resolve(path_of_a_model, "snap_a")


def test_a_whole_id_wins_over_longer_ones(store):
    add(store, record("run_1"), record("run_11"))
    assert lineage.resolve(store, "run_1").id == "run_1"


@pytest.mark.parametrize("text", ["", "nothing", "snap_x", "%", "snap_aa1x"])
def test_an_unknown_id_is_a_usage_error(path_of_a_model, text):
    with pytest.raises(UnknownId) as refused:
        lineage.both(path_of_a_model, text)
    assert refused.value.exit_code == 2


def test_an_unknown_id_is_answered_with_those_that_start_alike(path_of_a_model):
    with pytest.raises(UnknownId, match="unknown") as refused:
        lineage.resolve(path_of_a_model, "snap_aaz")
    assert "Did you mean snap_aa1?" in str(refused.value)


def test_a_chain_of_thousands_is_walked_and_written_out(store):
    count = 3000
    with store.transaction() as transaction:
        for number in range(count):
            transaction.add(record(f"run_{number}", *([f"run_{number - 1}"] if number else [])))
    found = lineage.upstream(store, f"run_{count - 1}")
    assert len(found.nodes) == count
    assert len(lineage.as_tree(found)) == count + 1


graphs = st.lists(st.lists(st.integers(0, 11), max_size=4, unique=True), min_size=1, max_size=12)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(graph=graphs, start=st.integers(0, 11))
def test_any_graph_is_walked_as_its_closure(store, graph, start):
    """Node n of an example is made from the lower ones in its list."""
    example = f"g{len(store.records('run'))}"
    inputs = {number: [low for low in lows if low < number] for number, lows in enumerate(graph)}
    start %= len(graph)

    def name(number):
        return f"{example}_{number}_"

    add(store, *(record(name(number), *map(name, lows)) for number, lows in inputs.items()))

    def closure(step):
        found = {start}
        while more := {reached for one in found for reached in step(one)} - found:
            found |= more
        return found

    above = closure(lambda one: inputs[one])
    below = closure(lambda one: [number for number, lows in inputs.items() if one in lows])
    for walk, members in ((lineage.upstream, above), (lineage.downstream, below)):
        found = walk(store, name(start))
        assert sorted(node.id for node in found.nodes) == sorted(map(name, members))
        assert set(found.edges) == {
            Edge(name(high), name(low)) for high in members for low in inputs[high] if low in members
        }
    found = lineage.both(store, name(start))
    assert sorted(node.id for node in found.nodes) == sorted(map(name, above | below))
    tree = lineage.as_tree(found)
    assert sum("(see above)" not in line and example in line for line in tree) == len(found.nodes)
