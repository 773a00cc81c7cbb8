"""Errors: each has a code of its own, words that explain it, and a line in docs/errors.md."""

from __future__ import annotations

import inspect
import re
from collections import Counter

from seatrial.core.errors import Failed, SeatrialError
from tests.house.errors_page import PAGE, page
from tests.house.tree import error_classes

KIND_WITHOUT_CODE = {Failed}  # a kind to inherit from; it takes its code from SeatrialError and is never raised


def test_every_error_class_has_a_code_of_its_own():
    shared = [kind.__name__ for kind in error_classes() if "code" not in vars(kind)]
    assert shared == [kind.__name__ for kind in KIND_WITHOUT_CODE], "give each class a `code`"
    twice = {code for code, times in Counter(kind.code for kind in error_classes()).items() if times > 1}
    assert twice == {SeatrialError.code}, "two classes have one code"


def test_codes_are_words_joined_by_dots():
    assert [k.code for k in error_classes() if not re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*", k.code)] == []


def test_every_error_class_says_what_it_means():
    silent = [kind.__name__ for kind in error_classes() if not inspect.cleandoc(kind.__doc__ or "")]
    assert silent == []


def test_the_errors_page_lists_exactly_the_codes_there_are():
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "docs/errors.md differs from the classes: `make docs` (python -m tests.house.errors_page) rewrites it"
    )
