"""The join on Spark: row by row what the join on one machine gives, for every rule and every kind of source.

One session for all, on two cores of this machine. Histories are those of the local join's tests, which are held against
the rules written as loops.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial import Model, Project
from seatrial.data.expectations import SetAside
from seatrial.data.reading import ColumnWrongType, DataWarning, SourceMissing, SourceUnreadable, read
from seatrial.data.sources import ColumnMissing, CsvSource, FrameSource, ParquetSource, QuerySource
from seatrial.features import spark
from seatrial.features.definitions import Entity, agg, feature_view, sql
from seatrial.features.events import EventKeyMissing, ValueTooLarge
from seatrial.features.join import KeyMissing, as_of
from seatrial.features.plan import plan_view
from tests.features.test_join import HOUR, START, event, event_table, histories, question_table, questions, view_of

pytestmark = [pytest.mark.slow, pytest.mark.needs("java")]

TIME = pa.timestamp("us", tz="UTC")


@pytest.fixture(scope="module")
def session():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what pyspark says of itself while it starts and stops
        with spark.session(master="local[2]") as running:
            yield running


def many_views(source):
    """Every function, three sets of keys, three ttls."""

    @feature_view(entity=Entity("carrier"), source=source, ttl="3h")
    class by_carrier:
        mean_2h = agg.mean("delay", window="2h")
        sum_5h = agg.sum("delay", window="5h", resolution=0.01)
        std_5h = agg.std("delay", window="5h")
        least = agg.min("delay", window="2h")
        most = agg.max("delay", window="5h")
        count_2h = agg.count("delay", window="2h")
        rows_5h = agg.count(window="5h")
        statuses = agg.count_distinct("status", window="5h")
        doubled = agg.mean(sql("delay * 2 + flight"), window="5h")
        last_delay = agg.last("delay")
        last_status = agg.last("status")
        last_2h = agg.last("status", window="2h")
        last_sql = agg.last(sql("upper(status)"))
        hours_since = agg.age()

    @feature_view(entity=Entity("route", keys=["carrier", "origin"]), source=source)
    class by_route:
        mean_5h = agg.mean("delay", window="5h")
        last_delay = agg.last("delay")

    @feature_view(entity=Entity("flight"), source=source, ttl="1h")
    class by_flight:
        last_status = agg.last("status")
        rows_2h = agg.count(window="2h")

    return {view.name: view for view in (by_carrier, by_route, by_flight)}


def nasty(rows, asked, seed):
    """A history with ties, restatements, late rows and nulls, and questions at its very instants, out of order."""
    chosen = random.Random(seed)

    def moment():
        whole = chosen.choice([chosen.randrange(13) * HOUR, chosen.randrange(12 * HOUR)])
        return START + whole + chosen.choice([-1, 0, 0, 0, 1])

    def one():
        return {
            "event": moment(),
            "known": chosen.choice([None, moment(), moment(), moment()]),
            "carrier": chosen.choice(["AA", "UA", "B6", "", "ÖS", None]),
            "origin": chosen.choice(["EWR", "JFK"]),
            "flight": chosen.randrange(60),
            "delay": chosen.choice([None, round(chosen.uniform(-60, 900), 2), float(chosen.randrange(-5, 6))]),
            "status": chosen.choice([None, "late", "on time"]),
        }

    history = [one() for _ in range(rows)]
    picked = [chosen.choice(history) for _ in range(asked)]
    labels = question_table(
        [
            {
                "at": row["event"] + chosen.choice([0, 0, -1, 1, 3 * HOUR, 2 * HOUR, 3 * HOUR + 1]),
                "carrier": chosen.choice([row["carrier"], row["carrier"], "never seen", None]),
                "origin": row["origin"],
            }
            for row in picked
        ]
    )
    flights = pa.array([chosen.choice([row["flight"], None, 10_000]) for row in picked], pa.int16())
    return history, labels.append_column("flight", flights)


@pytest.mark.parametrize("event_key", [(), ("flight",), ("flight", "origin")])
def test_every_rule_gives_the_same_bits_as_on_one_machine(session, event_key):
    source = FrameSource(None, name="flights", event_timestamp="event", known_at="known", event_key=event_key)
    views = many_views(source)
    history, labels = nasty(3000, 1500, seed=len(event_key))
    events = dict.fromkeys(views, event_table(history))
    there = spark.as_of_spark(labels, views, events, event_times=True, spark=session, partitions=3)
    assert there.equals(as_of(labels, views, events, event_times=True))
    assert there.select(labels.column_names).equals(labels)


@settings(max_examples=60, deadline=None)
@given(histories, questions, st.sampled_from([("carrier",), ("carrier", "origin")]), st.integers(1, 4))
def test_split_and_joined_in_parts_every_history_gives_what_it_gives_whole(history, asked, keys, partitions):
    """What the workers do, without Spark between them."""
    asked = asked or [{"at": START, "carrier": "AA", "origin": "EWR"}]
    views, events, labels = {"delays": view_of(keys)}, {"delays": event_table(history)}, question_table(asked)
    here = as_of(labels, views, events)
    job = spark._job(labels, views, spark._sources(views, events, Path()), slots=2, partitions=partitions)
    pieces = [*job.asked(labels), *job.handed(0, events["delays"])]
    answers = []
    for part in range(job.parts):
        mine = [piece for piece in pieces if piece[0] == part]
        answers += spark._unwired(job.join(spark._wire(mine).to_batches() if mine else []))
    assert spark._in_order(labels, job, answers, here.schema).equals(here)


def file_views(source):
    @feature_view(entity=Entity("shop"), source=source, ttl="2d")
    class takings:
        mean_1d = agg.mean("amount", window="1d")
        rows_2d = agg.count(window="2d")
        last_amount = agg.last("amount")
        last_day = agg.last("day")
        last_word = agg.last("word")

    return {"takings": takings}


def files(folder):
    """Three files of naive nanoseconds, days and NaN, in small row groups, over the end of summer time in New York."""
    chosen = random.Random(11)
    start = 1_383_364_800_000_000_000  # 2013-11-02T04:00Z
    for number in range(3):
        times = [start + chosen.randrange(48 * 3600 * 10) * 100_000_000 + chosen.randrange(2000) for _ in range(400)]
        table = pa.table(
            {
                "at_local": pa.array(times, pa.timestamp("ns")),
                "told": pa.array([None if chosen.random() < 0.1 else t // 10**6 + 60_000 for t in times]).cast(
                    pa.timestamp("ms", tz="America/New_York")
                ),
                "shop": pa.array([chosen.choice([1, 2, 3, None]) for _ in times], pa.uint8()),
                "amount": pa.array([chosen.choice([float("nan"), None, chosen.uniform(0, 9)]) for _ in times]),
                "day": pa.array([chosen.randrange(15_900, 16_100) for _ in times], pa.date32()),
                "word": pa.array([chosen.choice(["a", "b", None]) for _ in times]).dictionary_encode(),
            }
        )
        pq.write_table(table, folder / f"part{number}.parquet", row_group_size=150)
    asked = [start // 1000 + chosen.randrange(60 * 3600) * 10**6 for _ in range(300)]
    shops = pa.array([chosen.choice([1, 2, 3, 4, None]) for _ in asked], pa.int64())
    return pa.table({"at": pa.array(asked, TIME), "shop": shops})


RULES = [(), (SetAside(where="amount > 8 OR word = 'b'", reason="test"),)]


@pytest.mark.parametrize("rules", RULES, ids=["every row", "a rule sets rows aside"])
@pytest.mark.parametrize("zone", [None, "America/New_York"])
@pytest.mark.parametrize("kind", ["files", "data frame"])
def test_times_and_missing_values_mean_the_same_wherever_rows_are_read(session, tmp_path, rules, zone, kind):
    labels = files(tmp_path)
    path = "part*.parquet"
    source = ParquetSource(
        path, name="sales", event_timestamp="at_local", known_at="told", timezone=zone, set_aside=rules
    )
    views = file_views(source)
    given = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        if kind == "data frame":  # Spark has no nanoseconds
            plain = pa.concat_tables([pq.read_table(file) for file in sorted(tmp_path.glob(path))])
            plain = plain.set_column(0, "at_local", plain["at_local"].cast(pa.timestamp("us"), safe=False))
            plain = plain.set_column(5, "word", plain["word"].cast(pa.string()))
            plain = plain.set_column(2, "shop", plain["shop"].cast(pa.int32()))
            frame = session.createDataFrame(plain)  # which takes times without a zone as UTC's
            given = {"takings": frame.withColumn("at_local", frame["at_local"].cast("timestamp_ntz"))}
        here = as_of(labels, views, {"takings": read(source, folder=tmp_path).table})
        there = spark.as_of_spark(labels, views, given, folder=tmp_path, spark=session, partitions=2)
    assert there.equals(here)
    assert here["takings__mean_1d"].null_count < len(here)


def test_folders_named_after_values_are_columns(session, tmp_path):
    labels = files(tmp_path)
    for shop, day in ((1, "2013-11-02"), (2, "2013-11-03")):
        folder = tmp_path / f"shop={shop}" / f"day={day}"
        folder.mkdir(parents=True)
        table = pq.read_table(tmp_path / f"part{shop}.parquet").drop_columns(["shop", "day"])
        pq.write_table(table, folder / "part.parquet", row_group_size=100)
    source = ParquetSource("shop=*/*/*.parquet", name="sales", event_timestamp="at_local", timezone="UTC")
    views = file_views(source)
    here = as_of(labels, views, {"takings": read(source, folder=tmp_path).table})
    assert spark.as_of_spark(labels, views, folder=tmp_path, spark=session).equals(here)
    assert here["takings__last_day"].null_count < len(here)


def test_times_without_a_zone_are_warned_of_once(session, tmp_path):
    labels = files(tmp_path)
    views = file_views(ParquetSource("part*.parquet", name="sales", event_timestamp="at_local"))
    with pytest.warns(DataWarning, match="at_local, day carry no time zone") as heard:
        spark.as_of_spark(labels, views, folder=tmp_path, spark=session)
    assert len(heard) == 1


def test_other_sources_are_read_here_and_handed_over(session, tmp_path):
    rows = "\n".join(f"2013-01-0{day}T00:00:00Z,{shop},{day * shop}" for day in range(1, 9) for shop in (1, 2))
    (tmp_path / "sales.csv").write_text(f"sold_at,shop,amount\n{rows}\n", encoding="utf-8")
    sales = CsvSource("sales.csv", event_timestamp="sold_at")
    halved = QuerySource(
        "SELECT * REPLACE (amount / 2 AS amount) FROM sales",
        {"sales": sales},
        name="halved",
        event_timestamp="sold_at",
    )

    def view(name, source):
        body = type(name, (), {"mean_3d": agg.mean("amount", window="3d")})
        return feature_view(entity=Entity("shop"), source=source)(body)

    views = {"sold": view("sold", sales), "half": view("half", halved)}
    labels = pa.table({"at": pa.array([START, 1_357_344_000_000_000], TIME), "shop": [1, 2]})
    events = {name: read(one.source, folder=tmp_path).table for name, one in views.items()}
    there = spark.as_of_spark(labels, views, folder=tmp_path, spark=session)
    assert there.equals(as_of(labels, views, events))
    assert there["half__mean_3d"].to_pylist() == [None, 4.0]


def test_a_frozen_plan_joins_like_the_view_that_it_was_made_of(session):
    history, labels = nasty(200, 100, seed=7)
    view = view_of()
    events = {"delays": event_table(history)}
    there = spark.as_of_spark(labels, {"delays": plan_view(view)}, events, spark=session)
    assert there.equals(as_of(labels, {"delays": view}, events))


def test_without_label_rows_there_are_the_columns_and_their_types(session):
    labels = question_table([])
    events = {"delays": event_table([event("UA")])}
    there = spark.as_of_spark(labels, {"delays": view_of()}, events, spark=session)
    assert there.equals(as_of(labels, {"delays": view_of()}, events))


def test_without_events_every_label_row_is_there(session):
    asked = [{"at": START, "carrier": carrier, "origin": "EWR"} for carrier in ("UA", None, "UA")]
    there = spark.as_of_spark(question_table(asked), {"delays": view_of()}, {"delays": event_table([])}, spark=session)
    assert there.equals(as_of(question_table(asked), {"delays": view_of()}, {"delays": event_table([])}))


@pytest.mark.parametrize("carrier", ["UA", "nobody asks for it"])
def test_a_row_that_cannot_be_read_is_the_same_error_as_on_one_machine(session, tmp_path, carrier):
    source = ParquetSource("rows.parquet", event_timestamp="event", known_at="known", event_key=["flight"])

    @feature_view(entity=Entity("carrier"), source=source)
    class delays:
        sum_2h = agg.sum("delay", window="2h")

    labels = question_table([{"at": START, "carrier": "UA", "origin": "EWR"}])
    pq.write_table(event_table([event("UA"), event(carrier, delay=1e300)]), tmp_path / "rows.parquet")
    with pytest.raises(ValueTooLarge, match=r"cannot add up 1e\+300"):
        spark.as_of_spark(labels, {"delays": delays}, folder=tmp_path, spark=session)
    pq.write_table(event_table([event("UA"), event(carrier) | {"flight": None}]), tmp_path / "rows.parquet")
    with pytest.raises(EventKeyMissing, match="1 of"):
        spark.as_of_spark(labels, {"delays": delays}, folder=tmp_path, spark=session)


def test_what_does_not_fit_is_refused_before_spark_does_anything(tmp_path):
    """No session is given: none may be started."""
    labels = question_table([{"at": START, "carrier": "UA", "origin": "EWR"}])
    table = event_table([event("UA")])
    with pytest.raises(KeyMissing, match="'carrier' is integer in the rows and string"):
        spark.as_of_spark(labels.set_column(1, "carrier", [[17]]), {"delays": view_of()}, {"delays": table})
    with pytest.raises(ColumnMissing, match="'delay'"):
        spark.as_of_spark(labels, {"delays": view_of()}, {"delays": table.drop_columns("delay")})
    views = file_views(ParquetSource("rows.parquet", event_timestamp="event"))
    labels = labels.append_column("shop", [[1]])
    with pytest.raises(SourceMissing):
        spark.as_of_spark(labels, views, folder=tmp_path)
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(ColumnMissing, match="'shop'"):
        spark.as_of_spark(labels, views, folder=tmp_path)
    pq.write_table(table.append_column("shop", [[1]]), tmp_path / "rows1.parquet")
    views = file_views(ParquetSource("rows*.parquet", event_timestamp="event"))
    with pytest.raises(SourceUnreadable, match="differs from rows"):
        spark.as_of_spark(labels, views, folder=tmp_path)


def test_a_column_of_words_is_no_time_on_a_worker_either(session, tmp_path):
    files(tmp_path)
    views = file_views(ParquetSource("part0.parquet", event_timestamp="word", timezone="UTC"))
    with pytest.raises(ColumnWrongType, match="is declared as its event_timestamp"):
        spark.as_of_spark(files(tmp_path), views, folder=tmp_path, spark=session)


def test_training_on_spark_keeps_the_same_training_set(session, tmp_path, monkeypatch):
    """The snapshots' files are read by the workers; a query's rows are handed over."""
    chosen = random.Random(3)
    times = [START + chosen.randrange(12 * HOUR) for _ in range(400)]
    amounts = [None if chosen.random() < 0.1 else chosen.uniform(0, 9) for _ in times]
    table = pa.table(
        {
            "sold_at": pa.array(times, pa.timestamp("us")),
            "id": range(400),
            "shop": [chosen.randrange(5) for _ in times],
            "amount": amounts,
            "large": [(amount or 0) > 4 for amount in amounts],
        }
    )
    pq.write_table(table, tmp_path / "sales.parquet")
    rule = SetAside(where="amount > 8.5", reason="test")
    sales = ParquetSource(
        "sales.parquet", event_timestamp="sold_at", event_key=["id"], timezone="Europe/Vienna", set_aside=[rule]
    )
    query = "SELECT * REPLACE (amount / 3 AS amount) FROM sales"
    thirds = QuerySource(query, {"sales": sales}, name="thirds", event_timestamp="sold_at", event_key=["id"])

    def view(name, source):
        body = type(name, (), {"mean_3h": agg.mean("amount", window="3h"), "last": agg.last("amount")})
        return feature_view(entity=Entity("shop"), source=source, ttl="4h")(body)

    model = Model(
        "large",
        task="binary",
        target="large",
        labels=sales,
        features=[view("sold", sales), view("third", thirds)],
        estimator="lightgbm.LGBMClassifier",
        cv_folds=0,
    )
    with Project(tmp_path, definitions=[model]) as project:
        here = project.train()
        there = project.train(engine="spark")
        monkeypatch.setenv("SEATRIAL_ENGINE", "spark")
    with Project(tmp_path, definitions=[model]) as project:
        again = project.train()
    assert here.training_set == there.training_set == again.training_set


def test_equal_keys_meet_whatever_their_types_width():
    numbers = [0, 1, -1, 127, None]
    narrow, wide = (pa.table({"k": pa.array(numbers, kind)}) for kind in (pa.int8(), pa.int64()))
    for one, other in zip(spark.key_hashes(narrow, ["k"]), spark.key_hashes(wide, ["k"]), strict=True):
        assert one.tolist() == other.tolist()
    words = pa.array(["a", "", "ä", None])
    text = [pa.table({"k": column}) for column in (words, words.cast(pa.large_string()), words.dictionary_encode())]
    assert len({tuple(spark.key_hashes(table, ["k"])[0].tolist()) for table in text}) == 1


def test_a_spark_that_does_not_start_is_told_with_its_master():
    code = "from seatrial.features.spark import session\nwith session(): pass"
    environment = os.environ | {"SEATRIAL_SPARK_MASTER": "nowhere"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "SparkFailed [features.spark_failed]: Spark could not be started at 'nowhere'" in done.stderr


def test_what_spark_gives_up_on_is_told_in_one_line(session):
    with pytest.raises(spark.SparkFailed, match="no memory left") as refused, spark._explained():
        session.sql("SELECT raise_error('no memory left')").collect()
    assert "\n" not in refused.value.found


def test_without_pyspark_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(spark.SparkMissing, match="'pyspark'") as refused, spark.session():
        pass
    assert "seatrial[spark]" in refused.value.next


def test_without_java_it_is_said_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(spark.JavaMissing, match="JAVA_HOME"), spark.session():
        pass


# The predictor


def scored(session, rows, keys, data, **how):
    from seatrial.serving.batch.spark import score_with_spark

    with spark._quiet():
        frame = session.createDataFrame(rows).repartition(3)
        return score_with_spark(frame, data, trusted=keys.trusted, **how).toArrow().sort_by("number")


def test_answers_on_spark_are_those_of_a_batch_to_the_last_bit(session, tmp_path):
    from seatrial.releases.bundle import open_bundle
    from seatrial.serving.batch.rows import RowScorer
    from tests.serving.worlds import Keys, bundle, columns

    keys = Keys(tmp_path)
    data = bundle(keys.key)
    given = {name: values for name, values in columns(2_000, 3).items() if name != "doubled"}
    rows = pa.table(given | {"number": range(2_000)})
    wanted = RowScorer(open_bundle(data, keys.trusted)).answer(rows)
    found = scored(session, rows, keys, data, keep=["number"])
    assert found.column_names == "number prediction probability release model_version refused".split()
    for name, column in wanted.columns.items():
        assert found[name].to_pylist() == column.to_pylist()
    assert found["refused"].null_count == 2_000


def test_a_row_that_has_no_answer_says_why_on_spark(session, tmp_path):
    from seatrial.serving.batch.rows import BatchColumnMissing
    from tests.serving.worlds import Keys, bundle, columns

    keys = Keys(tmp_path)
    given = {name: values for name, values in columns(3, 3).items() if name != "doubled"}
    rows = pa.table(given | {"distance": [1.0, float("inf"), None], "number": range(3)})
    found = scored(session, rows, keys, bundle(keys.key))
    assert found["refused"].to_pylist() == [None, "'distance' is an infinity or a number beyond float32", None]
    assert found["prediction"].is_null().to_pylist() == [False, True, False]
    assert found["distance"].to_pylist() == [1.0, float("inf"), None]
    with pytest.raises(BatchColumnMissing, match="seats"):
        scored(session, rows.drop(["seats"]), keys, bundle(keys.key))
