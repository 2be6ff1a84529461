"""Planted races: what each changes in the production source, and which tier must notice.

A change is exact text; when the source has moved on, the suite fails until it is brought up to
date. Tiers:

    explorer   the models named here, searched as `stress.explore` does
    native     two threads of the machine on the changed rings, for a second at most
    unit       the project's own tests, on the changed source
"""

from __future__ import annotations

from dataclasses import dataclass

from .explorer.beside import Change


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted race.

    Args:
        what: the mistake, in a few words.
        changes: to the source.
        models: the explorer must find it in each of these.
        native: so "must" two threads of the machine, or they "may" where it needs luck.
        unit: so must this test (an argument of pytest); empty: not asked.
    """

    what: str
    changes: tuple[Change, ...]
    models: tuple[str, ...] = ()
    native: str = ""
    unit: str = ""


_AUDIO_PUSH = """\
        view.write(tail & self._mask, generation, epoch, tag, flags, stamp, payload)
        self.tail.at = (tail + 1) & _WRAP  # publishes the cell: nothing of it may follow
"""
_AUDIO_POP = """\
        record = view.read(head & self._mask)
        self.head.at = (head + 1) & _WRAP  # gives the cell back: the copy is complete
"""
_EVENT_PUSH = """\
        self._cells[tail & self._mask] = event
        self.tail.at = (tail + 1) & _WRAP  # publishes the cell
"""
_EVENT_POP = """\
        event = self._cells[cell]
        self._cells[cell] = None  # a consumed event must not live until the ring comes round
        self.head.at = (head + 1) & _WRAP  # gives the cell back
"""
_EVENT_POP_ADVANCED = """\
        self.head.at = (head + 1) & _WRAP
        event = self._cells[cell]
        self._cells[cell] = None
"""
_EVENT_POP_EMPTIED_LATE = """\
        event = self._cells[cell]
        self.head.at = (head + 1) & _WRAP
        self._cells[cell] = None
"""
_CURSOR = """\
    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = 0
"""
_CURSOR_IN_A_VIEW = """\
    __slots__ = ("_view",)

    def __init__(self) -> None:
        self._view = memoryview(bytearray(8)).cast("Q")

    @property
    def at(self) -> int:
        return self._view[0]

    @at.setter
    def at(self, value: int) -> None:
        self._view[0] = value
"""
_READ = """\
        generation, epoch, tag, flags, size, stamp, payload = self._unpack(self._bytes, at)
        return generation, epoch, tag, flags, stamp, payload[:size]
"""
_READ_VIEW = """\
        generation, epoch, tag, flags, size, stamp, _ = self._unpack(self._bytes, at)
        at += _HEADER.size
        return generation, epoch, tag, flags, stamp, self._bytes[at : at + size]
"""
_ROOM = "            self._head_seen = self.head.at\n"
_READY = """\
            self._tail_seen = self.tail.at
            waiting = (self._tail_seen - self.head.at) & _WRAP
"""
_WAIT = """\
        woken = bool(self._ready.poll(timeout * 1000))
        self.awake.wakes()
        self.clear()
        return woken
"""
_TAKE = """\
                    event = ring.pop()
                    if event is None:
                        break
                    yield event
"""
_TAKE_LATE = """\
                    if not ring.ready():
                        break
                    yield ring._cells[ring.head.at & ring._mask]
                    ring.pop()
"""
_REARM = """\
            if not drained:
                self.wake()  # whoever takes the events has failed over one: the rest still waits
"""
_PUT = """\
        if (self._kept and not self.flush()) or not self._ring.push(event):
"""
_PUT_WAKE = """\
            self._kept.append(event)
        self._inbox.wake()
"""
_TAKEN = """\
                call.epoch.at += 1  # before hold is lifted: see calls.py
                call.hold.at = 0
"""
_HELD = """\
        held = call.hold.at  # before epoch: vad stores them in the other order
        epoch = call.epoch.at
"""
_FOLLOW = """\
            if generation == self.generation and epoch > self.epoch:
                self._follow(call)
            if generation != self.generation or epoch != self.epoch:
"""
_CLEARED = """\
        self.epoch = epoch
        self._clause = self._clause_frames = 0
"""
_STOP = """\
        self._stopping = True
        self.wake()
