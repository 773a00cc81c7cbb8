"""Loading: what is declared in another type than it needs is told with file and line."""

from __future__ import annotations

import pytest

from seatrial import Project
from seatrial.core.errors import SeatrialError

FILE = """\
from seatrial import *

source = ParquetSource("a.parquet", event_timestamp="at", event_key=["id"])
{line}
"""
VIEW = "feature_view({})(type('v', (), {{'f': agg.last('a')}}))"
MODEL = "Model('m', task='binary', target='y', labels=source, features=['request:x'], estimator='a.B', {})"


def told(folder, line):
    (folder / "project.py").write_text(FILE.format(line=line))
    with Project(folder) as project, pytest.raises(SeatrialError) as caught:
        project.validate()
    assert caught.value.code != "internal"
    assert len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ("agg.mean(5, window='1d')", "agg.mean is given 5"),
        ("agg.last(None)", "agg.last is given None"),
        ("agg.count('', window='1d')", "agg.count is given ''"),
        ("agg.sum('a', window=5)", "a duration is 5, which is int"),
        ("agg.sum('a', window='106751991d')", "too long. At most 11574074d"),
        ("agg.age(unit=None)", "a duration is None"),
        ("Entity('e', keys=5)", "entity 'e' has keys=5"),
        ("Entity('e', keys=[5])", "entity 'e' has keys=[5]"),
        (VIEW.format("entity='e', source=source"), "given 'e' as its entity"),
        (VIEW.format("entity=Entity('e'), source='s'"), "given 's' as its source"),
        (VIEW.format("entity=Entity('e'), source=source, ttl=7"), "a duration is 7"),
        ("ParquetSource('b', expectations=[5])", "ParquetSource 'b' is declared with expectations=[5]"),
        ("ParquetSource('b', expectations=expect.not_null('a'))", "expectations=NotNull"),
        ("ParquetSource('b', set_aside=['a < 0'])", "set_aside=['a < 0']"),
        ("ParquetSource('b', timezone=5)", "timezone=5"),
        ("ParquetSource('b', event_timestamp=['at'])", "event_timestamp=['at']"),
        ("ParquetSource('b', event_key='id')", "event_key='id'. A list is expected"),
        ("ParquetSource(5)", "path=5"),
        ("ParquetSource('x' * 5000)", "letters). File systems take"),
        ("ParquetSource('a/' + 'x' * 300)", "letters). File systems take"),
        ("CsvSource('b', nulls='NA')", "nulls='NA'"),
        ("CsvSource('b', types=['a'])", "types=['a']"),
        ("QuerySource(5, name='q', tables={})", "QuerySource 'q' is declared with sql=5"),
        ("QuerySource('SELECT 1', name='q', tables={'a': 'b'})", "tables={'a': 'b'}"),
        (MODEL.format("key=5"), "model 'm' is declared with key=5"),
        (MODEL.format("key='id'"), "model 'm' is declared with key='id'"),
        (MODEL.format("params=[1]"), "params=[1]"),
        (MODEL.format("split=5"), "split=5"),
        (MODEL.format("gates=[5]"), "gates=[5]"),
        (MODEL.format("waives={'roc_auc at least 0.7': ''}"), "without a reason"),
        (MODEL.format("slices='carrier'"), "slices='carrier'"),
        (MODEL.format("costs=5"), "costs=5"),
        ("ProjectGates(5)", "ProjectGates holds 5"),
        ("Costs(1, 0)", "false_negative costs 0"),
        ("Split('group')", "by=None"),
        (MODEL.format("cv_folds='x'"), "asks for 'x' cross-validation folds"),
        (MODEL.format("threads=1000"), "asks for 1000 threads. 1 to 256"),
        (MODEL.format("owner=5"), "owner=5"),
        (MODEL.format("split=Split('random', '0.2')"), "holds back '0.2'"),
        (MODEL.replace("labels=source", "labels='x'").format(""), "labels='x'"),
        (MODEL.replace("features=['request:x']", "features='request:x'").format(""), "features='request:x'"),
    ],
)  # fmt: skip
def test_a_declaration_of_a_wrong_type_is_told_with_file_line_and_value(tmp_path, declared, words):
    message = " ".join(told(tmp_path, declared).split())
    assert "project.py:4: " in message
    assert words in message


# Features that cannot be meant


def test_two_views_with_one_name_are_told_with_both_lines(folder_of):
    view = "\n@feature_view(entity=Entity('e'), source=source)\nclass twin:\n    f = agg.last('a')\n"
    assert "two views are named 'twin': in project.py:6 and project.py:10" in folder_of(view + view)
    shared = "\nshared_view('../other', 'twin', digest='0123456789ab')\n"
    assert "two views are named 'twin': in project.py:6 and project.py:9" in folder_of(view + shared)


def test_a_request_time_function_of_its_own_output_is_told_where_it_is_defined(folder_of):
    words = folder_of("\n@on_request\ndef loop(loop: float) -> float:\n    return loop + 1\n")
    assert "project.py:5" in words or "project.py:6" in words
    assert "request-time function 'loop', line 2: it takes 'loop', its own output, as an argument" in words


@pytest.fixture
def folder_of(tmp_path):
    return lambda line: told(tmp_path, line)


def test_a_waiver_of_a_gate_that_the_project_does_not_have_lists_those_it_has(tmp_path):
    message = told(
        tmp_path,
        "ProjectGates(Gate.at_least('roc_auc', 0.8))\n" + MODEL.format("waives={'roc_auc at least 0.7': 'why'}"),
    )
    assert "'roc_auc at least 0.7', which is none of the project's" in message
    assert "Did you mean 'roc_auc at least 0.8'?" in message
