"""What a race is given: its seed, its size, a place to count, and the way to fail.

A race is a module with `WHAT`, one line; `LIMIT`, the seconds after which it hangs; and
`run(bout)`. Each runs in a process of its own (run.py), so that what one squeezes, stops or
breaks is not the next one's.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NoReturn

DEADLINE = 60.0
"""Seconds of any one wait. Far more than needed: it turns a hang into a sentence."""

_TOLD_EVERY = 0.5


class Forbidden(AssertionError):  # noqa: N818  # the word of its docstrings, ACCEPTABLE and FORBIDDEN
    """The invariant does not hold, or something that must come did not."""


class Bout:
    """One run of one race. `size` is 1.0 for the quick run; counts are what was exercised."""

    def __init__(self, name: str, seed: int, size: float) -> None:
        self.name = name
        self.seed = seed
        self.size = size
        self.rng = random.Random(f"{name} {seed}")
        self.counts: Counter[str] = Counter()
        self.setting = ""  # what is being done to the threads just now: part of every failure
        self._told = 0.0
        self._main = threading.get_ident()

    def many(self, quick: int) -> int:
        """How many, for a figure of the quick run."""
        return max(1, round(quick * self.size))

    def draws(self, purpose: str) -> random.Random:
        """A stream of its own for a thread, so that the others' pace does not move its draws."""
        return random.Random(f"{self.name} {self.seed} {purpose}")

    def count(self, **counts: int) -> None:
        """Main thread. Add to what is reported, and say now and then how far it is."""
        assert threading.get_ident() == self._main, "counts belong to the main thread"
        self.counts.update(counts)
        if time.monotonic() - self._told > _TOLD_EVERY:
            self._told = time.monotonic()
            tell(counts=dict(self.counts))

    def forbid(self, what: str) -> NoReturn:
        """The invariant is broken. Any thread."""
        setting = f", with {self.setting}" if self.setting else ""
        raise Forbidden(f"{self.name} (seed {self.seed}{setting}): {what}")

    def expect(self, holds: object, what: str) -> None:
        """Any thread."""
        if not holds:
            self.forbid(what)

    def until(self, condition: Callable[[], object], what: str, timeout: float = DEADLINE) -> None:
        """Wait for something of another thread's making."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                self.forbid(f"not within {timeout:g} s: {what}")
            time.sleep(0.001)


class Crew:
    """Threads that end together. The first failure of one ends the others and is raised here."""

    def __init__(self, bout: Bout) -> None:
        self.over = False  # looked at by every loop
        self._bout = bout
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self, name: str, work: Callable[[], object]) -> None:
        """A thread that runs `work` once."""

        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  # raised again in `check`
                self._errors.append(error)

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def loop(self, name: str, turn: Callable[[], object]) -> None:
        """A thread that runs `turn` until the crew is over."""

        def turns() -> None:
            while not self.over:
                turn()

        self.start(name, turns)

    def check(self) -> None:
        """Raise what a thread raised."""
        if self._errors:
            self.over = True
            raise self._errors[0]

    def wait(self, condition: Callable[[], object], what: str, timeout: float = DEADLINE) -> None:
        """`Bout.until`, but a thread's failure comes first."""

        def met() -> object:
            self.check()
            return condition()

        self._bout.until(met, what, timeout)

    def join(self, what: str = "every thread ends") -> None:
        """Wait for all to return by themselves."""
        self.wait(lambda: not any(one.is_alive() for one in self._threads), what)
        self.check()

    def end(self) -> None:
        """Ask all to end, and wait."""
        self.over = True
        self.join("every thread ends once it is asked to")


def tell(**news: object) -> None:
    """A line for run.py, which reads our standard output."""
    sys.stdout.write(json.dumps(news) + "\n")
    sys.stdout.flush()
