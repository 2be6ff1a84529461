"""The `asr` thread: what the caller said.

Wakes on   its inbox: vad's windows and events; Deepgram's texts from io-vendors; the recogniser's
           sockets.
Owns       the utterance of every call, who is asked for its text (transcribe.py,
           asr_whisper.py), the recogniser's workers (asr_process.py).
Reads      a call's `speech` ring.
Writes     `Transcript` and `Partial` to reply; `Opinion` and `Patience` to vad; `JudgeTurn` to
           endpoint (asr_judging.py); `HearChunk`, `HearFinal`, `HearForget` to io-vendors.

The text of an utterance is asked for at the first sign of silence (`Silence`), ahead of the end
of the turn, and when it is to be known what is said over a talking agent (`Doubt`); it covers
exactly the windows that `TurnOver` will name unless speech goes on. It is asked of the first of
the chain; the audio is kept until there is a text, so that the next one can be asked when that
one fails or is late. This thread copies and dispatches only, on every turn of its loop: an
utterance may be seven times as long as the ring.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from ..chains import names
from ..config import Config
from ..listening.backchannel import classify
from ..listening.speech import windows as whole_windows
from ..observe.histogram import LATENCY_MS, Histogram
from ..observe.prometheus import Sample, counter, gauge, milliseconds
from ..observe.words import contradicted
from .asr_judging import Judging
from .asr_process import Recogniser
from .asr_whisper import Whisper
from .calls import FRAME_AGE, WINDOW, Call
from .logs import logger
from .messages import (
    Doubt,
    Heard,
    HearFailed,
    Lapse,
    Partial,
    Silence,
    Transcript,
    TurnOver,
)
from .transcribe import LATE, Answer, Deepgram, Growing, Source, Utterance
from .wake import Inbox, Outbox

log = logger("asr")

_NEARLY = 480
"""Bytes, 60 ms: a word that ends in them was recognised without them."""

VadEvent = Silence | Doubt | TurnOver | Lapse


class AsrStage:
    """See the module. `step` is one wake-up.

    `recogniser` is None when Whisper is not in the chain, `to_vendors` when Deepgram is not,
    `to_endpoint` when nobody judges pauses.
    """

    name = "asr"

    def __init__(
        self,
        calls: Sequence[Call],
        config: Config,
        recogniser: Recogniser | None,
        inbox: Inbox,
        to_reply: Outbox[object],
        to_vad: Outbox[object],
        to_endpoint: Outbox[object] | None,
        to_vendors: Outbox[object] | None,
    ) -> None:
        self.inbox = inbox
        self.on_call: Call | None = None
        self.recogniser = recogniser
        self._config = config
        self._to_reply = to_reply
        self._judging = Judging(config.endpoint, to_vad, to_endpoint)
        outboxes = (to_reply, to_vad, to_endpoint, to_vendors)
        self._outboxes = [outbox for outbox in outboxes if outbox is not None]
        self._whisper = None if recogniser is None else Whisper(config.asr, config.stt, recogniser)
        self._deepgram = None if to_vendors is None else Deepgram(to_vendors)
        kinds: dict[str, Source | None] = {"whisper": self._whisper, "deepgram": self._deepgram}
        self._probe = whole_windows(config.vad.probe_ms) * WINDOW
        self._chain = [kind for name in names(config.stt.chain) if (kind := kinds[name])]
        assert self._chain, "somebody has to be in the chain"
        self._speaking = [Utterance(call, 0, 0, ended=True) for call in calls]
        self._waiting: dict[tuple[int, int], Utterance] = {}  # over, and their text is not out
        self._watched: set[int] = set()
        # Reports.
        self.age = Histogram(LATENCY_MS)  # of each window taken
        self.beat = 0
        self.failed = 0
        self.oldest = 0.0  # s, monotonic: since when the first turn waits for its text; 0: none
        self.ready = False  # the recogniser, if there is one, decodes
        self.fallbacks = {source.name: 0 for source in self._chain}
        self.committed = 0
        self.contradicted = 0

    @property
    def decoding(self) -> bool:
        """A worker of the recogniser is at it. For reports, from any thread."""
        return self._whisper is not None and bool(self._whisper.running)

    @property
    def queued(self) -> int:
        """Finished turns for which no worker is free. For reports, from any thread."""
        return 0 if self._whisper is None else self._whisper.queued

    def begin(self) -> None:
        """Start the workers; they load the model while calls may already be greeted."""
        if self.recogniser is not None:
            self.recogniser.start()
        self.ready = self.recogniser is None
        self._watch_sockets()

    def step(self) -> None:
        """Wait; take events, audio and texts; ask whoever is to be asked."""
        self.beat += 1
        self.on_call = None
        unsent = [outbox for outbox in self._outboxes if not outbox.flush()]
        busy = self._waiting or (self._whisper is not None and self._whisper.busy)
        self.inbox.wait(0.02 if unsent else 0.1 if busy else 1.0)
        now = time.monotonic()
        for event in self.inbox.events():
            if isinstance(event, VadEvent):
                self._told(event, now)
            elif isinstance(event, Heard | HearFailed):
                assert self._deepgram is not None, "who is not in the chain was not asked"
                self._deepgram.heard(event)
        for earlier in self._speaking:
            if earlier.call.speech.depth():  # most are silent
                self._copy(earlier.call)
            said = self._speaking[earlier.call.slot]
            if said.fresh and not said.ended:
                said.fresh = False
                self._source(said).more(said)
        now = time.monotonic()
        for source in self._chain:
            for answer in source.answers(now):
                said = answer.utterance
                if said.closed or said.gone or self._source(said) is not source:
                    continue  # nobody waits for it any more
                self.on_call = said.call
                if isinstance(answer, Answer):
                    self._answered(answer, now)
                else:
                    self._grown(answer)
        self._check_waiting(now)
        for source in self._chain:
            source.go(now)
        self.ready = self.recogniser is None or self.recogniser.ready
        self._watch_sockets()

    # -- what vad tells ------------------------------------------------------------------------

    def _told(self, event: VadEvent, now: float) -> None:
        call = self.on_call = self._speaking[event.slot].call
        if call.generation.at != event.generation:
            return  # the caller is gone
        said = self._find(event)
        match event:
            case Lapse():
                self._end(said)
            case Doubt(windows=windows):
                said.doubt = windows
                self._want(said, windows, now)
            case Silence(windows=windows):
                said.epoch, said.pause, said.doubt = event.epoch, windows, 0
                self._want(said, windows, now)
                self._guess_words(said)
                self._judging.ask(said, awaited=self._source(said) is self._whisper)
            case TurnOver(windows=windows):
                said.epoch, said.over, said.doubt = event.epoch, event, 0
                said.ended = True
                self._waiting[said.key] = said
                self._limit(said, now)
                self._want(said, windows, now)

    def _find(self, event: VadEvent) -> Utterance:
        """The utterance that an event is about, with all of its audio that vad knows of."""
        said = self._speaking[event.slot]
        if not said.matches(event):
            self._end(said)  # vad tells things in order: nothing more will come about it
        self._copy(said.call)
        said = self._speaking[event.slot]
        if not said.matches(event):  # all of its audio was lost
            said = self._begin(said.call, event.generation, event.utterance)
        return said

    def _begin(self, call: Call, generation: int, number: int) -> Utterance:
        said = self._speaking[call.slot] = Utterance(call, generation, number)
        self._pass_over(said)
        return said

    def _end(self, said: Utterance) -> None:
        """It came to nothing, or its end was never told: its caller is gone."""
        if not said.ended:
            said.ended = said.closed = True
            self._source(said).forget(said)

    def _copy(self, call: Call) -> None:
        """Empty the call's speech ring, up to the utterance after one whose end is not known.

        vad pushes every window before the event that names it, and sends the end of an utterance
        before it pushes the next one's first window.
        """
        speech = call.speech
        said = self._speaking[call.slot]
        now = time.monotonic_ns()
        while (head := speech.peek()) is not None:
            generation, epoch, number, _, _ = head
            if (generation, number) != (said.generation, said.number):
                if generation == said.generation and not said.ended:
                    break
                self._end(said)
                said = self._begin(call, generation, number)
                said.onset_epoch = epoch
            elif said.epoch < 0 and epoch != said.onset_epoch:
                said.epoch, said.doubt = epoch, 0  # it rose within: the floor was taken
            record = speech.pop()
            assert record is not None, "peeked a moment ago, and nobody else may pop"
            said.audio += record[5]
            self.age.observe((now - record[4]) / 1e6)
            said.fresh = True

    # -- who is asked --------------------------------------------------------------------------

    def _source(self, said: Utterance) -> Source:
        return self._chain[said.source]

    def _last(self, said: Utterance) -> bool:
        return said.source == len(self._chain) - 1

    def _pass_over(self, said: Utterance) -> None:
        """Leave out those that cannot be asked now, as long as there is somebody after them."""
        while not (self._last(said) or self._source(said).usable):
            said.source += 1

    def _want(self, said: Utterance, windows: int, now: float) -> None:
        """The text of so many windows is wanted, of the first of the chain who can give it."""
        if said.asked != windows:
            said.asked = windows
            self._source(said).ask(said, windows, now)
        elif said.known == windows:
            self._use(said)

    def _limit(self, said: Utterance, now: float) -> None:
        """Whoever is asked has so long. Whisper, the last one, has a deadline of its own."""
        limited = not self._last(said) or self._source(said) is self._deepgram
        said.due = now + self._config.stt.final_seconds if limited else 0.0

    def _fall_back(self, said: Utterance, reason: str, now: float) -> bool:
        """Ask the next of the chain. False: there is none."""
        if self._last(said):
            return False
        source = self._source(said)
        log.warning("recogniser gave up", name=source.name, slot=said.call.slot, reason=reason)
        source.forget(said)
        self.fallbacks[source.name] += 1
        said.source += 1
        self._pass_over(said)
        if said.over is not None:
            self._limit(said, now)
        if said.asked:
            self._source(said).ask(said, said.asked, now)
        return True

    def _check_waiting(self, now: float) -> None:
        """Nobody waits for ever."""
        turns = [said.over.at for said in self._waiting.values() if said.over is not None]
        self.oldest = min(turns, default=0) / 1e9
        for said in list(self._waiting.values()):
            self.on_call = said.call
            if said.gone:
                said.closed = True
                del self._waiting[said.key]
                self._source(said).forget(said)
            elif said.due and said.due <= now and not self._fall_back(said, LATE, now):
                self._source(said).forget(said)
                self._answered(Answer(said, said.asked, None, LATE), now, final=True)

    # -- what the sources tell -----------------------------------------------------------------

    def _answered(self, answer: Answer, now: float, *, final: bool = False) -> None:
        said = answer.utterance
        if answer.text is None and not final and self._fall_back(said, answer.reason, now):
            return
        if answer.windows != said.asked:
            self._overtaken(said, answer)
            return
        said.known, said.text, said.reason = answer.windows, answer.text, answer.reason
        said.answered = answer.ended or time.monotonic_ns()
        said.began = answer.began or said.answered
        self._use(said)

    def _use(self, said: Utterance) -> None:
        """The text that was asked for last is here: whoever waits for it gets it."""
        if said.over is not None:
            self._publish(said, said.over)
        elif said.text is None:
            return  # another pause, or the end, asks again
        elif said.doubt:
            self._judging.opine(said, said.doubt, classify(said.text))
        elif said.pause == said.known:
            if said.text:
                self._show(said, said.text, paused=True)
            self._judging.take_words(said, said.text)

    def _guess_words(self, said: Utterance) -> None:
        """An interim text that reaches to the end of the speech is most often the whole of it: the
        model may be asked with it, 60 ms and more before the final text. Once a pause."""
        spoken = said.pause * WINDOW - self._probe
        if said.tried == said.pause or said.known == said.pause or said.over is not None:
            return
        if said.guess and said.guessed >= spoken - _NEARLY:
            said.tried = said.pause
            self._show(said, said.guess, paused=True)

    def _overtaken(self, said: Utterance, answer: Answer) -> None:
        """More was said since. Words over a talking agent are news all the same."""
        if said.doubt and answer.text:
            self._judging.opine_early(said, answer.windows, answer.text)

    def _grown(self, growing: Growing) -> None:
        said = growing.utterance
        if said.ended or not growing.text:
            return
        if growing.fixed or self._config.stt.partials:
            self._show(said, growing.text, paused=False)
        said.guess, said.guessed = growing.text, growing.covered
        if said.pause:
            self._guess_words(said)
        if said.doubt:
            self._judging.opine_early(said, said.doubt, growing.text)

    def _publish(self, said: Utterance, over: TurnOver) -> None:
        said.closed = True
        del self._waiting[said.key]
        source = self._source(said)
        source.done(said)
        if said.text is None:
            self.failed += 1
            log.warning("utterance lost", slot=over.slot, reason=said.reason)
        elif committed := said.agreement.committed:
            words, wrong = contradicted(committed, said.text)
            self.committed += words
            self.contradicted += wrong
        self._to_reply.put(
            Transcript(
                slot=over.slot,
                generation=over.generation,
                epoch=over.epoch,
                text=said.text,
                spoke_until=over.spoke_until,
                turn_over=over.at,
                decode_began=said.began,
                decode_ended=said.answered,
                at=time.monotonic_ns(),
                reason=said.reason,
                why=over.why,
                source=source.name,
            )
        )

    def _show(self, said: Utterance, text: str, *, paused: bool) -> None:
        """Let reply know what was said so far, in a turn that has begun."""
        if said.epoch < 0 or (said.shown.startswith(text) and not paused):
            return  # it says less than what was shown, or no more
        said.shown = text
        slot, at = said.call.slot, time.monotonic_ns()
        self._to_reply.put(
            Partial(slot, said.generation, said.epoch, said.number, text, paused, at)
        )

    # -- the rest --------------------------------------------------------------------------------

    def _watch_sockets(self) -> None:
        """A worker that was restarted has a new socket."""
        if self.recogniser is None:
            return
        now = set(self.recogniser.filenos())
        for fd in self._watched - now:
            self.inbox.forget(fd)
        for fd in now - self._watched:
            self.inbox.watch(fd)
        self._watched = now

    def finish(self) -> None:
        """End the workers."""
        if self.recogniser is not None:
            self.recogniser.close(2.0)

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        yield milliseconds(
            FRAME_AGE, "How old a caller's audio is when it gets there.", self.age, hop="asr"
        )
        yield gauge("threadline_asr_ready", "1 when the recogniser decodes.", float(self.ready))
        if self._whisper is not None:
            yield from self._whisper.samples()
        for name, help_text, value in (
            ("failed", "Utterances that could not be recognised.", self.failed),
            ("committed_words", "Words of partials that were said to stay.", self.committed),
            ("contradicted_words", "Of these, not in the final text.", self.contradicted),
        ):
            yield counter(f"threadline_asr_{name}_total", help_text, value)
        for name, count in self.fallbacks.items():
            about = "Utterances that were passed on to the next recogniser."
            yield counter("threadline_asr_fallbacks_total", about, count, source=name)
        yield from self._judging.samples()
