"""The tools and guards that calls wait for, as `reply` keeps them. Used by its thread alone.

What comes of a job becomes a fact for the conversation of its call. Guards fail closed: a clause
that none has judged in time, or whose guard raised, is not heard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count

from ..config import Talk
from ..dialog import events as talk
from ..observe.prometheus import Sample, counter
from .line import Job, Line
from .logs import logger
from .messages import JobDone, RunJob
from .workers import Crew

log = logger("reply")

UNGUARDED = "I'm sorry, I can't say that just now."
"""Heard in the place of a clause that was not judged, and of the rest of its answer."""
TOO_MANY = "Too many tools are at work for this call: try again later."
NO_JOB = -1  # of a clause whose guard could not even be asked


class Jobs:
    """See the module. `line`: the live call of a slot and generation, if it still is."""

    def __init__(
        self, crew: Crew | None, setting: Talk, line: Callable[[int, int], Line | None]
    ) -> None:
        self._crew = crew
        self._setting = setting
        self._line = line
        self._numbers = count(1)
        # Reports.
        self.unguarded = 0

    def next_due(self) -> int:
        """The nearest deadline, monotonic ns; 0: none."""
        return 0 if self._crew is None else self._crew.next_due()

    def flush(self) -> bool:
        """Deliver what had to wait; True when nothing is left."""
        return self._crew is None or self._crew.flush()

    # -- what a conversation orders -------------------------------------------------------------

    def run(self, line: Line, order: talk.RunTool, now: int) -> None:
        """Run a tool."""
        call = order.call
        job = Job("tool", order.job, call.name)
        if self._submit(line, job, call.name, call.arguments, now, self._setting.tool_seconds):
            job.slow_at = now + int(self._setting.filler_seconds * 1e9)
        else:
            line.facts.append(talk.ToolDone(order.job, "", TOO_MANY))

    def guard(self, line: Line, order: talk.Say, now: int) -> int:
        """Have a clause judged, if it must be: the job that lets it pass, or 0."""
        if self._crew is None or not (self._crew.guarded and order.guard):
            return 0
        job = Job("guard", order.clause, order.text)
        number = self._submit(line, job, "", order.text, now, self._setting.guard_seconds)
        if not number:
            self._refuse(line, job, "too many jobs of this call")
        return number or NO_JOB

    def _submit(
        self, line: Line, job: Job, name: str, arguments: str, now: int, seconds: float
    ) -> int:
        """The job's number; 0 when it cannot be run."""
        assert self._crew is not None, "tools and guards come with workers"
        number = next(self._numbers)
        deadline = now + int(seconds * 1e9)
        context = line.context.copy()  # a context is entered by one thread at a time
        order = RunJob(line.call.slot, line.generation, number, name, arguments, deadline, context)
        if not self._crew.submit(order):
            return 0
        line.jobs[number] = job
        return number

    def forget(self, line: Line, kind: str = "") -> None:
        """Nobody waits any more for the call's jobs, or for those of one kind."""
        for number, job in list(line.jobs.items()):
            if not kind or job.kind == kind:
                self.forget_one(line, number)

    def forget_one(self, line: Line, number: int) -> None:
        """Nor for this one; it may be over already."""
        if line.jobs.pop(number, None) is not None and self._crew is not None:
            self._crew.forget(number)

    # -- what comes of it -----------------------------------------------------------------------

    def done(self, event: JobDone) -> None:
        """A worker is back."""
        assert self._crew is not None, "a worker belongs to a crew"
        wanted = self._crew.done(event)
        line = self._line(event.slot, event.generation)
        job = line.jobs.pop(event.job, None) if wanted and line is not None else None
        if line is None or job is None:
            return
        if job.kind == "tool":
            line.facts.append(talk.ToolDone(job.number, event.result, event.error))
        elif event.error:
            self._refuse(line, job, event.error)
        elif event.stop or event.result != job.text:
            line.facts.append(talk.Guarded(job.number, event.result, event.stop))
        else:
            line.passed(job.number)

    def give_up(self, now: int) -> list[Line]:
        """The calls whose jobs have overrun their deadlines, with new facts."""
        if self._crew is None:
            return []
        lines = []
        for order in self._crew.expired(now):
            line = self._line(order.slot, order.generation)
            job = line.jobs.pop(order.job, None) if line is not None else None
            if line is None or job is None:
                continue
            lines.append(line)
            if job.kind == "guard":
                self._refuse(line, job, f"no answer within {self._setting.guard_seconds:g} s")
                continue
            error = f"{job.text} did not answer within {self._setting.tool_seconds:g} s."
            log.warning("tool too slow", call_id=line.info.call_id, tool=job.text)
            line.facts.append(talk.ToolDone(job.number, "", error))
        return lines

    def slow(self, line: Line, now: int) -> None:
        """Say of the tools that have run for a while that they do."""
        for job in line.jobs.values():
            if 0 < job.slow_at <= now:
                job.slow_at = 0
                line.facts.append(talk.ToolSlow(job.number))

    def _refuse(self, line: Line, job: Job, reason: str) -> None:
        """A clause was not judged: it is not heard."""
        self.unguarded += 1
        log.warning("clause not judged", call_id=line.info.call_id, reason=reason)
        line.facts.append(talk.Guarded(job.number, UNGUARDED, stop=True))

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        text = "Clauses not heard because no guard judged them in time."
        yield counter("threadline_reply_unguarded_total", text, self.unguarded)
        if self._crew is not None:
            yield from self._crew.samples()
