"""`threadline serve` with a saboteur inside: started by stalls.py, with serve's flags.

    python -m stress.stalls_server FOLDER serve FLAGS...

SIGUSR1 begins: one after the other, every thread is held up for some ms in the middle of its own
work, once by sleeping and once by computing. What was planted when goes into FOLDER/planted.jsonl,
and FOLDER/done ends it. The product knows nothing of this: the saboteur puts a step of its own in
the place of a thread's next one.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, override

from threadline import cli_serve
from threadline.cli import main as serve
from threadline.threads import logs
from threadline.threads.server import Server
from threadline.threads.supervisor import Running

HELD_SECONDS = 0.05
REST_SECONDS = 1.3  # after each: the report has a second
PATIENCE = 10.0
WORKER = "worker-1"  # the others of its kind are like it


def planted_sleep() -> None:
    """As a thread does that waits for a lock, a disk or a network."""
    time.sleep(HELD_SECONDS)


def planted_burn() -> None:
    """As a thread does that has too much to compute."""
    end = time.thread_time() + HELD_SECONDS
    while time.thread_time() < end:
        sum(range(100))


KINDS = {"sleeps": planted_sleep, "computes": planted_burn}


type Put = Callable[[Callable[[], None]], None]


class Saboteur:
    """Plants, on a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: Server | None = None

    def meet(self, server: Server) -> None:
        """The server that has just started."""
        self._server = server

    def begin(self, *_: object) -> None:
        """A signal handler."""
        threading.Thread(target=self._plant_all, name="saboteur", daemon=True).start()

    def _plant_all(self) -> None:
        assert self._server is not None, "the signal comes once it answers"
        with (self._folder / "planted.jsonl").open("w") as told:
            for name, put in targets(self._server).items():
                for kind, act in KINDS.items():
                    told.write(json.dumps(self._plant(name, kind, act, put)) + "\n")
                    told.flush()
                    time.sleep(REST_SECONDS)
        (self._folder / "done").touch()

    @staticmethod
    def _plant(
        name: str,
        kind: str,
        act: Callable[[], None],
        put: Put,
    ) -> dict[str, object]:
        over, times = threading.Event(), [0, 0]

        def held_up() -> None:
            times[0] = time.time_ns()
            act()
            times[1] = time.time_ns()
            over.set()

        put(held_up)
        if not over.wait(PATIENCE):
            raise RuntimeError(f"{name} never came to what was planted in it")
        return {"thread": name, "kind": kind, "function": act.__name__, "times": times}


def targets(server: Server) -> dict[str, Put]:
    """By thread: how to have something called in the middle of its work."""
    found: dict[str, Put] = {}
    loops = {io.name: io.loop for io in server.ios}
    for running in server.supervisor.stages:
        name = running.stage.name
        if name in loops:
            found[name] = partial(_soon, loops[name])
        elif server.vendors is not None and name == server.vendors.name:
            found[name] = partial(_soon, server.vendors._loop)
        elif name == WORKER or not name.startswith("worker-"):
            found[name] = _in_a_step_of(running)
    found["watch"] = partial(_before, server.watch, "look")
    found["log"] = partial(_before, logs.writer(), "_drain")
    return found


def _in_a_step_of(running: Running) -> Put:
    def put(act: Callable[[], None]) -> None:
        _before(running.stage, "step", act)
        running.wake()

    return put


def _soon(loop: asyncio.AbstractEventLoop, act: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(act)


def _before(thing: Any, method: str, act: Callable[[], None]) -> None:
    """Once: `act` comes before what this method does."""

    def instead(*args: object) -> object:
        del thing.__dict__[method]
        act()
        return getattr(thing, method)(*args)

    setattr(thing, method, instead)


def main() -> int:
    saboteur = Saboteur(Path(sys.argv[1]))

    class Met(Server):
        @override
        def start(self) -> None:
            super().start()
            saboteur.meet(self)

    vars(cli_serve)["Server"] = Met  # the command makes this one instead
    signal.signal(signal.SIGUSR1, saboteur.begin)
    return serve(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
