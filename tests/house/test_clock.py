"""Time: only core.clock reads the machine's clock."""

from __future__ import annotations

import ast

import pytest

from tests.house.tree import SOURCE, source_files

CLOCK = SOURCE / "core" / "clock.py"
ALLOWED_NOW = {"clock", "_clock"}  # `project.clock.now()` asks a Clock, which core.clock provides
READS = {
    ("time", name)
    for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "localtime")
}
READS |= {("time", "gmtime"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today"), ("Timestamp", "now")}
SQL = ("CURRENT_TIMESTAMP", "CURRENT_DATE", "NOW()", "'NOW'", "STRFTIME('%S','NOW')", "GET_CURRENT_TIMESTAMP")


def clock_reads(source: str) -> list[str]:
    """Where a module reads a clock by itself: "line: what"."""
    found = []
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(id(node.value))
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if (owner, node.attr) in READS or (node.attr == "now" and owner not in ALLOWED_NOW):
                found.append(f"{node.lineno}: {owner}.{node.attr}")
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            names = [name.name for name in node.names if ("time", name.name) in READS]
            found += [f"{node.lineno}: from time import {name}" for name in names]
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            found += [f"{node.lineno}: {words} in a text" for words in SQL if words in node.value.upper()]
    return found


def test_only_core_clock_reads_the_machines_clock():
    found = [
        f"{file.relative_to(SOURCE)}:{read}"
        for file in source_files()
        if file != CLOCK
        for read in clock_reads(file.read_text(encoding="utf-8"))
    ]
    assert found == [], "take a Clock, or core.clock.machine_time, machine_us or monotonic"


@pytest.mark.parametrize(
    "source",
    [
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime as d\nd.now(tz)",
        "import time\nstart = time.perf_counter()",
        "from time import monotonic",
        "read = datetime.date.today",
        "import pandas as pd\npd.Timestamp.now()",
        "execute('INSERT INTO t VALUES (CURRENT_TIMESTAMP)')",
        "execute(f'SELECT now() FROM {table}')",
    ],
)
def test_the_rule_sees_a_clock_that_is_read(source):
    assert len(clock_reads(source)) == 1


@pytest.mark.parametrize("source", ['"""CURRENT_TIMESTAMP is forbidden."""', "project.clock.now()", "time.sleep(1)"])
def test_the_rule_lets_pass_what_reads_no_clock(source):
    assert clock_reads(source) == []