"""
_RING = "tests/threads/test_ring.py::test_"
_WAKE = "tests/threads/test_wake.py::test_"
_CELLS = _RING + "every_cell_survives_every_position_of_the_wrap"


def _swapped(lines: str) -> str:
    """The first line last."""
    first, *rest = lines.splitlines(keepends=True)
    return "".join((*rest, first))


MUTANTS: dict[str, Mutant] = {
    # -- one ring --------------------------------------------------------------------------------
    "publish-first-audio": Mutant(
        "publish before write",
        (Change("ring", _AUDIO_PUSH, _swapped(_AUDIO_PUSH)),),
        ("push-pop/audio", "wrap/audio-255"),
        native="may",
    ),
    "publish-first-event": Mutant(
        "publish before write",
        (Change("ring", _EVENT_PUSH, _swapped(_EVENT_PUSH)),),
        ("push-pop/events",),
        native="may",
    ),
    "advance-first-audio": Mutant(
        "advance before read",
        (Change("ring", _AUDIO_POP, _swapped(_AUDIO_POP)),),
        ("full/audio-1", "full/audio-2"),
        native="may",
    ),
    "advance-first-event": Mutant(
        "advance before read",
        (Change("ring", _EVENT_POP, _EVENT_POP_ADVANCED),),
        ("full/events-1",),
        native="may",
    ),
    "empties-late": Mutant(
        "the cell is emptied after it was given back",
        (Change("ring", _EVENT_POP, _EVENT_POP_EMPTIED_LATE),),
        ("full/events-1",),
    ),
    "full-off-by-one": Mutant(
        "full, off by one",
        (
            Change(
                "ring",
                "        self.capacity = capacity\n",
                "        self.capacity = capacity + 1\n",
            ),
        ),
        ("full/audio-2", "full/events-2"),
        native="must",
        unit=_CELLS,
    ),
    "empty-off-by-one": Mutant(
        "empty, off by one",
        (Change("ring", "        return waiting\n", "        return waiting + 1\n"),),
        ("empty/audio", "empty/events"),
        native="must",
    ),
    "wrong-mask": Mutant(
        "wrong mask: cells counted, not rounded up",
        (Change("ring", "(1 << (capacity - 1).bit_length()) - 1", "capacity - 1"),),
        ("wrap/audio-254", "wrap/events-254"),
        native="must",
        unit=_CELLS,
    ),
    "wrong-wrap": Mutant(
        "wrong mask: cursors wrap one too early",
        (Change("ring", "_WRAP = MODULUS - 1\n", "_WRAP = MODULUS - 2\n"),),
        ("wrap/audio-255", "wrap/events-255"),
        unit=_CELLS,
    ),
    "capacity-is-modulus": Mutant(
        "capacity equal to the modulus",
        (Change("ring", "MAX_CAPACITY = MODULUS // 2", "MAX_CAPACITY = MODULUS"),),
        ("largest/audio", "largest/events"),
        unit=_RING + "a_capacity_that_256_could_not_tell_full_from_empty_is_refused",
    ),
    "head-never-refreshed": Mutant(
        "cached peer index never refreshed (by the producer)",
        (Change("ring", _ROOM, "            pass\n"),),
        ("full/audio-1", "full/events-1"),
        native="must",
        unit=_CELLS,
    ),
    "tail-never-refreshed": Mutant(
        "cached peer index never refreshed (by the consumer)",
        (Change("ring", _READY, _READY.splitlines(keepends=True)[1]),),
        ("push-pop/audio", "push-pop/events"),
        native="must",
        unit=_CELLS,
    ),
    "index-in-a-view": Mutant(
        "index through a memoryview",
        (Change("ring", _CURSOR, _CURSOR_IN_A_VIEW),),
        ("push-pop/audio", "push-pop/events"),
    ),
    "view-kept": Mutant(
        "payload view kept after release",
        (Change("ring", _READ, _READ_VIEW),),
        ("full/audio-1",),
        unit=_RING + "a_payload_is_copied_on_the_way_in_and_out",
    ),
    "one-buffer": Mutant(
        "buffer reused before copied: all cells share one",
        (Change("ring", "self._stride = cell.size", "self._stride = 0"),),
        ("push-pop/audio",),
        native="must",
        unit=_CELLS,
    ),
    "two-producers": Mutant(
        "two producers",
        (Change("ring", "        return self._ident == me\n", "        return True\n"),),
        ("two-producers/events",),
        unit=_RING + "a_second_producer_or_consumer_is_caught",
    ),
    "skip-from-stale": Mutant(
        "skip past what was not published",
        (
            Change(
                "ring",
                "        stale = self.backlog() - keep\n",
                "        stale = self.capacity - keep\n",
            ),
        ),
        ("skip-stale/one", "skip-stale/all"),
    ),
    # -- wake-ups --------------------------------------------------------------------------------
    "wake-when-empty": Mutant(
        'eventfd written only when "not empty"',
        (
            Change(
                "wake",
                _PUT_WAKE,
                _PUT_WAKE.replace(
                    "        self._inbox.wake()\n",
                    "        if self._ring.depth() == 1:\n            self._inbox.wake()\n",
                ),
            ),
        ),
        ("inbox/one",),
    ),
    "wake-before-push": Mutant(
        "eventfd written before the push",
        (
            Change("wake", _PUT, "        self._inbox.wake()\n" + _PUT),
            Change("wake", _PUT_WAKE, _PUT_WAKE.splitlines(keepends=True)[0]),
        ),
        ("inbox/one", "inbox/two"),
    ),
    "check-then-sleep": Mutant(
        "check, then sleep: a wake-up in between is thrown away",
        (
            Change(
                "wake",
                _WAIT,
                """\
        if self.depth():
            return True
        self.clear()
        return bool(self._ready.poll(timeout * 1000))
