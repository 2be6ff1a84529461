import gc
import os
import threading

import pytest
from helpers import DEADLINE, Worker, until
from prometheus_client.parser import text_string_to_metric_families

from threadline.observe.prometheus import Sample
from threadline.threads import watch
from threadline.threads.stalls import Stage
from threadline.threads.watch import PERIOD, Collector, Process, Watch, read_process


class Records:
    """In place of the logger."""

    def __init__(self):
        self.all = []
        self.pauses = []  # apart: any collection in this process may add one

    def __getattr__(self, level):
        def record(event, **fields):
            kept = self.pauses if event == "long garbage collection" else self.all
            kept.append((level, event, fields))

        return record

    def events(self):
        return [(level, event) for level, event, _ in self.all]


@pytest.fixture
def records(monkeypatch):
    made = Records()
    monkeypatch.setattr(watch, "_log", made)
    return made


class Fake:
    """A stage whose loop turns when the test says so, and whose thread waits in `waits_here`."""

    def __init__(self, name="vad"):
        self.turns = 0
        self.woken = 0
        self.over = threading.Event()
        self.worker = Worker(self.waits_here, name)
        self.stage = Stage(name, self.worker.thread, lambda: self.turns, self.wake)

    def waits_here(self):
        assert self.over.wait(DEADLINE)

    def wake(self):
        self.woken += 1

    def end(self):
        self.over.set()
        self.worker.join()


@pytest.fixture
def stage():
    made = Fake()
    yield made
    made.end()


@pytest.fixture
def collector():
    live = [0]
    made = Collector(lambda: live[0], quiet_seconds=10.0, growth_bytes=1000)
    made.live = live
    yield made
    made.close()


def no_flip(enabled, now):
    return None


def watching(collector, stages=(), sources=(), gil_sample=no_flip, gil_changed=print):
    return Watch(
        [fake.stage for fake in stages],
        sources,
        collector,
        gil_sample,
        gil_changed,
        lambda: {"depths": {"vad": 3}},
    )


def metrics(page):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


# -- heartbeats --------------------------------------------------------------------------------


def test_a_stage_that_turns_is_never_reported(collector, stage, records):
    made = watching(collector, [stage])
    for second in range(5):
        stage.turns += 1
        made.look(100.0 + second)
    assert records.all == []
    assert stage.woken == 5  # or a stage without work would look stalled
    assert metrics(made.page)["threadline_stage_stalled", "vad"] == 0


def test_a_stalled_stage_is_reported_once_with_its_own_stack(collector, stage, records):
    made = watching(collector, [stage])
    for second in range(4):
        made.look(100.0 + second)
    ((level, event, fields),) = records.all
    assert (level, event, fields["stage"]) == ("warning", "stage is stalled", "vad")
    assert "waits_here" in fields["stack"]
    assert "test_a_stalled_stage" not in fields["stack"]  # not everybody's
    assert fields["depths"] == {"vad": 3}
    assert fields["gc"]["automatic"] is gc.isenabled()
    found = metrics(made.page)
    assert found["threadline_stage_stalled", "vad"] == 1
    assert found["threadline_stage_stalls_total", "vad"] == 1


def test_a_stage_that_goes_on_says_so_and_may_stall_again(collector, stage, records):
    made = watching(collector, [stage])
    made.look(100.0)
    made.look(101.0)
    stage.turns += 1
    made.look(102.5)
    assert records.all[1] == ("info", "stage goes on", {"stage": "vad", "stalled_s": 2.5})
    assert metrics(made.page)["threadline_stage_stalled", "vad"] == 0
    made.look(103.5)
    assert records.events()[2:] == [("warning", "stage is stalled")]
    assert metrics(made.page)["threadline_stage_stalls_total", "vad"] == 2


def test_one_stage_does_not_hide_behind_another(collector, stage, records):
    other = Fake("asr")
    made = watching(collector, [stage, other])
    for second in range(3):
        stage.turns += 1
        made.look(100.0 + second)
    other.end()
    assert [fields["stage"] for _, _, fields in records.all] == ["asr"]


@pytest.mark.parametrize("later", [0.1 * PERIOD, 600.0])
def test_a_stage_that_had_no_second_gets_no_verdict(collector, stage, records, later):
    """The watch was early, or the whole process slept and the watch woke first."""
    made = watching(collector, [stage])
    made.look(100.0)
    made.look(100.0 + later)
    assert records.all == []
    made.look(101.0 + later)
    assert records.events() == [("warning", "stage is stalled")]


def test_a_stage_whose_thread_has_ended_is_gone_and_not_stalled(collector, records):
    fake = Fake()
    fake.end()
    made = watching(collector, [fake])
    made.look(100.0)
    made.look(101.0)
    assert records.all == [("error", "stage is gone", {"stage": "vad"})]


# -- the GIL -----------------------------------------------------------------------------------


