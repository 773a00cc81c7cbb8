"""Declarations: collected while a project file is read, and nowhere else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from seatrial.core.declared import collecting, declare


def test_what_is_declared_inside_is_collected_in_order():
    with collecting() as declared:
        declare("a")
        declare("b")
    declare("c")
    assert declared == ["a", "b"]


def test_declaring_outside_does_nothing():
    declare("a")
    with collecting() as declared:
        pass
    assert declared == []


def test_an_inner_collection_keeps_its_own():
    with collecting() as outer:
        declare("a")
        with collecting() as inner:
            declare("b")
        declare("c")
    assert (outer, inner) == (["a", "c"], ["b"])


def fail():
    with collecting():
        raise ZeroDivisionError


def test_a_project_file_that_fails_leaves_no_open_collection():
    with collecting() as outer:
        with pytest.raises(ZeroDivisionError):
            fail()
        declare("a")
    assert outer == ["a"]


def test_another_thread_does_not_declare_into_this_one():
    with collecting() as declared, ThreadPoolExecutor(1) as pool:
        pool.submit(declare, "a").result()
    assert declared == []
