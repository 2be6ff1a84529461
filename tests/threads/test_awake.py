"""What a thread tells of its turns."""

import select
import threading
import time

import pytest
from helpers import DEADLINE, Worker, until

from threadline.threads.awake import LIMIT_MS, Awake, Pulse, core_times
from threadline.threads.wake import Inbox

LIMIT = int(LIMIT_MS * 1e6)


def test_a_stretch_that_was_too_long_is_kept_until_the_next_one():
    awake = Awake()
    awake.since = before = time.monotonic_ns() - LIMIT - 1_000_000
    awake.sleeps()
    assert awake.since == awake.look(0) == 0
    assert awake.overlong.since == before
    assert awake.overlong.until - before > LIMIT
    awake.wakes()
    kept = awake.overlong
    awake.sleeps()
    assert awake.overlong is kept


def test_a_short_one_is_not():
    awake = Awake()
    awake._judge(1)  # asleep
    awake.since = 1
    awake._judge(1 + LIMIT)
    assert awake.overlong is None


def test_a_model_may_take_longer_and_what_is_around_it_may_not():
    awake = Awake()
    awake.wakes()
    began = awake.since
    with awake.longer(1_000.0):
        inside = awake.since
        assert awake.limit == 1e9
        awake._judge(inside + LIMIT + 1)
        assert awake.overlong is None
        awake._judge(inside + 1_000_000_001)
        assert awake.overlong.limit == 1e9
    assert began <= inside <= awake.since
    assert awake.limit == LIMIT


def test_what_came_before_the_model_counts():
    awake = Awake()
    awake.since = before = time.monotonic_ns() - LIMIT - 1_000_000
    with awake.longer(1_000.0):
        assert awake.overlong.since == before


def test_a_pulse_says_since_when_a_loop_has_not_come_round():
    pulse, ready = Pulse(), select.poll()
    ready.register(pulse.fileno(), select.POLLIN)
    assert pulse.look(100) == 0
    assert ready.poll(0), "the loop is asked"
    assert pulse.look(120) == 100
    assert pulse.look(140) == 100
    pulse.answer()
    assert pulse.look(160) == 0
    assert ready.poll(0), "and asked again"
    pulse.answer()
    pulse.close()


def test_a_pulse_keeps_what_took_too_long():
    pulse = Pulse(25.0)
    pulse.look(1_000)
    pulse._came_round(1_000 + 25_000_000)
    assert pulse.overlong is None
    pulse.look(2_000)
    pulse._came_round(2_000 + 25_000_001)
    assert pulse.overlong[:3] == (2_000, 25_002_001, 25e6)
    pulse.close()


def test_an_inbox_tells_when_its_owner_sleeps():
    inbox = Inbox("vad")
    worker = Worker(lambda: inbox.wait(DEADLINE), "vad")
    until(lambda: worker.thread.is_alive() and inbox.awake.since == 0, "it sleeps")
    before = time.monotonic_ns()
    inbox.wake()
    worker.join()
    assert before <= inbox.awake.since <= time.monotonic_ns()
    inbox.close()


def test_a_nap_is_sleep_and_nobody_shortens_it():
    inbox, seen, over = Inbox("vad"), [], threading.Event()

    def look():
        while not over.is_set():
            seen.append(inbox.awake.since)

    inbox.wait(0)
    looker = Worker(look)
    inbox.wake()
    began = inbox.awake.since
    inbox.nap(0.05)
    over.set()
    looker.join()
    assert 0 in seen
    assert inbox.awake.since - began >= 50_000_000
    assert inbox.wait(0), "the wake-up is still there"
    inbox.close()


def test_the_kernel_counts_how_long_a_thread_ran_and_waited_for_a_core():
    def burn():
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            pass

    threads = [threading.Thread(target=burn) for _ in range(8)]
    for thread in threads:
        thread.start()
    ran = waited = 0
    while any(thread.is_alive() for thread in threads):
        for thread in threads:
            times = core_times(thread)
            ran, waited = max(ran, times[0]), max(waited, times[1])
    if not waited:
        pytest.skip("this kernel does not count, or there are cores for all")
    assert ran > 0


def test_a_thread_that_is_gone_has_no_times():
    worker = Worker(lambda: None)
    worker.join()
    assert core_times(worker.thread) == (0, 0)


def test_a_thread_may_ask_of_itself():
    def burn():
        before, _ = core_times()
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        return core_times()[0] - before

    ran = Worker(burn).join()
    if not ran:
        pytest.skip("this kernel does not count")
    assert ran >= 19_000_000
