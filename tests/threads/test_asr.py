"""What is decoded, when, and what becomes of it; see `asr_rig`."""

from dataclasses import replace

import pytest
from asr_rig import CONFIG, LIVE, Clock, Rig, making
from hypothesis import given, settings
from hypothesis import strategies as st

from threadline.listening.agreement import Word
from threadline.listening.backchannel import Barge
from threadline.threads.calls import WINDOW
from threadline.threads.messages import (
    HearChunk,
    HearFinal,
    HearForget,
    Transcript,
)
from threadline.threads.transcribe import LATE
from threadline.threads.wake import Inbox

make = pytest.fixture(making, name="make")


@pytest.fixture
def rig(make):
    return make()


# -- one decode for a pause and the turn's end ---------------------------------------------------


def test_a_decode_begins_at_the_first_silence_and_is_the_turn_s_own(rig):
    rig.speak(9)
    rig.silence(9)
    assert rig.step() == []
    assert rig.decoded() == [rig.audio(9)]
    rig.speak(2)  # the rest of the silence
    rig.over(9)
    assert rig.step() == []
    rig.recogniser.answer("for four")
    (transcript,) = rig.step()
    assert (transcript.text, transcript.reason) == ("for four", "")
    assert len(rig.decoded()) == 1
    assert (rig.whisper.decoded, rig.whisper.wasted, rig.stage.failed) == (1, 0, 0)


def test_a_result_that_is_there_before_the_turn_s_end_waits_for_it(rig):
    rig.speak(9)
    rig.silence(9)
    rig.step()
    rig.recogniser.answer("yes")
    assert rig.step() == []
    rig.over(9)
    (transcript,) = rig.step()
    assert transcript.text == "yes"
    assert len(rig.decoded()) == 1
    assert rig.step() == []  # once


def test_a_transcript_says_when_everything_happened(rig):
    rig.speak(5)
    rig.silence(5)
    rig.step()
    began = rig.clock.now
    rig.clock.now += 2
    rig.recogniser.answer("hello")
    rig.step()
    ended = rig.clock.now
    rig.clock.now += 1
    rig.over(5, epoch=7)
    (transcript,) = rig.step()
    assert transcript == replace(transcript, slot=0, generation=LIVE, epoch=7)
    assert (transcript.spoke_until, transcript.turn_over) == (11, 22)
    assert transcript.decode_began == pytest.approx(began * 1e9)
    assert transcript.decode_ended == pytest.approx(ended * 1e9, abs=2e6)
    assert transcript.at > transcript.decode_ended > transcript.decode_began


def test_a_turn_without_a_pause_before_its_end_is_decoded_then(rig):
    rig.speak(6)
    rig.over(6)
    rig.step()
    assert rig.decoded() == [rig.audio(6)]


@pytest.mark.parametrize("answered", [False, True])
def test_a_caller_who_goes_on_is_decoded_anew_and_the_waste_is_counted(rig, answered):
    rig.speak(5)
    rig.silence(5)
    rig.step()
    if answered:
        rig.recogniser.answer("for")
        assert rig.step() == []
    rig.speak(4)
    rig.over(9)
    assert rig.step() == []
    if not answered:
        rig.recogniser.answer("for")
        assert rig.step() == []  # nobody waits for it any more
    assert rig.decoded() == [rig.audio(5), rig.audio(9)]
    rig.recogniser.answer("for four")
    (transcript,) = rig.step()
    assert transcript.text == "for four"
    assert rig.whisper.wasted == 1


def test_a_decode_that_has_not_begun_is_no_waste(rig):
    rig.recogniser.workers = 0
    rig.speak(5)
    rig.silence(5)
    rig.step()
    rig.speak(3)
    rig.silence(8)
    rig.step()
    rig.recogniser.workers = 1
    rig.step()
    assert rig.decoded() == [rig.audio(8)]
    assert rig.whisper.wasted == 0


# -- what is decoded -----------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["nothing", "a turn", "a caller who left in mid-speech"])
def test_an_utterance_far_longer_than_the_ring_is_decoded_whole(rig, before):
    """28 s of speech without a pause, through a ring of 4 s, copied once a second."""
    generation = LIVE
    if before != "nothing":
        rig.speak(5, utterance=1)
        rig.step()
    if before == "a turn":
        rig.over(5, utterance=1)
    elif before != "nothing":
        generation = rig.calls[0].generation.at = LIVE + 2
    for _ in range(27):
        rig.speak(31, utterance=2, generation=generation)
        assert rig.step() == []
    rig.over(27 * 31, utterance=2, generation=generation)
    rig.recogniser.workers = 2
    rig.step()
    assert rig.decoded()[-1] == rig.audio(27 * 31, 2)
    assert rig.calls[0].speech.refused == 0


