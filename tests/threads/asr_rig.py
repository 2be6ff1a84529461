"""The asr stage in one thread: vad's part by hand, and a recogniser that answers when told."""

from threadline.config import Asr
from threadline.threads.asr import AsrStage
from threadline.threads.asr_process import Result
from threadline.threads.calls import WINDOW, Call
from threadline.threads.messages import Silence, TurnOver
from threadline.threads.wake import Inbox

LIVE = 3
CONFIG = Asr(deadline_seconds=8.0)


class Recogniser:
    """In the place of the real one: `workers` at a time, answered by `answer`."""

    def __init__(self):
        self.workers = 1
        self.given = {}  # audio by job, all there ever were
        self.deadlines = {}
        self.busy = []
        self.results = []
        self.ready = False
        self.sockets = ()
        self.ticks = 0
        self.calls = []

    def start(self):
        self.calls.append("start")

    def close(self, timeout):
        self.calls.append("close")

    def submit(self, job, audio, now, deadline):
        if len(self.busy) == self.workers:
            return False
        assert job not in self.given
        self.given[job] = bytes(audio)
        self.deadlines[job] = deadline
        self.busy.append(job)
        return True

    def answer(self, text="words", job=None, reason=""):
        job = self.busy[0] if job is None else job
        self.busy.remove(job)
        self.results.append(Result(job, text, reason))

    def collect(self, now):
        results, self.results = self.results, []
        return results

    def tick(self, now):
        self.ticks += 1

    def filenos(self):
        return self.sockets


class Clock:
    """In the place of `time`: moves when told."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def monotonic_ns(self):
        self.now += 0.001
        return round(self.now * 1e9)


class Rig:
    """The stage, and vad's and reply's ends of it."""

    def __init__(self, calls=1):
        self.calls = [Call(slot) for slot in range(calls)]
        for call in self.calls:
            call.generation.at = LIVE
        self.recogniser = Recogniser()
        self.inbox, self.reply = Inbox("asr"), Inbox("reply")
        self.vad = self.inbox.port("vad")
        self.stage = AsrStage(
            self.calls, CONFIG, self.recogniser, self.inbox, self.reply.port("asr")
        )
        self.said = {}  # windows by (slot, utterance)

    def close(self):
        self.inbox.close()
        self.reply.close()

    def step(self):
        self.inbox.wake()
        self.stage.step()
        return list(self.reply.events())

    def speak(self, count, utterance=1, slot=0, generation=LIVE):
        """So many windows, no two the same."""
        said = self.said.setdefault((slot, utterance), bytearray())
        for _ in range(count):
            number = len(said) // WINDOW
            window = bytes([slot, utterance, number & 255, number >> 8]) * (WINDOW // 4)
            assert self.calls[slot].speech.push(generation, 0, utterance, 0, 0, window)
            said += window

    def silence(self, windows, utterance=1, slot=0, generation=LIVE):
        self.vad.put(Silence(slot, generation, 1, utterance, windows, at=1))

    def over(self, windows, utterance=1, slot=0, generation=LIVE, epoch=1):
        event = TurnOver(slot, generation, epoch, utterance, windows, spoke_until=11, at=22)
        self.vad.put(event)

    def audio(self, windows, utterance=1, slot=0):
        return bytes(self.said[slot, utterance][: windows * WINDOW])

    def decoded(self):
        """The audio of every decode that was begun, in order."""
        return list(self.recogniser.given.values())
