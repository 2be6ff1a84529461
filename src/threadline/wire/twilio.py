"""Twilio Media Streams, our end: its text messages in, events out; commands in, text out.

Theory of operation
===================
One ``TwilioLeg`` serves one WebSocket. Twilio speaks first and in a fixed order, so what may
come next is a matter of one variable, and every legal step stands in ``TRANSITIONS``:

    state            connected    start  media  mark  dtmf  stop   any other
    ---------------  -----------  -----  -----  ----  ----  -----  -----------
    AWAIT_CONNECTED  AWAIT_START  -      -      -     -     -      -
    AWAIT_START      -            LIVE   -      -     -     -      AWAIT_START
    LIVE             -            -      LIVE   LIVE  LIVE  ENDED  LIVE
    ENDED            -            -      -      -     -     -      -

A dash is a ``ProtocolError``. So is a message that cannot be read, or lacks a key we use. Either
leads to ENDED: a peer that broke the protocol once is not worth guessing at, and the server
closes its call. No input of any kind raises anything else. Keys we do not use may be missing,
new or odd.

"Any other" is an event we do not know. Once the peer has said `connected` it is counted in
``ignored`` and passed over: a message type that Twilio adds one morning must not end every call
of every server. As the first message it is an error, for then the peer is not Twilio.

The sequence numbers are not checked: one WebSocket keeps its order.

We may speak only while LIVE; outside it ``media``, ``mark`` and ``clear`` raise ``LocalError``,
because the server should have known. ``clear`` makes Twilio echo every mark it still holds, so an
echo alone proves no playback: whoever names the marks puts the epoch in the name.

Message shapes: Twilio's documentation of `<Connect><Stream>`, "WebSocket messages".
"""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Buffer
from enum import Enum, auto
from reprlib import Repr
from typing import Any

from ..errors import ProtocolError
from .events import Audio, Digit, Ended, Event, LocalError, MarkEchoed, Started

MAX_PAYLOAD_BYTES = 16_384  # two seconds in one message; Twilio sends 160 bytes
DIGITS = frozenset("0123456789*#ABCD")

_decode = json.JSONDecoder().raw_decode
_repr = Repr(maxstring=40, maxother=40, maxlong=40, maxlevel=2, maxdict=4, maxlist=4).repr


class State(Enum):
    """Where the stream stands; see the table above."""

    AWAIT_CONNECTED = auto()
    AWAIT_START = auto()
    LIVE = auto()
    ENDED = auto()


OTHER = ""  # stands for every event without a column of its own
TRANSITIONS: dict[State, dict[str, State]] = {
    State.AWAIT_CONNECTED: {"connected": State.AWAIT_START},
    State.AWAIT_START: {"start": State.LIVE, OTHER: State.AWAIT_START},
    State.LIVE: {
        "media": State.LIVE,
        "mark": State.LIVE,
        "dtmf": State.LIVE,
        "stop": State.ENDED,
        OTHER: State.LIVE,
    },
    State.ENDED: {},
}
_EXPECTED = {  # ends the sentence about a message that came at the wrong time
    State.AWAIT_CONNECTED: "before 'connected', which must come first",
    State.AWAIT_START: "before 'start'",
    State.LIVE: "in the middle of the stream, where it may come only once and earlier",
    State.ENDED: "after the stream had ended",
}
_LIVE = State.LIVE  # a global is read faster than a member, and the media path reads it


