"""What a model is told of the functions it may call, and what it asks of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")  # to the names of functions


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """One function as a model sees it. ``parameters`` is a JSON schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish. ``id`` is the model's own; ``arguments`` is JSON, as the model wrote it."""

    id: str
    name: str
    arguments: str


HANG_UP = ToolSpec(
    "hang_up",
    "End the phone call. Use it when both sides are done, and say goodbye in the same answer.",
    {"type": "object", "properties": {}, "additionalProperties": False},
)
"""The one tool that the conversation runs itself; offered where it is among a brain's tools."""

MAX_CALLS = 8  # in one answer
MAX_ROUNDS = 5  # of tools, before the caller must be answered
MAX_RUNNING = 32  # tools of one call at once, those that it no longer waits for too
MAX_RESULT = 16_000  # characters

# What the model is told in the place of a result.
TOO_MANY_CALLS = f"(not run: no more than {MAX_CALLS} calls in one answer)"
TOO_MANY_ROUNDS = "(not run: too many calls in a row; answer the caller with what you know)"
TOO_MANY_RUNNING = "(not run: too many tools are still at work; try again later)"
ENDING = "(the call ends once your goodbye has been heard)"
NOT_ENDED = "(the call goes on: the caller spoke before it could end)"


def result_text(result: str, error: str) -> str:
    """What a tool gave back, as the model is told: never blank, and not without bounds."""
    text = f"Error: {error}" if error else result.strip() or "(done)"
    return text if len(text) <= MAX_RESULT else f"{text[:MAX_RESULT]} (the rest was cut off)"


def sound(call: ToolCall, ids: Iterable[str]) -> ToolCall:
    """The call as it may be sent back to a model: an id that is none of ``ids``, a name in its
    alphabet, arguments that are a JSON object. Some servers refuse a whole talk for less."""
    known = set(ids)
    own = [call.id] if call.id else []
    free = next(i for i in (*own, *(f"call_{n}" for n in range(len(known) + 1))) if i not in known)
    name = _FOREIGN.sub("_", call.name)[:64] or "unknown"
    return ToolCall(free, name, call.arguments if _is_object(call.arguments) else "{}")


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError, RecursionError:
        return False
