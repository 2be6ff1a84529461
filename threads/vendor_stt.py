"""Streaming recognition by Deepgram, as tasks of io-vendors' loop. No thread, no inbox.

A call has one connection, opened with it and reopened in the background; see
vendor_stt_session.py. Here is what the calls share: which of them have a session, two breakers,
the counts.

One breaker is over connections, one over utterances. A server that takes connections and never
answers would close a common one each time it is connected to.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Coroutine, Iterable

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import broadcast

from ..config import Deepgram
from ..observe.histogram import LATENCY_MS, Histogram
from ..observe.prometheus import Sample, counter, gauge, milliseconds
from ..vendors import deepgram as codec
from ..vendors.breaker import FAILURES, Breaker
from .logs import logger
from .messages import CallClosed, CallOpened, Event, HearChunk, HearFinal, HearForget
from .vendor_stt_session import CLOSE_SECONDS, Connection, Session

log = logger("io-vendors")

PING_SECONDS = 10.0  # and as long for the answer: finds a dead network between two turns
STOP_SECONDS = 1.0
MAX_MESSAGE_BYTES = 262_144  # a result lists its words


class Ears:
    """Recognises speech through Deepgram, one connection a call.

    Args:
        config: server, key, model.
        final_seconds: from a `HearFinal` to `HearFailed`, at the latest.
        publish: takes `Heard`, `HearFailed`; called on the loop's thread.

    Raises:
        ConfigError: there is no key, or no usable address.
    """

    def __init__(
        self,
        config: Deepgram,
        final_seconds: float,
        publish: Callable[[Event], None],
        failures: int = FAILURES,
    ) -> None:
        self.config = config
        self.final_seconds = final_seconds
        self.publish = publish
        self.connecting = Breaker(failures)
        self.hearing = Breaker(failures)
        self._headers = codec.headers(codec.check(config))
        self._url = codec.address(config)
        # Made once: loading the certificates takes tens of milliseconds.
        self._tls = ssl.create_default_context() if self._url.startswith("wss:") else None
        self._sessions: dict[int, Session] = {}  # by slot
        self._ended: dict[int, int] = {}  # by slot: the newest generation that is over
        self._tasks: set[asyncio.Task[None]] = set()
        # Reports.
        self.connected = 0
        self.connects = 0
        self.lost = 0
        self.answered = 0
        self.late = 0
        self.failed = 0
        self.refused = 0
        self.garbage = 0
        self.connect_time = Histogram(LATENCY_MS)
        self.first_text = Histogram(LATENCY_MS)
        self.final_text = Histogram(LATENCY_MS)

    def handle(self, event: Event) -> None:
        """Take one of `CallOpened`, `CallClosed`, `HearChunk`, `HearFinal`, `HearForget`.

        reply forwards the first two and asr sends the rest, so their order is not certain: any
        event of a new call opens its session, and none of a call that is over does.
        """
        if isinstance(event, CallClosed):
            self._ended[event.slot] = max(event.generation, self._ended.get(event.slot, 0))
            session = self._sessions.get(event.slot)
            if session is not None and session.generation <= event.generation:
                self._sessions.pop(event.slot).end()
            return
        session = self._session(event)
        if session is None or isinstance(event, CallOpened):
            return
        if isinstance(event, HearChunk):
            session.chunk(event)
        elif isinstance(event, HearFinal):
            session.final(event)
        elif isinstance(event, HearForget):
            session.forget(event)

    def _session(self, event: Event) -> Session | None:
        session = self._sessions.get(event.slot)
        if session is not None and session.generation == event.generation:
            return session
        newest = session.generation if session is not None else self._ended.get(event.slot, 0)
        if event.generation <= newest:
            return None
        if session is not None:
            session.end()
        session = self._sessions[event.slot] = Session(self, event.slot, event.generation)
        session.task = self._start(session.run())
        return session

    def warm(self) -> None:
        """Connect once, ahead of the first call: a wrong key is said now, modules are imported."""
        self._start(self._warm())

    async def _warm(self) -> None:
        try:
            ws = await self.connect()
        except Exception as error:  # noqa: BLE001  # as in `Session.run`
            self.refuse(error)
            return
        broadcast((ws,), codec.CLOSE_STREAM)
        await ws.close()

    async def close(self) -> None:
        """End every session, within about `STOP_SECONDS`."""
        for session in self._sessions.values():
            session.end()
        self._sessions.clear()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def connect(self) -> ClientConnection:
        """A new connection. Raises whatever is wrong, within `connect_seconds`."""
        began = time.monotonic()
        ws = await connect(
            self._url,
            additional_headers=self._headers,
            compression=None,  # of mu-law it saves nothing
            open_timeout=self.config.connect_seconds,
            close_timeout=CLOSE_SECONDS,
            ping_interval=PING_SECONDS,
            ping_timeout=PING_SECONDS,
            max_size=MAX_MESSAGE_BYTES,
            create_connection=Connection,
            ssl=self._tls,
        )
        self.connects += 1
        self.connect_time.observe((time.monotonic() - began) * 1e3)
        self.connecting.succeeded()
        return ws

    def refuse(self, error: Exception) -> str:
        """A connection could not be made: count it, and say why."""
        reason = codec.explain(error, self.config)
        self.connecting.failed(time.monotonic(), codec.rest(error))
        log.warning("no connection to the recogniser", reason=reason)
        return reason

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        for name, help_text, histogram in (
            ("connect", "From the request for a connection to its handshake.", self.connect_time),
            ("first_text", "From an utterance's first audio to its first text.", self.first_text),
            ("final", "From the request for the final text to its arrival.", self.final_text),
        ):
            yield milliseconds(f"threadline_stt_{name}_seconds", help_text, histogram)
        for name, help_text, value in (
            ("connects", "Connections made to the recogniser.", self.connects),
            ("lost", "Connections lost or given up while their call went on.", self.lost),
            ("answered", "Final texts.", self.answered),
            ("late", "Final texts that the clock gave, not the recogniser's word.", self.late),
            ("failed", "Utterances that failed on their way.", self.failed),
            ("refused", "Utterances not even sent: the recogniser is left alone.", self.refused),
            ("garbage", "Messages of the recogniser that nobody understands.", self.garbage),
        ):
            yield counter(f"threadline_stt_{name}_total", help_text, value)
        yield gauge("threadline_stt_connected", "Connections to the recogniser.", self.connected)
        for kind, breaker in (("connecting", self.connecting), ("hearing", self.hearing)):
            yield gauge(
                "threadline_stt_breaker_open",
                "1 while the recogniser is left alone.",
                float(breaker.open),
                kind=kind,
            )
