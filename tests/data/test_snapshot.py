import json
import struct
import subprocess
import sys
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatrial.data.reading import frame_table, read
from seatrial.data.snapshot import (
    BLOCK_ROWS,
    METADATA_KEY,
    ColumnTypeUnsupported,
    Content,
    NotReadBack,
    SnapshotDamaged,
    SnapshotTooNew,
    content,
    content_of_parquet,
    diff,
    load,
    write,
)
from seatrial.data.sources import FrameSource, ParquetSource

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

VALUES = {
    pa.int8(): st.integers(-128, 127),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint16(): st.integers(0, 2**16 - 1),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(max_size=5),
    pa.binary(): st.binary(max_size=5),
    pa.date32(): st.integers(-(10**5), 10**5),
    pa.timestamp("us", tz="UTC"): st.integers(-(10**15), 10**15),
    pa.duration("ms"): st.integers(-(10**9), 10**9),
    pa.decimal128(12, 2): st.decimals(min_value=-(10**6), max_value=10**6, places=2),
    pa.list_(pa.string()): st.lists(st.none() | st.text(max_size=3), max_size=3),
    pa.struct([("a", pa.float64()), ("b", pa.string())]): st.fixed_dictionaries(
        {"a": st.none() | st.floats(), "b": st.none() | st.text(max_size=3)}
    ),
    pa.list_(pa.struct([("a", pa.list_(pa.int64()))])): st.lists(
        st.none() | st.fixed_dictionaries({"a": st.none() | st.lists(st.integers(0, 9), max_size=2)}), max_size=2
    ),
}


@st.composite
def tables(draw, *, most=12):
    rows = draw(st.integers(1, most))
    kinds = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=4))
    columns = {
        f"c{i}": pa.array(draw(st.lists(st.none() | VALUES[kind], min_size=rows, max_size=rows)), kind)
        for i, kind in enumerate(kinds)
    }
    return pa.table(columns)


def in_pieces(table, cuts):
    """The same rows in other chunks, each of them a slice of something longer."""
    edges = [0, *sorted({cut % (table.num_rows + 1) for cut in cuts}), table.num_rows]
    padded = pa.concat_tables([table, table])
    return pa.concat_tables(padded.slice(table.num_rows + start, stop - start) for start, stop in pairwise(edges))


def digests(table):
    return [column.digest for column in content(table).columns]


@quick
@given(tables(), st.lists(st.integers(0, 100), max_size=4))
def test_chunks_and_slices_do_not_count(table, cuts):
    assert content(in_pieces(table, cuts)) == content(table)


@settings(quick, max_examples=25)
@given(table=tables(), groups=st.integers(1, 5), dictionary=st.booleans())
def test_row_groups_do_not_count(tmp_path_factory, table, groups, dictionary):
    path = tmp_path_factory.mktemp("t") / "t.parquet"
    pq.write_table(table, path, row_group_size=groups, use_dictionary=dictionary)
    assert content(pq.read_table(path)) == content(table)


@quick
@given(st.lists(st.none() | st.text(max_size=4), min_size=1, max_size=20))
def test_layouts_of_text_do_not_count(texts):
    plain = pa.array(texts, pa.string())
    again = [plain.cast(pa.large_string()), plain.cast(pa.string_view()), plain.dictionary_encode()]
    again.append(pc.run_end_encode(plain))
    for other in again:
        assert digests(pa.table({"a": other})) == digests(pa.table({"a": plain}))
        assert content(pa.table({"a": other})).columns[0].type == "string"


@quick
@given(tables(), st.data())
def test_a_change_of_one_cell_changes_exactly_that_column(table, data):
    position = data.draw(st.integers(0, table.num_columns - 1))
    row = data.draw(st.integers(0, table.num_rows - 1))
    column = table.column(position)
    values = column.to_pylist()
    new = data.draw(st.none() | VALUES[column.type])
    if column.type in (pa.date32(), pa.timestamp("us", tz="UTC"), pa.duration("ms")):
        values = column.cast(pa.int32() if column.type == pa.date32() else pa.int64()).to_pylist()
    old, values[row] = values[row], new
    changed = table.set_column(position, f"c{position}", pa.array(values, column.type))
    differing = [i for i, (a, b) in enumerate(zip(digests(table), digests(changed), strict=True)) if a != b]
    # the oracle: bits, after one zero and one NaN
    assert differing == ([] if canonical(old, column.type) == canonical(new, column.type) else [position])
    found = diff(content(table), content(changed), table, changed)
    assert [change.name for change in found.changed] == [f"c{i}" for i in differing]
    if differing:
        assert found.changed[0].cells == 1
        assert found.changed[0].examples[0][0] == row


