"""Every fact that a label store must satisfy. Inherit `LabelStoreSuite` and give it one fixture, `store`.

class TestMyStore(LabelStoreSuite):
    @pytest.fixture
    def store(self, tmp_path):
        return MyStore(tmp_path)
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from seatrial.core.clock import from_us
from seatrial.core.identity import uuid7
from seatrial.stores.labels import LabelRow, LabelStore

NOON_US = 1_364_817_600_000_000  # 2013-04-01T12:00Z


def a_label(**changes: Any) -> LabelRow:
    """A label of one prediction, with a fresh id unless given."""
    given: dict[str, Any] = {
        "id": f"{uuid7()}-00000000",
        "label": 1.0,
        "known_at_us": NOON_US,
        "recorded_at_us": NOON_US + 7,
        "actor": "tests",
        "prediction_id": "p-1",
    }
    return LabelRow(**given | changes)


def told(store: LabelStore, model: str = "late") -> list[str]:
    """The ids of the labels that the store holds, as it gives them."""
    found: list[str] = store.read(model)["id"].to_pylist()
    return found


class LabelStoreSuite:
    """The facts. None of them knows where labels lie."""

    def test_a_label_comes_back_as_it_was_told(self, store: LabelStore) -> None:
        label = a_label(request_id="r", key="a|b", at_us=NOON_US - 1, label=-0.25)
        store.append("late", [label])
        (found,) = store.read("late").to_pylist()
        assert found == {
            "id": label.id,
            "prediction_id": "p-1",
            "request_id": "r",
            "key": "a|b",
            "at": from_us(NOON_US - 1),
            "label": -0.25,
            "known_at": from_us(NOON_US),
            "recorded_at": from_us(NOON_US + 7),
            "actor": "tests",
            "class": None,
        }

    def test_what_was_not_told_is_null(self, store: LabelStore) -> None:
        store.append("late", [a_label(prediction_id=None, key="k")])
        (found,) = store.read("late").to_pylist()
        assert [found[name] for name in ("prediction_id", "request_id", "at")] == [None, None, None]

    def test_a_model_of_which_nothing_was_told_has_no_labels_and_every_column(self, store: LabelStore) -> None:
        store.append("late", [a_label()])
        nothing = store.read("other")
        assert nothing.num_rows == 0
        assert nothing.schema.names == store.read("late").schema.names

    def test_telling_nothing_keeps_nothing(self, store: LabelStore) -> None:
        store.append("late", [])
        assert told(store) == []

    def test_a_class_comes_back_as_it_was_told(self, store: LabelStore) -> None:
        store.append("trips", [a_label(label=float("nan"), of_class="on time")])
        (found,) = store.read("trips").to_pylist()
        assert found["class"] == "on time"
        assert found["label"] != found["label"]  # NaN: it is no number

    def test_the_same_and_another_label_of_one_prediction_are_both_kept(self, store: LabelStore) -> None:
        for label in (a_label(), a_label(), a_label(label=0.0)):
            store.append("late", [label])
        assert store.read("late")["label"].to_pylist() == [1.0, 1.0, 0.0]

    def test_labels_come_in_the_order_of_telling(self, store: LabelStore) -> None:
        rows = [a_label(id=f"{place:03d}") for place in range(30)]
        for row in reversed(rows):
            store.append("late", [row])
        assert told(store) == [row.id for row in rows]

    def test_models_are_kept_apart_whatever_their_names(self, store: LabelStore) -> None:
        names = ["late", "Late", "late/2", "../late", "..", "späť", "a b", "%2e"]
        for place, name in enumerate(names):
            store.append(name, [a_label(id=str(place))])
        assert [told(store, name) for name in names] == [[str(place)] for place in range(len(names))]

    def test_hundreds_of_tellings_are_read_once_each(self, store: LabelStore) -> None:
        rows = [a_label() for _ in range(130)]
        for row in rows:
            store.append("late", [row])
        assert told(store) == [row.id for row in rows]

    def test_writers_at_once_lose_nothing(self, store: LabelStore) -> None:
        rows = [a_label() for _ in range(160)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda row: store.append("late", [row]), rows))
        assert told(store) == sorted(row.id for row in rows)
