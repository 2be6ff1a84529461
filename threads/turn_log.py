"""What `reply` writes down of each turn. Used by its thread alone, the samples apart.

A record is written once: when its answer was played out, when the call or the next turn makes an
end of it, or, for an answer that was spoken over, as soon as it is known how much of it was heard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..dialog import events as talk
from ..dialog.conversation import Conversation
from ..observe.histogram import LATENCY_MS, Histogram
from ..observe.prometheus import Sample, counter, milliseconds
from ..observe.spans import CallEnd, CallStart, Told
from ..observe.turns import STAGES, Turn
from .logs import logger
from .messages import FirstFrame, Transcript
from .ring import EventRing

log = logger("reply")

SETTLE_NS = 1_000_000_000  # the longest wait for the news of how much was heard


class TurnStats:
    """Of all calls, for the metrics page."""

    def __init__(self) -> None:
        self.turns = 0
        self.interrupted = 0
        self.pauses = 0
        self.fillers = 0
        self.hits = 0
        self.wasted = 0
        self.stages = {name: Histogram(LATENCY_MS) for name in STAGES}
        self.response = Histogram(LATENCY_MS)
        self.filler = Histogram(LATENCY_MS)
        self.traces: EventRing[Told] | None = None  # to the traces thread, when there is one

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        yield milliseconds(
            "threadline_turn_response_seconds",
            "End of the caller's speech to the first frame of the answer.",
            self.response,
        )
        yield milliseconds(
            "threadline_turn_filler_seconds",
            "End of the caller's speech to the first frame of a filler, where there was one.",
            self.filler,
        )
        for name, histogram in self.stages.items():
            yield milliseconds(
                "threadline_turn_stage_seconds",
                "The same as the response, split by stage.",
                histogram,
                stage=name,
            )
        for name, help_text, value in (
            ("turns", "Turns of callers.", self.turns),
            ("interrupted", "Answers that were spoken over.", self.interrupted),
            ("pauses", "Times an answer was held up by a sound, and went on.", self.pauses),
            ("fillers", "Clauses that only bridged a wait.", self.fillers),
            ("early_hits", "Requests begun before the turn was over, and used.", self.hits),
            ("early_wasted", "Such requests of which nothing was used.", self.wasted),
        ):
            yield counter(f"threadline_reply_{name}_total", help_text, value)


class TurnLog:
    """One call's turns, from `now` on. How much was heard, and what became of early requests, is
    asked of the conversation."""

    def __init__(
        self, call_id: str, stats: TurnStats, conversation: Conversation, now: int
    ) -> None:
        self._call = CallStart(call_id, now)
        self._stats = stats
        self._conversation = conversation
        self._turn = Turn(0)
        self._said: dict[int, str] = {}  # clauses of its answer
        self._fillers: set[int] = set()
        self._closing: tuple[Turn, Mapping[int, str]] | None = None  # spoken over, not written yet
        self._ask = 0  # the latest request to the model
        self._early = False  # it was begun before the turn was over
        self._before = 0  # early requests that were used, before it
        self._hits = self._wasted = 0  # early requests counted so far
        self._asked = 0
        self._first_token = 0
        self.due = 0  # ns, when `settle` is due at the latest; 0: nothing waits for it

    @property
    def clause(self) -> int:
        """The first one of the answer; 0: nothing was said yet."""
        return self._turn.clause

    # -- the caller -----------------------------------------------------------------------------

    def heard(self, event: Transcript, now: int) -> None:
        """The caller's turn is over: a new record."""
        self.end(now)
        self._stats.turns += 1
        self._turn = Turn(
            number=self._turn.number + 1,
            heard=event.text,
            why=event.why,
            source=event.source,
            spoke_until=event.spoke_until,
            turn_over=event.turn_over,
            decode_began=event.decode_began,
            decode_ended=event.decode_ended,
            transcript=now,
        )

    def count(self) -> None:
        """Look what became of early requests."""
        hits, wasted = self._conversation.early_hits, self._conversation.early_wasted
        self._stats.hits += hits - self._hits
        self._stats.wasted += wasted - self._wasted
        self._hits, self._wasted = hits, wasted

    def paused(self) -> None:
        """The answer was held up by a sound, and goes on."""
        if self._turn.first_frame:
            self._turn.pauses += 1
            self._stats.pauses += 1

    def interrupted(self, now: int) -> None:
        """The caller has taken the floor. How much he heard is known once `settle` is called."""
        self.settle()
        if self._open():
            self._turn.interrupted = True
            self._turn.ended = now
            self._stats.interrupted += 1
            self._closing = self._turn, self._said
            self.due = now + SETTLE_NS
            self._renew()

    def settle(self) -> None:
        """Write the record of the answer that was spoken over, if one waits."""
        closing, self._closing, self.due = self._closing, None, 0
        if closing is not None:
            self._write(*closing)

    def end(self, now: int) -> None:
        """The answer has been heard, or nothing more comes of it."""
        self.settle()
        if self._open():
            self._turn.ended = now
            self._write(self._turn, self._said)
            self._renew()

    def close(self, reason: str, failed: bool, now: int) -> None:
        """The call is over; `failed`: by a defect of ours."""
        self.end(now)
        if self._stats.traces is not None:
            end = CallEnd(now, self._turn.number, reason, failed)
            self._stats.traces.push((self._call, end))

    def _open(self) -> bool:
        return bool(self._said) or self._turn.heard is not None

    def _renew(self) -> None:
        self._turn = Turn(self._turn.number)
        self._said = {}
        self._fillers = set()

    # -- the model ------------------------------------------------------------------------------

    def ask(self, order: talk.Ask, now: int) -> None:
        """A request leaves."""
        self.count()
        self._ask, self._asked, self._first_token = order.ask, now, 0
        self._early, self._before = order.early, self._hits

    def token(self, ask: int, at: int) -> None:
        """Text of an answer came."""
        if ask == self._ask and not self._first_token:
            self._first_token = at

    # -- the answer -----------------------------------------------------------------------------

    def said(self, order: talk.Say, now: int) -> None:
        """A clause was ordered."""
        turn = self._turn
        if order.filler:
            self._stats.fillers += 1
            turn.fillers.append(order.text)
            self._fillers.add(order.clause)
            return
        self._said[order.clause] = order.text
        if not turn.clause:
            turn.clause = order.clause
            turn.first_clause = now
            used = not self._early or self._conversation.early_hits > self._before
            if used:  # else what is said now comes from elsewhere
                turn.asked, turn.first_token = self._asked, self._first_token
                turn.early = self._early
            self._asked = self._first_token = 0
            self._early = False

    def dropped(self, clause: int) -> None:
        """Nothing of this clause will be heard: it does not count as said."""
        self._said.pop(clause, None)
        turn = self._turn
        if clause == turn.clause:  # what follows is the beginning of the answer
            turn.clause = min(self._said, default=0)
            turn.voice_asked = turn.first_audio = turn.first_frame = 0

    def voice_asked(self, clause: int, now: int) -> None:
        """A voice was told to speak it."""
        if clause == self._turn.clause and not self._turn.voice_asked:
            self._turn.voice_asked = now

    def audio(self, clause: int, now: int) -> None:
        """Sound of it came."""
        if clause == self._turn.clause and not self._turn.first_audio:
            self._turn.first_audio = now

    def frame(self, event: FirstFrame) -> None:
        """Its first frame was sent."""
        turn = self._turn
        if event.clause in self._fillers and not turn.filler_frame:
            turn.filler_frame = event.at
            if (ms := turn.filler_ms()) is not None:
                self._stats.filler.observe(ms)
        if event.clause != turn.clause or turn.first_frame:
            return
        turn.first_frame = event.at
        stages = turn.stages_ms()
        for name, ms in stages.items():
            self._stats.stages[name].observe(ms)
        if stages:
            self._stats.response.observe(sum(stages.values()))

    def _write(self, turn: Turn, said: Mapping[int, str]) -> None:
        played, unplayed = [], []
        for clause, text in said.items():
            part = self._conversation.heard(clause)
            played.append(part)
            unplayed.append(text.removeprefix(part).strip())
        turn.said = list(said.values())
        turn.played = " ".join(filter(None, played))
        turn.unplayed = " ".join(filter(None, unplayed))
        log.info("turn", call_id=self._call.call_id, **turn.record())
        if self._stats.traces is not None:  # and what is full there is counted there
            self._stats.traces.push((self._call, turn))
