"""One slot of the call table, shared as the stages share it, by threads that imitate them.

The call, its rings and the pacer are production code; the others do on each turn what their stage
does to what is shared, in the same order, and nothing else:

    io-calls  raises the generation at both ends of a call, feeds `heard`, follows the epoch and
              sends what is due under it
    vad       skips to fresh audio, holds, raises the epoch and lifts the hold, or only lifts it;
              hands windows to asr
    asr       copies windows out
    reply     follows what it is told, fills `outgoing`, numbers the frames of an epoch from 0
    pacer     the real one, its clock turned by hand
    watch     reads everybody's counts

Held to: what is sent is of this caller and of the epoch that was cleared for, and within one
epoch it is 0, 1, 2, ...; generation and epoch never fall; windows arrive whole, the newer later.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from threadline.config import Pacer as PacerConfig
from threadline.observe.prometheus import render
from threadline.threads.calls import FRAME, WINDOW, Call
from threadline.threads.messages import CallClosed, CallOpened, Event, FloorTaken
from threadline.threads.pacer import Pacer
from threadline.threads.ring import AudioRing
from threadline.threads.wake import Inbox, Outbox

from ..bout import Bout, Crew

CALLERS = 5
SENT = 40
"""Frames that each caller stays for."""

FIRST_EPOCH = 250  # so that epochs grow into ints that are not immortal


class Table:
    """The slot, the inboxes and what was counted. Each method is one thread's turn."""

    def __init__(self, bout: Bout, nap: Callable[[Crew], None]) -> None:
        self.bout = bout
        self.crew = Crew(bout)
        self.nap = nap
        call = self.call = Call(0)
        call.epoch.at = FIRST_EPOCH
        call.heard, call.speech = AudioRing(4, FRAME), AudioRing(2, WINDOW)
        call.outgoing, call.due = AudioRing(3, FRAME), AudioRing(2, FRAME)
        self.for_io, self.for_vad, self.for_reply = Inbox("io"), Inbox("vad"), Inbox("reply")
        self.io_to_reply: Outbox[Event] = self.for_reply.port("io-calls", 2)
        self.vad_to_reply: Outbox[Event] = self.for_reply.port("vad", 2)
        self.pacer = Pacer([call], PacerConfig(prebuffer_ms=20, subticks=1), [self.for_io.wake])
        self.sent = self.stale = self.clears = 0

    def threads(self) -> dict[str, Callable[[], None]]:
        """Bodies by name. io-calls ends the others when its callers have had their frames."""
        return {
            "io_calls": self.io_calls,
            "vad": self.vad,
            "asr": self.asr,
            "reply": self.reply,
            "pacer": self.pace,
            "watch": self.watch,
        }

    def close(self) -> None:
        """After the threads have ended."""
        for inbox in (self.for_io, self.for_vad, self.for_reply):
            inbox.close()

    # -- io-calls ------------------------------------------------------------------------------

    def io_calls(self) -> None:
        for _ in range(CALLERS):
            self._one_caller()
        self.crew.over = True
        self.for_vad.wake()
        self.for_reply.wake()

    def _one_caller(self) -> None:
        call = self.call
        call.generation.at += 1
        generation, epoch = call.generation.at, call.epoch.at
        self.io_to_reply.put(CallOpened(0, generation, "CA", {}))
        until = self.sent + SENT
        wanted = 0
        while self.sent < until and not self.crew.over:
            self.io_to_reply.flush()
            call.heard.push(generation, 0, 0, 0, 0, bytes(FRAME))
            self.for_vad.wake()
            self.for_io.wait(0.001)
            now = call.epoch.at
            if now != epoch:
                self.bout.expect(now > epoch, f"the epoch fell from {epoch} to {now}")
                epoch, wanted, self.clears = now, 0, self.clears + 1
            while (due := call.due.pop()) is not None:
                of, under, number, _, _, payload = due
                if of == generation and under > epoch:
                    now = call.epoch.at
                    self.bout.expect(now >= under, f"a frame of epoch {under} came before it")
                    epoch, wanted, self.clears = now, 0, self.clears + 1
                if of != generation or under != epoch:
                    self.stale += 1
                    continue
                self.bout.expect(
                    number == wanted and payload == frame(generation, epoch, number),
                    f"frame {wanted} of epoch {epoch} was due, {due} was sent",
                )
                wanted += 1
                self.sent += 1
        call.generation.at += 1
        self.io_to_reply.put(CallClosed(0, generation, "enough"))
        self.for_vad.wake()

    # -- the other stages ----------------------------------------------------------------------

    def vad(self) -> None:
        call, rng = self.call, self.bout.draws("vad")
        seen = utterance = 0
        while not self.crew.over:
            self.for_vad.wait(0.02)
            self.vad_to_reply.flush()
            generation = call.generation.at
            self.bout.expect(generation >= seen, f"the generation fell from {seen} to {generation}")
            if generation != seen:
                seen = generation
                call.hold.at = 0
            if not generation & 1:
                continue
            call.heard.skip_to(2)
            while (heard := call.heard.pop()) is not None:
                if heard[0] == generation and rng.random() < 0.4:
                    utterance += 1
                    self._speech(generation, utterance, taken=rng.random() < 0.5)

    def _speech(self, generation: int, utterance: int, taken: bool) -> None:
        call = self.call
        call.hold.at = 1
        _ = call.busy.at or call.playing.at
        time.sleep(0)
        if taken:
            call.epoch.at += 1  # before hold is lifted: see calls.py
            call.hold.at = 0
            self.for_io.wake()
            self.vad_to_reply.put(FloorTaken(0, generation, call.epoch.at, 0))
        else:
            call.hold.at = 0
        window = utterance.to_bytes(4, "little") * (WINDOW // 4)
        call.speech.push(generation, call.epoch.at, utterance, 0, 0, window)

    def asr(self) -> None:
        last = (0, 0, 0)
        while not self.crew.over:
            record = self.call.speech.pop()
            if record is None:
                self.nap(self.crew)
                continue
            generation, epoch, utterance, _, _, window = record
            here = (generation, epoch, utterance)
            whole = window == utterance.to_bytes(4, "little") * (WINDOW // 4)
            self.bout.expect(whole and here > last, f"window {here} came after {last}")
            last = here

    def reply(self) -> None:
        call = self.call
        generation = epoch = number = 0
        while not self.crew.over:
            self.for_reply.wait(0.001)
            for event in self.for_reply.events():
                match event:
                    case CallOpened():
                        generation, epoch, number = event.generation, call.epoch.at, 0
                        call.busy.at = 1
                    case FloorTaken() if event.generation == generation and event.epoch > epoch:
                        epoch, number = event.epoch, 0
                        call.busy.at = 1
                    case CallClosed() if event.generation == generation:
                        generation = call.busy.at = 0
            while generation and call.outgoing.room():
                payload = frame(generation, epoch, number)
                call.outgoing.push(generation, epoch, number, 0, 0, payload)
                number += 1

    def pace(self) -> None:
        while not self.crew.over:
            self.pacer.advance(1)
            self.nap(self.crew)

    def watch(self) -> None:
        call, beat = self.call, 0
        while not self.crew.over:
            now = self.pacer.beat
            self.bout.expect(now >= beat, f"the pacer's beat fell from {beat} to {now}")
            beat = now
            self.bout.expect(render(self.pacer.samples()), "a page")
            rings = (call.heard, call.speech, call.outgoing, call.due)
            _ = [(ring.depth(), ring.refused, ring.skipped) for ring in rings]
            _ = call.live, self.for_reply.depth(), self.io_to_reply.depth()
            time.sleep(0.001)


def frame(generation: int, epoch: int, number: int) -> bytes:
    """20 ms that tell whose they are."""
    label = b"%8d%8d%8d%8d" % (generation, epoch, number, epoch ^ number)
    return label * (FRAME // len(label))