def canonical(value, kind):
    if isinstance(value, dict):
        return {key: canonical(inner, None) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(inner, None) for inner in value]
    if isinstance(value, float):
        return "nan" if value != value else struct.pack("<d", value + 0.0)
    if isinstance(value, Decimal):
        return value + 0
    return value


def test_what_must_count_counts():
    base = pa.table({"a": pa.array([1.0, 0.5, None]), "b": pa.array([1, 2, 3], pa.int64()), "c": ["x", "yz", ""]})
    others = {
        "one cell by 1e-12": base.set_column(0, "a", pa.array([1.0 + 1e-12, 0.5, None])),
        "null for zero": base.set_column(0, "a", pa.array([1.0, 0.5, 0.0])),
        "null for empty text": base.set_column(2, "c", pa.array(["x", "yz", None])),
        "text cut elsewhere": base.set_column(2, "c", pa.array(["xy", "z", ""])),
        "type": base.set_column(1, "b", pa.array([1, 2, 3], pa.int32())),
        "sign": base.set_column(1, "b", pa.array([1, 2, 3], pa.uint64())),
        "bytes for text": base.set_column(2, "c", pa.array([b"x", b"yz", b""])),
        "row order": base.take(pa.array([1, 0, 2])),
        "column order": base.select(["b", "a", "c"]),
        "name": base.rename_columns(["a", "b", "d"]),
        "fewer rows": base.slice(0, 2),
        "fewer columns": base.select(["a", "b"]),
        "nothing": base.slice(0, 0),
    }
    ids = {name: content(table).id for name, table in others.items()} | {"base": content(base).id}
    assert len(set(ids.values())) == len(ids)


def test_zone_and_unit_of_times_are_type():
    kinds = [pa.timestamp("us"), pa.timestamp("us", tz="UTC"), pa.timestamp("us", tz="+01:00"), pa.timestamp("ms")]
    assert len({content(pa.table({"a": pa.array([0], kind)})).id for kind in kinds}) == len(kinds)


def test_structure_of_lists_counts():
    lists = [[[1], [2]], [[1, 2], []], [[1, 2], None], [[], [1, 2]], [[1, None], []]]
    assert len({digests(pa.table({"a": pa.array(one, pa.list_(pa.int64()))}))[0] for one in lists}) == len(lists)
    shapes = [[{"a": None}], [None]]
    kind = pa.struct([("a", pa.int64())])
    assert len({digests(pa.table({"a": pa.array(one, kind)}))[0] for one in shapes}) == 2


def test_zeros_and_nans_are_one_and_bytes_under_nulls_do_not_count():
    nans = np.array([0x7FF8000000000000, 0xFFF8000000000001, 0x7FF0000000000001], np.uint64).view(np.float64)
    one = pa.table({"a": pa.array(np.append(nans, [0.0, -0.0]))})
    other = pa.table({"a": pa.array(np.append(np.full(3, np.nan), [-0.0, 0.0]))})
    assert content(one) == content(other)

    mask = pa.py_buffer(b"\x05")
    for kind, values in ((pa.int64(), ([1, 2, 3], [1, 99, 3])), (pa.float64(), ([1.0, 2.0, 3.0], [1.0, np.nan, 3.0]))):
        hidden = [
            pa.Array.from_buffers(kind, 3, [mask, pa.py_buffer(np.array(v, kind.to_pandas_dtype()))]) for v in values
        ]
        plain = pa.array([values[0][0], None, values[0][2]], kind)
        assert len({content(pa.table({"a": array})).id for array in (*hidden, plain)}) == 1
    offsets = pa.py_buffer(np.array([0, 1, 3, 4], np.int32))
    hidden = pa.Array.from_buffers(pa.string(), 3, [mask, offsets, pa.py_buffer(b"a??c")])
    assert digests(pa.table({"a": hidden})) == digests(pa.table({"a": ["a", None, "c"]}))
    bits = [pa.Array.from_buffers(pa.bool_(), 3, [mask, pa.py_buffer(byte)]) for byte in (b"\x07", b"\x05")]
    assert digests(pa.table({"a": bits[0]})) == digests(pa.table({"a": bits[1]}))