def test_the_next_utterance_is_not_eaten_by_the_one_before(rig):
    rig.speak(5, utterance=1)
    rig.step()
    rig.speak(3, utterance=1)
    rig.speak(4, utterance=2)  # already there when the first one's end is read
    rig.over(7, utterance=1)
    rig.step()
    rig.recogniser.answer("one")
    assert [transcript.text for transcript in rig.step()] == ["one"]
    rig.speak(3, utterance=2)
    rig.over(7, utterance=2)
    rig.step()
    assert rig.decoded() == [rig.audio(7, 1), rig.audio(7, 2)]


def test_the_next_utterance_waits_in_the_ring_until_the_end_of_this_one_is_known(rig):
    """The ring is read a moment after the events: vad may have spoken in between."""
    rig.speak(5, utterance=1)
    rig.speak(2, utterance=2)
    rig.step()
    rig.over(4, utterance=1)
    rig.step()
    rig.speak(2, utterance=2)
    rig.over(4, utterance=2)
    rig.recogniser.answer("one")
    rig.step()
    assert rig.decoded() == [rig.audio(4, 1), rig.audio(4, 2)]


def test_an_utterance_whose_end_never_came_gives_way(rig):
    rig.speak(5, utterance=1)
    rig.step()
    rig.speak(4, utterance=2)
    rig.over(4, utterance=2)
    rig.step()
    assert rig.decoded() == [rig.audio(4, 2)]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_turn_is_decoded_byte_for_byte_and_answered_once(data):
    """However vad's turns and our wake-ups fall, with a recogniser of any speed."""
    rig = Rig(calls=2)
    answers, said = [], {0: [], 1: []}

    def run():
        if rig.recogniser.busy:
            rig.recogniser.answer(rig.recogniser.given[rig.recogniser.busy[0]].hex())
        answers.extend(rig.step())

    def perhaps_run():
        if data.draw(st.booleans()):
            run()

    for utterance in range(1, 4):
        for slot in (0, 1):
            windows = 0
            for part in data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=3)):
                rig.speak(part, utterance, slot)
                windows += part
                perhaps_run()
                rig.silence(windows, utterance, slot)
                perhaps_run()
            rig.speak(extra := data.draw(st.integers(0, 4)), utterance, slot)
            windows += data.draw(st.integers(0, extra))
            rig.over(windows, utterance, slot)
            said[slot].append(rig.audio(windows, utterance, slot))
            perhaps_run()
        answers.extend(rig.step())
    for _ in range(20):
        run()
    rig.close()
    for slot in (0, 1):
        heard = [bytes.fromhex(answer.text) for answer in answers if answer.slot == slot]
        assert heard == said[slot]


# -- who goes first ------------------------------------------------------------------------------


def test_turns_that_have_ended_go_before_decodes_ahead_and_the_oldest_first(make):
    rig = make(calls=5)
    rig.recogniser.workers = 0
    for slot in range(5):
        rig.speak(4 + slot, slot=slot)
    rig.silence(4, slot=0)
    rig.silence(5, slot=1)
    rig.over(6, slot=2)
    rig.silence(7, slot=3)
    rig.over(8, slot=4)
    rig.step()
    rig.over(7, slot=3)
    rig.recogniser.workers = 5
    rig.step()
    assert [audio[0] for audio in rig.decoded()] == [2, 3, 4, 0, 1]


def test_finished_turns_without_a_worker_are_counted_and_their_wait_is_measured(make):
    rig = make(calls=4)
    for slot in range(4):
        rig.speak(4, slot=slot)
    for slot in range(3):
        rig.over(4, slot=slot)
    rig.silence(4, slot=3)  # not finished: nobody waits for it
    rig.recogniser.workers = 0
    rig.step()
    assert rig.stage.queued == 3
    rig.clock.now += 1.0
    rig.recogniser.workers = 1
    rig.step()
    assert rig.stage.queued == 1
    assert rig.whisper.waits.snapshot().count == 2
    assert 2000 <= rig.whisper.waits.sum < 2100
    rig.calls[2].generation.at += 1
    rig.step()
    assert rig.stage.queued == 0


