"""A call as an OpenTelemetry trace: a span for the call, below it one for each of its turns, and
below each turn one for each of its stages.

A turn here is all that a record tells of: an answer, a greeting, a nudge. Ids follow from the call
and its turn alone, so that nothing is kept between two records, a turn can be told of while its
call goes on, and a record that is lost takes no other with it. Words are counted and never told.

Times are monotonic nanoseconds in what comes in, and nanoseconds since 1970 in what goes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import NamedTuple

from .turns import STAGES, Turn

type Value = str | bool | int | float

_LONGEST = 200  # characters of a text that a peer may have chosen


@dataclass(frozen=True, slots=True)
class CallStart:
    """Which call a record is of: the carrier's id of it, and when it began."""

    call_id: str
    at: int


@dataclass(frozen=True, slots=True)
class CallEnd:
    """The last record of a call."""

    at: int
    turns: int  # of the caller
    reason: str
    failed: bool  # a defect of ours ended it


type Told = tuple[CallStart, Turn | CallEnd]
"""One record, and whose it is."""


class Span(NamedTuple):
    """One span. `parent_id` is 0 for a trace's first; `problem` is empty when all went well."""

    name: str
    trace_id: int  # 128 bits
    span_id: int  # 64 bits
    parent_id: int
    start: int
    end: int
    attributes: Mapping[str, Value]
    problem: str = ""


def spans(told: Told, since_1970: int) -> list[Span]:
    """The spans of one record, parents first. `since_1970` is what a monotonic time lacks to be
    one since 1970."""
    call, record = told
    if isinstance(record, CallEnd):
        return [_call(call, record, since_1970)]
    return _turn(call, record, since_1970)


def _call(call: CallStart, end: CallEnd, since_1970: int) -> Span:
    attributes: dict[str, Value] = {
        "threadline.call_id": _plain(call.call_id),
        "threadline.turns": end.turns,
        "threadline.end": _plain(end.reason),
    }
    problem = attributes["threadline.end"] if end.failed else ""
    began, ended = call.at + since_1970, max(call.at, end.at) + since_1970
    return Span("call", _trace(call), _root(call), 0, began, ended, attributes, str(problem))


def _turn(call: CallStart, turn: Turn, since_1970: int) -> list[Span]:
    trace = _trace(call)
    mine = _id(8, call, f"turn {turn.number} {turn.clause}")  # no two records share both
    marks = turn.marks()
    known = [mark for mark in (*marks, turn.ended) if mark]
    start = turn.spoke_until or min(known)
    unheard = bool(turn.spoke_until) and turn.heard is None
    made = [
        Span(
            "turn",
            trace,
            mine,
            _root(call),
            start + since_1970,
            max(known) + since_1970,
            {"threadline.call_id": _plain(call.call_id), **_attributes(turn)},
            "the recogniser failed" if unheard else "",
        )
    ]
    for name, (before, after) in zip(STAGES, pairwise(marks), strict=True):
        if before and after:
            began, ended = before + since_1970, max(before, after) + since_1970
            made.append(Span(name, trace, _id(8, call, f"{mine} {name}"), mine, began, ended, {}))
    return made


def _attributes(turn: Turn) -> dict[str, Value]:
    """What is known of it without a word of it."""
    values: dict[str, Value] = {
        "turn": turn.number,
        "interrupted": turn.interrupted,
        "early": turn.early,
        "pauses": turn.pauses,
        "fillers": len(turn.fillers),
        "words.heard": len((turn.heard or "").split()),
        "words.said": len(" ".join(turn.said).split()),
        "words.played": len(turn.played.split()),
    }
    for name, text in (("why", turn.why), ("source", turn.source)):
        if text:
            values[name] = _plain(text)
    return {f"threadline.{name}": value for name, value in values.items()}


def _trace(call: CallStart) -> int:
    return _id(16, call, "trace")


def _root(call: CallStart) -> int:
    return _id(8, call, "call")


def _id(size: int, call: CallStart, what: str) -> int:
    """Of `size` bytes, the same whenever it is asked for; 0 would mean that there is none."""
    text = f"{call.at} {what} {call.call_id}"
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()
    return int.from_bytes(digest) or 1


def _plain(text: str) -> str:
    """What a collector takes: no half characters, and not without end."""
    return text[:_LONGEST].encode("utf-8", "replace").decode("utf-8")
