"""One call's conversation: facts in, orders out.

Theory of operation
    The caller owns the floor from `TookFloor` to the `TurnEnded` of the same epoch. Taking it
    voids what the agent was asking or saying; ending the turn obliges the agent to answer, in
    one of these ways:

        words                        answer them, with what went unanswered before them
        no words, fresh words left   answer those (they came while the caller went on speaking)
        no words, reply cut off      say again what was not heard of it
        no words, tools at work      "One moment": their results are still wanted
        no words, reply unfinished   ask the model again, from where the caller stopped hearing
        no words, nothing owed       "Sorry, go on."
        recogniser failed            "Sorry, I didn't catch that."

    Keys are a turn that takes no floor: their answer follows what is being said, or waits for
    the words of a caller who is speaking.

    What was heard is the ledger's business alone; the history reads it there each time. An
    answer of a local brain of which nothing was heard is taken back: its words and the next ones
    are answered together, from the state before them. A model that fails before it said anything
    is stood in for by the brain's fallback, which is treated in the same way.

    A model may be asked *early* (asking.py), may want tools run before it goes on (one reply, as
    many requests as there are rounds of tools), and may be spoken for when it takes long. What a
    tool gives back to a reply that is no more is entered in the history and not spoken.

The clauses themselves, their numbers, guards and endings, are in telling.py.
"""

from __future__ import annotations

from typing import Any

from ..talking.clauses import clauses_of
from . import events as talk
from .asking import Asking
from .brain import LocalBrain, RemoteBrain
from .history import History, Message
from .phrases import FAILED, FILLERS, GO_ON, GOODBYE, NO_ANSWER, NOT_CAUGHT, NUDGES, PARTING
from .telling import Reply, Telling
from .tooling import Toolbox
from .tools import NOT_ENDED


