"""``just profile``: what a call costs, by thread and by function.

    just profile                             50 calls in the cloud cascade, every thread
    just profile --thread vad --calls 100    one thread, and the lines of its functions
    just profile --top 40 --seconds 60

Calls in real time, as `just capacity` places them; the vendors are played by local servers. First
it is measured what each thread spends, then every thread's stack is taken after each few
milliseconds of its own CPU time (profile_server.py). That slows the threads with deep stacks, so it
only says where the time goes, not how much it is. The profilers of the standard library follow
every call on all threads, and change what they measure.

Costs are in us for each 20 ms of a call: 80 of them are 0.4 % of a core. `own` is time in the
function itself, native code and system calls that it makes included; `with` is with all it calls.
"""

from __future__ import annotations

import argparse
import json
import linecache
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from threadline.audio import mulaw, wav
from threadline.errors import ConfigError
from threadline.threads.child_server import ChildServer, child_server

from .bench.phone import value, voice
from .bench.vendors import CASCADE, vendors
from .capacity import clips
from .capacity.run import ANSWER, AS_IT_IS, HEARD
from .flags import amount, command_line, count, told
from .until import until

FRAMES_A_SECOND = 50
SETTLE_SECONDS = 10.0  # all calls begin in 8
WRITE_SECONDS = 60.0  # for the stacks of all threads
_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$')
_HEAD = "Stack (most recent call first):"
_BENEATH = re.compile(r"/lib/python3\.\d+t?/threading\.py$|/threads/supervisor\.py$")

Place = tuple[str, str]
"""File and function."""


@dataclass
class Profile:
    """One thread's samples."""

    thread: str
    cpu: float  # seconds, exact
    samples: int = 0
    own: Counter[Place] = field(default_factory=Counter)
    within: Counter[Place] = field(default_factory=Counter)
    lines: Counter[tuple[Place, int]] = field(default_factory=Counter)

    @classmethod
    def read(cls, thread: str, cpu: float, text: str) -> Profile:
        """From what faulthandler wrote: stacks, most recent call first."""
        made = cls(thread, cpu)
        for stack in text.split(_HEAD)[1:]:
            found = [match.groups() for line in stack.splitlines() if (match := _FRAME.match(line))]
            if not found:
                continue
            made.samples += 1
            file, line, function = found[0]
            made.own[file, function] += 1
            made.lines[(file, function), int(line)] += 1
            made.within.update({(file, function) for file, _, function in found})
        return made

    def us(self, samples: int, frames: float) -> float:
        """What so many samples stand for, in us of each frame."""
        return 1e6 * self.cpu * samples / max(1, self.samples) / max(1.0, frames)


@told
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line("just profile", __doc__)
    add = parser.add_argument
    add("--calls", type=count, default=50, help="at once (50)")
    add(
        "--seconds",
        type=amount,
        default=40.0,
        help="for so long, twice: measured, then sampled (40)",
    )
    add("--thread", action="append", default=[], metavar="NAME", help="only this one; again")
    add("--top", type=count, default=15, metavar="N", help="functions of each thread (15)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the server")
    add("--keep", type=Path, metavar="FOLDER", help="leave the stacks there")
    args = parser.parse_args(argv)
    console = Console(highlight=False)
    console.width = max(console.width, 120)  # a narrow table is cut, and its figures go first
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        told = _run(folder, args)
        show(console, folder, told, args.thread, args.top)
    return 0


@dataclass(frozen=True)
class Told:
    """How long, by how many, and what was done in that time."""

    calls: int
    seconds: float
    cpu: dict[str, float]
    done: dict[str, float]  # what the server counted

    @property
    def frames(self) -> float:
        """20 ms of a call, so many times."""
        return self.calls * self.seconds * FRAMES_A_SECOND


COUNTED = {
    "frames out": "threadline_io_frames_total",
    "VAD runs": "threadline_vad_runs_total",
    "turns": "threadline_reply_turns_total",
}


def _run(folder: Path, args: argparse.Namespace) -> Told:
    """Hold the calls, sample them."""
    line = folder / "line.wav"
    codes = clips.line(voice()).codes
    wav.write_mono(line, mulaw.decode(codes), mulaw.RATE)
    flags = [part for one in args.set for part in ("--set", one)]
    with vendors(HEARD, ANSWER) as environ:
        command = [
            *(*AS_IT_IS, *(f"{name}={text}" for name, text in environ.items())),
            *(sys.executable, "-m", "stress.profile_server", str(folder), "serve", *CASCADE),
            *("--port", "0", "--max-calls", str(args.calls + 4), "--log-format", "json"),
            *("--set", "endpoint.mode=silence", "--set", "server.drain_seconds=0.1", *flags),
        ]
        with child_server(command, folder / "server.log") as server:
            url, lines = f"ws://{server.address}/twilio", 3 + int(args.seconds / 4)
            load = [sys.executable, "-m", "stress.capacity.load", url, str(args.calls), str(lines)]
            callers = subprocess.Popen(
                [*load, "0", str(line), str(line)], stdout=subprocess.DEVNULL
            )
            try:
                return _sample(server, folder, args.calls, args.seconds)
            finally:
                callers.terminate()
                callers.wait()


