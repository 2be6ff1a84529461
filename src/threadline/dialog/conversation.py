"""One call's conversation: facts in, orders out.

Theory of operation
    The caller owns the floor from `TookFloor` to the `TurnEnded` of the same epoch. Taking it
    voids what the agent was asking or saying; ending the turn obliges the agent to answer, in
    one of these ways:

        words                        answer them, with what went unanswered before them
        no words, fresh words left   answer those (they came while the caller went on speaking)
        no words, reply cut off      say again what was not heard of it
        no words, reply unfinished   ask the model again, from where the caller stopped hearing
        no words, nothing owed       "Sorry, go on."
        recogniser failed            "Sorry, I didn't catch that."

    What was heard is the ledger's business alone; the history reads it there each time. An
    answer of a local brain of which nothing was heard is taken back: its words and the next ones
    are answered together, from the state before them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..talking.clauses import ClauseCutter
from ..talking.heard import Fate, Ledger
from .brain import LocalBrain, RemoteBrain
from .events import (
    Answered,
    Ask,
    AskDone,
    AskFailed,
    CallEnded,
    CancelAsk,
    ClauseHeard,
    ClauseSpoken,
    Cut,
    Delta,
    EndOfReply,
    HangUp,
    Input,
    Output,
    Say,
    SpeechFailed,
    TookFloor,
    TurnEnded,
)
from .history import Entry, History, Message

NOT_CAUGHT = (
    "Sorry, I didn't catch that. Could you say it again?",
    "I'm sorry, I missed that. Could you repeat it?",
)
GO_ON = ("Sorry, go on.", "Yes, I'm listening.", "Please, go ahead.")
NO_ANSWER = (
    "Sorry, I don't have an answer to that. Could you put it another way?",
    "I'm afraid I don't know. Could you ask me differently?",
)
FAILED = (
    "Sorry, something went wrong on my side. Could you say that again?",
    "I'm sorry, I still have a technical problem. Could you try once more?",
)
UNSPOKEN = ("Sorry, something went wrong. Could you say that again?",)
CARRY_ON = "(The caller made a sound but said nothing. Go on from where you stopped.)"

_UNHEARD = (Fate.VOID, Fate.LOST, Fate.CUT)
_REACHED = (Fate.SAID, Fate.HEARD, Fate.CUT)


@dataclass(slots=True)
class _Reply:
    """What the agent says in one go."""

    entry: Entry
    clauses: list[int] = field(default_factory=list)  # of its latest telling
    complete: bool = False  # its whole text is known
    hang_up: bool = False
    excused: bool = False  # we have said already that it could not be spoken


class Conversation:
    """The state of one call. One thread's; `handle` never raises, whatever comes in what order.

    Args:
        brain: decides what to say.
        epoch: the slot's epoch when the call begins.
    """

    __slots__ = (
        "_answers",
        "_ask",
        "_asks",
        "_before",
        "_brain",
        "_clauses",
        "_cutter",
        "_excuses",
        "_floor",
        "_fresh",
        "_greeted",
        "_history",
        "_ledger",
        "_out",
        "_over",
        "_replied",
        "_reply",
        "_start",
        "_state",
        "_words",
        "epoch",
    )

    def __init__(self, brain: LocalBrain[Any] | RemoteBrain, epoch: int = 0) -> None:
        self.epoch = epoch
        self._start = epoch
        self._brain = brain
        self._ledger = Ledger()
        self._history = History(self._ledger)
        self._state: object = None if isinstance(brain, RemoteBrain) else brain.begin()
        self._before = self._state  # the state before `_words`
        self._words: list[str] = []  # since the last answer of which anything was heard
        self._answers: list[Entry] = []  # given to `_words`
        self._fresh = False  # the last of `_words` came after the last answer was begun
        self._floor = False  # the caller has it
        self._greeted = False
        self._over = False
        self._reply = _Reply(Entry(), complete=True)  # the latest
        self._replied = -1  # its epoch
        self._cutter = ClauseCutter()
        self._ask = 0  # the request under way; 0: none
        self._asks = 0
        self._clauses = 0
        self._excuses: dict[tuple[str, ...], int] = {}  # how often each was used
        self._out: list[Output] = []

    @property
    def state(self) -> object:
        """The local brain's state (a scripted brain keeps its booking there); None: remote."""
        return self._state

    @property
    def asking(self) -> bool:
        """A request to the model is under way."""
        return self._ask != 0

    def transcript(self) -> list[Message]:
        """The talk so far as the caller heard it."""
        return self._history.messages()

    def handle(self, event: Input) -> list[Output]:
        """Take one fact; the orders it leads to, to be carried out in order."""
        if self._over:
            return []
        match event:
            case Answered():
                self._greet()
            case TookFloor(epoch):
                self._yield_floor(epoch)
            case TurnEnded(epoch, text):
                self._turn_ended(epoch, text)
            case Delta(ask, text) if self._current(ask):
                self._say(self._reply, self._cutter.feed(text))
            case AskDone(ask) if self._current(ask):
                self._say(self._reply, self._cutter.finish())
                if not self._reply.clauses:
                    self._say(self._reply, [self._excuse(NO_ANSWER)])
                self._complete(self._reply)
            case AskFailed(ask, _) if self._current(ask):
                self._say(self._reply, [self._excuse(FAILED)])
                self._complete(self._reply)
            case ClauseSpoken(clause, duration_ms):
                self._ledger.spoken(clause, duration_ms)
            case ClauseHeard(epoch, clause):
                self._ledger.heard(epoch, clause)
            case Cut(epoch, clause, played_ms):
                self._ledger.cut(epoch, clause, played_ms)
            case SpeechFailed(epoch, clause):
                self._speech_failed(epoch, clause)
            case CallEnded():
                self._cancel()
                self._over = True
            case _:
                pass  # of a request that is no more
        out, self._out = self._out, []
        return out

    def _current(self, ask: int) -> bool:
        return ask == self._ask != 0

    # --- the floor --------------------------------------------------------------------------

    def _greet(self) -> None:
        first = not self._greeted and not self._floor and self.epoch == self._start
        self._greeted = True
        if first and self._replied < 0 and self._brain.greeting.strip():
            self._tell(self._cut(self._brain.greeting))

    def _yield_floor(self, epoch: int) -> None:
        if epoch <= self.epoch:
            return
        self._cancel()
        self.epoch = epoch
        self._floor = True
        self._ledger.void(epoch)

    def _turn_ended(self, epoch: int, text: str | None) -> None:
        self._yield_floor(epoch)  # in case the words overtook the news of them
        words = (text or "").strip()
        if words:
            self._keep(words)
        if epoch < self.epoch and self._floor:
            return  # the caller has gone on speaking: answered with what comes
        if not words and not self._floor and self._replied == self.epoch:
            return  # an echo of a turn that has its answer
        self._floor = False
        if words:
            if self._ask and self._reply.clauses:
                self._out.append(EndOfReply(self.epoch, self._reply.clauses[-1]))
            self._cancel()
            self._answer()
        elif text is None:
            self._tell([self._excuse(NOT_CAUGHT)])
        else:
            self._pick_up()

    def _keep(self, words: str) -> None:
        if self._words and self._reached():
            self._words, self._answers = [], []
        if not self._words:
            self._before = self._state
        self._words.append(words)
        self._fresh = True
        self._history.caller_said(words)

    def _reached(self) -> bool:
        """Has the caller heard, or will he hear, anything of the answers to `_words`?"""
        clauses = (clause for entry in self._answers for clause in entry.clauses)
        return any(self._ledger.fate(clause) in _REACHED for clause in clauses)

    # --- answering --------------------------------------------------------------------------

    def _answer(self) -> None:
        """Answer `_words`."""
        reply = self._begin()
        self._answers.append(reply.entry)
        self._fresh = False
        if isinstance(self._brain, RemoteBrain):
            self._asks += 1
            self._ask = self._asks
            self._cutter = ClauseCutter()
            self._out.append(Ask(self._ask, self._prompt(self._brain.instructions)))
            return
        self._state, answer = self._brain.answer(self._before, " ".join(self._words))
        reply.hang_up = answer.hang_up
        self._say(reply, self._cut(answer.text))
        self._complete(reply)

    def _prompt(self, instructions: str) -> tuple[Message, ...]:
        talk = self._history.messages()
        if not talk or talk[-1].role != "user":
            talk.append(Message("user", CARRY_ON))
        return (Message("system", instructions), *talk)

    def _pick_up(self) -> None:
        """The caller took the floor and said nothing: the agent goes on."""
        reply = self._reply
        unheard = [clause for clause in reply.clauses if self._ledger.fate(clause) in _UNHEARD]
        if self._fresh:
            self._answer()
        elif reply.complete and unheard:
            reply.clauses = []
            self._replied = self.epoch
            self._say(reply, [self._ledger.said_text(clause) for clause in unheard])
            self._complete(reply)
        elif self._words and not (reply.complete and self._reached()):
            self._answer()
        else:
            self._tell([self._excuse(GO_ON)])

    def _tell(self, texts: list[str]) -> None:
        """Say something that no brain was asked for."""
        reply = self._begin()
        self._say(reply, texts)
        self._complete(reply)

    def _begin(self) -> _Reply:
        self._reply = _Reply(self._history.agent_says())
        self._replied = self.epoch
        return self._reply

    def _say(self, reply: _Reply, texts: list[str]) -> None:
        for text in texts:
            if not text.strip():
                continue
            self._clauses += 1
            reply.entry.clauses.append(self._clauses)
            reply.clauses.append(self._clauses)
            self._ledger.said(self.epoch, self._clauses, text.strip())
            self._out.append(Say(self.epoch, self._clauses, text.strip()))

    def _complete(self, reply: _Reply) -> None:
        self._ask = 0
        reply.complete = True
        if reply.clauses:
            self._out.append(EndOfReply(self.epoch, reply.clauses[-1]))
        if reply.hang_up:
            self._out.append(HangUp(self.epoch, self._last_audible(reply)))
        else:
            self._excuse_silence(reply)

    def _cancel(self) -> None:
        """Stop the request under way; its reply stays incomplete."""
        if not self._ask:
            return
        self._out.append(CancelAsk(self._ask))
        self._ask = 0

    # --- a voice that fails -----------------------------------------------------------------

    def _speech_failed(self, epoch: int, clause: int) -> None:
        reply = self._reply
        if not self._ledger.failed(epoch, clause) or epoch != self.epoch:
            return
        if not reply.complete or clause not in reply.clauses:
            return
        if not reply.hang_up:
            self._excuse_silence(reply)
        elif (last := self._last_audible(reply)) < clause:
            self._out.append(HangUp(self.epoch, last))

    def _excuse_silence(self, reply: _Reply) -> None:
        """A reply that stays wholly silent gets one more try, in words the voice knows."""
        if not reply.excused and not any(self._audible(clause) for clause in reply.clauses):
            reply.excused = True
            self._say(reply, list(UNSPOKEN))
            self._out.append(EndOfReply(self.epoch, reply.clauses[-1]))

    def _audible(self, clause: int) -> bool:
        return self._ledger.fate(clause) is not Fate.FAILED

    def _last_audible(self, reply: _Reply) -> int:
        return max((c for c in reply.clauses if self._audible(c)), default=0)

    def _excuse(self, choices: tuple[str, ...]) -> str:
        """The next of several ways to say it, so that no caller hears a loop."""
        used = self._excuses.get(choices, 0)
        self._excuses[choices] = used + 1
        return choices[used % len(choices)]

    @staticmethod
    def _cut(text: str) -> list[str]:
        cutter = ClauseCutter()
        return [*cutter.feed(text), *cutter.finish()]