def test_blocks_do_not_count():
    rows = 2 * BLOCK_ROWS + 13
    numbers = pa.array(np.arange(rows), mask=np.arange(rows) % 7 == 0)
    table = pa.table({"n": numbers, "t": numbers.cast(pa.string()), "l": pa.array([[1, 2]] * rows)})
    again = pa.concat_tables([table.slice(0, 5), table.slice(5, BLOCK_ROWS), table.slice(BLOCK_ROWS + 5)])
    assert content(again) == content(table)


@pytest.mark.parametrize(
    "column",
    [
        pa.nulls(3),
        pa.array([None, None, None], pa.string()),
        pa.array([1.5, None, -0.0], pa.float16()),
        pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
        pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2)),
        pa.array([[1], None, [3, 4]], pa.list_view(pa.int64())),
        pa.array([b"ab", None, b"cd"], pa.binary(2)),
        pa.array([Decimal("1.5"), None, Decimal("-2.5")], pa.decimal256(40, 1)),
        pa.array([1, 2, None], pa.time64("ns")),
        pa.array([1, 2, None], pa.time32("s")),
        pa.array([1, 2, None], pa.duration("ns")),
        pa.array([[1], None, [3, 4]], pa.large_list(pa.int64())),
        pa.array([[1], None, [3, 4]], pa.large_list_view(pa.int64())),
        pa.array(["a" * 20, None, "b"], pa.string_view()),
        pa.array([b"a" * 20, None, b"b"], pa.binary_view()),
        pa.array([["a"], None, ["b", None]], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
        pa.array([{"a": "x"}, None, {"a": None}], pa.struct([("a", pa.dictionary(pa.int8(), pa.string()))])),
        pa.array([b"a" * 16, None, b"b" * 16], pa.uuid()),
    ],
    ids=str,
)
def test_every_type_has_a_digest_that_slices_do_not_change(column):
    table = pa.table({"a": column})
    assert content(in_pieces(table, [1, 2])) == content(table)
    turned = pa.concat_tables([table.slice(row, 1) for row in (2, 1, 0)])
    assert digests(table) != digests(turned) or column.null_count == 3


def test_layouts_inside_lists_and_structs_do_not_count_and_an_extension_type_does():
    lists = [["a", None], None, [], ["bc"]]
    kinds = [pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.list_view(pa.string_view())]
    kinds.append(pa.list_(pa.dictionary(pa.int8(), pa.string())))
    assert len({digests(pa.table({"a": pa.array(lists, kind)}))[0] for kind in kinds}) == 1
    plain = pa.array([b"a" * 16], pa.binary(16))
    assert digests(pa.table({"a": plain})) != digests(pa.table({"a": plain.cast(pa.uuid())}))


KINDS = st.recursive(
    st.sampled_from(
        [
            (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
            (pa.float16(), st.sampled_from([0.0, -0.0, 1.5, float("nan")])),
            (pa.float64(), st.floats()),
            (pa.string_view(), st.text(max_size=3)),
            (pa.large_binary(), st.binary(max_size=3)),
            (pa.binary(2), st.binary(min_size=2, max_size=2)),
            (pa.time32("s"), st.integers(0, 86399)),
            (pa.time64("ns"), st.integers(0, 10**12)),
            (pa.date64(), st.integers(-(10**4), 10**4).map(lambda day: day * 86_400_000)),
            (pa.timestamp("s"), st.integers(-(10**9), 10**9)),
            (pa.duration("s"), st.integers(-(10**9), 10**9)),
            (pa.decimal64(9, 2), st.decimals(min_value=-(10**6), max_value=10**6, places=2)),
            (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["a", "b"])),
        ]
    ),
    lambda inner: st.one_of(
        inner.map(lambda of: (pa.list_(of[0]), st.lists(st.none() | of[1], max_size=2))),
        inner.map(lambda of: (pa.large_list(of[0]), st.lists(st.none() | of[1], max_size=2))),
        inner.map(lambda of: (pa.list_(of[0], 2), st.lists(st.none() | of[1], min_size=2, max_size=2))),
        inner.map(lambda of: (pa.struct([("a", of[0])]), st.fixed_dictionaries({"a": st.none() | of[1]}))),
    ),
    max_leaves=3,
)


