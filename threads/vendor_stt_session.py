"""One call's connection to Deepgram, and the utterances on it. Runs on io-vendors' loop.

A session is one task, which connects and reads. What is sent is written at once, in order: there
is nothing to wait for, since a server that falls `MAX_BEHIND_SECONDS` behind what was sent, or was
yet to be, is given up. A connection that is lost takes its unanswered utterances with it, each told
of once; nothing is sent twice, because asr has the audio and someone else to ask.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable
from enum import Enum, auto
from typing import TYPE_CHECKING

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import broadcast  # the one way to send without a task; any side's
from websockets.exceptions import ConnectionClosed

from ..vendors import deepgram as codec
from ..vendors.deepgram_stream import BYTES_PER_SECOND, Said, Stream
from .logs import logger
from .messages import HearChunk, Heard, HearFailed, HearFinal, HearForget

if TYPE_CHECKING:
    from .vendor_stt import Ears

log = logger("io-vendors")

KEEP_ALIVE_SECONDS = 4.0
CLOSE_SECONDS = 0.8  # for the server to say goodbye
LEAVE_SECONDS = 0.1  # for a connection that is closing to be closed
MAX_BEHIND_SECONDS = 30.0  # the longest utterance; what a connection may hold of unread audio
FIRST_REST_SECONDS = 0.1
LONGEST_REST_SECONDS = 5.0


class Connection(ClientConnection):
    """One that does not wait for ever for a server that broke the protocol to close it."""

    _leaving = False

    def data_received(self, data: bytes) -> None:
        """From the loop."""
        super().data_received(data)
        if not self._leaving and self.protocol.close_expected():
            self._leaving = True
            self.loop.call_later(LEAVE_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Break the cycle of the protocol and its parser's frame, as in connection.Leg."""
        super().connection_lost(exc)
        self.protocol.parser.close()


class _Newest(Enum):
    """What became of the utterance being spoken."""

    GOES_ON = auto()  # its audio is on this connection, or queued for it
    CUT = auto()  # its connection is lost, but nobody waited for anything: say so if it goes on
    GONE = auto()  # failed and told, or forgotten


