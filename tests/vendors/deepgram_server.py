"""A server on 127.0.0.1 that recognises as Deepgram does, and breaks in every way we know.

What it does was modelled on the protocol: WebSocket at /v1/listen with the audio's format in the
query and `Authorization: Token KEY`; binary messages are audio; `Results` in stream time, a guess
every `interim_ms` of audio, final ones on `Finalize` (`from_finalize`) and, like the original, now
and then by itself; no answer to a `Finalize` that finds nothing buffered; `Metadata` and a close
for `CloseStream`; NET-0001 after `idle_seconds` without a message.

What is said comes from `voice`, by default from the audio itself: see `Coded`. Each connection
takes the next of `plans`, which says when to break, and how; when there is none, it works.

As a process it prints {"port": N} and serves until it is told to stop:

    python tests/vendors/deepgram_server.py --port 0 --final-ms 60 --text "a table for two"
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, cast
from urllib.parse import parse_qs, urlsplit

import uvloop
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

RATE = 8000
SILENCE = 0xFF  # mu-law

type Words = list[tuple[str, float, float]]  # text, start and end in s from the segment's start
type Share = Literal["guess", "some", "all"]  # all: nothing of this segment is said later


class Voice(Protocol):
    """What is said in a segment: the audio since the last final result."""

    def words(self, segment: bytes, share: Share) -> Words: ...


class Coded:
    """Words written into the audio: a run of one byte is one word, named by its value."""

    def words(self, segment: bytes, share: Share) -> Words:
        runs = [match.span() for match in re.finditer(rb"(.)\1*", segment, re.DOTALL)]
        if share == "some":
            runs = runs[:-1]  # the last one may go on
        return [
            (f"w{segment[start]}", start / RATE, end / RATE)
            for start, end in runs
            if segment[start] != SILENCE
        ]


def speak(*words: int, ms: int = 100) -> bytes:
    """Audio for `Coded`: these words, `ms` each."""
    return b"".join(bytes([word]) * (ms * RATE // 1000) for word in words)


class Texts:
    """The texts, in turn, one for each segment with something loud in it; 300 ms a word."""

    LOUD = bytes((~b & 0x7F) >= 0x30 for b in range(256))  # well above line noise

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = [text.split() for text in texts]
        self._next = 0
        self._given = 0

    def words(self, segment: bytes, share: Share) -> Words:
        loud = segment.translate(self.LOUD)
        if loud.count(1) < RATE // 20:
            return []
        first, last = loud.index(1) / RATE, (loud.rindex(1) + 1) / RATE
        text = self._texts[self._next % len(self._texts)][self._given :]
        if share != "all":
            text = text[: int((last - first) / 0.3)]
        if share == "some":
            self._given += len(text)
        elif share == "all":
            self._next, self._given = self._next + 1, 0
        each = (last - first) / max(1, len(text))
        return [(w, first + i * each, first + (i + 1) * each) for i, w in enumerate(text)]


def results(
    start: float, end: float, words: Words, final: bool = False, flushed: bool = False
) -> str:
    """A `Results` message; `words` in s from `start`."""
    return json.dumps(
        {
            "type": "Results",
            "channel_index": [0, 1],
            "start": round(start, 3),
            "duration": round(end - start, 3),
            "is_final": final,
            "speech_final": False,
            "channel": {
                "alternatives": [
                    {
                        "transcript": " ".join(word for word, _, _ in words),
                        "confidence": 0.99,
                        "words": [
                            {
                                "word": word.lower(),
                                "punctuated_word": word,
                                "start": round(start + a, 3),
                                "end": round(start + b, 3),
                                "confidence": 0.99,
                            }
                            for word, a, b in words
                        ],
                    }
                ]
            },
            "metadata": {
                "request_id": "7f0c",
                "model_info": {"name": "general", "version": "1", "arch": "test"},
                "model_uuid": "1d2e",
            },
            "from_finalize": flushed,
        }
    )


type Phase = Literal["accept", "request", "audio", "finalize"]


@dataclass(frozen=True)
class Plan:
    """Break at this point: a new connection, its handshake, `after` s of audio, a Finalize.

    `fault` returns whether to go on as if nothing had happened.
    """

    phase: Phase
    fault: Callable[[Wire], bool]
    after: float = 0.0


class Wire(asyncio.Protocol):
    """One connection."""

    def __init__(self, server: DeepgramServer) -> None:
        self.server = server
        self.loop = asyncio.get_running_loop()
        self.proto = ServerProtocol()
        self.headers: dict[str, str] = {}
        self.query: dict[str, list[str]] = {}
        self.received: list[str | bytes] = []  # messages, in order; audio joined; if kept
        self.mute = False  # takes everything, says nothing
        self.deaf = False  # does not even take it
        self.lost = False
        self.voice = server.voice()
        self.plan = server.plans.popleft() if server.plans else None
        self._position = 0  # bytes of the stream
        self._segment = bytearray()
        self._guessed = 0  # bytes of the segment that the last guess covered

    # -- the socket -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.server.wires.append(self)
        self._idle = self.loop.call_later(self.server.idle_seconds, self._expire)
        self._breaks("accept")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._idle.cancel()
        if not self.server.keep:
            self.server.wires.remove(self)

    def data_received(self, data: bytes) -> None:
        if self.deaf:
            return
        self.proto.receive_data(data)
        for event in self.proto.events_received():
            if isinstance(event, Request):
                self._request(event)
            elif isinstance(event, Frame):
                self._frame(event)
        self.flush()

    def eof_received(self) -> None:
        if not self.deaf:
            self.proto.receive_eof()
            self.flush()

    def flush(self) -> None:
        for data in self.proto.data_to_send():
            if self.lost or self.transport.is_closing():
                return
            if data:
                self.transport.write(data)
            else:
                self.transport.close()

    def say(self, text: str) -> None:
        """Send a message, now."""
        if not self.mute and self.proto.state is State.OPEN and not self.lost:
            self.proto.send_text(text.encode())
            self.flush()

    def later(self, ms: float, text: str) -> None:
        """Send a message as late as the recogniser is slow."""
        if ms:
            self.loop.call_later(ms / 1000, self.say, text)
        else:
            self.say(text)

    def _expire(self) -> None:
        reason = "NET-0001: no audio and no text message within the time-out"
        self.close(1011, reason)

    def close(self, code: int, reason: str = "") -> None:
        if self.proto.state is State.OPEN and not self.lost:
            self.proto.send_close(code, reason)
            self.flush()

    def _breaks(self, phase: Phase) -> bool:
        """Does the plan strike here, and leave nothing to do?"""
        plan = self.plan
        if plan is None or plan.phase != phase or self._position < plan.after * RATE:
            return False
        self.plan = None
        return not plan.fault(self)

    # -- the protocol -----------------------------------------------------------------------------

    def _request(self, request: Request) -> None:
        url = urlsplit(request.path)
        self.headers = {name.lower(): value for name, value in request.headers.raw_items()}
        self.query = parse_qs(url.query)
        if self._breaks("request"):
            return
        key = self.server.key
        if url.path != "/v1/listen":
            self.proto.send_response(self.proto.reject(404, "not found\n"))
        elif key and self.headers.get("authorization") != f"Token {key}":
            self.proto.send_response(self.proto.reject(401, "invalid credentials\n"))
        elif (self.query.get("encoding"), self.query.get("sample_rate")) != (["mulaw"], ["8000"]):
            self.proto.send_response(self.proto.reject(400, "unsupported audio format\n"))
        else:
            self.proto.send_response(self.proto.accept(request))

    def _frame(self, frame: Frame) -> None:
        self._idle.cancel()
        self._idle = self.loop.call_later(self.server.idle_seconds, self._expire)
        data = bytes(frame.data)
        if frame.opcode is Opcode.BINARY and data:
            self._keep(data)
            self._audio(data)
        elif frame.opcode is Opcode.TEXT:
            self._keep(data.decode())
            self._control(json.loads(data)["type"])

    def _keep(self, message: str | bytes) -> None:
        if not self.server.keep:
            return
        last = self.received[-1] if self.received else None
        if isinstance(message, bytes) and isinstance(last, bytes):
            self.received[-1] = last + message
        else:
            self.received.append(message)

    def _control(self, kind: str) -> None:
        if kind == "Finalize":
            if not self._breaks("finalize") and self._segment:
                self.later(self.server.final_ms, self._cut(flushed=True))
        elif kind == "CloseStream":
            if self._segment:
                self.say(self._cut(flushed=False))
            metadata = {"type": "Metadata", "duration": self._position / RATE, "channels": 1}
            self.say(json.dumps(metadata))
            if not self.mute:
                self.close(1000)
        elif kind != "KeepAlive":
            self.close(1008, "DATA-0000: not a control message")

    def _audio(self, data: bytes) -> None:
        self._position += len(data)
        self._segment += data
        if self._breaks("audio"):
            return
        server = self.server
        long = server.final_every_ms and len(self._segment) * 1000 > server.final_every_ms * RATE
        if long and (some := self._cut_some()):
            self.later(server.final_ms, some)
        elif (len(self._segment) - self._guessed) * 1000 >= server.interim_ms * RATE:
            self._guessed = len(self._segment)
            words = self.voice.words(bytes(self._segment), "guess")
            start, end = self._stretch()
            self.later(server.final_ms, results(start, end, words))

    def _stretch(self) -> tuple[float, float]:
        return (self._position - len(self._segment)) / RATE, self._position / RATE

    def _cut(self, flushed: bool) -> str:
        """All of the segment, final."""
        start, end = self._stretch()
        words = self.voice.words(bytes(self._segment), "all")
        self._segment.clear()
        self._guessed = 0
        return results(start, end, words, True, flushed)

    def _cut_some(self) -> str:
        """The words of the segment that are certainly over, final; "" when there are none."""
        start, _ = self._stretch()
        words = self.voice.words(bytes(self._segment), "some")
        if not words:
            return ""
        size = round(words[-1][2] * RATE)
        del self._segment[:size]
        self._guessed = len(self._segment)
        return results(start, start + size / RATE, words, True)


@dataclass
class DeepgramServer:
    """Use as a context manager; `url` goes into `Deepgram.url`."""

    key: str = ""  # when set, no other is taken
    final_ms: float = 60.0  # how long the recogniser takes, for any result
    interim_ms: float = 160.0  # of audio, between guesses
    final_every_ms: float = 0.0  # of audio, after which there is a final result anyway; 0: never
    idle_seconds: float = 10.0
    voice: Callable[[], Voice] = Coded  # one for each connection
    keep: bool = True  # what is received, for the test to look at
    port: int = 0
    plans: deque[Plan] = field(default_factory=deque)
    wires: list[Wire] = field(default_factory=list)  # connections, in order

    def __enter__(self) -> DeepgramServer:
        self._loop = uvloop.new_event_loop()
        self._errors: list[BaseException] = []
        self._loop.set_exception_handler(self._failed)
        self._sock = socket.create_server(("127.0.0.1", self.port), backlog=1024)
        self.port = self._sock.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._run, name="deepgram-server")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the test server did not end"
        if self._errors:
            raise self._errors[0]

    def _failed(self, _: object, context: dict[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException) and not isinstance(error, OSError):
            self._errors.append(error)

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        server = loop.run_until_complete(
            loop.create_server(lambda: Wire(self), sock=self._sock, backlog=1024)
        )
        loop.run_forever()
        server.close()
        for wire in self.wires:
            wire.transport.abort()
        loop.run_until_complete(server.wait_closed())
        loop.close()


# -- faults ------------------------------------------------------------------------------------


def reset(wire: Wire) -> bool:
    """Close with RST."""
    sock = wire.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.transport.abort()
    return False


def half_close(wire: Wire) -> bool:
    """End the stream of bytes without a closing handshake."""
    wire.deaf = True
    wire.transport.close()
    return False


def hang(wire: Wire) -> bool:
    """Read on, say nothing any more."""
    wire.mute = True
    wire.deaf = wire.deaf or not wire.headers  # before the handshake: no answer to it either
    return False


def hang_handshake(wire: Wire) -> bool:
    """The request is read, and that is all."""
    wire.deaf = True
    return False


def stall(wire: Wire) -> bool:
    """Do not even read on."""
    wire.mute = True
    wire.transport.pause_reading()
    return False


def closes(code: int, reason: str = "") -> Callable[[Wire], bool]:
    def fault(wire: Wire) -> bool:
        wire.close(code, reason)
        wire.mute = True
        return False

    return fault


def status(code: int, **headers: str) -> Callable[[Wire], bool]:
    """Answer the handshake with this status."""

    def fault(wire: Wire) -> bool:
        response = wire.proto.reject(code, f"this is status {code}\n")
        response.headers.update({name.replace("_", "-"): v for name, v in headers.items()})
        wire.proto.send_response(response)
        return False

    return fault


def sends(*data: bytes, then_drip: bytes = b"") -> Callable[[Wire], bool]:
    """Put these bytes on the wire, and then `then_drip`, byte by byte, 20 ms each, for ever."""

    def fault(wire: Wire) -> bool:
        wire.mute = wire.deaf = True
        for piece in data:
            wire.transport.write(piece)

        def drip(at: int) -> None:
            if not wire.lost and not wire.transport.is_closing():
                wire.transport.write(then_drip[at % len(then_drip) :][:1])
                wire.loop.call_later(0.02, drip, at + 1)

        if then_drip:
            drip(0)
        return False

    return fault


def says(*messages: str | bytes, go_on: bool = True) -> Callable[[Wire], bool]:
    """Send these messages, and then work, or hang."""

    def fault(wire: Wire) -> bool:
        for message in messages:
            if isinstance(message, bytes):
                wire.proto.send_binary(message)
            else:
                wire.proto.send_text(message.encode())
        wire.flush()
        wire.mute = not go_on
        return go_on

    return fault


def skips(wire: Wire) -> bool:
    """Leave this one out; work otherwise."""
    return False


GARBAGE = (
    "no json",
    b"\x00\xffbinary",
    "[]",
    "7",
    "{}",
    '{"type": "Results"}',
    '{"type": "Results", "start": "a", "duration": [], "channel": 5, "is_final": true}',
    '{"type": "Results", "start": 1e999, "duration": -1, "channel": {"alternatives": [{}]}}',
    '{"type": "Surprise", "channel": null}',
)


def main() -> None:
    parser = argparse.ArgumentParser(description="A recogniser that speaks Deepgram's protocol.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--final-ms", type=float, default=60.0)
    parser.add_argument("--interim-ms", type=float, default=160.0, help="of audio")
    parser.add_argument("--text", action="append", help="said in turn; without: read off the audio")
    options = parser.parse_args()
    texts = options.text
    stops = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # before there are threads: none may take them
    with DeepgramServer(
        port=options.port,
        final_ms=options.final_ms,
        interim_ms=options.interim_ms,
        voice=(lambda: Texts(texts)) if texts else Coded,
        keep=False,
    ) as server:
        print(json.dumps({"port": server.port}), flush=True)
        signal.sigwait(stops)


if __name__ == "__main__":
    main()
