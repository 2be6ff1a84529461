"""The profile: stacks into costs, and the sampler in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from stress import profile
from stress.profile import Profile, Told
from threadline.errors import ConfigError

ROOT = Path(__file__).parents[2]

STACKS = """\
Stack (most recent call first):
  File "/x/threads/ring.py", line 7 in pop
  File "/x/threads/vad.py", line 20 in _collect
  File "/x/threads/vad.py", line 10 in step
  File "/x/threads/supervisor.py", line 1 in _run

Stack (most recent call first):
  File "/x/threads/ring.py", line 8 in pop
  File "/x/threads/ring.py", line 9 in pop
  File "/x/threads/vad.py", line 10 in step
  File "/x/threads/supervisor.py", line 1 in _run

Stack (most recent call first):
  File "/x/threads/vad.py", line 12 in step
  File "/x/threads/supervisor.py", line 1 in _run
Stack (most recent call first):
  <no Python frame>
"""
POP, STEP = ("/x/threads/ring.py", "pop"), ("/x/threads/vad.py", "step")

BUSY = """
import sys, threading, time
from pathlib import Path
from stress.profile_server import Sampler

over = threading.Event()

def burn():
    while not over.is_set():
        sum(range(10_000))

threads = [
    threading.Thread(target=burn, name="burner"),
    threading.Thread(target=over.wait, name="sleeper"),
    threading.Thread(target=time.sleep, args=(0.1,), name="gone"),
]
for thread in threads:
    thread.start()
folder = Path(sys.argv[1])
sampler = Sampler(folder)
sampler.next()
time.sleep(0.3)
sampler.next()
threads.pop().join()  # it was gone by then
clock = time.pthread_getcpuclockid(threads[0].ident)
enough = time.clock_gettime(clock) + 0.3
while time.clock_gettime(clock) < enough:
    time.sleep(0.02)
sampler.next()
over.set()
for thread in threads:
    thread.join()
"""


def test_stacks_are_counted_by_function_and_by_line():
    read = Profile.read("vad", 0.003, STACKS)
    assert read.samples == 3
    assert read.own == {POP: 2, STEP: 1}
    assert read.lines == {(POP, 7): 1, (POP, 8): 1, (STEP, 12): 1}
    assert read.within[POP] == 2  # a function that calls itself is in a stack once
    assert read.within[STEP] == 3


def test_costs_are_of_the_cpu_time_that_was_spent_not_of_the_number_of_samples():
    read = Profile.read("vad", 0.003, STACKS)
    assert read.us(2, frames=100) == pytest.approx(20.0)  # two thirds of 3 ms over 100 frames


def told(**cpu):
    return Told(calls=10, seconds=2.0, cpu=cpu, done={"turns": 4.0})


def shown(tmp_path, seen, wanted, top=15):
    with (tmp_path / "shown").open("w") as out:
        profile.show(Console(file=out, width=140), tmp_path, seen, wanted, top)
    return (tmp_path / "shown").read_text()


def test_the_tables(tmp_path):
    (tmp_path / "vad.stacks").write_text(STACKS)
    (tmp_path / "idle.stacks").write_text("")
    text = shown(tmp_path, told(vad=0.03, idle=0.0), ["vad"])
    totals = next(line for line in text.splitlines() if line.strip().startswith("vad "))
    # 30 ms: of 20 s of calls 0.15 %; over 10 x 2 s x 50 frames 30 us; over 4 turns 7.5 ms
    assert totals.split() == ["vad", "0.1500", "30.00", "7.50"]
    assert "20.00   pop  threads/ring.py" in text
    assert "30.00   step  threads/vad.py" in text
    assert "_run" not in text  # what all stacks begin with
    assert "pop  threads/ring.py:7" in text


def test_without_a_choice_the_threads_that_were_seen_often_enough_are_shown(tmp_path):
    (tmp_path / "vad.stacks").write_text(STACKS)
    (tmp_path / "idle.stacks").write_text("")
    text = shown(tmp_path, told(vad=0.03, idle=0.0), [], top=3)
    assert "vad: 0.03 s of CPU, 3 samples" in text
    assert "idle: " not in text


def test_a_thread_that_is_not_there_is_named_with_those_that_are(tmp_path):
    with pytest.raises(ConfigError, match=r"no thread vda.*vad"):
        shown(tmp_path, told(vad=0.03), ["vda"])


def test_a_thread_is_sampled_while_it_works_and_not_while_it_sleeps(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", BUSY, str(tmp_path)],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    spent = json.loads((tmp_path / "told.json").read_text())
    assert set(spent["cpu"]) == {"MainThread", "burner", "sleeper"}
    assert spent["cpu"]["burner"] > 10 * spent["cpu"]["sleeper"]
    burner = Profile.read("burner", 1.0, (tmp_path / "burner.stacks").read_text())
    (dearest, count), *_ = burner.own.most_common()
    assert dearest[1] == "burn"
    assert count > burner.samples / 2
    assert burner.samples > 20  # of 100
    sleeper = Profile.read("sleeper", 1.0, (tmp_path / "sleeper.stacks").read_text())
    assert sleeper.samples < burner.samples / 10


@pytest.mark.long
def test_the_cascade_is_profiled(models, tmp_path, capsys):
    argv = ["--calls", "3", "--seconds", "4", "--thread", "io-calls", "--keep", str(tmp_path)]
    assert profile.main(argv) == 0
    text = capsys.readouterr().out
    assert "io-vendors" in text  # in the table of threads
    assert "data_received" in text
    assert "vad: " not in text
