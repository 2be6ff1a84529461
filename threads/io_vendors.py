"""The `io-vendors` thread: every vendor socket.

Wakes on   its event loop: sockets; its inbox's eventfd, written by reply and asr.
Owns       the clients of the vendors that the chains name, and their connections.
Reads      nothing shared.
Writes     tokens and audio to reply, transcripts to asr.

A loop of its own, because parsing what vendors send costs milliseconds, and a caller's frame
must never wait behind that. This file is the shell: the loop, the way in and the way out. What is
said to whom is in vendor_llm.py, vendor_stt.py and vendor_tts.py, one client each; they share
nothing but the loop, and what one of them raises costs one request.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import uvloop

from ..chains import names
from ..config import Config
from ..observe.prometheus import Sample, counter
from ..vendors.breaker import FAILURES, NEVER
from .awake import Pulse
from .calls import Call
from .logs import logger
from .messages import (
    AskModel,
    CallClosed,
    CallOpened,
    CancelModel,
    CancelSpeech,
    EndOfSpeech,
    Event,
    HearChunk,
    Heard,
    HearFailed,
    HearFinal,
    HearForget,
    ModelFailed,
    Speak,
    Spoken,
)
from .wake import Inbox, Outbox, Overflow

log = logger("io-vendors")

RETRY_SECONDS = 0.01  # until a full ring is looked at again
STOP_SECONDS = 1.5  # for all clients to close


class Client(Protocol):
    """One vendor's client. All on the loop's thread, but for `samples`."""

    def handle(self, event: Any) -> None:
        """Take an order, of a type that is routed here; start what it needs as tasks."""

    def warm(self) -> None:
        """Open connections ahead of need."""

    async def close(self) -> None:
        """End everything, within about a second."""

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""


type Publish = Callable[[Event], None]
type Kind = tuple[tuple[type[Event], ...], Callable[[Publish], Client]]  # takes, made by


def _kinds(config: Config, calls: int) -> list[Kind]:
    """What to make of the chains. Imports a client only when it is named, and at once: nothing
    may be imported while calls run."""
    kinds: list[Kind] = []
    if "openai" in names(config.llm.chain):
        from .vendor_llm import Models

        llm = config.llm
        kinds.append(
            (
                (AskModel, CancelModel),
                lambda publish: Models(llm, publish, llm.max_requests or calls),
            )
        )
    if "deepgram" in names(config.stt.chain):
        from .vendor_stt import Ears

        kinds.append(
            (
                (CallOpened, CallClosed, HearChunk, HearFinal, HearForget),
                lambda publish: Ears(
                    config.deepgram,
                    config.stt.final_seconds,
                    publish,
                    _failures(config.stt.chain, "deepgram"),
                ),
            )
        )
    if "cartesia" in names(config.tts.chain):
        from .vendor_tts import Voices

        voice = config.cartesia
        kinds.append(
            (
                (Speak, EndOfSpeech, CancelSpeech),
                lambda publish: Voices(
                    voice,
                    publish,
                    voice.max_contexts or calls,
                    _failures(config.tts.chain, "cartesia"),
                ),
            )
        )
    return kinds


def _failures(chain: tuple[str, ...], name: str) -> int:
    """How many in a row open the breaker of one of a chain."""
    return NEVER if names(chain)[-1] == name else FAILURES


class _Way:
    """An outbox, and the timer that empties it once its ring has been full."""

    __slots__ = ("_out", "_retry", "lost")

    def __init__(self, out: Outbox[object]) -> None:
        self._out = out
        self._retry: asyncio.TimerHandle | None = None
        self.lost = 0

    def put(self, event: Event) -> None:
        try:
            self._out.put(event)
        except Overflow as error:  # its reader has been stuck for thousands of events
            self.lost += 1
            if self.lost == 1:
                log.error("events are lost", reason=str(error))
        if self._retry is None and not self._out.flush():
            self._later()

    def _later(self) -> None:
        self._retry = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._flush)

    def _flush(self) -> None:
        """What was kept goes out as soon as there is room."""
        self._retry = None
        if not self._out.flush():
            self._later()


class IoVendors:
    """See the module. `step` runs the event loop until `stop`.

    Args:
        config: its chains say which clients there are.
        calls: the table of calls; one of each kind of request at a time belongs to each.
        inbox: orders of reply and asr.
        to_reply: takes everything that is not for asr.
        to_asr: takes `Heard` and `HearFailed`; None when `stt.chain` names no vendor.
    """

    name = "io-vendors"
    on_call: Call | None = None  # a request's failure is its own: no call can be named here

    def __init__(
        self,
        config: Config,
        calls: Sequence[Call],
        inbox: Inbox,
        to_reply: Outbox[object],
        to_asr: Outbox[object] | None,
    ) -> None:
        self.inbox = inbox
        self.beat = 0
        self.defects = 0
        self._kinds = _kinds(config, len(calls))
        self._to_reply = _Way(to_reply)
        self._to_asr = _Way(to_reply if to_asr is None else to_asr)
        self.pulse = Pulse()
        self._loop = uvloop.new_event_loop()
        self._clients: list[Client] = []
        self._takers: dict[type, Client] = {}

    def begin(self) -> None:
        """On this thread: make the clients, let them open their first connections."""
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._begin())
        self._loop.add_reader(self.inbox.fileno(), self._woken)
        self._loop.add_reader(self.pulse.fileno(), self.pulse.answer)
        self._loop.call_later(1.0, self._tick)

    async def _begin(self) -> None:
        for takes, make in self._kinds:
            client = make(self._publish)
            self._clients.append(client)
            self._takers |= dict.fromkeys(takes, client)
        for client in self._clients:
            client.warm()

    def step(self) -> None:
        """Run until `stop`."""
        self._loop.run_forever()

    def stop(self) -> None:
        """Any thread: let `step` return."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def finish(self) -> None:
        """End every request and close every socket, within about `STOP_SECONDS`."""
        self._loop.remove_reader(self.inbox.fileno())
        self._loop.remove_reader(self.pulse.fileno())
        self._loop.run_until_complete(self._finish())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _finish(self) -> None:
        closing = [asyncio.ensure_future(client.close()) for client in self._clients]
        if not closing:
            return
        done, late = await asyncio.wait(closing, timeout=STOP_SECONDS)
        for task in late:
            task.cancel()
        for task in done:
            if (error := task.exception()) is not None:
                self._defect("close", error)

    def _woken(self) -> None:
        self.beat += 1
        self.inbox.clear()
        for event in self.inbox.events():
            assert isinstance(event, Event), event
            client = self._takers.get(type(event))
            if client is None:
                continue  # it is about a vendor of another thread: reply tells of all calls
            try:
                client.handle(event)
            except Exception as error:  # noqa: BLE001  # one client's defect: the others go on
                self._defect(type(event).__name__, error)
                if (answer := _refused(event)) is not None:
                    self._publish(answer)

    def _defect(self, doing: str, error: BaseException) -> None:
        self.defects += 1
        stack = "".join(traceback.format_exception(error))
        log.error("defect in a vendor's client", doing=doing, stack=stack)

    def _publish(self, event: Event) -> None:
        (self._to_asr if isinstance(event, Heard | HearFailed) else self._to_reply).put(event)

    def _tick(self) -> None:
        self.beat += 1
        self._loop.call_later(1.0, self._tick)

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        for client in list(self._clients):
            yield from client.samples()
        lost = self._to_reply.lost + self._to_asr.lost
        yield counter(
            "threadline_vendor_events_lost_total", "Answers that nobody took in time.", lost
        )
        yield counter(
            "threadline_vendor_defects_total", "Orders that a client could not take.", self.defects
        )


def _refused(event: Event) -> Event | None:
    """How an order ends that its client could not take; None when nobody waits for its end."""
    slot, generation = event.slot, event.generation
    reason = "A vendor's client failed in our own code: its log says where."
    match event:
        case AskModel():
            return ModelFailed(slot, generation, event.epoch, event.ask, reason)
        case HearChunk() | HearFinal():
            return HearFailed(slot, generation, event.utterance, reason)
        case Speak() | EndOfSpeech():
            ended = isinstance(event, EndOfSpeech)
            return Spoken(slot, generation, event.epoch, event.clause, b"", 0, ended, 0, reason)
        case _:
            return None
