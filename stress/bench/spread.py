"""Many calls speaking at once: how their frames spread over the 20 ms between two of one call.

    python -m stress.bench.spread --calls 300        a minute; writes docs/pacing.md and its picture

Real pacer, real io-calls, real sockets; the callers only listen, since what a caller's own audio
costs is capacity's matter. Each number of sub-ticks is a server process of its own.
"""

from __future__ import annotations

import select
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from threadline.errors import ThreadlineError
from threadline.threads.child_server import ChildServer, cpu_by_thread

from ..bout import Bout
from ..compare.plots import style
from ..compare.record import machine
from ..flags import command_line, count, told
from ..phones import Phone
from .phone import serving, value

DOCS = Path(__file__).parents[2] / "docs"
TICK_MS = 20
DEFAULT = 4  # what a server has unless told otherwise
SUBTICKS = (1, DEFAULT, 10)
THREADS = ("pacer", "io-calls")
DIAL_SECONDS = 3.0
LISTEN_SECONDS = 10.0  # while all are on
HEAD = (
    "instants in 20 ms",
    "fullest ms has",
    "frames in one ms, p99 / most",
    "deadline to socket, ms, p50 / p99.9",
    *(f"{name}, of a core" for name in THREADS),
    "blocked ticks",
    "lost ticks",
)
_BLUE, _INK = "#0b7285", "#1f2933"


@dataclass(frozen=True)
class Spread:
    """One run. `frames`: sent in each ms of the 20; `busiest`: frames in single ms of the clock."""

    subticks: int
    frames: NDArray[np.int64]
    busiest: tuple[int, int]  # the 99th percentile and the most
    late: tuple[float, float]  # ms from deadline to socket: median and 99.9th percentile
    blocked: int  # ticks on which io-calls had not taken the frame before
    gaps: int
    cpu: Mapping[str, float]  # % of a core, by thread

    @property
    def largest(self) -> float:
        """Share of all frames that the fullest ms of the 20 has; 0.05 is the least there is."""
        return float(self.frames.max() / self.frames.sum())


@told
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line("bench spread", __doc__)
    parser.add_argument("--calls", type=count, default=300)
    args = parser.parse_args(argv)
    console = Console(highlight=False)
    runs = []
    for subticks in SUBTICKS:
        run = measure(args.calls, subticks)
        runs.append(run)
        console.print(" | ".join(row(run, args.calls)))
    draw(DOCS / "pacing.png", runs, args.calls)
    write(DOCS / "pacing.md", runs, args.calls)
    return 0


def measure(calls: int, subticks: int) -> Spread:
    """Hold so many calls, each of which is spoken to."""
    flags = ["--max-calls", str(calls), "--set", f"pacer.subticks={subticks}"]
    flags += ["--set", "server.silent_peer_seconds=120"]
    with tempfile.NamedTemporaryFile("rb") as told:
        with serving("stress.bench.spread_server", told.name, *flags) as (server, _):
            host, _, port = server.address.rpartition(":")
            begin, end, cpu = _listen(server, (host, int(port)), calls)
            page = server.metrics()
        times = np.frombuffer(told.read(), np.int64).reshape(-1, 2)
    whole = times[(times[:, 0] >= begin) & (times[:, 0] < end)]
    if len(whole) < calls * 50 * LISTEN_SECONDS * 0.98:
        raise ThreadlineError(
            f"Only {len(whole)} frames in {LISTEN_SECONDS:g} s: this machine does not carry "
            f"{calls} calls, take fewer with --calls."
        )
    due, sent = whole.T
    blocked, gaps = (
        int(value(page, f"threadline_pacer_{name}_total")) for name in ("blocked_ticks", "gaps")
    )
    return spread(subticks, due, sent, (blocked, gaps), cpu)


