"""The tts stage in one thread, with a voice that hums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threadline.audio import mulaw
from threadline.audio.stream import Resampler
from threadline.errors import ModelError
from threadline.threads.calls import FRAME, Call
from threadline.threads.messages import CancelSpeech, EndOfSpeech, Speak
from threadline.threads.tts import APOLOGY, TtsStage
from threadline.threads.wake import Inbox

LIVE = 3
RATE = 22_050
CACHE = 10_000_000


def hum(text, length=None):
    """A tone of its own for each text; 100 ms a character, or `length` samples."""
    samples = RATE // 10 * len(text) if length is None else length
    pitch = 200 + 37 * (sum(text.encode()) % 41)
    return (0.4 * np.sin(2 * np.pi * pitch * np.arange(samples) / RATE)).astype(np.float32)


class Voice:
    """Hums; `fails` on some texts; `lengths` of others."""

    rate = RATE

    def __init__(self):
        self.spoke = []
        self.fails = {}
        self.lengths = {}

    def synthesize(self, text):
        self.spoke.append(text)
        if text in self.fails:
            raise self.fails[text]
        return hum(text, self.lengths.get(text))


class Rig:
    """The stage, and reply's end of it."""

    def __init__(self, calls=1, cache_bytes=CACHE, warm=()):
        self.calls = [Call(slot) for slot in range(calls)]
        for call in self.calls:
            call.generation.at = LIVE
        self.voice = Voice()
        self.inbox, self.reply = Inbox("tts"), Inbox("reply")
        self.orders = self.inbox.port("reply")
        self.stage = TtsStage(
            self.calls, cache_bytes, lambda: self.voice, warm, self.inbox, self.reply.port("tts")
        )
        self.stage.begin()
        self.begun = list(self.voice.spoke)
        self.voice.spoke.clear()

    def close(self):
        self.inbox.close()
        self.reply.close()

    def speak(self, *texts, slot=0, generation=LIVE, epoch=0, clause=1):
        for text in texts:
            self.orders.put(Speak(slot, generation, epoch, clause, text))
            clause += 1

    def end(self, slot=0, generation=LIVE, epoch=0, clause=1):
        self.orders.put(EndOfSpeech(slot, generation, epoch, clause))

    def run(self, steps=12):
        for _ in range(steps):
            self.inbox.wake()
            self.stage.step()
        return list(self.reply.events())


@pytest.fixture
def make():
    made = []

    def make(**options):
        made.append(Rig(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def rig(make):
    return make()


def one_stream(*sounds):
    """Sounds in a row through one resampler, filled up to a whole frame."""
    stream = Resampler(RATE, mulaw.RATE)
    audio = mulaw.encode_float(stream.feed(np.concatenate(sounds)))
    audio += mulaw.encode_float(stream.finish())
    return audio + mulaw.SILENCE_BYTE * (-len(audio) % FRAME)


def joined(events):
    return b"".join(event.audio for event in events)


# -- a reply -------------------------------------------------------------------------------------


def test_a_reply_is_spoken_clause_by_clause_and_then_ended(rig):
    rig.speak("One moment.", "Yes, we have.", epoch=0, clause=4)
    rig.end(clause=5)
    events = rig.run()
    assert [(event.clause, event.ended, event.reason) for event in events] == [
        (4, False, ""),
        (5, False, ""),
        (5, True, ""),
    ]
    assert {(event.slot, event.generation, event.epoch) for event in events} == {(0, LIVE, 0)}
    assert [event.duration_ms for event in events] == [1100, 1300, 0]
    assert all(len(event.audio) % FRAME == 0 for event in events)


def test_the_joints_of_a_reply_have_no_click(rig):
    rig.speak("Good evening.", "This is it.", "Bye!")
    rig.end(clause=3)
    sounds = [hum(text) for text in ("Good evening.", "This is it.", "Bye!")]
    assert joined(rig.run()) == one_stream(*sounds)


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(0, 9000), min_size=1, max_size=6))
def test_clauses_of_any_length_leave_as_one_stream_of_whole_frames(lengths):
    rig = Rig()
    texts = [f"clause {number}" for number in range(len(lengths))]
    rig.voice.lengths = dict(zip(texts, lengths, strict=True))
    rig.speak(*texts)
    rig.end()
    events = rig.run()
    rig.close()
    assert all(len(event.audio) % FRAME == 0 for event in events)
    assert joined(events) == one_stream(*map(hum, texts, lengths, strict=True))


def test_each_reply_is_a_stream_of_its_own(rig):
    rig.speak("One.")
    rig.end()
    rig.run()
    rig.speak("Two.", clause=2)
    rig.end(clause=2)
    assert joined(rig.run()) == one_stream(hum("Two."))


def test_a_reply_that_was_cut_short_leaves_no_tail_to_the_next(rig):
    rig.speak("One.")  # never ended
    rig.run()
    rig.calls[0].epoch.at = 1
    rig.speak("Two.", epoch=1, clause=2)
    rig.end(epoch=1, clause=2)
    assert joined(rig.run()) == one_stream(hum("Two."))


def test_replies_of_several_calls_do_not_mix(make):
    rig = make(calls=2)
    rig.speak("One.", slot=0)
    rig.speak("Ten o'clock.", slot=1)
    rig.end(slot=0)
    rig.end(slot=1)
    events = rig.run()
    assert joined(e for e in events if e.slot == 0) == one_stream(hum("One."))
    assert joined(e for e in events if e.slot == 1) == one_stream(hum("Ten o'clock."))


