"""Recogniser processes die, and every caller is answered all the same.

The whole server in a process of its own (whole.py), two recogniser processes, one of which is
killed as soon as one is ready, as a crash of native code would: idle, decoding or still loading.

ACCEPTABLE  an apology instead of an answer, when the second attempt died as well; any delay up to
            the recogniser's deadline.
FORBIDDEN   what strangers.py forbids: above all a caller who waits for ever, or is answered what
            another one said; a server that is not ready again afterwards; dead processes that
            are not collected, or more living ones than workers.

Perturbed   as in strangers.py.
Seed        draws whom to kill and when, and the rest.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack

from threadline.threads.child_server import ready

from ..bout import Bout
from ..perturb import freezes
from ..whole import apart, kill, recognisers
from .strangers import WITHIN, converse

WHAT = "recognisers die; every caller is still answered"
LIMIT = 300.0

CALLS, HUMS, WORKERS = 12, 24, 2


def run(bout: Bout) -> None:
    chosen = bout.rng.sample(WITHIN, bout.rng.randrange(2))
    bout.setting = ", ".join(["deaths", "freezes", *chosen])
    rng = bout.draws("deaths")
    over = threading.Event()
    killed: list[int] = []

    def reap(pid: int, address: str) -> None:
        """One after another; both at once now and then. Not before one could answer again."""
        while not over.wait(rng.random()):
            if ready(address)[0] and rng.random() < 0.8:
                alive = recognisers(pid)
                for victim in rng.sample(alive, min(len(alive), rng.choice((1, 1, 1, WORKERS)))):
                    killed.append(victim)
                    kill(victim)

    flags = ("--set", f"asr.workers={WORKERS}")
    with apart(bout.seed, chosen, CALLS, *flags) as (server, _), ExitStack() as stack:
        reaper = threading.Thread(target=reap, args=(server.pid, server.address))
        reaper.start()
        try:
            stack.enter_context(freezes(bout.draws("freezes"), server.pid))
            host, _, port = server.address.rpartition(":")
            converse(bout, (host, int(port)), CALLS, bout.many(HUMS), excuses=True)
        finally:
            over.set()
            reaper.join()
        stack.close()
        bout.until(lambda: ready(server.address)[0], "a recogniser is ready again")

        def healed() -> bool:
            alive = recognisers(server.pid)
            return len(alive) == WORKERS and not set(alive) & set(killed)

        bout.until(healed, "all workers are back, and none of the dead is left")
    bout.expect(killed, "nobody was killed: the race was none")
    bout.count(killed=len(killed))
