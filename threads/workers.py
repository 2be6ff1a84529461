"""The `worker-N` threads: the user's tools and guards, each on a real thread.

Wakes on   its inbox: one job at a time, from reply.
Owns       the job it runs; an event loop for async functions.
Reads      nothing shared of ours; what users' functions share is theirs to protect.
Writes     `JobDone` to reply, exactly one for each job.

A thread cannot be killed: a function that overruns its deadline goes on, and its worker gets no
other job until it is back. Nobody waits for it: reply gives such a job up by itself. `Crew` is
reply's side: it hands jobs to idle workers, the rest wait in a bounded queue.
"""

from __future__ import annotations

import asyncio
import math
import time
import traceback
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from ..agent import Agent, CallInfo, ToolError, current_call
from ..observe.histogram import LATENCY_MS, Histogram
from ..observe.prometheus import Sample, counter, gauge, milliseconds
from .calls import Call
from .logs import logger
from .messages import JobDone, RunJob
from .wake import Inbox, Outbox

log = logger("worker")

JOBS_PER_CALL = 16
"""How many jobs of one call may run or wait."""

_LEFT_SECONDS = 0.1  # for tasks that an async function leaves behind, to end once cancelled


class WorkerStage:
    """See the module. `step` is the jobs that have come, rarely more than one."""

    on_call: Call | None = None  # what a user's function raises is caught here: no call ends

    def __init__(self, number: int, agent: Agent, inbox: Inbox, to_reply: Outbox[object]) -> None:
        self.name = f"worker-{number}"
        self.inbox = inbox
        self._agent = agent
        self._to_reply = to_reply
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._turns = 0
        self._looks = 0  # written by the watch thread, see `beat`
        self._deadline = 0  # of the job that runs
        # Reports.
        self.busy = 0  # 1 while a user's function runs
        self.jobs = 0
        self.failed = 0
        self.seconds = Histogram(LATENCY_MS)

    @property
    def beat(self) -> int:
        """Turns of the loop. It also counts each look at it while a user's function runs: how
        long that takes is no stall of ours."""
        self._looks += self.busy
        return self._turns + self._looks

    def begin(self) -> None:
        """Make the loop for async functions now: making one opens descriptors."""
        self._loop = asyncio.new_event_loop()
        self._loop.set_task_factory(self._task)

    def step(self) -> None:
        """Sleep until there is a job; run it and answer."""
        self._turns += 1
        self.inbox.wait(1.0 if self._to_reply.flush() else 0.02)
        for event in self.inbox.events():
            if isinstance(event, RunJob):
                self._to_reply.put(self._answer(event))

    def finish(self) -> None:
        """Close the loop."""
        if self._loop is not None:
            self._loop.close()

    def _answer(self, job: RunJob) -> JobDone:
        """Run one job. Whatever the function does, the thread goes on and one answer leaves."""
        began = time.monotonic_ns()
        self._deadline = job.deadline
        self.jobs += 1
        self.busy = 1
        result, error, stop = "", "", False
        what = job.name or "the guard"
        try:
            with self.inbox.awake.longer(math.inf):  # their own affair
                result, stop = job.context.run(self._call, job)
        except ToolError as known:
            error = str(known) or f"{what} failed."
        except BaseException as unknown:  # noqa: BLE001  # SystemExit of a user's code included
            late = isinstance(unknown, TimeoutError) and time.monotonic_ns() >= job.deadline
            error = f"{what} took too long." if late else f"{what} failed."
            stack = "".join(traceback.format_exception(unknown))
            log.error("a user's function failed", function=what, stack=stack)
        self.busy = 0
        self.failed += bool(error)
        self.seconds.observe((time.monotonic_ns() - began) / 1e6)
        return JobDone(job.slot, job.generation, job.job, result, error, stop)

    def _call(self, job: RunJob) -> tuple[str, bool]:
        if not job.name:
            return self._agent.check(job.arguments, self._wait)
        call = current_call.get(CallInfo())
        return self._agent.call_tool(job.name, job.arguments, call, self._wait), False

    # -- async functions ----------------------------------------------------------------------

    def _wait(self, work: Coroutine[Any, Any, object]) -> object:
        """Run a coroutine until the job's deadline, on a loop that stays.

        Not asyncio.run: it ends with asyncio.all_tasks, which stops every thread of the process.
        """
        assert self._loop is not None, "begin() ran first"
        left = max(0.0, (self._deadline - time.monotonic_ns()) / 1e9)
        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, left))
        finally:
            left_behind = [task for task in self._tasks if not task.done()]
            for task in left_behind:
                task.cancel()
            if left_behind:
                self._loop.run_until_complete(asyncio.wait(left_behind, timeout=_LEFT_SECONDS))
            self._tasks.clear()

    def _task(
        self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any
    ) -> asyncio.Future[Any]:
        """Make a task, and remember it until its job is over."""
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        labels = {"worker": self.name}
        yield Sample(
            "threadline_worker_busy", "1 while a tool or guard runs.", "gauge", labels, self.busy
        )
        yield milliseconds(
            "threadline_worker_job_seconds", "One tool or guard.", self.seconds, worker=self.name
        )
        for name, text, value in (
            ("jobs", "Tools and guards run.", self.jobs),
            ("failed", "Of them, those that failed.", self.failed),
        ):
            yield Sample(f"threadline_worker_{name}_total", text, "counter", labels, value)


