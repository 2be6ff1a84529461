"""What the server holds is bounded: memory, descriptors, threads, what a deaf peer can pile up.

The whole server in a process of its own (whole.py) takes a block of calls again and again; after
each, when nobody is on the line, it is measured from outside. Then callers who read nothing.

ACCEPTABLE  growth in the first blocks: caches, stacks, arenas of the allocator.
FORBIDDEN   more descriptors or threads after a block than after the first; resident memory that
            goes on growing; a deaf caller who is still on the line after the bound on what may be
            unsent for him.

Perturbed   thread churn, collections, late imports within the server.
Seed        draws the disturbances, and when each caller interrupts.
"""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

from threadline.threads.child_server import ready

from ..bout import DEADLINE, Bout
from ..whole import Caller, apart
from .strangers import converse

WHAT = "memory, descriptors and threads stay bounded"
LIMIT = 300.0

CALLS, HUMS, BLOCKS, WARM = 24, 2, 9, 3
GROWTH = 5_000_000  # bytes over the blocks after the warm ones: 35 KB a call
DEAF = 1


def run(bout: Bout) -> None:
    chosen = bout.rng.sample(("collections", "imports"), bout.rng.randrange(3))
    bout.setting = ", ".join(chosen) or "nothing else"
    # A cache that is soon full, and a peer's bound that answers of a second can reach.
    flags = ("--set", "tts.cache_bytes=100000", "--set", "server.max_write_bytes=8192")
    with apart(bout.seed, chosen, CALLS, *flags) as (server, _):
        host, _, port = server.address.rpartition(":")
        address = host, int(port)
        held: list[tuple[int, int, int]] = []
        for _ in range(max(WARM + 2, bout.many(BLOCKS))):
            converse(bout, address, CALLS, HUMS)
            bout.until(lambda: _live(server.address) == 0, "every call has ended")
            time.sleep(1.1)  # the watch thread collects garbage once nobody is on the line
            held.append(_held(server.pid))
            bout.count(blocks=1)
        resident, fds, threads = zip(*held, strict=True)
        bout.expect(max(fds) == fds[0], f"descriptors after each block: {fds}")
        bout.expect(max(threads) == threads[0], f"threads after each block: {threads}")
        growth = max(resident[WARM:]) - resident[WARM - 1]
        megabytes = [round(one / 1e6, 1) for one in resident]
        bout.expect(growth < GROWTH, f"MB resident after each block: {megabytes}")
        bout.count(kb_grown=max(0, growth) // 1000, mb_resident=resident[-1] // 1_000_000)
        for number in range(DEAF):
            _be_deaf(bout, address, number, server.address)
        bout.count(deaf=DEAF)


def _live(address: str) -> object:
    return ready(address)[1].get("calls")


def _held(pid: int) -> tuple[int, int, int]:
    """Resident bytes; descriptors but for sockets of who asks just now; threads."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    fds = sum(
        not os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:")
        for fd in os.listdir(f"/proc/{pid}/fd")
        if os.path.lexists(f"/proc/{pid}/fd/{fd}")
    )
    threads = len(os.listdir(f"/proc/{pid}/task"))
    return pages * os.sysconf("SC_PAGE_SIZE"), fds, threads


def _be_deaf(bout: Bout, address: tuple[str, int], number: int, url: str) -> None:
    """Ask for more and more, and never read: the server must hang up."""
    caller = Caller(bout, number, address, full=False)
    caller.sock.setsockopt(1, 8, 4096)  # SOL_SOCKET, SO_RCVBUF: or the kernel would read for us
    bout.expect(caller.upgrade() == 101, "a deaf caller was refused")
    caller.start()
    poll = select.poll()
    poll.register(caller.sock, 0)  # errors and hang-ups only
    end = time.monotonic() + DEADLINE
    while not poll.poll(0) and not caller.gone and _live(url) != 0:
        bout.expect(time.monotonic() < end, f"a deaf caller is still on after {DEADLINE:g} s")
        caller.hum()
        time.sleep(1.0)  # an answer, to its end
    caller.close()
    bout.until(lambda: _live(url) == 0, "the deaf caller's slot is free")
