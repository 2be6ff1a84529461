"""The tools at work in one call: started as the model wants them, within limits, and what comes
of them told to it in the history."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .events import Output, RunTool
from .history import Entry
from .telling import Reply
from .tools import (
    ENDING,
    HANG_UP,
    MAX_CALLS,
    MAX_ROUNDS,
    MAX_RUNNING,
    TOO_MANY_ROUNDS,
    TOO_MANY_RUNNING,
    ToolCall,
    ToolSpec,
    result_text,
    sound,
)


@dataclass(frozen=True, slots=True)
class _Job:
    """A tool at work, and where its result belongs."""

    reply: Reply
    entry: Entry
    at: int


class Toolbox:
    """See the module. Its orders go to ``out``."""

    __slots__ = ("_count", "_jobs", "_names", "_out")

    def __init__(self, tools: Iterable[ToolSpec], out: list[Output]) -> None:
        self._names = frozenset(tool.name for tool in tools)
        self._out = out
        self._jobs: dict[int, _Job] = {}
        self._count = 0

    def run(self, reply: Reply, calls: tuple[ToolCall, ...]) -> None:
        """Run what the model wants; calls above the limit are as if it had not made them."""
        entry = reply.entry
        if calls and not entry.calls:
            reply.rounds += 1
        for call in calls[: MAX_CALLS - len(entry.calls)]:
            job = _Job(reply, entry, len(entry.calls))
            entry.calls.append(sound(call, [other.id for other in entry.calls]))
            entry.results.append(self._order(call, job))

    def _order(self, call: ToolCall, job: _Job) -> str | None:
        """Have it run; or say at once what comes of it."""
        reply = job.reply
        if call.name == HANG_UP.name and call.name in self._names:
            reply.hang_up = True
            reply.ending = job.entry, job.at
            return ENDING
        reply.again = reply.rounds <= MAX_ROUNDS + 1  # the last time to hear that it is enough
        reply.given_up = not reply.again
        if reply.rounds > MAX_ROUNDS:
            return TOO_MANY_ROUNDS
        if call.name not in self._names:
            return f"Error: there is no tool named {call.name[:64]}."
        if len(self._jobs) >= MAX_RUNNING:
            return TOO_MANY_RUNNING
        self._count += 1
        self._jobs[self._count] = job
        reply.jobs.add(self._count)
        self._out.append(RunTool(self._count, call))
        return None

    def reply_of(self, number: int) -> Reply | None:
        """Whose tool that is; None when it is not at work."""
        job = self._jobs.get(number)
        return None if job is None else job.reply

    def done(self, number: int, result: str, error: str) -> Reply | None:
        """It has answered: whose tool it was."""
        job = self._jobs.pop(number, None)
        if job is None:
            return None
        job.entry.results[job.at] = result_text(result, error)
        job.reply.jobs.discard(number)
        return job.reply
