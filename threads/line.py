"""One live call as `reply` knows it, and its audio on the way from the voices to the ring.

Used by the reply thread alone. Clauses are played strictly in the order they were said; each
keeps its audio until it is its turn and its guard has let it pass. Nothing here runs far ahead
of the caller's ear: at most two clauses are with a voice, and no more is asked of it while eight
seconds of speech wait.

Voices form a chain. A clause of which no audio came goes to the next one, and the rest of that
telling with it: the caller hears the voice change once, and never back. Of a clause that broke
off, what came is kept; nothing is said twice.
"""

from __future__ import annotations

from collections import deque
from contextvars import Context
from dataclasses import dataclass, field
from typing import Literal

from ..agent import CallInfo
from ..dialog import events as talk
from ..dialog.conversation import Conversation
from ..dialog.digits import Digits
from ..dialog.idle import Idle
from .calls import END_OF_CLAUSE, END_OF_REPLY, FRAME, Call
from .messages import CancelSpeech, EndOfSpeech, Speak
from .turn_log import TurnLog

AHEAD_CLAUSES = 2
AHEAD_BYTES = 64_000  # 8 s
NEVER = 1 << 63  # ns
TAIL_CAP_NS = 3_000_000_000  # once all else is in the ring; then a telling ends without its tail

type Order = tuple[int, Speak | EndOfSpeech | CancelSpeech]
"""A voice, by its place in the chain, and what it is told."""


@dataclass(slots=True, eq=False)
class Telling:
    """What is said in one go: its clauses share one voice, and that voice's context."""

    voice: int = 0
    asked: bool = False  # the voice has a context of it
    closed: bool = False  # its last clause is known


@dataclass(slots=True, eq=False)
class Clause:
    """One clause on its way from the conversation to the ring."""

    telling: Telling
    epoch: int
    number: int
    text: str
    guard: int = 0  # the job that must let it pass first
    voice: int = -1  # who was asked last; -1: nobody yet
    again: bool = False  # that answer is not wanted: after it, the telling's new voice is asked
    over: bool = False  # no more audio will come
    audio: bytearray = field(default_factory=bytearray)
    at: int = 0  # so much of it is in the ring


@dataclass(slots=True, eq=False)
class Ending:
    """The end of a telling, with the tail of its sound."""

    telling: Telling
    epoch: int
    number: int  # of the last clause
    voice: int = -1  # who was asked for the tail
    over: bool = False
    by: int = 0  # ns, when the tail is no longer waited for
    audio: bytearray = field(default_factory=bytearray)
    at: int = 0


@dataclass(slots=True)
class Job:
    """A tool or a guard that runs: `number` is the conversation's job, or the clause."""

    kind: Literal["tool", "guard"]
    number: int
    text: str  # the clause, or the tool's name
    slow_at: int = 0  # ns, when a tool gets a filler; 0: it had one


