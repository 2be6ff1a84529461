"""The reply stage in one thread: all its neighbours' parts by hand, and a brain with a script."""

from itertools import count

from threadline.config import Talk
from threadline.dialog.brain import Answer
from threadline.threads.calls import END_OF_REPLY, FRAME, Call
from threadline.threads.messages import (
    CallOpened,
    CancelSpeech,
    EndOfSpeech,
    FloorTaken,
    HangUp,
    MarkReturned,
    Speak,
    Spoken,
    Transcript,
)
from threadline.threads.reply import ReplyStage, end_mark
from threadline.threads.wake import Inbox
from threadline.threads.workers import Crew

LIVE = 3
APOLOGY_FRAMES = 5
MS = 1_000_000


class Brain:
    """Says what the script has for the words; "bye" hangs up."""

    def __init__(self, greeting="Good evening."):
        self.greeting = greeting
        self.answers = {}

    def begin(self):
        return 0

    def answer(self, state, words):
        return state + 1, Answer(self.answers.get(words, f"You said {words}."), "bye" in words)


class Clock:
    """In the place of `time`: moves when told."""

    def __init__(self):
        self.now = 10**12

    def monotonic_ns(self):
        self.now += 1
        return self.now


class Rig:
    """The stage, and everybody else's ends of it. `voices`: names; `workers`: how many, of an
    agent with guards if `guarded`."""

    def __init__(self, brain=None, talk=None, voices=("piper",), workers=0, guarded=False):
        self.call = Call(0)
        self.call.generation.at = LIVE
        self.brain = brain or Brain()
        self.inbox, self.io, self.vendors = map(Inbox, ("reply", "io", "vendors"))
        self.boxes = [Inbox(name) for name in voices]
        self.workers = [Inbox(f"worker-{number}") for number in range(workers)]
        self.to_reply = self.inbox.port("everybody")
        self.stage = ReplyStage(
            [self.call],
            self.brain,
            talk or Talk(nudge_seconds=0),
            self.inbox,
            self.io.port("reply"),
            [(box.name, box.port("reply")) for box in self.boxes],
            self.vendors.port("reply"),
            Crew([box.port("reply") for box in self.workers], guarded) if workers else None,
            lambda: bytes(range(1, APOLOGY_FRAMES + 1)) * FRAME,
        )
        self.clock = Clock()
        self.numbers = count()
        self.told = [[] for _ in voices]  # each voice, ever
        self.asked = []  # of all voices, cancels left out
        self.waiting = []  # of them, not answered yet
        self.jobs = []  # RunJobs not answered yet

    def close(self):
        for inbox in (self.inbox, self.io, self.vendors, *self.boxes, *self.workers):
            inbox.close()

    def tell(self, kind, *fields, generation=LIVE, **more):
        """One event, and one turn of the loop."""
        self.to_reply.put(kind(0, generation, *fields, **more))
        self.step()

    def step(self):
        self.inbox.wake()
        self.stage.step()
        for box, told in zip(self.boxes, self.told, strict=True):
            for order in box.events():
                told.append(order)
                if isinstance(order, CancelSpeech):
                    self.waiting = [
                        one
                        for one in self.waiting
                        if one.epoch > order.epoch or not any(one is mine for mine in told)
                    ]
                else:
                    self.asked.append(order)
                    self.waiting.append(order)
        for box in self.workers:
            self.jobs += box.events()

    def open(self):
        self.tell(CallOpened, "CA1", {})

    def turn(self, text, epoch):
        """The caller's part of one: takes the floor, speaks, ends."""
        self.take_floor(epoch)
        self.hear(text, epoch)

    def take_floor(self, epoch):
        self.call.epoch.at = epoch
        self.tell(FloorTaken, epoch, self.clock.now)

    def hear(self, text, epoch):
        at = self.clock.monotonic_ns()
        times = (at - 900 * MS, at - 500 * MS, at - 700 * MS, at - 400 * MS, at)
        self.tell(Transcript, epoch, text, *times)

    def voice(self, frames=3, tail=1, clauses=100):
        """tts's part: answer what was asked, each clause with so many numbered frames."""
        for _ in range(clauses):
            if not self.waiting:
                return
            order = self.waiting.pop(0)
            ended = isinstance(order, EndOfSpeech)
            self.spoken(order.epoch, order.clause, tail if ended else frames, ended=ended)

    def spoken(self, epoch, clause, frames, ended=False, reason="", **more):
        audio = b"".join(next(self.numbers).to_bytes(4, "big") * 40 for _ in range(frames))
        fields = (epoch, clause, audio, 20 * frames, ended, self.clock.now, reason)
        self.tell(Spoken, *fields, **more)

    def played(self, most=1000):
        """The pacer's part: (number, epoch, clause, flags) of each frame; number -1: no audio."""
        frames = []
        while len(frames) < most and (record := self.call.outgoing.pop()) is not None:
            generation, epoch, clause, flags, _, audio = record
            assert generation == LIVE
            assert len(audio) == (0 if flags & END_OF_REPLY else FRAME)
            frames.append((int.from_bytes(audio[:4], "big") if audio else -1, epoch, clause, flags))
        self.stage._due = 0  # it took so long that the ring is looked at
        return frames

    def hung_up(self):
        return [event.reason for event in self.io.events() if isinstance(event, HangUp)]

    def texts(self):
        return [order.text for order in self.asked if isinstance(order, Speak)]

    def greeted(self):
        """A call whose greeting has been played out."""
        self.open()
        self.voice()
        self.played()
        self.tell(MarkReturned, end_mark(0))
        self.asked.clear()
        return self
