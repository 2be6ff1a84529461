"""The `io-vendors` thread: every vendor socket.

Wakes on   its event loop: sockets; its inbox's eventfd, written by reply.
Owns       the model's client and its connections; one task per request.
Reads      nothing shared.
Writes     `ModelDelta`, `ModelDone`, `ModelFailed` to reply.

A loop of its own, because creating one stream costs 3 ms of Python and each token 80 us, and a
caller's frame must never wait behind that. A call has at most one request; a new one, or a
cancel, ends it, and from then on nothing of it is published. Every request that is not
cancelled ends in exactly one `ModelDone` or `ModelFailed`, within `llm.total_seconds`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field

import httpx2
import openai
import uvloop

from ..config import Llm
from ..dialog.history import Message
from ..observe.histogram import LATENCY_MS, Histogram
from ..observe.prometheus import Sample, counter, milliseconds
from ..vendors import openai as codec
from .calls import Call
from .logs import logger
from .messages import AskModel, CancelModel, Event, ModelDelta, ModelDone, ModelFailed
from .wake import Inbox, Outbox

log = logger("io-vendors")

KEEP_ALIVE_SECONDS = 120.0  # an idle connection: turns of one call are tens of seconds apart
STOP_SECONDS = 1.0
RETRY_SECONDS = 0.01  # until a full ring is looked at again


class ModelRequests:
    """reply's end: what it may ask of this thread. Used by the reply thread alone."""

    __slots__ = ("_out",)

    def __init__(self, out: Outbox[object]) -> None:
        self._out = out

    def ask(
        self, slot: int, generation: int, epoch: int, ask: int, messages: tuple[Message, ...]
    ) -> None:
        """Request an answer."""
        self._out.put(AskModel(slot, generation, epoch, ask, messages))

    def cancel(self, slot: int, generation: int, ask: int) -> None:
        """Nothing of that request is wanted any more."""
        self._out.put(CancelModel(slot, generation, ask))

    def flush(self) -> bool:
        """Deliver what had to wait; True when nothing is left."""
        return self._out.flush()


@dataclass(slots=True, eq=False)
class _Request:
    order: AskModel
    began: float
    text: list[str] = field(default_factory=list)  # received, not yet published
    first: bool = True
    task: asyncio.Task[None] | None = None


class Models:
    """Requests to one model server, as tasks of the running loop. No thread, no inbox.

    Args:
        llm: server, model and deadlines.
        publish: takes `ModelDelta`, `ModelDone`, `ModelFailed`; called on the loop's thread.
        max_requests: how many may be on the wire at once; more of them wait, against their
            own deadline.
    """

    def __init__(self, llm: Llm, publish: Callable[[Event], None], max_requests: int) -> None:
        self._llm = llm
        self._publish = publish
        self._room = asyncio.Semaphore(max_requests)
        self._requests: dict[int, _Request] = {}  # by slot
        self._tasks: set[asyncio.Task[None]] = set()  # all, the cancelled ones until they end
        self._warming: asyncio.Task[None] | None = None
        limits = httpx2.Limits(
            max_connections=max_requests + 1,  # and the one that warms up
            max_keepalive_connections=max_requests + 1,
            keepalive_expiry=KEEP_ALIVE_SECONDS,
        )
        timeout = httpx2.Timeout(None, connect=llm.connect_seconds)  # the rest is our clock's
        self._client = openai.AsyncOpenAI(
            api_key=codec.check(llm, os.environ.get("OPENAI_API_KEY")),
            base_url=llm.base_url or None,
            max_retries=0,
            timeout=timeout,
            http_client=openai.DefaultAsyncHttpxClient(limits=limits, timeout=timeout),
        )
        self._completions = self._client.chat.completions  # imports its modules now, not later
        # Reports.
        self.asked = 0
        self.failed = 0
        self.cancelled = 0
        self.first_token = Histogram(LATENCY_MS)
        self.total = Histogram(LATENCY_MS)

    def handle(self, order: AskModel | CancelModel) -> None:
        """Begin a request, or end one."""
        if isinstance(order, CancelModel):
            request = self._requests.get(order.slot)
            if request is not None and _same(request.order, order):
                self._cancel(request)
                self.warm()  # the cancel has cost its connection: have one ready for what follows
            return
        if (old := self._requests.get(order.slot)) is not None:
            self._cancel(old)
        self.asked += 1
        request = _Request(order, time.monotonic())
        self._requests[order.slot] = request
        request.task = self._start(self._answer(request))

    def warm(self) -> None:
        """Open a connection ahead of need. Failure is logged; the next request says more."""
        if self._warming is None or self._warming.done():
            self._warming = self._start(self._warm())

    async def close(self) -> None:
        """End everything, within about `STOP_SECONDS`."""
        for request in list(self._requests.values()):
            self._cancel(request)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._client.close()
        except TimeoutError:
            log.warning("the model's connections did not close in time")

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _cancel(self, request: _Request) -> None:
        """From here on nothing of it is published: `_requests` is asked before each event."""
        self.cancelled += 1
        del self._requests[request.order.slot]
        if request.task is not None:
            request.task.cancel()

    async def _answer(self, request: _Request) -> None:
        llm = self._llm
        total = asyncio.timeout(llm.total_seconds)
        try:
            async with total, self._room:
                reason = await self._stream(request)
        except TimeoutError:
            reason = codec.too_slow(llm, in_all=total.expired())
        except Exception as error:  # noqa: BLE001  # whatever the SDK makes of a server's garbage
            reason = codec.explain(error, llm)
        self._end(request, reason)

    async def _stream(self, request: _Request) -> str:
        """Read one answer to its end. Returns why it is no good; "" when it is."""
        llm, order = self._llm, request.order
        now = asyncio.get_running_loop().time
        finished = False
        async with asyncio.timeout(llm.token_seconds) as gap:
            arguments = codec.request(llm.model, order.messages)
            async with await self._completions.create(**arguments) as stream:
                async for chunk in stream:
                    gap.reschedule(now() + llm.token_seconds)
                    piece = codec.read_chunk(chunk)
                    finished = finished or piece.finish is not None
                    if piece.text:
                        self._received(request, piece.text)
        return "" if finished else codec.unfinished(llm)

    def _received(self, request: _Request, text: str) -> None:
        """Tokens that came in one read leave as one event: a ring holds no more than 128."""
        if request.first:
            request.first = False
            self.first_token.observe((time.monotonic() - request.began) * 1e3)
        if not request.text:
            asyncio.get_running_loop().call_soon(self._deliver, request)
        request.text.append(text)

    def _deliver(self, request: _Request) -> None:
        order = request.order
        if request.text and self._requests.get(order.slot) is request:
            text = "".join(request.text)
            request.text.clear()
            self._publish(ModelDelta(order.slot, order.generation, order.epoch, order.ask, text))

    def _end(self, request: _Request, reason: str) -> None:
        order = request.order
        if self._requests.get(order.slot) is not request:
            return
        self._deliver(request)
        del self._requests[order.slot]
        self.total.observe((time.monotonic() - request.began) * 1e3)
        name = (order.slot, order.generation, order.epoch, order.ask)
        if reason:
            self.failed += 1
            self._publish(ModelFailed(*name, reason))
        else:
            self._publish(ModelDone(*name))

    async def _warm(self) -> None:
        llm = self._llm
        try:
            async with asyncio.timeout(llm.connect_seconds + llm.token_seconds):
                await self._client.models.list()
        except TimeoutError:
            log.warning("no connection ahead of need", reason=codec.too_slow(llm, in_all=False))
        except Exception as error:  # noqa: BLE001  # as above; here it costs a warm start only
            log.warning("no connection ahead of need", reason=codec.explain(error, llm))


