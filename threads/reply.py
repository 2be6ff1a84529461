"""The `reply` thread: every conversation.

Wakes on   its inbox: transcripts, floor changes, marks, tokens, synthesized audio, results of
           tools and guards; whatever is due by the clock.
Owns       the conversation of every call, and the audio that does not fit its ring yet.
Reads      a call's generation and epoch.
Writes     the `outgoing` ring and `busy` of every call; clauses to the voices; requests to
           io-vendors; jobs to the workers; hang-ups to io-calls.

The conversation itself is pure (dialog/conversation.py): this file tells it what happened.
orders.py carries out what it orders, with voices.py and jobs.py; what waits between a voice and
the ring is in line.py, what is written down of each turn in turn_log.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from types import MappingProxyType
from typing import Any

from ..agent import CallInfo, current_call
from ..config import Talk
from ..dialog import events as talk
from ..dialog.brain import LocalBrain, RemoteBrain
from ..dialog.conversation import Conversation
from ..dialog.digits import Digits
from ..dialog.idle import Idle
from ..observe.prometheus import Sample, counter
from ..talking.heard import parse_mark
from .calls import Call
from .jobs import Jobs
from .line import NEVER, Line
from .logs import logger
from .messages import (
    CallClosed,
    CallOpened,
    DigitPressed,
    Event,
    FirstFrame,
    FloorTaken,
    JobDone,
    Lapse,
    MarkReturned,
    ModelDelta,
    ModelDone,
    ModelFailed,
    ModelTools,
    Partial,
    PlaybackCut,
    Spoken,
    StageFailed,
    Transcript,
)
from .orders import GOODBYE_CAP_NS, Orders
from .turn_log import TurnLog, TurnStats
from .voices import Voices
from .wake import Inbox, Outbox
from .workers import Crew

log = logger("reply")

_SPEAKING = ("reply", "pacer", "io-calls")  # stages without which no apology is heard
REFILL_NS = 250_000_000  # a ring holds 2.5 s
HANG_UP_CAP_NS = 3_000_000_000  # after the goodbye should have been heard
APOLOGY_CAP_NS = 10_000_000_000
FRAME_NS = 20_000_000


class ReplyStage:
    """See the module. `step` is one wake-up.

    Args:
        voices: the chain, in order: each one's name, and where clauses for it go.
        vendors: to io-vendors; None when the configuration names none of them.
        crew: the workers; None when there are no tools and guards.
        apology: mu-law for a call that a defect ends.
    """

    name = "reply"

    def __init__(
        self,
        calls: Sequence[Call],
        brain: LocalBrain[Any] | RemoteBrain,
        talk: Talk,
        inbox: Inbox,
        to_io: Outbox[object],
        voices: Sequence[tuple[str, Outbox[object]]],
        vendors: Outbox[object] | None,
        crew: Crew | None,
        apology: Callable[[], bytes],
    ) -> None:
        self.inbox = inbox
        self.on_call: Call | None = None
        self._calls = calls
        self._brain = brain
        self._talk = talk
        self._lines: dict[int, Line] = {}
        self._newest = [0] * len(calls)  # generation of the call that was opened last, by slot
        self._early: list[Event] = []  # they overtook the news that their call was opened
        self._to_io = to_io
        self._voices = Voices(voices)
        self._vendors = vendors
        self._jobs = Jobs(crew, talk, self._live)
        self._orders = Orders(self._voices, self._jobs, vendors, to_io)
        self._apology = apology
        self._due = 0  # ns, when to wake up at the latest
        # Reports.
        self.beat = 0
        self.apologies = 0
        self.stats = TurnStats()

    def begin(self) -> None:
        """Nothing to make ready."""

    def step(self) -> None:
        """Take every event and what is due, then fill the rings."""
        self.beat += 1
        self.on_call = None
        left = (self._due - time.monotonic_ns()) / 1e9
        self.inbox.wait(min(max(left, 0.0), 1.0) if self._flush() else 0.02)
        touched: set[int] = set()
        for event in self.inbox.events():
            assert isinstance(event, Event), event
            touched.add(event.slot)
            self.on_call = self._calls[event.slot]
            self._take(event)
        early, self._early = self._early, []
        for event in early:
            self.on_call = self._calls[event.slot]
            self._take(event)
        now = time.monotonic_ns()
        for line in self._jobs.give_up(now):
            touched.add(line.call.slot)
            self.on_call = line.call
            self._tell(line)
        # Hundreds of calls, and a few of them have news: the others only when their time may have
        # come. A ring holds seconds, and is filled a quarter of one at a time.
        everybody = now >= self._due
        if everybody:
            self._due = NEVER
        for slot in list(self._lines) if everybody else touched:
            if (tended := self._lines.get(slot)) is not None:
                self.on_call = tended.call
                self._tend(tended, now, touched=slot in touched)
        self._due = min(self._due, self._jobs.next_due() or NEVER)

    def _tend(self, line: Line, now: int, *, touched: bool) -> None:
        """What the clock asks for, and room in the ring."""
        if line.due <= now:
            self._look_at_clocks(line, now)
            touched = True
        if line.queue:
            self._due = min(self._due, now + REFILL_NS)
            if touched or line.call.outgoing.room():
                self._fill(line, now)
                touched = True
        if touched:
            line.due = line.next_due()
        self._due = min(self._due, line.due)

    def _flush(self) -> bool:
        """Deliver what had to wait; True when nothing is left."""
        kept = self._to_io.flush()
        kept = self._voices.flush() and kept
        kept = self._jobs.flush() and kept
        return (self._vendors is None or self._vendors.flush()) and kept

    def _live(self, slot: int, generation: int) -> Line | None:
        line = self._lines.get(slot)
        return line if line is not None and line.generation == generation else None

    def _look_at_clocks(self, line: Line, now: int) -> None:
        """What has come due for this call by `now`."""
        if line.hang_up_by and now > line.hang_up_by:
            self._orders.hang_up(line)
        if line.turns.due and now >= line.turns.due:
            line.turns.settle()
        if line.protected_by and now >= line.protected_by:
            line.protected_by = 0
            line.show()
        if line.failed:
            return
        seconds = now / 1e9
        if (quiet := line.idle.tick(seconds)) is not None:
            log.info("quiet", call_id=line.info.call_id, times=quiet.times)
            line.facts.append(quiet)
        if (digits := line.digits.tick(seconds)) is not None:
            line.facts.append(talk.Keyed(digits))
        self._jobs.slow(line, now)
        self._tell(line)

    def _do(self, line: Line, fact: talk.Input) -> None:
        """Tell the conversation, and carry out what it orders."""
        line.facts.append(fact)
        self._tell(line)

    def _tell(self, line: Line) -> None:
        self._orders.tell(line, time.monotonic_ns())

    # -- what comes in ------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        if isinstance(event, CallOpened):
            self._open(event)
            return
        if isinstance(event, JobDone):  # its worker is free, whoever was on the line
            self._jobs.done(event)
        line = self._lines.get(event.slot)
        if line is None or line.generation != event.generation:
            # Each port keeps its order, but what vad and asr tell may be read before what io-calls
            # told earlier. Everything else is about an earlier caller of this slot.
            if event.generation > self._newest[event.slot]:
                self._early.append(event)
            elif line is not None and isinstance(event, FloorTaken) and event.epoch > line.epoch:
                # vad had judged an earlier caller and not seen him go: what this one was told
                # so far is void, and he is greeted anew.
                self._jobs.forget(line)
                self._begin(line.call, line.generation, line.info)
            return
        match event:
            case CallClosed():
                self._close(line, event)
            case StageFailed():
                self._apologise(line, event.stage)
            case _ if line.failed:
                self._take_failed(line, event)
            case Transcript():
                self._transcript(line, event)
            case FloorTaken():
                self._yield_floor(line, event.epoch)
            case Spoken():
                self._voices.spoken(line, event, time.monotonic_ns())
                self._tell(line)
            case MarkReturned():
                self._mark(line, event.name)
            case PlaybackCut():
                self._do(line, talk.Cut(event.epoch, event.clause, event.played_ms))
                line.turns.settle()
            case FirstFrame():
                line.turns.frame(event)
            case Partial():
                if event.paused:
                    self._do(line, talk.Partial(event.epoch, event.text))
            case JobDone():
                self._tell(line)
            case DigitPressed():
                self._digit(line, event.digit)
            case Lapse():
                line.turns.paused()
            case _:
                self._model(line, event)

    def _model(self, line: Line, event: Event) -> None:
        match event:
            case ModelDelta(ask=ask, text=text):
                line.turns.token(ask, event.first_at or time.monotonic_ns())
                self._do(line, talk.Delta(ask, text))
            case ModelTools(ask=ask, calls=calls):
                self._do(line, talk.ToolsWanted(ask, calls))
            case ModelDone(ask=ask):
                self._do(line, talk.AskDone(ask))
            case ModelFailed(ask=ask, reason=reason):
                log.warning("model failed", call_id=line.info.call_id, reason=reason)
                self._do(line, talk.AskFailed(ask, reason))
            case _:
                raise TypeError(f"reply has no use for {event!r}")

    def _open(self, event: CallOpened) -> None:
        self._newest[event.slot] = event.generation
        log.info("call opened", call_id=event.call_id, slot=event.slot)
        if self._vendors is not None:
            self._vendors.put(event)  # a recogniser makes its session ready
        parameters = MappingProxyType(dict(event.parameters))
        caller, called = parameters.get("From", ""), parameters.get("To", "")
        info = CallInfo(event.call_id, caller, called, parameters)
        self._begin(self._calls[event.slot], event.generation, info)

    def _begin(self, call: Call, generation: int, info: CallInfo) -> None:
        epoch = call.epoch.at
        context = Context()
        context.run(current_call.set, info)
        conversation = context.run(Conversation, self._brain, epoch)
        setting = self._talk
        terminator = setting.digit_terminator.replace("none", "")
        line = self._lines[call.slot] = Line(
            call=call,
            generation=generation,
            info=info,
            context=context,
            conversation=conversation,
            epoch=epoch,
            voices=len(self._voices),
            turns=TurnLog(info.call_id, self.stats, conversation, time.monotonic_ns()),
            idle=Idle(setting.nudge_seconds, setting.nudges),
            digits=Digits(terminator, setting.digit_seconds),
        )
        if setting.protect_greeting and self._brain.greeting.strip():
            line.protected_by = time.monotonic_ns() + GOODBYE_CAP_NS
        line.idle.played_out(time.monotonic_ns() / 1e9)  # a caller who is not greeted may be shy
        self._do(line, talk.Answered())
        if not line.queue:
            line.protected_by = 0
            line.show()

    def _close(self, line: Line, event: CallClosed) -> None:
        self._do(line, talk.CallEnded())
        self._voices.tell(line, line.fall_silent(line.epoch), time.monotonic_ns())
        line.turns.close(event.reason, line.failed, time.monotonic_ns())
        self._jobs.forget(line)
        if self._vendors is not None:
            self._vendors.put(event)
        del self._lines[line.call.slot]
        log.info("call closed", call_id=line.info.call_id, slot=line.call.slot, reason=event.reason)

    def _transcript(self, line: Line, event: Transcript) -> None:
        now = time.monotonic_ns()
        self._yield_floor(line, event.epoch)  # in case the words overtook the news of them
        line.idle.caller_active(now / 1e9, words=bool(event.text))
        if event.epoch == line.epoch:
            line.turns.heard(event, now)
        self._do(line, talk.TurnEnded(event.epoch, event.text))
        line.turns.count()

    def _yield_floor(self, line: Line, epoch: int) -> None:
        if epoch <= line.epoch:
            return
        now = time.monotonic_ns()
        line.turns.interrupted(now)
        line.idle.caller_active(now / 1e9, words=False)
        self._voices.tell(line, line.fall_silent(epoch), now)
        self._jobs.forget(line, "guard")
        self._do(line, talk.TookFloor(epoch))

    def _digit(self, line: Line, digit: str) -> None:
        log.info("key pressed", call_id=line.info.call_id)  # not which: it may be a secret's
        now = time.monotonic_ns() / 1e9
        line.idle.caller_active(now)
        if (digits := line.digits.press(digit, now)) is not None:
            self._do(line, talk.Keyed(digits))

    def _mark(self, line: Line, name: str) -> None:
        mark = parse_mark(name)
        if mark is not None:
            self._do(line, talk.ClauseHeard(*mark))
        elif name == end_mark(line.epoch) and line.ends:
            ended = line.ends.popleft()
            self._do(line, talk.ClauseHeard(line.epoch, ended))  # its tail has no mark of its own
            line.protected_by = 0
            line.show()
            if not (line.queue or line.ends or line.conversation.working):
                line.idle.played_out(time.monotonic_ns() / 1e9)
                if 0 < line.turns.clause <= ended:
                    line.turns.end(time.monotonic_ns())
            if line.hang_up and ended >= line.hang_up_after:
                self._orders.hang_up(line)

    def _fill(self, line: Line, now: int) -> None:
        if line.fill(now):
            ahead = now + line.call.outgoing.depth() * FRAME_NS + HANG_UP_CAP_NS
            if line.protected_by:
                line.protected_by = ahead
            if line.hang_up:
                line.hang_up_by = ahead
            line.show()
        self._voices.request(line, now)

    # -- endings --------------------------------------------------------------------------------

    def _apologise(self, line: Line, stage: str) -> None:
        """A stage raised: say sorry with audio made before the first call, and hang up."""
        if line.failed:
            if stage.startswith(_SPEAKING):  # the apology cannot be said either
                line.hang_up = line.hang_up or f"a defect in {stage}"
                self._orders.hang_up(line)
            return
        line.failed = True
        self.apologies += 1
        now = time.monotonic_ns()
        for order in line.context.run(line.conversation.handle, talk.CallEnded()):
            if isinstance(order, talk.CancelAsk):
                self._orders.carry_out(line, order, now)
        self._jobs.forget(line)
        self._voices.tell(line, line.silence(), now)
        line.protected_by = 0
        line.hang_up = f"a defect in {stage}"
        line.hang_up_by = now + APOLOGY_CAP_NS
        line.play(line.call.epoch.at, self._apology())

    def _take_failed(self, line: Line, event: Event) -> None:
        over = isinstance(event, FloorTaken)  # spoken over: it need not be heard out
        if isinstance(event, MarkReturned) and event.name.endswith(".end") and line.ends:
            line.ends.popleft()
            over = not line.ends and not line.queue
        if over and line.hang_up:
            self._orders.hang_up(line)

    def finish(self) -> None:
        """Nothing to give back."""

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        yield from self.stats.samples()
        yield from self._jobs.samples()
        yield from self._voices.samples()
        text = "Calls ended with an apology, because a stage raised."
        yield counter("threadline_reply_apologies_total", text, self.apologies)


def end_mark(epoch: int) -> str:
    """Name of the mark that follows the last frame of an answer."""
    return f"{epoch}.end"
