"""Threads that begin, fail, drain and end, with stages that do as they are told."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator

import pytest
from helpers import Worker, until

from threadline.errors import Exit, ModelError
from threadline.observe.prometheus import Sample
from threadline.threads import supervisor as module
from threadline.threads.calls import Call
from threadline.threads.messages import Drain, StageFailed
from threadline.threads.supervisor import Running, Supervisor
from threadline.threads.wake import Inbox
from threadline.threads.watch import Collector, Watch


class Fake:
    """A stage whose every step is one call of `deed`."""

    def __init__(self, name: str, story: list[str], deed: Callable[[], None] = lambda: None):
        self.name = name
        self.beat = 0
        self.on_call: Call | None = None
        self.deed = deed
        self.begin_error: BaseException | None = None
        self.inbox = Inbox(name)
        self._story = story

    def begin(self) -> None:
        self._story.append(f"{self.name} begins")
        if self.begin_error is not None:
            raise self.begin_error

    def step(self) -> None:
        self.inbox.wait(1.0)
        self.deed()
        self.beat += 1

    def finish(self) -> None:
        self._story.append(f"{self.name} ends")

    def samples(self) -> Iterable[Sample]:
        return ()


class Cast:
    """Three stages under one supervisor."""

    def __init__(self, drain_seconds: float = 30.0) -> None:
        self.story: list[str] = []
        self.stages = [Fake(name, self.story) for name in ("a", "b", "c")]
        self.reply = Inbox("reply")
        self.drains: list[Drain] = []
        self.live = 0
        self._failures: list[StageFailed] = []
        self.on_drain: Callable[[Drain], None] = lambda _: None
        self.running = [
            Running(stage, stage.inbox.wake, self.reply.port(stage.name)) for stage in self.stages
        ]
        self.collector = Collector(lambda: self.live)
        watch = Watch(
            stages=[one.watched() for one in self.running],
            sources=[],
            collector=self.collector,
            gil_sample=lambda *_: None,
            gil_changed=lambda _: None,
        )
        self.supervisor = Supervisor(
            self.running, watch, self.collector, self._drain, lambda: self.live, drain_seconds
        )

    def _drain(self, order: Drain) -> None:
        self.drains.append(order)
        self.on_drain(order)

    def failures(self) -> list[StageFailed]:
        self._failures += [one for one in self.reply.events() if isinstance(one, StageFailed)]
        return self._failures


@pytest.fixture
def cast() -> Iterator[Cast]:
    this = Cast()
    yield this
    for one in this.running:
        if one.thread.is_alive():
            assert one.stop()


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """`run` takes them; give them back to pytest, which must not end by one in any case."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def live_call() -> Call:
    call = Call(3)
    call.generation.at = 7
    return call


def test_stages_begin_in_order_and_end_in_the_opposite_one(cast: Cast) -> None:
    cast.supervisor.start()
    names = {thread.name for thread in threading.enumerate()}
    assert names >= {"a", "b", "c", "watch"}
    assert cast.supervisor.end()
    assert cast.story == [
        *("a begins", "b begins", "c begins"),
        *("c ends", "b ends", "a ends"),
    ]
    assert not {thread.name for thread in threading.enumerate()} & {"a", "b", "c", "watch"}


@pytest.mark.parametrize("error", [ModelError("no model"), ValueError("a defect")])
def test_a_stage_that_cannot_begin_stops_the_start(cast: Cast, error: Exception) -> None:
    cast.stages[1].begin_error = error
    with pytest.raises(type(error), match=str(error)):
        cast.supervisor.start()
    assert cast.story == ["a begins", "b begins", "a ends"]
    cast.collector.close()


