"""The stack of one thread, asked of it or written by its own alarm."""

import threading

from helpers import DEADLINE, Worker, until

from threadline.threads import stacks
from threadline.threads.stacks import Alarm

WAIT_MS = 1_000


def test_a_thread_that_waits_says_where():
    begun, over = threading.Event(), threading.Event()

    def it_waits_here():
        begun.set()
        assert over.wait(DEADLINE)

    worker = Worker(it_waits_here)
    assert begun.wait(DEADLINE)
    text = stacks.stacks().of(worker.thread, WAIT_MS)
    over.set()
    worker.join()
    assert text.count("most recent call first") == 1
    assert "it_waits_here" in text
    assert text.endswith("_bootstrap")


def test_a_thread_inside_a_long_c_call_still_shows_its_stack():
    """Asking must not wait for it, and must not stop the others meanwhile."""
    data = [str(i * 7919 % 1_000_003) for i in range(1_000_000)]
    begun = threading.Event()

    def long_c_call():
        begun.set()
        return len(sorted(data))

    worker = Worker(long_c_call, "sorter")
    assert begun.wait(DEADLINE)
    assert "long_c_call" in stacks.stacks().of(worker.thread, WAIT_MS)
    assert worker.join() == 1_000_000


def test_a_thread_that_is_gone_has_no_stack():
    worker = Worker(lambda: None)
    worker.join()
    assert stacks.stacks().of(worker.thread, WAIT_MS) == ""


def alarmed(put_off):
    """What is written when a thread comes round or not."""

    def turn():
        alarm = Alarm()
        put_off(alarm)
        alarm.close()

    stacks.stacks().written()
    Worker(turn).join()
    return stacks.stacks().written()


def it_does_not_come_round(alarm):
    alarm.put_off(0.001)
    until(lambda: stacks.stacks()._ready.poll(0), "the alarm goes off")


def test_who_does_not_come_round_in_time_has_its_stack_written():
    assert "it_does_not_come_round" in alarmed(it_does_not_come_round)


def test_who_puts_the_alarm_off_has_not():
    def in_time(alarm):
        for seconds in (30.0, 0.0):
            alarm.put_off(seconds)

    assert alarmed(in_time) == ""


def test_without_such_timers_nothing_is_written(monkeypatch):
    monkeypatch.setattr(stacks.ctypes, "CDLL", lambda name: object())
    assert alarmed(lambda alarm: alarm.put_off(0.001)) == ""
