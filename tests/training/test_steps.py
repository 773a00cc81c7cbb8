"""Memoised steps: the same work is done once, and anything that could change its result makes it be done again."""

from __future__ import annotations

import functools
import importlib
import shutil
import subprocess
import sys

import pyarrow as pa
import pytest

from seatrial.stores.objects import ObjectRepaired, ObjectStore
from seatrial.training import steps as memo
from seatrial.training.steps import TABLE, Input, NotMemoisable, StepDiffers, Steps

SOURCE = """
import os
from pathlib import Path

import beside

def called(with_what):
    with Path(os.environ["CALLS"]).open("a") as file:  # what a step leaves in a file is not in its key
        print(with_what, file=file)

def add(number, more=1):
    called(number)
    return {"sum": number + more + beside.EXTRA}

def rows(many):
    import pyarrow as pa
    called(many)
    return pa.table({"x": pa.array(range(many), pa.int32())})

def total(rows):
    called("total")
    return sum(rows["x"].to_pylist())

def calls():
    called(0)
    return len(Path(os.environ["CALLS"]).read_text().split())

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
    (tmp_path / "calls").write_text("")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    for name in ("own_work", "beside"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("own_work")


@pytest.fixture
def calls(tmp_path):
    """What `called` was called with, so far."""
    return lambda: (tmp_path / "calls").read_text().split()


@pytest.fixture
def objects(tmp_path):
    return ObjectStore(tmp_path / "objects")


def steps(objects, environment="e", **how):
    return Steps(objects, environment=environment, **how)


def test_a_step_is_done_once_for_any_number_of_processes(work, objects, calls):
    first = steps(objects).run(work.add, {"number": 1})
    again = steps(objects).run(work.add, {"number": 1})
    assert (first.hit, again.hit) == (False, True)
    assert first.value == again.value == {"sum": 2}
    assert (again.key, again.digest) == (first.key, first.digest)
    assert calls() == ["1"]


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


def test_a_result_is_the_input_of_the_next_step_and_is_read_only_when_that_has_to_be_done(work, objects, calls):
    def both(running):
        made = running.run(work.rows, {"many": 4}, form=TABLE)
        return made, running.run(work.total, inputs={"rows": made.input})

    first, _ = both(steps(objects))
    assert calls() == ["4", "total"]
    objects.path(memo.table_key(first.digest)).unlink()
    table, total = both(steps(objects))
    assert (table.hit, total.hit, total.value) == (True, True, 6)
    assert calls() == ["4", "total"]


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


def test_what_is_gone_or_damaged_is_made_again(work, objects, calls):
    made = steps(objects).run(work.add, {"number": 1})
    file = objects.path(f"steps/results/{made.digest}.json")
    file.unlink()
    assert steps(objects).run(work.add, {"number": 1}).value == {"sum": 2}
    file.chmod(0o644)
    file.write_bytes(b'{"sum": 3}')
    with pytest.warns(ObjectRepaired):
        assert steps(objects).run(work.add, {"number": 1}).value == {"sum": 2}
    assert steps(objects).run(work.add, {"number": 1}).value == {"sum": 2}
    assert calls() == ["1"] * 3


def test_a_pointer_that_cannot_be_read_counts_as_none(work, objects):
    made = steps(objects).run(work.add, {"number": 1})
    file = objects.path(f"steps/{made.key}.json")
    file.chmod(0o644)
    file.write_bytes(b"{")
    with pytest.warns(ObjectRepaired):
        assert not steps(objects).run(work.add, {"number": 1}).hit
    assert steps(objects).run(work.add, {"number": 1}).hit


def test_fresh_does_it_again_and_leaves_what_was_kept(work, objects, calls):
    steps(objects).run(work.add, {"number": 1})
    assert not steps(objects, fresh=True).run(work.add, {"number": 1}).hit
    assert calls() == ["1", "1"]
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


# What determines a result


class Folder:
    """A folder of modules of one's own: written, and loaded anew, as another process would."""

    def __init__(self, root, objects):
        self.root, self.objects = root, objects

    def write(self, **files):
        for name, text in files.items():
            path = self.root / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            (path.parent / "__init__.py").touch()

    def load(self, module):
        for name, loaded in list(sys.modules.items()):
            if str(getattr(loaded, "__file__", "")).startswith(str(self.root)):
                del sys.modules[name]
        for kept in self.root.rglob("__pycache__"):
            shutil.rmtree(kept)
        importlib.invalidate_caches()
        return importlib.import_module(module)

    def run(self, module, function="step"):
        made = steps(self.objects).run(getattr(self.load(module), function))
        return made.value, made.hit