""",
            ),
        ),
        ("inbox/one",),
    ),
    "drained-after": Mutant(
        "eventfd drained after the ring",
        (
            Change("wake", _WAIT, "        return bool(self._ready.poll(timeout * 1000))\n"),
            Change(
                "wake",
                "            drained = True\n",
                "            drained = True\n            self.clear()\n",
            ),
        ),
        ("inbox/one",),
    ),
    "kept-is-overtaken": Mutant(
        "a new event overtakes those that wait for room",
        (Change("wake", _PUT, "        if not self._ring.push(event):\n"),),
        ("inbox/kept",),
        unit=_WAKE + "what_does_not_fit_is_kept_and_goes_first",
    ),
    "exception-skips-advance": Mutant(
        "an exception that skips the advance",
        (Change("wake", _TAKE, _TAKE_LATE),),
        ("defect/first",),
        unit=_WAKE + "a_consumer_that_fails_over_one_event_is_woken_for_the_rest",
    ),
    "exception-skips-rearm": Mutant(
        "an exception that leaves the other events asleep",
        (Change("wake", _REARM, "            pass\n"),),
        ("defect/first",),
        unit=_WAKE + "a_consumer_that_fails_over_one_event_is_woken_for_the_rest",
    ),
    "flag-without-wake": Mutant(
        "shutdown flag without a wake",
        (Change("supervisor", _STOP, _STOP.splitlines(keepends=True)[0]),),
        ("shutdown/asleep",),
    ),
    "wake-before-flag": Mutant(
        "shutdown flag after its wake",
        (Change("supervisor", _STOP, _swapped(_STOP)),),
        ("shutdown/asleep",),
    ),
    # -- the floor, the clear, the slot ------------------------------------------------------------
    "clear-without-epoch": Mutant(
        "clear without epoch bump",
        (Change("connection", _CLEARED, _CLEARED.splitlines(keepends=True)[1]),),
        ("clear/weak",),
    ),
    "floor-without-epoch": Mutant(
        "the floor is taken without epoch bump",
        (Change("vad", _TAKEN, _TAKEN.splitlines(keepends=True)[1]),),
        ("clear/weak", "pause/taken"),
    ),
    "hold-before-epoch": Mutant(
        "the pause is lifted before the epoch rises",
        (Change("vad", _TAKEN, _swapped(_TAKEN)),),
        ("pause/taken",),
    ),
    "epoch-before-hold": Mutant(
        "the pacer loads the epoch first, the pause second",
        (Change("pacer", _HELD, _swapped(_HELD)),),
        ("pause/taken",),
    ),
    "checked-at-the-queue": Mutant(
        "epoch checked before the queue instead of at the send",
        (Change("connection", _FOLLOW, "            if generation != self.generation:\n"),),
        ("clear/weak",),
    ),
    "checked-live": Mutant(
        "clear racing a publish: a newer frame goes out before its clear",
        (
            Change(
                "connection",
                _FOLLOW,
                """\
            if generation != self.generation or epoch != call.epoch.at:
""",
            ),
        ),
        ("clear/answer",),
    ),
    "early-is-stale-io": Mutant(
        "clear racing a publish: a newer frame is taken for a stale one by io-calls",
        (Change("connection", _FOLLOW, _FOLLOW.splitlines(keepends=True)[2]),),
        ("clear/answer",),
    ),
    "early-is-stale-pacer": Mutant(
        "a newer frame is taken for a stale one by the pacer",
        (
            Change(
                "pacer",
                "(head[0] < generation or head[1] < epoch)",
                "(head[0] != generation or head[1] != epoch)",
            ),
        ),
        ("commit/answer",),
    ),
    "no-generation": Mutant(
        "slot reused without a generation: io-calls sends whatever is due",
        (
            Change(
                "connection",
                _FOLLOW,
                """\
            if epoch > self.epoch:
                self._follow(call)
            if epoch != self.epoch:
""",
            ),
        ),
        ("slot-reuse/late",),
    ),
    "same-generation": Mutant(
        "slot reused without a generation: it is not raised at the end",
        (
            Change(
                "io_calls",
                "            call.generation.at += 1  # even: nobody is on the line\n",
                "            call.generation.at -= 1\n",
            ),
        ),
        ("slot-reuse/late",),
    ),
    "early-is-stale-vad": Mutant(
        "slot reused: the next caller's first words are taken for stale ones by vad",
        (Change("vad", "            if record[0] > ear.generation:", "            if False:"),),
        ("first-words/vad",),
    ),
    "late-floor-ignored": Mutant(
        "slot reused: an earlier caller's floor voids the next one's greeting, unnoticed",
        (
            Change(
                "reply",
                "isinstance(event, FloorTaken) and event.epoch > line.epoch:",
                "False:",
            ),
        ),
        ("late-floor/greeting",),
    ),
}