def test_a_stage_that_is_never_ready_is_one_sentence(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEGIN_SECONDS", 0.05)
    release = threading.Event()
    stage = cast.stages[0]
    stage.begin = lambda: (release.wait(20), None)[1]  # type: ignore[method-assign]
    with pytest.raises(module.ThreadlineError, match="The a thread was not ready after"):
        cast.running[0].start()
    release.set()
    cast.collector.close()


def test_a_defect_names_the_call_and_the_thread_goes_on(
    cast: Cast, capfd: pytest.CaptureFixture[str]
) -> None:
    stage, running = cast.stages[0], cast.running[0]

    def broken() -> None:
        raise ZeroDivisionError("injected")

    stage.on_call, stage.deed = live_call(), broken
    running.start()
    stage.inbox.wake()
    until(lambda: cast.failures() == [StageFailed(3, 7, "a")], "reply is told")
    assert running.defects == 1
    said = capfd.readouterr().err
    assert "ZeroDivisionError: injected" in said
    assert "slot=3" in said
    stage.deed = lambda: None
    stage.inbox.wake()
    until(lambda: stage.beat == 1, "the next step")
    assert running.stop()
    cast.collector.close()


@pytest.mark.parametrize("generation", [None, 8])
def test_a_defect_about_nobody_ends_no_call(cast: Cast, generation: int | None) -> None:
    stage, running = cast.stages[0], cast.running[0]
    if generation is not None:
        stage.on_call = live_call()
        stage.on_call.generation.at = generation  # even: the caller has gone

    def broken() -> None:
        raise ZeroDivisionError

    stage.deed = broken
    running.start()
    stage.inbox.wake()
    until(lambda: running.defects == 1, "the defect is noticed")
    assert running.stop()
    assert not cast.failures()
    cast.collector.close()


def test_a_defect_at_the_end_does_not_stop_the_others(cast: Cast) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    cast.stages[1].finish = broken  # type: ignore[method-assign]
    cast.supervisor.start()
    assert cast.supervisor.end()
    assert cast.running[1].defects == 1
    assert cast.story[-2:] == ["c ends", "a ends"]


def test_a_stage_that_is_stuck_is_left_behind_and_said(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.1)
    release, stuck = threading.Event(), threading.Event()

    def hang() -> None:
        stuck.set()
        release.wait(20)

    cast.stages[1].deed = hang
    cast.supervisor.start()
    cast.stages[1].inbox.wake()
    assert stuck.wait(20)
    assert not cast.supervisor.end()
    assert "threads left behind" in capfd.readouterr().err
    assert cast.story[-2:] == ["c ends", "a ends"]
    release.set()
    cast.running[1].thread.join(20)


# -- the end ---------------------------------------------------------------------------------------


def test_draining_waits_for_the_live_calls(cast: Cast) -> None:
    cast.live = 2
    draining = Worker(cast.supervisor.drain)
    until(lambda: cast.drains == [Drain(now=False)], "no new calls")
    assert draining.thread.is_alive()
    cast.live = 0
    assert draining.join() == 0
    assert cast.drains == [Drain(now=False)]
    cast.collector.close()


def test_draining_has_a_cap() -> None:
    cast = Cast(drain_seconds=0.05)
    cast.live = 2
    cast.on_drain = lambda order: setattr(cast, "live", 0 if order.now else 2)
    assert cast.supervisor.drain() == 2
    assert cast.drains == [Drain(now=False), Drain(now=True)]
    cast.collector.close()


def test_asked_twice_the_live_calls_are_cut_off(cast: Cast) -> None:
    cast.live = 1
    cast.on_drain = lambda order: setattr(cast, "live", 0 if order.now else 1)
    cast.supervisor.ask_to_stop()
    draining = Worker(cast.supervisor.drain)
    until(lambda: cast.drains, "it drains")
    assert draining.thread.is_alive()
    cast.supervisor.ask_to_stop()
    assert draining.join() == 1
    cast.collector.close()


@pytest.mark.parametrize(("live", "result"), [(0, Exit.OK), (1, Exit.DRAIN)])
def test_the_exit_code_tells_whether_calls_were_cut_off(live: int, result: Exit) -> None:
    cast = Cast(drain_seconds=0.0)
    cast.live = live
    cast.on_drain = lambda order: setattr(cast, "live", 0) if order.now else None
    cast.supervisor.start()
    cast.supervisor.ask_to_stop()
    assert cast.supervisor.run() is result


def test_a_thread_that_stays_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.1)
    cast = Cast()
    release, stuck = threading.Event(), threading.Event()

    def hang() -> None:
        stuck.set()
        release.wait(20)

    cast.stages[0].deed = hang
    cast.supervisor.start()
    cast.stages[0].inbox.wake()
    assert stuck.wait(20)
    cast.supervisor.ask_to_stop()
    assert cast.supervisor.run() is Exit.CRASH
    release.set()
    cast.running[0].thread.join(20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(number: signal.Signals) -> None:
    cast = Cast()
    cast.supervisor.start()

    def send() -> None:
        until(lambda: signal.getsignal(number) is not signal.SIG_IGN, "it listens")
        os.kill(os.getpid(), number)

    sender = Worker(send)
    assert cast.supervisor.run() is Exit.OK
    sender.join()


def test_a_signal_during_the_start_is_not_lost() -> None:
    cast = Cast()
    cast.supervisor.catch_signals()
    cast.stages[2].begin = lambda: signal.raise_signal(signal.SIGTERM)  # type: ignore[method-assign]
    cast.supervisor.start()
    assert cast.supervisor.run() is Exit.OK
    assert cast.drains == [Drain(now=False)]
