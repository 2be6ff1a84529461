"""Calls placed from outside: a stand-in for Twilio and the phone behind it, many at once.

Runs in the thread that calls `place_calls`, on one uvloop loop. Wakes on: a timerfd, four times
in 20 ms when there are several calls (phases, so that their frames do not leave at one instant);
the sockets. Alone owns: every connection, script and phone of its calls. Writes: the `Watcher`,
if one is given, which must only append.

Time is absolute: frame k of a call is due at its start + 20 (k + 1) ms, and what a stall of
this process delayed is sent at once when it is over. How late the frames left is measured and
returned, so that nobody takes our own delay for the server's.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from array import array
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import uvloop
from numpy.typing import NDArray
from websockets.exceptions import InvalidURI
from websockets.uri import WebSocketURI, parse_uri

from ..audio import mulaw
from ..audio.mulaw import RATE
from ..errors import AddressError, ConfigError
from ..observe.callreport import CallRecord
from .phone_line import CLOSE_SECONDS, CallPlan, PhoneLine, Watcher

_FRAME_NS = 20_000_000
_PHASES = 4
_CONNECT_SECONDS = 5.0  # the connection, and again the handshake


@dataclass(frozen=True, slots=True)
class Placed:
    """The calls in the order of their numbers, and how late this process itself was."""

    calls: tuple[CallRecord, ...]
    client_lateness_ms: NDArray[np.float64]  # (frames sent,)


def place_calls(plan: CallPlan, watcher: Watcher | None = None) -> Placed:
    """Place the calls and wait for their ends; Ctrl-C hangs them all up and still reports.

    A call that fails has its reason in ``fault``. Raises ConfigError for a bad URL, and the
    first call's fault when not one call could be opened.
    """
    uri = _parse(plan.url)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(plan, uri, watcher))


async def _run(plan: CallPlan, uri: WebSocketURI, watcher: Watcher | None) -> Placed:
    return await _Exchange(plan, uri, watcher).run()


class _Exchange:
    """All calls of one plan, and the clock that drives them."""

    def __init__(self, plan: CallPlan, uri: WebSocketURI, watcher: Watcher | None) -> None:
        self._plan, self._uri = plan, uri
        self._tls = ssl.create_default_context() if uri.secure else None
        self._late_ns = array("q")
        noise = _noise(plan.noise_dbfs)
        self._calls = [
            PhoneLine(number, plan, uri, noise, watcher, self._late_ns)
            for number in range(plan.calls)
        ]
        self._phases = min(_PHASES, plan.calls)
        self._period = _FRAME_NS // self._phases
        self._origin = 0  # monotonic ns of tick 0
        self._tick = 0

    async def run(self) -> Placed:
        loop = asyncio.get_running_loop()
        timer = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)
        self._origin = time.monotonic_ns()
        os.timerfd_settime_ns(
            timer,
            flags=os.TFD_TIMER_ABSTIME,
            initial=self._origin + self._period,
            interval=self._period,
        )
        loop.add_reader(timer, self._ring, timer)
        try:
            async with asyncio.TaskGroup() as group:
                for call in self._calls:
                    group.create_task(self._place(call))
        except asyncio.CancelledError:  # Ctrl-C: what was measured so far is still worth telling
            for call in self._calls:
                call.end("interrupted here")
            await asyncio.wait([call.closed for call in self._calls], timeout=CLOSE_SECONDS)
        finally:
            loop.remove_reader(timer)
            os.close(timer)
        if all(not call.opened.done() for call in self._calls):
            fault = self._calls[0].fault
            if fault is not None:
                raise fault
        late = np.array(self._late_ns, np.float64) / 1e6
        return Placed(tuple(call.record() for call in self._calls), late)

    async def _place(self, call: PhoneLine) -> None:
        await asyncio.sleep(call.number * self._plan.stagger_ms / 1000)
        uri, loop = self._uri, asyncio.get_running_loop()
        where = f"{uri.host}:{uri.port}"
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await loop.create_connection(lambda: call, uri.host, uri.port, ssl=self._tls)
            await asyncio.wait(
                [call.opened, call.closed],
                timeout=_CONNECT_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
        except TimeoutError:
            call.never(f"{where} does not answer: check the address and the firewall")
        except OSError as error:
            reason = error.strerror or str(error)
            call.never(f"cannot reach {where} ({reason}): is `threadline serve` running there?")
        if not call.opened.done() and not call.closed.done():
            call.end(
                "never opened",
                AddressError(
                    f"{where} takes connections, but does not answer "
                    "the WebSocket handshake: is another program using the port?"
                ),
            )
        await asyncio.shield(call.closed)  # Ctrl-C cancels this task, and must not close for us

    def _ring(self, timer: int) -> None:
        for _ in range(int.from_bytes(os.read(timer, 8), "little")):
            self._tick += 1
            due = self._origin + self._tick * self._period
            for call in self._calls[self._tick % self._phases :: self._phases]:
                call.tick(due)


def _parse(url: str) -> WebSocketURI:
    help_text = "write it as ws://HOST:PORT/twilio"
    try:
        uri = parse_uri(url)
        if not urlsplit(url).hostname:
            raise ConfigError(f"{url!r} names no host: {help_text}")
    except (InvalidURI, ValueError, AssertionError) as error:
        raise ConfigError(f"{url!r} is no WebSocket address: {help_text}") from error
    return uri


def _noise(dbfs: float) -> bytes:
    """Ten seconds of white noise at a level, mu-law; the same for every call and every run."""
    samples = np.random.default_rng(0).normal(0.0, 32_768 * 10 ** (dbfs / 20), 10 * RATE)
    return mulaw.encode(np.clip(samples, -32_768, 32_767).astype(np.int16))
