"""Never one call too many, however many begin at the same instant.

Ten thousand callers, many at a time, each on a connection of its own; once with one io-calls
thread, and once with two, of which one gives the lines of both away. A caller counts itself as
on the line from the moment it is let in until before it begins to leave, so what the callers count
is never more than what the server has given away.

ACCEPTABLE  a caller refused with 503 and a reason while all lines are in use, or while the server
            takes fewer calls than it has lines for.
FORBIDDEN   more callers on the line than there are lines; a refusal with a line free and nobody
            else at the door; a line that is not given back.

Perturbed   collections, stop-the-world, switches, thread churn.
Seed        draws how long each one stays, and the disturbances.
"""

from __future__ import annotations

import base64
import os
import random
import socket
import threading
import time
from functools import partial

from ..bout import DEADLINE, Bout, Crew
from ..perturb import disturbed
from ..switchboard import Switchboard, switchboard

WHAT = "never one call too many under racing starts"
LIMIT = 240.0

LINES, DOORS = 7, 25
STARTS = 10_000


class Hall:
    """Who is on the line, by their own account."""

    def __init__(self, bout: Bout) -> None:
        self.most = 0
        self._bout = bout
        self._lock = threading.Lock()
        self._on = 0

    def enter(self, limit: int) -> None:
        with self._lock:
            self._on += 1
            self.most = max(self.most, self._on)
            self._bout.expect(self._on <= limit, f"{self._on} callers on {limit} lines")

    def leave(self) -> None:
        with self._lock:
            self._on -= 1


def run(bout: Bout) -> None:
    for threads in (1, 2):
        bout.setting = f"{threads} io-calls"
        _race(bout, threads)


def _race(bout: Bout, threads: int) -> None:
    starts = bout.many(STARTS)
    disturbances = ("collections", "stops", "switches")
    with (
        switchboard(bout, LINES, threads=threads) as board,
        disturbed(bout, disturbances),
    ):
        hall, callers = Hall(bout), Crew(bout)
        tallies = [[0, 0] for _ in range(DOORS)]
        for door in range(DOORS):
            draws = bout.draws(f"door {door}")
            work = partial(_arrive, bout, board, hall, draws, starts // DOORS, tallies[door])
            callers.start(f"door-{door}", work)

        def over() -> bool:
            board.check()
            bout.count()
            return not any(thread.is_alive() for thread in callers._threads)

        callers.wait(over, "every caller was let in or refused", timeout=LIMIT)
        callers.check()
        board.crew.wait(lambda: board.door.live == 0, "every line is given back")
        _every_line_is_there(bout, board)
        admitted, refused = (sum(tally[kind] for tally in tallies) for kind in (0, 1))
        bout.expect(hall.most == LINES, f"at most {hall.most} of {LINES} lines were in use at once")
        bout.expect(refused > 0, "nobody was refused: the doors were never crowded")
        bout.count(starts=admitted + refused, admitted=admitted, refused=refused)


def _arrive(
    bout: Bout, board: Switchboard, hall: Hall, draws: random.Random, starts: int, tally: list[int]
) -> None:
    for _ in range(starts):
        sock, answer = _knock(bout, board)
        if answer.startswith(b"HTTP/1.1 101 "):
            hall.enter(LINES)
            tally[0] += 1
            time.sleep(draws.choice((0.0, 0.0005, 0.004)))
            hall.leave()
        else:
            bout.expect(answer.startswith(b"HTTP/1.1 503 "), f"an odd answer: {answer[:80]!r}")
            bout.expect(b"lines are in use" in answer, f"no reason: {answer[-80:]!r}")
            tally[1] += 1
        sock.close()


def _knock(bout: Bout, board: Switchboard) -> tuple[socket.socket, bytes]:
    """Ask for a line; the answer, with its body when it is a refusal."""
    sock = socket.create_connection(board.address, DEADLINE)
    sock.sendall(
        b"GET /twilio HTTP/1.1\r\nHost: local\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + _key() + b"\r\n\r\n"
    )
    answer = b""
    refused = False
    while b"\r\n\r\n" not in answer or (refused and not answer.endswith(b"in use\n")):
        piece = sock.recv(4096)
        if not piece:
            break
        answer += piece
        refused = b" 503 " in answer[:13]
    bout.expect(b"\r\n\r\n" in answer, f"the connection ended in the answer: {answer!r}")
    return sock, answer


def _key() -> bytes:
    return base64.b64encode(os.urandom(16))


def _every_line_is_there(bout: Bout, board: Switchboard) -> None:
    """One after another, until all are in use; then one more."""
    kept = []
    for line in range(LINES):
        sock, answer = _knock(bout, board)
        kept.append(sock)
        bout.expect(b" 101 " in answer[:13], f"line {line} of {LINES} was not given back")
    sock, answer = _knock(bout, board)
    bout.expect(b" 503 " in answer[:13], "one call too many was let in")
    for one in (*kept, sock):
        one.close()