@pytest.mark.parametrize(
    ("workers", "turns", "runs"),
    [
        (1, 1, [[0]]),
        (1, 2, [[0, 1]]),
        (1, 3, [[0, 1]]),
        (2, 2, [[0], [1]]),
        (2, 3, [[0, 1], [2]]),
        (2, 5, [[0, 1], [2, 3]]),
    ],
)
def test_finished_turns_that_outnumber_the_workers_are_decoded_together(make, workers, turns, runs):
    rig = make(calls=6)
    rig.recogniser.workers = workers
    for slot in range(turns):
        rig.speak(4, slot=slot)
        rig.over(4, slot=slot)
    rig.step()
    given = {job: audio[0] for job, audio in rig.recogniser.given.items()}
    assert [[given[job] for job in run] for run in rig.recogniser.runs] == runs
    shared = sum(len(run) for run in runs if len(run) > 1)
    assert rig.whisper.shared == shared
    for job, slot in given.items():
        rig.recogniser.answer(f"said by {slot}", job)
    assert {one.slot: one.text for one in rig.step()} == {n: f"said by {n}" for n in given.values()}


@pytest.mark.parametrize("other", ["silence", "doubt"])
def test_what_may_not_be_the_end_of_a_turn_holds_up_no_turn_that_has_ended(make, other):
    rig = make(calls=2)
    for slot in range(2):
        rig.speak(4, slot=slot)
    getattr(rig, other)(4, slot=0)
    rig.over(4, slot=1)
    rig.step()
    assert [audio[0] for audio in rig.decoded()] == [1]


def test_a_turn_that_waits_is_not_given_up_when_the_caller_speaks_again(rig):
    rig.recogniser.workers = 0
    rig.speak(4, utterance=1)
    rig.over(4, utterance=1)
    rig.step()
    rig.speak(5, utterance=2)
    rig.silence(5, utterance=2)
    rig.step()
    rig.recogniser.workers = 2
    rig.step()
    assert rig.decoded() == [rig.audio(4, 1), rig.audio(5, 2)]
    rig.recogniser.answer("one")
    assert [transcript.text for transcript in rig.step()] == ["one"]
    assert rig.whisper.wasted == 0


# -- what goes wrong -----------------------------------------------------------------------------


def test_what_was_not_recognised_is_said_with_its_reason(rig):
    rig.speak(4)
    rig.over(4)
    rig.step()
    rig.recogniser.answer(None, reason="it crashed")
    (transcript,) = rig.step()
    assert isinstance(transcript, Transcript)
    assert (transcript.text, transcript.reason) == (None, "it crashed")
    assert rig.stage.failed == 1


@pytest.mark.parametrize("ahead", [False, True])
def test_a_turn_that_finds_no_worker_in_time_is_given_up(rig, ahead):
    rig.recogniser.workers = 0
    rig.speak(4)
    (rig.silence if ahead else rig.over)(4)
    assert rig.step() == []
    rig.clock.now += CONFIG.deadline_seconds - 0.1
    assert rig.step() == []
    rig.clock.now += 0.2
    given_up = rig.step()
    if ahead:
        assert given_up == []
        rig.over(4)
        given_up = rig.step()
    (transcript,) = given_up
    assert transcript.text is None
    assert "no time" in transcript.reason
    assert transcript.decode_began == transcript.decode_ended
    rig.recogniser.workers = 1
    assert rig.step() == []
    assert (rig.decoded(), rig.stage.failed, rig.whisper.wasted) == ([], 1, 0)


def test_the_time_a_turn_has_waited_is_no_longer_the_recogniser_s(rig):
    rig.recogniser.workers = 0
    asked = rig.clock.now
    rig.speak(4)
    rig.over(4)
    rig.step()
    rig.clock.now += 3
    rig.recogniser.workers = 1
    rig.step()
    (deadline,) = rig.recogniser.deadlines.values()
    assert deadline == pytest.approx(asked + CONFIG.deadline_seconds, abs=0.1)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_job_whose_caller_has_gone_is_dropped(rig, ahead):
    rig.recogniser.workers = 0
    rig.speak(4)
    (rig.silence if ahead else rig.over)(4)
    rig.step()
    rig.calls[0].generation.at += 2
    rig.recogniser.workers = 1
    rig.step()
    assert rig.decoded() == []
    assert rig.stage._waiting == {}
    rig.clock.now += 2 * CONFIG.deadline_seconds
    assert rig.step() == []
    rig.speak(5, utterance=2, generation=LIVE + 2)
    rig.over(5, utterance=2, generation=LIVE + 2)
    rig.step()
    assert rig.decoded() == [rig.audio(5, 2)]
    assert rig.whisper.wasted == 0  # it was never begun