@pytest.fixture
def own(tmp_path, objects, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    folder = Folder(tmp_path / "mine", objects)
    yield folder
    for name, loaded in list(sys.modules.items()):
        if str(getattr(loaded, "__file__", "")).startswith(str(folder.root)):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("step", "changed"),
    [
        ("from one.same import x\nfrom two.same import x as y\ndef step():\n    return x + y\n", "one__same"),
        ("from one.same import x\nfrom two.same import x as y\ndef step():\n    return x + y\n", "two__same"),
        ("import one.same\ndef step():\n    return one.same.x\n", "one__same"),
        ("def step():\n    from one.same import x\n    return x\n", "one__same"),
        ("def step():\n    import one.same as other\n    return other.x\n", "one__same"),
        ("from pack.deep import step\n", "pack__beside"),
    ],
)
def test_a_change_in_any_module_that_is_used_is_another_step(own, step, changed):
    own.write(one__same="x = 1\n", two__same="x = 1\n", pack__beside="def x():\n    return 1\n")
    own.write(pack__deep="from pack.beside import x\ndef step():\n    return x()\n", first=step)
    before, _ = own.run("first")
    assert own.run("first") == (before, True)
    own.write(**{changed: "x = 100\n" if "same" in changed else "def x():\n    return 100\n"})
    after, hit = own.run("first")
    assert not hit
    assert after == before + 99


HOLDING = """
import functools

class Rate:
    FACTOR = 1
    def __init__(self, by):
        self.by = by
    def step(self):
        return self.by

GLOBAL = 1

def reads_global():
    return GLOBAL

def reads_class():
    return Rate.FACTOR

def scaled(by):
    def around(function):
        @functools.wraps(function)
        def inner():
            return by * function()
        return inner
    return around

def one():
    return 1

def two_of_one_name(first):
    return (lambda: 1) if first else (lambda: 2)

def plus(a, b):
    return a + b

def handed(module):
    return module.GLOBAL
"""


@pytest.mark.parametrize(
    "pair",
    [
        lambda m: [m.Rate(1).step, m.Rate(2).step],
        lambda m: [m.scaled(2)(m.one), m.scaled(3)(m.one)],
        lambda m: [m.two_of_one_name(first=True), m.two_of_one_name(first=False)],
        lambda m: [functools.partial(m.plus, 1, 2), functools.partial(m.plus, 1, 3)],
    ],
)
def test_functions_that_hold_something_else_are_other_steps(own, pair):
    own.write(holding=HOLDING)
    for function in pair(own.load("holding")):
        made = steps(own.objects).run(function)
        assert (made.value, made.hit) == (function(), False)
        assert steps(own.objects).run(function).hit


@pytest.mark.parametrize(
    ("step", "holder", "name"), [("reads_global", "", "GLOBAL"), ("reads_class", "Rate", "FACTOR")]
)
def test_a_value_that_was_set_at_run_time_counts(own, step, holder, name):
    own.write(holding=HOLDING)
    module = own.load("holding")
    assert steps(own.objects).run(getattr(module, step)).value == 1
    setattr(getattr(module, holder) if holder else module, name, 5)
    made = steps(own.objects).run(getattr(module, step))
    assert (made.value, made.hit) == (5, False)


def test_a_module_that_is_handed_on_counts_as_a_whole(own):
    own.write(holding=HOLDING, giving="import holding\ndef step():\n    return holding.handed(holding)\n")
    assert own.run("giving") == (1, False)
    holding = sys.modules["holding"]
    holding.GLOBAL = 7
    made = steps(own.objects).run(sys.modules["giving"].step)
    assert (made.value, made.hit) == (7, False)


