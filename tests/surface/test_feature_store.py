"""The reference's feature store: point-in-time, online, statistics; and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from seatrial.core.clock import FixedClock, NaiveTime
from seatrial.core.records import Record
from seatrial.data.reading import BadQuery, DataWarning, SourceMissing
from seatrial.data.sources import ColumnMissing
from seatrial.features.definitions import BadDefinition, Entity
from seatrial.features.join import KeyMissing
from seatrial.surface import FeatureStore
from seatrial.surface.feature_store import (
    BadEntityKeys,
    BadFeature,
    BadTransformation,
    UnknownFeature,
    UnknownOnlineStore,
    ViewTooNew,
)
from tests.surface.worlds import CLOCK, NOON, at, feature, write

# pyarrow 25 reads a frame's times in a way that pandas 3.1 warns of
HISTORY = [
    {"customer_id": 1, "event": at("03-01T00:00"), "spend": 10.0, "visits": 1, "city": "Oslo"},
    {"customer_id": 1, "event": at("03-08T00:00"), "spend": 30.0, "visits": 3, "city": "Rome"},
    {"customer_id": 2, "event": at("03-09T00:00"), "spend": None, "visits": 2, "city": None},
    {
        "customer_id": 3,
        "event": at("03-09T00:00"),
        "created": at("03-10T06:00"),
        "spend": 7.5,
        "visits": 9,
        "city": "Ulm",
    },
]


@pytest.fixture
def store(tmp_path):
    with FeatureStore(tmp_path / "repo", clock=CLOCK) as store:
        yield store


@pytest.fixture
def customers(store, tmp_path):
    """The store with one view of three features."""
    path = write(tmp_path / "customers.parquet", HISTORY)
    features = [feature("spend"), feature("visits", "int"), feature("city", "string")]
    store.register_feature_view("customers", ["customer"], features, path, ttl_days=30)
    return store


def asked(*rows, column="event_timestamp") -> pd.DataFrame:
    return pd.DataFrame({"customer_id": [row[0] for row in rows], column: pd.to_datetime([row[1] for row in rows])})


def test_training_data_are_the_rows_that_were_given_with_features_as_known_then(customers):
    rows = asked((1, at("03-09T00:00")), (3, at("03-09T12:00")), (1, at("03-02T00:00")), (3, NOON), (99, NOON))
    rows["label"] = [1, 0, 1, 0, 1]
    rows.index = [7, 7, 3, 2, 1]
    given = rows.copy()
    result = customers.get_training_data(rows, ["customers:spend", "customers:city"])
    pd.testing.assert_frame_equal(rows, given)
    pd.testing.assert_frame_equal(result[list(rows)], given)
    assert list(result.columns) == [*rows, "spend", "city"]
    # customer 3's row happened on the 9th but was made on the 10th
    np.testing.assert_array_equal(result["spend"], [30.0, np.nan, 10.0, 7.5, np.nan])
    assert [None if pd.isna(city) else city for city in result["city"]] == ["Rome", None, "Oslo", "Ulm", None]


def test_the_timestamp_column_is_the_one_that_is_named(customers):
    rows = asked((1, at("03-02T00:00")), column="signed_up")
    rows["event_timestamp"] = pd.Timestamp(NOON)
    result = customers.get_training_data(rows, ["customers:spend"], timestamp_column="signed_up")
    assert result["spend"].tolist() == [10.0]


def test_a_time_without_a_zone_is_read_as_utc_and_said_so(customers):
    rows = asked((1, "2024-03-02T00:00"))
    with pytest.warns(DataWarning, match="event_timestamp"):
        assert customers.get_training_data(rows, ["customers:spend"])["spend"].tolist() == [10.0]


def test_online_features_are_those_of_the_join_at_the_same_instant(customers):
    refs = ["customers:visits", "customers:spend", "customers:city"]
    customers.materialize()
    online = customers.get_online_features({"customer_id": np.array([3, 1, 2, 99])}, refs)
    assert list(online) == ["customer_id", "visits", "spend", "city"]
    assert online["customer_id"] == [3, 1, 2, 99]
    assert online["visits"] == [9, 3, 2, None]
    assert online["spend"] == [7.5, 30.0, None, None]
    assert online["city"] == ["Ulm", "Rome", None, None]
    offline = customers.get_training_data(asked((3, NOON), (1, NOON), (2, NOON), (99, NOON)), refs)
    for name in ("visits", "spend", "city"):
        assert [None if pd.isna(value) else value for value in offline[name]] == online[name]
    rows = [{"customer_id": 3}, {"customer_id": 1}, {"customer_id": 2}, {"customer_id": 99}]
    assert customers.get_online_features(rows, refs) == online


def test_materialize_stops_at_its_end_date(customers):
    written = customers.materialize(end_date=at("03-05T00:00"))
    assert [report.written for report in written] == [1]
    assert customers.get_online_features({"customer_id": [1, 2]}, ["customers:spend"])["spend"] == [10.0, None]
    assert customers.materialize()[0].written > 0
    assert [report.written for report in customers.materialize()] == [0]
    with pytest.raises(NaiveTime):
        customers.materialize(end_date=at("03-05T00:00").replace(tzinfo=None))


def test_what_is_pushed_is_served_at_once(customers):
    customers.materialize()
    keys, refs = {"customer_id": [1]}, ["customers:spend"]
    assert customers.get_online_features(keys, refs)["spend"] == [30.0]
    row = {"customer_id": 1, "spend": 55.0, "visits": 4, "city": "Bern"}
    times = {"event_timestamp": at("03-10T11:00"), "created_timestamp": at("03-10T11:00")}
    assert customers.push("customers", [row | times])[0].written == 1
    assert customers.get_online_features(keys, refs)["spend"] == [55.0]
    assert customers.push("customers", pd.DataFrame([row | times]))[0].written == 0


def test_a_transformation_is_computed_from_the_row_offline_online_and_when_pushed(store, tmp_path):
    path = write(tmp_path / "t.parquet", HISTORY)
    features = [
        feature("per_visit", transformation="spend / visits -- each"),
        feature("big", "int", transformation="CASE WHEN spend > 20 THEN 1 ELSE 0 END"),
        feature("place", "string", transformation="upper(city) || '!'"),
        feature("spend", transformation="spend * 100"),
    ]
    store.register_feature_view("t", ["customer"], features, path, 30)
    refs = [f"t:{one.name}" for one in features]
    expected = {"per_visit": 10.0, "big": 1, "place": "ROME!", "spend": 3000.0}
    assert store.get_training_data(asked((1, NOON)), refs)[list(expected)].iloc[0].to_dict() == expected
    store.materialize()
    online = store.get_online_features({"customer_id": [1]}, refs)
    assert {name: values[0] for name, values in online.items() if name != "customer_id"} == expected
    times = {"event_timestamp": NOON, "created_timestamp": NOON}
    store.push("t", [{"customer_id": 1, "spend": 4.0, "visits": 2, "city": "Bonn"} | times])
    assert store.get_online_features({"customer_id": [1]}, refs)["per_visit"] == [2.0]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("avg(spend) OVER (PARTITION BY customer_id)", "other rows"),
        ("(SELECT max(spend) FROM rows)", "other rows"),
        ("sum(spend)", "spend|GROUP BY|group"),
        ("random() * spend", "another value every time"),
        ("now() - event_timestamp", "another value every time"),
        ("current_date - event_timestamp", "no column"),
        ("spendd * 2", "Did you mean 'spend'"),
        ("spend) AS x, (visits", "not one expression"),
        ("spend) AS x FROM rows UNION ALL SELECT (visits", "not one expression"),
        ("spend +", "syntax|Parser"),
    ],
)
def test_a_transformation_that_is_no_expression_over_one_row_is_refused(store, tmp_path, sql, reason):
    path = write(tmp_path / "t.parquet", HISTORY)
    with pytest.raises(BadTransformation, match=reason):
        store.register_feature_view("t", ["customer"], [feature("x", transformation=sql)], path, 30)
    assert store.views() == {}


def test_each_feature_keeps_its_own_ttl(store, tmp_path):
    path = write(tmp_path / "c.parquet", HISTORY)
    features = [
        feature("spend", ttl_days=1),
        feature("visits", "int", ttl_days=90),
        feature("city", "string", ttl_days=4.5),
    ]
    store.register_feature_view("c", ["customer"], features, path, ttl_days=5)
    refs = ["c:spend", "c:visits", "c:city"]
    rows = asked(
        *[(1, at(f"03-{day}")) for day in ("09T00:00", "09T00:01", "12T12:00", "12T12:01", "13T00:00", "13T00:01")]
    )
    result = store.get_training_data(rows, refs)
    assert result["spend"].notna().tolist() == [True, False, False, False, False, False]
    assert result["city"].notna().tolist() == [True, True, True, False, False, False]
    assert result["visits"].notna().tolist() == [True, True, True, True, True, False]
    store.materialize()
    online = store.get_online_features({"customer_id": [1]}, refs)  # at noon of the 10th
    assert (online["spend"], online["visits"], online["city"]) == ([None], [3], ["Rome"])


def test_columns_are_named_by_feature_unless_the_name_is_taken(customers, tmp_path):
    path = write(tmp_path / "more.parquet", [{"customer_id": 1, "event": at("03-08T00:00"), "spend": 1.0, "age": 40}])
    customers.register_feature_view("more", "customer", [feature("spend"), feature("age", "int")], path)
    rows = asked((1, NOON))
    refs = ["customers:spend", "more:spend", "more:age"]
    expected = ["customers__spend", "more__spend", "age"]
    assert list(customers.get_training_data(rows, refs).columns[2:]) == expected
    customers.materialize()
    assert list(customers.get_online_features({"customer_id": [1]}, refs))[1:] == expected
    rows["age"] = 1
    assert list(customers.get_training_data(rows, refs).columns[-1:]) == ["more__age"]


def test_an_entity_joins_on_its_id_column_or_on_its_own_keys(store, tmp_path):
    rows = [{"shop_id": "a", "till": 7, "event": at("03-08T00:00"), "takings": 5.0}]
    path = write(tmp_path / "tills.parquet", rows)
    takings = feature("takings", entity="till")
    store.register_feature_view("tills", ["shop", Entity("till")], [takings], path)
    keys = {"shop_id": ["a", "b"], "till": [7, 7]}
    store.materialize()
    assert store.get_online_features(keys, ["tills:takings"])["takings"] == [5.0, None]
    frame = pd.DataFrame(keys | {"event_timestamp": [pd.Timestamp(NOON)] * 2})
    np.testing.assert_array_equal(store.get_training_data(frame, ["tills:takings"])["takings"], [5.0, np.nan])
    with pytest.raises(KeyMissing, match="till"):
        store.get_training_data(frame.drop(columns="till"), ["tills:takings"])


def test_another_process_that_opens_the_folder_has_the_views(customers):
    customers.materialize()
    with FeatureStore(customers.project.folder, clock=CLOCK) as other:
        assert other.get_online_features({"customer_id": [1]}, ["customers:city"])["city"] == ["Rome"]
    with FeatureStore(customers.project.folder, clock=FixedClock(at("05-10T00:00"))) as later:
        assert later.get_online_features({"customer_id": [1]}, ["customers:city"])["city"] == [None]


def test_registering_again_replaces_a_view_and_the_same_changes_nothing(customers, tmp_path):
    path = write(tmp_path / "new.parquet", HISTORY)
    features = [feature("doubled", transformation="2 * spend")]
    for _ in range(2):
        customers.register_feature_view("customers", ["customer"], features, path, 30)
    assert list(customers.views()["customers"].features) == ["doubled"]
    registered = customers.project.metadata.events(kind="feature_view.registered")
    assert len(registered) == 2
    assert customers.project.audit_verify().first_bad is None


def test_statistics_are_those_of_pandas_for_every_width_of_number(store, tmp_path):
    random = np.random.default_rng(0)
    rows = [
        {
            "customer_id": int(n % 7),
            "event": at(f"03-{1 + n % 9:02}T00:00"),
            **{
                name: None if name != "b" and random.random() < 0.2 else int(random.integers(0, 100)) for name in "abcd"
            },
            "word": "x",
        }
        for n in range(200)
    ]
    path = write(tmp_path / "wide.parquet", rows, a=pa.float32(), b=pa.int32(), c=pa.int16(), d=pa.float64())
    features = [feature("a"), feature("b", "int"), feature("c", "int"), feature("d"), feature("word", "string")]
    store.register_feature_view("wide", ["customer"], features, path)
    found = store.compute_feature_statistics("wide", at("03-02T00:00"), "2024-03-06T00:00:00Z")
    assert list(found) == ["a", "b", "c", "d"]
    frame = pd.DataFrame(rows)
    frame = frame[(frame["event"] >= at("03-02T00:00")) & (frame["event"] < at("03-06T00:00"))]
    for name, statistics in found.items():
        values = frame[name].astype(float)
        expected = {
            "mean": values.mean(),
            "std": values.std(),
            "min": values.min(),
            "max": values.max(),
            "null_rate": values.isna().mean(),
            "p25": values.quantile(0.25),
            "p50": values.quantile(0.5),
            "p75": values.quantile(0.75),
        }
        assert statistics["distinct_count"] == values.nunique()
        histogram = statistics["histogram"]
        assert sum(histogram["counts"]) == values.notna().sum()
        assert (histogram["edges"][0], histogram["edges"][-1]) == (values.min(), values.max())
        assert {key: statistics[key] for key in expected} == pytest.approx(expected)
        assert set(statistics) == {*expected, "distinct_count", "histogram"}
    empty = store.compute_feature_statistics("wide", at("04-02T00:00"), at("04-06T00:00"))["a"]
    assert (empty.pop("distinct_count"), empty.pop("histogram")) == (0, {"edges": [], "counts": []})
    assert all(math.isnan(value) for value in empty.values())
    with pytest.raises(NaiveTime):
        store.compute_feature_statistics("wide", "2024-03-02T00:00:00", NOON)


def test_a_definition_that_cannot_work_is_refused(store, tmp_path):
    path = write(tmp_path / "c.parquet", HISTORY)
    with pytest.raises(BadFeature, match="'flaot'"):
        feature("spend", "flaot")
    with pytest.raises(BadFeature, match="ttl_days"):
        feature("spend", ttl_days=0)
    with pytest.raises(BadFeature, match="merchant"):
        store.register_feature_view("c", ["customer"], [feature("spend", entity="merchant")], path)
    with pytest.raises(BadFeature, match="no feature"):
        store.register_feature_view("c", ["customer"], [], path)
    with pytest.raises(BadFeature, match="two features"):
        store.register_feature_view("c", ["customer"], [feature("spend"), feature("spend")], path)
    with pytest.raises(BadFeature, match="named like a key"):
        store.register_feature_view("c", ["customer"], [feature("customer_id", "int")], path)
    with pytest.raises(BadDefinition):
        store.register_feature_view("bad__name", ["customer"], [feature("spend")], path)
    moved = write(tmp_path / "m.parquet", [{"id": 1, "event": NOON, "spend": 1.0}])
    with pytest.raises(ColumnMissing, match="customer_id"):
        store.register_feature_view("c", ["customer"], [feature("spend")], moved)
    with pytest.raises(ColumnMissing, match="spending"):
        store.register_feature_view("c", ["customer"], [feature("spending")], path)
    with pytest.raises(SourceMissing):
        store.register_feature_view("c", ["customer"], [feature("spend")], "nowhere.parquet")
    assert store.views() == {}


def test_a_number_that_is_no_whole_number_is_never_rounded_into_an_int(store, tmp_path):
    path = write(tmp_path / "c.parquet", HISTORY)
    with pytest.raises(BadQuery, match=r"spend is declared int and holds 7\.5"):
        store.register_feature_view("c", ["customer"], [feature("spend", "int")], path)
    assert store.views() == {}


def test_what_is_not_registered_cannot_be_asked_for(customers):
    rows = asked((1, NOON))
    for refs in (["customer:spend"], ["customers:spent"], ["spend"], [], "customers:spend"):
        with pytest.raises(UnknownFeature):
            customers.get_training_data(rows, refs)
        with pytest.raises(UnknownFeature):
            customers.get_online_features({"customer_id": [1]}, refs)
    with pytest.raises(UnknownFeature, match="Did you mean 'customers'"):
        customers.compute_feature_statistics("customer", NOON, NOON)


@pytest.mark.parametrize(
    "keys",
    [
        {"customer_id": ["1"]},
        {"customer_id": [1.0]},
        {"customer_id": [True]},
        {"customer": [1]},
        {"customer_id": [1], "other": [1, 2]},
        {"customer_id": "1"},
        {},
        [{"customer_id": 1}, {}],
        [1, 2],
        "customer_id",
        pd.DataFrame({"customer_id": [1]}),
    ],
)
def test_keys_that_would_find_nothing_by_mistake_are_refused(customers, keys):
    with pytest.raises(BadEntityKeys):
        customers.get_online_features(keys, ["customers:spend"])


def test_a_key_of_another_type_than_the_views_is_refused_in_training_too(customers):
    rows = asked(("1", NOON))
    with pytest.raises(KeyMissing):
        customers.get_training_data(rows, ["customers:spend"])


@pytest.mark.parametrize(
    ("config", "address"),
    [
        ({"type": "redis"}, "redis://localhost:6379/0"),
        ({"host": "cache", "port": 6380, "db": 2}, "redis://cache:6380/2"),
        (
            {"type": "redis", "connection_string": "cache:6380,db=1,password=a/b,ssl=true"},
            "rediss://:a%2Fb@cache:6380/1",
        ),
        ({"type": "redis", "connection_string": "redis://cache/3"}, "redis://cache/3"),
        ({"type": "redis", "username": "me", "password": "${PW}"}, "redis://me:${PW}@localhost:6379/0"),
        ("redis://cache:6379/0", "redis://cache:6379/0"),
        ("redis", "redis://localhost:6379/0"),
    ],
)
def test_a_redis_is_named_by_its_address_or_by_its_parts(tmp_path, config, address):
    with FeatureStore(tmp_path, config) as store:
        assert store.project.settings.stores.online == address


def test_features_are_the_same_from_redis_as_from_sqlite(tmp_path, redis_server):
    found = []
    for name, config in (("sqlite", None), ("redis", {"type": "redis", "port": redis_server.port})):
        with FeatureStore(tmp_path / name, config, clock=CLOCK) as store:
            path = write(tmp_path / "customers.parquet", HISTORY)
            store.register_feature_view("customers", "customer", [feature("spend")], path)
            store.materialize()
            found.append(store.get_online_features({"customer_id": [1, 2, 9]}, ["customers:spend"]))
    assert found[0] == found[1] == {"customer_id": [1, 2, 9], "spend": [30.0, None, None]}
    assert not (tmp_path / "redis" / ".seatrial" / "online.db").exists()


def test_an_online_store_that_is_not_known_is_refused(tmp_path):
    for config in ({"type": "dynamodb"}, {"type": "redis", "prot": 1}, "dynamodb://table"):
        with pytest.raises(UnknownOnlineStore):
            FeatureStore(tmp_path, config)
    FeatureStore(tmp_path, {"type": "sqlite"}).close()
    assert list(tmp_path.iterdir()) == []


def test_a_view_of_a_newer_version_is_refused_by_name(customers):
    metadata = customers.project.metadata
    with metadata.transaction() as transaction:
        transaction.add(Record("view_1", "feature_view", "next", (), {}, 2))
        transaction.move("feature_view", "next", "view_1", expected=0)
    with pytest.raises(ViewTooNew, match="format 2"):
        customers.views()