@quick
@given(data=st.data(), kind=KINDS)
def test_whatever_type_a_frame_has_its_snapshot_is_read_back(data, kind, tmp_path_factory):
    values = data.draw(st.lists(st.none() | kind[1], min_size=1, max_size=5))
    table = frame_table(FrameSource(pa.table({"a": pa.array([*values, None, *values], kind[0])}), name="rows"))
    table = pa.concat_tables([table.slice(1), table.slice(0, 2)])
    path = tmp_path_factory.mktemp("types") / "snapshot"
    write(content(table), table, path)
    assert load(path)[0] == content(table) == content_of_parquet(path)


@pytest.mark.parametrize("make", [pa.list_view, pa.large_list_view])
def test_list_views_are_kept_as_lists(make, tmp_path):
    views = pa.array([["a"], None, [None, "bc"], []] * 3, make(pa.string_view()))
    table = pa.table({"a": views.slice(1), "b": pa.StructArray.from_arrays([views.slice(1)], ["c"])})
    write(content(table), table, tmp_path / "s")
    assert load(tmp_path / "s")[1].to_pydict() == table.to_pydict()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None, 2], pa.time32("s")),
        pa.array([[1], None, [2]], pa.list_(pa.time32("s"))),
        pa.array([{"a": 1}, None, {"a": 3}], pa.struct([("a", pa.timestamp("s"))])),
        pa.array([{"a": 86_400_000}, None, None], pa.struct([("a", pa.date64())])),
        pa.array([[1.0, 2.0], [5.0, 6.0], [3.0, 4.0]], pa.list_(pa.float64(), 2)),
    ],
    ids=str,
)
def test_a_frame_gives_the_content_of_its_parquet_file(column, tmp_path):
    table = pa.table({"a": column})
    pq.write_table(table, tmp_path / "rows.parquet")
    frame = content(read(FrameSource(table, name="rows"), folder=tmp_path).table)
    assert frame == content(read(ParquetSource("rows.parquet", name="rows"), folder=tmp_path).table)
    assert frame == content(read(ParquetSource("rows.parquet", name="rows"), folder=tmp_path).table)


def test_what_does_not_read_back_is_not_kept_and_named(tmp_path):
    table = pa.table({"n": [1, 2], "pair": pa.array([[1, 2], None], pa.list_(pa.int64(), 2))})
    with pytest.raises(NotReadBack, match="'pair'"):
        write(content(table), table, tmp_path / "s")
    other = pa.table({"n": [1, 3], "m": [1, 2]})
    with pytest.raises(NotReadBack, match="'n'"):
        write(content(pa.table({"n": [1, 2], "m": [1, 2]})), other, tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "column",
    [
        pa.array([(1, 2, 3), None], pa.month_day_nano_interval()),
        pa.array([[(1, 2, 3)], None], pa.list_(pa.month_day_nano_interval())),
        pa.array([{}, None], pa.struct([])),
        pa.array([b"", None], pa.binary(0)),
    ],
    ids=str,
)
def test_what_parquet_cannot_hold_is_refused_by_name(column):
    with pytest.raises(ColumnTypeUnsupported, match="column 'u'"):
        content(pa.table({"u": column}))


def test_the_shape_of_tensors_counts():
    stored = pa.FixedSizeListArray.from_arrays(pa.array(range(12), pa.int32()), 6)
    shapes = [pa.fixed_shape_tensor(pa.int32(), shape) for shape in ([2, 3], [3, 2])]
    a, b = (content(pa.table({"t": pa.ExtensionArray.from_storage(kind, stored)})).id for kind in shapes)
    assert a != b


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (pa.array([0.0, 1.0, None], pa.float16()), pa.array([-0.0, 2.0, None], pa.float16())),
        (pa.array([[0.0], [1.0], None]), pa.array([[-0.0], [2.0], None])),
        (pa.array([{"a": float("nan")}, {"a": 1.0}]), pa.array([{"a": float("nan")}, {"a": None}])),
        (pa.array([b"a" * 16, b"b" * 16], pa.uuid()), pa.array([b"a" * 16, b"c" * 16], pa.uuid())),
    ],
    ids=["half", "list", "struct", "uuid"],
)
def test_cells_of_every_type_are_compared_as_the_hash_has_them(old, new):
    tables = [pa.table({"x": old}), pa.table({"x": new})]
    [change] = diff(*map(content, tables), *tables).changed
    assert (change.cells, [row for row, _, _ in change.examples]) == (1, [1])


