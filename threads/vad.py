"""The `vad` thread: who is speaking, on every call.

Wakes on   its inbox: io-calls writes it when caller audio has arrived; asr's opinions of what is
           said over a talking agent; endpoint's and asr's patience with a pause.
Owns       the VAD's recurrent state, the speech machine and the pre-roll of every call.
Reads      a call's generation, busy and playing; whether its `outgoing` ring is empty; its
           `heard` ring.
Writes     hold and epoch of every call; the `speech` ring and `Silence`, `Doubt`, `TurnOver`,
           `Lapse` to asr; `FloorTaken`, `Lapse` to reply; wakes io-calls when an epoch rose.

It is the only authority on whether the caller has the floor and on where a turn ends; others only
advise. Audio of all calls is judged in one batch: one window of each call per run of the model.
What asr is given of an utterance begins with its onset: words are wanted before the floor is
taken.

There may be several, vad-1, vad-2, ..., each with a model and the calls of its own (shards.py).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..audio import mulaw
from ..config import Endpoint
from ..config import Vad as VadConfig
from ..listening.silero import Silero
from ..listening.speech import (
    PROTECTED,
    Doubted,
    Lapsed,
    Onset,
    Over,
    Paused,
    SpeechEvent,
    SpeechMachine,
    State,
    Taken,
)
from ..observe.histogram import LATENCY_MS, Histogram
from ..observe.prometheus import Sample, counter, milliseconds
from .calls import FRAME_AGE, WINDOW, Call
from .messages import Doubt, FloorTaken, Lapse, Opinion, Patience, Silence, TurnOver
from .wake import Inbox, Outbox

FRESH_FRAMES = 50
"""A second. When vad was held up for longer, older audio is skipped: late is worse than lost."""

FULL_NAP = 12
"""Windows at once for which batch_ms is the nap: fewer nap shorter, for an interruption's sake, and
more up to a quarter longer: beyond that a batch gains little, and an interruption waits."""
SHORTEST_NAP, LONGEST_NAP = 0.25, 1.25  # of batch_ms

SAMPLE_NS = 125_000
"""Nanoseconds of one sample, and byte, at 8 kHz."""


class _Ear:
    """What vad knows of one call."""

    __slots__ = (
        "call",
        "deaf",
        "generation",
        "heard_at",
        "machine",
        "pending",
        "preroll",
        "spoke_at",
        "utterance",
    )

    def __init__(self, call: Call, machine: SpeechMachine) -> None:
        self.call = call
        self.machine = machine
        self.preroll: deque[bytes] = deque(maxlen=machine.preroll)
        self.pending = bytearray()
        self.utterance = 0
        self.deaf = False  # a defect: this caller is heard no more, see `step`
        self.generation = 0
        self.heard_at = 0
        self.spoke_at = 0

    def reset(self, generation: int) -> None:
        self.generation = generation
        self.deaf = False
        self.machine.reset()
        self.preroll.clear()
        self.pending.clear()
        self.heard_at = 0


class VadStage:
    """See the module. `step` is one wake-up: drain every call, judge, tell.

    `judged`: somebody judges each pause (threads/endpoint.py); without, every turn ends after the
    same silence. `calls`: those that this thread hears; `wake_io` takes slots.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        config: VadConfig,
        endpoint: Endpoint,
        silero: Silero,
        inbox: Inbox,
        to_asr: Outbox[object],
        to_reply: Outbox[object],
        wake_io: Callable[[Iterable[int]], None],
        judged: bool,
    ) -> None:
        self.name = inbox.name
        self.inbox = inbox
        self.on_call: Call | None = None
        default = _default_patience(config, endpoint, judged)
        self._ears = {call.slot: _Ear(call, SpeechMachine(config, *default)) for call in calls}
        self._silero = silero
        self._to_asr = to_asr
        self._to_reply = to_reply
        self._wake_io = wake_io
        self._pause = config.batch_ms / 1000
        self._batch = 0  # windows of the last runs: the more calls, the longer the nap may be
        self._passed = False  # asr has windows that no event has woken it for
        # Reports.
        self.beat = 0
        self.age = Histogram(LATENCY_MS)  # one observation a run: the oldest window's
        self.windows = 0
        self.runs = 0
        self.skipped = 0
        self.lost = 0
        self.pauses = 0
        self.resumes = 0
        self.floors = 0
        self.doubts = 0

    def begin(self) -> None:
        """Nothing to make ready: the model was loaded before any thread started."""

    def step(self) -> None:
        """Wait for audio, let a few more calls' audio arrive, judge all of it."""
        self.beat += 1
        failed, self.on_call = self.on_call, None
        if failed is not None:  # the last turn raised on this call, which now ends: leave it alone
            self._ears[failed.slot].deaf = True
            failed.hold.at = 0  # or its apology would not be heard
        kept = self._to_asr.flush() and self._to_reply.flush()
        if not self.inbox.wait(1.0 if kept else 0.02):
            return
        # Every call has its own phase: without this nap each frame would be a batch of its own.
        self.inbox.nap(self._pause * min(max(self._batch / FULL_NAP, SHORTEST_NAP), LONGEST_NAP))
        self.inbox.clear()
        for event in self.inbox.events():
            self._advised(event)
        # Free slots are passed over here, without a call: there may be hundreds of them.
        full = [
            ear
            for ear in self._ears.values()
            if (ear.call.generation.at & 1 or ear.generation & 1) and self._collect(ear)
        ]
        self._batch = len(full)
        while full:
            self._judge(full)
            full = [ear for ear in full if len(ear.pending) >= WINDOW]
        self.on_call = None
        if self._passed:  # once for all calls and windows
            self._passed = False
            self._to_asr.wake()

    def _advised(self, event: object) -> None:
        """What asr or endpoint makes of what was said; the machine ignores what comes late."""
        assert isinstance(event, Opinion | Patience), event
        ear = self._ears[event.slot]
        call = self.on_call = ear.call
        if ear.deaf or not event.generation == ear.generation == call.generation.at:
            return  # the caller is gone
        if event.utterance != ear.utterance:
            events: Sequence[SpeechEvent] = ()
        elif isinstance(event, Patience):
            events = ear.machine.patience(event.windows, event.silence_ms, event.why)
        elif call.busy.at == PROTECTED:
            events = ()
        else:
            events = ear.machine.opinion(event.kind, event.windows)
        for one in events:
            self._act(ear, one)

    def _collect(self, ear: _Ear) -> bool:
        """Take what the caller said. True when there is a whole window of it."""
        call = self.on_call = ear.call
        generation = call.generation.at
        if generation != ear.generation:
            self._meet(ear, generation)
        if ear.deaf or not generation & 1:
            return False
        self.skipped += call.heard.skip_to(FRESH_FRAMES)
        while (record := call.heard.pop()) is not None:
            if record[0] > ear.generation:  # the slot's next call began after we had looked
                self._meet(ear, record[0])
            if record[0] == ear.generation:
                ear.pending += record[5]
                ear.heard_at = record[4]
        return len(ear.pending) >= WINDOW

    def _meet(self, ear: _Ear, generation: int) -> None:
        """Another caller in this slot, or nobody any more."""
        ear.reset(generation)
        self._silero.reset(ear.call.slot)
        if ear.call.hold.at:
            ear.call.hold.at = 0

    def _judge(self, ears: list[_Ear]) -> None:
        """One window of each of these calls, in one run of the model."""
        self.on_call = ears[0].call if len(ears) == 1 else None
        slots: NDArray[np.intp] = np.fromiter((ear.call.slot for ear in ears), np.intp, len(ears))
        windows = [bytes(ear.pending[:WINDOW]) for ear in ears]
        batch = mulaw.decode_float(b"".join(windows)).reshape(-1, WINDOW)
        chances = self._silero.run(slots, batch)
        power = np.einsum("ij,ij->i", batch, batch) / WINDOW
        levels = 10 * np.log10(power + 1e-12)  # dBFS; digital silence is -120
        self.runs += 1
        self.windows += len(ears)
        self.age.observe((time.monotonic_ns() - min(ear.heard_at for ear in ears)) / 1e6)
        judged = zip(ears, windows, chances.tolist(), levels.tolist(), strict=True)
        for ear, window, chance, level in judged:
            self.on_call = ear.call
            del ear.pending[:WINDOW]
            self._hear(ear, window, chance, level)

    def _hear(self, ear: _Ear, window: bytes, chance: float, level: float) -> None:
        machine, call = ear.machine, ear.call
        silent = machine.state is State.SILENCE
        # An answer that has left reply and not begun to play is in the ring.
        busy = call.busy.at or int(bool(call.playing.at or call.outgoing.depth()))
        events = machine.feed(chance, level, busy, len(ear.preroll))
        if machine.state is State.SPEECH:
            # The window ended so long before the newest frame did.
            ear.spoke_at = ear.heard_at - len(ear.pending) * SAMPLE_NS
        if not silent:
            self._pass_on(ear, window)  # before the event that names it
        for event in events:
            self._act(ear, event)
        if silent and machine.state is State.SPEECH:
            for earlier in (*ear.preroll, window):
                self._pass_on(ear, earlier)
        ear.preroll.append(window)

    def _act(self, ear: _Ear, event: SpeechEvent) -> None:
        call = ear.call
        now = time.monotonic_ns()
        match event:
            case Onset():
                ear.utterance += 1
                if call.busy.at != PROTECTED:
                    call.hold.at = 1  # the pacer takes no frame from its next tick on
                    self.pauses += call.playing.at
            case Doubted(windows, stopped):
                self.doubts += 1
                call.hold.at = 1  # it began in a greeting that is protected no more
                self._to_asr.put(Doubt(call.slot, ear.generation, ear.utterance, windows, stopped))
            case Taken():
                call.epoch.at += 1  # before hold is lifted: see calls.py
                call.hold.at = 0
                self.floors += 1
                self._wake_io((call.slot,))  # it sends the carrier's clear
                self._to_reply.put(FloorTaken(call.slot, ear.generation, call.epoch.at, now))
            case Lapsed():
                self.resumes += call.playing.at & call.hold.at
                call.hold.at = 0
                lapse = Lapse(call.slot, ear.generation, ear.utterance)
                self._to_asr.put(lapse)
                self._to_reply.put(lapse)
            case Paused(windows):
                self._to_asr.put(
                    Silence(call.slot, ear.generation, call.epoch.at, ear.utterance, windows, now)
                )
            case Over(windows, _, why):
                self._to_asr.put(
                    TurnOver(
                        call.slot,
                        ear.generation,
                        call.epoch.at,
                        ear.utterance,
                        windows,
                        ear.spoke_at,
                        now,
                        why,
                    )
                )

    def _pass_on(self, ear: _Ear, window: bytes) -> None:
        """Let asr have a window of this utterance. `tag` says which utterance."""
        call = ear.call
        self._passed = True
        if not call.speech.push(
            ear.generation, call.epoch.at, ear.utterance, 0, ear.heard_at, window
        ):
            self.lost += 1

    def finish(self) -> None:
        """Nothing to give back."""

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        yield milliseconds(
            FRAME_AGE, "How old a caller's audio is when it gets there.", self.age, hop="vad"
        )
        for name, help_text, value in (
            ("windows", "32 ms windows judged.", self.windows),
            ("runs", "Runs of the model; windows / runs is the batch size.", self.runs),
            ("skipped_frames", "Caller frames skipped as stale.", self.skipped),
            ("lost_windows", "Windows asr had no room for.", self.lost),
            ("pauses", "Times a playing agent was paused by an onset.", self.pauses),
            ("resumes", "Times it went on, because the onset was nothing.", self.resumes),
            ("doubts", "Times asr was asked what speech over the agent is.", self.doubts),
            ("floors", "Times the caller took the floor.", self.floors),
        ):
            yield counter(f"threadline_vad_{name}_total", help_text, value)


def _default_patience(config: VadConfig, endpoint: Endpoint, judged: bool) -> tuple[int, str]:
    """What ends a turn whose pause nobody has judged: ms of silence, and what to call it."""
    if endpoint.mode == "silence":
        return endpoint.complete_ms, "silence"
    if judged:
        return endpoint.patient_ms, "unjudged"
    return config.hangover_ms, "hangover"
