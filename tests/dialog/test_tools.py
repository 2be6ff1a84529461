"""What goes back to a model of its tools."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.dialog.tools import HANG_UP, MAX_RESULT, ToolCall, result_text, sound


@pytest.mark.parametrize(
    ("call", "ids", "sent"),
    [
        (ToolCall("a", "look", '{"day": 1}'), [], ToolCall("a", "look", '{"day": 1}')),
        (ToolCall("a", "look", "{}"), ["a"], ToolCall("call_0", "look", "{}")),
        (ToolCall("", "look", ""), ["call_0"], ToolCall("call_1", "look", "{}")),
        (ToolCall("a", "look it up", '{"day":'), [], ToolCall("a", "look_it_up", "{}")),
        (ToolCall("a", "", "[1]"), [], ToolCall("a", "unknown", "{}")),
        (ToolCall("a", "x" * 99, "[" * 100_000), [], ToolCall("a", "x" * 64, "{}")),
    ],
)
def test_a_call_that_a_server_would_refuse_is_mended(
    call: ToolCall, ids: list[str], sent: ToolCall
) -> None:
    assert sound(call, ids) == sent


@given(st.builds(ToolCall, st.text(), st.text(), st.text()), st.lists(st.text(max_size=2)))
def test_every_call_is_mended(call: ToolCall, ids: list[str]) -> None:
    sent = sound(call, ids)
    assert sent.id
    assert sent.id not in ids
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", sent.name)
    assert isinstance(json.loads(sent.arguments), dict)


def test_results() -> None:
    assert result_text(" Booked. ", "") == "Booked."
    assert result_text("", "") == "(done)"
    assert result_text("", "No such day.") == "Error: No such day."
    assert len(result_text("x" * 2 * MAX_RESULT, "")) < MAX_RESULT + 50


def test_hanging_up_takes_no_arguments() -> None:
    assert HANG_UP.name == "hang_up"
    assert HANG_UP.parameters["properties"] == {}