def test_code_that_was_loaded_before_its_file_changed_is_not_taken_for_the_new_code(own):
    own.write(first="def step():\n    return 1\n")
    old = own.load("first").step
    own.write(first="def step():\n    return 2\n")
    assert steps(own.objects).run(old).value == 1
    assert own.run("first") == (2, False)


def test_what_a_file_gave_when_the_module_was_loaded_counts(own):
    own.write(
        first="from pathlib import Path\nC = Path(__file__).with_name('c.txt').read_text()\ndef step():\n    return C\n"
    )
    (own.root / "c.txt").write_text("1")
    assert own.run("first") == ("1", False)
    (own.root / "c.txt").write_text("2")
    assert own.run("first") == ("2", False)


@pytest.mark.parametrize(
    "text",
    [
        "import importlib\ndef step():\n    return importlib.import_module('beside').x\n",
        "from importlib import import_module\ndef step():\n    return import_module('beside').x\n",
        "def step():\n    return __import__('beside').x\n",
        "def step():\n    return eval('1')\n",
        "import sys\ndef step():\n    return len(sys.modules)\n",
        "import threading\nLOCK = threading.Lock()\ndef step():\n    with LOCK:\n        return 1\n",
        "import collections\nclass Own(dict):\n    pass\nHELD = Own(a=1)\ndef step():\n    return HELD['a']\n",
    ],
)
def test_what_cannot_be_told_surely_is_refused(own, text):
    own.write(first=text, beside="x = 1\n")
    with pytest.raises(NotMemoisable):
        own.run("first")


@pytest.mark.parametrize(
    "text",
    [
        "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass Own:\n    a: int = 1\n"
        "    more: list = dataclasses.field(default_factory=list)\nHELD = Own(2)\n"
        "def step():\n    return HELD.a + Own().a\n",
        "import enum\nclass Own(enum.Enum):\n    A = 1\ndef step():\n    return Own.A.value\n",
        "import logging, re\nLOG = logging.getLogger('x')\nWORD = re.compile('a')\n"
        "def step():\n    LOG.debug('x')\n    return bool(WORD.match('a'))\n",
        "import numpy as np\nHELD = np.arange(3.0)\ndef step():\n    return float(np.exp(HELD).sum())\n",
        "import functools\n@functools.lru_cache\ndef other(n):\n    return n if n < 2 else other(n - 1)\n"
        "def step():\n    return other(5)\n",
        "class Above:\n    __slots__ = ('a',)\n    def __init__(self):\n        self.a = 1\nclass Own(Above):\n"
        "    def __init__(self):\n        super().__init__()\n    @property\n    def b(self):\n        return self.a\n"
        "HELD = Own()\ndef step():\n    return HELD.b\n",
    ],
)
def test_plain_code_of_ones_own_is_told_in_every_process(own, text):
    own.write(first=text)
    value, hit = own.run("first")
    assert not hit
    assert own.run("first") == (value, True)


def test_two_processes_that_do_the_same_new_step_at_once_both_get_its_result(own):
    own.write(slow="import time\ndef step():\n    time.sleep(0.5)\n    return 1\n")
    own.write(
        both="import sys\nfrom pathlib import Path\nfrom seatrial.stores.objects import ObjectStore\n"
        "from seatrial.training.steps import Steps\nfrom slow import step\n"
        "if __name__ == '__main__':\n"
        "    objects = ObjectStore(Path(sys.argv[1]))\n    running = Steps(objects, environment='e')\n"
        "    print('ready', flush=True)\n    sys.stdin.readline()\n    print(running.run(step).value)\n"
    )
    command = [sys.executable, str(own.root / "both.py"), str(own.objects.root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for one in running:
        assert one.stdout.readline() == "ready\n"
    for one in running:
        one.stdin.write("\n")
        one.stdin.flush()
    answers = [one.communicate() for one in running]
    assert [(answer, one.returncode) for (answer, _), one in zip(answers, running, strict=True)] == [("1\n", 0)] * 2, (
        answers
    )
