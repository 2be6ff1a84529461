"""What a call leg tells the rest of Threadline, whichever carrier is on the wire.

Every carrier's codec turns its messages into these, so that no stage behind the socket knows
whose phone call it serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class LocalError(Exception):
    """We asked a wire machine for a message its state forbids: our defect, never the peer's."""


@dataclass(frozen=True, slots=True)
class Started:
    """The stream is open: audio may flow both ways from here on."""

    stream_id: str  # the carrier's name of this stream; every message we send carries it
    call_id: str  # the carrier's name of the phone call
    parameters: Mapping[str, str]  # what the webhook's answer attached to the stream


@dataclass(frozen=True, slots=True)
class Audio:
    """Caller audio: mu-law, 8 kHz, mono, one byte a sample, of any length (20 ms is usual)."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class MarkEchoed:
    """A mark of ours came back. Either its audio has played, or a ``clear`` threw it away."""

    name: str


@dataclass(frozen=True, slots=True)
class Digit:
    """The caller pressed a key: one of ``0123456789*#ABCD``."""

    digit: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The carrier closed the stream in good order: the caller hung up, or the call moved on."""

    reason: str


type Event = Started | Audio | MarkEchoed | Digit | Ended
