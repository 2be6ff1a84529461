"""The runner of the races: what it says of one that does not hold."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

HOLDS = """
WHAT, LIMIT = "a race that holds", 60.0
def run(bout):
    bout.count(frames=7, interruptions=3)
"""
BREAKS = """
WHAT, LIMIT = "a planted failure", 60.0
def run(bout):
    bout.setting = "yields"
    bout.expect(bout.rng.random() > 2, f"lost frame {bout.rng.randrange(1000)}")
"""
IN_A_THREAD = """
from stress.bout import Crew
WHAT, LIMIT = "a failure on another thread", 60.0
def run(bout):
    crew = Crew(bout)
    crew.start("loser", lambda: bout.forbid("lost elsewhere"))
    crew.join()
"""
HANGS = """
import threading
WHAT, LIMIT = "a lost wake-up", 1.0
def run(bout):
    threading.Event().wait()
"""
CRASHES = """
import os, signal
WHAT, LIMIT = "a crash", 60.0
def run(bout):
    os.kill(os.getpid(), signal.SIGSEGV)
"""


def stress(tmp_path, *flags, **races):
    folder = tmp_path / "planted"
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
    for name, source in races.items():
        (folder / f"{name}.py").write_text(source)
    path = f"{tmp_path}:{ROOT}:{ROOT / 'src'}"
    return subprocess.run(
        [sys.executable, "-m", "stress.run", "--races", "planted", *flags],
        env={"PYTHONPATH": path, "COLUMNS": "200"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_race_that_holds_is_counted_and_passes(tmp_path):
    ran = stress(tmp_path, holds=HOLDS)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "7 frames, 3 interruptions" in ran.stdout
    assert "seed " in ran.stdout


def test_a_planted_failure_fails_the_run_with_its_seed_its_setting_and_the_way_back(tmp_path):
    ran = stress(tmp_path, "--seed", "71", holds=HOLDS, breaks=BREAKS, elsewhere=IN_A_THREAD)
    assert ran.returncode == 1
    assert "breaks (seed 71, with yields): lost frame" in ran.stdout
    assert "elsewhere (seed 71): lost elsewhere" in ran.stdout
    assert "./justw stress --seed 71 --only breaks" in ran.stdout
    assert "--only holds" not in ran.stdout


def test_a_seed_repeats_what_was_drawn(tmp_path):
    def lost(seed):
        said = stress(tmp_path, "--seed", seed, "--only", "breaks", breaks=BREAKS).stdout
        return next(
            line for line in said.splitlines() if line.startswith("stress.bout.Forbidden")
        ).rpartition(" ")[2]

    assert lost("5") == lost("5")
    assert lost("5") != lost("6")


def test_what_hangs_or_crashes_is_ended_and_told(tmp_path):
    ran = stress(tmp_path, "--seed", "9", hangs=HANGS, crashes=CRASHES)
    assert ran.returncode == 1
    assert "hangs (seed 9) hung" in ran.stdout
    assert "threading.py" in ran.stdout  # where it hung
    assert "crashes (seed 9) ended with status -11" in ran.stdout
    assert "./justw stress --seed 9 --only hangs" in ran.stdout


def test_there_is_no_such_race(tmp_path):
    ran = stress(tmp_path, "--only", "nothing", holds=HOLDS)
    assert ran.returncode == 2
    assert "holds" in ran.stderr
