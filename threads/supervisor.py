"""Starts the threads, keeps them going, and ends them in order. Runs on the main thread.

Start: everything shared is made first; then the threads that are asked, before those that ask:
log, worker-N, asr, tts, endpoint, io-vendors, reply, vad, pacer, io-calls, watch; of several
io-calls the one that has the door is the last. A stage that cannot begin stops the start with its
one sentence.

A stage that raises ends one call, the one it was working on, with a spoken apology where that is
possible; the thread goes on. The catch-all is in `Running._run`; other than that, whatever a
voice or a vendor's library may raise is caught where it is called, and costs a clause.

End: the first SIGTERM or SIGINT drains (no new calls, the live ones end by themselves, with a
cap); the second one stops now. Threads end in the opposite order of their start.
"""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ..errors import Exit, ThreadlineError
from ..observe.prometheus import Sample
from . import logs
from .awake import Awake, Pulse
from .calls import Call
from .messages import Drain, StageFailed
from .stalls import Stage as Watched
from .wake import Inbox, Outbox
from .watch import Collector, Watch

log = logs.logger("supervisor")

BEGIN_SECONDS = 60.0
END_SECONDS = 3.0
USERS_END_SECONDS = 0.5
_USERS = "worker-"  # they run users' functions: one that does not end is no defect of ours
_PAUSE_AFTER_DEFECT = 0.01  # s; a stage that raises on every turn must not burn a core


def ignore_signals() -> None:
    """Main thread, last of all, by a process that is about to end.

    The interpreter forgets its handlers before it is gone: a second request that comes so late
    has nothing left to stop, and must not turn a good end into a bad one.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class Stage(Protocol):
    """What the supervisor needs of a stage; each lives in a file of its own."""

    name: str
    beat: int

    @property
    def on_call(self) -> Call | None:
        """The call being worked on: whom a defect concerns."""

    def begin(self) -> None:
        """Make ready, on the stage's own thread. May raise ThreadlineError."""

    def step(self) -> None:
        """One turn of the loop; returns within a second, or when `stop` was called."""

    def finish(self) -> None:
        """Give everything back, on the stage's own thread."""

    def samples(self) -> Iterable[Sample]:
        """For the metrics page, from the watch thread."""


class Running:
    """One stage on its thread. `awake`: what it tells of its turns."""

    def __init__(
        self,
        stage: Stage,
        wake: Callable[[], None],
        failed: Outbox[object],
        awake: Awake | Pulse | None = None,
    ) -> None:
        self.stage = stage
        self.wake = wake
        self.defects = 0
        self._awake = awake or Awake()
        self._failed = failed
        self._stopping = False
        self._begun = threading.Event()
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=stage.name, daemon=True)

    def start(self) -> None:
        """Returns when the stage is ready; raises what its `begin` raised."""
        self.thread.start()
        if not self._begun.wait(BEGIN_SECONDS):
            raise ThreadlineError(
                f"The {self.stage.name} thread was not ready after {BEGIN_SECONDS:g} s: "
                "the machine is overloaded, or a model file is on a very slow disk."
            )
        if self._error is not None:
            raise self._error

    def watched(self) -> Watched:
        """What the watch thread needs of it."""
        return Watched(
            name=self.stage.name,
            thread=self.thread,
            beat=lambda: self.stage.beat,
            wake=self.wake,
            awake=self._awake,
        )

    def stop(self) -> bool:
        """Ask the stage to end and wait for it. False when it did not within its bound."""
        self._stopping = True
        self.wake()
        self.thread.join(USERS_END_SECONDS if self.stage.name.startswith(_USERS) else END_SECONDS)
        return not self.thread.is_alive()

    def _run(self) -> None:
        try:
            self.stage.begin()
        except Exception as error:  # noqa: BLE001  # handed to `start`, which raises it
            self._error = error
            return
        finally:
            self._begun.set()
        while not self._stopping:
            try:
                self.stage.step()
            except Exception as error:  # noqa: BLE001  # the catch-all: a defect ends a call only
                self.blame(error)
                time.sleep(_PAUSE_AFTER_DEFECT)
        try:
            self.stage.finish()
        except Exception as error:  # noqa: BLE001  # the thread ends anyway; say why it was not clean
            self.blame(error)

    def blame(self, error: BaseException) -> None:
        """A defect: log it, and end the call it was about. On the stage's own thread."""
        self.defects += 1
        call = self.stage.on_call
        log.error(
            "defect in a stage",
            stage=self.stage.name,
            slot=None if call is None else call.slot,
            stack="".join(traceback.format_exception(error)),
        )
        if call is not None and call.live:
            self._failed.put(StageFailed(call.slot, call.generation.at, self.stage.name))


