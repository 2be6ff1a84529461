"""The `asr` thread: what the caller said.

Wakes on   its inbox: vad's events; the recogniser's sockets.
Owns       the utterance of every call, the queue of jobs, the recogniser's workers.
Reads      a call's `speech` ring.
Writes     `Transcript` to reply.

A decode is started at the first sign of silence (`Silence`), ahead of the end of the turn; it
covers exactly the windows that `TurnOver` will name unless speech goes on, in which case it was
waste, and is counted. It copies and dispatches only; the model runs in the recogniser. It copies
on every turn of its loop: an utterance may be seven times as long as the ring.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..config import Asr as AsrConfig
from ..observe.histogram import LATENCY_MS, Histogram
from ..observe.prometheus import Sample, counter, gauge, milliseconds
from .asr_process import Recogniser, Result
from .calls import WINDOW, Call
from .logs import logger
from .messages import Silence, Transcript, TurnOver
from .wake import Inbox, Outbox

log = logger("asr")


@dataclass(slots=True)
class _Job:
    """One decode: these windows of this utterance."""

    number: int
    slot: int
    generation: int
    utterance: int
    windows: int
    asked: float  # s
    audio: bytes
    began: int = 0  # ns
    ended: int = 0
    text: str | None = None
    reason: str = ""
    over: TurnOver | None = None  # the turn has ended: somebody waits for this

    @property
    def done(self) -> bool:
        return self.ended != 0


@dataclass(slots=True)
class _Utterance:
    """What asr holds of one call: the utterance being spoken, and its newest decode."""

    call: Call
    number: int = 0
    generation: int = 0
    over: bool = True  # its turn has ended: what is in the ring now belongs to the next one
    audio: bytearray = field(default_factory=bytearray)
    job: _Job | None = None


class AsrStage:
    """See the module. `step` is one wake-up."""

    name = "asr"

    def __init__(
        self,
        calls: Sequence[Call],
        config: AsrConfig,
        recogniser: Recogniser,
        inbox: Inbox,
        to_reply: Outbox[object],
    ) -> None:
        self.inbox = inbox
        self.on_call: Call | None = None
        self.recogniser = recogniser
        self._utterances = [_Utterance(call) for call in calls]
        self._deadline = config.deadline_seconds
        self._to_reply = to_reply
        self._queue: list[_Job] = []  # bounded: one a call, and turns that wait, by the deadline
        self._running: dict[int, _Job] = {}
        self._watched: set[int] = set()
        self._numbers = 0
        # Reports.
        self.beat = 0
        self.decoded = 0
        self.wasted = 0
        self.failed = 0
        self.ready = False  # the model is loaded and decodes
        self.seconds = Histogram(LATENCY_MS)

    def begin(self) -> None:
        """Start the workers; they load the model while calls may already be greeted."""
        self.recogniser.start()
        self._watch_sockets()

    def step(self) -> None:
        """Wait; take events and results; hand jobs to free workers."""
        self.beat += 1
        self.on_call = None
        kept = self._to_reply.flush()
        busy = self._queue or self._running
        self.inbox.wait(0.1 if busy else 1.0 if kept else 0.02)
        for event in self.inbox.events():
            if isinstance(event, Silence):
                self._hear(event, None)
            elif isinstance(event, TurnOver):
                self._hear(event, event)
        for said in self._utterances:
            self._copy(said)
        now = time.monotonic()
        self.recogniser.tick(now)
        for result in self.recogniser.collect(now):
            self._finish(result)
        self.ready = self.recogniser.ready
        self._expire(now)
        self._dispatch(now)
        self._watch_sockets()

    def _hear(self, event: Silence | TurnOver, over: TurnOver | None) -> None:
        """A decode of the first `windows` windows of this utterance is wanted, or awaited."""
        said = self._utterances[event.slot]
        self.on_call = said.call
        if said.call.generation.at != event.generation:
            return  # the caller is gone
        if (said.generation, said.number) != (event.generation, event.utterance):
            said.over = True  # vad tells things in order: nothing more will come about it
        self._copy(said)
        job = said.job
        if job is None or (job.utterance, job.windows) != (event.utterance, event.windows):
            if job is not None:
                self._discard(job)
            job = said.job = self._new_job(said, event)
        if over is not None:
            job.over = over
            said.over = True
            said.audio.clear()
            if job.done:
                self._publish(job)

    @staticmethod
    def _copy(said: _Utterance) -> None:
        """Empty the call's speech ring, up to the utterance after one whose end is not known.

        vad pushes every window before the event that names it, and sends the end of an utterance
        before it pushes the next one's first window.
        """
        speech = said.call.speech
        while (head := speech.peek()) is not None:
            generation, _, number, _, _ = head
            if (generation, number) != (said.generation, said.number):
                if generation == said.generation and not said.over:
                    return
                said.generation, said.number, said.over = generation, number, False
                said.audio.clear()
            record = speech.pop()
            assert record is not None, "peeked a moment ago, and nobody else may pop"
            said.audio += record[5]

    def _new_job(self, said: _Utterance, event: Silence | TurnOver) -> _Job:
        self._numbers += 1
        job = _Job(
            number=self._numbers,
            slot=event.slot,
            generation=event.generation,
            utterance=event.utterance,
            windows=event.windows,
            asked=time.monotonic(),
            audio=bytes(said.audio[: event.windows * WINDOW]),
        )
        self._queue.append(job)
        return job

    def _discard(self, job: _Job) -> None:
        """Speech went on: this decode stopped too early. One that is awaited goes on."""
        if job.over is not None:
            return
        if job in self._queue:
            self._queue.remove(job)
        elif job.began:
            self.wasted += 1

    def _dispatch(self, now: float) -> None:
        """Awaited decodes before those that run ahead; the oldest first."""
        self._queue.sort(key=lambda job: (job.over is None, job.number))
        while self._queue:
            job = self._queue[0]
            if self._utterances[job.slot].call.generation.at != job.generation:
                self._queue.pop(0)
                continue
            if not self.recogniser.submit(job.number, job.audio, now, job.asked + self._deadline):
                return
            job.began = time.monotonic_ns()
            self._running[job.number] = self._queue.pop(0)

    def _finish(self, result: Result) -> None:
        job = self._running.pop(result.job, None)
        if job is None:
            return
        self.on_call = self._utterances[job.slot].call
        job.ended = time.monotonic_ns()
        job.text, job.reason = result.text, result.reason
        job.audio = b""
        self.decoded += 1
        self.seconds.observe((job.ended - job.began) / 1e6)
        if result.text is None:
            self.failed += 1
            log.warning("utterance lost", slot=job.slot, reason=result.reason)
        if job.over is not None:
            self._publish(job)

    def _expire(self, now: float) -> None:
        """Nobody waits for ever: a job that found no worker in time is given up."""
        for job in [job for job in self._queue if now - job.asked > self._deadline]:
            self._queue.remove(job)
            job.ended = time.monotonic_ns()
            job.reason = "the recogniser had no time for it"
            self.failed += 1
            log.warning("utterance lost", slot=job.slot, reason=job.reason)
            if job.over is not None:
                self._publish(job)

    def _publish(self, job: _Job) -> None:
        over = job.over
        assert over is not None, "only awaited decodes are published"
        said = self._utterances[job.slot]
        if said.job is job:
            said.job = None
        self._to_reply.put(
            Transcript(
                slot=job.slot,
                generation=job.generation,
                epoch=over.epoch,
                text=job.text,
                spoke_until=over.spoke_until,
                turn_over=over.at,
                decode_began=job.began or job.ended,
                decode_ended=job.ended,
                at=time.monotonic_ns(),
                reason=job.reason,
            )
        )

    def _watch_sockets(self) -> None:
        """A worker that was restarted has a new socket."""
        now = set(self.recogniser.filenos())
        for fd in self._watched - now:
            self.inbox.forget(fd)
        for fd in now - self._watched:
            self.inbox.watch(fd)
        self._watched = now

    def finish(self) -> None:
        """End the workers."""
        self.recogniser.close(2.0)

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        yield milliseconds(
            "threadline_asr_decode_seconds", "Decode of one utterance.", self.seconds
        )
        yield gauge("threadline_asr_ready", "1 when the recogniser decodes.", float(self.ready))
        for name, help_text, value in (
            ("decodes", "Utterances decoded, in part or whole.", self.decoded),
            ("wasted", "Decodes begun ahead that the caller spoke on over.", self.wasted),
            ("failed", "Utterances that could not be recognised.", self.failed),
        ):
            yield counter(f"threadline_asr_{name}_total", help_text, value)
