import fcntl
import gc
import json
import logging
import os
import select
import time
import warnings

import pytest
from helpers import DEADLINE, Worker, race, until

from threadline.config import Log
from threadline.threads import logs
from threadline.threads.ring import MAX_CAPACITY, EventRing

log = logs.logger("io-calls")


class Stderr:
    """A pipe in stderr's place. It holds one page, so that it is soon full."""

    def __init__(self):
        self.read, self.write = os.pipe()
        fcntl.fcntl(self.write, fcntl.F_SETPIPE_SZ, 4096)
        self.text = b""
        self._ready = select.poll()
        self._ready.register(self.read, select.POLLIN)

    def start(self, **config):
        logs.start(Log(**{"format": "json", **config}), fd=self.write)

    def take(self, wait_ms=0):
        """Read what is there."""
        while self._ready.poll(wait_ms):
            self.text += os.read(self.read, 65_536)

    def lines(self):
        return [json.loads(line) for line in self.text.splitlines() if line]  # less `fill`'s

    def deafen(self):
        """Close the reader's end."""
        self._ready.unregister(self.read)
        os.close(self.read)
        self.read = -1

    def stop(self):
        """Stop the log thread and return every record."""
        self.finish()
        return self.lines()

    def finish(self):
        """Stop the log thread and read what it wrote."""
        stopping = Worker(lambda: logs.stop(DEADLINE), "stopping")
        while stopping.thread.is_alive():
            self.take(1)
        assert stopping.join() is True
        self.take()

    def fill(self):
        """Until not one byte more goes in."""
        os.set_blocking(self.write, False)
        try:
            while True:
                os.write(self.write, b"\n")
        except BlockingIOError:
            os.set_blocking(self.write, True)


@pytest.fixture
def stderr(monkeypatch):
    made = Stderr()
    for name in ("_direct", "_threshold"):  # as the process begins, and back to that afterwards
        monkeypatch.setattr(logs, name, getattr(logs, name))
    yield made
    made.finish()
    if made.read >= 0:
        os.close(made.read)
    os.close(made.write)


def test_a_record_arrives_with_its_fields_level_name_and_time(stderr):
    stderr.start()
    before = time.time()
    log.info("call opened", call_id="CA1", slot=3)
    (line,) = stderr.stop()
    stamp = line.pop("timestamp")
    assert line == {
        "event": "call opened",
        "level": "info",
        "logger": "io-calls",
        "call_id": "CA1",
        "slot": 3,
    }
    assert stamp.startswith(time.strftime("%Y-%m-%dT", time.gmtime(before)))
    assert stamp.endswith("+00:00")


def test_records_below_the_level_are_not_even_queued(stderr):
    stderr.start(level="warning")
    log.debug("no")
    log.info("no")
    log.warning("yes")
    log.error("yes")
    assert [line["level"] for line in stderr.stop()] == ["warning", "error"]


def test_debug_shows_all(stderr):
    stderr.start(level="debug")
    log.debug("yes")
    assert [line["level"] for line in stderr.stop()] == ["debug"]


class Sink:
    """In place of the one that renders and writes."""

    lost = 0


def test_a_batch_is_sorted_by_time():
    writer = logs._Writer(Sink(), 0)
    late, early = writer.register(), writer.register()
    late.ring.push((20, 20, "a", "second", {}))
    early.ring.push((10, 20, "b", "first", {}))
    assert [record[3] for record in writer._drain()] == ["first", "second"]


def test_a_drop_is_reported_once():
    writer = logs._Writer(Sink(), 0)
    source = writer.register()
    for i in range(MAX_CAPACITY + 2):
        source.ring.push((i, 20, "a", "x", {}))
    assert writer._drain()[-1][4] == {"count": 2, "thread": "MainThread"}
    source.ring.push((0, 20, "a", "x", {}))
    assert [record[3] for record in writer._drain()] == ["x"]


def test_a_full_stderr_blocks_the_writer_and_nobody_else(stderr):
    stderr.start()
    stderr.fill()
    before = logs.dropped()
    log.info("first")  # the writer takes this one and is stuck with it
    until(lambda: stuck_in_write(), "the writer waits for stderr")

    def flood():
        for i in range(1000):
            log.info("flood", i=i)

    Worker(flood, "flooder").join()  # ends, although nobody reads
    log.info("main has a ring of its own")
    assert logs.dropped() - before == 1000 - MAX_CAPACITY
    lines = stderr.stop()
    assert [line["i"] for line in lines if line["event"] == "flood"] == list(range(MAX_CAPACITY))
    (drop,) = [line for line in lines if line["event"] == "log records dropped"]
    assert (drop["count"], drop["thread"], drop["level"]) == (872, "flooder", "warning")
    assert logs.dropped() - before == 872  # the thread has gone, its drops have not


def stuck_in_write():
    with open(f"/proc/self/task/{logs._writer.thread.native_id}/wchan") as wchan:
        return "pipe" in wchan.read()


def test_stop_gives_up_on_a_stderr_that_stays_full(stderr):
    stderr.start()
    stderr.fill()
    log.info("never read")
    assert logs.stop(0.05) is False
    stderr.take()
    until(lambda: not logs._last.thread.is_alive(), "the writer ends once it can")


def test_stop_writes_what_is_left(stderr):
    stderr.start()
    for i in range(100):
        log.info("last words", i=i)
    assert [line["i"] for line in stderr.stop()] == list(range(100))


def rings():
    return sum(type(thing) is EventRing for thing in gc.get_objects())  # a proxy may be dead


