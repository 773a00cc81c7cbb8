"""Personal columns: equal values have equal pseudonyms, and nobody without the key can make them."""

from __future__ import annotations

import math

import pytest

from seatrial.core.personal import BadPersonal, Mask, PersonalKeyMissing, check_personal, derived_key, pseudonym
from seatrial.core.personal import strictest as strictest_of

KEY, OTHER = derived_key(b"a secret of this project"), derived_key(b"a secret of another one")


def test_equal_values_of_a_column_have_equal_pseudonyms_and_others_do_not():
    assert pseudonym(KEY, "tail", "N1") == pseudonym(KEY, "tail", "N1")
    different = {
        pseudonym(key, name, value) for key in (KEY, OTHER) for name in ("tail", "id") for value in ("N1", "N2", "", 1)
    }
    assert len(different) == 16
    assert pseudonym(KEY, "id", 1545) == pseudonym(KEY, "id", 1545.0) == pseudonym(KEY, "id", "1545")


def test_what_is_missing_stays_missing_and_a_pseudonym_is_not_hashed_again():
    assert pseudonym(KEY, "tail", None) is None
    assert pseudonym(KEY, "tail", math.nan) is None
    once = pseudonym(KEY, "tail", "N1")
    assert pseudonym(KEY, "tail", once) == once
    assert pseudonym(KEY, "tail", "\ud800") != pseudonym(KEY, "tail", "\ud801")


def test_of_several_releases_the_strictest_counts():
    assert strictest_of([{"a": "hash", "b": "drop"}, {"a": "drop"}, {"b": "hash", "c": "hash"}]) == {
        "a": "drop",
        "b": "drop",
        "c": "hash",
    }


def test_a_mask_leaves_out_hashes_and_keeps_in_order():
    mask = Mask(
        {"tail": "hash", "email": "drop", "flight": "hash"},
        KEY,
        inputs=("tail", "distance", "email", "flight"),
        categories=("tail", "email"),
        fields=[("email", "string"), ("flight", "int"), ("distance", "float")],
    )
    assert mask.inputs == ("tail", "distance", "flight")
    assert set(mask.categories) == {"tail", "flight"}
    assert mask.fields == (("flight", "string"), ("distance", "float"))
    inputs, fields = mask(("N1", 5.0, "a@b", 7), ("a@b", 7, 5.0))
    assert inputs == (pseudonym(KEY, "tail", "N1"), 5.0, pseudonym(KEY, "flight", 7))
    assert fields == (pseudonym(KEY, "flight", 7), 5.0)


def test_without_the_key_nothing_is_hashed_and_dropping_needs_none():
    with pytest.raises(PersonalKeyMissing, match="tail"):
        Mask({"tail": "hash"}, None, inputs=("tail",), categories=(), fields=[])
    assert Mask({"tail": "drop"}, None, inputs=("tail",), categories=(), fields=[]).inputs == ()


@pytest.mark.parametrize(
    ("personal", "said"), [({"tial": "drop"}, "Did you mean 'tail'"), ({"distance": "hash"}, "can be dropped")]
)
def test_a_column_that_is_not_there_or_no_text_is_refused(personal, said):
    with pytest.raises(BadPersonal) as error:
        check_personal("late", personal, {"tail": "string", "distance": "float"})
    assert said in str(error.value)
