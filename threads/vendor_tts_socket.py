"""One WebSocket to Cartesia, kept open from the start to the end; used by vendor_tts.py.

The client of the cartesia package makes the connection: address, key and version are its
business. Messages go around its models and its queues. Checking one request against its types
costs 150 us, and the queues hand late audio of a cancelled context to the next one. They go around
the frames and the queue of websockets, too: to wake a task for each costs as much as to read it.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import cartesia
from cartesia.types.websocket_connection_options import WebsocketConnectionOptions
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

from ..config import Cartesia
from ..vendors import cartesia as codec
from ..wire.websocket import Splitter
from .logs import logger

log = logger("io-vendors")

PING_SECONDS = 10.0
PONG_SECONDS = 5.0  # then it is dead
IDLE_SECONDS = 240.0  # the server closes after 300 s without a request
BRIEF_SECONDS = 5.0  # a connection that was open for less is a failed attempt
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 30.0
STOP_SECONDS = 0.5
MAX_MESSAGE = 1 << 20  # a second of audio is 11 KB
MAX_WAITING = 1024  # messages that the server has not taken


class _Connection(ClientConnection):
    """One that hands over whole messages where they arrive, once `take` is set."""

    take: Callable[[bytes], None] | None = None
    _splitter: Splitter | None = None  # from the end of the handshake on
    _seen = b""  # the end of what came before
    _begun = b""  # of a message in several frames

    def data_received(self, data: bytes) -> None:
        """From the loop."""
        if self._splitter is None:
            data = self._shake_hands(data)
        for is_text, part in self._splitter.feed(data) if self._splitter is not None else ():
            if not is_text:
                super().data_received(part)
            elif self.protocol.state is State.OPEN:  # else it was broken, or they said goodbye
                self.process_event(Frame(Opcode.TEXT, part))

    def _shake_hands(self, data: bytes) -> bytes:
        """Let the protocol have the answer to our handshake. Returns what follows it."""
        seen = self._seen + data
        end = seen.find(_BLANK_LINE)
        cut = len(data) if end < 0 else end + len(_BLANK_LINE) - len(self._seen)
        super().data_received(data[:cut])
        if self.protocol.state is State.OPEN:
            self._splitter = Splitter(MAX_MESSAGE, masked=False)
            return data[cut:]
        if data[cut:]:  # a refusal has a body
            super().data_received(data[cut:])
        self._seen = seen[1 - len(_BLANK_LINE) :]
        return b""

    def process_event(self, event: Event) -> None:
        """A frame, or the answer to the handshake."""
        take = self.take
        if take is None or not isinstance(event, Frame) or event.opcode not in _DATA:
            super().process_event(event)
            return
        message = self._begun + event.data if self._begun else bytes(event.data)
        if event.fin:
            self._begun = b""
            take(message)
        else:
            self._begun = message


_BLANK_LINE = b"\r\n\r\n"
_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class Socket:
    """See the module. On the running loop; the callbacks come on its thread.

    Args:
        config: address, key, deadline.
        opened: there is a connection.
        received: one message came.
        lost: there is none (any more), or an attempt has failed: a sentence, and for how many
            seconds the server wants to be left alone.
    """

    def __init__(
        self,
        config: Cartesia,
        opened: Callable[[], None],
        received: Callable[[bytes], None],
        lost: Callable[[str, float], None],
    ) -> None:
        http, ws = codec.base_urls(config)
        self._config = config
        self._opened = opened
        self._received = received
        self._lost = lost
        # Loaded once: 50 ms, else for each attempt.
        tls = ssl.create_default_context() if ws.startswith("wss:") else None
        self._client = cartesia.AsyncCartesia(
            api_key=codec.check(config) or None,
            base_url=http,
            websocket_base_url=ws,
            max_retries=0,
            http_client=cartesia.DefaultAsyncHttpxClient(verify=tls or False),  # http:// or TLS
        )
        self._tts = self._client.tts  # imports its modules now, not later
        self._options: dict[str, object] = {
            "open_timeout": config.connect_seconds,
            "ping_interval": PING_SECONDS,
            "ping_timeout": PONG_SECONDS,
            "close_timeout": STOP_SECONDS,
            "compression": None,  # base64 of mu-law: it would cost and give little
            "max_size": MAX_MESSAGE,
            "create_connection": _Connection,
        }
        if tls is not None:
            self._options["ssl"] = tls
        self._keeper: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._waiting: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)
        self._connection: _Connection | None = None
        self._sent_at = 0.0
        self.heard_at = 0.0
        self.connects = 0

    @property
    def up(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    def open(self) -> None:
        """Connect, now if it can be; `opened` or `lost` follows within `connect_seconds`."""
        self._wanted.set()
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep())

    def send(self, message: str) -> None:
        """Only while it is `up`. One that takes nothing is dropped soon after."""
        self._sent_at = time.monotonic()
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            asyncio.get_running_loop().call_soon(self.drop, codec.deaf(self._config))

    def drop(self, reason: str) -> None:
        """This connection is no good: get another. `lost` is called before this returns."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.transport.abort()
            self._tell(reason, 0.0)

    async def close(self) -> None:
        """Within about two `STOP_SECONDS`."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper}, timeout=STOP_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self._client.close()

    async def _keep(self) -> None:
        """Have a connection, always. Each failure in a row doubles the pause after it."""
        failures = 0
        while True:
            self._wanted.clear()
            reason: str | None
            at_least = 0.0
            began = time.monotonic()
            try:
                connection = await self._connect()
            except Exception as error:  # noqa: BLE001  # whatever the client makes of a server
                at_least = codec.rest(error)
                reason = codec.explain(error, self._config)
            else:
                reason = await self._serve(connection)
                if reason is None:
                    failures = 0
                    continue
            failures = failures + 1 if time.monotonic() - began < BRIEF_SECONDS else 1
            if reason:
                self._tell(reason, at_least, first=failures == 1)
            await self._pause(failures, at_least)

    async def _connect(self) -> _Connection:
        options = cast(WebsocketConnectionOptions, self._options)  # all of them reach `connect`
        manager = self._tts.websocket_connect(websocket_connection_options=options)
        connection = (await manager.enter())._connection
        assert isinstance(connection, _Connection)  # as `create_connection` says
        self.connects += 1
        return connection

    def _tell(self, reason: str, rest: float, *, first: bool = True) -> None:
        if first:  # of a row
            log.warning("no connection to the voice server", reason=reason)
        self._lost(reason, rest)

    async def _serve(self, connection: _Connection) -> str | None:
        """Carry messages until it ends. Returns why, "" when that has been told; None: it had
        nothing to do, and the server would soon close it."""
        while not self._waiting.empty():
            self._waiting.get_nowait()  # of the connection before
        self._connection = connection
        self._sent_at = self.heard_at = time.monotonic()
        writer = asyncio.get_running_loop().create_task(self._write(connection))
        reader = asyncio.get_running_loop().create_task(self._read(connection))
        try:
            self._opened()
            idle = False
            while not reader.done() and not idle:
                left = self._sent_at + IDLE_SECONDS - time.monotonic()
                await asyncio.wait({reader}, timeout=max(left, 0.01))
                idle = time.monotonic() - self._sent_at >= IDLE_SECONDS
            if self._connection is not connection:
                return ""
            if not reader.done():
                return None
            return codec.explain(reader.result(), self._config)
        finally:
            if self._connection is connection:
                self._connection = None
            writer.cancel()
            reader.cancel()
            await asyncio.wait({writer, reader})
            await connection.close()

    async def _read(self, connection: _Connection) -> Exception:
        """Take messages until the connection ends. Returns why it did."""
        defects: list[Exception] = []

        def take(message: bytes) -> None:
            if self._connection is not connection:
                return
            self.heard_at = time.monotonic()
            try:
                self._received(message)
            except Exception as error:  # it must cost this connection, not the next
                log.error("a defect in the voice's client", exc_info=error)
                defects.append(error)
                connection.transport.abort()

        connection.take = take
        try:
            while True:
                take(await connection.recv(decode=False))  # what came before `take` was set
        except ConnectionClosed as error:
            return defects[0] if defects else error

    async def _write(self, connection: ClientConnection) -> None:
        with suppress(ConnectionClosed):  # the reader says so
            while True:
                await connection.send(await self._waiting.get())

    async def _pause(self, failures: int, at_least: float) -> None:
        """Until the next attempt; a caller who needs the voice ends it."""
        longest = min(FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 10), LONGEST_PAUSE_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(longest * random.uniform(0.5, 1.0), at_least)):
                await self._wanted.wait()
