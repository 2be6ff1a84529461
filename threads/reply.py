"""The `reply` thread: every conversation.

Wakes on   its inbox: transcripts, floor changes, marks, tokens, synthesized audio.
Owns       the conversation of every call, and the audio that does not fit its ring yet.
Reads      a call's generation and epoch.
Writes     the `outgoing` ring and `busy` of every call; clauses to tts; requests to io-vendors;
           hang-ups to io-calls.

The conversation itself is pure (dialog/conversation.py): this file carries its orders out. What
waits between the voice and the ring is in line.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from typing import Any

from ..dialog import events as talk
from ..dialog.brain import LocalBrain, RemoteBrain
from ..dialog.conversation import Conversation
from ..observe.histogram import LATENCY_MS, Histogram
from ..observe.prometheus import Sample, counter, milliseconds
from ..observe.turns import STAGES, Turn
from ..talking.heard import parse_mark
from .calls import Call
from .io_vendors import ModelRequests
from .line import Line, Piece
from .logs import logger
from .messages import (
    CallClosed,
    CallOpened,
    DigitPressed,
    Event,
    FirstFrame,
    FloorTaken,
    HangUp,
    MarkReturned,
    ModelDelta,
    ModelDone,
    ModelFailed,
    PlaybackCut,
    Spoken,
    StageFailed,
    Transcript,
)
from .wake import Inbox, Outbox

log = logger("reply")

_SPEAKING = ("reply", "pacer", "io-calls")  # stages without which no apology is heard
REFILL_SECONDS = 0.25  # a ring holds 2.5 s
HANG_UP_CAP_NS = 3_000_000_000  # after the goodbye should have been heard
GOODBYE_CAP_NS = 30_000_000_000  # after it was ordered, should the voice never speak it


class ReplyStage:
    """See the module. `step` is one wake-up."""

    name = "reply"

    def __init__(
        self,
        calls: Sequence[Call],
        brain: LocalBrain[Any] | RemoteBrain,
        inbox: Inbox,
        to_tts: Outbox[object],
        to_io: Outbox[object],
        vendors: ModelRequests | None,
        apology: Callable[[], bytes],
    ) -> None:
        self.inbox = inbox
        self.on_call: Call | None = None
        self._calls = calls
        self._brain = brain
        self._lines: dict[int, Line] = {}
        self._newest = [0] * len(calls)  # generation of the call that was opened last, by slot
        self._early: list[Event] = []  # they overtook the news that their call was opened
        self._to_tts = to_tts
        self._to_io = to_io
        self._vendors = vendors
        self._apology = apology
        # Reports.
        self.beat = 0
        self.turns = 0
        self.interrupted = 0
        self.apologies = 0
        self.stages = {name: Histogram(LATENCY_MS) for name in STAGES}
        self.response = Histogram(LATENCY_MS)

    def begin(self) -> None:
        """Nothing to make ready."""

    def step(self) -> None:
        """Take every event, then fill the rings."""
        self.beat += 1
        self.on_call = None
        kept = self._to_tts.flush() and self._to_io.flush()
        kept = (self._vendors is None or self._vendors.flush()) and kept
        waiting = any(line.pieces or line.hang_up for line in self._lines.values())
        self.inbox.wait(0.02 if not kept else REFILL_SECONDS if waiting else 1.0)
        for event in self.inbox.events():
            assert isinstance(event, Event), event
            self.on_call = self._calls[event.slot]
            self._take(event)
        early, self._early = self._early, []
        for event in early:
            self.on_call = self._calls[event.slot]
            self._take(event)
        now = time.monotonic_ns()
        for line in self._lines.values():
            self.on_call = line.call
            self._fill(line)
            if line.hang_up_by and now > line.hang_up_by:
                self._hang_up(line)

    # -- what comes in ------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        if isinstance(event, CallOpened):
            self._open(event)
            return
        line = self._lines.get(event.slot)
        if line is None or line.generation != event.generation:
            # Each port keeps its order, but what vad and asr tell may be read before what io-calls
            # told earlier. Everything else is about an earlier caller of this slot.
            if event.generation > self._newest[event.slot]:
                self._early.append(event)
            elif line is not None and isinstance(event, FloorTaken) and event.epoch > line.epoch:
                # vad had judged an earlier caller and not seen him go: what this one was told
                # so far is void, and he is greeted anew.
                self._begin(line.call, line.generation, line.call_id)
            return
        match event:
            case CallClosed():
                self._close(line, event.reason)
            case StageFailed():
                self._apologise(line, event.stage)
            case _ if line.failed:
                self._take_failed(line, event)
            case Transcript():
                self._transcript(line, event)
            case FloorTaken():
                self._yield_floor(line, event.epoch)
            case Spoken():
                self._spoken(line, event)
            case MarkReturned():
                self._mark(line, event.name)
            case PlaybackCut():
                self._do(line, talk.Cut(event.epoch, event.clause, event.played_ms))
            case FirstFrame():
                self._first_frame(line, event)
            case ModelDelta():
                self._do(line, talk.Delta(event.ask, event.text))
            case ModelDone():
                self._do(line, talk.AskDone(event.ask))
            case ModelFailed():
                log.warning("model failed", call_id=line.call_id, reason=event.reason)
                self._do(line, talk.AskFailed(event.ask, event.reason))
            case DigitPressed():
                log.info("digit", call_id=line.call_id, digit=event.digit)
            case _:
                raise TypeError(f"reply has no use for {event!r}")

    def _open(self, event: CallOpened) -> None:
        self._newest[event.slot] = event.generation
        log.info("call opened", call_id=event.call_id, slot=event.slot)
        self._begin(self._calls[event.slot], event.generation, event.call_id)

    def _begin(self, call: Call, generation: int, call_id: str) -> None:
        epoch = call.epoch.at
        context = Context()
        line = self._lines[call.slot] = Line(
            call=call,
            generation=generation,
            call_id=call_id,
            context=context,
            conversation=context.run(Conversation, self._brain, epoch),
            epoch=epoch,
        )
        self._do(line, talk.Answered())

    def _close(self, line: Line, reason: str) -> None:
        self._do(line, talk.CallEnded())
        self._end_turn(line, interrupted=False)
        line.call.busy.at = 0
        del self._lines[line.call.slot]
        log.info("call closed", call_id=line.call_id, slot=line.call.slot, reason=reason)

    def _transcript(self, line: Line, event: Transcript) -> None:
        self._yield_floor(line, event.epoch)  # in case the words overtook the news of them
        if event.epoch == line.epoch:
            self._end_turn(line, interrupted=False)
            self.turns += 1
            line.turn = Turn(
                number=line.turn.number + 1,
                heard=event.text,
                spoke_until=event.spoke_until,
                turn_over=event.turn_over,
                decode_began=event.decode_began,
                decode_ended=event.decode_ended,
                transcript=time.monotonic_ns(),
            )
            line.call.busy.at = 1
        self._do(line, talk.TurnEnded(event.epoch, event.text))

    def _yield_floor(self, line: Line, epoch: int) -> None:
        if epoch <= line.epoch:
            return
        self._end_turn(line, interrupted=True)
        line.fall_silent(epoch)
        self._do(line, talk.TookFloor(epoch))

    def _mark(self, line: Line, name: str) -> None:
        mark = parse_mark(name)
        if mark is not None:
            self._do(line, talk.ClauseHeard(*mark))
        elif name == end_mark(line.epoch) and line.ends:
            ended = line.ends.popleft()
            self._do(line, talk.ClauseHeard(line.epoch, ended))  # its tail has no mark of its own
            self._end_turn(line, interrupted=False)
            if line.hang_up and ended >= line.hang_up_after:
                self._hang_up(line)

    def _spoken(self, line: Line, event: Spoken) -> None:
        if event.epoch != line.epoch:
            return
        line.add(Piece(event.epoch, event.clause, event.audio, event.ended))
        if not event.ended:
            line.with_voice -= 1
            if event.clause == line.turn.clause and not line.turn.first_audio:
                line.turn.first_audio = time.monotonic_ns()
        if event.reason:
            log.warning("voice failed", call_id=line.call_id, reason=event.reason)
            self._do(line, talk.SpeechFailed(event.epoch, event.clause))
        elif not event.ended:
            self._do(line, talk.ClauseSpoken(event.clause, event.duration_ms))

    def _first_frame(self, line: Line, event: FirstFrame) -> None:
        turn = line.turn
        if event.clause != turn.clause or turn.first_frame:
            return
        turn.first_frame = event.at
        stages = turn.stages_ms()
        for name, ms in stages.items():
            self.stages[name].observe(ms)
        if stages:
            self.response.observe(sum(stages.values()))

    # -- what the conversation orders ---------------------------------------------------------

    def _do(self, line: Line, event: talk.Input) -> None:
        for order in line.context.run(line.conversation.handle, event):
            match order:
                case talk.Say(_, clause, text):
                    if not line.turn.clause:
                        line.turn.clause = clause
                        line.turn.first_clause = time.monotonic_ns()
                    line.turn.said.append(text)
                    line.call.busy.at = 1
                    line.orders.append(order)
                case talk.EndOfReply():
                    line.orders.append(order)
                case talk.Ask(ask, messages):
                    assert self._vendors is not None, "a remote brain comes with io-vendors"
                    self._vendors.ask(line.call.slot, line.generation, line.epoch, ask, messages)
                case talk.CancelAsk(ask):
                    assert self._vendors is not None, "a remote brain comes with io-vendors"
                    self._vendors.cancel(line.call.slot, line.generation, ask)
                case talk.HangUp(_, clause):
                    line.hang_up = "the agent said goodbye"
                    line.hang_up_after = clause
                    line.hang_up_by = time.monotonic_ns() + GOODBYE_CAP_NS
                    if clause == 0:
                        self._hang_up(line)
        self._request_speech(line)

    def _request_speech(self, line: Line) -> None:
        """Send clauses to the voice, a little ahead of the ear and no further."""
        for order in line.due_speech():
            self._to_tts.put(order)

    def _fill(self, line: Line) -> None:
        if line.fill():
            line.call.busy.at = 0  # from here on the ring and the pacer's `playing` say it
            if line.hang_up:
                ahead = line.call.outgoing.depth() * 20_000_000
                line.hang_up_by = time.monotonic_ns() + ahead + HANG_UP_CAP_NS
        self._request_speech(line)

    # -- endings --------------------------------------------------------------------------------

    def _end_turn(self, line: Line, *, interrupted: bool) -> None:
        """The answer has been heard, or was cut: one record of it."""
        turn = line.turn
        if not turn.said and turn.heard is None:
            return
        self.interrupted += interrupted
        log.info(
            "turn",
            call_id=line.call_id,
            turn=turn.number,
            heard=turn.heard,
            said=" ".join(turn.said),
            interrupted=interrupted,
            stages_ms=turn.stages_ms(),
            decode_ms=round((turn.decode_ended - turn.decode_began) / 1e6, 1),
        )
        line.turn = Turn(turn.number)

    def _hang_up(self, line: Line) -> None:
        self._to_io.put(HangUp(line.call.slot, line.generation, line.hang_up))
        line.hang_up = ""
        line.hang_up_by = 0

    def _apologise(self, line: Line, stage: str) -> None:
        """A stage raised: say sorry with audio made before the first call, and hang up."""
        if line.failed:
            if stage in _SPEAKING:  # the apology cannot be said either
                line.hang_up = line.hang_up or f"a defect in {stage}"
                self._hang_up(line)
            return
        line.failed = True
        self.apologies += 1
        for order in line.context.run(line.conversation.handle, talk.CallEnded()):
            if isinstance(order, talk.CancelAsk) and self._vendors is not None:
                self._vendors.cancel(line.call.slot, line.generation, order.ask)
        line.orders.clear()
        line.pieces.clear()
        line.hang_up = f"a defect in {stage}"
        line.hang_up_by = time.monotonic_ns() + 10_000_000_000
        line.pieces.append(Piece(line.call.epoch.at, 0, self._apology(), ended=True))

    def _take_failed(self, line: Line, event: Event) -> None:
        over = isinstance(event, FloorTaken)  # spoken over: it need not be heard out
        if isinstance(event, MarkReturned) and event.name.endswith(".end") and line.ends:
            line.ends.popleft()
            over = not line.ends and not line.pieces
        if over and line.hang_up:
            self._hang_up(line)

    def finish(self) -> None:
        """Nothing to give back."""

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        yield milliseconds(
            "threadline_turn_response_seconds",
            "End of the caller's speech to the first frame of the answer.",
            self.response,
        )
        for name, histogram in self.stages.items():
            yield milliseconds(
                "threadline_turn_stage_seconds",
                "The same, split by stage.",
                histogram,
                stage=name,
            )
        for name, help_text, value in (
            ("turns", "Turns of callers.", self.turns),
            ("interrupted", "Answers that were spoken over.", self.interrupted),
            ("apologies", "Calls ended with an apology, because a stage raised.", self.apologies),
        ):
            yield counter(f"threadline_reply_{name}_total", help_text, value)


def end_mark(epoch: int) -> str:
    """Name of the mark that follows the last frame of an answer."""
    return f"{epoch}.end"
