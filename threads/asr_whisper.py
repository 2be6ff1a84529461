"""Whisper beside us: who decodes what, and when. Part of the `asr` thread; see transcribe.py.

All calls share the recogniser's workers. Turns that have ended go first, then what an agent waits
for, then decodes ahead of a turn's end; partials take what is left. What was asked for a pause
that was none is taken off the queue; a decode that is under way cannot be called back. Finished
turns that outnumber the free workers are decoded together.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from ..config import Asr, Stt
from ..listening.agreement import Word
from ..observe.histogram import LATENCY_MS, Histogram
from ..observe.prometheus import Sample, counter, gauge, milliseconds
from .asr_process import TOGETHER, Recogniser, Result
from .calls import WINDOW
from .transcribe import NO_TIME, RATE, Answer, Decode, Growing, Utterance


class Whisper:
    """Decodes of whole utterances, dispatched to the recogniser's workers.

    A partial takes a worker only while another one stays free, so that it never delays the text
    of a turn: with one worker there are none.
    """

    name = "whisper"

    def __init__(self, config: Asr, stt: Stt, recogniser: Recogniser) -> None:
        self.recogniser = recogniser
        self._deadline = config.deadline_seconds
        self._partial_bytes = stt.partial_ms * RATE // 1000 if stt.partials else 0
        self._queue: list[Decode] = []  # bounded: one an utterance, and those by the deadline
        self.running: dict[int, Decode] = {}
        self._wishes: dict[tuple[int, int], Utterance] = {}  # a partial would be due
        self._answers: list[Answer | Growing] = []
        self._numbers = 0
        # Reports.
        self.decoded = 0
        self.shared = 0
        self.wasted = 0
        self.partials = 0
        self.dropped = 0
        self.queued = 0  # finished turns that found no worker
        self.seconds = Histogram(LATENCY_MS)
        self.waits = Histogram(LATENCY_MS)

    @property
    def usable(self) -> bool:
        """A worker has its model."""
        return self.recogniser.ready

    @property
    def busy(self) -> bool:
        """Somebody waits for a worker or an answer."""
        return bool(self._queue or self.running)

    def more(self, utterance: Utterance) -> None:
        """Wish for a partial once there is enough new speech."""
        fresh = len(utterance.audio) - utterance.partial_at
        if self._partial_bytes and fresh >= self._partial_bytes and utterance.epoch >= 0:
            self._wishes[utterance.key] = utterance

    def ask(self, utterance: Utterance, windows: int, now: float) -> None:
        """Queue a decode, unless it is this very one that is queued or under way."""
        if utterance.job is not None:
            if utterance.job.windows == windows:
                return
            self._discard(utterance.job)
        utterance.job = self._decode(utterance, windows, now)
        utterance.job.ahead = utterance.pause == windows and utterance.over is None
        self._queue.append(utterance.job)

    def forget(self, utterance: Utterance) -> None:
        """Take it off the queue; what is under way goes on, for nobody."""
        self._unwish(utterance)
        if utterance.job is not None:
            self._discard(utterance.job)
            utterance.job = None

    def done(self, utterance: Utterance) -> None:
        """Nothing is left of it but perhaps a wish."""
        self._unwish(utterance)
        utterance.job = None

    def answers(self, now: float) -> Sequence[Answer | Growing]:
        """What the workers have done."""
        self.recogniser.tick(now)
        for result in self.recogniser.collect(now):
            self._finish(result)
        for job in [job for job in self._queue if now - job.asked > self._deadline]:
            self._queue.remove(job)
            at = time.monotonic_ns()
            self._answers.append(Answer(job.utterance, job.windows, None, NO_TIME, at, at))
        answers, self._answers = self._answers, []
        return answers

    def go(self, now: float) -> None:
        """Give the workers what they can take, the most urgent first."""
        self._queue.sort(key=lambda job: job.rank)
        self._queue = [job for job in self._queue if not job.utterance.gone]
        while self._queue and self.recogniser.idle and (taken := self._begin_next(now)):
            del self._queue[:taken]
        self.queued = self._finished()
        while not self._queue and self._wishes and self.recogniser.idle > 1:
            utterance = self._wishes.pop(next(iter(self._wishes)))  # the oldest
            if not (utterance.ended or utterance.partial or utterance.gone):
                self._begin_partial(utterance, now)

    def _finished(self) -> int:
        """How many of those that wait are of a turn that has ended."""
        return sum(job.utterance.over is not None for job in self._queue)

    def _begin_next(self, now: float) -> int:
        """Give a free worker the first of the queue. Returns how many it took."""
        too_many = self._finished() - self.recogniser.idle  # they are the first of the queue
        jobs = self._queue[: max(1, min(1 + too_many, TOGETHER))]
        orders = [
            (job.number, job.utterance.audio[: job.windows * WINDOW], job.asked + self._deadline)
            for job in jobs
        ]
        if not self.recogniser.submit_together(orders, now):
            return 0
        for job in jobs:
            self._begun(job)
            self.waits.observe(job.began / 1e6 - job.asked * 1e3)
        self.shared += len(jobs) if len(jobs) > 1 else 0
        return len(jobs)

    def _decode(
        self, utterance: Utterance, windows: int, now: float, *, partial: bool = False
    ) -> Decode:
        self._numbers += 1
        return Decode(self._numbers, utterance, windows, now, partial)

    def _unwish(self, utterance: Utterance) -> None:
        self.dropped += self._wishes.pop(utterance.key, None) is not None

    def _discard(self, job: Decode) -> None:
        """Speech went on: this decode stopped too early."""
        if job in self._queue:
            self._queue.remove(job)
        elif job.began and job.ahead:
            self.wasted += 1

    def _begin_partial(self, utterance: Utterance, now: float) -> None:
        windows = len(utterance.audio) // WINDOW
        job = self._decode(utterance, windows, now, partial=True)
        audio = utterance.audio[round(utterance.partial_from * RATE) :]
        if self.recogniser.submit(job.number, audio, now, now + self._deadline, words=True):
            utterance.partial, utterance.partial_at = True, len(utterance.audio)
            self._begun(job)

    def _begun(self, job: Decode) -> None:
        job.began = time.monotonic_ns()
        self.running[job.number] = job

    def _finish(self, result: Result) -> None:
        job = self.running.pop(result.job, None)
        if job is None:
            return
        about, ended = job.utterance, time.monotonic_ns()
        if job.partial:
            self._finish_partial(job, result)
            return
        self.decoded += 1
        self.seconds.observe((ended - job.began) / 1e6)
        text, reason = result.text, result.reason
        self._answers.append(Answer(about, job.windows, text, reason, job.began, ended))

    def _finish_partial(self, job: Decode, result: Result) -> None:
        about = job.utterance
        about.partial = False
        if about.ended or about.gone or result.text is None:
            self.dropped += 1
            return
        self.partials += 1
        begin = about.partial_from
        words = [Word(one.text, begin + one.start, begin + one.end) for one in result.words]
        if about.agreement.feed(words):
            self._answers.append(Growing(about, about.agreement.committed, fixed=True))
        about.partial_from = about.agreement.trim(begin, job.windows * WINDOW / RATE)

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        about = "Decode of one utterance."
        yield milliseconds("threadline_asr_decode_seconds", about, self.seconds)
        about = "From the wish for an utterance's text until a worker took it."
        yield milliseconds("threadline_asr_wait_seconds", about, self.waits)
        about = "Finished turns that wait for a worker."
        yield gauge("threadline_asr_queue", about, float(self.queued))
        for name, help_text, value in (
            ("decodes", "Utterances decoded, in part or whole.", self.decoded),
            ("shared", "Of them, in one run with another.", self.shared),
            ("wasted", "Decodes begun ahead that the caller spoke on over.", self.wasted),
            ("partials", "Decodes of what a caller had said so far.", self.partials),
            ("partials_dropped", "Those that found no worker, or came too late.", self.dropped),
        ):
            yield counter(f"threadline_asr_{name}_total", help_text, value)
