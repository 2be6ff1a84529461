"""A slot is given back whenever and however its caller leaves, and keeps nothing for the next one.

Twelve callers take turns at six slots and leave at every point there is. Meanwhile the fake reply
is late: it says more on calls that are over, orders them hung up once more, and hangs up by
itself.

ACCEPTABLE  a call refused because all lines are in use; one whose start io-calls never saw.
FORBIDDEN   a frame of an earlier caller of the slot, in either direction; a call ended by an order
            that was meant for an earlier one; a slot opened twice, or told of after its end; a
            call that is opened and not closed; a slot, socket or descriptor that is not given
            back; anything raised on io-calls.

Perturbed   as in interruptions.py, which this one goes on with throughout.
Seed        draws who leaves how and when, and the rest.
"""

from __future__ import annotations

import os
import random
import select
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from .. import pattern
from ..bout import DEADLINE, Bout, Crew
from ..perturb import Yields, disturbed
from ..phones import Phone
from ..switchboard import Switchboard, switchboard

WHAT = "slots reused; callers leave at every point"
LIMIT = 240.0

SLOTS, CALLERS = 6, 12
SESSIONS = 4_800
ROUNDS = 4


def run(bout: Bout) -> None:
    rounds = max(2, bout.many(ROUNDS))
    for number in range(rounds):
        yields = Yields(bout, 0.01) if number % 4 == 3 else None
        bout.setting = f"round {number}, {'yields' if yields else 'no yields'}"
        with disturbed(bout):
            _round(bout, bout.many(SESSIONS) // rounds, yields, number)
        bout.count(rounds=1)


def _round(bout: Bout, sessions: int, yields: Yields | None, number: int) -> None:
    before = _sockets()
    done: Counter[str] = Counter()
    with switchboard(bout, SLOTS, yields, threads=bout.rng.choice((1, 2))) as board:
        board.reply.rude = True
        rng = bout.draws(f"vad {number}")

        def interrupt() -> None:
            board.interrupt(rng.choice(board.calls), rng, yields)
            time.sleep(rng.random() * 0.01)

        ears = _Ears(bout, board)
        board.crew.loop("vad", interrupt)
        board.crew.loop("ears", ears.turn)
        callers = Crew(bout)
        tallies = [Counter[str]() for _ in range(CALLERS)]
        for caller in range(CALLERS):
            visits = _Visits(bout, board, callers, f"{number} {caller}", tallies[caller])
            first = 1 + number * 1_000_000 + caller * 10_000
            callers.start(
                f"caller-{caller}",
                partial(visits.make, first, sessions // CALLERS),
            )

        def over() -> bool:
            board.check()
            return not any(thread.is_alive() for thread in callers._threads)

        callers.wait(over, "all callers have left", timeout=LIMIT)
        callers.check()
        board.crew.wait(
            lambda: not any(io.legs or io.doorways for io in board.ios), "sockets are closed"
        )
        board.crew.wait(lambda: not board.reply.talks, "every call that was opened is closed")
        board.crew.wait(lambda: board.door.live == 0, "every line is given back")
        free = board.door.free()
        bout.expect(free == list(range(SLOTS)), f"free slots: {free}")
        live = [call.slot for call in board.calls if call.live]
        bout.expect(not live, f"slots {live} are live with nobody on the line")
        ears.check()
        _check_ends(bout, board)
        for tally in tallies:
            done.update(tally)
    bout.expect(_sockets() == before, f"{_sockets()} sockets are open, {before} were")
    refused, cleared = done.pop("refused", 0), done.pop("interruptions", 0)
    bout.count(calls=sum(done.values()), refused=refused, interruptions=cleared, frames=ears.frames)


def _sockets() -> int:
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            found += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    return found


def _check_ends(bout: Bout, board: Switchboard) -> None:
    """Nobody was hung up on by an order for somebody else."""
    for talk in board.reply.over:
        wrong = talk.reason == "late" or (talk.reason == "enough" and not talk.hung_up)
        bout.expect(not wrong, f"call {talk.number} was ended: {talk.reason}")


class _Ears:
    """The consumer of caller audio: each live call's frames are its own caller's, in order."""

    def __init__(self, bout: Bout, board: Switchboard) -> None:
        self._bout, self._board = bout, board
        self._heard: dict[tuple[int, int], pattern.Label] = {}
        self.frames = 0

    def turn(self) -> None:
        for call in self._board.calls:
            while (record := call.heard.pop()) is not None:
                self._hear((call.slot, record[0]), record[5])
        time.sleep(0.001)

    def _hear(self, who: tuple[int, int], payload: bytes) -> None:
        label, last = pattern.read(payload), self._heard.get(who)
        if label is None:
            self._bout.forbid(f"a torn frame from the caller of {who}")
        if last is not None:
            same = label.call == last.call and label.number > last.number
            self._bout.expect(same, f"{who} (slot, generation) said {label} after {last}")
        self._heard[who] = label
        self.frames += 1

    def check(self) -> None:
        opened = {(t.call.slot, t.generation): t.number for t in self._board.reply.over}
        for who, label in self._heard.items():
            right = opened.get(who) == label.call
            self._bout.expect(right, f"{label} was heard from {who}, who is {opened.get(who)}")


class _Visits:
    """One caller after another on one thread."""

    def __init__(
        self, bout: Bout, board: Switchboard, crew: Crew, name: str, tally: Counter[str]
    ) -> None:
        self._bout, self._board, self._crew, self._tally = bout, board, crew, tally
        self._rng = bout.draws(f"caller {name}")

    def make(self, first: int, visits: int) -> None:
        ways: tuple[Callable[[Phone, random.Random], None], ...] = (
            self.unasked, self.unfinished, self.unstarted, self.unannounced, self.at_once,
            self.politely, self.mid_answer, self.mid_answer, self.after_a_clear, self.half_closed,
            self.with_nonsense, self.with_broken_frames, self.twice, self.deaf, self.patiently,
        )  # fmt: skip
        for number in range(first, first + visits):
            if self._crew.over:
                return
            way = self._rng.choice(ways)
            phone = Phone(self._bout, number, self._board.address, full=self._rng.random() < 0.3)
            try:
                how = way.__name__
                if way not in (self.unasked, self.unfinished):
                    status = phone.upgrade()
                    if status != 101:
                        self._bout.expect(status == 503, f"an upgrade was answered {status}")
                        how = "refused"
                        time.sleep(self._rng.random() * 0.01)
                if how != "refused":
                    way(phone, self._rng)
            finally:
                phone.close()
            self._tally[how] += 1
            self._tally["interruptions"] += phone.clears

    # -- the ways to leave ------------------------------------------------------------------

    def unasked(self, phone: Phone, rng: random.Random) -> None:
        """Connects, and is gone."""
        if rng.random() < 0.5:
            phone.cut()

    def unfinished(self, phone: Phone, rng: random.Random) -> None:
        """Half a request."""
        phone.ws.send_request(phone.ws.connect())
        request = b"".join(phone.ws.data_to_send())
        phone.sock.sendall(request[: rng.randrange(1, len(request))])
        if rng.random() < 0.5:
            phone.cut()

    def unstarted(self, phone: Phone, rng: random.Random) -> None:
        """After the upgrade."""
        if rng.random() < 0.5:
            phone.cut()

    def unannounced(self, phone: Phone, rng: random.Random) -> None:
        """Between `connected` and `start`."""
        phone.send(phone.carrier.connected())
        if rng.random() < 0.5:
            phone.cut()

    def at_once(self, phone: Phone, rng: random.Random) -> None:
        """With the call's first message."""
        phone.start()
        if rng.random() < 0.5:
            phone.cut()

    def politely(self, phone: Phone, rng: random.Random) -> None:
        """A word, `stop`, and the server closes."""
        phone.start()
        phone.say(rng.randrange(5))
        phone.hang_up()
        self._read(phone, lambda: False)

    def mid_answer(self, phone: Phone, rng: random.Random) -> None:
        """After so many frames."""
        phone.start()
        wanted = rng.randrange(1, 30)
        self._read(phone, lambda: phone.frames >= wanted, say=rng)
        if rng.random() < 0.5:
            phone.cut()
        elif not phone.gone:
            phone.hang_up()
            self._read(phone, lambda: False)

    def after_a_clear(self, phone: Phone, rng: random.Random) -> None:
        """With the clear just come."""
        phone.start()
        self._read(phone, lambda: phone.clears, say=rng)
        if rng.random() < 0.5:
            phone.cut()

    def half_closed(self, phone: Phone, rng: random.Random) -> None:
        """It will send no more, and still listens."""
        phone.start()
        wanted = rng.randrange(3)
        self._read(phone, lambda: phone.frames >= wanted)
        if not phone.gone:
            phone.leaving = True
            phone.sock.shutdown(socket.SHUT_WR)
            self._read(phone, lambda: False)

    def with_nonsense(self, phone: Phone, rng: random.Random) -> None:
        """A message that breaks the carrier's protocol."""
        phone.start()
        phone.leaving = True
        phone.send(rng.choice(('{"event":"media"}', "not json", '{"event":"start"}', "[]")))
        self._read(phone, lambda: False)

    def with_broken_frames(self, phone: Phone, rng: random.Random) -> None:
        """Bytes that break the WebSocket protocol."""
        phone.start()
        phone.leaving = True
        phone.sock.sendall(rng.randbytes(rng.randrange(2, 40)))
        end = time.monotonic() + rng.random() * 0.02  # random bytes may announce a long frame
        self._read(phone, lambda: time.monotonic() > end)
        phone.cut()

    def twice(self, phone: Phone, rng: random.Random) -> None:
        """`stop`, and the line breaks before the server has closed it."""
        phone.start()
        phone.say(rng.randrange(3))
        phone.hang_up()
        phone.cut()

    def deaf(self, phone: Phone, rng: random.Random) -> None:
        """Never reads, for a while."""
        phone.start()
        time.sleep(rng.random() * 0.05)
        phone.cut()

    def patiently(self, phone: Phone, rng: random.Random) -> None:
        """Stays until the server has had enough."""
        phone.start()
        end = time.monotonic() + rng.random() * 0.3
        self._read(phone, lambda: time.monotonic() > end, say=rng)

    def _read(
        self, phone: Phone, enough: Callable[[], object], say: random.Random | None = None
    ) -> None:
        """Listen until it is enough or the server closes, and talk meanwhile."""
        end = time.monotonic() + DEADLINE
        while not phone.gone and not enough():
            self._bout.expect(time.monotonic() < end, f"phone {phone.number} waits for ever")
            if select.select([phone.sock], [], [], 0.02)[0]:
                phone.read()
            if say is not None and not phone.gone and say.random() < 0.3:
                phone.say(1)
