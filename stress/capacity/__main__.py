"""``just capacity``: how many calls one core carries through the whole cascade, on both builds.

    just capacity                        10 minutes on two cores; writes docs/capacity.md
    just capacity --calls 1,100,200      only these numbers
    just capacity --local                without vendors: Whisper, Piper and a scripted brain
    just capacity --page                 only write the page anew, from the runs of the last time
    JUSTW_PYTHON=optimised ./justw capacity      on interpreters that are built as the image's is

The number of calls rises until the service level breaks: response p95 within 100 ms of a single
call's, p99.9 of frame lateness within 5 ms (or what a bare timer had beside it), no underrun
behind the phone's 40 ms buffer, nothing dropped, 95 % of the interruptions silent in 150 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console

from threadline.audio import mulaw, wav
from threadline.errors import ConfigError
from threadline.wire.script import Clip

from ..bench.phone import voice
from ..compare.record import BUILDS, NAMES, Build, machine
from ..flags import command_line, count, told
from . import clips, local_page, page
from .run import ATTEMPTS, Bench, Result

ROOT = Path(__file__).parents[2]
STEPS = "1,50,100,150,200,250,300,350,400"
LOCAL_STEPS = "1,2,4,6,8,12,16,20"


@told
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line("just capacity", __doc__)
    add = parser.add_argument
    add("--gil-python", metavar="FILE", help="the GIL build's python; the recipe fills this in")
    steps = f"rising ({STEPS}; {LOCAL_STEPS} with --local)"
    add("--calls", type=_numbers, metavar="N,N", help=steps)
    add("--local", action="store_true", help="everything local, on this build only")
    add("--lines", type=count, default=5, help="what each caller says, in lines")
    add("--only", default="", choices=("", *BUILDS), help="one build")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the server")
    add("--page", action="store_true", help="run nothing")
    args = parser.parse_args(argv)
    console, folder = Console(highlight=False), ROOT / "out" / "capacity"
    console.width = max(console.width, 150)  # when its cells wrap, nobody can read a table
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / ("local.json" if args.local else "results.json")
    args.calls = args.calls or _numbers(LOCAL_STEPS if args.local else STEPS)
    if not args.page:
        results = _run(args, folder, console)
        kept.write_text(json.dumps([asdict(one) for one in results], indent=1), "utf-8")
    if not kept.exists():
        raise ConfigError("There are no runs to write about: run `just capacity` first.")
    results = [Result(**one) for one in json.loads(kept.read_text("utf-8"))]
    console.print(page.table(results))
    (local_page if args.local else page).write(ROOT / "docs", results, machine())
    console.print("docs/capacity.md is written")
    return 0


def _numbers(text: str) -> list[int]:
    """Of calls."""
    try:
        return [int(one) for one in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers like 1,60,120") from None


def _run(args: argparse.Namespace, folder: Path, console: Console) -> list[Result]:
    if sys._is_gil_enabled() or not args.gil_python:
        raise ConfigError("Run this as `./justw capacity`, which finds both builds of Python.")
    python: dict[Build, str] = {"free": sys.executable, "gil": args.gil_python}
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise ConfigError("There is one core only: callers and server would measure each other.")
    speaker = voice()
    bench = Bench(
        python=python,
        line=_written(folder, clips.line(speaker)),
        cut=_written(folder, clips.cut(speaker)),
        folder=folder,
        server_cores=",".join(map(str, cores[len(cores) // 2 :])),
        load_cores=",".join(map(str, cores[: len(cores) // 2])),
        lines=args.lines,
    )
    flags = [part for one in args.set for part in ("--set", one)]
    if args.local:
        return _rise(args.calls, lambda calls: bench.run_local(calls, flags), "lost calls", console)
    results: list[Result] = []
    for build in BUILDS if not args.only else (args.only,):
        results += _rise(args.calls, partial(bench.run, build, flags=flags), "", console)
    return results


def _rise(
    steps: Sequence[int], run: Callable[[int], Result], fatal: str, console: Console
) -> list[Result]:
    """More and more calls, until the level has broken twice; with `fatal`, until that did.

    What broke while a bare timer was late as well says little of us: it is run again.
    """
    results: list[Result] = []
    broken = 0
    for calls in steps:
        for _ in range(ATTEMPTS):
            result = run(calls)
            problems = result.broken((results or [result])[0].response_p95)
            noisy = problems and result.noisy
            told = ", ".join(problems) + " (the machine is noisy)" * bool(noisy)
            console.print(f"{NAMES[result.build]:<10} {page.line(result)}  {told}")
            if not noisy:
                break
        results.append(result)
        broken += fatal in problems if fatal else bool(problems)
        if broken == 2:
            break
    return results


def _written(folder: Path, clip: Clip) -> Path:
    path = folder / f"{clip.name}.wav"
    wav.write_mono(path, mulaw.decode(clip.codes), mulaw.RATE)
    return path


if __name__ == "__main__":
    sys.exit(main())