class TwilioLeg:
    """One stream as its server sees it. Not for two threads at once.

    ``max_payload_bytes`` bounds the audio of one message, after base64.
    """

    __slots__ = (
        "_clear",
        "_mark_head",
        "_max_payload",
        "_media_head",
        "ignored",
        "state",
        "stream_id",
    )

    def __init__(self, max_payload_bytes: int = MAX_PAYLOAD_BYTES) -> None:
        self.state = State.AWAIT_CONNECTED
        self.stream_id = ""  # known from `start` on
        self.ignored = 0  # messages of an event we do not know
        self._max_payload = max_payload_bytes
        self._media_head = self._mark_head = self._clear = ""  # what `start` lets us prebuild

    # The peer's messages

    def receive(self, message: str | bytes) -> Event | None:
        """Take one whole WebSocket message; None when it means nothing to a call.

        Raises ``ProtocolError``, and only that; the leg has then ended.
        """
        try:
            body = parse_object(message)
            event = body.get("event")
            if type(event) is not str:
                raise ProtocolError(f"The carrier sent a message with {shown(body, 'event')}.")
            column = event if event in _READERS else OTHER
            successor = TRANSITIONS[self.state].get(column)
            if successor is None:
                raise ProtocolError(f"The carrier sent {_repr(event)} {_EXPECTED[self.state]}.")
            result = _READERS[column](self, body)
        except ProtocolError:
            self.state = State.ENDED
            raise
        self.state = successor
        return result

    def _connected(self, body: dict[str, Any]) -> None:
        """`protocol` and `version` are not checked: only `start` says anything we rely on."""

    def _start(self, body: dict[str, Any]) -> Started:
        start = _object(body, "start", "start")
        stream_id = _name(start, "streamSid", "start")
        if body.get("streamSid") != stream_id:
            raise ProtocolError(
                f"The carrier's 'start' names two streams: {_repr(stream_id)} inside and "
                f"{shown(body, 'streamSid')} outside."
            )
        call_id = _name(start, "callSid", "start")
        _check_format(_object(start, "mediaFormat", "start"))
        parameters = _parameters(start)
        self.stream_id = stream_id
        sid = json.dumps(stream_id)
        self._media_head = '{"event":"media","streamSid":' + sid + ',"media":{"payload":"'
        self._mark_head = '{"event":"mark","streamSid":' + sid + ',"mark":{"name":'
        self._clear = '{"event":"clear","streamSid":' + sid + "}"
        return Started(stream_id, call_id, parameters)

    def _media(self, body: dict[str, Any]) -> Audio:
        self._check_stream(body)
        media = _object(body, "media", "media")
        if media.get("track") != "inbound":
            raise ProtocolError(
                f"The carrier sent audio with {shown(media, 'track')}: "
                "only the caller's own audio, the track 'inbound', can be answered."
            )
        payload = decode_payload(media)
        if len(payload) > self._max_payload:
            raise ProtocolError(
                f"The carrier sent {len(payload)} bytes of audio in one message, "
                f"and at most {self._max_payload} are accepted."
            )
        return Audio(payload)

    def _mark(self, body: dict[str, Any]) -> MarkEchoed:
        self._check_stream(body)
        return MarkEchoed(_name(_object(body, "mark", "mark"), "name", "mark"))

    def _dtmf(self, body: dict[str, Any]) -> Digit:
        self._check_stream(body)
        dtmf = _object(body, "dtmf", "dtmf")
        digit = dtmf.get("digit")
        if type(digit) is not str or digit not in DIGITS:
            raise ProtocolError(f"The carrier sent a 'dtmf' with {shown(dtmf, 'digit')}.")
        return Digit(digit)

    def _stop(self, body: dict[str, Any]) -> Ended:
        self._check_stream(body)
        return Ended("stop")

    def _ignore(self, body: dict[str, Any]) -> None:
        self.ignored += 1

    def _check_stream(self, body: dict[str, Any]) -> None:
        if body.get("streamSid") != self.stream_id:
            raise ProtocolError(
                f"The carrier sent a message with {shown(body, 'streamSid')} "
                f"on the stream {_repr(self.stream_id)}."
            )

    # Our messages

    def media(self, payload: Buffer) -> str:
        """Audio to play after all that was sent before: mu-law, 8 kHz, of any length."""
        if self.state is not _LIVE:
            raise LocalError(f"media sent in {self.state}")
        return self._media_head + b2a_base64(payload, newline=False).decode("ascii") + '"}}'

    def mark(self, name: str) -> str:
        """A mark that comes back when the audio before it has played, or at the next clear."""
        if self.state is not _LIVE:
            raise LocalError(f"mark {name!r} sent in {self.state}")
        return self._mark_head + json.dumps(name) + "}}"

    def clear(self) -> str:
        """Throw away all audio not yet played; Twilio echoes the marks it still holds."""
        if self.state is not _LIVE:
            raise LocalError(f"clear sent in {self.state}")
        return self._clear