def test_one_step_speaks_one_clause(rig):
    rig.speak("One.", "Two.", "Three.")
    assert [event.clause for event in rig.run(steps=1)] == [1]
    assert [event.clause for event in rig.run(steps=2)] == [2, 3]


# -- nobody listens ------------------------------------------------------------------------------


@pytest.mark.parametrize(("generation", "epoch"), [(LIVE, 1), (LIVE + 2, 0), (LIVE + 1, 0)])
def test_a_clause_nobody_will_hear_is_not_synthesized(rig, generation, epoch):
    rig.calls[0].generation.at, rig.calls[0].epoch.at = generation, epoch
    rig.speak("One.", "Two.")
    rig.end()
    assert rig.run() == []
    assert rig.voice.spoke == []
    assert rig.stage.spared == 3


# -- a voice that fails --------------------------------------------------------------------------


class NativeError(Exception):
    """onnxruntime's errors are plain Exceptions."""


@pytest.mark.parametrize("error", [ModelError("too long"), NativeError("too long")])
def test_a_clause_that_cannot_be_spoken_is_told_and_the_next_is_fine(rig, error):
    rig.voice.fails["Bad."] = error
    rig.speak("One.", "Bad.", "Three.")
    rig.end(clause=3)
    events = rig.run()
    assert [(event.clause, event.reason) for event in events[:3]] == [
        (1, ""),
        (2, "too long"),
        (3, ""),
    ]
    assert events[1].duration_ms == 0
    assert joined(events) == one_stream(hum("One."), hum("Three."))


def test_a_failure_is_not_remembered(rig):
    rig.voice.fails["Bad."] = ModelError("busy")
    rig.speak("Bad.")
    rig.run()
    rig.voice.fails.clear()
    rig.speak("Bad.", clause=2)
    (event,) = rig.run()
    assert event.reason == ""
    assert event.duration_ms == 400


# -- the cache -----------------------------------------------------------------------------------

CLAUSE_BYTES = hum("1234").nbytes


def spoken_anew(rig, *texts):
    """Which of these clauses the voice was asked for."""
    rig.voice.spoke.clear()
    for text in texts:
        rig.speak(text)
        rig.run(steps=1)
    return rig.voice.spoke


def test_a_clause_is_synthesized_once_and_sounds_the_same(rig):
    rig.speak("Once.")
    rig.end()
    first = joined(rig.run())
    rig.speak("Once.")
    rig.end()
    assert joined(rig.run()) == first
    assert rig.voice.spoke == ["Once."]


def test_the_cache_gives_up_what_was_used_least_recently(make):
    rig = make(cache_bytes=2 * CLAUSE_BYTES)
    assert spoken_anew(rig, "aaaa", "bbbb", "aaaa", "cccc") == ["aaaa", "bbbb", "cccc"]
    assert spoken_anew(rig, "aaaa", "cccc") == []
    assert spoken_anew(rig, "bbbb") == ["bbbb"]


@given(texts=st.lists(st.text("ab", min_size=1, max_size=3), max_size=30))
@settings(max_examples=30, deadline=None)
def test_the_cache_never_outgrows_its_bound(texts):
    rig = Rig(cache_bytes=2 * CLAUSE_BYTES)
    for text in texts:
        spoken_anew(rig, text)
        kept = rig.stage._cache._clauses
        size = sum(samples.nbytes for samples in kept.values())
        assert size == rig.stage._cache._size <= 2 * CLAUSE_BYTES
        assert list(kept)[-1] == text
    rig.close()


def test_a_clause_larger_than_the_cache_leaves_it_alone(make):
    rig = make(cache_bytes=CLAUSE_BYTES)
    assert spoken_anew(rig, "aaaa", "a long one", "aaaa") == ["aaaa", "a long one"]


# -- before the first call -----------------------------------------------------------------------


def test_the_first_clauses_and_an_apology_are_there_before_the_first_call(make):
    rig = make(warm=["Hello,", "good evening."])
    assert rig.begun == [APOLOGY, "Hello,", "good evening."]
    assert rig.stage.apology == one_stream(hum(APOLOGY))
    assert spoken_anew(rig, "Hello,", "good evening.", "What?") == ["What?"]


# -- taken back ------------------------------------------------------------------------------------


def test_what_a_cancel_is_about_is_not_spoken_and_what_follows_begins_anew(make):
    rig = make(calls=2)
    rig.speak("Who is it?", slot=1)
    rig.speak("One moment.", "Let me see.", clause=1)
    rig.orders.put(CancelSpeech(0, LIVE, 0))
    rig.speak("I cannot say.", clause=3)
    rig.end(clause=3)
    events = [event for event in rig.run() if event.slot == 0]
    assert rig.voice.spoke == ["Who is it?", "I cannot say."]
    assert [(event.clause, event.ended) for event in events] == [(3, False), (3, True)]
    assert joined(events) == one_stream(hum("I cannot say."))
    assert rig.stage.spared == 2


def test_a_cancel_drops_the_tail_of_what_was_spoken(rig):
    rig.speak("One moment.", clause=1)
    rig.run()
    rig.orders.put(CancelSpeech(0, LIVE, 0))
    rig.speak("I cannot say.", clause=2)
    rig.end(clause=2)
    assert joined(rig.run()) == one_stream(hum("I cannot say."))


def test_a_cancel_of_an_older_epoch_or_caller_cancels_nothing_newer(rig):
    rig.calls[0].epoch.at = 1
    rig.speak("One moment.", epoch=1)
    rig.orders.put(CancelSpeech(0, LIVE, 0))
    rig.orders.put(CancelSpeech(0, LIVE - 2, 9))
    assert [event.clause for event in rig.run()] == [1]
