"""Short stalls: a thread that was awake for longer than its turns take, and where it was then.

Part of the `watch` thread, which looks some sixty times a second. Every thread tells since when it
has been awake, and which stretch was too long (awake.py). One that is about to be is asked for its
stack at once; when it is over the stall is reported: how long, where, how much of it the thread
ran or only waited for a core (from /proc), what lay in the rings, and what the garbage collector
was at. A thread that mostly waited for a core, or would have been within its limit with one, has
no defect: that is counted, and said more quietly.

A look that is itself late, and not for want of a core, proves nothing about others: the whole
process stood still, or this thread was held up. The latter it tells of itself: an alarm has written
its stack.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..observe.prometheus import Sample, counter
from . import logs
from .awake import Awake, Pulse, Stretch, core_times
from .stacks import Alarm, stacks

LOOK_SECONDS = 0.015
_STOOD_STILL = 15e6  # ns by which a look is late for no known reason
_FRESH = 20_000_000  # ns; a stretch that was met later may have begun with anything
_EARLY = 15e6  # ns before its limit a thread is asked where it is: a look may be late by as much
_ANSWER_MS = 5  # for its answer; one that has no core is asked again at the next look
_log = logs.logger("watch")


@dataclass(frozen=True, slots=True)
class Stage:
    """One thread to watch.

    `beat` counts the turns of its loop and does not wrap, or a stage of 256 turns a second would
    seem to stand still. `wake` makes the loop turn even when there is nothing to do.
    """

    name: str
    thread: threading.Thread
    beat: Callable[[], int]
    wake: Callable[[], None]
    awake: Awake | Pulse = field(default_factory=Awake)


class _Watched:
    """What is known of one thread."""

    __slots__ = (
        "fields",
        "ran",
        "seen",
        "since",
        "stack",
        "stage",
        "stalls",
        "starved",
        "told",
        "waited",
    )

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.told = stage.awake.overlong  # the last one that was judged
        self.stalls = self.starved = 0
        self.meet(0, 0)

    def meet(self, since: int, now: int) -> None:
        """A stretch that was not seen before."""
        self.since, self.seen = since, now
        self.ran, self.waited = core_times(self.stage.thread) if since else (0, 0)
        self.stack = ""
        self.fields: Mapping[str, object] | None = None  # once it has taken suspiciously long


class Stalls:
    """Watches some threads; the watch thread's alone.

    `state` is called when a stall is found, for what else the report should say.
    """

    def __init__(self, stages: Sequence[Stage], state: Callable[[], Mapping[str, object]]) -> None:
        self._watched = [_Watched(stage) for stage in stages]
        self._itself: _Watched | None = None
        self._alarm: Alarm | None = None
        self._state = state
        self._looked = 0
        self._asked: _Watched | None = None  # has not answered yet
        self._blind = (0, 0)  # between which two looks nobody looked
        stacks()  # the signal handler must be there before the first stall

    def add(self, stage: Stage) -> None:
        """One more thread, before the first look."""
        self._watched.append(_Watched(stage))

    def begin(self, itself: Stage) -> None:
        """On the thread that looks: watch it as well."""
        self._itself = _Watched(itself)
        self._alarm = Alarm()

    def end(self) -> None:
        """No further look."""
        if self._alarm is not None:
            self._alarm.close()

    def stood_still(self, since: int, until: int) -> None:
        """Every thread did, between these two ns: the garbage was collected."""
        self._blind = since, until

    def look(self, now: int) -> None:
        """One look, first of all in a turn; `now` in monotonic ns."""
        known = self._look_at_itself(now)
        if now - self._looked - LOOK_SECONDS * 1e9 - known > _STOOD_STILL:
            self._blind = self._looked, now
        self._looked = now
        for one in self._watched:
            self._look_at(one, now)

    def _look_at(self, one: _Watched, now: int) -> None:
        awake = one.stage.awake
        limit = awake.limit  # in this order, see `Awake`
        since = awake.look(now)
        overlong = awake.overlong
        if overlong is not None and overlong is not one.told:
            one.told = overlong
            if one.since == overlong.since:  # else no look fell into it: nothing is known of it
                self._report(one, overlong)
        if not since:
            return
        if since != one.since:
            one.meet(since, now)
        if not one.stack and self._length(since, now) > limit - _EARLY:
            one.fields = one.fields or self._state()
            one.stack = self._late_answer(one) or stacks().of(one.stage.thread, _ANSWER_MS)
            self._asked = None if one.stack else one

    def _late_answer(self, one: _Watched) -> str:
        """What it wrote once it had a core, if it was the last one to be asked."""
        return stacks().written() if self._asked is one else ""

    def _look_at_itself(self, now: int) -> int:
        """Returns for how long, since the last look, it ran or waited for a core, ns."""
        one = self._itself
        if one is None:
            return 0
        overlong = one.stage.awake.overlong
        if overlong is not None and overlong is not one.told:
            one.told = overlong
            one.since = overlong.since  # the turn's beginning may have been a stretch of its own
            one.stack = stacks().written()
            self._report(one, overlong)
        before = one.ran + one.waited
        one.meet(one.stage.awake.look(now), now)
        if self._alarm is not None:
            self._alarm.put_off(LOOK_SECONDS + _EARLY / 1e9)
        return one.ran + one.waited - before

    def _length(self, since: int, until: int) -> int:
        """How much of it we have looked at."""
        blind = min(until, self._blind[1]) - max(since, self._blind[0])
        return until - since - max(0, blind)

    def _report(self, one: _Watched, stretch: Stretch) -> None:
        took = stretch.until - stretch.since
        known = self._length(max(stretch.since, one.seen - _FRESH), stretch.until)
        if known <= stretch.limit:
            return
        ran, waited = stretch.ran - one.ran, stretch.waited - one.waited
        # What it had to catch up with is the machine's doing as well.
        starved = known - waited <= stretch.limit or waited > took / 2
        one.starved += starved
        one.stalls += not starved
        (_log.info if starved else _log.warning)(
            "no core for a stage" if starved else "stall",
            stage=one.stage.name,
            ms=round(took / 1e6, 1),
            ran_ms=round(ran / 1e6, 1),
            waited_for_core_ms=round(waited / 1e6, 1),
            stack=one.stack or self._late_answer(one),
            **(one.fields or self._state()),
        )

    def samples(self) -> Iterable[Sample]:
        """For the metrics page."""
        for one in (*self._watched, *filter(None, [self._itself])):
            name = one.stage.name
            text = "Times a stage was busy for longer than its turns take."
            yield counter("threadline_stage_slow_total", text, one.stalls, stage=name)
            text = "Times it was late because it had no core."
            yield counter("threadline_stage_starved_total", text, one.starved, stage=name)
