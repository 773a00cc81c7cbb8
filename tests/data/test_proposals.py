from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatrial.data.expectations import check, expect
from seatrial.data.proposals import propose
from seatrial.data.sources import FrameSource

KINDS = {
    pa.float64(): st.floats(allow_nan=False),
    pa.float32(): st.floats(width=32, allow_nan=False),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.int8(): st.integers(0, 1),
    pa.bool_(): st.booleans(),
    pa.string(): st.sampled_from(["a", "b'\"", "c\n\\", "\u2028", "ü"]) | st.text(max_size=4),
    pa.timestamp("us", tz="UTC"): st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1)).map(
        lambda at: at.replace(tzinfo=UTC)
    ),
    pa.list_(pa.int64()): st.lists(st.integers(0, 3), max_size=2),
}


def declared(code):
    """The expectations that pasting the code would declare."""
    return eval(f"dict({code})", {"expect": expect})["expectations"]


@st.composite
def tables(draw):
    rows = draw(st.integers(1, 30))
    columns = {}
    names = draw(st.lists(st.text(min_size=1, max_size=4), max_size=4, unique_by=str.lower))
    for name in names:
        kind = draw(st.sampled_from(list(KINDS)))
        columns[name] = pa.array(draw(st.lists(st.none() | KINDS[kind], min_size=rows, max_size=rows)), kind)
    return pa.table({"row": pa.array(range(rows)), **columns}) if "row" not in names else pa.table(columns)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables())
def test_rows_pass_what_was_proposed_from_them_and_give_the_same_code_again(table):
    source = FrameSource(table, name="s")
    code = propose(source, table).code
    assert propose(source, pa.concat_tables([table.slice(0, 1), table.slice(1)])).code == code
    report = check(FrameSource(table, name="s", expectations=declared(code)), table)
    assert [str(failure) for failure in report.failures] == []


def test_a_proposal_says_what_was_seen():
    at = [datetime(2013, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)]
    table = pa.table(
        {
            "id": list(range(10)),
            "at": pa.array(at),
            "delay": [-20.0, 80.0, None, *[5.0] * 7],
            "dest": ["JFK"] * 6 + ["LAX"] * 4,
            "late": [0, 1] * 5,
        }
    )
    source = FrameSource(table, name="flights", event_timestamp="at", event_key=["id"])
    assert propose(source, table).code == PROPOSED


PROPOSED = """\
    expectations=[  # of source flights, proposed from 10 rows
        expect.rows(at_least=5),  # 10 rows were seen
        expect.volume(at_least=0.5, at_most=2),  # against the last snapshot
        expect.columns({"id": "int", "at": "timestamp", "delay": "float", "dest": "string", "late": "int"}),  # 5 of 5 columns
        expect.unique(["id"]),  # no two rows were equal in it
        expect.not_null("id"),  # none was missing
        expect.not_null("at"),  # none was missing
        expect.not_null("delay", at_most=0.16),  # 1 were missing, 10.00%
        expect.between("delay", -30.0, 90.0),  # seen: -20.0 to 80.0
        expect.not_null("dest"),  # none was missing
        expect.one_of("dest", ["JFK", "LAX"]),  # most often "JFK", 60.0%
        expect.not_null("late"),  # none was missing
        expect.one_of("late", [0, 1]),  # both were seen
        # expect.fresh("at", "7d"),  # the newest was 2013-01-10T00:00:00Z
    ],
"""  # noqa: E501


@pytest.mark.parametrize("rows", [{"a": [float("inf"), 1.0]}, {"a": pa.nulls(2, pa.float64())}])
def test_what_nothing_can_be_said_of_is_a_comment(rows):
    table = pa.table(rows)
    code = propose(FrameSource(table, name="s"), table).code
    assert "        # expect." in code
    assert len(declared(code)) == (3 if "infinite" not in code else 4)