_READERS = {
    "connected": TwilioLeg._connected,
    "start": TwilioLeg._start,
    "media": TwilioLeg._media,
    "mark": TwilioLeg._mark,
    "dtmf": TwilioLeg._dtmf,
    "stop": TwilioLeg._stop,
    OTHER: TwilioLeg._ignore,
}


# Reading a message. Each of these raises ProtocolError only.


def parse_object(message: str | bytes) -> dict[str, Any]:
    """Return the JSON object in one text message."""
    if isinstance(message, bytes):
        raise ProtocolError("The peer sent a binary message, and this protocol is text only.")
    try:
        body = _read_json(message)
    except RecursionError:
        raise ProtocolError("The peer sent JSON that is nested too deeply.") from None
    except ValueError:  # broken JSON; also an integer of more digits than Python converts
        raise ProtocolError(
            f"The peer sent a message that is not JSON: {_repr(message)}."
        ) from None
    if type(body) is not dict:
        raise ProtocolError(f"The peer sent JSON that is no object: {_repr(body)}.")
    return body


def _read_json(message: str) -> object:
    """json.loads, which spends a third of its time on a search for white space at both ends."""
    if message.startswith("{"):
        body, end = _decode(message)
        if end == len(message):
            return body
    return json.loads(message)


def decode_payload(media: dict[str, Any]) -> bytes:
    """Return the audio of a `media` object."""
    payload = media.get("payload")
    if type(payload) is not str:
        raise ProtocolError(f"The peer sent audio with {shown(media, 'payload')}.")
    try:
        return a2b_base64(payload, strict_mode=True)
    except ValueError:
        raise ProtocolError(f"The peer sent audio that is not base64: {_repr(payload)}.") from None


def shown(body: dict[str, Any], key: str) -> str:
    """``no 'key'`` or ``the 'key' value``, shortened, for a sentence about a bad message."""
    return f"the {key!r} {_repr(body[key])}" if key in body else f"no {key!r}"


def _object(body: dict[str, Any], key: str, event: str) -> dict[str, Any]:
    value = body.get(key)
    if type(value) is not dict:
        raise ProtocolError(f"The carrier sent a {event!r} with {shown(body, key)}.")
    return value


def _name(body: dict[str, Any], key: str, event: str) -> str:
    """Return a name fit for logs: no control character, no half of a surrogate pair."""
    value = body.get(key)
    if type(value) is not str or not value or not value.isprintable():
        raise ProtocolError(f"The carrier sent a {event!r} with {shown(body, key)}.")
    return value


def _check_format(media: dict[str, Any]) -> None:
    found = (media.get("encoding"), media.get("sampleRate"), media.get("channels"))
    if found != ("audio/x-mulaw", 8000, 1):
        raise ProtocolError(
            f"The carrier announced the audio {_repr(found)}: "
            "set its stream to audio/x-mulaw, 8000 Hz, 1 channel."
        )


def _parameters(start: dict[str, Any]) -> dict[str, str]:
    """Return the custom parameters; a carrier with none to pass may leave the key out."""
    parameters = start.get("customParameters", {})
    if type(parameters) is not dict:
        raise ProtocolError(f"The carrier sent a 'start' with {shown(start, 'customParameters')}.")
    for name, value in parameters.items():
        if type(value) is not str or not _encodable(name + value):
            raise ProtocolError(
                f"The carrier sent a custom parameter that is not text: {_repr(name)}."
            )
    return parameters


def _encodable(text: str) -> bool:
    """Half a surrogate pair passes through JSON and fails at the first log line."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