def test_columns_of_one_name_are_told_apart():
    before, after = (pa.table([pa.array([1]), pa.array([value])], names=["a", "a"]) for value in (2, 3))
    [change] = diff(content(before), content(after), before, after).changed
    assert (change.name, change.examples) == ("a (2)", ((0, 2, 3),))


def test_a_union_is_refused_by_name():
    union = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])
    with pytest.raises(ColumnTypeUnsupported, match="column 'u'"):
        content(pa.table({"u": union}))


def test_the_hash_is_the_one_that_snapshots_out_there_carry():
    """These ids are in stored records: a change of them is a change of format."""
    table = pa.table({"n": pa.array([1, None, -3], pa.int64()), "t": ["a", None, ""], "x": [0.5, float("nan"), -0.0]})
    assert content(table).id == GOLDEN
    assert all(column.digest.startswith("c1:") and len(column.digest) == 67 for column in content(table).columns)


def test_the_hash_is_the_one_that_the_docstring_describes():
    columns = {
        "n": ("int64", "<q", [1, None, -3]),
        "t": ("string", None, ["a", None, "é"]),
        "x": ("double", "<d", [0.5, None, 2.0]),
    }
    described = []
    for name, (kind, code, values) in columns.items():
        validity = bytes(value is not None for value in values)
        lengths = fixed = b""
        if code is None:
            texts = [(value or "").encode() for value in values]
            lengths, fixed = b"".join(struct.pack("<q", len(text)) for text in texts), b"".join(texts)
        else:
            fixed = b"".join(struct.pack(code, value or 0) for value in values)
        whole = f'["c1","{kind}",3]'.encode() + b"".join(blake3(part).digest() for part in (validity, lengths, fixed))
        described.append([name, kind, "c1:" + blake3(whole).hexdigest()])
    table = pa.table({name: pa.array(values) for name, (_, _, values) in columns.items()})
    assert [[c.name, c.type, c.digest] for c in content(table).columns] == described
    plain = {"columns": described, "hash": "c1", "rows": 3}
    body = json.dumps(plain, separators=(",", ":")).encode()
    assert content(table).id == "snap_" + blake3(body).hexdigest()[:32]


GOLDEN = "snap_9727984e609e9acb1227ebeaba8febab"


# Files


def test_a_written_snapshot_reads_back_with_its_content(tmp_path):
    table = pa.table({"a": [1, 2], "t": ["x", None]})
    write(content(table), table, tmp_path / "s.parquet")
    found, again = load(tmp_path / "s.parquet")
    assert found == content(table)
    assert again.equals(table)
    assert [path.name for path in tmp_path.iterdir()] == ["s.parquet"]


@settings(quick, max_examples=20)
@given(table=tables(), cuts=st.lists(st.integers(0, 100), max_size=3))
def test_equal_content_is_equal_bytes(tmp_path_factory, table, cuts):
    folder = tmp_path_factory.mktemp("s")
    write(content(table), table, folder / "one")
    other = in_pieces(table, cuts).replace_schema_metadata({"pandas": "whatever"})
    for position, name in enumerate(other.column_names):
        if pa.types.is_string(other.schema.field(name).type):
            other = other.set_column(position, name, other[name].cast(pa.large_string()).dictionary_encode())
    write(content(other), other, folder / "two")
    assert (folder / "one").read_bytes() == (folder / "two").read_bytes()
    assert load(folder / "one")[0] == content(table)


def test_a_damaged_snapshot_is_refused_and_the_column_named(tmp_path):
    table = pa.table({"a": [1, 2], "b": [1.0, 2.0]})
    other = table.set_column(1, "b", pa.array([1.0, 2.0 + 1e-12]))
    described = {METADATA_KEY: json.dumps(content(table).as_plain()).encode()}
    pq.write_table(other.replace_schema_metadata(described), tmp_path / "s.parquet")
    with pytest.raises(SnapshotDamaged, match="b changed"):
        load(tmp_path / "s.parquet")
    pq.write_table(table, tmp_path / "plain.parquet")
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "s.parquet").read_bytes()[:-20])
    for name in ("plain", "torn"):
        with pytest.raises(SnapshotDamaged):
            load(tmp_path / f"{name}.parquet")


