"""A Cartesia voice server on 127.0.0.1 that speaks tones, and breaks in every way we know.

What it says follows the protocol: contexts with continuations, manual flushes with ids from 1,
word timestamps from the beginning of the context, a cancel that stops only what has not begun,
contexts that expire, a limit on how many there may be. The audio of a text is a tone whose pitch
and length follow from it (`tone`), so that a test can tell every byte. What a client must not do
is put down in `complaints`.

Each handshake takes the next of `handshakes` and each clause the next of `clauses`; when there
is none left, all goes well. For benchmarks it is a process of its own: see `main`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import math
import socket
import struct
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from http import HTTPStatus
from typing import Any, Literal

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from threadline.audio import mulaw

CHUNK = 800  # bytes, 100 ms
CHARACTER_MS = 61  # no multiple of a frame
MUTE = "(mute)"
"""A text of which there is no audio."""
FIXED = ("model_id", "voice", "language", "output_format", "add_timestamps")

Handshake = int | Literal["hang", "reset", "garbage"]  # int: this HTTP status
What = Literal[
    "hang",  # say no more, on any context
    "stall",  # no more of this context
    "reset",  # of the connection
    "close",  # of the connection, politely
    "error",  # of this context
    "busy",  # the same, 429
    "error-all",  # of no context in particular
    "garbage",  # one message that is no JSON, then go on
    "garbage-burst",  # many of them
    "huge",  # a message of 2 MiB
    "list",  # one message that is JSON but no object, then go on
    "unknown",  # a message of a new type, then go on
    "binary",  # the next message as bytes
    "strange",  # audio of a context that nobody opened, without one, and twice done; then go on
    "rubbish",  # a chunk that is not base64
    "missing",  # a chunk without data
    "done",  # this context is over
    "drip",  # a few bytes at a time, far below real time
    "flood",  # audio without end
    "twice",  # flush_done and done come twice
    "no-flush",  # flush_done does not come; the next clause does
]


@dataclass(frozen=True)
class Fault:
    """`what` happens to a clause: before its first chunk, in its middle, or after its end."""

    what: What
    when: Literal["before", "middle", "after"] = "before"


@cache
def _cycle(hertz: int) -> bytes:
    """One second of a tone: it closes on itself."""
    at = np.arange(mulaw.RATE) / mulaw.RATE
    return mulaw.encode_float((0.4 * np.sin(2 * np.pi * hertz * at)).astype(np.float32))


def tone(text: str) -> bytes:
    """What `text` sounds like, as mu-law."""
    text = text.strip()
    if text == MUTE:
        return b""
    seed = zlib.crc32(text.encode())
    length = len(text) * CHARACTER_MS * 8 + seed % 160
    second = _cycle(200 + seed // 160 % 1500)
    return (second * (length // len(second) + 1))[:length]


def word_times(text: str) -> list[tuple[str, float, float]]:
    """Words with begin and end in s: the length in proportion to the characters."""
    text = text.strip()
    seconds = len(tone(text)) / mulaw.RATE
    times = []
    at = 0
    for word in text.split():
        at = text.index(word, at)
        times.append((word, seconds * at / len(text), seconds * (at + len(word)) / len(text)))
        at += len(word)
    return times


@lru_cache(4096)
def _chunks(text: str) -> tuple[tuple[int, str], ...]:
    """Bytes and base64 of each chunk of a text."""
    audio = tone(text)
    parts = [audio[i : i + CHUNK] for i in range(0, len(audio), CHUNK)]
    return tuple((len(part), base64.b64encode(part).decode()) for part in parts)


def _frame(payload: bytes) -> bytes:
    """A text frame of a server, as it goes over the wire."""
    if len(payload) < 126:
        return struct.pack("!BB", 0x81, len(payload)) + payload
    if len(payload) < 65_536:
        return struct.pack("!BBH", 0x81, 126, len(payload)) + payload
    return struct.pack("!BBQ", 0x81, 127, len(payload)) + payload


@dataclass(eq=False)
class Context:
    """One context: what was asked is spoken in order, by `task`."""

    name: str
    fixed: list[Any]
    asked: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)  # None: a flush
    cancelled: bool = False
    ended: bool = False
    flushes: int = 1
    spoken: int = 0  # bytes
    task: asyncio.Task[None] | None = None


@dataclass
class CartesiaServer:
    """Use as an async context manager; `url` goes into `Cartesia.url`.

    `speed`: audio made in one second, in s. `relative`: word times from the begin of a clause.
    """

    first_ms: float = 0.0
    speed: float = 1000.0
    key: str = "a-key"
    limit: int = 1000  # contexts
    expire_seconds: float = 1.0
    relative: bool = False
    port: int = 0
    handshakes: deque[Handshake] = field(default_factory=deque)
    clauses: deque[Fault | None] = field(default_factory=deque)
    texts: list[str] = field(default_factory=list)  # spoken, in the order begun
    cancels: list[str] = field(default_factory=list)  # contexts
    contexts: list[str] = field(default_factory=list)  # opened, in order
    connections: int = 0  # attempts
    complaints: list[str] = field(default_factory=list)
    retry_after: str = ""
    most: int = 0  # contexts at once
    failed: int = 0  # faults that came about

    async def __aenter__(self) -> CartesiaServer:
        self._lines: set[_Line] = set()
        self._server: Server = await serve(
            self._talk,
            "127.0.0.1",
            self.port,
            process_request=self._greet,
            compression=None,
            ping_interval=None,
            close_timeout=0.2,
            open_timeout=None,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for line in list(self._lines):
            line.reset()
        self._server.close()
        await self._server.wait_closed()

    @property
    def live(self) -> int:
        """Contexts at this moment."""
        return sum(len(line.contexts) for line in self._lines)

    def reset(self) -> None:
        """Break every connection."""
        for line in list(self._lines):
            line.reset()

    async def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        self.connections += 1
        path, headers = request.path.partition("?")[0], request.headers
        if path != "/tts/websocket":
            self.complaints.append(f"path {path}")
        if not headers.get("cartesia-version"):
            self.complaints.append("no version")
        plan = self.handshakes.popleft() if self.handshakes else None
        if headers.get("Authorization") != f"Bearer {self.key}":
            plan = 401
        if plan is None:
            return None
        if plan == "hang":
            await connection.wait_closed()
        elif plan == "reset":
            _abort(connection)
        elif plan == "garbage":
            connection.transport.write(b"220 mail server ready\r\n")
            connection.transport.close()
        else:
            response = connection.respond(HTTPStatus(plan), '{"title": "No"}\n')
            if self.retry_after:
                response.headers["Retry-After"] = self.retry_after
            return response
        await asyncio.sleep(0.01)
        return connection.respond(HTTPStatus.INTERNAL_SERVER_ERROR, "")

    async def _talk(self, connection: ServerConnection) -> None:
        line = _Line(self, connection)
        self._lines.add(line)
        try:
            async for message in connection:
                line.take(json.loads(message))
        except ConnectionClosed:
            pass
        finally:
            self._lines.discard(line)
            for context in list(line.contexts.values()):
                line.drop(context)


def _abort(connection: ServerConnection) -> None:
    """Close with RST."""
    sock = connection.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.transport.abort()


class _Line:
    """One connection."""

    def __init__(self, server: CartesiaServer, connection: ServerConnection) -> None:
        self.server = server
        self.connection = connection
        self.contexts: dict[str, Context] = {}
        self.known: set[str] = set()
        self.silent = False

    def take(self, fields: dict[str, Any]) -> None:
        """One request."""
        name = fields["context_id"]
        context = self.contexts.get(name)
        if fields.get("cancel"):
            self.server.cancels.append(name)
            if context is not None:
                context.cancelled = True
                context.asked.put_nowait(None)
            return
        if context is None and (context := self._open(name, fields)) is None:
            return
        if context.ended:
            self.server.complaints.append("more after the end")
        if [fields[key] for key in FIXED] != context.fixed:
            self.server.complaints.append("a continuation differs")
        if fields["transcript"]:
            context.asked.put_nowait(fields["transcript"])
        if fields.get("flush") or not fields["continue"]:
            context.ended = not fields["continue"]
            context.asked.put_nowait(None)

    def _open(self, name: str, fields: dict[str, Any]) -> Context | None:
        if name in self.known:
            if fields["transcript"] or fields.get("flush"):  # an end may cross with the expiry
                self.error(name, 400, "Invalid context", "It has ended.")
            return None
        if not fields["transcript"]:
            self.server.complaints.append("a context opened with no text")
        if fields["output_format"] != {
            "container": "raw",
            "encoding": "pcm_mulaw",
            "sample_rate": 8000,
        }:
            self.server.complaints.append("not mu-law")
        self.known.add(name)
        if self.server.live >= self.server.limit:
            self.error(name, 429, "Too many concurrent requests", "The plan's limit.")
            return None
        context = Context(name, [fields[key] for key in FIXED])
        self.contexts[name] = context
        self.server.contexts.append(name)
        self.server.most = max(self.server.most, self.server.live)
        context.task = asyncio.get_running_loop().create_task(self._run(context))
        return context

    def drop(self, context: Context) -> None:
        """It is no more."""
        self.contexts.pop(context.name, None)
        if context.task is not None:
            context.task.cancel()

    def reset(self) -> None:
        """Break the connection."""
        _abort(self.connection)

    # -- what it says ---------------------------------------------------------------------

    def say(self, payload: str) -> None:
        """One message, past the library: that is five times as cheap."""
        if not self.silent and not self.connection.transport.is_closing():
            self.connection.transport.write(_frame(payload.encode()))

    def message(self, context: Context, kind: str, more: str = "", done: str = "false") -> None:
        self.say(
            f'{{"type":"{kind}","status_code":206,"done":{done},{more}'
            f'"context_id":"{context.name}"}}'
        )

    def error(self, name: str, status: int, title: str, message: str) -> None:
        fields = {"type": "error", "done": True, "status_code": status, "title": title}
        fields |= {"message": message, "error_code": None, "request_id": "r-1"}
        self.say(json.dumps(fields | ({"context_id": name} if name else {})))

    def chunk(self, context: Context, data: str) -> None:
        more = f'"step_time":1.5,"flush_id":{context.flushes},"data":"{data}",'
        self.message(context, "chunk", more)

    async def _run(self, context: Context) -> None:
        """Speak what is asked, in order, until the end, a cancel or a second of nothing."""
        try:
            while True:
                async with asyncio.timeout(self.server.expire_seconds):
                    text = await context.asked.get()
                if context.cancelled:
                    break
                if text is not None:
                    await self._clause(context, text)
                elif not context.asked.empty() or not context.ended:
                    self._flushed(context)
                else:
                    break
        except TimeoutError:
            pass
        self.message(context, "done", done="true")
        self.contexts.pop(context.name, None)

    def _flushed(self, context: Context) -> None:
        self.message(context, "flush_done", f'"flush_done":true,"flush_id":{context.flushes},')
        context.flushes += 1

    async def _clause(self, context: Context, text: str) -> None:
        server = self.server
        server.texts.append(text)
        fault = server.clauses.popleft() if server.clauses else None
        loop = asyncio.get_running_loop()
        due = loop.time() + server.first_ms / 1e3
        chunks = _chunks(text)
        times = deque(word_times(text))
        offset = 0.0 if server.relative else context.spoken / mulaw.RATE
        size = 0
        for number, (length, data) in enumerate(chunks):
            if fault is not None and (
                (fault.when == "before" and number == 0)
                or (fault.when == "middle" and number == math.ceil(len(chunks) / 2))
            ):
                await self._fail(context, fault.what)
            if (left := due - loop.time()) > 0:
                await asyncio.sleep(left)
            size += length
            self.chunk(context, data)
            said = []
            while times and times[0][1] * mulaw.RATE < size:
                said.append(times.popleft())
            if said:
                columns = {"words": [word for word, _, _ in said]}
                columns["start"] = [begin + offset for _, begin, _ in said]  # type: ignore[assignment,misc]  # columns of numbers
                columns["end"] = [end + offset for _, _, end in said]  # type: ignore[assignment,misc]  # the same
                stamps = json.dumps(columns)
                more = f'"flush_id":{context.flushes},"word_timestamps":{stamps},'
                self.message(context, "timestamps", more)
            due += length / mulaw.RATE / server.speed
        context.spoken += size
        if fault is not None and fault.when == "after":
            await self._after(context, fault.what)

    async def _after(self, context: Context, what: What) -> None:
        """The clause is spoken; its flush is what comes next."""
        if what == "no-flush":
            await context.asked.get()
            context.flushes += 1
            return
        if not context.cancelled:
            await context.asked.get()
            self._flushed(context)
        await asyncio.sleep(0.002)  # so that this is a moment of its own
        if what == "twice":
            context.flushes -= 1
            self._flushed(context)
            self.message(context, "done", done="true")
            self.message(context, "done", done="true")
            self.drop(context)
            await asyncio.sleep(0)
        await self._fail(context, what)

    async def _fail(self, context: Context, what: What) -> None:
        self.server.failed += 1
        forever = asyncio.Event()
        more: dict[What, Callable[[], object]] = {
            "garbage": lambda: self.say("{"),
            "garbage-burst": lambda: [self.say("<html>") for _ in range(20)],
            "huge": lambda: self.say("x" * (2 << 20)),
            "list": lambda: self.say("[1]"),
            "unknown": lambda: self.message(context, "weather", '"sun":true,'),
            "binary": lambda: self.connection.transport.write(b"\x82\x02{}"),
            "strange": lambda: self._strange(context),
        }
        if what in more:
            more[what]()
            return
        match what:
            case "hang":
                self.silent = True
            case "reset":
                self.reset()
            case "close":
                await self.connection.close(1011, "internal error")
            case "error":
                self.error(context.name, 500, "Internal error", "A model\nfell over.")
            case "busy":
                self.error(context.name, 429, "Too many concurrent requests", "The plan's limit.")
            case "error-all":
                self.error("", 500, "Internal error", "All models fell over.")
            case "rubbish":
                self.chunk(context, "????")
            case "missing":
                self.message(context, "chunk", '"step_time":1.5,')
            case "done":
                self.message(context, "done", done="true")
            case "drip":
                while True:
                    self.chunk(context, base64.b64encode(b"\x55" * 9).decode())
                    await asyncio.sleep(0.01)
            case "flood":
                data = base64.b64encode(b"\x55" * 20_000).decode()
                while not context.cancelled and not self.connection.transport.is_closing():
                    self.chunk(context, data)
                    await asyncio.sleep(0.001)
        if what != "stall":
            self.contexts.pop(context.name, None)
        await forever.wait()

    def _strange(self, context: Context) -> None:
        data = base64.b64encode(b"\x55" * 400).decode()
        for name in ("nobody's", context.name + "x"):
            self.chunk(Context(name, []), data)
            self.message(Context(name, []), "done", done="true")
            self.message(Context(name, []), "done", done="true")
        self.say(f'{{"type":"chunk","data":"{data}","done":false,"status_code":206}}')


def main() -> None:
    """Serve until killed; the port is the first line of the output, as JSON."""
    parser = argparse.ArgumentParser(description="A voice server that speaks tones.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--first-ms", type=float, default=90.0)
    parser.add_argument("--speed", type=float, default=5.0)
    parser.add_argument("--key", default="local")
    given = parser.parse_args()

    async def run() -> None:
        async with CartesiaServer(
            given.first_ms, given.speed, given.key, port=given.port
        ) as server:
            print(json.dumps({"port": server.port}), flush=True)
            await asyncio.Event().wait()

    try:
        import uvloop
    except ImportError:
        asyncio.run(run())
    else:
        uvloop.run(run())


if __name__ == "__main__":
    main()
