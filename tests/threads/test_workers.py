"""Users' functions on threads of their own: whatever they do, one answer comes."""

import asyncio
import contextlib
import sys
import threading
import time
from contextvars import Context, ContextVar

import pytest
from helpers import DEADLINE, until
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from threadline.agent import Agent, CallInfo, Stop, ToolError, current_call
from threadline.threads.messages import JobDone, RunJob
from threadline.threads.supervisor import Running
from threadline.threads.wake import Inbox
from threadline.threads.workers import JOBS_PER_CALL, Crew, WorkerStage

SECOND = 1_000_000_000


def job(number, name="", arguments="{}", *, slot=0, seconds=DEADLINE, context=None):
    deadline = time.monotonic_ns() + int(seconds * SECOND)
    return RunJob(slot, 3, number, name, arguments, deadline, context or Context())


class House:
    """Workers on their threads, and reply's end of them."""

    def __init__(self, agent, workers):
        self.inbox = Inbox("reply")
        self.boxes = [Inbox(f"worker-{number}") for number in range(1, workers + 1)]
        self.stages = [
            WorkerStage(number, agent, box, self.inbox.port(box.name))
            for number, box in enumerate(self.boxes, 1)
        ]
        self.crew = Crew([box.port("reply") for box in self.boxes], agent.guarded)
        self.threads = [
            Running(stage, box.wake, self.inbox.port(f"{box.name}'s defects"))
            for stage, box in zip(self.stages, self.boxes, strict=True)
        ]
        self.answers = {}
        for thread in self.threads:
            thread.start()

    def answer(self, number):
        """Wait for one job's answer."""

        def come():
            for event in self.inbox.events():
                assert isinstance(event, JobDone), event
                self.answers[event.job] = event
                self.crew.done(event)
            return number in self.answers

        until(come, f"job {number} is answered")
        return self.answers[number]

    def close(self):
        ended = [thread.stop() for thread in self.threads]
        for box in (self.inbox, *self.boxes):
            box.close()
        assert all(ended)


@contextlib.contextmanager
def house(agent, workers=1):
    made = House(agent, workers)
    try:
        yield made
    finally:
        made.close()


# -- a worker --------------------------------------------------------------------------------------


def test_a_tool_runs_in_the_context_of_its_call_and_its_result_comes_back():
    agent = Agent()
    mood = ContextVar("mood", default="none")

    @agent.tool
    def who(call: CallInfo, text: str) -> str:
        return f"{text} {call.caller} {mood.get()} {threading.current_thread().name}"

    context = Context()
    context.run(current_call.set, CallInfo("CA1", "+1555"))
    context.run(mood.set, "glad")
    with house(agent) as this:
        assert this.crew.submit(job(7, "who", '{"text": "Hi"}', context=context.copy()))
        assert this.answer(7) == JobDone(0, 3, 7, "Hi +1555 glad worker-1")


def test_tools_run_at_the_same_time():
    """Both wait for each other inside of the tool: one thread could never finish either."""
    agent = Agent()
    both = threading.Barrier(2, timeout=DEADLINE)

    @agent.tool
    def meet() -> str:
        both.wait()
        return threading.current_thread().name

    with house(agent, workers=2) as this:
        this.crew.submit(job(1, "meet", slot=0))
        this.crew.submit(job(2, "meet", slot=1))
        names = {this.answer(1).result, this.answer(2).result}
        assert names == {"worker-1", "worker-2"}