@dataclass(slots=True, eq=False)
class Line:
    """One live call. `voices`: how many there are in the chain."""

    call: Call
    generation: int
    info: CallInfo
    context: Context  # what a brain sets in it is of this call: all calls share the thread
    conversation: Conversation
    epoch: int
    voices: int
    turns: TurnLog
    idle: Idle
    digits: Digits
    queue: deque[Clause | Ending] = field(default_factory=deque)  # not wholly in the ring yet
    owed: list[Clause | Ending] = field(default_factory=list)  # a voice has still to answer
    using: set[int] = field(default_factory=set)  # voices with a context of this epoch open
    telling: Telling = field(default_factory=Telling)  # the latest
    buffered: int = 0
    facts: deque[talk.Input] = field(default_factory=deque)  # the conversation is told next
    jobs: dict[int, Job] = field(default_factory=dict)  # by their numbers with the crew
    ends: deque[int] = field(default_factory=deque)  # last clauses of answers not yet played out
    protected_by: int = 0  # ns; until then at most the greeting cannot be interrupted
    hang_up: str = ""  # why, once the end of playback is reported
    hang_up_after: int = 0  # the clause that must have been played out
    hang_up_by: int = 0  # ns
    failed: bool = False  # a stage raised: nothing more is said but the apology
    due: int = NEVER  # ns, when the clock must be looked at next

    @property
    def with_voice(self) -> int:
        """Clauses that a voice has not answered yet."""
        return sum(isinstance(one, Clause) for one in self.owed)

    # -- who speaks -----------------------------------------------------------------------------

    def show(self) -> None:
        """Let vad know whether the agent speaks, or is about to; once all is in the ring, the
        ring and the pacer's `playing` say it."""
        busy = 0
        if self.protected_by:
            busy = 2
        elif self.queue or self.conversation.working:
            busy = 1
        if self.call.busy.at != busy:
            self.call.busy.at = busy

    def next_due(self) -> int:
        """When the clock must be looked at next for this call, ns."""
        due = min(at or NEVER for at in (self.hang_up_by, self.protected_by, self.turns.due))
        for seconds in (self.idle.next_due(), self.digits.next_due()):
            if seconds is not None:
                due = min(due, int(seconds * 1e9) + 1)
        for job in self.jobs.values():
            due = min(due, job.slow_at or NEVER)
        return due

    def fall_silent(self, epoch: int) -> list[Order]:
        """The caller has taken the floor: what was to be said under an older epoch is void."""
        cancels = self.silence()
        self.epoch = epoch
        self.ends.clear()
        self.hang_up = ""
        self.hang_up_by = 0
        self.protected_by = 0
        self.call.busy.at = 0
        return cancels

    def silence(self) -> list[Order]:
        """Nothing of what was to be said is wanted any more; whom to tell."""
        voices = sorted(self.using | {one.voice for one in self.owed})
        cancels = [self._cancel(voice) for voice in voices]
        self.queue.clear()
        self.owed.clear()
        self.telling = Telling()
        self.buffered = 0
        return cancels

    def play(self, epoch: int, audio: bytes) -> None:
        """Ready-made audio, and the end of what is said."""
        self.buffered += len(audio)
        self.queue.append(Ending(Telling(), epoch, 0, over=True, audio=bytearray(audio)))

    # -- from the conversation ------------------------------------------------------------------

    def say(self, order: talk.Say, guard: int) -> None:
        """One more clause. `guard`: the job that must let it pass; 0: none."""
        if self.telling.closed:
            self.telling = Telling()
        self.queue.append(Clause(self.telling, order.epoch, order.clause, order.text, guard))

    def end(self, order: talk.EndOfReply) -> None:
        """The telling is complete."""
        self.telling.closed = True
        self.queue.append(Ending(self.telling, order.epoch, order.clause))

    def passed(self, number: int) -> None:
        """The guard lets the clause be heard."""
        for one in self.queue:
            if isinstance(one, Clause) and one.number == number:
                one.guard = 0

    def drop(self, number: int) -> tuple[list[Clause], list[Order]]:
        """Let nothing be heard of a clause and of all that was said after it.

        Returns the clauses that went, and what the voices are told: one that has nothing else to
        do begins anew, so that no sound of theirs hangs over into what comes instead.
        """
        gone = [one for one in self.queue if one.number >= number]
        self.queue = deque(one for one in self.queue if one.number < number)
        self.buffered -= sum(len(one.audio) - one.at for one in gone)
        if not gone:
            return [], []
        self.telling = gone[0].telling
        self.telling.closed = False
        for one in gone:
            if isinstance(one, Ending) and one.telling is self.telling and one.voice >= 0:
                self.telling = Telling()  # its context is closed already
        cancels: list[Order] = []
        for voice in sorted({one.voice for one in gone} - {-1}):
            if not any(one.voice == voice and one.number < number for one in self.owed):
                cancels.append(self._cancel(voice))
                self.owed = [one for one in self.owed if one.voice != voice]
                self.telling.asked = False
        return [one for one in gone if isinstance(one, Clause)], cancels

    # -- the voices -----------------------------------------------------------------------------

    def due_speech(self) -> list[Order]:
        """What the voices may be asked for now; it counts as asked for."""
        orders: list[Order] = []
        for one in self.queue:
            if isinstance(one, Ending):
                if one.voice < 0 and not one.over:
                    if not self._voice_settled(one.telling):
                        break  # the last clause may still go to another voice
                    if one.telling.asked:
                        orders.append(self._ask_tail(one))
                    else:
                        one.over = True
            elif one.again:
                break  # it comes first
            elif one.voice < 0:
                if self.with_voice >= AHEAD_CLAUSES or self.buffered >= AHEAD_BYTES:
                    break
                orders.append(self._ask(one))
        return orders

    def _voice_settled(self, telling: Telling) -> bool:
        if telling.voice == self.voices - 1:
            return True
        return all(
            one.over or one.audio
            for one in self.queue
            if isinstance(one, Clause) and one.telling is telling
        )

    def _ask(self, clause: Clause) -> Order:
        voice = clause.voice = clause.telling.voice
        clause.again, clause.over = False, False
        clause.telling.asked = True
        self.owed.append(clause)
        self.using.add(voice)
        slot, generation = self.call.slot, self.generation
        return voice, Speak(slot, generation, clause.epoch, clause.number, clause.text)

    def _ask_tail(self, ending: Ending) -> Order:
        voice = ending.voice = ending.telling.voice
        self.owed.append(ending)
        self.using.discard(voice)
        slot, generation = self.call.slot, self.generation
        return voice, EndOfSpeech(slot, generation, ending.epoch, ending.number)

    def _cancel(self, voice: int) -> Order:
        self.using.discard(voice)
        return voice, CancelSpeech(self.call.slot, self.generation, self.epoch)

    def answered(self, number: int, *, ended: bool) -> Clause | Ending | None:
        """What a voice answers, if it is still waited for."""
        kind = Ending if ended else Clause
        for one in self.owed:
            if one.number == number and isinstance(one, kind):
                return one
        return None

    def wants(self, one: Clause | Ending) -> bool:
        """Is what a voice says of it still to be heard, from that voice?"""
        return one in self.queue and not (isinstance(one, Clause) and one.again)

    def add(self, one: Clause | Ending, audio: bytes) -> None:
        """Audio from a voice, to be pushed when it is its turn and there is room."""
        one.audio += audio
        self.buffered += len(audio)

    def complete(self, one: Clause | Ending) -> list[Order]:
        """The voice's last word on it. Returns whom to ask next when that was not wanted."""
        self.owed.remove(one)
        one.over = True
        if isinstance(one, Clause) and one.again and one in self.queue:
            return [self._ask(one), *self._leave()]
        return self._leave()

    def fail(self, clause: Clause) -> list[Order] | None:
        """The voice will not speak it, and no audio of it came: whom to ask next. None: nobody
        is left. What the voice said beyond it, and nobody heard, is asked for again as well."""
        telling = clause.telling
        self.owed.remove(clause)
        if clause not in self.queue:
            return []
        if clause.voice == self.voices - 1:
            clause.over = True
            return None
        telling.voice = max(telling.voice, clause.voice + 1)
        orders = [self._ask(clause)]
        for one in self.queue:
            if not isinstance(one, Clause) or one.telling is not telling:
                continue
            if 0 <= one.voice < telling.voice and one.number > clause.number:
                self.buffered -= len(one.audio)
                one.audio.clear()
                one.again = True
                if one not in self.owed:
                    orders.append(self._ask(one))
        return [*orders, *self._leave()]

    def _leave(self) -> list[Order]:
        """Let go of the voices that the telling has left behind, once they owe nothing."""
        left = [voice for voice in sorted(self.using) if voice < self.telling.voice]
        return [
            self._cancel(voice) for voice in left if all(one.voice != voice for one in self.owed)
        ]

    # -- to the ring ----------------------------------------------------------------------------

    def fill(self, now: int) -> bool:
        """Push frames while there is room; what does not fit waits, it is never dropped.

        True when the end of a telling was pushed.
        """
        ended = False
        while self.queue:
            head = self.queue[0]
            if isinstance(head, Clause):
                if head.guard or not self._push(head, END_OF_CLAUSE):
                    break
            else:
                head.by = head.by or now + TAIL_CAP_NS
                if not head.over and now >= head.by:
                    head.over = True
                    self.owed = [one for one in self.owed if one is not head]
                if not self._push(head, 0) or not self.call.outgoing.room():
                    break
                ring, generation = self.call.outgoing, self.generation
                ring.push(generation, head.epoch, head.number, END_OF_REPLY, 0, b"")
                self.ends.append(head.number)
                ended = True
            self.queue.popleft()
        return ended

    def _push(self, one: Clause | Ending, last: int) -> bool:
        """As much as there is, and room for. True when it is done.

        The last frame, which bears the flag `last`, waits until it is known to be the last.
        """
        ring, size = self.call.outgoing, len(one.audio)
        while one.at < size and (one.over or one.at + FRAME < size):
            if not ring.room():
                return False
            frame = bytes(one.audio[one.at : one.at + FRAME])
            after = one.at + len(frame)
            flags = last if after >= size else 0
            ring.push(self.generation, one.epoch, one.number, flags, 0, frame)
            one.at = after
            self.buffered -= len(frame)
        return one.over
