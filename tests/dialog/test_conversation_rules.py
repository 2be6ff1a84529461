"""Any facts in any order, stale and foreign ones too: what no call may ever break.

1. `handle` does not raise.
2. Clause and ask numbers rise by one; a clause is said in the epoch of now, and is not blank.
3. Nothing is said for a request that was cancelled or has ended; at most one is under way.
4. A turn that ends while it is the latest is answered at once, by a request or by speech.
5. Heard text: of what was said in an epoch, in order, whole clauses and then at most one part
   of a clause (but for those the voice could not speak).
6. The history tells a remote brain nothing that was not heard, and no two roles in a row.
"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from threadline.dialog.brain import RemoteBrain
from threadline.dialog.conversation import Conversation
from threadline.dialog.events import (
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
from threadline.dialog.scripted import Scripted

WORDS = st.sampled_from(["A table for four.", "Friday at seven", "I'm Anna", "yes", "no", "bye"])
TEXT = st.sampled_from(["Yes, we are. ", "Come at ten, or", " later. ", "Hm", "", "\n"]) | st.text()
OFFSET = st.integers(-2, 2)


class AnyOrder(RuleBasedStateMachine):
    @initialize(remote=st.booleans(), epoch=st.integers(0, 3))
    def begin(self, remote: bool, epoch: int) -> None:
        brain = RemoteBrain("Hello there, dear caller.", "Be brief.") if remote else Scripted()
        self.remote = remote
        self.talk = Conversation(brain, epoch)
        self.epoch = epoch  # the model's own idea of it
        self.floor = False
        self.asks = 0
        self.live = 0  # the request under way
        self.ended = False
        self.said: list[Say] = []
        self.failed: set[int] = set()

    def tell(self, event: Input) -> list[Output]:
        before = self.live
        out = self.talk.handle(event)
        for order in out:
            self.check(order, event)
        if self.ended:
            assert out == []
        if isinstance(event, Delta | AskDone | AskFailed):
            mine = before != 0 and event.ask == before
            assert mine or out == [], "speech for a request that is no more"
            if mine and not isinstance(event, Delta):
                self.live = 0
                assert any(isinstance(order, Say) for order in out) or self.said
                assert any(isinstance(order, EndOfReply) for order in out)
        assert self.talk.asking == (self.live != 0)
        return out

    def check(self, order: Output, event: Input) -> None:
        match order:
            case Say(epoch, clause, text):
                assert epoch == self.epoch
                assert clause == len(self.said) + 1
                assert text.strip()
                assert text == text.strip()
                self.said.append(order)
            case Ask(ask, messages):
                assert self.remote
                assert self.live == 0
                assert ask == self.asks + 1
                self.asks = self.live = ask
                roles = [message.role for message in messages]
                assert roles[0] == "system"
                assert roles[-1] == "user"
                assert all(a != b for a, b in pairwise(roles))
                assert all(message.text.strip() for message in messages)
            case CancelAsk(ask):
                assert ask == self.live != 0
                self.live = 0
            case EndOfReply(epoch, clause):
                assert epoch == self.epoch
                assert 0 < clause <= len(self.said)
            case HangUp(epoch, clause):
                assert epoch == self.epoch
                assert 0 <= clause <= len(self.said)
                assert clause not in self.failed
                assert not self.remote

    @rule()
    def answered(self) -> None:
        self.tell(Answered())

    @rule(step=st.integers(-2, 3))
    def took_floor(self, step: int) -> None:
        epoch = max(0, self.epoch + step)
        if epoch > self.epoch and not self.ended:
            self.epoch, self.floor = epoch, True
        out = self.tell(TookFloor(epoch))
        assert all(isinstance(order, CancelAsk) for order in out)
        assert self.live == 0 or epoch <= self.epoch

    @rule(step=OFFSET, text=WORDS | st.sampled_from(["", " ", None]) | st.text())
    def turn_ended(self, step: int, text: str | None) -> None:
        epoch = max(0, self.epoch + step)
        if self.ended:
            self.tell(TurnEnded(epoch, text))
            return
        if epoch > self.epoch:
            self.epoch, self.floor = epoch, True
        stale = epoch < self.epoch and self.floor
        had_floor, self.floor = self.floor, self.floor and stale
        out = self.tell(TurnEnded(epoch, text))
        if stale:
            assert out == []
        elif had_floor or (text or "").strip():
            assert any(isinstance(order, Ask | Say) for order in out), "not answered"

    @precondition(lambda self: self.asks)
    @rule(text=TEXT)
    def delta(self, text: str) -> None:
        self.tell(Delta(self.asks, text))

    @rule(step=OFFSET, text=TEXT)
    def stale_delta(self, step: int, text: str) -> None:
        self.tell(Delta(self.asks + step, text))

    @rule(step=st.sampled_from([0, 0, 0, -1, 1]))
    def ask_done(self, step: int) -> None:
        self.tell(AskDone(self.asks + step))

    @rule(step=st.sampled_from([0, 0, 0, -1, 1]))
    def ask_failed(self, step: int) -> None:
        self.tell(AskFailed(self.asks + step, "why"))

    def some_clause(self, back: int, step: int) -> tuple[int, int]:
        """Epoch and number of a recent clause, or by `step` of one that never was."""
        if len(self.said) <= back:
            return self.epoch, back
        say = self.said[-1 - back]
        return max(0, say.epoch + step), say.clause

    @rule(back=st.integers(0, 4), ms=st.integers(0, 4000))
    def spoken(self, back: int, ms: int) -> None:
        assert self.tell(ClauseSpoken(self.some_clause(back, 0)[1], ms)) == []

    @rule(back=st.integers(0, 4), step=st.sampled_from([0, 0, 0, -1, 1]))
    def heard(self, back: int, step: int) -> None:
        assert self.tell(ClauseHeard(*self.some_clause(back, step))) == []

    @rule(
        back=st.integers(0, 4),
        step=st.sampled_from([0, 0, 0, -1, 1]),
        ms=st.integers(-20, 4000),
        playing=st.booleans(),
    )
    def cut(self, back: int, step: int, ms: int, playing: bool) -> None:
        epoch, clause = self.some_clause(back, step)
        assert self.tell(Cut(epoch, clause if playing else 0, ms)) == []

    @rule(back=st.integers(0, 4), step=st.sampled_from([0, 0, 0, -1, 1]))
    def speech_failed(self, back: int, step: int) -> None:
        epoch, clause = self.some_clause(back, step)
        if any((say.epoch, say.clause) == (epoch, clause) for say in self.said):
            self.failed.add(clause)
        self.tell(SpeechFailed(epoch, clause))

    @rule(often=st.integers(0, 15))
    def call_ended(self, often: int) -> None:
        if often == 0:
            self.tell(CallEnded())
            self.ended = True

    @invariant()
    def heard_is_a_prefix_of_what_was_said(self) -> None:
        ledger = self.talk._ledger
        partly: set[int] = set()  # epochs in which something is missing already
        for say in self.said:
            text = ledger.text(say.clause)
            assert say.text.startswith(text)
            if text:
                assert say.epoch not in partly, "heard after something that was not"
            if text != say.text and say.clause not in self.failed:
                partly.add(say.epoch)

    @invariant()
    def the_transcript_holds_what_was_heard(self) -> None:
        talk = self.talk.transcript()
        told = " ".join(message.text for message in talk if message.role == "assistant")
        heard = (self.talk._ledger.text(say.clause) for say in self.said)
        assert told == " ".join(text for text in heard if text)


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