class Crew:
    """The workers as reply sees them: who is idle, and the jobs that wait. Its thread's alone.

    Every job given to `submit` ends once: `done` says True for its answer, or `expired` names
    it, or `forget` drops it. Guards go first, for a clause waits for each; among their like, the
    call with the fewest jobs running; and one call never has all workers.

    Args:
        workers: to each worker's inbox.
        guarded: there are guards among the functions.
    """

    def __init__(self, workers: Sequence[Outbox[object]], guarded: bool) -> None:
        self.guarded = guarded
        self._workers = workers
        self._share = max(1, len(workers) - 1)
        self._idle = deque(range(len(workers)))
        self._waiting: list[RunJob] = []  # in the order given; JOBS_PER_CALL bounds it
        self._running: dict[int, tuple[int, RunJob]] = {}  # by job number: its worker, and it
        self._wanted: dict[int, RunJob] = {}  # waiting or running, and somebody waits for it
        self._held: dict[int, int] = {}  # jobs waiting or running, by slot
        self._taken: dict[int, int] = {}  # of them running, by slot
        # Reports.
        self.refused = 0
        self.late = 0

    def submit(self, job: RunJob) -> bool:
        """Run a job as soon as a worker is free; its number must be new. False: the call has too
        many already."""
        if self._held.get(job.slot, 0) >= JOBS_PER_CALL:
            self.refused += 1
            return False
        self._held[job.slot] = self._held.get(job.slot, 0) + 1
        self._wanted[job.job] = job
        self._waiting.append(job)
        self._dispatch()
        return True

    def done(self, answer: JobDone) -> bool:
        """A worker is back. True when somebody still waits for its answer."""
        worker, job = self._running.pop(answer.job)
        self._idle.append(worker)
        self._lower(self._held, job.slot)
        self._lower(self._taken, job.slot)
        self._dispatch()
        return self._wanted.pop(answer.job, None) is not None

    def expired(self, now: int) -> list[RunJob]:
        """Jobs whose deadline is over: nobody waits for them any more, the running ones go on."""
        late = [job for job in self._wanted.values() if job.deadline <= now]
        self.late += len(late)
        for job in late:
            self.forget(job.job)
        return late

    def forget(self, job: int) -> None:
        """Nobody waits for this job any more; it may be over already."""
        gone = self._wanted.pop(job, None)
        if gone is not None and job not in self._running:
            self._waiting.remove(gone)
            self._lower(self._held, gone.slot)

    def next_due(self) -> int:
        """The nearest deadline, monotonic ns; 0: none."""
        return min((job.deadline for job in self._wanted.values()), default=0)

    def flush(self) -> bool:
        """Deliver what had to wait; True when nothing is left."""
        kept = [worker for worker in self._workers if not worker.flush()]
        return not kept

    def _dispatch(self) -> None:
        while self._idle:
            ready = [job for job in self._waiting if self._taken.get(job.slot, 0) < self._share]
            if not ready:
                return
            job = min(ready, key=lambda job: (bool(job.name), self._taken.get(job.slot, 0)))
            self._waiting.remove(job)
            worker = self._idle.popleft()
            self._running[job.job] = worker, job
            self._taken[job.slot] = self._taken.get(job.slot, 0) + 1
            self._workers[worker].put(job)

    @staticmethod
    def _lower(counts: dict[int, int], slot: int) -> None:
        counts[slot] -= 1
        if not counts[slot]:
            del counts[slot]

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        yield gauge(
            "threadline_jobs_waiting", "Tools and guards no worker has.", len(self._waiting)
        )
        yield gauge("threadline_workers_idle", "Workers without a job.", len(self._idle))
        for name, text, value in (
            ("refused", "Tools and guards refused: their call had too many.", self.refused),
            ("late", "Tools and guards given up at their deadline.", self.late),
        ):
            yield counter(f"threadline_jobs_{name}_total", text, value)
