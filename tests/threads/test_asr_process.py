"""Who decodes what, and what a death costs; see `recogniser_rig`."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import fake_decoder
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recogniser_rig import PATIENCE, Owner, gone, owning, tone

from threadline.audio import wav
from threadline.listening.agreement import Word
from threadline.threads import asr_process
from threadline.threads.asr_lives import Job
from threadline.threads.asr_process import ATTEMPTS, ROOM, Recogniser

PROMPTS = Path("/usr/share/asterisk/sounds/en")

owner = pytest.fixture(owning, name="owner")


@pytest.mark.parametrize("placement", ["process", "thread"])
def test_a_worker_hears_the_very_audio_that_was_submitted(owner, placement):
    asr = owner(placement=placement)
    assert not asr.recogniser.ready
    assert not asr.recogniser.submit(1, b"\xff", asr.now), "no worker has its model yet"
    first = asr.decode(2, memoryview(tone(440, 0.5)))
    second = asr.decode(3, bytearray(tone(1000, 1.0)))
    assert (first.text, second.text) == ("8000 440", "16000 1000")
    assert first.attempts == 1
    assert not first.cut
    assert asr.recogniser.ready
    assert len(asr.recogniser.pids) == (placement == "process")
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("asr-decode") == (placement == "thread")


@pytest.mark.parametrize("placement", ["process", "thread"])
def test_the_times_of_words_come_when_they_are_asked_for(owner, placement):
    asr = owner(placement=placement)
    timed = asr.decode(1, tone(440, 0.5), words=True)
    assert timed.text == "8000 440"
    assert timed.words == [Word("8000", 0.0, 0.5), Word("440", 1.0, 1.5)]
    plain = asr.decode(2, tone(440, 0.5))
    assert (plain.text, plain.words) == ("8000 440", [])
    assert asr.decode(3, b"", words=True).words == []


def test_a_job_that_is_tried_again_still_wants_its_words(owner):
    result = owner("crash").decode(1, tone(440, 0.5), words=True)
    assert (result.attempts, [word.text for word in result.words]) == (2, ["8000", "440"])


def test_how_many_workers_would_take_a_job(owner):
    asr = owner(workers=2)
    assert asr.recogniser.idle == 0
    asr.until(lambda: len(asr.log.of("recogniser ready")) == 2)
    assert asr.recogniser.idle == 2
    asr.submit(1)
    assert asr.recogniser.idle == 1
    asr.until(lambda: asr.results)
    assert asr.recogniser.idle == 2


def test_empty_audio_never_reaches_the_decoder(owner):
    assert owner("crash").decode(1, b"").text == ""


def test_audio_longer_than_its_room_is_cut_and_says_so(owner):
    result = owner(placement="thread").decode(1, tone(500, 1) * 31)
    assert result.text == f"{2 * ROOM} 500"
    assert result.cut


def pair(asr, **deadlines):
    """Jobs 1 and 2 to one worker, as soon as there is one."""
    orders = [(job, tone(400 * job, 0.5), deadlines.get(f"of_{job}", 1e9)) for job in (1, 2)]
    asr.until(lambda: asr.recogniser.submit_together(orders, asr.now))


def texts(asr):
    return {result.job: result.text for result in asr.results}


@pytest.mark.parametrize("placement", ["process", "thread"])
def test_two_jobs_go_through_one_run_and_each_has_its_own_answer(owner, tmp_path, placement):
    asr = owner("count", placement=placement)
    pair(asr)
    assert asr.recogniser.idle == 0
    asr.until(lambda: len(asr.results) == 2)
    assert texts(asr) == {1: "8000 400", 2: "8000 800"}
    assert (tmp_path / "together").read_text() == "2"
    assert asr.recogniser.idle == 1
    assert [result.attempts for result in asr.results] == [1, 1]


def test_what_has_no_sound_does_not_spoil_the_other(owner):
    asr = owner()
    orders = [(1, b"", 1e9), (2, tone(800, 0.5), 1e9)]
    asr.until(lambda: asr.recogniser.submit_together(orders, asr.now))
    asr.until(lambda: len(asr.results) == 2)
    assert texts(asr) == {1: "", 2: "8000 800"}


def test_an_exception_in_a_run_of_two_loses_only_the_one_it_was_about(owner):
    asr = owner("raise", "raise")  # in the run of both, then in that of the first
    pair(asr)
    asr.until(lambda: len(asr.results) == 2)
    assert texts(asr) == {1: None, 2: "8000 800"}
    assert asr.recogniser.restarts == 0


def test_two_that_crashed_together_are_tried_again_one_by_one(owner):
    asr = owner("crash", "crash")  # together, and then the first alone
    pair(asr)
    asr.until(lambda: len(asr.results) == 2)
    assert texts(asr) == {1: None, 2: "8000 800"}
    assert {result.job: result.attempts for result in asr.results} == {1: 2, 2: 2}
    assert asr.recogniser.restarts == 2
    assert asr.decode(3, tone(440, 0.5)).attempts == 1


def test_when_one_of_two_is_past_its_deadline_the_other_is_tried_again(owner, tmp_path):
    asr = owner("hang")
    pair(asr, of_1=asr.now + 500)
    asr.until((tmp_path / "hanging").exists)
    asr.ahead += 501
    asr.until(lambda: len(asr.results) == 2)
    assert texts(asr) == {1: None, 2: "8000 800"}


def test_a_thread_that_was_late_with_two_answers_is_idle_after_both(owner):
    asr = owner("hold", placement="thread")
    pair(asr, of_1=asr.now + 500, of_2=asr.now + 500)
    asr.ahead += 501
    asr.until(lambda: len(asr.results) == 2)
    assert texts(asr) == {1: None, 2: None}
    fake_decoder.RELEASE.set()
    assert asr.decode(3, tone(440, 0.5)).text == "8000 440"
    assert asr.recogniser.restarts == 0


def test_two_workers_have_room_for_two_jobs_each(owner):
    asr = owner(workers=2)
    asr.until(lambda: asr.recogniser.idle == 2)
    pair(asr)
    orders = [(job, tone(300 * job, 0.5), 1e9) for job in (3, 4)]
    assert asr.recogniser.submit_together(orders, asr.now)
    asr.until(lambda: len(asr.results) == 4)
    assert texts(asr) == {1: "8000 400", 2: "8000 800", 3: "8000 900", 4: "8000 1200"}


def test_each_worker_has_a_job_of_its_own_and_no_more(owner):
    asr = owner(workers=2)
    asr.until(lambda: len(asr.log.of("recogniser ready")) == 2)
    assert asr.recogniser.submit(1, tone(400, 0.5), asr.now)
    assert asr.recogniser.submit(2, tone(800, 0.5), asr.now)
    assert not asr.recogniser.submit(3, tone(900, 0.5), asr.now)
    asr.until(lambda: len(asr.results) == 2)
    assert {result.job: result.text for result in asr.results} == {1: "8000 400", 2: "8000 800"}


def test_a_worker_killed_in_mid_utterance_costs_one_retry(owner):
    asr = owner("crash")
    result = asr.decode(1, tone(440, 0.5))
    assert (result.text, result.attempts) == ("8000 440", 2)
    (record,) = asr.log.of("recogniser worker ended")
    assert record["status"] == -signal.SIGKILL
    assert gone(record["pid"])
    assert asr.recogniser.restarts == 1


def test_an_utterance_that_kills_two_workers_is_given_up(owner):
    asr = owner("crash", "crash")
    result = asr.decode(1)
    assert result.text is None
    assert "twice" in result.reason
    assert result.attempts == ATTEMPTS
    assert asr.decode(2, tone(440, 0.5)).text == "8000 440", "the next one is not affected"


def test_a_retry_takes_any_free_worker_with_its_own_audio(owner):
    asr = owner("crash", workers=2)
    asr.until(lambda: len(asr.log.of("recogniser ready")) == 2)
    assert asr.recogniser.submit(1, tone(440, 0.5), asr.now)
    asr.until(lambda: asr.recogniser.restarts == 1)
    asr.submit(2, tone(800, 0.5))  # must not land in the room that job 1 still uses
    asr.until(lambda: len(asr.results) == 2)
    assert {result.job: result.text for result in asr.results} == {1: "8000 440", 2: "8000 800"}


def test_a_worker_killed_while_idle_is_replaced(owner):
    asr = owner()
    asr.until(lambda: asr.recogniser.ready)
    (pid,) = asr.recogniser.pids
    os.kill(pid, signal.SIGKILL)
    asr.until(lambda: asr.recogniser.ready and pid not in asr.recogniser.pids)
    assert asr.decode(1).attempts == 1


def test_a_job_handed_to_a_worker_that_just_died_is_not_lost(owner):
    asr = owner()
    asr.until(lambda: asr.recogniser.ready)
    (pid,) = asr.recogniser.pids
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # dead, and nobody has noticed
    assert asr.recogniser.submit(1, tone(440, 0.5), asr.now)
    asr.until(lambda: asr.results)
    assert asr.results[0].text == "8000 440"


def test_a_hung_worker_is_killed_at_the_deadline_and_replaced(owner, tmp_path):
    asr = owner("hang", deadline_seconds=500)
    asr.submit(1)
    asr.until((tmp_path / "hanging").exists)
    (pid,) = asr.recogniser.pids
    due = asr.recogniser.next_deadline()
    asr.ahead += due - asr.now - 100
    asr.turn()
    assert not asr.results
    assert asr.recogniser.pids == [pid]
    asr.ahead += 101
    asr.until(lambda: asr.results)
    assert asr.results[0].text is None
    assert "deadline" in asr.results[0].reason
    assert gone(pid)
    assert asr.decode(2, tone(440, 0.5)).text == "8000 440"


def test_a_deadline_of_the_caller_counts_and_covers_the_retry(owner, tmp_path):
    asr = owner("crash")
    asr.until(lambda: asr.recogniser.ready)
    (tmp_path / "sleep").touch()  # the replacement never gets ready
    asr.submit(1, deadline=asr.now + 500)
    asr.until(lambda: asr.recogniser.restarts == 1)
    assert not asr.results
    asr.ahead += 501
    asr.until(lambda: asr.results)
    assert asr.results[0].text is None
    assert "deadline" in asr.results[0].reason


def test_a_thread_that_hangs_gets_no_job_until_it_answers(owner):
    asr = owner("hold", placement="thread", deadline_seconds=500)
    asr.submit(1)
    asr.ahead += 501
    asr.until(lambda: asr.results)
    assert "deadline" in asr.results[0].reason
    assert not asr.recogniser.ready
    assert not asr.recogniser.submit(2, b"\xff", asr.now)
    fake_decoder.RELEASE.set()
    assert asr.decode(3, tone(440, 0.5)).text == "8000 440"
    assert [result.job for result in asr.results] == [1, 3], "the late answer is nobody's"
    assert asr.recogniser.restarts == 0


@pytest.mark.parametrize("deed", ["garbage", "stale"])
def test_a_worker_that_talks_nonsense_is_replaced(owner, deed):
    asr = owner(deed)
    result = asr.decode(1, tone(440, 0.5))
    assert (result.text, result.attempts) == ("8000 440", 2)
    assert "no sense" in asr.log.of("recogniser worker ended")[0]["why"]


def test_an_exception_loses_one_utterance_and_is_one_log_record(owner, capfd):
    asr = owner("raise")
    result = asr.decode(1)
    assert result.text is None
    assert result.reason == "RuntimeError: no words for this"
    assert result.attempts == 1
    (record,) = asr.log.of("utterance not decoded")
    assert record["said"].startswith("Traceback")
    assert asr.decode(2).text is not None
    assert asr.recogniser.restarts == 0
    assert capfd.readouterr() == ("", ""), "nothing of a child's reaches the terminal"


def test_a_worker_that_never_gets_ready_is_ended(owner, tmp_path):
    (tmp_path / "sleep").touch()
    asr = owner()
    (pid,) = asr.recogniser.pids
    asr.ahead += asr_process.START_SECONDS + 1
    asr.turn()
    assert gone(pid)
    assert "not ready" in asr.recogniser.failed


class Inert:
    """A worker's side that is only spoken for."""

    def info(self, event, /, **fields):
        pass

    error = info


words = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["job", "text", "words", "error", "seconds", "ready"]), inner
        )
    ),
    max_leaves=8,
)


answers = st.fixed_dictionaries(
    {
        "job": st.just(7),
        "text": st.text(max_size=5),
        "words": st.lists(st.lists(words, max_size=4) | words, max_size=3),
        "error": st.just(""),
        "seconds": st.just(0.1),
    }
)


@given(
    message=st.binary(max_size=50)
    | answers.map(lambda word: json.dumps(word).encode())
    | words.map(lambda word: json.dumps(word).encode()),
    state=st.sampled_from(["starting", "idle", "busy", "stuck"]),
)
def test_no_message_whatever_upsets_the_owner(message, state):
    recogniser = Recogniser({}, Inert(), decoder="fake_decoder:Fake")
    (worker,) = recogniser._workers
    worker.state = state
    if state == "busy":
        worker.jobs = [Job(7, 0, 1, False, 1e9, False, attempts=1)]
        recogniser._jobs += worker.jobs
    recogniser._take(worker, message)
    for result in recogniser._results:
        assert all(isinstance(word, Word) for word in result.words)
        assert json.loads(message)["job"] == result.job == 7
    recogniser.close(0)


def test_a_message_nested_without_end_is_nonsense_not_an_error():
    recogniser = Recogniser({}, Inert(), decoder="fake_decoder:Fake")
    assert not recogniser._take(recogniser._workers[0], b"[" * 60_000)
    recogniser.close(0)


def test_whisper_in_a_child_hears_a_recorded_prompt(models):
    prompt = PROMPTS / "conf-onlyperson.wav"
    if not prompt.exists():
        pytest.skip("needs the Debian package asterisk-core-sounds-en-wav")
    folder = str(models.directory("whisper-base"))
    asr = Owner({"folder": folder, "threads": 1, "language": "en"}, deadline_seconds=PATIENCE)
    result = asr.decode(1, wav.read_mulaw(prompt))
    asr.recogniser.close(10)
    assert result.reason == ""
    assert "only person" in (result.text or "").lower()
    assert "ctranslate2" not in sys.modules, "the library that turns the GIL on stays outside"
