"""What it costs to divide the callers' sockets and the VAD among several threads, and what it buys.

    python -m stress.bench.shards                100 seconds; writes docs/shards.md
    python -m stress.bench.shards --threads 4

The same calls go through the whole cloud cascade (vendors.py) with one `io-calls` and one `vad`
thread and with several of each, in turn, and what each thread spends is taken from /proc. Two
cores cannot show several threads at work at once beside callers and vendors, so it is shown by CPU
time: a thread has at most one core, so the busiest one bounds the calls of a process on a machine
that has cores enough. Dividing pays when the divided threads have even shares, when all of them
together cost little more than the one did, and until a thread that is not divided is the busiest.

Exit status 0 when every call was answered and no divided thread had over 30 % more or less to do
than an even share.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table

from threadline.audio import mulaw, wav
from threadline.errors import ThreadlineError
from threadline.threads.child_server import ChildServer, child_server, cpu_by_thread
from threadline.threads.shards import numbered

from ..capacity.run import ANSWER, FLAGS, HEARD, LONGEST_SECONDS
from ..compare.record import Lateness, machine
from ..flags import command_line, count, told
from .cascade import without_pauses
from .phone import spoken, value, voice
from .vendors import CASCADE, vendors

DOCS = Path(__file__).parents[2] / "docs"
LINE = "What are your opening hours?"
DIVIDED = ("io-calls", "vad")
SKEW = 0.3  # of an even share, up or down
SMALL = 0.001  # % of a core a call: not shown


@dataclass(frozen=True, slots=True)
class Run:
    """One load on one server."""

    threads: int
    cpu: Mapping[str, float] = field(default_factory=dict)  # % of a core a call, by thread
    frame_p50: float = 0.0  # ms from a frame's deadline to its socket
    frame_p999: float = 0.0
    control_p999: float = 0.0  # of a bare timer beside it
    lost: int = 0  # calls dropped, turns unanswered, underruns at the phone


@dataclass(frozen=True, slots=True)
class Side:
    """All runs with so many threads."""

    threads: int
    runs: tuple[Run, ...]

    def cpu(self, thread: str) -> float:
        """% of a core a call, on average."""
        return mean(run.cpu.get(thread, 0.0) for run in self.runs)

    def shares(self, stage: str) -> list[float]:
        """Of each thread of a divided stage."""
        return [self.cpu(name) for name in numbered(stage, self.threads)]

    def undivided(self) -> dict[str, float]:
        """The other threads."""
        ours = {name for stage in DIVIDED for name in numbered(stage, self.threads)}
        names = {name for run in self.runs for name in run.cpu} - ours
        return {name: self.cpu(name) for name in names}

    def busiest(self) -> tuple[str, float]:
        """The thread whose core is full first."""
        threads = {name: self.cpu(name) for run in self.runs for name in run.cpu}
        return max(threads.items(), key=lambda item: item[1])

    def even(self) -> bool:
        """Each thread of a divided stage has about as much to do as the others."""
        return all(
            abs(share / mean(shares) - 1) <= SKEW
            for shares in map(self.shares, DIVIDED)
            for share in shares
        )


@told
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line("bench shards", __doc__)
    parser.add_argument("--calls", type=count, default=60)
    parser.add_argument("--lines", type=count, default=1, help="what each caller says, in lines")
    parser.add_argument("--threads", type=count, default=2, help="of io-calls and of vad")
    parser.add_argument("--rounds", type=count, default=2)
    args = parser.parse_args(argv)
    console = Console(highlight=False)
    runs: dict[int, list[Run]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        (line,) = without_pauses([spoken(voice(), LINE, "line")])
        wav.write_mono(Path(folder) / "line.wav", mulaw.decode(line.codes), mulaw.RATE)
        for threads in (1, args.threads) * args.rounds:
            one = _run(Path(folder), threads, args.calls, args.lines)
            runs[threads].append(one)
            console.print(f"{threads} each: {sum(one.cpu.values()):.3f} % of a core a call")
    sides = [Side(threads, tuple(found)) for threads, found in runs.items()]
    console.print(table(sides))
    for sentence in sentences(sides[0], sides[-1]):
        console.print(sentence)
    write(DOCS / "shards.md", sides, args.calls)
    lost = sum(run.lost for side in sides for run in side.runs)
    if lost or not sides[-1].even():
        console.print(f"[red]lost: {lost}; divided evenly: {sides[-1].even()}[/]")
        return 1
    return 0


def _run(folder: Path, threads: int, calls: int, lines: int) -> Run:
    settings = (f"server.io_threads={threads}", f"vad.threads={threads}", "server.drain_seconds=1")
    with vendors(HEARD, ANSWER) as environ:
        command = [
            *("env", *(f"{name}={text}" for name, text in environ.items())),
            *(sys.executable, "-m", "threadline", "serve", "--port", "0"),
            *("--max-calls", str(max(calls, threads)), *CASCADE, *FLAGS),
            *(part for one in settings for part in ("--set", one)),
        ]
        with child_server(command, folder / "server.log") as server:
            return _measure(folder, server, threads, calls, lines)


def _measure(folder: Path, server: ChildServer, threads: int, calls: int, lines: int) -> Run:
    clip = str(folder / "line.wav")
    command = [sys.executable, "-m", "stress.capacity.load", f"ws://{server.address}/twilio"]
    command += [str(calls), str(lines), "0", clip, clip]
    with subprocess.Popen(
        [sys.executable, "-m", "stress.compare.probes", "control"], stdout=subprocess.PIPE
    ) as control:
        try:
            before = cpu_by_thread(server.pid)
            done = subprocess.run(
                command, stdout=subprocess.PIPE, timeout=LONGEST_SECONDS, check=False
            )
            after, page = cpu_by_thread(server.pid), server.metrics()
        finally:
            control.terminate()
        bare = json.loads(control.communicate(timeout=10)[0])
    if done.returncode:
        raise ThreadlineError("The callers failed: what they said stands above.")
    told = json.loads(done.stdout)
    frames = Lateness.of_page(page, "threadline_frame_lateness_seconds")
    return Run(
        threads=threads,
        cpu={
            name: 100 * (spent - before.get(name, 0.0)) / told["seconds"]
            for name, spent in after.items()
        },
        frame_p50=frames.quantile(0.5),
        frame_p999=frames.quantile(0.999),
        control_p999=Lateness(tuple(bare["bounds"]), tuple(bare["counts"])).quantile(0.999),
        lost=int(told["dropped"] + told["unanswered"] + told["underruns"])
        + int(value(page, "threadline_calls_opened_total") != calls),
    )


def rows(sides: Sequence[Side]) -> list[list[str]]:
    """What each thread spends."""
    made = [
        [stage, *(" + ".join(f"{one:.3f}" for one in side.shares(stage)) for side in sides)]
        for stage in DIVIDED
    ]
    others = {name: spent for side in sides for name, spent in side.undivided().items()}
    for name in sorted(others, key=lambda name: -others[name]):
        if others[name] >= SMALL:
            made.append([name, *(f"{side.cpu(name):.3f}" for side in sides)])
    made.append(["all", *(f"{mean(sum(r.cpu.values()) for r in s.runs):.3f}" for s in sides)])
    for what, of in (
        ("frame lateness p50, ms", "frame_p50"),
        ("p99.9", "frame_p999"),
        ("of a bare timer beside it", "control_p999"),
    ):
        made.append([what, *(f"{mean(getattr(run, of) for run in s.runs):.2f}" for s in sides)])
    return made


def table(sides: Sequence[Side]) -> Table:
    """For the terminal."""
    made = Table("% of a core a call", box=None, pad_edge=False)
    for side in sides:
        made.add_column(f"{side.threads} each", justify="right")
    for row in rows(sides):
        made.add_row(*row)
    return made


def write(path: Path, sides: Sequence[Side], calls: int) -> None:
    """For the docs."""
    about = machine()
    text = [
        "# What several threads for sockets and VAD cost, and buy",
        "",
        f"Written by `./justw bench shards`. {calls} calls through the whole cascade, with one",
        f"`io-calls` and one `vad` thread and with {sides[-1].threads} of each, in turn. Callers,",
        f"vendors and server share {os.cpu_count()} cores; what is shown is CPU time. A thread has",
        "at most one core, so the busiest one bounds the calls of a process on a machine that has",
        "cores enough for all. A call costs less the more there are, so the bounds are low.",
        f"{about['processor']}, Linux {about['kernel']}.",
        "",
        "| % of a core a call | " + " | ".join(f"{side.threads} each" for side in sides) + " |",
        "| --- |" + " ---: |" * len(sides),
        *("| " + " | ".join(row) + " |" for row in rows(sides)),
        "",
        *(f"- {sentence}" for sentence in sentences(sides[0], sides[-1])),
    ]
    path.write_text("\n".join(text) + "\n", "utf-8")


def sentences(one: Side, several: Side) -> list[str]:
    """What it comes to."""
    told = []
    for stage in DIVIDED:
        before, after = sum(one.shares(stage)), several.shares(stage)
        told.append(
            f"{stage}: the busiest of {several.threads} has {100 * max(after) / sum(after):.0f} % "
            f"of the work; all together cost {100 * (sum(after) / before - 1):+.0f} %"
        )
    for side in (one, several):
        name, spent = side.busiest()
        told.append(
            f"{side.threads} each: the busiest thread is {name}; its core is full at "
            f"{100 / spent:.0f} calls"
        )
    name, spent = max(several.undivided().items(), key=lambda item: item[1])
    told.append(f"next bottleneck: {name}, which is not divided: full at {100 / spent:.0f} calls")
    return told


if __name__ == "__main__":
    sys.exit(main())