class Session:
    """One call's connection, and the utterances on it."""

    def __init__(self, ears: Ears, slot: int, generation: int) -> None:
        self.slot = slot
        self.generation = generation
        self.task: asyncio.Task[None] | None = None
        self._ears = ears
        self._loop = asyncio.get_running_loop()
        self._over = False
        self._ws: ClientConnection | None = None
        self._queue: list[str | bytes] = []  # until there is a connection
        self._stream = Stream(ears.final_seconds)  # of this connection, or of the one to come
        self._utterance = -1  # the newest
        self._newest = _Newest.GONE
        self._reason = ""  # why the last connection was lost
        self._wanted = asyncio.Event()  # somebody speaks: do not wait to connect
        self._tries = 0
        self._sent_at = 0.0
        self._deadline: asyncio.TimerHandle | None = None
        self._keep_alive: asyncio.TimerHandle | None = None

    # -- what asr asks for ------------------------------------------------------------------------

    def chunk(self, event: HearChunk) -> None:
        """Audio."""
        if not self._goes_on(event.utterance) or not event.audio:
            return
        self._stream.add(len(event.audio))
        self._send(event.audio)
        if self._stream.behind > MAX_BEHIND_SECONDS:
            self._give_up(codec.overrun(self._ears.config))

    def final(self, event: HearFinal) -> None:
        """The text is wanted."""
        if event.utterance >= self._utterance and not self._goes_on(event.utterance):
            return
        now = time.monotonic()
        self._part()
        answers = self._stream.ask(event.utterance, event.windows, now)
        if answers is None:
            self._fail(event.utterance, codec.overrun(self._ears.config))
            return
        self._tell(answers)
        self._arm(now)

    def forget(self, event: HearForget) -> None:
        """Never mind."""
        if event.utterance >= self._utterance:
            self._utterance = event.utterance
            self._newest = _Newest.GONE
        self._stream.forget(event.utterance)

    def _goes_on(self, utterance: int) -> bool:
        """Is this utterance on its way to the server? A new one is, if anyone may be."""
        if utterance > self._utterance:
            self._begin(utterance)
        elif utterance == self._utterance and self._newest is _Newest.CUT:
            self._fail(utterance, self._reason)
        return utterance == self._utterance and self._newest is _Newest.GOES_ON

    def _begin(self, utterance: int) -> None:
        self._utterance = utterance
        ears, now = self._ears, time.monotonic()
        if self._ws is None:
            self._wanted.set()
        if (self._ws is None and ears.connecting.open) or not ears.hearing.allows(now):
            ears.refused += 1
            self._newest = _Newest.GONE
            self._publish_failure(utterance, codec.resting(ears.config))
            return
        self._part()
        self._stream.begin(utterance, now)
        self._newest = _Newest.GOES_ON

    def _part(self) -> None:
        """Keep what was sent apart from what follows."""
        if self._stream.flush():
            self._send(codec.FINALIZE)

    def _send(self, message: str | bytes) -> None:
        self._sent_at = time.monotonic()
        if self._ws is None:
            self._queue.append(message)
        else:
            broadcast((self._ws,), message)

    # -- what becomes of it -----------------------------------------------------------------------

    def _tell(self, answers: Iterable[Said]) -> None:
        ears = self._ears
        for said in answers:
            if said.first:
                ears.first_text.observe(said.first * 1e3)
            if said.final:
                ears.answered += 1
                ears.late += said.late
                ears.final_text.observe(said.seconds * 1e3)
                ears.hearing.succeeded()
            ears.publish(
                Heard(
                    slot=self.slot,
                    generation=self.generation,
                    utterance=said.utterance,
                    windows=said.windows,
                    text=said.text,
                    final=said.final,
                    covered=0 if said.final else round(said.covered * BYTES_PER_SECOND),
                )
            )

    def _fail(self, utterance: int, reason: str) -> None:
        """There will be no text of this utterance, nor any more of it."""
        self._ears.failed += 1
        self._stream.forget(utterance)
        if utterance == self._utterance:
            self._newest = _Newest.GONE
        self._publish_failure(utterance, reason)

    def _publish_failure(self, utterance: int, reason: str) -> None:
        self._ears.publish(HearFailed(self.slot, self.generation, utterance, reason))

    def _arm(self, now: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        at = self._stream.deadline(now)
        wait = None if at is None else max(0.001, at - now)  # the loop's clock is coarser
        self._deadline = None if wait is None else self._loop.call_later(wait, self._expire)

    def _expire(self) -> None:
        now = time.monotonic()
        if self._ws is not None:  # else its silence says nothing
            self._tell(self._stream.expire(now))
        if not self._stream.overdue(now):
            self._arm(now)
        elif self._ws is None:
            self._lost(codec.unconnected(self._ears.config))
        else:
            self._give_up(codec.silent(self._ears.config))

    # -- the connection ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Be connected, until the call is over."""
        ears = self._ears
        while not self._over:
            self._wanted.clear()
            if ears.connecting.allows(time.monotonic()):
                try:
                    ws = await ears.connect()
                except Exception as error:  # noqa: BLE001  # whatever a server's garbage makes of it
                    self._lost(ears.refuse(error))
                else:
                    await self._listen(ws)
            if not self._over:
                await self._rest()

    async def _rest(self) -> None:
        """Back off, each session by its own measure; speech cuts it short."""
        rest = min(LONGEST_REST_SECONDS, FIRST_REST_SECONDS * 2 ** min(self._tries, 16))
        self._tries += 1
        try:
            async with asyncio.timeout(rest * random.uniform(0.5, 1.0)):
                await self._wanted.wait()
        except TimeoutError:
            return

    async def _listen(self, ws: ClientConnection) -> None:
        """Take what the server says, until the connection ends."""
        ears = self._ears
        self._ws = ws
        ears.connected += 1
        for message in self._queue:
            broadcast((ws,), message)
        self._queue.clear()
        self._sent_at = began = time.monotonic()
        self._stay(ws)
        try:
            while self._ws is ws:
                self._take(await ws.recv())
        except ConnectionClosed as error:
            if self._ws is ws and not self._over:
                ears.lost += 1
                self._drop(codec.explain(error, ears.config))
        finally:
            ws.transport.abort()
            ears.connected -= 1
            if self._keep_alive is not None:
                self._keep_alive.cancel()
        if time.monotonic() - began > LONGEST_REST_SECONDS:
            self._tries = 0

    def _stay(self, ws: ClientConnection) -> None:
        """Every `KEEP_ALIVE_SECONDS` without audio, say that we are still there."""
        if self._ws is not ws or self._over:
            return
        due = self._sent_at + KEEP_ALIVE_SECONDS
        now = time.monotonic()
        if now >= due:
            self._send(codec.KEEP_ALIVE)
            due = now + KEEP_ALIVE_SECONDS
        self._keep_alive = self._loop.call_later(due - now, self._stay, ws)

    def _take(self, message: str | bytes) -> None:
        if self._over:
            return
        said = codec.read(message)
        if isinstance(said, codec.Results):
            self._tries = 0
            self._tell(self._stream.read(said, time.monotonic()))
        elif isinstance(said, codec.Trouble):
            self._give_up(codec.trouble(said.reason, self._ears.config))
        elif said is None:
            self._ears.garbage += 1

    def _give_up(self, reason: str) -> None:
        """The server does not do what it should: leave it, and come again."""
        ws = self._ws
        if ws is not None:
            self._ears.lost += 1
            ws.transport.abort()
        self._drop(reason)

    def _drop(self, reason: str) -> None:
        """This connection is no more."""
        log.warning("connection to the recogniser lost", slot=self.slot, reason=reason)
        self._ws = None
        if self._stream.unanswered:
            self._ears.hearing.failed(time.monotonic())
        self._lost(reason)

    def _lost(self, reason: str) -> None:
        """What was sent, or was to be, is lost: who waits for its text is told."""
        unanswered = self._stream.unanswered
        self._reason = reason
        self._queue.clear()
        self._stream = Stream(self._ears.final_seconds)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._newest is _Newest.GOES_ON:
            self._newest = _Newest.CUT
        for utterance in unanswered:
            self._fail(utterance, reason)

    def end(self) -> None:
        """The call is over: nothing is published any more."""
        self._over = True
        if self._deadline is not None:
            self._deadline.cancel()
        if self._ws is not None:
            broadcast((self._ws,), codec.CLOSE_STREAM)
            self._loop.call_later(CLOSE_SECONDS, self._ws.transport.abort)
        elif self.task is not None:
            self.task.cancel()
