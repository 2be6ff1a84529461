"""What the agent says in one call: clauses, their numbers, and what becomes of them.

A *reply* is what the agent says in one go. All that is said in one epoch goes out in the order of
the clauses' numbers, one reply after another; an interruption makes all of it void.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..talking.heard import Fate, Ledger
from .events import Drop, EndOfReply, HangUp, Output, Say
from .history import Entry
from .phrases import NO_ANSWER, UNSPOKEN, Variety

_UNHEARD = (Fate.VOID, Fate.LOST, Fate.CUT)
_REACHED = (Fate.SAID, Fate.HEARD, Fate.CUT)
_SETTLED_FOR_GOOD = (Fate.HEARD, Fate.FAILED, Fate.DROPPED)  # no mark of theirs will come


@dataclass(slots=True)
class Reply:
    """What the agent says in one go, maybe with tools run in between."""

    entry: Entry  # where its clauses are entered now
    clauses: dict[int, bool] = field(default_factory=dict)  # of its latest telling: guard it?
    answer: list[int] = field(default_factory=list)  # of all its tellings, but no filler
    complete: bool = False  # its whole text is known
    hang_up: bool = False
    ending: tuple[Entry, int] | None = None  # whose result says that the call will end
    excused: bool = False  # we have said already that it could not be spoken
    # Tools:
    rounds: int = 0
    jobs: set[int] = field(default_factory=set)  # running
    again: bool = False  # the model is to be asked again once they have answered
    given_up: bool = False  # it wants more rounds than it may have
    filled: bool = False  # this wait has had its filler


@dataclass(frozen=True, slots=True)
class _Told:
    reply: Reply
    guard: bool
    filler: bool


class Telling:
    """See the module. Its orders go to ``out``; the latest reply is ``reply``."""

    __slots__ = (
        "_count",
        "_ended",
        "_last",
        "_line",
        "_out",
        "epoch",
        "ledger",
        "reply",
        "variety",
    )

    def __init__(self, epoch: int, out: list[Output]) -> None:
        self.epoch = epoch
        self.ledger = Ledger()
        self.reply = Reply(Entry(), complete=True)
        self.variety = Variety()
        self._out = out
        self._count = 0
        self._line: dict[int, _Told] = {}  # said in this epoch, by number
        self._last = 0  # the clause that goes out last; 0: none in this epoch
        self._ended = 0  # the clause that silence is known to follow

    def void(self, epoch: int) -> None:
        """The caller took the floor: what was said before ``epoch`` will not be heard."""
        self.epoch = epoch
        self.ledger.void(epoch)
        self._line.clear()
        self._last = self._ended = 0

    def begin(self, entry: Entry) -> Reply:
        """A new reply. The end of the call, where it is due, stays due after it."""
        leaving = self.reply.hang_up and self.reply.complete and bool(self._line)
        self._line = {n: told for n, told in self._line.items() if self._coming(n)}
        self.reply = Reply(entry, hang_up=leaving)
        return self.reply

    def say(self, reply: Reply, texts: Iterable[str], *, guard: bool, filler: bool = False) -> None:
        """Say these after all that was said; blank ones are left out."""
        for text in filter(None, map(str.strip, texts)):
            self._count += 1
            clause = self._last = self._count
            self._line[clause] = _Told(reply, guard, filler)
            reply.entry.clauses.append(clause)
            if not filler:
                reply.clauses[clause] = guard
                reply.answer.append(clause)
            self.ledger.said(self.epoch, clause, text)
            self._out.append(Say(self.epoch, clause, text, filler, guard))

    def excuse(self, reply: Reply, choices: tuple[str, ...], *, filler: bool = False) -> None:
        """Say the next of several wordings of our own."""
        self.say(reply, [self.variety.next(choices)], guard=False, filler=filler)

    def end(self) -> None:
        """Silence is intended after what was said last."""
        if self._last != self._ended:
            self._ended = self._last
            self._out.append(EndOfReply(self.epoch, self._last))

    def finish(self, reply: Reply) -> None:
        """The whole text of it has been said."""
        reply.complete = True
        self.end()
        self._conclude(reply, UNSPOKEN)

    def again(self, reply: Reply) -> bool:
        """Say what was not heard of a complete reply; False: it was heard to its end."""
        guards = reply.clauses
        unheard = [n for n in guards if self.ledger.fate(n) in _UNHEARD]
        if not reply.complete or not unheard:
            return False
        reply.clauses = {}
        for n in unheard:
            self.say(reply, [self.ledger.said_text(n)], guard=guards[n])
        self.finish(reply)
        return True

    def reached(self, reply: Reply) -> bool:
        """Has the caller heard, or will he hear, anything of it? A filler does not count."""
        return any(self.ledger.fate(n) in _REACHED for n in reply.answer)

    @property
    def coming(self) -> bool:
        """Something that was said is not known to be heard yet."""
        return any(map(self._coming, self._line))

    def _coming(self, clause: int) -> bool:
        return self.ledger.fate(clause) is Fate.SAID

    # --- clauses that are not heard -----------------------------------------------------------

    def failed(self, epoch: int, clause: int) -> None:
        """The voice could not speak it."""
        if not self.ledger.failed(epoch, clause) or epoch != self.epoch:
            return
        reply = self.reply
        if reply.complete and clause in reply.clauses:
            self._conclude(reply, UNSPOKEN, only_after=clause)

    def guarded(self, clause: int) -> Reply | None:
        """Whose clause a guard has stopped; None: it is ours, or void, or heard already."""
        told = self._line.get(clause)
        fate = self.ledger.fate(clause)
        if told is None or not told.guard or fate not in (Fate.SAID, Fate.FAILED):
            return None
        return told.reply

    def replace(self, clause: int, text: str, *, stop: bool) -> None:
        """Say ``text`` instead of a clause that is `guarded`, and again what came after it.

        ``stop``: but nothing more of that reply.
        """
        fault = self._line[clause].reply
        later = [n for n in self._line if n > clause and self._coming(n)]
        at_rest = self._ended == self._last
        self._out.append(Drop(self.epoch, clause))
        self.ledger.drop(self.epoch, clause)
        for n in (clause, *later):
            self._line[n].reply.clauses.pop(n, None)
        gone = (Fate.DROPPED, Fate.FAILED)
        kept = (n for n in self._line if n < clause and self.ledger.fate(n) not in gone)
        self._last, self._ended = max(kept, default=0), 0
        self.say(fault, [text], guard=False)
        for n in later:
            told = self._line[n]
            if not told.filler and not (stop and told.reply is fault):
                self.say(told.reply, [self.ledger.said_text(n)], guard=told.guard)
        fault.complete = fault.complete or stop
        if at_rest or self.reply.complete:
            self.end()
        if self.reply.complete:
            self._conclude(self.reply, NO_ANSWER)

    def _conclude(
        self, reply: Reply, excuses: tuple[str, ...], only_after: int | None = None
    ) -> None:
        """The end of a complete reply: hang up after it; or, if it stays wholly silent, one more
        try, in words the voice knows. ``only_after``: the clause that has failed just now."""
        if reply.hang_up:
            awaited = (n for n in self._line if self.ledger.fate(n) not in _SETTLED_FOR_GOOD)
            last = max(awaited, default=0)
            if only_after is None or last < only_after:
                self._out.append(HangUp(self.epoch, last))
        elif not reply.excused and not any(map(self._audible, reply.clauses)):
            reply.excused = True
            self.excuse(reply, excuses)
            self.end()

    def _audible(self, clause: int) -> bool:
        return self.ledger.fate(clause) is not Fate.FAILED
