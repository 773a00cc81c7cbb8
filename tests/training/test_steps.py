"""Memoised steps: the same work is done once, and anything that could change its result makes it be done again."""

from __future__ import annotations

import importlib
import sys

import pyarrow as pa
import pytest

from seatrial.stores.objects import ObjectRepaired, ObjectStore
from seatrial.training import steps as memo
from seatrial.training.steps import TABLE, Input, NotMemoisable, StepDiffers, Steps

SOURCE = """
import beside

CALLS = []

def add(number, more=1):
    CALLS.append(number)
    return {"sum": number + more + beside.EXTRA}

def rows(many):
    import pyarrow as pa
    CALLS.append(many)
    return pa.table({"x": pa.array(range(many), pa.int32())})

def total(rows):
    CALLS.append("total")
    return sum(rows["x"].to_pylist())

def calls():
    CALLS.append(0)
    return len(CALLS)

def holding(value):
    def inner():
        return value
    return inner
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A module of one's own, with another one beside it."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own_work.py").write_text(SOURCE)
    (tmp_path / "own" / "beside.py").write_text("EXTRA = 0\n")
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    for name in ("own_work", "beside"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("own_work")


@pytest.fixture
def objects(tmp_path):
    return ObjectStore(tmp_path / "objects")


def steps(objects, environment="e", **how):
    return Steps(objects, environment=environment, **how)


def test_a_step_is_done_once_for_any_number_of_processes(work, objects):
    first = steps(objects).run(work.add, {"number": 1})
    again = steps(objects).run(work.add, {"number": 1})
    assert (first.hit, again.hit) == (False, True)
    assert first.value == again.value == {"sum": 2}
    assert (again.key, again.digest) == (first.key, first.digest)
    assert work.CALLS == [1]


@pytest.mark.parametrize(
    "given",
    [{"number": 2}, {"number": 1.0}, {"number": True}, {"number": 1, "more": 1}],
)
def test_another_parameter_is_another_step(work, objects, given):
    steps(objects).run(work.add, {"number": 1})
    assert not steps(objects).run(work.add, given).hit


def test_another_environment_is_another_step(work, objects):
    steps(objects).run(work.add, {"number": 1})
    assert not steps(objects, environment="other").run(work.add, {"number": 1}).hit


@pytest.mark.parametrize(("file", "text"), [("own_work.py", f"{SOURCE}\n# other\n"), ("beside.py", "EXTRA = 10\n")])
def test_a_change_of_the_function_or_of_what_it_uses_is_another_step(work, objects, tmp_path, file, text):
    key = steps(objects).run(work.add, {"number": 1}).key
    (tmp_path / "own" / file).write_text(text)
    assert steps(objects).key(work.add, {"number": 1}, {}) != key


def test_a_file_that_is_not_used_does_not_count(work, objects, tmp_path):
    steps(objects).run(work.add, {"number": 1})
    (tmp_path / "own" / "unused.py").write_text("1\n")
    assert steps(objects).run(work.add, {"number": 1}).hit


def test_a_result_is_the_input_of_the_next_step_and_is_read_only_when_that_has_to_be_done(work, objects):
    def both(running):
        made = running.run(work.rows, {"many": 4}, form=TABLE)
        return made, running.run(work.total, inputs={"rows": made.input})

    first, _ = both(steps(objects))
    assert work.CALLS == [4, "total"]
    objects.path(memo.table_key(first.digest)).unlink()
    table, total = both(steps(objects))
    assert (table.hit, total.hit, total.value) == (True, True, 6)
    assert work.CALLS == [4, "total"]


def test_another_input_is_another_step(work, objects):
    table = pa.table({"x": [1, 2]})
    first = steps(objects).run(work.total, inputs={"rows": Input("a", lambda: table)})
    other = steps(objects).run(work.total, inputs={"rows": Input("b", lambda: table)})
    assert (first.value, other.value, other.hit) == (3, 3, False)


def test_a_table_comes_back_with_its_types(work, objects):
    first = steps(objects).run(work.rows, {"many": 3}, form=TABLE).value
    again = steps(objects).run(work.rows, {"many": 3}, form=TABLE).value
    assert again.equals(first)
    assert again.schema.field("x").type == pa.int32()


def test_what_is_gone_or_damaged_is_made_again(work, objects):
    made = steps(objects).run(work.add, {"number": 1})
    file = objects.path(f"steps/results/{made.digest}.json")
    file.unlink()
    assert steps(objects).run(work.add, {"number": 1}).value == {"sum": 2}
    file.chmod(0o644)
    file.write_bytes(b'{"sum": 3}')
    with pytest.warns(ObjectRepaired):
        assert steps(objects).run(work.add, {"number": 1}).value == {"sum": 2}
    assert steps(objects).run(work.add, {"number": 1}).value == {"sum": 2}
    assert work.CALLS == [1, 1, 1]


def test_a_pointer_that_cannot_be_read_counts_as_none(work, objects):
    made = steps(objects).run(work.add, {"number": 1})
    file = objects.path(f"steps/{made.key}.json")
    file.chmod(0o644)
    file.write_bytes(b"{")
    with pytest.warns(ObjectRepaired):
        assert not steps(objects).run(work.add, {"number": 1}).hit
    assert steps(objects).run(work.add, {"number": 1}).hit


def test_fresh_does_it_again_and_leaves_what_was_kept(work, objects):
    steps(objects).run(work.add, {"number": 1})
    assert not steps(objects, fresh=True).run(work.add, {"number": 1}).hit
    assert work.CALLS == [1, 1]
    assert steps(objects).run(work.add, {"number": 1}).hit


def test_fresh_warns_of_a_step_that_gives_something_else_each_time(work, objects):
    steps(objects).run(work.calls)
    with pytest.warns(StepDiffers, match="'calls' gave"):
        assert steps(objects, fresh=True).run(work.calls).value == 2
    assert steps(objects).run(work.calls).value == 1


def test_what_has_no_digest_is_refused(work, objects):
    running = steps(objects)
    with pytest.raises(NotMemoisable, match="no plain value"):
        running.run(work.add, {"number": {1, 2}})
    with pytest.raises(NotMemoisable, match="no Python function"):
        running.run(len)
    with pytest.raises(NotMemoisable, match="closes over"):
        running.run(work.holding(object()))
    made = eval("lambda: 1")
    with pytest.raises(NotMemoisable, match="not in a file"):
        running.run(made)


def test_a_value_that_is_closed_over_counts(work, objects):
    assert steps(objects).run(work.holding(1)).value == 1
    assert steps(objects).run(work.holding(2)).value == 2


def test_each_step_that_was_run_leaves_a_line(work, objects):
    running = steps(objects)
    running.run(work.add, {"number": 1}, name="adding")
    running.run(work.add, {"number": 1})
    assert [(line["step"], line["hit"]) for line in running.ran] == [("adding", False), ("add", True)]