@pytest.mark.parametrize(
    "error", [KeyError("secret"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()]
)
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_whatever_a_tool_raises_is_a_sentence_and_the_worker_goes_on(error, kind):
    agent = Agent()

    @agent.tool
    def plain() -> str:
        raise error

    @agent.tool
    async def later() -> str:
        await asyncio.sleep(0)
        raise error

    @agent.tool
    async def fine() -> str:
        await asyncio.sleep(0)
        return "fine"

    with house(agent) as this:
        this.crew.submit(job(1, "plain" if kind == "plain" else "later"))
        answer = this.answer(1)
        assert answer.result == ""
        assert answer.error.endswith(" failed.")
        assert "secret" not in answer.error  # it may be nothing for the caller's ear
        this.crew.submit(job(2, "fine"))
        assert this.answer(2).result == "fine"
        assert this.threads[0].thread.is_alive()
        assert this.threads[0].defects == 0
        assert this.stages[0].failed == 1


def test_what_a_model_gets_wrong_and_what_a_tool_says_reach_the_model_as_they_are():
    agent = Agent()

    @agent.tool
    def book(day: str) -> str:
        raise ToolError(f"{day} is full.")

    with house(agent) as this:
        this.crew.submit(job(1, "book", '{"day": "Friday"}'))
        this.crew.submit(job(2, "book", "{}"))
        this.crew.submit(job(3, "cook"))
        assert this.answer(1).error == "Friday is full."
        assert this.answer(2).error == "book was not run: the argument 'day' is missing."
        assert this.answer(3).error.startswith("There is no tool 'cook'.")


def test_an_async_tool_ends_at_its_deadline_and_leaves_nothing_behind():
    agent = Agent()
    ended = []

    @agent.tool
    async def forever() -> str:
        async def beside():
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("beside")

        kept = asyncio.create_task(beside())
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("tool")
        return str(kept)

    with house(agent) as this:
        this.crew.submit(job(1, "forever", seconds=0.05))
        assert this.answer(1).error == "forever took too long."
        assert sorted(ended) == ["beside", "tool"]
        assert this.stages[0]._tasks == set()


def test_a_guard_answers_with_what_may_be_heard():
    agent = Agent()

    @agent.guard
    def guard(clause: str) -> str | Stop | None:
        if clause == "break":
            raise RuntimeError
        return {"bad": "better", "worst": Stop("enough")}.get(clause)

    with house(agent) as this:
        assert this.crew.guarded
        for number, clause in enumerate(("good", "bad", "worst", "break"), 1):
            this.crew.submit(job(number, "", clause))
        given = [this.answer(number) for number in (1, 2, 3, 4)]
        assert [(one.result, one.stop, bool(one.error)) for one in given] == [
            ("good", False, False),
            ("better", False, False),
            ("enough", True, False),
            ("", False, True),
        ]


def test_a_tool_that_takes_long_is_no_stall():
    agent = Agent()
    hold = threading.Event()

    @agent.tool
    def wait() -> str:
        return str(hold.wait(DEADLINE))

    with house(agent) as this:
        (stage,) = this.stages
        this.crew.submit(job(1, "wait"))
        until(lambda: stage.busy, "the tool runs")
        first = stage.beat
        assert stage.beat > first
        hold.set()
        assert this.answer(1).result == "True"
        until(lambda: not stage.busy, "the tool is over")
        assert [sample.name for sample in stage.samples()].count("threadline_worker_busy") == 1


@pytest.mark.skipif(sys._is_gil_enabled(), reason="the point is that there is none")
def test_two_that_compute_are_both_under_way():
    """Neither gives its thread away, and each sees the other move."""
    agent = Agent()
    counts = [0, 0]

    @agent.tool
    def burn(me: int) -> str:
        end = time.monotonic() + DEADLINE
        start = counts[1 - me]
        while time.monotonic() < end and counts[1 - me] < start + 3:
            counts[me] += 1
        counts[me] += 1000
        return "seen" if counts[1 - me] >= start + 3 else "alone"

    with house(agent, workers=2) as this:
        this.crew.submit(job(1, "burn", '{"me": 0}', slot=0))
        this.crew.submit(job(2, "burn", '{"me": 1}', slot=1))
        assert (this.answer(1).result, this.answer(2).result) == ("seen", "seen")


# -- the crew --------------------------------------------------------------------------------------


class Bench:
    """A crew whose workers are played by the test."""

    def __init__(self, workers=2, guarded=True):
        self.boxes = [Inbox(f"worker-{number}") for number in range(workers)]
        self.crew = Crew([box.port("reply") for box in self.boxes], guarded)
        self.running = {}  # job number: worker

    def take(self):
        for worker, box in enumerate(self.boxes):
            for order in box.events():
                assert worker not in self.running.values(), "a worker has one job at a time"
                self.running[order.job] = worker
        return sorted(self.running)

    def finish(self, number):
        del self.running[number]
        return self.crew.done(JobDone(0, 3, number, ""))

    def close(self):
        for box in self.boxes:
            box.close()


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.close()


def test_a_job_waits_for_an_idle_worker_and_guards_go_first(bench):
    for number, (name, slot) in enumerate([("a", 0), ("b", 1), ("c", 2), ("", 3)], 1):
        assert bench.crew.submit(job(number, name, slot=slot))
    assert bench.take() == [1, 2]
    assert bench.finish(1)
    assert bench.take() == [2, 4]
    assert bench.finish(2)
    assert bench.take() == [3, 4]


def test_one_call_never_has_all_workers(bench):
    for number in (1, 2, 3):
        bench.crew.submit(job(number, "slow", slot=0))
    assert bench.take() == [1]
    bench.crew.submit(job(4, "", slot=1))
    assert bench.take() == [1, 4]
    bench.finish(4)
    assert bench.take() == [1]
    bench.finish(1)
    assert bench.take() == [2]


def test_a_call_has_so_many_jobs_and_no_more(bench):
    for number in range(JOBS_PER_CALL):
        assert bench.crew.submit(job(number, "a", slot=0))
    assert not bench.crew.submit(job(100, "a", slot=0))
    assert bench.crew.submit(job(101, "a", slot=1))
    bench.take()
    bench.finish(0)
    assert bench.crew.submit(job(102, "a", slot=0))
    assert bench.crew.refused == 1


def test_a_job_that_overruns_is_given_up_and_its_worker_gets_no_other_until_it_is_back(bench):
    late = job(1, "stuck", slot=0, seconds=5)
    bench.crew.submit(late)
    bench.crew.submit(job(2, "a", slot=1))
    waits = job(3, "waits", slot=2, seconds=6)
    bench.crew.submit(waits)
    assert bench.crew.next_due() == late.deadline
    assert bench.crew.expired(late.deadline - 1) == []
    assert bench.crew.expired(late.deadline) == [late]
    assert bench.crew.expired(late.deadline) == []
    assert bench.crew.next_due() == waits.deadline
    assert bench.crew.expired(waits.deadline) == [waits]  # it never had a worker
    assert bench.take() == [1, 2]
    assert bench.finish(2)
    bench.crew.submit(job(4, "a", slot=3))
    bench.crew.submit(job(5, "a", slot=4))
    assert bench.take() == [1, 4]
    assert not bench.finish(1)  # nobody waits for it any more
    assert bench.take() == [4, 5]
    assert bench.crew.late == 2


class AnyJobs(RuleBasedStateMachine):
    """Any order of jobs, answers and deadlines: each job ends once, none is lost."""

    @initialize(workers=st.integers(1, 3))
    def begin(self, workers):
        self.bench = Bench(workers)
        self.number = 0
        self.open = set()

    @rule(slot=st.integers(0, 2), name=st.sampled_from(["", "a"]), seconds=st.integers(10, 20))
    def submit(self, slot, name, seconds):
        self.number += 1
        if self.bench.crew.submit(job(self.number, name, slot=slot, seconds=seconds)):
            self.open.add(self.number)

    @rule(pick=st.integers(0, 10))
    def finish(self, pick):
        running = self.bench.take()
        if running:
            number = running[pick % len(running)]
            assert self.bench.finish(number) == (number in self.open)
            self.open.discard(number)

    @rule(seconds=st.integers(8, 22))
    def expire(self, seconds):
        for late in self.bench.crew.expired(time.monotonic_ns() + seconds * SECOND):
            self.open.remove(late.job)

    @rule(pick=st.integers(0, 10))
    def forget(self, pick):
        if self.open:
            number = sorted(self.open)[pick % len(self.open)]
            self.bench.crew.forget(number)
            self.open.discard(number)

    @invariant()
    def every_open_job_waits_or_runs(self):
        if not hasattr(self, "bench"):
            return
        crew = self.bench.crew
        running = set(self.bench.take())
        waiting = {one.job for one in crew._waiting}
        assert self.open <= running | waiting
        assert waiting <= self.open
        assert len(running) + len(crew._idle) == len(self.bench.boxes)
        if waiting and crew._idle:  # only those wait whose call has its share
            assert all(crew._taken[one.slot] >= crew._share for one in crew._waiting)

    def teardown(self):
        while running := self.bench.take():
            self.bench.finish(running[0])
        assert not self.bench.crew._waiting
        assert not self.bench.crew._held
        assert not self.bench.crew._taken
        self.bench.close()


TestAnyJobs = AnyJobs.TestCase
TestAnyJobs.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
