"""Narrowed: whether callers feel that a field may be null no more is told by their requests."""

from __future__ import annotations

import msgspec
import pytest

from seatrial.core.types import Field
from seatrial.releases.manifest import next_version
from seatrial.retraining.narrowed import Asked, narrowed, with_nulls_of
from tests.releases.factories import manifest_and_files

MANIFEST, _ = manifest_and_files()


@pytest.mark.parametrize(
    ("requests", "nulls", "against"),
    [
        (1000, 0, []),
        (1000, 1, ["x may be null no more, and it was in 1 of 1,000 requests since 2024-01-16"]),
        (999, 0, ["x may be null no more, and 999 requests of the last 30 days are too few to tell whether callers "
                  "send nulls (1,000 are needed)"]),
    ],
)  # fmt: skip
def test_nulls_that_were_sent_or_too_few_requests_speak_against_it(requests, nulls, against):
    asked = Asked(requests, "2024-01-16T00:00:00Z", {"x": nulls})
    assert asked.against(["x"]) == against
    assert asked.against([]) == []


def test_only_what_may_be_null_is_left_out_of_the_question_whether_more_than_data_changed():
    def asking(*request):
        return msgspec.structs.replace(MANIFEST, signature=msgspec.structs.replace(MANIFEST.signature, request=request))

    before = asking(Field("x", "float"), Field("y", "float", nullable=False))
    after = asking(Field("x", "float", nullable=False), Field("y", "float"))
    assert narrowed(before, after) == ["x"]
    assert next_version(before, after)[1].startswith("Major: the request fields")
    assert next_version(before, with_nulls_of(before, after))[1].startswith("Patch:")
    retyped = asking(Field("x", "int", nullable=False), Field("y", "float", nullable=False))
    assert next_version(before, with_nulls_of(before, retyped))[1].startswith("Major: the request fields")
