"""The path of a frame on real threads, played fast: io-calls and pacer with fakes around them.

    phones  <->  io-calls  <--  pacer  <--  reply (fake)      vad (fake)

Production threads, rings, inboxes and sockets; only two things are not as in a server. The pacer's
clock is turned by its thread as fast as that comes round, not every 20 ms, so that thousands of
frames and interruptions a second are possible. And io-calls gives its real-time priority back: at
full load it would keep everybody else from a shared machine.

What is said is a label (pattern.py), so each frame shows of which call, epoch and clause it is.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from threadline.config import Pacer as PacerConfig
from threadline.config import Server as ServerConfig
from threadline.talking.heard import Ledger, parse_mark
from threadline.threads.calls import END_OF_CLAUSE, END_OF_REPLY, FRAME, Call
from threadline.threads.door import Door
from threadline.threads.io_calls import IoCalls, io_threads, listen
from threadline.threads.messages import (
    CallClosed,
    CallOpened,
    FirstFrame,
    HangUp,
    MarkReturned,
    PlaybackCut,
)
from threadline.threads.pacer import Pacer
from threadline.threads.ring import AudioRing, Cursor
from threadline.threads.shards import numbered, ports
from threadline.threads.wake import Inbox, Outbox

from . import pattern
from .bout import Bout, Crew
from .perturb import Yields, cursor_at, near_the_wrap


@dataclass(slots=True)
class Talk:
    """One call, as the fake reply knows it."""

    call: Call
    generation: int
    number: int  # of the phone
    epoch: int = -1
    frames: int = 0  # pushed in this epoch
    clause: int = 0
    left: int = 0  # frames until the clause ends
    ended: bool = False  # the answer of this epoch is over
    pushed: int = 0
    lengths: dict[int, int] = field(default_factory=dict)  # frames of each clause
    epochs: dict[int, int] = field(default_factory=dict)  # epoch of each clause
    ledger: Ledger = field(default_factory=Ledger)
    cuts: dict[int, tuple[int, int]] = field(default_factory=dict)  # epoch: clause, played ms
    hung_up: bool = False  # by us
    reason: str = ""  # why it was closed


class Reply:
    """Talks without end on every call: answers of a few clauses of a few frames.

    It learns of a new epoch late, or in the middle of a clause, and goes on in the old one until
    then: what it says meanwhile must not be heard.
    """

    def __init__(
        self, bout: Bout, calls: list[Call], inbox: Inbox, ends: float, hang_up: Outbox[object]
    ) -> None:
        self.talks: dict[int, Talk] = {}  # by slot, of live calls
        self.over: list[Talk] = []
        self.pushed = 0
        self.hush = False  # set by others: say nothing more
        self._bout, self._calls, self._inbox = bout, calls, inbox
        self._ends = ends  # chance that a clause is the last of its answer
        self._rng = bout.draws("reply")
        self._hang_up = hang_up
        self.rude = False  # hangs up now and then, on calls that are on and on calls that are over
        self._ahead = self._rng.choice((4, 8, 128))  # frames in the ring: what is not heard is work

    def turn(self) -> None:
        """Take what io-calls tells, then say some more on every call."""
        self._inbox.wait(0.001)
        for event in self._inbox.events():
            self._take(event)
        if not self.hush:
            for talk in self.talks.values():
                self._say(talk, self._rng.randrange(1, 8))
            if self.rude:
                self._be_rude()

    def _take(self, event: object) -> None:
        if isinstance(event, CallOpened):
            number = int(event.call_id.removeprefix("CA"))
            call = self._calls[event.slot]
            old = self.talks.get(event.slot)
            self._bout.expect(old is None, f"slot {event.slot} opened twice: {old}")
            self.talks[event.slot] = Talk(call, event.generation, number)
            return
        assert isinstance(event, (CallClosed, PlaybackCut, MarkReturned, FirstFrame)), event
        talk = self.talks.get(event.slot)
        same = talk is not None and talk.generation == event.generation
        # io-calls is one thread and tells in order: nothing may be told of a call that is over.
        if not same or talk is None:
            self._bout.forbid(f"{event} is told of a call that is not on: {talk}")
        match event:
            case CallClosed():
                talk.reason = event.reason
                self.over.append(self.talks.pop(event.slot))
            case PlaybackCut():
                self._bout.expect(event.epoch not in talk.cuts, f"{event} is told twice")
                talk.cuts[event.epoch] = event.clause, event.played_ms
                talk.ledger.cut(event.epoch, event.clause, event.played_ms)
            case MarkReturned():
                mark = parse_mark(event.name)
                if mark is not None:
                    talk.ledger.heard(*mark)

    def _be_rude(self) -> None:
        """Late items: more of a call that is over, in the ring and the inbox of the next one."""
        rng = self._rng
        if self.over and rng.random() < 0.3:
            old = rng.choice(self.over[-4:])
            for count in range(rng.randrange(4)):
                sound = pattern.frame(old.number, max(0, old.epoch), old.clause, count)
                epoch = rng.choice((old.epoch, old.call.epoch.at))
                old.call.outgoing.push(old.generation, max(0, epoch), old.clause, 0, 0, sound)
            self._hang_up.put(HangUp(old.call.slot, old.generation, "late"))
        if self.talks and rng.random() < 0.005:
            talk = rng.choice(list(self.talks.values()))
            talk.hung_up = True
            self._hang_up.put(HangUp(talk.call.slot, talk.generation, "enough"))

    def _say(self, talk: Talk, frames: int) -> None:
        call, rng = talk.call, self._rng
        epoch = call.epoch.at
        if epoch != talk.epoch:
            talk.ledger.void(epoch)
            talk.epoch, talk.frames, talk.left, talk.ended = epoch, 0, 0, False
        for _ in range(frames):
            if talk.ended or not call.outgoing.room() or call.outgoing.depth() > self._ahead:
                return
            if talk.left == 0:
                talk.clause += 1
                talk.left = talk.lengths[talk.clause] = rng.randrange(1, 6)
                talk.epochs[talk.clause] = epoch
                talk.ledger.said(epoch, talk.clause, text_of(talk.clause, talk.left))
                talk.ledger.spoken(talk.clause, talk.left * 20)
            talk.left -= 1
            flags = 0 if talk.left else END_OF_CLAUSE
            sound = pattern.frame(talk.number, epoch, talk.clause, talk.frames)
            call.outgoing.push(talk.generation, epoch, talk.clause, flags, 0, sound)
            talk.frames += 1
            self.pushed += 1
            if talk.left == 0 and rng.random() < self._ends:
                talk.ended = True
                while not call.outgoing.push(
                    talk.generation, epoch, talk.clause, END_OF_REPLY, 0, b""
                ):
                    if self.hush or call.generation.at != talk.generation:
                        return
                    time.sleep(0)
                self.pushed += 1


def text_of(clause: int, frames: int) -> str:
    """As many words as frames."""
    return " ".join(f"{clause}w{word}" for word in range(frames))


class Switchboard:
    """The calls, the threads between them, and what is counted. Made by `switchboard`."""

    def __init__(
        self,
        bout: Bout,
        crew: Crew,
        slots: int,
        yields: Yields | None,
        ends: float,
        threads: int,
    ) -> None:
        self.bout, self.crew = bout, crew
        self.calls = [_call(bout, slot, yields) for slot in range(slots)]
        self.inboxes = [Inbox(name) for name in numbered("io-calls", threads)]
        self.to_reply = Inbox("reply")
        wakes = [inbox.wake for inbox in self.inboxes]
        self._wakes = wakes if yields is None else [yields.around(wake) for wake in wakes]
        listener = listen("127.0.0.1", 0)
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self.defects: list[BaseException] = []
        config = ServerConfig(start_seconds=60, handshake_seconds=60, silent_peer_seconds=1e9)
        self.door = Door(
            self.calls, config, listener, lambda: ("", {}), lambda: b"", threads=threads
        )
        self.ios = io_threads(config, self.inboxes, self.to_reply, lambda slots: None, self.door)
        for io in self.ios:
            io.defect = self.defects.append
        self.pacer = Pacer(self.calls, PacerConfig(prebuffer_ms=20), self._wakes)
        hang_up = ports(self.inboxes, "reply")
        self.reply = Reply(bout, self.calls, self.to_reply, ends, hang_up)
        self._clock = bout.draws("clock")
        self._pause = bout.rng.choice((0.0001, 0.0005, 0.001))

    def run_io(self, io: IoCalls) -> None:
        io.begin()
        with suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        while not self.crew.over:
            io.step()
        io.finish()

    def turn_clock(self) -> None:
        """One sub-tick, or a few as after a stall; then a moment for the others."""
        self.pacer.advance(1 if self._clock.random() < 0.95 else self._clock.randrange(1, 6))
        time.sleep(self._pause)

    def interrupt(self, call: Call, rng: random.Random, yields: Yields | None) -> bool:
        """As vad does it: pause, then take the floor, or let the answer go on. True: taken."""
        call.hold.at = 1
        if yields is not None:
            yields.here()
        taken = rng.random() < 0.9
        if taken:
            call.epoch.at += 1
        call.hold.at = 0
        if taken:
            self._wakes[call.slot % len(self._wakes)]()
        return taken

    @property
    def frames(self) -> int:
        """Written to sockets."""
        return sum(io.frames for io in self.ios)

    @property
    def stale(self) -> int:
        """Held back at the sockets."""
        return sum(io.stale for io in self.ios)

    @property
    def in_flight(self) -> int:
        """Records between reply and the sockets. Exact when the threads rest."""
        return sum(call.outgoing.depth() + call.due.depth() for call in self.calls)

    def check(self) -> None:
        """Nothing raised on io-calls."""
        self.crew.check()
        if self.defects:
            raise self.defects[0]


def _call(bout: Bout, slot: int, yields: Yields | None) -> Call:
    """A slot; in half the bouts with rings of a few cells, and cursors next to the wrap."""
    call = Call(slot)
    rng = bout.rng
    tiny = rng.random() < 0.5
    at = near_the_wrap(rng) if rng.random() < 0.5 else 0
    cursor: Callable[[], Cursor] = cursor_at(at) if yields is None else yields.cursor(at)

    def ring(capacity: int) -> AudioRing:
        made = AudioRing(capacity, FRAME, cursor=cursor)
        made._head_seen = made._tail_seen = at
        return made

    call.heard = ring(128)
    call.outgoing = ring(rng.choice((3, 5)) if tiny else 128)
    call.due = ring(rng.choice((1, 2, 3)) if tiny else 8)
    call.epoch.at = rng.choice((0, 250, 1 << 20))  # small ints are shared, larger ones are not
    if yields is not None:
        for name in ("generation", "epoch", "hold"):
            made = yields.cursor(getattr(call, name).at)()
            setattr(call, name, made)
    return call


@contextmanager
def switchboard(
    bout: Bout,
    slots: int,
    yields: Yields | None = None,
    ends: float = 0.02,
    threads: int = 1,
) -> Iterator[Switchboard]:
    """Threads that answer calls, for the length of a block. `ends`: see `Reply`; `threads`: of
    io-calls."""
    crew = Crew(bout)
    board = Switchboard(bout, crew, slots, yields, ends, threads)
    for io in reversed(board.ios):
        crew.start(io.name, partial(board.run_io, io))
    crew.loop("pacer", board.turn_clock)
    crew.loop("reply", board.reply.turn)
    try:
        yield board
        board.check()
    finally:
        crew.over = True
        for io in board.ios:
            io.stop()
        crew.join("every thread ends once it is asked to")
        for inbox in board.inboxes:
            inbox.close()
        board.to_reply.close()
