import ctypes
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from threadline.threads import realtime
from threadline.threads.realtime import Favour, lock_memory, measure_lateness, prepare_thread

PR_GET_TIMERSLACK = 30


def in_a_thread(function):
    """Run on a thread of its own, whose rights end with it; re-raise what it raises."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def slack():
    return ctypes.CDLL(None).prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0)


def test_a_granted_slack_is_the_system_s_own():
    # Without SCHED_FIFO: the system reports no slack at all for a real-time thread.
    rights, slack_ns = in_a_thread(lambda: (prepare_thread(fifo=False), slack()))
    assert rights.slack.granted
    assert slack_ns == realtime.SLACK_NS


def test_a_granted_priority_is_the_system_s_own():
    def ask():
        return prepare_thread(), os.sched_getscheduler(0), os.sched_getparam(0)

    rights, scheduler, parameters = in_a_thread(ask)
    if not rights.fifo.granted:
        assert scheduler == os.SCHED_OTHER
        pytest.skip(rights.fifo.detail)
    assert scheduler == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, "children must not inherit it"
    assert parameters.sched_priority == realtime.FIFO_PRIORITY


def test_only_the_calling_thread_is_changed():
    before = slack(), os.sched_getscheduler(0)
    in_a_thread(prepare_thread)
    assert (slack(), os.sched_getscheduler(0)) == before


def test_threads_started_by_a_real_time_thread_are_ordinary():
    def ask():
        prepare_thread()
        return in_a_thread(lambda: os.sched_getscheduler(0))

    assert in_a_thread(ask) == os.SCHED_OTHER


def test_what_was_not_asked_for_is_not_taken():
    def ask():
        return prepare_thread(fifo=False), os.sched_getscheduler(0)

    rights, scheduler = in_a_thread(ask)
    assert scheduler == os.SCHED_OTHER
    assert rights.fifo == Favour(False, "not asked for")


def test_every_refusal_is_named_and_none_is_raised(monkeypatch):
    def refuse(*arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(realtime, "_PR_SET_TIMERSLACK", 0x7FFF)  # no such option
    monkeypatch.setattr(realtime, "_MCL_CURRENT", 0x8000)  # no such flag
    rights = in_a_thread(prepare_thread)
    assert rights.fifo == Favour(False, "SCHED_FIFO refused (Operation not permitted)")
    assert rights.slack == Favour(False, "prctl refused (Invalid argument)")
    assert lock_memory() == Favour(False, "mlockall refused (Invalid argument)")
    for favour in (rights.slack, rights.fifo):
        assert favour.detail in rights.sentence


def test_a_libc_without_the_function_is_a_refusal():
    assert "not available" in realtime.libc_call("no_such_function")


@pytest.mark.parametrize(("value", "warned"), [("950000", False), ("-1", True), ("?", False)])
def test_a_priority_that_nothing_bounds_is_said_to_be_so(tmp_path, monkeypatch, value, warned):
    file = tmp_path / "sched_rt_runtime_us"
    file.write_text(value)
    monkeypatch.setattr(realtime, "_RT_RUNTIME", file)
    monkeypatch.setattr(os, "sched_setscheduler", lambda *arguments: None)
    assert ("unbounded" in prepare_thread().fifo.detail) == warned


def test_locked_memory_is_the_system_s_own():
    code = """
from threadline.threads.realtime import lock_memory
favour = lock_memory()
locked = next(line for line in open("/proc/self/status") if line.startswith("VmLck"))
print(favour.granted == (int(locked.split()[1]) > 0))
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(  # in a process of its own: it cannot be taken for a thread only
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


@pytest.mark.parametrize("fifo", [False, True])
def test_lateness_is_measured_on_every_tick_that_was_not_missed(fifo):
    before = threading.active_count(), os.listdir("/proc/self/fd"), os.sched_getscheduler(0)
    began = time.monotonic_ns()
    measured = measure_lateness(fifo, ticks=10, period_ns=2_000_000)
    assert time.monotonic_ns() - began >= 20_000_000, "ten ticks of 2 ms take their time"
    assert measured.ticks >= 10
    assert 0 <= measured.missed < measured.ticks
    assert 0 <= measured.p50 <= measured.p90 <= measured.max
    assert measured.rights.fifo.granted <= fifo
    after = threading.active_count(), os.listdir("/proc/self/fd"), os.sched_getscheduler(0)
    assert after == before, "nothing is left of the thread"
