"""The `pacer` thread: the 20 ms clock of every call.

Wakes on   a timerfd with absolute deadlines, several times per 20 ms: calls are spread over
           these sub-ticks so that hundreds of frames do not fall on one instant.
Owns       the clock, and for each call whether an answer is being played.
Reads      a call's generation, hold and epoch; its `outgoing` ring.
Writes     its `due` ring, its `playing` cursor; wakes io-calls once per sub-tick, of several
           io-calls those that have a frame to send.

Strictly real time: at most one frame per call and tick. A frame that is late is sent once and
the schedule stays where it was; nothing is ever sent in a burst to catch up. That is what makes
interruption exact: the carrier never holds more than a frame or two of what we have said.

The loop touches rings and integers only: no lock, no logging, no allocation that outlives it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from struct import Struct

from ..config import Pacer as PacerConfig
from ..observe.histogram import LATENESS_MS, Histogram
from ..observe.prometheus import Sample, counter, milliseconds
from .awake import Awake
from .calls import END_OF_REPLY, Call
from .realtime import RealtimeRights, prepare_thread

TICK_NS = 20_000_000
_EXPIRIES = Struct("=Q")


class _Line:
    """What the pacer knows of one call."""

    __slots__ = ("call", "epoch", "generation", "playing", "starving", "underruns", "waited")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.generation = 0
        self.epoch = 0
        self.playing = False
        self.starving = False  # the ring ran dry inside an answer
        self.waited = 0  # ticks spent on the prebuffer
        self.underruns = 0  # of this call, read by others for reports


class Pacer:
    """See the module. `step` is one sub-tick, or as many as were missed.

    `wakes_io`: one for each io-calls thread (shards.py). When their number divides that of the
    sub-ticks, each sub-tick is about the calls of one of them, and costs one wake-up as ever.
    """

    name = "pacer"

    def __init__(
        self, calls: Sequence[Call], config: PacerConfig, wakes_io: Sequence[Callable[[], None]]
    ) -> None:
        self.lines = [_Line(call) for call in calls]
        self.on_call: Call | None = None
        self.prebuffer = max(1, config.prebuffer_ms // 20)  # frames; a live change is allowed
        self.rights: RealtimeRights | None = None
        self._subticks = config.subticks
        self._interval = TICK_NS // config.subticks
        self._shares = [
            (self._phases(number, len(wakes_io)), wake) for number, wake in enumerate(wakes_io)
        ]
        self._timer = -1
        self._start = 0
        self._ticks = 0
        # Reports: written here, read by watch.
        self.beat = 0
        self.awake = Awake()
        self.lateness = Histogram(LATENESS_MS)
        self.frames = 0
        self.underruns = 0  # times an answer ran dry
        self.starved = 0  # ticks it stayed so
        self.stale = 0  # frames dropped because the caller has taken the floor
        self.blocked = 0  # ticks on which io-calls had not taken the frame before
        self.gaps = 0  # ticks lost for good: the thread did not run for over 20 ms

    def begin(self) -> None:
        """On the pacer's own thread: ask for real-time rights and start the clock."""
        self.rights = prepare_thread()
        self._timer = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_CLOEXEC)
        self._start = time.monotonic_ns() + self._interval
        os.timerfd_settime_ns(
            self._timer, flags=os.TFD_TIMER_ABSTIME, initial=self._start, interval=self._interval
        )

    def step(self) -> None:
        """Sleep until the next sub-tick, then release what is due."""
        self.awake.sleeps()
        (expired,) = _EXPIRIES.unpack(os.read(self._timer, 8))
        self.awake.wakes()
        self.advance(expired)

    def advance(self, expired: int) -> None:
        """Release what is due after `expired` more sub-ticks. `step` without the sleep."""
        self.beat += 1
        self.on_call = None
        self._ticks += expired
        late = min(expired, self._subticks)
        self.gaps += expired - late
        for phases, wake in self._shares:
            released = 0
            for tick in range(self._ticks - late, self._ticks):
                deadline = self._start + tick * self._interval
                for line in phases[tick % self._subticks]:
                    released += self._tick(line, deadline)
            if released:
                wake()
                self.frames += released

    def _phases(self, number: int, threads: int) -> list[list[_Line]]:
        """The lines of one io-calls thread, by the sub-tick on which each has its turn."""
        return [
            [
                line
                for line in self.lines[phase :: self._subticks]
                if line.call.slot % threads == number
            ]
            for phase in range(self._subticks)
        ]

    def _tick(self, line: _Line, deadline: int) -> int:
        """One call's 20 ms. Returns frames released, 0 or 1."""
        call = self.on_call = line.call
        generation = call.generation.at
        if not generation & 1:
            if line.playing:
                self._stop(line)
            return 0
        held = call.hold.at  # before epoch: vad stores them in the other order
        epoch = call.epoch.at
        if generation != line.generation or epoch != line.epoch:
            self._turn(line, generation, epoch)
        outgoing = call.outgoing
        head = outgoing.peek()
        while head is not None and (head[0] < generation or head[1] < epoch):
            outgoing.pop()
            self.stale += 1
            head = outgoing.peek()
        if held:
            return 0
        if head is not None and (head[0] > generation or head[1] > epoch):
            return 0  # an epoch began after we had looked: this frame is not stale but early
        if head is None:
            if line.playing:
                self._starve(line)
            return 0
        if not line.playing:
            line.waited += 1
            if outgoing.backlog() < self.prebuffer and line.waited <= self.prebuffer:
                return 0
            line.playing = True
            call.playing.at = 1
        line.starving = False
        released = self._release(call, deadline)
        if released and head[3] & END_OF_REPLY:
            self._stop(line)
        return released

    def _release(self, call: Call, deadline: int) -> int:
        if not call.due.room():
            self.blocked += 1  # the frame stays; it is late, not lost
            return 0
        record = call.outgoing.pop()
        assert record is not None, "peeked a moment ago, and nobody else may pop"
        generation, epoch, tag, flags, _, payload = record
        call.due.push(generation, epoch, tag, flags, deadline, payload)
        self.lateness.observe((time.monotonic_ns() - deadline) / 1e6)
        return 1

    def _turn(self, line: _Line, generation: int, epoch: int) -> None:
        """Another caller, or the caller has taken the floor."""
        if generation != line.generation:
            line.underruns = 0
        line.generation = generation
        line.epoch = epoch
        self._stop(line)

    def _stop(self, line: _Line) -> None:
        line.playing = False
        line.starving = False
        line.waited = 0
        line.call.playing.at = 0

    def _starve(self, line: _Line) -> None:
        self.starved += 1
        if not line.starving:
            line.starving = True
            line.underruns += 1
            self.underruns += 1

    def finish(self) -> None:
        """Stop the clock."""
        if self._timer >= 0:
            os.close(self._timer)
            self._timer = -1

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread: numbers one writer keeps, read a moment late."""
        yield milliseconds(
            "threadline_pacer_lateness_seconds", "Frame release behind its deadline.", self.lateness
        )
        for name, help_text, value in (
            ("frames", "Frames released.", self.frames),
            ("underruns", "Answers that ran dry before they ended.", self.underruns),
            ("starved_ticks", "20 ms ticks an answer had nothing to play.", self.starved),
            ("stale_frames", "Frames dropped because the caller took the floor.", self.stale),
            ("blocked_ticks", "Ticks on which io-calls was not keeping up.", self.blocked),
            ("gaps", "Ticks lost because this thread did not run.", self.gaps),
        ):
            yield counter(f"threadline_pacer_{name}_total", help_text, value)