def test_a_change_of_the_gil_reaches_its_callback(collector):
    asked, changes = [], []

    def sample(enabled, now):
        asked.append((enabled, now))
        return "flip" if now >= 102 else None

    made = watching(collector, gil_sample=sample, gil_changed=changes.append)
    for second in range(3):
        made.look(100.0 + second)
    enabled = watch.sys._is_gil_enabled()
    assert asked == [(enabled, 100.0), (enabled, 101.0), (enabled, 102.0)]
    assert changes == ["flip"]


# -- the garbage collector ---------------------------------------------------------------------


def test_after_warm_up_nothing_is_automatic_and_what_lives_is_frozen(collector):
    collector.freeze_and_disable()
    assert not gc.isenabled()
    assert gc.get_freeze_count() > 0
    assert collector.pauses.count >= 1
    collector.close()
    assert gc.isenabled()
    gc.callbacks.append(collector._measure)  # for the fixture to take away


@pytest.fixture
def allocated(monkeypatch):
    count = [1]
    monkeypatch.setattr(watch.gc, "get_count", lambda: (count[0], 0, 0))
    gc.disable()  # until `collector` is closed
    return count


def collections(collector, now, resident=0):
    """How many collections one look makes."""
    before = collector.pauses.count
    collector.look(now, resident)
    return collector.pauses.count - before


def test_it_collects_between_calls_and_not_too_often(collector, allocated):
    assert collections(collector, 100.0) == 1
    assert collections(collector, 109.0) == 0
    assert collections(collector, 110.0) == 1


def test_it_does_not_collect_when_nothing_was_allocated(collector, allocated):
    allocated[0] = 0
    assert collections(collector, 100.0) == 0


def test_during_calls_it_collects_only_when_memory_has_grown(collector, allocated, monkeypatch):
    collector.live[0] = 1
    collector._resident = 5000
    monkeypatch.setattr(watch, "read_process", lambda: Process(resident=7000, threads=1, fds=1))
    assert collections(collector, 100.0, resident=5999) == 0
    assert collections(collector, 101.0, resident=6000) == 1
    assert collections(collector, 102.0, resident=7999) == 0  # from what was left on
    assert collections(collector, 103.0, resident=8000) == 1


def test_a_pause_is_measured_whoever_asked_for_it_and_logged_when_long(
    collector, allocated, records
):
    gc.collect()
    assert collector.pauses.count == 1
    records.pauses.clear()
    collector._began = watch.time.monotonic_ns() - 6_000_000
    collector._measure("stop", {"collected": 7})
    ((level, _, fields),) = records.pauses
    assert (level, fields["collected"]) == ("warning", 7)
    assert fields["ms"] >= 6
    assert collector.pauses.max >= 6
    assert collector.pauses.count == 2


def test_a_short_pause_is_not_worth_a_record(collector, allocated, records):
    collector._began = watch.time.monotonic_ns() + 60_000_000_000  # a negative pause is short
    collector._measure("stop", {"collected": 0})
    assert records.pauses == []


# -- the page ----------------------------------------------------------------------------------


def test_the_page_has_what_the_sources_and_the_process_say(collector, allocated):
    sources = [
        lambda: [Sample("threadline_calls_live", "Calls.", "gauge", {}, 7.0)],
        lambda: iter([Sample("threadline_calls_total", "Calls.", "counter", {}, 9.0)]),
    ]
    made = watching(collector, sources=sources)
    assert made.page == b""
    made.look(100.0)
    found = metrics(made.page)
    assert found["threadline_calls_live",] == 7
    assert found["threadline_calls_total",] == 9
    assert found["threadline_process_resident_bytes",] > 1_000_000
    assert found["threadline_process_fds",] >= 3
    assert found["threadline_process_threads",] >= 1
    assert found["threadline_gil_enabled",] == watch.sys._is_gil_enabled()
    assert found["threadline_log_dropped_total",] >= 0
    assert found["threadline_gc_pause_seconds_count",] == collector.pauses.count == 1
    assert found["threadline_gc_pause_seconds_sum",] == pytest.approx(collector.pauses.sum / 1000)


def test_the_thread_looks_at_once_and_stops_when_told(collector, stage, monkeypatch):
    monkeypatch.setattr(watch, "PERIOD", 600.0)
    made = watching(collector, [stage])
    worker = Worker(made.run, "watch")
    until(lambda: made.page, "the first page")
    made.stop()
    worker.join()
    assert stage.woken >= 1


def test_what_the_kernel_says_about_this_process():
    before = read_process()
    assert before.resident > 1_000_000
    fake = Fake()
    fds = os.pipe()
    ballast = bytearray(os.urandom(1)) * 50_000_000
    after = read_process()
    assert after.fds == before.fds + 2
    assert after.threads == before.threads + 1
    assert after.resident - before.resident > len(ballast) * 0.9
    os.close(fds[0])
    os.close(fds[1])
    fake.end()
