"""Several threads for one stage: which of them has which call.

Of K threads the k-th, from 0, has the slots k, k + K, k + 2K, ... So each call's audio, sockets and
floor are one thread's business as before, every ring keeps its one producer and its one consumer,
and whoever has something for the stage finds the thread by the slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import override

from .messages import Event
from .wake import Inbox, Outbox


def numbered(name: str, count: int) -> list[str]:
    """What the threads of a stage are called: ``vad``, or ``vad-1`` to ``vad-K``."""
    return [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]


def waking(inboxes: Sequence[Inbox]) -> Callable[[Iterable[int]], None]:
    """Wakes the threads that have these slots, each once."""
    wakes = [inbox.wake for inbox in inboxes]

    def wake(slots: Iterable[int]) -> None:
        for thread in {slot % len(wakes) for slot in slots}:
            wakes[thread]()

    return wake


def ports(inboxes: Sequence[Inbox], producer: str) -> Outbox[object]:
    """To the thread that has the slot an event is about: a port into each of these inboxes."""
    made: list[Outbox[object]] = [inbox.port(producer) for inbox in inboxes]
    return made[0] if len(made) == 1 else _Sharded(made)


class _Sharded(Outbox[object]):
    """Several outboxes in the place of one."""

    __slots__ = ("_outboxes",)

    def __init__(self, outboxes: Sequence[Outbox[object]]) -> None:
        self.name = outboxes[0].name.rpartition("-")[0]
        self._outboxes = outboxes

    @override
    def put(self, event: object) -> None:
        assert isinstance(event, Event), event
        self._outboxes[event.slot % len(self._outboxes)].put(event)

    @override
    def flush(self) -> bool:
        kept = [outbox for outbox in self._outboxes if not outbox.flush()]
        return not kept

    @override
    def wake(self) -> None:
        for outbox in self._outboxes:
            outbox.wake()

    @override
    def depth(self) -> int:
        return sum(outbox.depth() for outbox in self._outboxes)