def test_what_comes_late_of_an_earlier_caller_leaves_the_new_one_alone(rig):
    rig.speak(6)
    rig.step()
    new = LIVE + 2
    rig.calls[0].generation.at = new
    rig.speak(2)  # the old caller's last words
    rig.speak(3, utterance=2, generation=new)
    rig.step()
    rig.silence(6)
    rig.over(6)
    rig.speak(2, utterance=2, generation=new)
    assert rig.step() == []
    assert rig.decoded() == []
    rig.over(5, utterance=2, generation=new)
    rig.step()
    assert rig.decoded() == [rig.audio(5, 2)]
    rig.recogniser.answer("hello")
    (transcript,) = rig.step()
    assert transcript.generation == new


# -- what reply is told before the turn is over --------------------------------------------------


def test_the_text_of_a_pause_is_told_before_the_turn_is_over(rig):
    rig.speak(9)
    rig.silence(9)
    rig.step()
    rig.recogniser.answer("for four")
    assert rig.step() == []
    (partial,) = rig.partials
    assert (partial.text, partial.paused, partial.epoch, partial.utterance) == (
        "for four",
        True,
        1,
        1,
    )


def test_a_pause_without_words_is_nothing_to_tell(rig):
    rig.speak(9)
    rig.silence(9)
    rig.step()
    rig.recogniser.answer("")
    rig.step()
    assert rig.partials == []


def test_the_text_of_a_caller_who_has_gone_is_not_told(rig):
    rig.speak(9)
    rig.silence(9)
    rig.step()
    rig.calls[0].generation.at += 1
    rig.recogniser.answer("for four")
    rig.step()
    assert rig.partials == []


def test_the_text_of_a_pause_that_was_none_is_not_told(rig):
    rig.speak(9)
    rig.silence(9)
    rig.step()
    rig.speak(5)
    rig.silence(14)
    rig.step()
    rig.recogniser.answer("for")
    rig.step()
    assert rig.partials == []


# -- partials by Whisper -------------------------------------------------------------------------


def timed(text, begin=0.0):
    """A word every 0.3 s."""
    words = text.split()
    return [Word(word, begin + 0.3 * i, begin + 0.3 * i + 0.2) for i, word in enumerate(words)]


@pytest.fixture
def speaking(make):
    """A caller who has the floor, with two workers; a partial is due every 20 windows."""
    rig = make(partial_ms=640)
    rig.recogniser.workers = 2
    rig.speak(5)
    rig.epoch = 1  # the floor is taken
    return rig


def test_two_partials_that_agree_are_told_and_counted(speaking):
    rig = speaking
    rig.speak(15)
    rig.step()
    assert rig.recogniser.timed == [1]
    assert rig.decoded() == [rig.audio(20)]
    rig.recogniser.answer("I want too", words=timed("I want too"))
    rig.speak(19)
    rig.step()
    assert (rig.partials, len(rig.decoded())) == ([], 1)  # one window is missing
    rig.speak(1)
    rig.step()
    assert rig.decoded()[-1] == rig.audio(40)
    rig.recogniser.answer("", words=timed("I want two pizzas"))
    rig.step()
    (partial,) = rig.partials
    assert (partial.text, partial.paused, partial.epoch) == ("I want", False, 1)
    assert (rig.whisper.partials, rig.whisper.decoded) == (2, 0)


def test_words_that_were_to_stay_are_compared_with_the_final_text(speaking):
    rig = speaking
    for said in ("I want too", "I want too pizzas"):
        rig.speak(20)
        rig.step()
        rig.recogniser.answer("", words=timed(said))
        rig.step()
    rig.over(45)
    rig.step()
    rig.recogniser.answer("I want two pizzas.")
    (transcript,) = rig.step()
    assert transcript.text == "I want two pizzas."
    assert (rig.stage.committed, rig.stage.contradicted) == (3, 1)


