"""Races on real threads, one after another, each in a process of its own.

    ./justw stress                      all of them, a few minutes
    ./justw stress --hours 8            again and again with new seeds, and larger
    ./justw stress --seed 7 --only NAME  the same draws again

A race that fails, crashes or hangs is reported with its seed, the command that runs it again,
and what it said; the others still run. Exit status 1 when one did not hold. A seed repeats every
draw, but no processor runs two threads twice in the same way: repeat a rare one with `--hours`.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import pkgutil
import random
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .bout import Bout, tell
from .flags import amount, command_line

RACES = "stress.races"
LONG = 4.0  # the size of a bout in a long run
GRACE = 20.0  # s after a race's own limit, when it could not even dump its stacks
_TAIL = 12_000  # characters of what a failed race said


class Race(Protocol):
    """A module of the package."""

    WHAT: str
    LIMIT: float

    def run(self, bout: Bout) -> None:
        """Raise when the invariant is broken."""


@dataclass
class Outcome:
    """How one bout went, or how it is going."""

    name: str
    what: str
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    state: str = "waits"
    failure: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line("stress", __doc__)
    parser.add_argument("--hours", type=amount, default=0.0, help="keep going for so long")
    parser.add_argument("--seed", type=int, help="of all draws; a new one each time otherwise")
    parser.add_argument("--only", metavar="NAME", help="one race")
    parser.add_argument("--list", action="store_true", help="the races and their invariants")
    parser.add_argument("--races", metavar="PACKAGE", default=RACES, help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        return _child(*args.child)
    console = Console()
    races = _find(args.races)
    if args.only:
        if args.only not in races:
            parser.error(f"there is no race {args.only!r}: {', '.join(races)}")
        races = {args.only: races[args.only]}
    if args.list:
        for name, race in races.items():
            console.print(f"[b]{name:14}[/] {race.WHAT}", highlight=False)
        return 0
    seed = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
    return _all(console, args.races, races, seed, args.hours)


def _find(package: str) -> dict[str, Race]:
    folder = importlib.import_module(package).__path__
    names = sorted(module.name for module in pkgutil.iter_modules(folder))
    return {name: cast("Race", importlib.import_module(f"{package}.{name}")) for name in names}


def _all(console: Console, package: str, races: dict[str, Race], seed: int, hours: float) -> int:
    build = "free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else "GIL"
    console.print(
        f"seed {seed}, {build} build, {os.process_cpu_count()} processors", highlight=False
    )
    end, failed = time.monotonic() + 3600 * hours, 0
    while True:
        size = LONG if hours else 1.0
        outcomes = [Outcome(name, race.WHAT, seed) for name, race in races.items()]
        with Live(console=console, refresh_per_second=2, transient=not console.is_terminal) as live:

            def show(outcomes: list[Outcome] = outcomes, live: Live = live) -> None:
                live.update(_table(outcomes))

            for outcome in outcomes:
                _bout(package, races[outcome.name], outcome, size, show)
                if not console.is_terminal:
                    console.print(_line(outcome), highlight=False, soft_wrap=True)
        if not console.is_terminal:
            console.print(_table(outcomes))
        failed += _report(console, package, outcomes)
        if time.monotonic() >= end:
            return 1 if failed else 0
        seed += 1


def _bout(
    package: str, race: Race, outcome: Outcome, size: float, show: Callable[[], None]
) -> None:
    """One race in a process of its own, until it ends or must be ended."""
    limit = race.LIMIT * max(1.0, size)
    command = [sys.executable, "-X", "faulthandler", "-m", "stress.run"]
    command += ["--child", f"{package}.{outcome.name}", str(outcome.seed), str(size)]
    began, news = time.monotonic(), b""
    outcome.state = "runs"
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, start_new_session=True
        )
        assert process.stdout is not None, "a pipe was asked for"
        os.set_blocking(process.stdout.fileno(), False)
        try:
            while (returned := process.poll()) is None:
                news = _hear(news + (process.stdout.read() or b""), outcome)
                outcome.seconds = time.monotonic() - began
                show()
                if outcome.seconds > limit + GRACE:
                    break
                time.sleep(0.1)
            _hear(news + (process.stdout.read() or b""), outcome)
        finally:
            _end_all(process)
        said.seek(0)
        text = said.read().decode("utf-8", "replace")
    outcome.seconds = time.monotonic() - began
    outcome.state = "ok" if returned == 0 else "FAILED"
    if returned != 0:
        hung = returned is None or "Timeout (" in text
        how = f"hung: it was given {limit:g} s" if hung else f"ended with status {returned}"
        outcome.failure = f"{how}\n{text[-_TAIL:]}"
    show()


def _end_all(process: subprocess.Popen[bytes]) -> None:
    """Its own processes, too: servers, recognisers, whoever stops and continues it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _hear(news: bytes, outcome: Outcome) -> bytes:
    *lines, rest = news.split(b"\n")
    for line in lines:
        try:
            told: dict[str, Any] = json.loads(line)
        except ValueError:
            continue  # something else that printed
        outcome.counts = Counter(told["counts"])
    return rest


def _child(module: str, seed: str, size: str) -> int:
    """In the race's own process."""
    race = cast("Race", importlib.import_module(module))
    faulthandler.dump_traceback_later(race.LIMIT * max(1.0, float(size)), exit=True)
    bout = Bout(module.rpartition(".")[2], int(seed), float(size))
    status = 0
    try:
        race.run(bout)
    except BaseException:  # noqa: BLE001  # whatever it is, the runner shows it with the seed
        traceback.print_exc()
        if bout.setting:
            print(f"with {bout.setting}", file=sys.stderr)
        status = 1
    tell(counts=dict(bout.counts))
    sys.stderr.flush()
    os._exit(status)  # a thread that is stuck must not keep a failed race from being told


# -- what is shown -----------------------------------------------------------------------------


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table("race", "what", "counted", "s", "", box=None, pad_edge=False)
    for one in outcomes:
        style = {"ok": "green", "FAILED": "red", "runs": "yellow"}.get(one.state, "dim")
        table.add_row(
            one.name, one.what, _counted(one), f"{one.seconds:.0f}", Text(one.state, style)
        )
    total: Counter[str] = Counter()
    for one in outcomes:
        total.update(one.counts)
    seconds = sum(one.seconds for one in outcomes)
    interrupted = f"{total['interruptions']:,} interruptions, {total['frames']:,} frames"
    table.add_row("all", "", interrupted, f"{seconds:.0f}", "")
    return table


def _counted(outcome: Outcome) -> str:
    return ", ".join(
        f"{count:,} {name.replace('_', ' ')}" for name, count in outcome.counts.items()
    )


def _line(outcome: Outcome) -> str:
    return f"{outcome.state:6} {outcome.name:14} {outcome.seconds:5.1f} s  {_counted(outcome)}"


def _report(console: Console, package: str, outcomes: Sequence[Outcome]) -> int:
    failed = [one for one in outcomes if one.failure]
    for one in failed:
        again = f"./justw stress --seed {one.seed} --only {one.name}"
        again += "" if package == RACES else f" --races {package}"
        console.print(f"\n[red]{one.name} (seed {one.seed})[/] {one.failure}", soft_wrap=True)
        console.print(f"again: [b]{again}[/]", highlight=False, soft_wrap=True)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