class Conversation:
    """The state of one call. One thread's; `handle` never raises, whatever comes in what order.

    Args:
        brain: decides what to say.
        epoch: the slot's epoch when the call begins.
    """

    __slots__ = (
        *("_answers", "_asking", "_before", "_floor", "_fresh"),
        *("_greeting", "_history", "_local", "_model", "_out", "_over"),
        *("_replied", "_start", "_state", "_telling", "_tools", "_words"),
    )

    def __init__(self, brain: LocalBrain[Any] | RemoteBrain, epoch: int = 0) -> None:
        self._start = epoch
        self._greeting = brain.greeting
        self._out: list[talk.Output] = []
        self._asking = Asking(self._out)
        self._telling = Telling(epoch, self._out)
        self._history = History(self._telling.ledger)
        self._model = brain if isinstance(brain, RemoteBrain) else None
        self._local = brain.fallback if isinstance(brain, RemoteBrain) else brain
        self._tools = Toolbox(self._model.tools if self._model is not None else (), self._out)
        self._state: object = self._local.begin() if self._local is not None else None
        self._before = self._state  # the state before `_words`
        self._words: list[str] = []  # since the last answer of which anything was heard
        self._answers: list[Reply] = []  # given to `_words`
        self._fresh = False  # the last of `_words` came after the last answer was begun
        self._floor = False  # the caller has it
        self._over = False
        self._replied = -1  # the epoch of the latest reply

    @property
    def epoch(self) -> int:
        """How often the caller has taken the floor."""
        return self._telling.epoch

    @property
    def state(self) -> object:
        """The local brain's or fallback's state (a booking, say); None: there is neither."""
        return self._state

    @property
    def asking(self) -> bool:
        """A request to the model is under way, early or not."""
        return self._asking.ask != 0

    @property
    def working(self) -> bool:
        """More of the answer will come: a request or a tool for it is under way."""
        reply = self._telling.reply
        return not self._floor and (self.asking or (bool(reply.jobs) and not reply.complete))

    @property
    def early_hits(self) -> int:
        """Early requests whose turn ended as they had guessed."""
        return self._asking.hits

    @property
    def early_wasted(self) -> int:
        """Early requests of which nothing was used."""
        return self._asking.wasted

    def heard(self, clause: int) -> str:
        """What the caller heard of that clause, as far as it is known."""
        return self._telling.ledger.text(clause)

    def transcript(self) -> list[Message]:
        """The talk so far as the caller heard it."""
        return self._history.transcript()

    def handle(self, event: talk.Input) -> list[talk.Output]:
        """Take one fact; the orders it leads to, to be carried out in order."""
        if self._over:
            return []
        match event:
            case talk.Answered():
                self._greet()
            case talk.TookFloor(epoch):
                self._yield_floor(epoch)
            case talk.Partial(epoch, text):
                self._partial(epoch, text.strip())
            case talk.TurnEnded(epoch, text):
                self._turn_ended(epoch, text)
            case talk.Keyed(digits) if digits.strip():
                self._keyed(digits.strip())
            case talk.Quiet(_, last):
                self._nudge(last)
            case talk.ClauseSpoken(clause, duration_ms, words):
                self._telling.ledger.spoken(clause, duration_ms, words)
            case talk.ClauseHeard(epoch, clause):
                self._telling.ledger.heard(epoch, clause)
            case talk.Cut(epoch, clause, played_ms):
                self._telling.ledger.cut(epoch, clause, played_ms)
                self._guess_again()
            case talk.SpeechFailed(epoch, clause):
                self._telling.failed(epoch, clause)
            case talk.Guarded(clause, text, stop):
                self._guarded(clause, text, stop=stop)
            case talk.CallEnded():
                self._asking.cancel()
                self._over = True
            case _:
                self._from_model(event)
        out = self._out[:]
        self._out.clear()
        return out

    def _from_model(self, event: talk.Input) -> None:
        """What comes of a request, unless it is one that is no more; and of its tools."""
        current = self._asking.current
        match event:
            case talk.Delta(ask, text) if current(ask):
                self._say(self._asking.delta(text))
            case talk.ToolsWanted(ask, calls) if current(ask) and calls:
                clauses, calls = self._asking.wants(calls)
                self._say(clauses)
                self._tools.run(self._telling.reply, calls)
            case talk.AskDone(ask) if current(ask):
                early = self._asking.guess is not None
                self._say(self._asking.done())
                if not early:
                    self._answered()
            case talk.AskFailed(ask, _) if current(ask):
                if self._asking.failed():
                    self._no_answer()
            case talk.ToolDone(job, result, error):
                self._tool_done(job, result, error)
            case talk.ToolSlow(job):
                if self._tools.reply_of(job) is self._telling.reply and self._live():
                    self._fill()

    # --- the floor --------------------------------------------------------------------------

    def _greet(self) -> None:
        first = self._replied < 0 and self.epoch == self._start
        if first and self._greeting.strip():
            self._begin()
            self._say(clauses_of(self._greeting))
            self._telling.finish(self._telling.reply)

    def _yield_floor(self, epoch: int) -> None:
        if epoch <= self.epoch:
            return
        self._asking.cancel()
        self._telling.void(epoch)
        self._floor = True
        if (ending := self._telling.reply.ending) is not None:
            ending[0].results[ending[1]] = NOT_ENDED

    def _partial(self, epoch: int, words: str) -> None:
        self._yield_floor(epoch)  # in case the words overtook the news of them
        if epoch == self.epoch and self._floor:
            self._guess(words)

    def _turn_ended(self, epoch: int, text: str | None) -> None:
        self._yield_floor(epoch)
        words = (text or "").strip()
        if words:
            self._keep(words)
        if epoch < self.epoch and self._floor:
            self._guess_again()  # the caller has gone on speaking: answered with what comes
            return
        if not words and not self._floor and self._replied == self.epoch:
            return  # an echo of a turn that has its answer
        self._floor = False
        if words:
            if not self._telling.reply.complete and self._live():
                self._telling.end()  # that answer is given up
            self._answer()
        elif text is None:
            self._asking.cancel()
            self._remark(NOT_CAUGHT)
        else:
            self._pick_up()

    def _keyed(self, digits: str) -> None:
        self._keep(f"(keyed {digits})")
        reply = self._telling.reply
        if self._floor:
            self._guess_again()
        elif reply.complete or not self._live() or not (reply.answer or reply.again):
            self._answer()
        # else: they are answered with the tools' results, or when this answer is complete

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
        return any(map(self._telling.reached, self._answers))

    def _nudge(self, last: bool) -> None:
        if self._floor or self.working or (self._telling.reply.hang_up and self._live()):
            return
        self._remark(PARTING if last else NUDGES, hang_up=last)

    # --- answering --------------------------------------------------------------------------

    def _answer(self) -> None:
        """Answer `_words`."""
        self._fresh = False
        brain = self._model
        if brain is None:
            self._answers.append(self._begin())
            self._answer_locally()
            return
        self._state = self._before  # a fallback's answer to these words was not heard
        messages = self._history.prompt(brain.instructions)
        guess = self._asking.confirm(messages)
        self._answers.append(self._begin())
        if guess is None:
            self._asking.start(messages, brain.tools)
            return
        self._say(guess.clauses)
        self._tools.run(self._telling.reply, tuple(guess.calls))
        if guess.done:
            self._answered()

    def _answer_locally(self) -> None:
        assert self._local is not None, "it is the brain, or the fallback"
        reply = self._telling.reply
        self._state, answer = self._local.answer(self._before, " ".join(self._words))
        reply.hang_up = reply.hang_up or answer.hang_up
        self._say(clauses_of(answer.text))
        self._telling.finish(reply)

    def _guess(self, words: str) -> None:
        """The turn may end with these words: ask for their answer, if that was not done yet."""
        brain = self._model
        if brain is None or not brain.speculate:
            return
        if not words:
            self._asking.cancel()
            return
        messages = self._history.prompt(brain.instructions, words)
        if not self._asking.guessed(messages):
            self._asking.start_early(words, messages, brain.tools)

    def _guess_again(self) -> None:
        """The talk before the guessed words may have changed."""
        if self._asking.guess is not None:
            self._guess(self._asking.guess.words)

    def _pick_up(self) -> None:
        """The caller took the floor and said nothing: the agent goes on."""
        if self._fresh:
            self._answer()
            return
        self._asking.cancel()
        reply = self._telling.reply
        self._replied = self.epoch
        if self._telling.again(reply):
            return
        if reply.jobs and not reply.complete:
            reply.filled = False
            self._fill()
        elif self._words and not (reply.complete and self._reached()):
            self._answer()
        else:
            self._remark(GO_ON)

    def _remark(self, choices: tuple[str, ...], *, hang_up: bool = False) -> None:
        """Say something that no brain was asked for."""
        reply = self._begin()
        reply.hang_up = reply.hang_up or hang_up
        self._telling.excuse(reply, choices)
        self._telling.finish(reply)

    def _begin(self) -> Reply:
        self._replied = self.epoch
        return self._telling.begin(self._history.agent_says())

    def _live(self) -> bool:
        """The latest reply has not been interrupted."""
        return not self._floor and self._replied == self.epoch

    def _say(self, clauses: list[str]) -> None:
        """More of the brain's answer."""
        self._telling.say(self._telling.reply, clauses, guard=True)

    # --- what comes of a request --------------------------------------------------------------

    def _answered(self) -> None:
        """The model's answer is complete; tools may have to be waited for."""
        reply = self._telling.reply
        if reply.again:
            self._telling.end()
            self._next_round()
            return
        said = reply.answer if reply.hang_up else reply.entry.clauses
        if reply.given_up or not said:
            self._telling.excuse(reply, GOODBYE if reply.hang_up else NO_ANSWER)
        self._conclude(reply)

    def _no_answer(self) -> None:
        reply = self._telling.reply
        if reply.again:  # what it wanted to know first is being found out
            self._answered()
        elif self._local is not None and not reply.answer:
            self._answer_locally()
        else:
            self._telling.excuse(reply, FAILED)
            self._conclude(reply)

    def _conclude(self, reply: Reply) -> None:
        self._telling.finish(reply)
        if self._fresh and not reply.hang_up:
            self._answer()  # keys that came meanwhile

    def _guarded(self, clause: int, text: str, *, stop: bool) -> None:
        reply = self._telling.guarded(clause)
        if reply is None:
            return
        stopped = stop and reply is self._telling.reply
        if stopped:
            self._asking.cancel()
        self._telling.replace(clause, text, stop=stop)
        if stopped and self._fresh and not reply.hang_up:
            self._answer()

    # --- tools ------------------------------------------------------------------------------

    def _tool_done(self, job: int, result: str, error: str) -> None:
        reply = self._tools.done(job, result, error)
        if reply is self._telling.reply and self._live():
            self._next_round()
        self._guess_again()

    def _next_round(self) -> None:
        """Ask the model to go on, once it has asked for all it wants, and all has come."""
        reply = self._telling.reply
        if self.asking or reply.jobs or reply.complete or not reply.again:
            return
        brain = self._model
        assert brain is not None, "only models want tools"
        reply.again = reply.filled = False
        reply.entry = self._history.agent_says()
        if self._fresh:  # keys that came meanwhile are answered with it
            self._answers.append(reply)
            self._fresh = False
        self._asking.start(self._history.prompt(brain.instructions), brain.tools)

    def _fill(self) -> None:
        """Bridge the wait for a tool, once; not while there is something to be heard."""
        reply = self._telling.reply
        if not (reply.complete or reply.filled or self._telling.coming):
            reply.filled = True
            self._telling.excuse(reply, FILLERS, filler=True)
            self._telling.end()
