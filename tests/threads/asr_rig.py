"""The asr stage in one thread: vad's part by hand, a recogniser that answers when told, and the
other ends of every ring."""

from threadline.config import Asr, Config, Stt
from threadline.threads.asr import AsrStage
from threadline.threads.asr_process import Result
from threadline.threads.calls import WINDOW, Call
from threadline.threads.messages import (
    Doubt,
    Heard,
    HearFailed,
    Lapse,
    Opinion,
    Partial,
    Silence,
    Transcript,
    TurnOver,
)
from threadline.threads.wake import Inbox

LIVE = 3
CONFIG = Asr(deadline_seconds=8.0)


class Recogniser:
    """In the place of the real one: `workers` at a time, answered by `answer`."""

    def __init__(self):
        self.workers = 1
        self.given = {}  # audio by job, all there ever were
        self.deadlines = {}
        self.timed = []  # jobs whose words were wanted with their times
        self.runs = []  # jobs by run
        self.results = []
        self.ready = False
        self.sockets = ()
        self.ticks = 0
        self.calls = []

    def start(self):
        self.calls.append("start")

    def close(self, timeout):
        self.calls.append("close")

    @property
    def idle(self):
        return self.workers - len(self.runs)

    @property
    def busy(self):
        return [job for run in self.runs for job in run]

    def submit(self, job, audio, now, deadline, *, words=False):
        return self.submit_together([(job, audio, deadline)], now, words=words)

    def submit_together(self, orders, now, *, words=False):
        if not self.idle:
            return False
        for job, audio, deadline in orders:
            assert job not in self.given
            self.given[job] = bytes(audio)
            self.deadlines[job] = deadline
            self.timed += [job] * words
        self.runs.append([job for job, _, _ in orders])
        return True

    def answer(self, text="words", job=None, reason="", words=()):
        job = self.busy[0] if job is None else job
        self.runs = [[other for other in run if other != job] for run in self.runs]
        self.runs = [run for run in self.runs if run]
        self.results.append(Result(job, text, reason, words=words))

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
    """The stage, and the other threads' ends of it."""

    def __init__(self, calls=1, chain=("whisper",), judged=False, **stt):
        self.calls = [Call(slot) for slot in range(calls)]
        for call in self.calls:
            call.generation.at = LIVE
        self.recogniser = Recogniser() if "whisper" in chain else None
        self.inboxes = [Inbox(name) for name in ("asr", "reply", "vad", "endpoint", "io-vendors")]
        self.inbox, self.reply, self.to_vad, self.endpoint, self.vendors = self.inboxes
        self.vad, self.deepgram = self.inbox.port("vad"), self.inbox.port("io-vendors")
        self.config = Config(asr=CONFIG, stt=Stt(chain=chain, **stt))
        self.stage = AsrStage(
            self.calls,
            self.config,
            self.recogniser,
            self.inbox,
            self.reply.port("asr"),
            self.to_vad.port("asr"),
            self.endpoint.port("asr") if judged else None,
            self.vendors.port("asr") if "deepgram" in chain else None,
        )
        self.said = {}  # windows by (slot, utterance)
        self.partials = []
        self.epoch = 0  # of the windows that vad passes on

    @property
    def whisper(self):
        return self.stage._whisper

    def close(self):
        for inbox in self.inboxes:
            inbox.close()

    def step(self):
        """One wake-up; the transcripts it gave."""
        self.inbox.wake()
        self.stage.step()
        events = list(self.reply.events())
        self.partials += [event for event in events if isinstance(event, Partial)]
        return [event for event in events if isinstance(event, Transcript)]

    def speak(self, count, utterance=1, slot=0, generation=LIVE):
        """So many windows, no two the same."""
        said = self.said.setdefault((slot, utterance), bytearray())
        for _ in range(count):
            number = len(said) // WINDOW
            window = bytes([slot, utterance, number & 255, number >> 8]) * (WINDOW // 4)
            assert self.calls[slot].speech.push(generation, self.epoch, utterance, 0, 0, window)
            said += window

    def silence(self, windows, utterance=1, slot=0, generation=LIVE):
        self.vad.put(Silence(slot, generation, 1, utterance, windows, at=1))

    def over(self, windows, utterance=1, slot=0, generation=LIVE, epoch=1, why="complete"):
        self.vad.put(TurnOver(slot, generation, epoch, utterance, windows, 11, 22, why))

    def doubt(self, windows, utterance=1, slot=0, generation=LIVE, stopped=False):
        self.vad.put(Doubt(slot, generation, utterance, windows, stopped))

    def lapse(self, utterance=1, slot=0, generation=LIVE):
        self.vad.put(Lapse(slot, generation, utterance))

    def heard(self, text, windows=0, utterance=1, slot=0, generation=LIVE, covered=0):
        """Deepgram's: final when it answers a question about `windows`; `covered` in windows."""
        final = windows > 0
        self.deepgram.put(
            Heard(slot, generation, utterance, windows, text, final, covered * WINDOW)
        )

    def unheard(self, reason="it hung up", utterance=1, slot=0, generation=LIVE):
        self.deepgram.put(HearFailed(slot, generation, utterance, reason))

    def opinions(self):
        return [event for event in self.to_vad.events() if isinstance(event, Opinion)]

    def audio(self, windows, utterance=1, slot=0):
        return bytes(self.said[slot, utterance][: windows * WINDOW])

    def decoded(self):
        """The audio of every decode that was begun, in order."""
        return list(self.recogniser.given.values())


def making(monkeypatch):
    """Body of a fixture: a maker of rigs, each with a clock of its own."""
    made = []

    def make(**options):
        made.append(Rig(**options))
        made[-1].clock = Clock()
        for module in ("asr", "asr_whisper", "transcribe"):
            monkeypatch.setattr(f"threadline.threads.{module}.time", made[-1].clock)
        return made[-1]

    yield make
    for one in made:
        one.close()