def _sample(server: ChildServer, folder: Path, calls: int, seconds: float) -> Told:
    until(
        lambda: value(server.metrics(), "threadline_calls") >= calls,
        f"all {calls} calls begin (try fewer of them)",
        6 * SETTLE_SECONDS,
    )
    time.sleep(2.0)  # a second call's modules, a pool's connections
    (folder / "told.json").unlink(missing_ok=True)  # of an earlier run
    before = _counts(server.metrics())
    os.kill(server.pid, signal.SIGUSR1)
    time.sleep(seconds)
    os.kill(server.pid, signal.SIGUSR1)  # measured; now the samples
    after = _counts(server.metrics())
    time.sleep(seconds)
    os.kill(server.pid, signal.SIGUSR1)
    file = folder / "told.json"
    until(
        file.exists, f"the server writes its samples (see {folder / 'server.log'})", WRITE_SECONDS
    )
    told = json.loads(file.read_text("utf-8"))
    done = {name: after[name] - before[name] for name in COUNTED}
    return Told(calls, told["seconds"], told["cpu"], done)


def _counts(page: str) -> dict[str, float]:
    found = dict.fromkeys(COUNTED, 0.0)
    for line in page.splitlines():
        metric, _, rest = line.partition(" ")
        for name, wanted in COUNTED.items():
            if metric.partition("{")[0] == wanted:
                found[name] += float(rest.split()[0])
    return found


# -- what is shown ---------------------------------------------------------------------------------


def show(
    console: Console, folder: Path, told: Told, wanted: Sequence[str], top: int
) -> list[Profile]:
    """Tables, the dearest thread first; with `wanted`, only these, and their lines."""
    names = sorted(told.cpu, key=lambda name: -told.cpu[name])
    unknown = set(wanted) - set(names)
    if unknown:
        raise ConfigError(
            f"There is no thread {', '.join(sorted(unknown))}; there are {', '.join(names)}."
        )
    done = ", ".join(f"{count:,.0f} {name}" for name, count in told.done.items())
    total = sum(told.cpu.values())
    console.print(
        f"{told.calls} calls for {told.seconds:.0f} s: {done}; "
        f"{100 * total / told.seconds / told.calls:.3f} % of a core a call"
    )
    console.print(threads(told))
    shown = []
    for name in names:
        text = (folder / f"{name}.stacks").read_text("utf-8", "replace")
        profile = Profile.read(name, told.cpu[name], text)
        if name in wanted or (not wanted and profile.samples >= top):
            console.print(functions(profile, told.frames, top))
            if wanted:
                console.print(hot_lines(profile, told.frames, top))
            shown.append(profile)
    return shown


def threads(told: Told) -> Table:
    """What each thread spends."""
    table = Table("thread", box=SIMPLE_HEAD, pad_edge=False)
    for title in ("% of a core a call", "us a frame", "ms a turn"):
        table.add_column(title, justify="right")
    turns = told.done.get("turns", 0.0)
    for name, cpu in sorted(told.cpu.items(), key=lambda item: -item[1]):
        share = 100 * cpu / told.seconds / told.calls
        a_turn = f"{1e3 * cpu / turns:.2f}" if turns else ""
        table.add_row(name, f"{share:.4f}", f"{1e6 * cpu / told.frames:.2f}", a_turn)
    return table


def functions(profile: Profile, frames: float, top: int) -> Table:
    """The dearest functions, by their own time and by all of it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.title = f"{profile.thread}: {profile.cpu:.2f} s of CPU, {profile.samples} samples"
    for title in ("own us", "with us"):
        table.add_column(title, justify="right", min_width=8)
        table.add_column("function", no_wrap=True)
    # What every stack begins with says nothing.
    within = {
        place: count for place, count in profile.within.items() if not _BENEATH.search(place[0])
    }
    rows = zip(_dearest(profile.own, top), _dearest(within, top), strict=False)
    for (own, samples), (whole, with_all) in rows:
        table.add_row(
            f"{profile.us(samples, frames):.2f}",
            escape(short(own)),
            f"{profile.us(with_all, frames):.2f}",
            escape(short(whole)),
        )
    return table


def hot_lines(profile: Profile, frames: float, top: int) -> Table:
    """The dearest lines."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("own us", justify="right", min_width=8)
    table.add_column("line", no_wrap=True)
    table.add_column("", no_wrap=True)
    for (place, line), samples in profile.lines.most_common(top):
        text = linecache.getline(place[0], line).strip()
        table.add_row(f"{profile.us(samples, frames):.2f}", f"{short(place)}:{line}", escape(text))
    return table


def _dearest[Key](counts: Counter[Key] | dict[Key, int], top: int) -> Iterable[tuple[Key, int]]:
    return sorted(counts.items(), key=lambda item: -item[1])[:top]


def short(place: Place) -> str:
    """A function, and the last two parts of its file's name."""
    file, function = place
    return f"{function}  {'/'.join(Path(file).parts[-2:])}"


if __name__ == "__main__":
    sys.exit(main())
