"""The raw data holds what project.py expects of it."""

import pytest


def test_every_source_meets_its_expectations(project):
    reports = project.validate()
    if not reports:
        pytest.skip("project.py declares no source yet")
    broken = [f"{report.source}: {result}" for report in reports for result in report.results if not result.passed]
    assert broken == []


def test_equal_data_has_an_equal_snapshot(project):
    first = project.snapshot()
    if not first:
        pytest.skip("project.py declares no source yet")
    again = project.snapshot()
    assert [taken.id for taken in again] == [taken.id for taken in first]
    assert not any(taken.new for taken in again)
