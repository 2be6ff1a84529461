import errno
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fake_decoder
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.audio import mulaw, wav
from threadline.listening.agreement import Word
from threadline.threads import asr_process
from threadline.threads.asr_process import (
    ATTEMPTS,
    BACKOFF_SECONDS,
    ROOM,
    TAIL,
    Recogniser,
    Result,
)
from threadline.threads.asr_worker import NICENESS

PATIENCE = 60.0  # seconds, for a machine with other things to do
PROMPTS = Path("/usr/share/asterisk/sounds/en")


class Log:
    def __init__(self):
        self.records = []

    def info(self, event, /, **fields):
        self.records.append((event, fields))

    error = info

    def of(self, event):
        return [fields for name, fields in self.records if name == event]


class Owner:
    """What the asr thread does, with a clock that a test can put forward."""

    def __init__(self, options, **keywords):
        self.log = Log()
        self.recogniser = Recogniser(options, self.log, **keywords)
        self.results: list[Result] = []
        self.ahead = 0.0
        self.recogniser.start()

    @property
    def now(self):
        return time.monotonic() + self.ahead

    def turn(self, wait=0.05):
        select.select(self.recogniser.filenos(), [], [], wait)
        self.recogniser.tick(self.now)
        self.results += self.recogniser.collect(self.now)

    def until(self, condition):
        give_up = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < give_up, self.log.records
            self.turn()

    def decode(self, job, audio=b"\xff" * 800, **keywords):
        """Submit as soon as a worker is free, and wait for what becomes of it."""
        self.submit(job, audio, **keywords)
        self.until(lambda: any(result.job == job for result in self.results))
        return next(result for result in self.results if result.job == job)

    def submit(self, job, audio=b"\xff" * 800, **keywords):
        self.until(lambda: self.recogniser.submit(job, audio, self.now, **keywords))


