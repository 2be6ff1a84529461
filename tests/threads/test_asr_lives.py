"""How a worker of the recogniser begins and ends; see `recogniser_rig`."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recogniser_rig import PATIENCE, gone, owning, tone

from threadline.threads.asr_lives import BACKOFF_SECONDS, TAIL
from threadline.threads.asr_worker import NICENESS

owner = pytest.fixture(owning, name="owner")


def test_a_worker_process_gives_way_to_media_threads_and_is_known_by_name(owner):
    asr = owner()
    asr.until(lambda: asr.recogniser.ready)
    (pid,) = asr.recogniser.pids
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, ours + NICENESS)
    assert Path(f"/proc/{pid}/comm").read_text() == "asr-decode\n"
    assert os.getpgid(pid) != os.getpgid(0), "Ctrl-C is for the server, which drains"


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
import recogniser_rig as t
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
