"""The models, on `io-vendors`: requests to OpenAI-compatible servers as tasks of its loop.

A call has at most one request; a new one, or a cancel, ends it, and from then on nothing of it
is published. Within one request the models of `llm.chain` are asked in order, each while its
breaker allows it, until one has published a part of its answer: that one is not replaced. Every
request that is not cancelled ends in exactly one `ModelDone` or `ModelFailed`, within
`llm.total_seconds`.

The SDK sends (address, key, headers, the errors of each status); the stream is read by
vendors/openai.py, at less than half the cost: about 70 us a token, network included, instead of
160 with the SDK's own objects, and 1.5 ms a request instead of 3.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

import h11
import httpx2
import openai

from ..config import Llm
from ..dialog.tools import ToolCall
from ..observe.histogram import LATENCY_MS, Histogram
from ..observe.prometheus import Sample, counter, gauge, milliseconds
from ..talking.clauses import ClauseCutter
from ..vendors import openai as codec
from ..vendors.breaker import FAILURES, NEVER, Breaker
from .logs import logger
from .messages import (
    AskModel,
    CancelModel,
    Event,
    ModelDelta,
    ModelDone,
    ModelFailed,
    ModelTools,
)

log = logger("io-vendors")

KEEP_ALIVE_SECONDS = 120.0  # an idle connection: turns of one call are tens of seconds apart
WARM_SECONDS = 25.0  # between two looks at it: many a proxy closes one that is idle for 60 s
REWARM_SECONDS = 0.1  # after a cancel: a request on its heels must not find the free one warming
BACKOFF_SECONDS = 0.5  # after a look that failed, doubled up to WARM_SECONDS
# An answer's first clause is passed on as it comes. What follows is read after a pause, and each
# pause is twice as long as the one before: more and more speech is under way.
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.025, 0.1
WAITED_SECONDS = 0.01  # what is read so soon after a pause had waited, and needs no other pause
DRAIN_SECONDS = 0.25  # for what follows an answer, so that its connection can be used again
STOP_SECONDS = 0.5
GRAIN = 0.1  # of the token deadline: so exact is it, since moving a timer costs as much as a token


@dataclass(slots=True, eq=False)
class _Entry:
    """One model of the chain."""

    model: str
    breaker: Breaker
    failed: int = 0


@dataclass(slots=True, eq=False)
class _Request:
    order: AskModel
    began: int = field(default_factory=time.monotonic_ns)
    first_at: int = 0  # its first token came
    text: list[str] = field(default_factory=list)  # received, not yet published
    published: bool = False
    tools: tuple[ToolCall, ...] = ()
    task: asyncio.Task[None] | None = None


class _Trace:
    """What the SDK's connection pool tells of one request."""

    __slots__ = ("connected", "garbled", "sent")

    def __init__(self) -> None:
        self.connected = False  # it had to open a connection
        self.sent = 0  # ns; it had one
        self.garbled = False  # the server answered with what is no HTTP

    async def __call__(self, name: str, info: Mapping[str, object]) -> None:
        if name == "connection.connect_tcp.started":
            self.connected = True
        elif name == "http11.send_request_headers.started":
            self.sent = time.monotonic_ns()
        elif name == "http11.receive_response_headers.failed":
            error = info["exception"]
            assert isinstance(error, BaseException)
            self.garbled = isinstance(error.__cause__, h11.RemoteProtocolError)


async def _attach_trace(request: httpx2.Request) -> None:
    request.extensions = {**request.extensions, "trace": _Trace()}


