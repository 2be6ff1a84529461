"""What is set in a context variable for one call is never seen by another.

Callers share threads: all conversations run on one, all sockets on another. A brain, or a library
under it, may keep the call's number in a context variable, as tracing does.

The whole server in this process (whole.py), in processes with `thread_inherit_context` on and off,
because the two builds of Python differ in its default. The brain sets the variable to whom it
works for, and looks first. All sockets of a server share one context, which is uvloop's way:
there, nothing may set a variable at all.

ACCEPTABLE  what was set before the server was started, seen by threads that inherit it.
FORBIDDEN   a conversation that sees what another one has set; a context of the sockets that is not
            as it was when the first of them looked.

Perturbed   thread churn, collections, stop-the-world; calls that come and go.
Seed        draws the disturbances, and when each caller interrupts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field

from threadline.dialog.brain import Answer
from threadline.threads.child_server import ready as readyz

from ..bout import Bout, tell
from ..perturb import disturbed
from ..whole import Echo, make
from .strangers import converse

WHAT = "context variables stay within their call"
LIMIT = 240.0

CALLS, HUMS, BLOCKS = 16, 3, 3
WHOSE: ContextVar[object] = ContextVar("WHOSE", default=None)
BEFORE = "set before the server was started"


def run(bout: Bout) -> None:
    for inherit in ("0", "1"):
        bout.setting = f"thread_inherit_context={inherit}"
        command = [sys.executable, "-X", "faulthandler", "-X", bout.setting, "-m", __name__]
        command += [str(bout.seed), str(bout.size)]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        bout.expect(ended.returncode == 0, "see above")
        bout.count(**json.loads(ended.stdout.splitlines()[-1])["counts"])


@dataclass
class Marking(Echo):
    """A brain that notes whom it works for; its state is that name."""

    leaks: list[str] = field(default_factory=list)
    looks: int = 0

    def begin(self) -> object:  # type: ignore[override]  # a brain's state is any value
        me = object()
        self._look(me)
        return me

    def answer(self, state: object, words: str) -> tuple[object, Answer]:  # type: ignore[override]
        # as in begin: any state will do
        self._look(state)
        return state, super().answer(0, words)[1]

    def _look(self, me: object) -> None:
        self.looks += 1
        seen = WHOSE.get()
        if seen not in (None, BEFORE) and seen is not me:
            self.leaks.append(f"a conversation saw {seen}, of another call")
        WHOSE.set(me)


def _here(bout: Bout) -> None:
    WHOSE.set(BEFORE)
    brain = Marking()
    server = make(CALLS, brain=brain)
    leaks, looks = brain.leaks, 0
    shared: dict[str, object] = {}
    (io,), door = server.ios, server.door
    audio_came, readiness = io.audio_came, door._readiness

    def look() -> None:
        """In the callback of a socket."""
        nonlocal looks
        looks += 1
        found = dict(copy_context().items())
        if found != shared.setdefault("as it was", found):
            leaks.append(f"the sockets' context is {found}, and was {shared}")

    def came(slot: int) -> None:
        look()
        audio_came(slot)

    def ready() -> tuple[str, dict[str, object]]:
        look()
        return readiness()

    io.audio_came = came  # type: ignore[method-assign]  # looks, and does it
    door._readiness = ready
    server.start()
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.02):
            readyz(f"127.0.0.1:{server.address[1]}")

    bout.until(lambda: server.asr.ready, "the recogniser is ready")
    asker = threading.Thread(target=ask, name="asker")
    asker.start()
    try:
        for _ in range(bout.many(BLOCKS)):
            with disturbed(bout, ("churn", "collections", "stops", "switches")):
                converse(bout, server.address, CALLS, HUMS)
                bout.until(lambda: door.live == 0, "all calls are over")
    finally:
        over.set()
        asker.join()
    bout.expect(server.close(), "a thread was left behind")
    bout.expect(not leaks, f"{len(leaks)} times; first: {leaks[:3]}")
    bout.expect(brain.looks > 0 and looks > 0, "nobody looked: the race was none")
    bout.count(looks=brain.looks + looks)


if __name__ == "__main__":
    this = Bout("contexts", int(sys.argv[1]), float(sys.argv[2]))
    _here(this)
    tell(counts=dict(this.counts))