def _same(order: AskModel, cancel: CancelModel) -> bool:
    return (order.generation, order.ask) == (cancel.generation, cancel.ask)


class IoVendors:
    """See the module. `step` runs the event loop until `stop`."""

    name = "io-vendors"
    on_call: Call | None = None  # a request's failure is its own: no call can be named here

    def __init__(self, llm: Llm, inbox: Inbox, to_reply: Outbox[object], max_requests: int) -> None:
        self.inbox = inbox
        self.beat = 0
        self._llm = llm
        self._max_requests = max_requests
        self._to_reply = to_reply
        self._retry: asyncio.TimerHandle | None = None
        self._loop = uvloop.new_event_loop()
        self._models: Models | None = None

    def begin(self) -> None:
        """On this thread: make the client, start to open its first connection."""
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._begin())
        self._loop.add_reader(self.inbox.fileno(), self._woken)
        self._loop.call_later(1.0, self._tick)

    async def _begin(self) -> None:
        self._models = Models(self._llm, self._publish, self._max_requests)
        self._models.warm()

    def step(self) -> None:
        """Run until `stop`."""
        self._loop.run_forever()

    def stop(self) -> None:
        """Any thread: let `step` return."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def finish(self) -> None:
        """End every request and close every socket, within about two `STOP_SECONDS`."""
        self._loop.remove_reader(self.inbox.fileno())
        if self._models is not None:
            self._loop.run_until_complete(self._models.close())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _woken(self) -> None:
        self.beat += 1
        self.inbox.clear()
        for event in self.inbox.events():
            if self._models is not None and isinstance(event, AskModel | CancelModel):
                self._models.handle(event)

    def _publish(self, event: Event) -> None:
        self._to_reply.put(event)
        if self._retry is None and not self._to_reply.flush():
            self._retry = self._loop.call_later(RETRY_SECONDS, self._flush)

    def _flush(self) -> None:
        """The ring was full: what was kept goes out as soon as there is room."""
        done = self._to_reply.flush()
        self._retry = None if done else self._loop.call_later(RETRY_SECONDS, self._flush)

    def _tick(self) -> None:
        self.beat += 1
        self._loop.call_later(1.0, self._tick)

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        models = self._models
        if models is None:
            return
        for name, help_text, histogram in (
            ("first_token", "From the request to the first token.", models.first_token),
            ("total", "From the request to the end of the answer.", models.total),
        ):
            yield milliseconds(f"threadline_model_{name}_seconds", help_text, histogram)
        for name, help_text, value in (
            ("asked", "Requests to the model.", models.asked),
            ("failed", "Requests that ended in an error or a time-out.", models.failed),
            ("cancelled", "Requests that the caller's next words ended.", models.cancelled),
        ):
            yield counter(f"threadline_model_{name}_total", help_text, value)