def test_threads_that_come_and_go_leave_no_rings_behind(stderr):
    stderr.start()
    log.info("this thread's ring stays")
    before = rings()
    for i in range(200):
        Worker(lambda i=i: log.info("hello", i=i), f"visitor-{i}").join()
        stderr.take()

    def freed():
        stderr.take()  # or the writer would wait for us
        return rings() <= before

    until(freed, "the rings of ended threads are freed")
    lines = stderr.stop()
    assert sorted(line["i"] for line in lines if line["event"] == "hello") == list(range(200))


def test_many_threads_at_once_lose_nothing_that_was_not_counted(stderr):
    stderr.start()
    before = logs.dropped()
    reader = Worker(lambda: [stderr.take(1) for _ in range(50)], "reader")

    def speak(me):
        for i in range(300):
            log.info("race", me=me, i=i)

    race(*(lambda me=me: speak(me) for me in range(4)))
    reader.join()
    lines = stderr.stop()
    got = [(line["me"], line["i"]) for line in lines if line["event"] == "race"]
    assert len(set(got)) == len(got) == 1200 - (logs.dropped() - before)
    told = sum(line["count"] for line in lines if line["event"] == "log records dropped")
    assert told == logs.dropped() - before
    for me in range(4):
        of_one = [i for who, i in got if who == me]
        assert of_one == sorted(of_one)


def test_before_start_and_after_stop_the_calling_thread_writes(stderr, capfd):
    log.info("before")
    assert "before" in capfd.readouterr().err
    stderr.start()
    log.info("between")
    assert [line["event"] for line in stderr.stop()] == ["between"]
    log.info("after")
    stderr.take()
    assert [line["event"] for line in stderr.lines()] == ["between", "after"]


def test_it_can_be_started_again_but_not_twice(stderr):
    stderr.start()
    with pytest.raises(RuntimeError, match="already runs"):
        stderr.start()
    log.info("one")
    stderr.stop()
    stderr.start()
    log.info("two")
    assert [line["event"] for line in stderr.stop()] == ["one", "two"]


def test_libraries_are_heard_from_warning_up(stderr):
    stderr.start()
    library = logging.getLogger("websockets.server")
    library.info("connection open to %s", "somebody")
    library.warning("slow %d", 3)
    wrong = library.makeRecord("websockets", 30, "", 0, "wrong %d", ("argument",), None)
    logs._bridge.handle(wrong)  # pytest's own handler would raise
    try:
        raise OSError("gone")
    except OSError:
        library.exception("lost")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    lines = stderr.stop()
    assert [(line["logger"], line["level"]) for line in lines] == [
        ("websockets.server", "warning"),
        ("websockets", "warning"),
        ("websockets.server", "error"),
        ("py.warnings", "warning"),
    ]
    assert lines[0]["event"] == "slow 3"
    assert "wrong" in lines[1]["event"]
    assert "OSError: gone" in lines[2]["exception"]
    assert "DeprecationWarning: old" in lines[3]["event"]


def test_after_stop_python_logging_is_as_it_was(stderr):
    before = list(logging.getLogger().handlers)
    stderr.start()
    stderr.stop()
    assert logging.getLogger().handlers == before
    logging.getLogger("x").warning("not ours any more")
    stderr.take()
    assert stderr.lines() == []


def test_an_exception_comes_with_its_traceback_but_not_with_its_variables(stderr):
    stderr.start(format="console")
    secret = "s3cret"
    try:
        raise ValueError(f"no {len(secret)}")
    except ValueError as error:
        log.error("failed", exc_info=error)
    stderr.finish()
    text = stderr.text.decode()
    assert "Traceback" in text
    assert "ValueError: no 6" in text
    assert "s3cret" not in text


class Unprintable:
    def __repr__(self):
        raise ZeroDivisionError


@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_value_that_cannot_be_rendered_costs_its_record_and_not_the_writer(stderr, format_):
    stderr.start(format=format_)
    log.info("bad", value=Unprintable())
    log.info("good")
    stderr.finish()
    first, second = stderr.text.decode().splitlines()
    assert "could not be rendered" in first
    assert "ZeroDivisionError" in first
    assert "good" in second


def test_what_a_peer_sent_cannot_forge_a_line_or_move_the_cursor(stderr):
    stderr.start(format="console")
    log.info("call\nopened", call_id="CA\x1b[2J1\n2026 [error] forged")
    stderr.finish()
    assert stderr.text.count(b"\n") == 1
    assert b"\x1b" not in stderr.text


def test_a_non_blocking_stderr_gets_everything_all_the_same(stderr):
    os.set_blocking(stderr.write, False)
    stderr.start()
    for i in range(100):  # about 9 kB into a pipe of 4
        log.info("much", i=i)
    assert [line["i"] for line in stderr.stop()] == list(range(100))


def test_when_nobody_reads_stderr_any_more_records_are_counted(stderr):
    stderr.start()
    stderr.deafen()
    before = logs.dropped()
    log.error("into the void")
    until(lambda: logs.dropped() == before + 1, "the record is counted as lost")
    log.error("the writer lives on")
    until(lambda: logs.dropped() == before + 2, "the next one, too")


def test_a_batch_is_one_write(stderr, monkeypatch):
    written = []
    write = os.write

    def counting(fd, data):
        written.append(bytes(data))
        return write(fd, data)

    sink = logs._Sink(Log(format="json"), stderr.write)
    monkeypatch.setattr(logs.os, "write", counting)
    sink.write([(i, 20, "a", "x", {}) for i in range(10)])
    assert len(written) == 1
    assert written[0].count(b"\n") == 10
