"""What else runs in the process of a voice server and was not written with frames in mind.

A saboteur is a piece of work of fixed size and the period at which it is due. Its size does not
depend on the interpreter: who is slower at it is busy for longer. The server under test gives
each a thread (`start`); the asyncio baseline calls the same work from a coroutine.
"""

from __future__ import annotations

import gc
import json
import os
import random
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count, cycle
from typing import Any

from threadline.errors import Exit

type Say = Callable[[int, str], object]
"""Writes a log record: its number and a text."""


@dataclass(frozen=True, slots=True)
class Saboteur:
    """Some work, and how often it is due, in seconds."""

    period: float
    work: Callable[[], object]


TITLES = {
    "none": "nobody",
    "guard": "PII guard in pure Python",
    "logs": "log flood",
    "json": "json.loads, 5 MB",
    "sort": "sorted(), 400,000 floats",
    "collect": "gc.collect()",
    "stop": "a stop-the-world",
    "all but stops": "guard + logs + json + sort",
    "all": "all of them",
}
NAMES = ("guard", "logs", "json", "sort", "collect", "stop")

_DIGITS = re.compile(r"[\d][\d -]{7,}\d")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.\w+)+")


def redact(text: str) -> str:
    """One rule as it is written in an afternoon: character by character, then two patterns.

    Card numbers (Luhn) and addresses become ***.
    """
    out = []
    for letter in text:
        code = ord(letter)
        if code < 32:
            out.append(" ")
        elif 0xFF10 <= code <= 0xFF19:  # full-width digits
            out.append(chr(code - 0xFEE0))
        else:
            out.append(letter)
    clean = "".join(out)
    clean = _DIGITS.sub(lambda found: "***" if _luhn(found[0]) else found[0], clean)
    return _EMAIL.sub("***", clean)


def _luhn(number: str) -> bool:
    total = 0
    for place, digit in enumerate(int(d) for d in reversed(number) if d.isdigit()):
        total += digit if place % 2 == 0 else digit * 2 - 9 * (digit > 4)
    return total % 10 == 0


PII = "My card is 4111 1111 1111 1111, not 4111 1111 1111 1112; write to ann@example.org. "


def guard() -> Callable[[], str]:
    """A chunk of an answer, and rules: 80 to 200 ms on the machine this was written on."""
    chunk = PII * 12
    rules = cycle((750, 1_700, 1_200))

    def work() -> str:
        clean = ""
        for _ in range(next(rules)):
            clean = redact(chunk)
        return clean

    return work


def flood(say: Say) -> Callable[[], None]:
    """Somebody has left debugging on: 5,000 records a second."""
    numbers = count()

    def work() -> None:
        for _ in range(100):
            say(next(numbers), "tool answered")

    return work


def parse() -> Callable[[], Any]:
    """A tool that answers with the whole table."""
    rng = random.Random(1)
    rows = [
        {"id": number, "name": f"guest {number}", "table": rng.random(), "notes": ["x", None, True]}
        for number in range(65_000)
    ]
    text = json.dumps(rows)
    return lambda: json.loads(text)


def sort() -> Callable[[], list[float]]:
    """One C call that neither lets go of the GIL nor reaches a safe point before its end."""
    rng = random.Random(2)
    numbers = [rng.random() for _ in range(400_000)]
    return lambda: sorted(numbers)


def collect() -> Callable[[], int]:
    """A full collection, over what a server with some sessions and caches holds."""
    heap = [[number] for number in range(300_000)]

    def work() -> int:
        assert heap
        return gc.collect()

    return work


def stop() -> Callable[[], None]:
    """The cheapest call that stops the world of the free-threaded build: it changes a limit."""
    limits = cycle([sys.getrecursionlimit() + 1, sys.getrecursionlimit()])
    return lambda: sys.setrecursionlimit(next(limits))


def make(names: Iterable[str], say: Say) -> list[Saboteur]:
    """The named ones, with all their data made. KeyError for a name that is none."""
    makers: dict[str, Callable[[], Saboteur]] = {
        "guard": lambda: Saboteur(0.3, guard()),
        "logs": lambda: Saboteur(0.02, flood(say)),
        "json": lambda: Saboteur(0.5, parse()),
        "sort": lambda: Saboteur(0.5, sort()),
        "collect": lambda: Saboteur(0.5, collect()),
        "stop": lambda: Saboteur(0.1, stop()),
    }
    return [makers[name]() for name in names]


def start(saboteurs: Sequence[Saboteur]) -> list[threading.Thread]:
    """A thread for each, at work until the process ends."""
    threads = [
        threading.Thread(target=_keep_on, args=(one,), name="saboteur", daemon=True)
        for one in saboteurs
    ]
    for thread in threads:
        thread.start()
    return threads


def _keep_on(saboteur: Saboteur) -> None:
    due = time.monotonic()
    while True:
        try:
            saboteur.work()
        except BaseException:  # noqa: BLE001  # it ends the process, with its traceback
            traceback.print_exc()
            os._exit(Exit.CRASH)  # what goes on without it would be measured as sabotaged
        due = max(due + saboteur.period, time.monotonic())  # who is late skips, nobody catches up
        time.sleep(max(0.0, due - time.monotonic()))