class Models:
    """Requests to one model server. Made and used on the loop's thread; `samples` on any.

    Args:
        llm: server, chain and deadlines.
        publish: takes the answers: `ModelDelta`, `ModelTools`, `ModelDone`, `ModelFailed`.
        max_requests: how many may be on the wire at once; more of them wait, for
            `llm.queue_seconds` at most.

    ConfigError when there is no key for it.
    """

    def __init__(self, llm: Llm, publish: Callable[[Event], None], max_requests: int) -> None:
        self._llm = llm
        self._publish = publish
        self._room = asyncio.Semaphore(max_requests)
        models = codec.models(llm)
        bounds = [FAILURES] * len(models)
        if bounds and llm.chain[-1] != "scripted":
            bounds[-1] = NEVER
        self._entries = [
            _Entry(model, Breaker(bound)) for model, bound in zip(models, bounds, strict=True)
        ]
        self._requests: dict[int, _Request] = {}  # by slot
        self._tasks: set[asyncio.Task[None]] = set()  # all, the cancelled ones until they end
        self._warming: asyncio.Task[None] | None = None
        self._next_warm: asyncio.TimerHandle | None = None
        self._backoff = BACKOFF_SECONDS
        self._problem = ""  # of the last look
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
            http_client=openai.DefaultAsyncHttpxClient(
                limits=limits, timeout=timeout, event_hooks={"request": [_attach_trace]}
            ),
        )
        # Reports.
        self.asked = 0
        self.cancelled = 0
        self.failed = 0
        self.acquire = Histogram(LATENCY_MS)
        self.first_token = Histogram(LATENCY_MS)
        self.total = Histogram(LATENCY_MS)

    def handle(self, event: Event) -> None:
        """Begin a request, or end one."""
        if isinstance(event, CancelModel):
            request = self._requests.get(event.slot)
            if request is not None and _same(request.order, event):
                self._cancel(request)
                self._warm_in(REWARM_SECONDS)  # the cancel has cost its connection
        elif isinstance(event, AskModel):
            if (old := self._requests.get(event.slot)) is not None:
                self._cancel(old)
            self.asked += 1
            request = _Request(event)
            self._requests[event.slot] = request
            request.task = self._start(self._answer(request))

    def warm(self) -> None:
        """Open a connection ahead of need. Failure is logged; the next request says more."""
        if self._warming is None or self._warming.done():
            self._warming = self._start(self._warm())

    async def close(self) -> None:
        """End everything, within about two `STOP_SECONDS`."""
        for request in list(self._requests.values()):
            self._cancel(request)
        if self._next_warm is not None:
            self._next_warm.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._client.close()
        except TimeoutError:
            log.warning("the model's connections did not close in time")

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        for name, help_text, histogram in (
            ("acquire", "From the request to a connection that takes it.", self.acquire),
            ("first_token", "From the request to the first token.", self.first_token),
            ("total", "From the request to the end of the answer.", self.total),
        ):
            yield milliseconds(f"threadline_model_{name}_seconds", help_text, histogram)
        for name, help_text, value in (
            ("asked", "Requests for an answer.", self.asked),
            ("failed", "Requests that no model of the chain has answered.", self.failed),
            ("cancelled", "Requests that the caller's next words ended.", self.cancelled),
        ):
            yield counter(f"threadline_model_{name}_total", help_text, value)
        for entry in self._entries:
            yield counter(
                "threadline_model_attempts_failed_total",
                "Attempts that ended in an error or a time-out.",
                entry.failed,
                model=entry.model,
            )
            yield gauge(
                "threadline_model_breaker_open",
                "1 while a model is left alone because it failed too often.",
                float(entry.breaker.open),
                model=entry.model,
            )

    # -- requests -------------------------------------------------------------------------------

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
        try:
            async with asyncio.timeout(llm.total_seconds) as total:
                try:
                    async with asyncio.timeout(llm.queue_seconds):
                        await self._room.acquire()
                except TimeoutError:
                    self._end(request, codec.too_slow(llm, "queue_seconds"))
                    return
                try:
                    await self._ask_chain(request)
                finally:
                    self._room.release()
        except TimeoutError:
            if not total.expired():
                raise
            self._end(request, codec.too_slow(llm, "total_seconds"))

    async def _ask_chain(self, request: _Request) -> None:
        """Ask each model until one has answered, or has failed in the middle of its answer."""
        reason = ""
        for entry in self._entries:
            if not entry.breaker.allows(time.monotonic()):
                reason = reason or codec.resting(self._llm, entry.model)
                continue
            reason = await self._ask(entry, request)
            if not reason:
                return
            entry.failed += 1
            log.warning("a model has failed", model=entry.model, reason=reason)
            if request.published:
                break
            _drop(request)
        self._end(request, reason)

    async def _ask(self, entry: _Entry, request: _Request) -> str:
        """Ask one model. Returns why its answer is no good; "" when it is, and has ended."""
        llm = self._llm
        reason, rest, counts = "", 0.0, True
        try:
            async with asyncio.timeout(llm.first_token_seconds) as gap:
                try:
                    reason = await self._stream(entry, request, gap)
                except openai.APIConnectionError as error:
                    if not _stale(error):
                        raise
                    reason = await self._stream(entry, request, gap)
        except TimeoutError:
            if not gap.expired():
                raise
            limit = "token_seconds" if request.first_at else "first_token_seconds"
            reason = codec.too_slow(llm, limit)
        except Exception as error:  # noqa: BLE001  # whatever the SDK makes of a server's garbage
            reason = codec.explain(error, llm, entry.model)
            rest, counts = codec.retry_after(error), not codec.is_our_fault(error)
        if reason and counts:
            entry.breaker.failed(time.monotonic(), rest)
        return reason

    async def _stream(self, entry: _Entry, request: _Request, gap: asyncio.Timeout) -> str:
        """Read one answer to its end. Returns why it is no good; "" when it is."""
        llm, order = self._llm, request.order
        now = asyncio.get_running_loop().time
        response = await self._client.post(
            "/chat/completions",
            body=codec.request(entry.model, order.messages, order.tools),
            options=_OPTIONS,
            cast_to=httpx2.Response,
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )
        assert isinstance(response, httpx2.Response)  # as `cast_to` says
        trace = _trace(response.request)
        self.acquire.observe((trace.sent - request.began) / 1e6)
        if trace.connected:
            self.warm()  # it found none that was free: the next one shall
        answer, look, awake, pause = codec.Answer(codec.where(llm)), 0.0, 0.0, 0.0
        opening = ClauseCutter()  # only to see where the first clause ends
        async with aclosing(response.aiter_raw()) as body:
            async for data in body:
                before = answer.size
                text = answer.feed(data)
                self._received(request, text)
                if answer.size > before and (at := now()) > look:
                    gap.reschedule(at + llm.token_seconds * (1 + GRAIN))
                    look = at + llm.token_seconds * GRAIN
                    request.first_at = request.first_at or time.monotonic_ns()
                if answer.complete or answer.problem:
                    break
                if not pause:
                    pause = FIRST_PAUSE_SECONDS if text and opening.feed(text) else 0.0
                if pause and now() - awake > WAITED_SECONDS:
                    await asyncio.sleep(pause)  # what comes meanwhile is one read
                    pause = min(2 * pause, LAST_PAUSE_SECONDS)
                    awake = now()
            else:
                self._received(request, answer.finish())
                request.first_at = request.first_at or time.monotonic_ns()
            if answer.problem:
                _drop(request)  # before anything is awaited
                return answer.problem
            gap.reschedule(None)
            request.tools = answer.calls()
            entry.breaker.succeeded()
            self._end(request, "")
            await _drain(body)
        return ""

    def _received(self, request: _Request, text: str) -> None:
        """Tokens that came in one read leave as one event: each event wakes a thread."""
        if text:
            if not request.text:
                asyncio.get_running_loop().call_soon(self._deliver, request)
            request.text.append(text)

    def _deliver(self, request: _Request) -> None:
        order = request.order
        if request.text and self._requests.get(order.slot) is request:
            text = "".join(request.text)
            request.text.clear()
            request.published = True
            name = (order.slot, order.generation, order.epoch, order.ask)
            self._publish(ModelDelta(*name, text, request.first_at))

    def _end(self, request: _Request, reason: str) -> None:
        order = request.order
        if self._requests.get(order.slot) is not request:
            return
        self._deliver(request)
        del self._requests[order.slot]
        name = (order.slot, order.generation, order.epoch, order.ask)
        if reason:
            self.failed += 1
            self._publish(ModelFailed(*name, reason))
            return
        self.first_token.observe((request.first_at - request.began) / 1e6)
        self.total.observe((time.monotonic_ns() - request.began) / 1e6)
        if request.tools:
            self._publish(ModelTools(*name, request.tools))
        self._publish(ModelDone(*name))

    # -- connections ----------------------------------------------------------------------------

    async def _warm(self) -> None:
        """Have one connection open and look again in a while; sooner when it could not be had."""
        llm, problem = self._llm, ""
        try:
            async with asyncio.timeout(llm.connect_seconds + llm.token_seconds):
                await self._client.get("/models", options=_OPTIONS, cast_to=httpx2.Response)
        except TimeoutError:
            problem = codec.too_slow(llm, "token_seconds")
        except openai.APIStatusError as error:  # it is open; not every server has this list
            if error.status_code in (401, 403):
                problem = codec.explain(error, llm, llm.model)
        except Exception as error:  # noqa: BLE001  # as above; here it costs a warm start only
            problem = codec.explain(error, llm, llm.model)
        if problem and problem != self._problem:
            log.warning("no connection ahead of need", reason=problem)
        self._problem = problem
        delay = self._backoff * random.uniform(0.5, 1.0) if problem else WARM_SECONDS
        self._backoff = min(2 * self._backoff, WARM_SECONDS) if problem else BACKOFF_SECONDS
        self._warm_in(delay)

    def _warm_in(self, seconds: float) -> None:
        if self._next_warm is not None:
            self._next_warm.cancel()
        self._next_warm = asyncio.get_running_loop().call_later(seconds, self.warm)


_OPTIONS: openai.RequestOptions = {
    "security": {"bearer_auth": True},
    "headers": {"Accept-Encoding": "identity"},  # a compressed stream comes late
}


def _drop(request: _Request) -> None:
    """Forget what nobody has seen: another model may say it better."""
    if not request.published:
        request.text.clear()
        request.first_at = 0


async def _drain(body: AsyncIterator[bytes]) -> None:
    """Read what follows an answer, if it comes at once: else its connection is lost."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in body:
                pass
    except Exception:  # noqa: BLE001  # the answer is there: a failure now is nobody's
        pass


def _trace(request: httpx2.Request) -> _Trace:
    trace = request.extensions["trace"]
    assert isinstance(trace, _Trace)
    return trace


def _stale(error: openai.APIConnectionError) -> bool:
    """Whether the server had closed a kept-alive connection: it has not seen the request."""
    if isinstance(error, openai.APITimeoutError):
        return False
    trace = _trace(error.request)
    return not (trace.connected or trace.garbled)


def _same(order: AskModel, cancel: CancelModel) -> bool:
    return (order.generation, order.ask) == (cancel.generation, cancel.ask)
