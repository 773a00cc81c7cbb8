"""Small tables for notebooks: everything is escaped, and what is empty is left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seatrial.core.pages import table_page


@given(st.text(), st.text(), st.text())
def test_no_text_becomes_markup(title, name, value):
    page = table_page(title, {name: value}, {name: value})
    plain = page.replace("</", "<").count("<")
    assert plain == table_page("", {"a": "a"} if value else {}, {"a": "a"}).count("<")


def test_facts_that_are_empty_are_left_out_and_numbers_are_short():
    page = table_page("run", {"why": "", "notes": [], "model": "late"}, {"roc_auc": 0.123456789, "none": None})
    assert "why" not in page
    assert "notes" not in page
    assert "0.12346" in page
    assert ">-<" in page