class Supervisor:
    """Runs a set of stages until a signal ends them.

    Args:
        stages: in the order of their start.
        watch: its thread starts last.
        drain: tells io-calls to take no new calls, or to end the live ones as well.
        live: how many calls are on.
    """

    def __init__(
        self,
        stages: Sequence[Running],
        watch: Watch,
        collector: Collector,
        drain: Callable[[Drain], None],
        live: Callable[[], int],
        drain_seconds: float,
    ) -> None:
        self.stages = stages
        self._watch = watch
        self._collector = collector
        self._drain = drain
        self._live = live
        self._drain_seconds = drain_seconds
        self._watching = threading.Thread(target=watch.run, name="watch", daemon=True)
        self._asked = 0  # times we were asked to stop
        self._retired = False  # drain, and nobody has asked
        # Not an Event: a signal that comes inside of its wait would deadlock on its lock.
        self._bell = Inbox("supervisor")

    def start(self) -> None:
        """Start every thread; when one cannot, stop those that run and raise its reason."""
        started: list[Running] = []
        try:
            for running in self.stages:
                running.start()
                started.append(running)
        except BaseException:
            self._end(started)
            raise
        self._collector.freeze_and_disable()
        self._watching.start()

    def ask_to_stop(self) -> None:
        """Any thread, or a signal: the first time drains, the second stops now."""
        self._asked += 1
        self._bell.wake()

    def retire(self) -> None:
        """Any thread: drain. Who asks to stop after this still asks for the first time."""
        self._retired = True
        self._bell.wake()

    def catch_signals(self) -> None:
        """Main thread. Before `start`, so that from the first call on a signal drains."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.ask_to_stop())

    def run(self) -> Exit:
        """Until asked to stop; then drain and end. Returns how it went."""
        self.catch_signals()
        while not self._asked and not self._retired:
            self._bell.wait(1.0)
        cut = self.drain()
        ended = self.end()
        if not ended:
            return Exit.CRASH
        return Exit.DRAIN if cut else Exit.OK

    def drain(self) -> int:
        """Wait for the live calls, up to the cap or a second request. Returns calls cut off."""
        self._drain(Drain(now=False))
        log.info("draining", calls=self._live(), cap_s=self._drain_seconds)
        deadline = time.monotonic() + self._drain_seconds
        while self._live() and self._asked < 2 and time.monotonic() < deadline:
            self._bell.wait(0.1)
        cut = self._live()
        if cut:
            log.warning("calls cut off", calls=cut)
            self._drain(Drain(now=True))
            deadline = time.monotonic() + 1.0
            while self._live() and time.monotonic() < deadline:
                time.sleep(0.02)
        return cut

    def end(self) -> bool:
        """Stop every thread, callers' side first. False when one of ours had to be left behind."""
        self._watch.stop()
        if self._watching.is_alive():
            self._watching.join(END_SECONDS)
        ended = self._end(self.stages)
        self._collector.close()
        return ended

    def close(self) -> None:
        """After `end`, when nobody can ask for anything any more."""
        self._bell.close()

    @staticmethod
    def _end(stages: Sequence[Running]) -> bool:
        stuck = [running.stage.name for running in reversed(stages) if not running.stop()]
        if stuck:
            log.error("threads left behind", threads=stuck)
        return all(name.startswith(_USERS) for name in stuck)