def test_a_newer_format_is_refused_by_name():
    plain = content(pa.table({"a": [1]})).as_plain()
    assert Content.from_plain(json.loads(json.dumps(plain))) == content(pa.table({"a": [1]}))
    with pytest.raises(SnapshotTooNew, match="format 2"):
        Content.from_plain({"format": 2})
    for damaged in ({}, plain | {"rows": 2}, plain | {"columns": None}):
        with pytest.raises(SnapshotDamaged):
            Content.from_plain(damaged)


def test_a_failed_write_leaves_nothing(tmp_path):
    table = pa.table({"a": [1]})
    with pytest.raises(OSError):
        write(content(table), table, tmp_path / "missing" / "s.parquet")
    assert list(tmp_path.iterdir()) == []


# Differences


def test_a_difference_names_columns_rows_and_cells():
    before = pa.table({"a": [1, 2, 3], "b": [1.0, None, float("nan")], "gone": [1, 2, 3], "kind": [1, 2, 3]})
    after = pa.table(
        {
            "b": [1.0, 5.0, float("nan"), 9.0],
            "a": [1, 2, 3, 4],
            "kind": pa.array([1, 2, 3, 4], pa.int32()),
            "new": [True] * 4,
        }
    )
    found = diff(content(before), content(after), before, after)
    assert (found.rows_before, found.rows_after, found.compared) == (3, 4, 3)
    assert (found.added, found.removed) == (("new",), ("gone",))
    assert found.retyped == (("kind", "int64", "int32"),)
    assert found.reordered
    assert {change.name: (change.cells, change.examples) for change in found.changed} == {
        "a": (0, ()),
        "b": (1, ((1, None, 5.0),)),
    }
    assert "changed: b, 1 of 3 cells\n  row 1: None -> 5.0" in str(found)
    assert json.loads(json.dumps(found.as_plain()))["retyped"] == [
        {"name": "kind", "before": "int64", "after": "int32"}
    ]


def test_a_difference_without_tables_still_names_the_column():
    before = pa.table({"a": [1.0, 2.0], "b": [1, 2]})
    after = before.set_column(0, "a", pa.array([1.0, 2.0 + 1e-12]))
    found = diff(content(before), content(after))
    assert [(change.name, change.cells) for change in found.changed] == [("a", None)]
    assert diff(content(before), content(before)).same


# Files larger than memory


@settings(quick, max_examples=25)
@given(table=tables(), groups=st.integers(1, 5))
def test_a_file_hashed_piece_by_piece_has_the_content_of_its_table(tmp_path_factory, table, groups):
    path = tmp_path_factory.mktemp("t") / "t.parquet"
    pq.write_table(table, path, row_group_size=groups)
    assert content_of_parquet(path) == content(pq.read_table(path))


def test_a_column_name_with_a_dot_is_read_as_itself(tmp_path):
    table = pa.table({"a.b": [1, 2], "a": [{"b": 3}, {"b": 4}], "s": [[{"x": "y"}], None]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert content_of_parquet(tmp_path / "t.parquet") == content(table)


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(SnapshotDamaged, match=r"t\.parquet"):
        content_of_parquet(tmp_path / "t.parquet")
    with pytest.raises(FileNotFoundError):
        content_of_parquet(tmp_path / "none.parquet")


MEASURED = """
import sys
from pathlib import Path
import pyarrow, pyarrow.compute, pyarrow.parquet, blake3, numpy
from seatrial.data.snapshot import content_of_parquet
def peak():  # not ru_maxrss, which starts with the memory of the parent
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
small, large = map(Path, sys.argv[1:])
content_of_parquet(small)
before = peak()
content_of_parquet(large)
print((peak() - before) // 1024)
"""


def test_a_file_is_hashed_in_64_mib_however_large_its_row_groups_are(tmp_path):
    rows = 500_000
    random = np.random.default_rng(1)
    texts = pa.array([f"{i:064d}" for i in range(1000)]).take(pa.array(random.integers(0, 1000, rows)))
    table = pa.table({**{f"x{i}": random.normal(size=rows) for i in range(20)}, "t": texts})
    assert table.nbytes > 100 << 20
    pq.write_table(table.slice(0, 1000), tmp_path / "small.parquet")
    pq.write_table(table, tmp_path / "large.parquet", row_group_size=rows)  # all in one row group
    words = [sys.executable, "-c", MEASURED, str(tmp_path / "small.parquet"), str(tmp_path / "large.parquet")]
    extra = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert extra <= 64
