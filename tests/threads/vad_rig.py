"""The vad stage in one thread, with a network that says what the test wants."""

import numpy as np

from threadline.config import Endpoint, Vad
from threadline.threads.calls import FRAME, WINDOW, Call
from threadline.threads.messages import Opinion, Patience
from threadline.threads.vad import VadStage
from threadline.threads.wake import Inbox

LIVE = 5
MS = 32
# In windows: onset 1, floor 3, asked 6, grace 3, resume 4, probe 3, hangover 5, pre-roll 4.
CONFIG = Vad(
    onset_ms=MS,
    min_speech_ms=3 * MS,
    interrupt_ms=6 * MS,
    grace_ms=3 * MS,
    resume_ms=4 * MS,
    probe_ms=3 * MS,
    hangover_ms=5 * MS,
    preroll_ms=4 * MS,
    batch_ms=0,
)
ENDPOINT = Endpoint(complete_ms=4 * MS, patient_ms=8 * MS)
CHANCE = {"s": 0.9, ".": 0.1}
FRAME_NS = 20_000_000
SAMPLE_NS = 125_000


class Network:
    """In the place of Silero: the next chance of each slot, from a script; silence after it."""

    def __init__(self):
        self.script = {}
        self.runs = []
        self.resets = []

    def run(self, slots, windows):
        assert windows.shape == (len(slots), WINDOW)
        self.runs.append(slots.tolist())
        return np.array([self._next(slot) for slot in slots.tolist()], np.float32)

    def _next(self, slot):
        left = self.script.get(slot, "")
        self.script[slot] = left[1:]
        return CHANCE[left[:1] or "."]

    def reset(self, slot):
        self.resets.append(slot)


class Rig:
    """The stage, its neighbours' ends of every ring, and what was fed to it."""

    def __init__(self, calls=1, config=CONFIG, endpoint=ENDPOINT, judged=False):
        self.calls = [Call(slot) for slot in range(calls)]
        for call in self.calls:
            call.generation.at = LIVE
        self.network = Network()
        self.inboxes = [Inbox(name) for name in ("vad", "asr", "reply")]
        vad, self.asr, self.reply = self.inboxes
        self.adviser = vad.port("asr")
        self.woken = []
        self.stage = VadStage(
            self.calls,
            config,
            endpoint,
            self.network,
            vad,
            self.asr.port("vad"),
            self.reply.port("vad"),
            self._wake_io,
            judged,
        )
        self.now = 10**12
        self.fed = [bytearray() for _ in self.calls]
        self.at_wake = []  # (epoch, hold) of the call for which io-calls was woken

    def _wake_io(self, slots):
        self.at_wake += [(self.calls[slot].epoch.at, self.calls[slot].hold.at) for slot in slots]

    def close(self):
        for inbox in self.inboxes:
            inbox.close()

    def push(self, frames, slot=0, level=None):
        """io-calls' part: caller audio in which no two frames are the same."""
        call = self.calls[slot]
        for _ in range(frames):
            number = len(self.fed[slot]) // FRAME
            if level is None:  # loud, and with the frame's number in it
                frame = bytes([number >> 4, number & 15, *range(16)]) + bytes(FRAME - 18)
            else:
                frame = bytes([level]) * FRAME
            self.now += FRAME_NS
            assert call.heard.push(call.generation.at, 0, 0, 0, self.now, frame)
            self.fed[slot] += frame

    def step(self):
        self.stage.inbox.wake()
        self.stage.step()

    def hear(self, script, slot=0):
        """So many windows, eight frames (five windows) at a time; events as they come."""
        self.network.script[slot] = self.network.script.get(slot, "") + script
        judged = self.stage.windows
        while self.stage.windows - judged < len(script):
            self.push(1, slot)
            self.step()
        return self.events()

    def opine(self, kind, windows, utterance=1, slot=0, generation=LIVE):
        """asr's part: what speech over the agent was. Events that follow."""
        self.adviser.put(Opinion(slot, generation, utterance, windows, kind))
        self.step()
        return self.events()

    def be_patient(self, windows, ms, why="complete", utterance=1, slot=0, generation=LIVE):
        """endpoint's part: how long a pause may last."""
        self.adviser.put(Patience(slot, generation, utterance, windows, ms, why))
        self.step()
        return self.events()

    def events(self):
        return [*self.asr.events(), *self.reply.events()]

    def speech(self, slot=0):
        """What asr finds in its ring: (utterance, audio) joined, in order."""
        utterances = {}
        while (record := self.calls[slot].speech.pop()) is not None:
            assert record[0] == self.calls[slot].generation.at
            utterances.setdefault(record[2], bytearray()).extend(record[5])
        return {number: bytes(audio) for number, audio in utterances.items()}
