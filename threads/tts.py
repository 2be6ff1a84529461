"""The `tts` thread: clauses in, mu-law frames out, with the local voice.

Wakes on   its inbox: reply's clauses.
Owns       the voice (libespeak-ng's state is global: one thread for all calls), the cache of
           clauses already spoken, one resampler per call and reply.
Reads      a call's generation and epoch: a clause nobody will hear is not synthesized.
Writes     `Spoken` to reply.

One resampler runs through all clauses of a reply, so their joints have no click; a reply that
was interrupted leaves its resampler behind, and with it the tail nobody wants.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..audio import mulaw
from ..audio.stream import Resampler
from ..observe.histogram import LATENCY_MS, Histogram
from ..observe.prometheus import Sample, counter, milliseconds
from .calls import FRAME, Call
from .messages import CancelSpeech, EndOfSpeech, Speak, Spoken
from .wake import Inbox, Outbox

VOICE_MS = 1_500.0
"""The voice may take so long: a long clause, on a loaded machine."""

APOLOGY = "Sorry, something went wrong here. Please call again."


class Voice(Protocol):
    """What speaks: see models/piper.py."""

    rate: int

    def synthesize(self, text: str) -> NDArray[np.float32]:
        """One clause as float32 samples at `rate`."""


class _Reply:
    """The sound of one reply as it leaves: a running resampler and the part of a frame left."""

    __slots__ = ("epoch", "generation", "rest", "stream")

    def __init__(self, generation: int, epoch: int, rate: int) -> None:
        self.generation = generation
        self.epoch = epoch
        self.stream = Resampler(rate, mulaw.RATE)
        self.rest = b""

    def frames(self, samples: NDArray[np.float32], *, end: bool) -> bytes:
        """Whole frames of what can be said by now; at the end, all of it."""
        audio = self.rest + mulaw.encode_float(self.stream.feed(samples))
        if end:
            audio += mulaw.encode_float(self.stream.finish())
            audio += mulaw.SILENCE_BYTE * (-len(audio) % FRAME)
        whole = len(audio) - len(audio) % FRAME
        self.rest = audio[whole:]
        return audio[:whole]


class _Cache:
    """Clauses already spoken, least recently used first, bounded in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._clauses: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self.hits = 0

    def get(self, text: str) -> NDArray[np.float32] | None:
        samples = self._clauses.get(text)
        if samples is not None:
            self._clauses.move_to_end(text)
            self.hits += 1
        return samples

    def put(self, text: str, samples: NDArray[np.float32]) -> None:
        if samples.nbytes > self._limit:
            return
        self._clauses[text] = samples
        self._size += samples.nbytes
        while self._size > self._limit:
            _, oldest = self._clauses.popitem(last=False)
            self._size -= oldest.nbytes