@pytest.mark.parametrize(
    "why", ["tentative", "one worker", "no worker", "a turn waits", "switched off"]
)
def test_no_partial_is_made_when(make, why):
    rig = make(calls=2, partial_ms=640, partials=why != "switched off")
    rig.recogniser.workers = {"one worker": 1, "no worker": 0}.get(why, 2)
    if why == "a turn waits":
        rig.speak(4, slot=1)
        rig.over(4, slot=1)
    rig.speak(5)
    rig.epoch = int(why != "tentative")
    rig.speak(30)
    rig.step()
    assert rig.recogniser.timed == []


def test_a_partial_that_waited_is_made_when_workers_are_free_and_the_caller_still_speaks(make):
    rig = make(calls=2, partial_ms=640)
    rig.recogniser.workers = 1
    for slot in (0, 1):
        rig.epoch = 0
        rig.speak(1, slot=slot)
        rig.epoch = 1
        rig.speak(29, slot=slot)
    rig.step()
    rig.over(30, slot=0)
    rig.step()
    rig.recogniser.answer("hello")
    rig.recogniser.workers = 2
    rig.step()
    assert rig.decoded() == [rig.audio(30, slot=0), rig.audio(30, slot=1)]
    assert rig.recogniser.timed == [2]
    assert rig.whisper.dropped == 1


@pytest.mark.parametrize("moved", ["over", "gone"])
def test_a_partial_that_waited_too_long_is_not_made(make, moved):
    rig = make(partial_ms=640)
    rig.recogniser.workers = 0
    rig.speak(5)
    rig.epoch = 1
    rig.speak(20)
    rig.step()
    if moved == "over":
        rig.over(25)
    else:
        rig.calls[0].generation.at += 1
    rig.recogniser.workers = 3
    rig.step()
    assert rig.recogniser.timed == []


def test_one_partial_of_a_caller_is_made_at_a_time(speaking):
    rig = speaking
    rig.recogniser.workers = 3
    for _ in range(3):
        rig.speak(20)
        rig.step()
    assert rig.recogniser.timed == [1]
    rig.recogniser.answer(None, reason="it crashed")
    rig.speak(1)
    rig.step()
    assert (rig.whisper.partials, rig.whisper.dropped) == (0, 1)
    rig.speak(1)
    rig.step()
    assert rig.recogniser.timed == [1, 2]
    assert rig.decoded()[-1] == rig.audio(66)


def test_a_partial_that_comes_after_the_end_is_dropped(speaking):
    rig = speaking
    rig.speak(15)
    rig.step()
    (job,) = rig.recogniser.busy
    rig.over(20)
    rig.step()
    rig.recogniser.answer("hello", job=job, words=timed("hello"))
    rig.step()
    assert (rig.whisper.partials, rig.whisper.dropped) == (0, 1)


def test_a_long_utterance_is_not_decoded_from_its_beginning_for_ever(speaking):
    """Past 15 s, the words that stay are cut off, and times count from where that was."""
    rig = speaking
    said = ""
    for i in range(30):
        rig.speak(25)
        rig.step()
        (job,) = rig.recogniser.busy
        begin = (len(rig.audio(10_000)) - len(rig.recogniser.given[job])) / 8000
        said = [Word(f"w{n}.", 0.8 * n - begin, 0.8 * n + 0.7 - begin) for n in range(i + 1)]
        rig.recogniser.answer("", words=[word for word in said if word.start >= 0])
        rig.step()
    assert max(len(audio) for audio in rig.decoded()) < 17 * 8000
    assert rig.partials[-1].text == " ".join(f"w{n}." for n in range(29))


# -- Deepgram ------------------------------------------------------------------------------------


@pytest.fixture
def cloud(make):
    return make(chain=("deepgram", "whisper"))


def sent(rig):
    """What Deepgram was told: audio in one piece between the other events."""
    told = []
    for event in rig.vendors.events():
        if isinstance(event, HearChunk) and told and isinstance(told[-1], bytes):
            told[-1] += event.audio
        elif isinstance(event, HearChunk):
            told.append(event.audio)
        else:
            told.append(event)
    return told


def test_an_utterance_is_streamed_as_it_comes_and_asked_for_at_each_silence(cloud):
    rig = cloud
    for _ in range(3):
        rig.speak(2)
        rig.step()
    assert sent(rig) == [rig.audio(6)]
    rig.speak(5)  # two windows more than vad names
    rig.silence(9)
    rig.step()
    assert sent(rig) == [
        rig.audio(9)[6 * WINDOW :],
        HearFinal(0, LIVE, 1, 9),
        rig.audio(11)[9 * WINDOW :],
    ]
    assert rig.decoded() == []


