"""Any facts in any order, stale and foreign ones too: what no call may ever break.

1. `handle` does not raise.
2. Clause, ask and job numbers rise by one; a clause is said in the epoch of now, and is not blank.
3. Nothing is said or run for a request that was cancelled, has ended, or is early; at most one is
   under way, and an early one only while the caller has the floor.
4. A turn that ends while it is the latest is answered at once, by a request or by speech, and no
   answer is left unfinished with nothing under way.
5. Heard text: of what was said in an epoch, in order, whole clauses and then at most one part
   of a clause (but for those the voice could not speak, or a guard did not let through).
6. A remote brain is told what the caller said and no guess at it, of the agent's words what was
   heard or is on its way, and each tool call with its answer. No two roles in a row.
7. A guard's clause is not heard; what came after it is said again, in order.
8. A complete answer ends with an `EndOfReply`, and with a `HangUp` where one is due.
"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from one_call import BOOK, LOOK

from threadline.dialog.brain import LocalBrain, RemoteBrain
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
    Drop,
    EndOfReply,
    Guarded,
    HangUp,
    Input,
    Keyed,
    Output,
    Partial,
    Quiet,
    RunTool,
    Say,
    SpeechFailed,
    TookFloor,
    ToolDone,
    ToolSlow,
    ToolsWanted,
    TurnEnded,
)
from threadline.dialog.history import Message
from threadline.dialog.scripted import Scripted
from threadline.dialog.tools import HANG_UP, ToolCall
from threadline.talking.heard import Fate

WORDS = st.sampled_from(["A table for four.", "Friday at seven", "I'm Anna", "yes", "no", "bye"])
TEXT = st.sampled_from(["Yes, we are. ", "Come at ten, or", " later. ", "Hm", "", "\n"]) | st.text()
OFFSET = st.integers(-2, 2)
CALLS = st.lists(
    st.builds(
        ToolCall,
        st.sampled_from(["a", "b", ""]),
        st.sampled_from(["look", "look", "book", "hang_up", "no such tool"]),
        st.sampled_from(["{}", '{"day": "Friday"}', "{", "[]", ""]),
    ),
    max_size=4,
).map(tuple)
TOOLS = (LOOK, BOOK, HANG_UP)
BRAINS: dict[str, RemoteBrain | LocalBrain] = {
    "local": Scripted(),
    "plain": RemoteBrain("Hello there, dear caller.", "Be brief."),
    "tools": RemoteBrain("Hello there.", "Be brief.", TOOLS, Scripted()),
    "eager": RemoteBrain("", "Be brief.", TOOLS, None, speculate=True),
}
OF_MODEL = Delta | AskDone | AskFailed | ToolsWanted


class AnyOrder(RuleBasedStateMachine):
    @initialize(brain=st.sampled_from(sorted(BRAINS)), epoch=st.integers(0, 3))
    def begin(self, brain: str, epoch: int) -> None:
        self.brain = BRAINS[brain]
        self.talk = Conversation(self.brain, epoch)
        self.epoch = epoch  # the model's own idea of it
        self.floor = False
        self.asks = 0
        self.live = 0  # the request under way
        self.early = 0  # the early one, under way or done
        self.jobs = 0
        self.ended = False
        self.said: list[Say] = []
        self.failed: set[int] = set()
        self.dropped: set[int] = set()
        self.at_rest = 0  # the clause that the last EndOfReply of this epoch named
        self.hang_up: int | None = None  # the same of HangUp
        self.words: list[str] = []

    def tell(self, event: Input) -> list[Output]:
        live, early, hits = self.live, self.early, self.talk.early_hits
        wasted = self.talk.early_wasted
        out = self.talk.handle(event)
        if isinstance(event, OF_MODEL):
            mine = event.ask == live != 0
            assert mine or out == [], "an order for a request that is no more"
            if mine and isinstance(event, AskDone | AskFailed):
                self.live = 0
            if mine and early:
                assert not any(isinstance(order, Say | RunTool) for order in out)
        if self.talk.early_hits > hits or self.talk.early_wasted > wasted:
            assert early
            self.early = 0
        for order in out:
            self.check(order)
        if self.ended:
            assert out == []
        assert self.talk.asking == (self.live != 0)
        return out

    def check(self, order: Output) -> None:
        match order:
            case Say(epoch, clause, text, filler, guard):
                assert not self.floor
                assert epoch == self.epoch
                assert clause == len(self.said) + 1
                assert text.strip()
                assert text == text.strip()
                assert not (filler and guard)
                self.said.append(order)
            case Ask(ask, messages, tools, early):
                assert isinstance(self.brain, RemoteBrain)
                assert tools == self.brain.tools
                assert self.live == self.early == 0
                assert ask == self.asks + 1
                assert early == self.floor
                assert not early or self.brain.speculate
                self.asks = self.live = ask
                self.early = ask if early else 0
                self.check_prompt(messages, early)
            case CancelAsk(ask):
                assert ask == self.live != 0
                self.live = 0
            case RunTool(job, call):
                assert not self.floor
                assert job == self.jobs + 1
                assert call.name in ("look", "book")
                self.jobs = job
            case Drop(epoch, clause):
                assert epoch == self.epoch
                after = (s.clause for s in self.said if s.clause >= clause)
                self.dropped |= {number for number in after if not self.talk.heard(number)}
                self.at_rest = 0
            case EndOfReply(epoch, clause):
                assert epoch == self.epoch
                assert 0 < clause <= len(self.said)
                assert clause not in self.dropped
                self.at_rest = clause
            case HangUp(epoch, clause):
                assert epoch == self.epoch
                assert 0 <= clause <= len(self.said)
                assert clause not in self.failed | self.dropped
                self.hang_up = clause

    def check_prompt(self, messages: tuple[Message, ...], early: bool) -> None:
        roles = [message.role for message in messages]
        assert roles[0] == "system"
        assert "system" not in roles[1:]
        assert roles[-1] in ("user", "tool")
        assert all(a != b or a == "tool" for a, b in pairwise(roles))
        assert all(message.text.strip() or message.calls for message in messages)
        told = iter(messages)
        for message in told:
            assert not message.answers, "a tool's message without its call"
            ids = [call.id for call in message.calls]
            assert len(set(ids)) == len(ids)
            for expected in ids:
                assert next(told).answers == expected
        if not early:
            self.check_words([message for message in messages if message.role == "user"])

    def check_words(self, users: list[Message]) -> None:
        told = " ".join(message.text for message in users if not message.text.startswith("(The "))
        assert told == " ".join(self.words)

    def take_floor(self, epoch: int) -> None:
        if epoch > self.epoch and not self.ended:
            self.epoch, self.floor = epoch, True
            self.at_rest, self.hang_up = 0, None

    @rule()
    def answered(self) -> None:
        self.tell(Answered())

    @rule(step=st.integers(-2, 3))
    def took_floor(self, step: int) -> None:
        epoch = max(0, self.epoch + step)
        self.take_floor(epoch)
        out = self.tell(TookFloor(epoch))
        assert all(isinstance(order, CancelAsk) for order in out)

    @rule(step=st.sampled_from([0, 0, 0, 1, -1]), text=WORDS | st.text())
    def partial(self, step: int, text: str) -> None:
        epoch = max(0, self.epoch + step)
        self.take_floor(epoch)
        out = self.tell(Partial(epoch, text))
        assert all(isinstance(order, CancelAsk | Ask) for order in out)
        eager = isinstance(self.brain, RemoteBrain) and self.brain.speculate
        if eager and self.floor and epoch == self.epoch and text.strip() and not self.ended:
            assert self.early, "not asked early"

    @rule(step=OFFSET, text=WORDS | st.sampled_from(["", " ", None]) | st.text())
    def turn_ended(self, step: int, text: str | None) -> None:
        epoch = max(0, self.epoch + step)
        if self.ended:
            self.tell(TurnEnded(epoch, text))
            return
        self.take_floor(epoch)
        stale = epoch < self.epoch and self.floor
        had_floor, self.floor = self.floor, self.floor and stale
        if (text or "").strip():
            self.words.append((text or "").strip())
        hits = self.talk.early_hits
        out = self.tell(TurnEnded(epoch, text))
        if stale:
            assert all(isinstance(order, CancelAsk | Ask) for order in out)
        elif had_floor or (text or "").strip():
            spoke = any(isinstance(order, Ask | Say) for order in out)
            assert spoke or self.talk.early_hits > hits, "not answered"
        if not self.floor:
            assert not self.early

    @rule(digits=st.sampled_from(["1234", "#", "5", ""]))
    def keyed(self, digits: str) -> None:
        if digits and not self.ended:
            self.words.append(f"(keyed {digits})")
        self.tell(Keyed(digits))

    @rule(times=st.integers(1, 3), last=st.booleans())
    def quiet(self, times: int, last: bool) -> None:
        was = self.floor or self.talk.working or self.ended
        out = self.tell(Quiet(times, last))
        assert not (was and out)

    @precondition(lambda self: self.asks)
    @rule(text=TEXT)
    def delta(self, text: str) -> None:
        self.tell(Delta(self.asks, text))

    @rule(step=OFFSET, text=TEXT)
    def stale_delta(self, step: int, text: str) -> None:
        self.tell(Delta(self.asks + step, text))

    @rule(step=st.sampled_from([0, 0, 0, 0, -1, 1]), calls=CALLS)
    def tools_wanted(self, step: int, calls: tuple[ToolCall, ...]) -> None:
        self.tell(ToolsWanted(self.asks + step, calls))

    @rule(step=st.sampled_from([0, 0, 0, -1, 1]))
    def ask_done(self, step: int) -> None:
        self.tell(AskDone(self.asks + step))

    @rule(step=st.sampled_from([0, 0, 0, -1, 1]))
    def ask_failed(self, step: int) -> None:
        self.tell(AskFailed(self.asks + step, "why"))

    @precondition(lambda self: self.jobs)
    @rule(
        back=st.integers(0, 3),
        result=st.sampled_from(["", "Booked."]) | st.text(),
        error=st.sampled_from(["", "", "No such day."]),
    )
    def tool_done(self, back: int, result: str, error: str) -> None:
        self.tell(ToolDone(self.jobs - back, result, error))

    @rule(back=st.integers(-1, 3))
    def tool_slow(self, back: int) -> None:
        coming = any(self.talk._telling.ledger.fate(s.clause) is Fate.SAID for s in self.said)
        out = self.tell(ToolSlow(self.jobs - back))
        assert not (coming and out)
        assert all(order.filler for order in out if isinstance(order, Say))

    def some_clause(self, back: int, step: int) -> tuple[int, int]:
        """Epoch and number of a recent clause, or by `step` of one that never was."""
        if len(self.said) <= back:
            return self.epoch, back
        say = self.said[-1 - back]
        return max(0, say.epoch + step), say.clause

    @rule(
        back=st.integers(0, 4),
        text=st.sampled_from(["", " ", "I may not say that."]),
        stop=st.booleans(),
    )
    def guarded(self, back: int, text: str, stop: bool) -> None:
        epoch, clause = self.some_clause(back, 0)
        ledger = self.talk._telling.ledger
        open_now = ledger.fate(clause) is Fate.SAID and epoch == self.epoch
        later = [
            say.text
            for say in self.said
            if say.clause > clause and not say.filler and ledger.fate(say.clause) is Fate.SAID
        ]
        ours = any(not say.guard for say in self.said if say.clause == clause)
        out = self.tell(Guarded(clause, text, stop))
        if self.ended or ours or not open_now:
            assert out == [] or ledger.fate(clause) is Fate.FAILED
            return
        assert out[0] == Drop(epoch, clause) or (stop and out[1] == Drop(epoch, clause))
        said = [order.text for order in out if isinstance(order, Say)]
        if text.strip():
            assert said.pop(0) == text.strip()
        if not stop:
            assert said[: len(later)] == later

    @rule(
        back=st.integers(0, 4),
        ms=st.integers(0, 4000),
        ends=st.lists(st.integers(0, 4000), max_size=4),
    )
    def spoken(self, back: int, ms: int, ends: list[int]) -> None:
        words = tuple(("word", end) for end in sorted(ends))
        assert self.tell(ClauseSpoken(self.some_clause(back, 0)[1], ms, words)) == []

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
        out = self.tell(Cut(epoch, clause if playing else 0, ms))
        assert all(isinstance(order, CancelAsk | Ask) for order in out)
        assert self.floor or out == []

    @rule(back=st.integers(0, 4), step=st.sampled_from([0, 0, 0, -1, 1]))
    def speech_failed(self, back: int, step: int) -> None:
        epoch, clause = self.some_clause(back, step)
        if any((say.epoch, say.clause) == (epoch, clause) for say in self.said):
            self.failed.add(clause)
        self.tell(SpeechFailed(epoch, clause))

    @rule(often=st.integers(0, 25))
    def call_ended(self, often: int) -> None:
        if often == 0:
            self.tell(CallEnded())
            self.ended = True

    @invariant()
    def heard_is_a_prefix_of_what_was_said(self) -> None:
        partly: set[int] = set()  # epochs in which something is missing already
        for say in self.said:
            text = self.talk.heard(say.clause)
            assert say.text.startswith(text)
            if text:
                assert say.epoch not in partly, "heard after something that was not"
                assert say.clause not in self.dropped
            if text != say.text and say.clause not in self.failed | self.dropped:
                partly.add(say.epoch)

    @invariant()
    def the_transcript_holds_what_was_heard(self) -> None:
        talk = self.talk.transcript()
        told = " ".join(message.text for message in talk if message.role == "assistant")
        heard = (self.talk.heard(say.clause) for say in self.said)
        assert told == " ".join(text for text in heard if text)
        self.check_words([message for message in talk if message.role == "user"])

    @invariant()
    def nothing_is_left_unfinished(self) -> None:
        reply = self.talk._telling.reply
        if self.floor or self.ended:
            return
        assert reply.complete or self.talk.working
        if reply.complete and not self.live:
            gone = self.failed | self.dropped
            last = max((s.clause for s in self.said if s.epoch == self.epoch), default=0)
            kept = {s.clause for s in self.said if s.epoch == self.epoch} - gone
            kept = {clause for clause in kept if not self.talk.heard(clause)}
            assert self.at_rest >= max(kept, default=0)
            assert self.at_rest <= last
            assert not reply.hang_up or self.hang_up is not None


AnyOrder.TestCase.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
TestAnyOrder = AnyOrder.TestCase
