"""Threads in tests: their failures fail the test, and none outlives its deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

DEADLINE = 20.0
"""Seconds. Far more than anything here needs: it turns a hang into a failure."""


class Worker:
    """A thread that keeps what it returned or raised until `join`."""

    def __init__(self, work: Callable[[], object], name: str = "worker") -> None:
        self._work = work
        self._error: BaseException | None = None
        self.result: object = None
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:  # noqa: BLE001  # raised again in `join`
            self._error = error

    def join(self, timeout: float = DEADLINE) -> object:
        """What the work returned. Raises what it raised, or TimeoutError."""
        self.thread.join(timeout)
        if self.thread.is_alive():
            raise TimeoutError(f"{self.thread.name} still runs after {timeout} s")
        if self._error is not None:
            raise self._error
        return self.result


def race(*works: Callable[[], object]) -> list[object]:
    """Run all at once, from one barrier; join all; raise the first failure."""
    barrier = threading.Barrier(len(works), timeout=DEADLINE)

    def ready(work: Callable[[], object]) -> Callable[[], object]:
        def begin() -> object:
            barrier.wait()
            return work()

        return begin

    workers = [Worker(ready(work), f"racer-{i}") for i, work in enumerate(works)]
    return [worker.join() for worker in workers]


def until(condition: Callable[[], object], what: str, timeout: float = DEADLINE) -> None:
    """Wait for a condition of another thread's making; AssertionError names it when it fails."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s: {what}"
        time.sleep(0.001)


class Deadline:
    """For loops that spin: ``while ...: deadline.check("the ring is empty")``."""

    def __init__(self, timeout: float = DEADLINE) -> None:
        self._end = time.monotonic() + timeout

    def check(self, what: str) -> None:
        """AssertionError once the time is up; gives the processor away otherwise."""
        assert time.monotonic() < self._end, f"deadline: {what}"
        time.sleep(0)