def test_its_final_text_is_the_turn_s(cloud):
    rig = cloud
    rig.speak(9)
    rig.silence(9)
    rig.step()
    rig.heard("for four", 9)
    assert rig.step() == []
    (partial,) = rig.partials
    assert (partial.text, partial.paused) == ("for four", True)
    rig.speak(3)
    rig.over(9, epoch=7)
    (transcript,) = rig.step()
    assert (transcript.text, transcript.source, transcript.epoch) == ("for four", "deepgram", 7)
    assert 0 < transcript.decode_began < transcript.decode_ended < transcript.at
    assert [type(event) for event in sent(rig)] == [bytes, HearFinal]
    assert rig.decoded() == []


def test_a_final_text_that_is_late_for_the_turn_s_end_is_awaited(cloud):
    rig = cloud
    rig.speak(9)
    rig.silence(9)
    rig.over(9)
    assert rig.step() == []
    rig.heard("for four", 9)
    assert [transcript.text for transcript in rig.step()] == ["for four"]
    assert rig.step() == []


def test_a_final_text_of_an_earlier_pause_is_not_the_turn_s(cloud):
    rig = cloud
    rig.speak(9)
    rig.silence(9)
    rig.step()
    rig.speak(9)
    rig.over(18)
    rig.step()
    rig.heard("for", 9)
    assert rig.step() == []
    rig.heard("for four", 18)
    assert [transcript.text for transcript in rig.step()] == ["for four"]


def test_interim_texts_are_told_once_each_as_soon_as_the_floor_is_taken(cloud):
    rig = cloud
    rig.speak(2)
    rig.step()
    rig.heard("for")
    rig.step()
    assert rig.partials == []
    rig.epoch = 1
    rig.speak(2)
    rig.step()
    for text in ("for", "for", "for four", "for", ""):
        rig.heard(text)
    rig.step()
    assert [(one.text, one.paused, one.epoch) for one in rig.partials] == [
        ("for", False, 1),
        ("for four", False, 1),
    ]
    rig.heard("four for")  # it has thought better of it
    rig.step()
    assert rig.partials[-1].text == "four for"


def paused(rig):
    return [one.text for one in rig.partials if one.paused]


def spoken(rig, windows=20):
    """Speech with the floor taken, that a pause of three windows is to follow."""
    rig.epoch = 1
    rig.speak(windows)
    rig.step()


def test_an_interim_text_of_all_that_was_spoken_is_the_pause_s_before_the_final_one(cloud):
    rig = cloud
    spoken(rig)
    rig.heard("for four", covered=17)  # all but the pause
    rig.silence(20)
    rig.step()
    rig.step()
    assert paused(rig) == ["for four"]
    rig.heard("for four", 20)
    rig.step()
    assert paused(rig) == ["for four", "for four"]


def test_one_that_comes_within_the_pause_will_do_as_well(cloud):
    rig = cloud
    spoken(rig)
    rig.silence(20)
    rig.step()
    assert paused(rig) == []
    rig.heard("for four", covered=18)
    rig.step()
    assert paused(rig) == ["for four"]
    rig.heard("for four", covered=20)
    rig.step()
    assert paused(rig) == ["for four"]  # a pause is guessed at once


def test_one_that_leaves_out_the_last_word_is_not_taken_for_the_whole(cloud):
    rig = cloud
    spoken(rig)
    rig.heard("for", covered=14)
    rig.silence(20)
    rig.step()
    assert paused(rig) == []


def test_interim_texts_can_be_switched_off(make):
    rig = make(chain=("deepgram", "whisper"), partials=False)
    rig.speak(2)
    rig.epoch = 1
    rig.speak(2)
    rig.step()
    rig.heard("for")
    rig.step()
    assert rig.partials == []


def test_an_interim_text_may_answer_a_doubt_with_words_but_not_with_none(cloud):
    rig = cloud
    rig.speak(9)
    rig.heard("uh")  # before anybody asks
    rig.doubt(9)
    rig.step()
    assert sent(rig)[-1] == HearFinal(0, LIVE, 1, 9)
    rig.heard("uh")
    rig.step()
    assert rig.opinions() == []
    rig.heard("uh wait")
    rig.step()
    assert [(one.windows, one.kind) for one in rig.opinions()] == [(9, Barge.STOP)]
    rig.heard("uh wait", 9)
    rig.step()
    assert rig.opinions() == []  # once


