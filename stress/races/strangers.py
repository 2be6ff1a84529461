"""No frame, word or answer of another call, with two hundred of them on one server.

The whole server in a process of its own, with inference that takes no time (whole.py). Each caller
hums a tone of its own, is answered with that tone's number, and interrupts the answer with its
next hum. What is checked has passed every stage: sockets, vad, asr and its recogniser process,
reply, tts, pacer.

ACCEPTABLE  any lateness; an answer that is cut anywhere; an apology for what was not understood
            while recognisers die, in recognisers.py, but not here.
FORBIDDEN   a frame that answers another call's tone; a turn whose words are of two callers; an
            answer's frame lost, doubled, torn or out of order; a frame of an answer after its
            clear, or of the next one before it; a caller who is not answered; a call the server
            ends; an error in its log, the end of its process, a change of its GIL.

Perturbed   SIGSTOP and SIGCONT of the server; within it stop-the-world, collections, late imports,
            thread churn, one processor for all.
Seed        draws the disturbances, and when each caller interrupts.
"""

from __future__ import annotations

import json
import random
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from ..bout import DEADLINE, Bout, Crew
from ..perturb import freezes
from ..phones import Exchange, Phone
from ..whole import Caller, apart

WHAT = "200 calls, each only ever hears its own answers"
LIMIT = 300.0

CALLS = 200
HUMS = 10
EXCHANGES = 2
WITHIN = ("stops", "collections", "imports", "churn", "squeeze", "switches")


def run(bout: Bout) -> None:
    chosen = bout.rng.sample(WITHIN, bout.rng.randrange(3))
    bout.setting = ", ".join(["freezes", *chosen])
    with apart(bout.seed, chosen, CALLS) as (server, log), ExitStack() as stack:
        stack.enter_context(freezes(bout.draws("freezes"), server.pid))
        host, _, port = server.address.rpartition(":")
        converse(bout, (host, int(port)), CALLS, bout.many(HUMS))
        stack.close()
        _check_log(bout, log)


def converse(
    bout: Bout, address: tuple[str, int], calls: int, hums: int, *, excuses: bool = False
) -> None:
    """So many calls at once, each of which hums so often; then all hang up."""
    crew = Crew(bout)
    exchanges = [Exchange() for _ in range(EXCHANGES)]
    rngs = [bout.draws(f"exchange {number}") for number in range(EXCHANGES)]
    callers = [Caller(bout, number, address, full=number % 10 == 0) for number in range(calls)]
    patience = [0] * calls
    since = [0.0] * calls

    def hum(rng: random.Random, phone: Phone) -> None:
        """Interrupt once enough of the answer was heard, or it is over."""
        assert isinstance(phone, Caller), "only these were added"
        if phone.leaving or not (phone.fresh > patience[phone.number] or phone.answer_over):
            return
        since[phone.number] = time.monotonic()
        if phone.hums >= hums:
            phone.hang_up()
            return
        patience[phone.number] = rng.randrange(20)
        phone.expect_answer()
        phone.hum()

    for caller in callers:
        bout.expect(caller.upgrade() == 101, f"caller {caller.number} was refused")
        caller.start()
        since[caller.number] = time.monotonic()
        caller.hum()
        exchanges[caller.number % EXCHANGES].add(caller)
    for number, exchange in enumerate(exchanges):
        crew.loop(f"exchange-{number}", partial(exchange.turn, partial(hum, rngs[number])))
    before = dict(bout.counts)

    def over() -> bool:
        done = {
            "frames": sum(caller.frames for caller in callers),
            "interruptions": sum(caller.clears for caller in callers),
            "answers": sum(caller.answered for caller in callers),
        }
        bout.count(**{n: before.get(n, 0) + c - bout.counts[n] for n, c in done.items()})
        late = time.monotonic() - DEADLINE
        for caller in callers:
            waits = not caller.gone and since[caller.number] < late
            bout.expect(not waits, f"caller {caller.number} has had no answer for {DEADLINE:g} s")
            early = caller.gone and not caller.hung_up
            bout.expect(not early, f"caller {caller.number} was hung up on")
        return all(caller.gone for caller in callers)

    crew.wait(over, "all calls are over", timeout=LIMIT)
    crew.end()
    for exchange in exchanges:
        exchange.close()
    said = sum(caller.excuses for caller in callers)
    bout.expect(excuses or not said, f"{said} turns were not understood")
    bout.count(calls=calls, **({"excuses": said} if excuses else {}))


def _check_log(bout: Bout, log: Path) -> None:
    for line in log.read_text().splitlines():
        record = json.loads(line)
        bout.expect(record["level"] != "error", f"the server logged {line[:2000]}")
