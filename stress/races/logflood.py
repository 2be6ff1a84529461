"""A flood of log records, and a log that nobody reads, hold up no frame; what is lost is counted.

First, threads log as fast as they can into a pipe that is read slowly, or not at all for a while.
Then calls are answered and interrupted while the pipe is full and nobody reads it: every frame
comes out before the first byte of the log is taken. It is the order of events that proves it, not
a time.

ACCEPTABLE  records dropped, of whichever thread; a last record lost at the moment of `stop`.
FORBIDDEN   records logged != written + reported as dropped; half a record, or one out of its
            thread's order; a call that is not answered, cleared or refused while the log is stuck;
            a log thread that does not end once somebody reads.

Perturbed   the reader's pauses; threads that come, log and go; anything of perturb.py.
Seed        draws all of these.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import select
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

from threadline.config import Log
from threadline.threads import logs

from ..bout import Bout, Crew
from ..perturb import disturbed
from ..phones import Exchange, Phone
from ..switchboard import Switchboard, switchboard

WHAT = "a log flood is counted and holds up no frame"
LIMIT = 240.0

ROUNDS, THREADS, RECORDS = 6, 6, 4_000
CALLS, FRAMES, CLEARS, REFUSED = 8, 300, 40, 150
_F_SETPIPE_SZ = 1031
_log = logs.logger("flood")


def run(bout: Bout) -> None:
    for number in range(bout.many(ROUNDS)):
        bout.setting = f"flood {number}"
        with disturbed(bout):
            _flood(bout, number)
        bout.count(rounds=1)
    bout.setting = "a log that nobody reads"
    _stuck(bout)


class _Reader:
    """The other end of stderr."""

    def __init__(self) -> None:
        self.fd, self.write = os.pipe()
        fcntl.fcntl(self.write, _F_SETPIPE_SZ, 4096)
        self.text = b""

    def read(self, wait: float) -> bool:
        """Some of it; False when there was nothing."""
        if not select.select([self.fd], [], [], wait)[0]:
            return False
        piece = os.read(self.fd, 65_536)
        self.text += piece
        return bool(piece)

    def close(self) -> None:
        os.close(self.fd)
        os.close(self.write)


def _flood(bout: Bout, number: int) -> None:
    reader, rng = _Reader(), bout.draws(f"reader {number}")
    lost_before = logs.dropped()
    done = threading.Event()

    def read() -> None:
        while reader.read(0.05) or not done.is_set():
            if rng.random() < 0.05:
                time.sleep(rng.random() * 0.2)

    def write(name: int, first: int) -> None:
        for record in range(first, first + RECORDS // 4):
            _log.info("flood", of=name, number=record)
            if rng_of[name].random() < 0.01:
                time.sleep(0)

    def flood(name: int) -> None:
        """Half of them with a new thread for each quarter."""
        for first in range(0, RECORDS, RECORDS // 4):
            if name % 2:
                write(name, first)
                continue
            part = threading.Thread(target=write, args=(name, first), name=f"part-{name}")
            part.start()
            part.join()

    rng_of = [bout.draws(f"flooder {number} {name}") for name in range(THREADS)]
    logs.start(Log(level="info", format="json"), fd=reader.write)
    crew, readers = Crew(bout), Crew(bout)
    readers.start("reader", read)
    for name in range(THREADS):
        crew.start(f"flooder-{name}", partial(flood, name))
    crew.join("everybody has logged")
    bout.expect(logs.stop(30.0), "the log thread did not end although its pipe was read")
    done.set()
    readers.join("the reader has read it all")
    lost = logs.dropped() - lost_before
    written = _check_records(bout, reader.text)
    reader.close()
    produced = THREADS * RECORDS
    bout.expect(produced == written + lost, f"{produced} logged, {written} written, {lost} dropped")
    bout.count(records=produced, dropped=lost)


def _check_records(bout: Bout, text: bytes) -> int:
    """How many of ours are in it; each whole, and each thread's in order."""
    written, last = 0, Counter[int]()
    for line in text.decode().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            bout.forbid(f"half a record: {line[:200]}")
        if record["event"] != "flood":
            continue
        of, number = record["of"], record["number"]
        bout.expect(number + 1 > last[of], f"record {number} of {of} came after {last[of] - 1}")
        last[of] = number + 1
        written += 1
    return written


def _stuck(bout: Bout) -> None:
    """Nobody reads until every call has had its frames."""
    reader = _Reader()
    logs.start(Log(level="info", format="json"), fd=reader.write)
    frames, clears = bout.many(FRAMES), bout.many(CLEARS)
    try:
        with switchboard(bout, CALLS) as board:
            for name in range(2):
                board.crew.loop(f"flooder-{name}", _steady(name))
            full = select.poll()
            full.register(reader.write, select.POLLOUT)
            board.crew.wait(lambda: not full.poll(0), "the pipe is full and the log thread stuck")
            exchange, phones = Exchange(), []
            for number in range(CALLS):
                phone = Phone(bout, number, board.address, full=number == 0)
                bout.expect(phone.upgrade() == 101, "a caller was refused")
                phone.start()
                exchange.add(phone)
                phones.append(phone)
            board.crew.loop("exchange", exchange.turn)
            rng = bout.draws("vad")
            board.crew.loop("vad", lambda: _interrupt_all(board, rng, phones))
            refused = 0
            for number in range(bout.many(REFUSED)):  # io-calls itself logs each of these
                extra = Phone(bout, CALLS + number, board.address, full=False)
                refused += extra.upgrade() == 503
                extra.close()
            bout.expect(refused == bout.many(REFUSED), f"only {refused} were refused")
            board.crew.wait(
                lambda: all(p.frames >= frames and p.clears >= clears for p in phones),
                "every call has its frames and clears",
            )
            heard, cleared = sum(p.frames for p in phones), sum(p.clears for p in phones)
            bout.expect(not full.poll(0), "somebody has read the log: it proves nothing")
            bout.expect(not reader.text, "somebody has read the log: it proves nothing")
        exchange.close()
    finally:
        over = threading.Event()
        drain = threading.Thread(target=lambda: _drain(reader, over), name="drain")
        drain.start()
        ended = logs.stop(30.0)
        over.set()
        drain.join()
        reader.close()
    bout.expect(ended, "the log thread did not end once its pipe was read")
    bout.expect(logs.dropped(), "nothing was dropped: the log was not stuck")
    bout.count(frames=heard, interruptions=cleared, refused=refused)


def _steady(name: int) -> Callable[[], None]:
    def turn() -> None:
        for number in range(20):
            _log.info("flood", of=name, number=number)
        time.sleep(0.005)

    return turn


def _interrupt_all(board: Switchboard, rng: random.Random, phones: list[Phone]) -> None:
    for talk in list(board.reply.talks.values()):
        if phones[talk.number].fresh > 3 or rng.random() < 0.02:  # its answer may be over
            board.interrupt(talk.call, rng, None)
    time.sleep(0.002)


def _drain(reader: _Reader, over: threading.Event) -> None:
    while reader.read(0.05) or not over.is_set():
        pass