def test_what_lapsed_is_forgotten_by_deepgram_too(cloud):
    rig = cloud
    rig.speak(9)
    rig.doubt(9)
    rig.step()
    rig.lapse()
    rig.step()
    assert sent(rig)[-1] == HearForget(0, LIVE, 1)
    rig.heard("stop", 9)
    assert rig.step() == []
    assert rig.opinions() == []


def test_what_is_heard_of_an_earlier_caller_is_ignored(cloud):
    rig = cloud
    rig.speak(9)
    rig.silence(9)
    rig.step()
    new = rig.calls[0].generation.at = LIVE + 2
    rig.speak(4, utterance=2, generation=new)
    rig.heard("for four", 9)
    assert rig.step() == []
    assert rig.partials == []
    rig.silence(4, utterance=2, generation=new)
    rig.heard("stale", 4, utterance=2)
    rig.step()
    assert rig.partials == []
    rig.heard("hello", 4, utterance=2, generation=new)
    rig.step()
    assert [one.text for one in rig.partials] == ["hello"]


def test_what_a_full_ring_lost_is_still_a_turn_that_ends(cloud):
    rig = cloud
    rig.over(9)
    (transcript,) = rig.step()
    assert (transcript.text, transcript.source) == ("", "deepgram")


# -- the chain -----------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["speaking", "silent", "over"])
def test_whoever_fails_is_followed_by_the_next_with_all_of_the_audio(cloud, when):
    rig = cloud
    rig.speak(6)
    rig.step()
    if when == "speaking":
        rig.unheard()
        rig.step()
    rig.speak(3)
    rig.silence(9)
    rig.step()
    if when == "silent":
        rig.unheard()
        rig.step()
    rig.over(9)
    rig.step()
    if when == "over":
        rig.unheard()
        rig.step()
    assert rig.decoded() == [rig.audio(9)]
    assert [event for event in sent(rig) if isinstance(event, HearForget)]
    rig.heard("too late", 9)
    rig.recogniser.answer("for four")
    (transcript,) = rig.step()
    assert (transcript.text, transcript.source) == ("for four", "whisper")
    assert rig.stage.fallbacks == {"deepgram": 1, "whisper": 0}


def test_whoever_is_late_is_followed_by_the_next(cloud):
    rig = cloud
    rig.speak(9)
    rig.silence(9)
    rig.step()
    rig.clock.now += 5  # a pause has all the time in the world
    rig.step()
    rig.over(9)
    rig.step()
    rig.clock.now += rig.config.stt.final_seconds - 0.1
    rig.step()
    assert rig.decoded() == []
    rig.clock.now += 0.2
    rig.step()
    assert rig.decoded() == [rig.audio(9)]
    rig.recogniser.answer("for four")
    assert [transcript.text for transcript in rig.step()] == ["for four"]
    assert rig.stage.fallbacks["deepgram"] == 1


@pytest.mark.parametrize("how", ["fails", "is late"])
def test_the_end_of_the_chain_is_no_text(make, how):
    rig = make(chain=("deepgram",))
    rig.speak(9)
    rig.over(9)
    rig.step()
    if how == "fails":
        rig.unheard("it hung up")
    else:
        rig.clock.now += rig.config.stt.final_seconds + 0.1
    (transcript,) = rig.step()
    assert transcript.text is None
    assert transcript.reason == ("it hung up" if how == "fails" else LATE)
    assert rig.stage.failed == 1
    rig.heard("too late", 9)
    assert rig.step() == []
    rig.speak(4, utterance=2)
    rig.over(4, utterance=2)
    rig.step()
    rig.heard("hello", 4, utterance=2)
    assert [transcript.text for transcript in rig.step()] == ["hello"]


def test_both_fail(cloud):
    rig = cloud
    rig.speak(9)
    rig.over(9)
    rig.step()
    rig.unheard()
    rig.step()
    rig.recogniser.answer(None, reason="it crashed")
    (transcript,) = rig.step()
    assert (transcript.text, transcript.reason) == (None, "it crashed")


