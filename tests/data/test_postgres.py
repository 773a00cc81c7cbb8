"""Rows of a real PostgreSQL server: right types, one order, nothing written, and no password anywhere."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import traceback
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatrial import Entity, PostgresSource, Project, QuerySource, SetAside, agg, feature_view
from seatrial.core.clock import FixedClock
from seatrial.core.errors import SeatrialError, Unavailable
from seatrial.data import snapshot
from seatrial.data.given import RowWrongType
from seatrial.data.reading import (
    BadQuery,
    ColumnDuplicated,
    ColumnWrongType,
    DataWarning,
    LoginRefused,
    SourceEmpty,
    SourceMissing,
    SourceUnavailable,
    SourceUnreadable,
    read,
)
from seatrial.data.sources import BadSource, ColumnMissing, without_password
from tests.data.postgres_server import PASSWORD, PostgresServer, Proxy

UTC_US = pa.timestamp("us", tz="UTC")


@pytest.fixture(scope="module")
def server():
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture
def source(server, monkeypatch):
    """Makes sources at the server, whose address is in a variable."""
    monkeypatch.setenv("DATABASE_URL", server.url)
    server.run("DROP SCHEMA IF EXISTS public CASCADE", "CREATE SCHEMA public")

    def make(*statements, **declared):
        server.run(*statements)
        declared.setdefault("url", "${DATABASE_URL}")
        return PostgresSource(**({"table": "t"} if "sql" not in declared else {}) | declared)

    return make


def rows(source, folder="/", **given):
    return read(source, folder=Path(folder), **given).table


# Types


def test_every_type_that_is_read_comes_as_its_own(source):
    t = source(
        "CREATE TYPE mood AS ENUM ('sad', 'happy')",
        "CREATE DOMAIN grade AS integer CHECK (VALUE > 0)",
        "CREATE TABLE t (b boolean, i2 smallint, i4 integer, i8 bigint, f4 real, f8 double precision, n numeric(12,3), "
        "free numeric, huge numeric(50,2), s text, v varchar(9), c char(3), u uuid, j json, jb jsonb, m mood, g grade, "
        "raw bytea, ib integer[], fb float8[], tb text[], nb numeric[], mb mood[], bb boolean[])",
        "INSERT INTO t VALUES (true, -7, 8, 9007199254740993, 1.5, 0.1, 123456789.125, 1.25, 2.5, "
        "'é''\"%s', 'v', 'c', "
        "'00000000-0000-0000-0000-000000000001', '{\"a\":  1}', '{\"b\":1,\"a\":2}', 'happy', 3, '\\x00ff', "
        "'{1,NULL}', '{0.1}', '{\"x\",NULL,\"\"}', '{1.5}', '{sad}', '{t,f}')",
        "INSERT INTO t VALUES (NULL)",
        "INSERT INTO t VALUES ('f', 1)",
    )
    found = rows(t)
    assert dict(zip(found.column_names, found.schema.types, strict=True)) == {
        "b": pa.bool_(), "i2": pa.int16(), "i4": pa.int32(), "i8": pa.int64(), "f4": pa.float32(), "f8": pa.float64(),
        "n": pa.decimal128(12, 3), "free": pa.float64(), "huge": pa.float64(), "s": pa.string(), "v": pa.string(),
        "c": pa.string(), "u": pa.string(), "j": pa.string(), "jb": pa.string(), "m": pa.string(), "g": pa.int32(),
        "raw": pa.binary(), "ib": pa.list_(pa.int32()), "fb": pa.list_(pa.float64()), "tb": pa.list_(pa.string()),
        "nb": pa.list_(pa.float64()), "mb": pa.list_(pa.string()), "bb": pa.list_(pa.bool_()),
    }  # fmt: skip
    assert found.to_pylist()[1] == {
        "b": True, "i2": -7, "i4": 8, "i8": 9007199254740993, "f4": 1.5, "f8": 0.1, "n": Decimal("123456789.125"),
        "free": 1.25, "huge": 2.5, "s": "é'\"%s", "v": "v", "c": "c", "u": "00000000-0000-0000-0000-000000000001",
        "j": '{"a":  1}', "jb": '{"a": 2, "b": 1}', "m": "happy", "g": 3, "raw": b"\0\xff", "ib": [1, None],
        "fb": [0.1], "tb": ["x", None, ""], "nb": [1.5], "mb": ["sad"], "bb": [True, False],
    }  # fmt: skip
    assert set(found.to_pylist()[2].values()) == {None}
    assert snapshot.content(found).rows == 3


def test_nan_is_null_and_infinity_stays(source):
    t = source(
        "CREATE TABLE t (i int, f float8, n numeric(9,2), m numeric)",
        "INSERT INTO t VALUES (1, 'NaN', 'NaN', 'NaN'), (2, 'infinity', 1, 'infinity')",
    )
    assert rows(t).to_pylist() == [
        {"i": 1, "f": None, "n": None, "m": None},
        {"i": 2, "f": float("inf"), "n": Decimal("1.00"), "m": float("inf")},
    ]


def test_times_follow_the_rules_of_every_source(source):
    statements = (
        "CREATE TABLE t (i int, z timestamptz, n timestamp, d date)",
        "INSERT INTO t VALUES (1, '2013-07-01 06:00:00.000001+02', '2013-07-01 06:00:00.999999', '2013-07-01'), "
        "(2, '0044-03-15 12:00:00+00 BC', NULL, NULL)",
    )
    with pytest.warns(DataWarning, match="n, d carry no time zone"):
        found = rows(source(*statements))
    assert found.schema.types[1:] == [UTC_US] * 3
    assert found.slice(0, 1).to_pylist() == [
        {
            "i": 1,
            "z": datetime(2013, 7, 1, 4, 0, 0, 1, tzinfo=UTC),
            "n": datetime(2013, 7, 1, 6, 0, 0, 999999, tzinfo=UTC),
            "d": datetime(2013, 7, 1, tzinfo=UTC),
        }
    ]
    assert found["z"].cast(pa.int64())[1].as_py() == np.datetime64("-0043-03-15T12:00", "us").astype(int)
    local = rows(PostgresSource(url="${DATABASE_URL}", table="t", timezone="America/New_York"))
    assert local["n"][0].as_py() == datetime(2013, 7, 1, 10, 0, 0, 999999, tzinfo=UTC)


@given(times=st.lists(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), min_size=1, max_size=20))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_instant_comes_back_to_the_microsecond(server, source, times):
    server.run("DROP TABLE IF EXISTS t", "CREATE TABLE t (i int, z timestamptz, n timestamp, d date)")
    with psycopg.connect(server.url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO t VALUES (%s, %s, %s, %s)",
            [(i, one.replace(tzinfo=UTC), one, one.date()) for i, one in enumerate(times)],
        )
    found = rows(PostgresSource(url=server.url, table="t", timezone="UTC"))
    assert found["z"].to_pylist() == found["n"].to_pylist() == [one.replace(tzinfo=UTC) for one in times]
    assert [one.date() for one in found["d"].to_pylist()] == [one.date() for one in times]


def test_a_query_counts_days_in_utc_whatever_the_server_thinks(source, server):
    sql = "SELECT z::date::text AS day, z::text AS at FROM t"
    t = source("CREATE TABLE t (z timestamptz)", "INSERT INTO t VALUES ('2013-01-01T23:30:00Z')", name="q", sql=sql)
    server.run("ALTER ROLE seatrial SET TimeZone = 'Asia/Tokyo'", "ALTER ROLE seatrial SET DateStyle = 'German'")
    try:
        assert rows(t).to_pylist() == [{"day": "2013-01-01", "at": "2013-01-01 23:30:00+00"}]
    finally:
        server.run("ALTER ROLE seatrial RESET ALL")


@pytest.mark.parametrize("kind", ["time", "interval", "money", "point", "int4range", "timestamptz[]", "inet", "date[]"])
def test_another_type_is_refused_by_column_and_type(source, kind):
    t = source(f"CREATE TABLE t (i int, odd {kind})", "INSERT INTO t VALUES (1, NULL)")
    with pytest.raises(ColumnWrongType) as caught:
        rows(t)
    assert f"column 'odd' of source 't' has the type {kind}" in str(caught.value)
    assert rows(t, columns=["i"]).to_pylist() == [{"i": 1}]


@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamptz"])
@pytest.mark.parametrize("sign", ["", "-"])
def test_an_infinite_time_is_refused_by_column_with_what_to_do(source, kind, sign):
    t = source(f"CREATE TABLE t (at {kind})", f"INSERT INTO t VALUES ('{sign}infinity'), (now())")
    with pytest.raises(ColumnWrongType, match=r"'at' .* 'infinity' in 1 rows") as caught:
        rows(t)
    assert "isfinite" in caught.value.next


def test_arrays_of_several_dimensions_are_refused_by_column(source):
    t = source("CREATE TABLE t (grid int[])", "INSERT INTO t VALUES ('{{1,2},{3,4}}')")
    with pytest.raises(ColumnWrongType, match=r"'grid' .*several dimensions"):
        rows(t)


# Order and content


def test_the_content_does_not_hang_on_how_the_server_stores_the_rows(source, server):
    t = source("CREATE TABLE t (k text, n int, f float8, j json, l int[])")
    values = [
        f"('{k}', {n}, {f}, '{{}}', '{{{n}}}')" for k in "aBbÄ" for n in ("1", "NULL", "-3") for f in ("0.5", "2")
    ]
    ids = set()
    for seed in range(3):
        random.Random(seed).shuffle(values)
        server.run("TRUNCATE t", f"INSERT INTO t VALUES {', '.join(values)}", "UPDATE t SET n = n WHERE n = 1")
        ids.add(snapshot.content(rows(t)).id)
    assert len(ids) == 1
    assert rows(t)["k"].to_pylist()[::6] == ["B", "a", "b", "Ä"]


def test_a_declared_order_counts_first(source):
    t = source("CREATE TABLE t (a int, b text)", "INSERT INTO t VALUES (1, 'z'), (2, 'y'), (3, 'y')", order_by=["b"])
    assert rows(t)["a"].to_pylist() == [2, 3, 1]
    assert rows(t, columns=["a"])["a"].to_pylist() == [2, 3, 1]
    with pytest.raises(ColumnMissing, match="no column 'c'"):
        rows(PostgresSource(url=t.url, table="t", order_by=["c"]))


def test_more_rows_than_a_batch_come_whole(source):
    t = source("CREATE TABLE t AS SELECT i, i::text AS s FROM generate_series(25001, 1, -1) i")
    assert rows(t)["i"].to_pylist() == list(range(1, 25_002))


def test_all_rows_are_of_one_instant(source, server):
    """Another writer commits while batches are fetched: none of its rows is seen."""
    t = source("CREATE TABLE t AS SELECT i FROM generate_series(1, 30000) i")
    from seatrial.data import postgres

    original, wrote = postgres._array, []

    def between(*arguments):
        if not wrote:
            server.run("INSERT INTO t SELECT i FROM generate_series(1, 30000) i", "DELETE FROM t WHERE i > 20000")
            wrote.append(True)
        return original(*arguments)

    postgres._array = between
    try:
        assert rows(t).num_rows == 30_000
    finally:
        postgres._array = original
    assert rows(t).num_rows == 40_000


# What is read


def test_a_query_of_the_server_is_a_source(source):
    t = source(
        "CREATE SCHEMA IF NOT EXISTS shop",
        "DROP TABLE IF EXISTS shop.orders",
        'CREATE TABLE shop.orders (id int, "Odd ""name" int)',
        "INSERT INTO shop.orders VALUES (1, 5), (2, 6)",
        name="big",
        sql="SELECT id, 'a%b' AS s FROM shop.orders WHERE id > 1; -- the new ones",
    )
    with pytest.raises(BadQuery):
        rows(t)  # a semicolon before a comment makes two statements of it
    t = PostgresSource(name="big", url=t.url, sql="SELECT id, 'a%b' AS s FROM shop.orders WHERE id > 1 -- new\n;")
    assert rows(t).to_pylist() == [{"id": 2, "s": "a%b"}]
    whole = PostgresSource(url=t.url, table="shop.orders", set_aside=[SetAside("id > 1", "why")])
    assert whole.name == "orders"
    assert rows(whole).to_pylist() == [{"id": 1, 'Odd "name': 5}]
    over = QuerySource(name="q", sql="SELECT sum(id) AS n FROM o", tables={"o": whole})
    assert rows(over).to_pylist() == [{"n": 1}]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM t",
        "SELECT 1; DELETE FROM t",
        "SELECT 1) AS q; DELETE FROM t; SELECT * FROM (SELECT 1",
        "SELECT 1) AS q; COMMIT; DELETE FROM t; SELECT * FROM (SELECT 1",
        "WITH gone AS (DELETE FROM t RETURNING a) SELECT * FROM gone",
        "SELECT nextval('s')",
        "SELEC 1",
        "SELECT nothing FROM t",
        "SELECT * FROM nowhere",
        "SELECT 1/0 AS a",
        "SELECT 1 AS a, 2 AS b)",
    ],
)
def test_sql_that_fails_or_writes_is_refused_and_changes_nothing(source, sql):
    t = source("CREATE TABLE t (a int)", "CREATE SEQUENCE s", "INSERT INTO t VALUES (1)", name="q", sql=sql)
    with pytest.raises(BadQuery) as caught:
        rows(t)
    assert "\n" not in caught.value.found
    assert rows(PostgresSource(url=t.url, table="t")).num_rows == 1


def test_columns_of_one_name_are_refused(source):
    with pytest.raises(ColumnDuplicated):
        rows(source(name="q", sql="SELECT 1 AS a, 2 AS a"))
    with pytest.raises(ColumnDuplicated):
        rows(source(name="q", sql='SELECT 1 AS a, 2 AS "A"'))


def test_an_empty_table_is_an_error(source):
    with pytest.raises(SourceEmpty, match="source 't' has no rows"):
        rows(source("CREATE TABLE t (a int)"))


def test_a_missing_table_or_column_is_named_with_those_there_are(source):
    t = source("CREATE TABLE orders (id int)", "INSERT INTO orders VALUES (1)", table="order")
    with pytest.raises(SourceMissing, match="no table 'order'") as caught:
        rows(t)
    assert "Did you mean 'orders'?" in caught.value.expected
    with pytest.raises(ColumnMissing, match="no column 'at'"):
        rows(PostgresSource(url=t.url, table="orders", event_timestamp="at"))
    with pytest.raises(ColumnMissing, match="no column 'ids'"):
        rows(PostgresSource(url=t.url, table="orders"), columns=["ids"])


def test_only_the_wanted_columns_are_fetched(source):
    t = source("CREATE TABLE t (a int, b int, c interval)", "INSERT INTO t VALUES (1, 2), (0, 3)")
    assert rows(t, columns=["b"]).to_pylist() == [{"b": 3}, {"b": 2}]


# What goes wrong outside


def test_a_server_that_is_down_is_unavailable(source):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    t = PostgresSource(url=f"postgresql://u:{PASSWORD.replace('/', '%2F')}@127.0.0.1:{port}/d", table="t")
    with pytest.raises(SourceUnavailable) as caught:
        rows(t)
    assert isinstance(caught.value, Unavailable)
    assert caught.value.exit_code == 6
    assert_hidden(caught.value)


def test_a_server_that_never_answers_ends_after_the_timeout(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(SourceUnavailable, match="timeout"):
            rows(PostgresSource(url=f"postgresql://u:pw@127.0.0.1:{port}/d?connect_timeout=2", table="t"))


@pytest.mark.parametrize(
    "changed",
    [{"password": "wrong-and-long"}, {"password": PASSWORD, "database": "none"}, {"password": "x9", "user": "who"}],
)
def test_a_refused_login_is_no_matter_of_trying_again(server, changed):
    with pytest.raises(LoginRefused) as caught:
        rows(PostgresSource(url=server.url_of(**changed), table="t"))
    assert not isinstance(caught.value, Unavailable)
    assert_hidden(caught.value, changed["password"])


def test_a_table_that_may_not_be_read_says_so(source, server):
    t = source(
        "CREATE TABLE t (a int)",
        "DROP ROLE IF EXISTS guest",
        "CREATE ROLE guest LOGIN PASSWORD 'g'",
        "GRANT USAGE ON SCHEMA public TO guest",
    )
    with pytest.raises(SourceUnreadable, match="permission denied"):
        rows(PostgresSource(url=server.url_of("g", user="guest"), table="t"))
    assert t.name == "t"


def test_a_connection_that_is_lost_half_way_is_unavailable(source, server):
    source("CREATE TABLE t AS SELECT i, repeat('x', 100) AS s FROM generate_series(1, 50000) i")
    proxy = Proxy(server.port, after=1_500_000)
    try:
        url = server.url.replace(f":{server.port}/", f":{proxy.port}/")
        with pytest.raises(SourceUnavailable, match="connection was lost") as caught:
            rows(PostgresSource(url=url, table="t"))
    finally:
        proxy.close()
    assert_hidden(caught.value)


def test_a_query_that_the_server_stops_is_unavailable(source, server):
    url = f"{server.url}?options=-c%20statement_timeout%3D50"
    with pytest.raises(SourceUnavailable, match="statement timeout"):
        rows(PostgresSource(name="slow", url=url, sql="SELECT pg_sleep(20)::text AS a"))


# The address


def assert_hidden(error, *passwords):
    said = [str(error), repr(error), json.dumps(error.as_problem()), repr(error.facts)]
    said.append("".join(traceback.format_exception(error)))
    for password in (PASSWORD, "s3cret%2Fp@ss", "s3cret%2Fp%40ss", *passwords):
        assert all(password not in one for one in said)


def test_the_password_is_never_shown(server, source, tmp_path):
    t = source("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)", url=server.url)
    shown = [repr(t), str(t), json.dumps(t.as_plain())]
    with Project(tmp_path, definitions=[t]) as project:
        taken = project.snapshot()
        shown.append(repr(taken))
        shown += [msgspec.json.encode(project.metadata.record(one.id)).decode() for one in taken]
    shown += [path.read_bytes().decode(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    for one in shown:
        assert PASSWORD not in one
        assert "s3cret" not in one
    with pytest.raises(SeatrialError) as caught:
        rows(PostgresSource(name="q", url=server.url, sql=f"SELECT '{PASSWORD}'::int AS a"))
    assert_hidden(caught.value)


@pytest.mark.parametrize(
    "url",
    ["postgresql//u:hidden@h/d", "postgresql://u:hidden@h:x/d?what=1", "user=u password=hidden wrong", "p=hidden", 5],
)
def test_an_address_that_is_none_is_refused_without_being_shown(url):
    with pytest.raises(BadSource) as caught:
        rows(PostgresSource(url=url, table="t"))
    assert "hidden" not in str(caught.value)
    assert "hidden" not in "".join(traceback.format_exception(caught.value))


@given(
    password=st.text(st.characters(codec="ascii", min_codepoint=33), min_size=8),
    user=st.from_regex(r"[a-z]{1,9}", fullmatch=True),
)
def test_no_password_survives_in_any_form_of_address(password, user):
    from urllib.parse import quote

    password = "Secret" + password
    escaped = quote(password, safe="")
    words = password.replace("\\", "\\\\").replace("'", "\\'")
    for url in (
        f"postgresql://{user}:{escaped}@host/db",
        f"postgresql://{user}:{password}@host/db",
        f"postgresql://{user}@host/db?password={escaped}&sslmode=require",
        f"host=h password='{words}' user={user}",
    ):
        assert "Secret" not in without_password(url)


def test_an_address_without_a_password_stays_as_it_is():
    for url in ("${DATABASE_URL}", "postgresql://u@h:5432/d", "postgresql:///d?host=/run", "host=h dbname=d"):
        assert without_password(url) == url
    assert without_password("postgresql://u:pw@h:5432/d") == "postgresql://u@h:5432/d"


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(BadSource, match="variable DATABASE_URL, which is not set"):
        rows(PostgresSource(url="${DATABASE_URL}", table="t"))


def test_a_variable_may_be_a_part_of_the_address_and_is_no_part_of_the_declaration(server, source, monkeypatch):
    t = source("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    monkeypatch.setenv("PGPW", server.url.split(":")[2].split("@")[0])
    url = f"postgresql://seatrial:${{PGPW}}@{server.host}:{server.port}/postgres"
    assert rows(PostgresSource(url=url, table="t")).num_rows == 1
    assert t.as_plain()["url"] == "${DATABASE_URL}"


@pytest.mark.parametrize(
    "declared",
    [{}, {"table": "t", "sql": "SELECT 1"}, {"table": "a.b.c"}, {"table": "t", "order_by": "a"}, {"table": " "}],
)
def test_a_bad_declaration_is_refused(declared):
    with pytest.raises(BadSource):
        PostgresSource(name="p", url="${DATABASE_URL}", **declared)


def test_a_quoted_table_name_may_hold_dots():
    assert PostgresSource(url="u", table='"my.schema"."odd ""name"').table_parts == ["my.schema", 'odd "name']


def test_declaring_a_source_loads_no_driver():
    code = "import sys; from seatrial import PostgresSource; PostgresSource(url='u', table='t');"
    code += "import seatrial.data.reading; print([n for n in ('psycopg', 'pyarrow') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_driver_the_extra_is_named():
    code = "import sys, importlib.util as u; find = u.find_spec\n"
    code += "u.find_spec = lambda name, *a: None if name in ('psycopg', 'deltalake') else find(name, *a)\n"
    code += "from pathlib import Path; from seatrial import PostgresSource, DeltaSource\n"
    code += "from seatrial.data.reading import read\n"
    code += "for one in (PostgresSource(url='u', table='t'), DeltaSource('d')):\n"
    code += "    try: read(one, folder=Path())\n    except Exception as error: print(error)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for extra in ("postgres", "delta"):
        assert f'pip install "seatrial[{extra}]"' in done.stdout
    assert done.stdout.count("SourceExtraMissing [data.extra_missing]") == 2


def test_a_view_over_a_table_of_the_server_takes_pushed_rows(source, tmp_path):
    sales = source(
        "CREATE TABLE t (at timestamptz, shop int, receipt text, amount numeric(9,2), tags text[])",
        "INSERT INTO t VALUES ('2024-01-01T12:00Z', 7, 'r0', 1.5, '{a}')",
        event_timestamp="at",
        event_key=["receipt"],
    )

    @feature_view(entity=Entity("shop"), source=sales)
    class till:
        total = agg.sum("amount", window="7d")

    row = {"at": "2024-01-01T13:00:00Z", "shop": 7, "receipt": "r1", "amount": 2.55, "tags": ["x", None]}
    with Project(tmp_path, clock=FixedClock(datetime(2024, 1, 2, tzinfo=UTC)), definitions=[till]) as project:
        assert [one.written for one in project.materialize()] == [1]
        assert [one.written for one in project.push("till", [row])] == [1]
        with pytest.raises(RowWrongType, match="'tags'"):
            project.push("till", [row | {"tags": [1]}])
