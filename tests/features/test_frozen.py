"""Frozen views: written down once for each digest, proving themselves, and told apart in words."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from seatrial import Entity, ParquetSource, QuerySource, agg, feature_view
from seatrial.core.identity import canonical_json
from seatrial.features.frozen import FrozenDamaged, FrozenTooNew, changes, frozen, record_of, thaw
from seatrial.features.plan import plan_view

SALES = ParquetSource("sales.parquet", event_timestamp="sold_at", event_key=["receipt"])
SCHEMAS = {"sales": pa.schema([("shop", pa.string()), ("amount", pa.float64())])}


def declared(source=SALES, window="1d", owner="", **more):
    @feature_view(entity=Entity("shop"), source=source, ttl="7d", owner=owner, tags=["money"])
    class till:
        """What a shop takes in."""

        total = agg.sum("amount", window=window)
        newest = agg.last("amount")

    return till


def test_a_record_gives_back_the_plan_the_words_and_the_columns():
    view = thaw(record_of(declared(), SCHEMAS, "project.py:7"))
    assert view.plan == plan_view(declared())
    assert list(view.features.items()) == list(declared().features.items())
    assert (view.entity, view.description, view.tags) == ("shop", "What a shop takes in.", ("money",))
    assert (view.source.name, view.source.columns) == ("sales", {"shop": "string", "amount": "double"})
    assert view.declared_in == "project.py:7"


def test_a_derived_source_is_kept_with_its_query_and_the_names_below():
    twice = QuerySource(
        "SELECT * FROM s", tables={"s": SALES}, name="twice", event_timestamp="sold_at", event_key=["r"]
    )
    source = thaw(record_of(declared(twice), SCHEMAS)).source
    assert (source.sql, source.tables["s"].name, source.tables["s"].path) == (
        "SELECT * FROM s",
        "sales",
        "sales.parquet",
    )


def test_equal_definitions_have_equal_records_whatever_their_owner():
    assert record_of(declared(), {}).id == record_of(declared(owner="me"), SCHEMAS).id
    assert record_of(declared(), {}).id != record_of(declared(window="2d"), {}).id
    assert canonical_json(record_of(declared(), {}).body) == canonical_json(record_of(declared(), {}).body)


def test_a_record_that_was_edited_is_refused():
    record = record_of(declared(), {})
    edited = record.body | {"definition": record.body["definition"] | {"ttl_us": 5}}
    with pytest.raises(FrozenDamaged, match="has another digest"):
        thaw(replace(record, body=edited))
    with pytest.raises(FrozenDamaged, match="no frozen view"):
        thaw(replace(record, body={"name": "till"}))


def test_a_newer_format_is_refused():
    with pytest.raises(FrozenTooNew, match="format 2"):
        thaw(replace(record_of(declared(), {}), format=2))


def test_what_was_changed_is_told_in_words():
    moved = ParquetSource("new.parquet", name="sales", event_timestamp="sold_at", event_key=["receipt"])
    before, after = frozen(declared(), SCHEMAS), frozen(declared(moved, "2d", owner="me"), {"sales": pa.schema([])})
    assert changes(before, before) == []
    assert changes(before, after) == [
        "feature total: sum(amount, window=1d) -> sum(amount, window=2d)",
        "owner: none -> me",
        "source path: sales.parquet -> new.parquet",
    ]
    narrower = frozen(declared(), {"sales": pa.schema([("shop", pa.int64())])})
    assert changes(before, narrower) == ["source column shop: string -> int64", "source column amount: double -> gone"]