def test_whisper_may_come_first_and_is_left_out_until_it_is_ready(make):
    rig = make(chain=("whisper", "deepgram"))
    rig.speak(4)
    rig.over(4)
    rig.step()
    rig.heard("one", 4)
    assert [one.source for one in rig.step()] == ["deepgram"]
    rig.recogniser.ready = True
    rig.speak(4, utterance=2)
    rig.over(4, utterance=2)
    rig.step()
    rig.recogniser.answer(None, reason="it crashed")
    rig.step()
    assert sent(rig)[-2:] == [rig.audio(4, 2), HearFinal(0, LIVE, 2, 4)]
    rig.heard("two", 4, utterance=2)
    assert [(one.text, one.source) for one in rig.step()] == [("two", "deepgram")]


def test_a_whole_utterance_reaches_the_second_who_streams(make):
    """Nothing is lost when the first one fails while the caller speaks."""
    rig = make(chain=("whisper", "deepgram"))
    rig.recogniser.ready = True
    rig.speak(5)
    rig.doubt(5)
    rig.step()
    rig.recogniser.answer(None, reason="it crashed")
    rig.step()
    rig.speak(4)
    rig.over(9)
    rig.step()
    told = sent(rig)
    assert b"".join(one for one in told if isinstance(one, bytes)) == rig.audio(9)
    assert told[-1] == HearFinal(0, LIVE, 1, 9)


def test_without_whisper_nobody_waits_for_a_model(make):
    rig = make(chain=("deepgram",))
    rig.stage.begin()
    assert rig.stage.ready
    rig.step()
    assert rig.stage.ready
    rig.stage.finish()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_turn_is_answered_once_whatever_the_vendor_does(data):
    """Two callers; Deepgram answers, fails, or says nothing until it is too late."""
    rig = Rig(calls=2, chain=("deepgram", "whisper"))
    rig.recogniser.ready = True
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        for module in ("asr", "transcribe"):
            patch.setattr(f"threadline.threads.{module}.time", clock)
        heard = {}  # by (slot, utterance): audio
        answers, turns = [], []

        def run():
            if rig.recogniser.busy:
                rig.recogniser.answer(rig.recogniser.given[rig.recogniser.busy[0]].hex())
            answers.extend(rig.step())
            for event in rig.vendors.events():
                key = event.slot, event.utterance
                if isinstance(event, HearChunk):
                    heard[key] = heard.get(key, b"") + event.audio
                elif isinstance(event, HearFinal):
                    match data.draw(st.sampled_from(["answer", "fail", "hang"])):
                        case "answer":
                            text = heard[key][: event.windows * WINDOW].hex()
                            rig.heard(text, event.windows, event.utterance, event.slot)
                        case "fail":
                            rig.unheard("no", event.utterance, event.slot)

        for utterance in range(1, 4):
            for slot in (0, 1):
                windows = 0
                for part in data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3)):
                    rig.speak(part, utterance, slot)
                    windows += part
                    if data.draw(st.booleans()):
                        rig.silence(windows, utterance, slot)
                    if data.draw(st.booleans()):
                        run()
                if data.draw(st.integers(0, 3)) == 0:
                    rig.lapse(utterance, slot)
                else:
                    rig.over(windows, utterance, slot)
                    turns.append((slot, rig.audio(windows, utterance, slot).hex()))
            run()
        for _ in range(30):
            run()
            clock.now += 0.5
    rig.close()
    assert sorted((answer.slot, answer.text) for answer in answers) == sorted(turns)
    assert rig.stage._waiting == {}


# -- the recogniser ------------------------------------------------------------------------------


def test_the_recogniser_is_started_ticked_and_closed(rig):
    rig.stage.begin()
    rig.step()
    assert rig.recogniser.ticks == 1
    assert not rig.stage.ready
    rig.recogniser.ready = True
    rig.step()
    assert rig.stage.ready
    rig.stage.finish()
    assert rig.recogniser.calls == ["start", "close"]


def test_the_sockets_of_the_workers_wake_the_stage_also_new_ones(rig):
    other, extra = Inbox("one"), Inbox("two")
    rig.recogniser.sockets = (other.fileno(),)
    rig.stage.begin()
    assert not rig.inbox.wait(0)
    other.wake()
    assert rig.inbox.wait(0)
    rig.recogniser.sockets = (extra.fileno(),)
    rig.step()
    assert not rig.inbox.wait(0)
    extra.wake()
    assert rig.inbox.wait(0)
    other.close()
    extra.close()