@pytest.fixture
def owner(tmp_path, monkeypatch):
    """Makes owners of a recogniser that uses the fake decoder, told what to do by deeds."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    fake_decoder.RELEASE.clear()
    owners = []

    def make(*deeds, **keywords):
        for number, deed in enumerate(deeds):
            (tmp_path / f"{number:02}-{deed}").touch()
        keywords = {"decoder": "fake_decoder:Fake", **keywords}
        owners.append(Owner({"folder": str(tmp_path)}, **keywords))
        return owners[-1]

    yield make
    fake_decoder.RELEASE.set()
    for one in owners:
        one.recogniser.close(10)


def gone(pid):
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.ESRCH
    return False  # a zombie counts as there


def tone(hertz, seconds):
    time_axis = np.arange(int(seconds * mulaw.RATE)) / mulaw.RATE
    return mulaw.encode_float(np.sin(2 * np.pi * hertz * time_axis).astype(np.float32) / 2)


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


def test_a_worker_process_gives_way_to_media_threads_and_is_known_by_name(owner):
    asr = owner()
    asr.until(lambda: asr.recogniser.ready)
    (pid,) = asr.recogniser.pids
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, ours + NICENESS)
    assert Path(f"/proc/{pid}/comm").read_text() == "asr-decode\n"
    assert os.getpgid(pid) != os.getpgid(0), "Ctrl-C is for the server, which drains"


def test_empty_audio_never_reaches_the_decoder(owner):
    assert owner("crash").decode(1, b"").text == ""


def test_audio_longer_than_its_room_is_cut_and_says_so(owner):
    result = owner(placement="thread").decode(1, tone(500, 1) * 31)
    assert result.text == f"{2 * ROOM} 500"
    assert result.cut


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


def test_what_a_library_prints_neither_blocks_nor_shows(owner, capfd):
    asr = owner("noise")
    assert asr.decode(1, tone(440, 0.5)).text == "8000 440"
    assert capfd.readouterr() == ("", "")


def test_of_what_a_worker_prints_only_the_end_is_kept(owner):
    asr = owner("outcry")
    asr.decode(1)
    (record,) = asr.log.of("utterance not decoded")
    assert "the end" in record["said"]
    assert len(record["said"]) <= TAIL


def test_a_worker_that_closes_its_output_does_not_keep_the_owner_awake(owner):
    asr = owner("mute")
    assert asr.decode(1).text is not None
    asr.turn(0)
    assert select.select(asr.recogniser.filenos(), [], [], 0.1)[0] == []
    assert asr.decode(2).attempts == 1


def test_a_model_that_cannot_be_loaded_is_a_sentence(owner, tmp_path):
    (tmp_path / "refuse").touch()
    asr = owner()
    asr.until(lambda: asr.recogniser.restarts)
    assert asr.recogniser.failed == "ValueError: the model is made of cheese"
    assert not asr.recogniser.ready
    (tmp_path / "refuse").unlink()
    asr.until(lambda: asr.recogniser.ready)
    assert asr.recogniser.failed == ""


def test_a_worker_that_dies_while_starting_is_a_sentence_too(owner, tmp_path):
    (tmp_path / "die").touch()
    asr = owner()
    asr.until(lambda: asr.recogniser.failed)
    assert "cannot start" in asr.recogniser.failed
    assert asr.log.of("recogniser worker ended")[0]["said"] == "last words"


def test_a_worker_that_never_gets_ready_is_ended(owner, tmp_path):
    (tmp_path / "sleep").touch()
    asr = owner()
    (pid,) = asr.recogniser.pids
    asr.ahead += asr_process.START_SECONDS + 1
    asr.turn()
    assert gone(pid)
    assert "not ready" in asr.recogniser.failed


def test_the_pause_before_a_restart_doubles_to_its_limit_and_success_resets_it(owner, tmp_path):
    (tmp_path / "refuse").touch()
    asr = owner(placement="thread")
    for restarts in range(1, 9):
        asr.until(lambda restarts=restarts: asr.recogniser.restarts == restarts)
        asr.ahead += asr.recogniser.next_deadline() - asr.now  # do not sit the pause out
    (tmp_path / "refuse").unlink()
    asr.decode(1)
    (tmp_path / "00-garbage").touch()
    pauses = [record["again_in"] for record in asr.log.of("recogniser worker ended")]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    (worker,) = asr.recogniser._workers
    assert worker.backoff == BACKOFF_SECONDS[0]


def test_fifty_restarts_leak_neither_descriptors_nor_zombies(owner):
    asr = owner()
    pids = set(asr.recogniser.pids)
    open_before = len(os.listdir("/proc/self/fd"))
    for restarts in range(1, 51):
        os.kill(asr.recogniser.pids[0], signal.SIGKILL)
        asr.until(lambda restarts=restarts: asr.recogniser.restarts == restarts)
        asr.ahead += BACKOFF_SECONDS[1]
        asr.until(lambda: asr.recogniser.pids)
        pids.update(asr.recogniser.pids)
    assert len(pids) == 51
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert [pid for pid in pids if not gone(pid)] == asr.recogniser.pids


def test_close_leaves_nothing_behind_even_of_a_deaf_worker(owner, tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    asr = owner("deaf", workers=2)
    asr.submit(1)
    asr.until((tmp_path / "hanging").exists)
    pids = asr.recogniser.pids
    asr.recogniser.close(1.0)
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)
    assert len(os.listdir("/proc/self/fd")) == before
    asr.recogniser.close = lambda timeout: None  # the fixture closes what is open


@pytest.mark.parametrize("deeds", [(), ("deaf",)])
def test_a_worker_does_not_outlive_its_parent(tmp_path, deeds):
    for deed in deeds:
        (tmp_path / f"0-{deed}").touch()
    script = """
import sys, time
import test_asr_process as t
asr = t.Owner({"folder": sys.argv[1]}, decoder="fake_decoder:Fake")
asr.until(lambda: asr.recogniser.ready)
asr.recogniser.submit(1, b"x", asr.now)
print(*asr.recogniser.pids, flush=True)
time.sleep(1000)
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], env=environ, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        give_up = time.monotonic() + PATIENCE
        while deeds and not (tmp_path / "hanging").exists():
            assert time.monotonic() < give_up
            time.sleep(0.01)
        parent.kill()
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < give_up, "it is still there"
        time.sleep(0.01)


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
        worker.job = asr_process._Job(7, 0, 1, False, 1e9, False, attempts=1)
        recogniser._jobs.append(worker.job)
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
