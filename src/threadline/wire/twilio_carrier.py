"""Twilio Media Streams, the carrier's end: what a stand-in phone speaks to a server under test.

The mirror of ``twilio.py``, with the same table of states. It is stricter than Twilio about what
it takes: a key too many is an error here, so that our messages cannot drift from the documented
form. Its errors begin with the number under which Twilio would report them:

    31924  the peer broke the WebSocket protocol's rules
    31950  a binary message
    31951  not the documented form, or another stream's `streamSid`
"""

from __future__ import annotations

import json
from binascii import b2a_base64
from collections.abc import Buffer, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ProtocolError
from .events import LocalError
from .twilio import TRANSITIONS, State, decode_payload, parse_object, shown

BYTES_PER_MS = 8  # mu-law at 8 kHz


@dataclass(frozen=True, slots=True)
class Media:
    """The server wants this audio played, after all it sent before: mu-law, 8 kHz."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class MarkRequest:
    """The server wants ``name`` back when all audio before it has played."""

    name: str


@dataclass(frozen=True, slots=True)
class ClearRequest:
    """The server wants the unplayed audio gone, and every pending mark back at once."""


type CarrierEvent = Media | MarkRequest | ClearRequest


class TwilioCarrier:
    """One stream as Twilio sees it. Not for two threads at once.

    Methods that make a message raise ``LocalError`` out of order. Send raw text past this class
    to play a carrier that breaks the rules.
    """

    def __init__(
        self, stream_sid: str, call_sid: str, account_sid: str, parameters: Mapping[str, str]
    ) -> None:
        self.state = State.AWAIT_CONNECTED
        self.stream_sid = stream_sid
        self._call = {"accountSid": account_sid, "callSid": call_sid}
        self._parameters = dict(parameters)
        self._sequence = 0
        self._chunk = 0
        self._bytes_sent = 0

    def connected(self) -> str:
        """Make the first message."""
        self._step("connected")
        return _compact({"event": "connected", "protocol": "Call", "version": "1.0.0"})

    def start(self) -> str:
        """Make the second message, which opens the stream."""
        return self._numbered(
            "start",
            {
                **self._call,
                "streamSid": self.stream_sid,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": self._parameters,
            },
        )

    def media(self, payload: Buffer) -> str:
        """Make one message of caller audio: mu-law, 8 kHz, 160 bytes as Twilio does it."""
        encoded = b2a_base64(payload, newline=False).decode("ascii")
        self._chunk += 1
        at_ms = self._bytes_sent // BYTES_PER_MS
        self._bytes_sent += memoryview(payload).nbytes
        return self._numbered(
            "media",
            {
                "track": "inbound",
                "chunk": str(self._chunk),
                "timestamp": str(at_ms),
                "payload": encoded,
            },
        )

    def mark(self, name: str) -> str:
        """Echo a mark: its audio has played, or was cleared."""
        return self._numbered("mark", {"name": name})

    def dtmf(self, digit: str) -> str:
        """Report a key that the caller pressed."""
        return self._numbered("dtmf", {"track": "inbound_track", "digit": digit})

    def stop(self) -> str:
        """Make the last message."""
        return self._numbered("stop", dict(self._call))

    def receive(self, message: str | bytes) -> CarrierEvent | None:
        """Take one message of the server; None after ``stop``, when nobody listens any more.

        Raises ``ProtocolError``, and only that.
        """
        if self.state is State.ENDED:
            return None
        if isinstance(message, bytes):
            raise ProtocolError("31950: the server sent a binary message.")
        if self.state is not State.LIVE:
            raise ProtocolError("31924: the server spoke before the stream had started.")
        try:
            return self._read(parse_object(message))
        except ProtocolError as error:
            raise ProtocolError(f"31951: {error}") from None

    def _read(self, body: dict[str, Any]) -> CarrierEvent:
        if body.get("streamSid") != self.stream_sid:
            raise ProtocolError(f"The server sent a message with {shown(body, 'streamSid')}.")
        match body.get("event"):
            case "media":
                media = _only(_only(body, "event", "streamSid", "media")["media"], "payload")
                payload = decode_payload(media)
                if not payload:
                    raise ProtocolError("The server sent no audio in a 'media'.")
                return Media(payload)
            case "mark":
                mark = _only(_only(body, "event", "streamSid", "mark")["mark"], "name")
                if type(mark["name"]) is not str or not mark["name"]:
                    raise ProtocolError(f"The server sent a mark with {shown(mark, 'name')}.")
                return MarkRequest(mark["name"])
            case "clear":
                _only(body, "event", "streamSid")
                return ClearRequest()
            case _:
                raise ProtocolError(f"The server sent a message with {shown(body, 'event')}.")

    def _numbered(self, event: str, content: dict[str, Any]) -> str:
        self._step(event)
        self._sequence += 1
        return _compact(
            {
                "event": event,
                "sequenceNumber": str(self._sequence),
                "streamSid": self.stream_sid,
                event: content,
            }
        )

    def _step(self, event: str) -> None:
        successor = TRANSITIONS[self.state].get(event)
        if successor is None:
            raise LocalError(f"{event!r} sent in {self.state}")
        self.state = successor


def _only(value: object, *keys: str) -> dict[str, Any]:
    """Return ``value``, an object with exactly these keys."""
    if not isinstance(value, dict) or value.keys() != set(keys):
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ProtocolError(f"The server sent {found}, and the form is {sorted(keys)}.")
    return value


def _compact(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))
