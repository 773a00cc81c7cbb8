"""A release answers: as it did when it was packed, for one row as for many, and it refuses what it does not take."""

import pytest

from seatrial import SeatrialError


def request_of(project, released):
    """A request that the release takes. Put rows of your own here, with the answers that you expect."""
    return project.release_show(released.id)["example"]


def test_every_release_gives_its_golden_rows_the_scores_they_had(project, live):
    for _, released, _ in live.values():
        project.release_verify(released.id)  # signature, digests, and the golden rows scored again; raises


def test_a_row_is_answered_alike_alone_and_among_others(project, live):
    for model, (trained, released, _) in live.items():
        row = request_of(project, released)
        (alone,) = project.predict(model, [row])
        among = project.predict(model, [row, row, row])
        assert alone["model_version"] == str(trained.version)
        assert {answer["prediction"] for answer in among} == {alone["prediction"]}
        assert {answer["probability"] for answer in among} == {alone["probability"]}


def test_a_row_with_a_field_of_the_wrong_type_is_refused(project, live):
    for model, (_, released, _) in live.items():
        row = request_of(project, released)
        field = next(iter(row))
        with pytest.raises(SeatrialError):
            project.predict(model, [row | {field: ["not", "a", "value"]}])
