"""What every metadata store must satisfy, as tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from seatrial.core.errors import Conflict, SeatrialError
from seatrial.core.records import GENESIS, Event, Head, Record, event_hash, record_digest
from seatrial.stores.metadata import HeadMoved, MetadataStore, NotPlain, RecordDiffers, Transaction, UnknownRecord

OpenStore = Callable[[], MetadataStore]


def record(record_id: str, *inputs: str, kind: str = "run", name: str = "late", **body: Any) -> Record:
    """A record for tests."""
    return Record(record_id, kind, name, inputs, body)


def add(store: MetadataStore, *records: Record) -> None:
    """Keep records in one transaction."""
    with store.transaction() as transaction:
        for one in records:
            transaction.add(one)


def happen(store: MetadataStore, kind: str = "run.finished", subject: str = "run_1", **body: Any) -> Event:
    """Append one event in a transaction of its own."""
    with store.transaction() as transaction:
        return transaction.event(kind, subject, actor="ada", at_us=7, body=body)


class MetadataSuite:
    """Inherit, and give `open_store`: a function that opens the same store, new and empty for each test, again."""

    @pytest.fixture
    def open_store(self) -> OpenStore:
        raise NotImplementedError("give a fixture `open_store` that returns a function which opens the store")

    @pytest.fixture
    def store(self, open_store: OpenStore) -> Iterator[MetadataStore]:
        opened = open_store()
        yield opened
        opened.close()

    # Records

    def test_a_record_comes_back_as_it_was_added(self, store: MetadataStore) -> None:
        body = {"text": "ü \x00 ☃", "number": 0.1, "whole": 1.0, "big": 2**60, "list": [None, True, {"a": []}]}
        given = Record("run_1", "run", "late", ("tset_1", "snap_2", "snap_1", "snap_2"), body, format=3)
        add(store, given)
        assert store.record("run_1") == given
        assert record_digest(store.record("run_1") or record("none")) == record_digest(given)

    def test_an_unknown_record_is_none(self, store: MetadataStore) -> None:
        assert store.record("run_1") is None

    def test_adding_an_equal_record_again_changes_nothing(self, store: MetadataStore) -> None:
        with store.transaction() as transaction:
            assert transaction.add(record("run_1", "snap_1", a=1, b=[1]))
            assert not transaction.add(record("run_1", "snap_1", b=(1,), a=1))
        with store.transaction() as transaction:
            assert not transaction.add(record("run_1", "snap_1", a=1, b=[1]))
        assert len(store.records("run")) == 1

    @pytest.mark.parametrize(
        "other",
        [
            record("run_1", "snap_1", a=2),
            record("run_1", "snap_1", a=1.0),
            record("run_1", "snap_2", a=1),
            record("run_1", a=1),
            record("run_1", "snap_1", kind="version", a=1),
            record("run_1", "snap_1", name="early", a=1),
            Record("run_1", "run", "late", ("snap_1",), {"a": 1}, format=2),
        ],
    )
    def test_a_record_never_changes(self, store: MetadataStore, other: Record) -> None:
        first = record("run_1", "snap_1", a=1)
        add(store, first)
        with pytest.raises(RecordDiffers):
            add(store, other)
        assert store.record("run_1") == first

    def test_records_are_listed_by_kind_and_name_oldest_first(self, store: MetadataStore) -> None:
        add(store, record("run_9"), record("ver_1", kind="version"), record("run_1"), record("run_5", name="early"))
        assert [one.id for one in store.records("run")] == ["run_9", "run_1", "run_5"]
        assert [one.id for one in store.records("run", "late")] == ["run_9", "run_1"]
        assert store.records("snapshot") == []

    def test_the_newest_records_are_asked_for_by_number(self, store: MetadataStore) -> None:
        add(store, record("run_9", "snap_1", "snap_2"), record("ver_1", kind="version"), record("run_1", "snap_1"))
        add(store, record("run_5", "snap_2", "snap_1", name="early"))
        assert [one.id for one in store.records("run", newest=2)] == ["run_1", "run_5"]
        assert [one.id for one in store.records("run", "late", newest=1)] == ["run_1"]
        assert store.records("run", newest=1) == [store.record("run_5")]
        assert store.records("run", newest=9) == store.records("run")
        assert store.records("run", newest=0) == store.records("snapshot", newest=1) == []

    def test_records_are_found_by_what_they_were_made_from(self, store: MetadataStore) -> None:
        add(store, record("run_2", "snap_1", "snap_2"), record("run_1", "snap_1", "snap_1"), record("snap_1"))
        assert [one.id for one in store.made_from("snap_1")] == ["run_2", "run_1"]
        assert store.made_from("snap_1")[0].inputs == ("snap_1", "snap_2")
        assert store.made_from("run_1") == []

    def test_ids_are_found_by_their_start_and_nothing_in_it_is_a_pattern(self, store: MetadataStore) -> None:
        add(store, *(record(f"run_{number:02}") for number in range(30)), record("runx01"), record("r%"))
        assert store.find("run_0") == [f"run_{number:02}" for number in range(10)]
        assert store.find("r%") == ["r%"]
        assert store.find("run_01") == ["run_01"]
        assert len(store.find("run")) == 20
        assert store.find("RUN_0") == []

    @pytest.mark.parametrize("body", [{"a": object()}, {"a": "\ud800"}, {1: 2, "1": 2}, {"a": {b"x": 1}}])
    def test_what_is_not_plain_is_refused_and_nothing_is_kept(self, store: MetadataStore, body: Any) -> None:
        attempts: list[Callable[[Transaction], object]] = [
            lambda transaction: transaction.add(Record("run_1", "run", "late", (), body)),
            lambda transaction: transaction.event("run.finished", "run_1", actor="ada", at_us=0, body=body),
            lambda transaction: transaction.enqueue("mlflow", body),
        ]

        def write(attempt: Callable[[Transaction], object]) -> None:
            with store.transaction() as transaction:
                transaction.enqueue("other", {})
                attempt(transaction)

        for attempt in attempts:
            with pytest.raises(NotPlain):
                write(attempt)
        assert store.record("run_1") is None
        assert store.events() == []
        assert store.pending("mlflow") == store.pending("other") == []

    @pytest.mark.parametrize(
        ("subject", "at_us"), [("\ud800", 0), ("run_1", 2**63)], ids=["text that is no Unicode", "65 bits"]
    )
    def test_an_event_that_cannot_be_kept_is_refused(self, store: MetadataStore, subject: str, at_us: int) -> None:
        with pytest.raises(NotPlain), store.transaction() as transaction:
            transaction.event("run.finished", subject, actor="ada", at_us=at_us)
        assert store.events() == []

    # Transactions

    def test_nothing_is_kept_when_the_block_raises(self, store: MetadataStore) -> None:
        add(store, record("run_1"))

        def write() -> None:
            with store.transaction() as transaction:
                transaction.add(record("run_2"))
                transaction.event("run.finished", "run_2", actor="ada", at_us=0)
                transaction.move("version", "late", "run_1", expected=0)
                transaction.enqueue("mlflow", {})
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            write()
        assert [one.id for one in store.records("run")] == ["run_1"]
        assert store.events() == []
        assert store.heads("version") == []
        assert store.pending("mlflow") == []
        assert happen(store).seq == 1

    def test_reads_inside_a_transaction_see_what_it_wrote_and_others_do_not(
        self, store: MetadataStore, open_store: OpenStore
    ) -> None:
        other = open_store()
        with store.transaction() as transaction, ThreadPoolExecutor(1) as elsewhere:
            transaction.add(record("run_1"))
            transaction.move("version", "late", "run_1", expected=0)
            assert store.record("run_1") is not None
            assert transaction.head("version", "late") == store.head("version", "late")
            assert other.record("run_1") is None
            assert elsewhere.submit(store.record, "run_1").result() is None
        assert other.record("run_1") is not None
        other.close()

    def test_a_transaction_is_of_no_use_after_its_block(self, store: MetadataStore) -> None:
        with store.transaction() as transaction:
            pass
        for late in (
            lambda: transaction.add(record("run_1")),
            lambda: transaction.event("a", "b", actor="c", at_us=0),
            lambda: transaction.head("a", "b"),
            lambda: transaction.move("a", "b", "c", expected=None),
            lambda: transaction.enqueue("a", {}),
        ):
            with pytest.raises(RuntimeError):
                late()
        assert store.record("run_1") is None

    def test_a_transaction_inside_a_transaction_is_refused(self, store: MetadataStore) -> None:
        with store.transaction() as transaction:
            with pytest.raises(RuntimeError), store.transaction():
                pass
            transaction.add(record("run_1"))
        assert store.record("run_1") is not None

    def test_everything_is_there_when_the_store_is_opened_again(
        self, store: MetadataStore, open_store: OpenStore
    ) -> None:
        add(store, record("run_1", "snap_1"))
        event = happen(store)
        store.close()
        again = open_store()
        assert again.record("run_1") == record("run_1", "snap_1")
        assert again.events() == [event]
        again.close()

    # Events

    def test_events_count_from_one_and_each_covers_the_one_before(self, store: MetadataStore) -> None:
        made = [happen(store, number=number) for number in range(4)]
        assert [event.seq for event in made] == [1, 2, 3, 4]
        assert made[0].previous == GENESIS
        assert [event.previous for event in made[1:]] == [event.hash for event in made[:-1]]
        assert all(event.hash == event_hash(event) for event in made)
        assert store.events() == made
        assert store.chain() == made
        assert store.last_event() == made[-1]
        assert store.appended() == 4

    def test_an_empty_log_has_no_last_event(self, store: MetadataStore) -> None:
        assert store.last_event() is None
        assert store.appended() == 0
        assert store.events() == []

    def test_an_event_covers_the_records_that_came_with_it(self, store: MetadataStore) -> None:
        first, second, third = record("run_1", "snap_1", a=(1,)), record("ver_1"), record("ver_2")
        with store.transaction() as transaction:
            transaction.add(first)
            transaction.add(second)
            one = transaction.event("version.created", "late", actor="ada", at_us=0)
            transaction.add(third)
            transaction.add(second)
            two = transaction.event("version.created", "late", actor="ada", at_us=0)
            three = transaction.event("alias.moved", "alias/late@candidate", actor="ada", at_us=0)
        assert one.records == {"run_1": record_digest(first), "ver_1": record_digest(second)}
        assert two.records == {"ver_2": record_digest(third)}
        assert three.records == {}
        assert store.events() == [one, two, three]

    def test_an_event_about_a_record_covers_the_record(self, store: MetadataStore) -> None:
        add(store, record("run_1", a=1))
        assert happen(store, subject="run_1").records == {"run_1": record_digest(record("run_1", a=1))}
        assert happen(store, subject="alias/late@candidate").records == {}

    def test_events_are_chosen_by_subject_kind_and_place(self, store: MetadataStore) -> None:
        for kind, subject in [("a", "x"), ("b", "x"), ("a", "y"), ("a", "x"), ("b", "y")]:
            happen(store, kind, subject)

        def seqs(**chosen: Any) -> list[int]:
            return [event.seq for event in store.events(**chosen)]

        assert seqs(subject="x") == [1, 2, 4]
        assert seqs(kind="b") == [2, 5]
        assert seqs(subject="x", kind="a", after=1) == [4]
        assert seqs(after=2, limit=2) == [3, 4]
        assert seqs(limit=0) == []

    # Heads

    def test_a_head_counts_its_moves(self, store: MetadataStore) -> None:
        add(store, record("ver_1"), record("ver_2"))
        with store.transaction() as transaction:
            assert transaction.move("version", "late", "ver_1", expected=0) == Head("version", "late", "ver_1", 1)
            assert transaction.move("version", "late", "ver_2", expected=1).generation == 2
            assert transaction.move("version", "late", "ver_2", expected=None).generation == 3
            assert transaction.move("alias", "late", "ver_1", expected=None).generation == 1
        assert store.head("version", "late") == Head("version", "late", "ver_2", 3)
        assert store.head("version", "early") is None
        assert store.heads("alias") == [Head("alias", "late", "ver_1", 1)]

    def test_heads_are_listed_by_name(self, store: MetadataStore) -> None:
        add(store, record("ver_1"))
        with store.transaction() as transaction:
            for name in ("b", "c", "a"):
                transaction.move("version", name, "ver_1", expected=0)
        assert [head.name for head in store.heads("version")] == ["a", "b", "c"]

    @pytest.mark.parametrize("expected", [0, 1, 3])
    def test_a_head_that_moved_is_refused_with_where_it_is_now(self, store: MetadataStore, expected: int) -> None:
        add(store, record("ver_1"), record("ver_2"))
        with store.transaction() as transaction:
            transaction.move("version", "late", "ver_1", expected=0)
            now = transaction.move("version", "late", "ver_1", expected=1)
        with pytest.raises(HeadMoved) as refused, store.transaction() as transaction:
            transaction.move("version", "late", "ver_2", expected=expected)
        assert refused.value.facts["head"] == now
        assert isinstance(refused.value, Conflict)
        assert store.head("version", "late") == now

    def test_a_head_that_was_expected_and_is_not_there_is_refused(self, store: MetadataStore) -> None:
        add(store, record("ver_1"))
        with pytest.raises(HeadMoved) as refused, store.transaction() as transaction:
            transaction.move("version", "late", "ver_1", expected=4)
        assert refused.value.facts["head"] is None

    def test_a_head_names_only_what_is_kept(self, store: MetadataStore) -> None:
        with pytest.raises(UnknownRecord), store.transaction() as transaction:
            transaction.move("version", "late", "ver_1", expected=0)

    # Outbox

    def test_messages_wait_by_topic_in_order_until_they_are_done(self, store: MetadataStore) -> None:
        with store.transaction() as transaction:
            for number in range(3):
                transaction.enqueue("mlflow", {"number": number})
            transaction.enqueue("webhook", {"number": 9})
        waiting = store.pending("mlflow")
        assert [body["number"] for _, body in waiting] == [0, 1, 2]
        store.done("mlflow", waiting[1][0])
        store.done("mlflow", waiting[1][0])
        store.done("webhook", waiting[0][0])
        assert [body["number"] for _, body in store.pending("mlflow")] == [0, 2]
        assert [body["number"] for _, body in store.pending("webhook")] == [9]

    def test_a_message_number_is_never_used_again(self, store: MetadataStore) -> None:
        numbers = set()
        for _ in range(3):
            with store.transaction() as transaction:
                transaction.enqueue("mlflow", {})
            [(number, _body)] = store.pending("mlflow")
            store.done("mlflow", number)
            numbers.add(number)
        assert len(numbers) == 3

    # Many at once

    def test_threads_that_read_then_write_lose_nothing(self, store: MetadataStore, open_store: OpenStore) -> None:
        add(store, record("ver_1"))
        stores = [store, open_store()]
        together = threading.Barrier(4)

        def work(number: int) -> list[SeatrialError]:
            mine, failed = stores[number % 2], []
            together.wait()
            for _ in range(10):
                seen = mine.head("version", "late")
                try:
                    with mine.transaction() as transaction:
                        transaction.event("moved", "late", actor=str(number), at_us=0)
                        transaction.move("version", "late", "ver_1", expected=seen.generation if seen else 0)
                except SeatrialError as error:
                    failed.append(error)
            return failed

        with ThreadPoolExecutor(4) as pool:
            failed = [error for errors in pool.map(work, range(4)) for error in errors]
        assert all(isinstance(error, HeadMoved) for error in failed)
        head = store.head("version", "late")
        assert head is not None
        assert head.generation == 40 - len(failed) == len(store.events())
        stores[1].close()

    def test_a_reader_never_sees_half_a_transaction(self, store: MetadataStore, open_store: OpenStore) -> None:
        reader, stop = open_store(), threading.Event()

        def write() -> None:
            for number in range(10):
                add(store, record(f"run_{number}", f"snap_{number}", f"tset_{number}"), record(f"ver_{number}"))
            stop.set()

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            while not stop.is_set() and not writing.done():
                found = reader.records("run")
                assert len(found) in range(0, 21, 2)
                assert all(len(one.inputs) == 2 for one in found if one.id.startswith("run_"))
            writing.result()
        assert len(reader.records("run")) == 20
        reader.close()
