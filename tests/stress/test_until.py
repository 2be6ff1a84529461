"""Waiting with an end."""

from __future__ import annotations

import pytest

from stress.until import until
from threadline.errors import ThreadlineError


def test_it_ends_with_the_condition_or_says_what_did_not_come() -> None:
    answers = iter([0, "", True])
    until(lambda: next(answers), "three questions", 5.0)
    assert next(answers, None) is None
    with pytest.raises(ThreadlineError, match=r"^Not within 0.1 s: it rains\.$"):
        until(lambda: False, "it rains", 0.1)