def spread(
    subticks: int,
    due: NDArray[np.int64],
    sent: NDArray[np.int64],
    lost: tuple[int, int],
    cpu: Mapping[str, float],
) -> Spread:
    """Figures of one run. `due` and `sent` in monotonic ns, one of each a frame; `lost`: ticks that
    were blocked, and that were lost."""
    first = due.min()  # on the clock's grid
    place = (sent - first) % (TICK_MS * 1_000_000) // 1_000_000
    each = np.bincount((sent - first) // 1_000_000)
    late = (sent - due) / 1e6
    return Spread(
        subticks,
        np.bincount(place, minlength=TICK_MS),
        (int(np.percentile(each, 99)), int(each.max())),
        (float(np.median(late)), float(np.percentile(late, 99.9))),
        *lost,
        cpu,
    )


def _listen(
    server: ChildServer, address: tuple[str, int], calls: int
) -> tuple[int, int, dict[str, float]]:
    """Dial, read and forget. From when to when (monotonic ns) all calls were spoken to, and what
    the threads took meanwhile."""
    bout, poll = Bout("spread", 1, 1.0), select.epoll()
    socks: dict[int, socket.socket] = {}
    with ExitStack() as stack:
        began = time.monotonic()
        for number in range(calls):
            phone = Phone(bout, number, address, full=False)
            stack.callback(phone.close)
            if phone.upgrade() != 101:
                raise ThreadlineError("A call was refused: the machine is overloaded.")
            phone.start()
            socks[phone.sock.fileno()] = phone.sock
            poll.register(phone.sock, select.EPOLLIN)
            _read(poll, socks, began + (number + 1) * DIAL_SECONDS / calls)
        _read(poll, socks, time.monotonic() + 1.5)  # the prebuffer, and the first clause
        begin, before = time.monotonic_ns(), cpu_by_thread(server.pid)
        _read(poll, socks, time.monotonic() + LISTEN_SECONDS)
        end, after = time.monotonic_ns(), cpu_by_thread(server.pid)
        return begin, end, {
            name: 100 * (after[name] - before[name]) / LISTEN_SECONDS for name in THREADS
        }  # fmt: skip


def _read(poll: select.epoll, socks: dict[int, socket.socket], until: float) -> None:
    while (left := until - time.monotonic()) > 0:
        for fd, _ in poll.poll(left):
            socks[fd].recv(65_536)


def row(run: Spread, calls: int) -> list[str]:
    """Of the table."""
    even = calls / TICK_MS
    return [
        str(run.subticks),
        f"{100 * run.largest:.1f} %",
        f"{run.busiest[0]} / {run.busiest[1]} (even: {even:g})",
        f"{run.late[0]:.2f} / {run.late[1]:.2f}",
        *(f"{run.cpu[name]:.0f} %" for name in THREADS),
        str(run.blocked),
        str(run.gaps),
    ]


def draw(path: Path, runs: Sequence[Spread], calls: int) -> None:
    """A panel for each run, frames by ms."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(style()):
        figure = Figure(figsize=(11, 3.0), layout="constrained", facecolor="white")
        panels = figure.subplots(1, len(runs), sharey=True)
        for axes, run in zip(panels, runs, strict=True):
            share = 100 * run.frames / run.frames.sum()
            axes.bar(np.arange(TICK_MS) + 0.5, share, width=0.85, color=_BLUE)
            axes.axhline(100 / TICK_MS, color=_INK, lw=0.8, ls="--")
            default = ", the default" if run.subticks == DEFAULT else ""
            instants = "instant" if run.subticks == 1 else "instants"
            axes.set_title(f"{run.subticks} {instants}{default}: at most {share.max():.0f} %")
            axes.set_xlim(0, TICK_MS)
            axes.set_xticks(range(0, TICK_MS + 1, 5))
            axes.set_xlabel("ms after the clock's tick")
            axes.grid(axis="y", color="#e4e7eb")
            axes.set_axisbelow(True)
        panels[0].set_ylabel(f"% of the frames of {calls} calls")
        panels[0].text(TICK_MS - 0.3, 100 / TICK_MS, "even", ha="right", va="bottom", fontsize=8)
        figure.savefig(path, dpi=110)


def write(path: Path, runs: Sequence[Spread], calls: int) -> None:
    """The page."""
    about = machine()
    text = [
        f"# How the frames of {calls} calls spread",
        "",
        "Written by `./justw bench spread`. Every call is sent a frame each 20 ms. The pacer does",
        "not release those of all calls at one instant: calls are spread over `pacer.subticks` of",
        "them, by their slots. Below, all calls are spoken to for ten seconds, through the real",
        "clock, rings, sockets and kernel; a frame counts in the ms in which its socket was",
        "written, after the clock's own tick. The callers only listen; what their audio costs is",
        "in [capacity.md](capacity.md). Server and callers share the machine:",
        f"{about['processor']}, Linux {about['kernel']}, {about.get('cores', 'two')} cores.",
        "",
        "![Frames sent by ms of the 20](pacing.png)",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + " ---: |" * len(HEAD),
        *("| " + " | ".join(row(run, calls)) + " |" for run in runs),
        "",
        "With frames perfectly even, each ms would have 5 %. The frames of one instant follow each",
        "other as fast as one thread writes sockets, which spreads them further; the last of them",
        "waits for the others, which is the lateness above. More instants shorten that wait, and",
        "cost the wake-ups of two threads: with 200 calls on a single core it was the response",
        "that paid, so the default is 4; with a core to spare, set `pacer.subticks=10`.",
        "",
    ]
    path.write_text("\n".join(text), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