class TtsStage:
    """See the module. `step` is one clause."""

    name = "tts"

    def __init__(
        self,
        calls: Sequence[Call],
        cache_bytes: int,
        load: Callable[[], Voice],
        warm: Sequence[str],
        inbox: Inbox,
        to_reply: Outbox[object],
    ) -> None:
        self.inbox = inbox
        self.on_call: Call | None = None
        self._calls = calls
        self._replies: dict[int, _Reply] = {}
        self._cache = _Cache(cache_bytes)
        self._load = load
        self._warm = warm
        self.apology = b""  # for a call that a defect ends; made before the first call
        self._voice: Voice | None = None
        self._to_reply = to_reply
        self._waiting: deque[object] = deque()  # reply asks two clauses ahead: 2 * max_calls
        # Reports.
        self.beat = 0
        self.clauses = 0
        self.spared = 0
        self.seconds = Histogram(LATENCY_MS)

    def begin(self) -> None:
        """Load the voice on the thread that will use it, and speak what will be needed first."""
        self._voice = self._load()
        self.apology = _Reply(0, 0, self._voice.rate).frames(self._synthesize(APOLOGY), end=True)
        for text in self._warm:
            self._synthesize(text)

    def step(self) -> None:
        """Take what came; speak one clause."""
        self.beat += 1
        self.on_call = None
        kept = self._to_reply.flush()
        if not self._waiting:
            self.inbox.wait(1.0 if kept else 0.02)
        for event in self.inbox.events():
            if isinstance(event, CancelSpeech):
                self._cancel(event)
            else:
                self._waiting.append(event)
        if self._waiting:
            self._handle(self._waiting.popleft())

    def _cancel(self, event: CancelSpeech) -> None:
        """Nobody waits for what this call was to say until now."""
        kept = [one for one in self._waiting if not _of(one, event)]
        self.spared += len(self._waiting) - len(kept)
        self._waiting = deque(kept)
        reply = self._replies.get(event.slot)
        if reply is not None and (reply.generation, reply.epoch) <= (event.generation, event.epoch):
            del self._replies[event.slot]

    def _handle(self, event: object) -> None:
        if isinstance(event, Speak):
            self._speak(event)
        elif isinstance(event, EndOfSpeech):
            self._end(event)

    def _reply(self, event: Speak | EndOfSpeech) -> _Reply | None:
        """The running sound of this reply; None when nobody will hear it."""
        call = self.on_call = self._calls[event.slot]
        if call.generation.at != event.generation or call.epoch.at != event.epoch:
            self.spared += 1
            self._replies.pop(event.slot, None)
            return None
        reply = self._replies.get(event.slot)
        if reply is None or (reply.generation, reply.epoch) != (event.generation, event.epoch):
            assert self._voice is not None, "begin() ran first"
            reply = _Reply(event.generation, event.epoch, self._voice.rate)
            self._replies[event.slot] = reply
        return reply

    def _speak(self, event: Speak) -> None:
        reply = self._reply(event)
        if reply is None:
            return
        began = time.monotonic_ns()
        reason = ""
        try:
            samples = self._synthesize(event.text)
        except Exception as error:  # noqa: BLE001  # onnxruntime's errors share no nearer base
            samples, reason = np.zeros(0, np.float32), str(error)
        audio = reply.frames(samples, end=False)
        now = time.monotonic_ns()
        self.clauses += 1
        self.seconds.observe((now - began) / 1e6)
        assert self._voice is not None, "begin() ran first"
        length = len(samples) * 1000 // self._voice.rate
        self._send(event, audio, length, ended=False, reason=reason)

    def _end(self, event: EndOfSpeech) -> None:
        reply = self._reply(event)
        if reply is None:
            return
        audio = reply.frames(np.zeros(0, np.float32), end=True)
        del self._replies[event.slot]
        self._send(event, audio, 0, ended=True, reason="")

    def _send(
        self, event: Speak | EndOfSpeech, audio: bytes, length: int, *, ended: bool, reason: str
    ) -> None:
        self._to_reply.put(
            Spoken(
                slot=event.slot,
                generation=event.generation,
                epoch=event.epoch,
                clause=event.clause,
                audio=audio,
                duration_ms=length,
                ended=ended,
                at=time.monotonic_ns(),
                reason=reason,
            )
        )

    def _synthesize(self, text: str) -> NDArray[np.float32]:
        samples = self._cache.get(text)
        if samples is None:
            assert self._voice is not None, "begin() ran first"
            with self.inbox.awake.longer(VOICE_MS):
                samples = self._voice.synthesize(text)
            self._cache.put(text, samples)
        return samples

    def finish(self) -> None:
        """Nothing to give back."""

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        yield milliseconds("threadline_tts_clause_seconds", "Speech of one clause.", self.seconds)
        for name, help_text, value in (
            ("clauses", "Clauses spoken.", self.clauses),
            ("cache_hits", "Of them, from the cache.", self._cache.hits),
            ("spared", "Clauses not synthesized: the caller had taken the floor.", self.spared),
        ):
            yield counter(f"threadline_tts_{name}_total", help_text, value)


def _of(order: object, cancel: CancelSpeech) -> bool:
    """Is this order one of those that the cancel is about?"""
    return (
        isinstance(order, Speak | EndOfSpeech)
        and order.slot == cancel.slot
        and (order.generation, order.epoch) <= (cancel.generation, cancel.epoch)
    )
