"""What is decoded, when, and what becomes of it; see `asr_rig`."""

from dataclasses import replace

import pytest
from asr_rig import CONFIG, LIVE, Clock, Rig
from hypothesis import given, settings
from hypothesis import strategies as st

from threadline.threads.messages import Transcript
from threadline.threads.wake import Inbox


@pytest.fixture
def make(monkeypatch):
    made = []

    def make(**options):
        made.append(Rig(**options))
        made[-1].clock = Clock()
        monkeypatch.setattr("threadline.threads.asr.time", made[-1].clock)
        return made[-1]

    yield make
    for one in made:
        one.close()


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
    assert (rig.stage.decoded, rig.stage.wasted, rig.stage.failed) == (1, 0, 0)


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
    assert transcript.decode_ended == pytest.approx(ended * 1e9)
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
    assert rig.stage.wasted == 1


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
    assert rig.stage.wasted == 0


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
    assert rig.stage.wasted == 0


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
    assert (rig.decoded(), rig.stage.failed, rig.stage.wasted) == ([], 1, 0)


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
    rig.clock.now += 2 * CONFIG.deadline_seconds
    assert rig.step() == []
    rig.speak(5, utterance=2, generation=LIVE + 2)
    rig.over(5, utterance=2, generation=LIVE + 2)
    rig.step()
    assert rig.decoded() == [rig.audio(5, 2)]
    assert rig.stage.wasted == 0  # it was never begun


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
