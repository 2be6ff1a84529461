"""``just compare``: run everything on both builds in turn, print a table, write docs/compare.md.

    just compare            15 minutes on two cores
    just compare --quick    a few minutes: fewer calls, one turn
    just compare --page     only write the page anew, from the runs of the last time

Runs are kept as JSON under out/compare/, where a run that is repeated replaces the one before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from threadline.errors import ConfigError

from ..flags import command_line, told
from . import figures, page, scenarios
from .measure import Bench
from .record import (
    NAMES,
    Build,
    Record,
    Setting,
    load,
    load_setting,
    machine,
    save,
    save_setting,
)

ROOT = Path(__file__).parents[2]
_COLUMNS = 110


@told
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line("just compare", __doc__)
    add = parser.add_argument
    add("--gil-python", metavar="FILE", help="the GIL build's python; the recipe fills this in")
    add("--quick", action="store_true")
    add("--only", default="", metavar="NAMES", help=f"some of {','.join(scenarios.ALL)}")
    add("--page", action="store_true", help="run nothing")
    args = parser.parse_args(argv)
    size = scenarios.QUICK if args.quick else scenarios.FULL
    folder, console = ROOT / "out" / "compare" / size.name, Console(highlight=False)
    console.width = max(console.width, _COLUMNS)  # tables: when they wrap, nobody can read them
    if not args.page:
        _run(args, size, folder, console)
    records, setting = load(folder), load_setting(folder)
    for section in figures.sections(records):
        console.print(page.table(section))
    page.write(ROOT / "docs", records, setting)
    console.print("docs/compare.md is written")
    return 0


def _run(args: argparse.Namespace, size: scenarios.Size, folder: Path, console: Console) -> None:
    from ..bench.phone import spoken, voice

    if sys._is_gil_enabled() or not args.gil_python:
        raise ConfigError("Run this as `./justw compare`, which finds both builds of Python.")
    if unknown := [name for name in args.only.split(",") if name and name not in scenarios.ALL]:
        raise ConfigError(f"There is no scenario {unknown[0]!r}: --only takes some of "
                          f"{','.join(scenarios.ALL)}.")  # fmt: skip
    python: Mapping[Build, str] = {"free": sys.executable, "gil": args.gil_python}
    if not args.only:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def keep(record: Record) -> None:
        save(folder, record)
        took = f"{(time.monotonic() - began) / 60:4.1f} min"
        console.print(f"[dim]{took}[/]  {NAMES[record.build]:<10}  {page.line(record)}")

    line = spoken(voice(), "A table for four, please.", "hum")
    bench = Bench(python, line, folder, keep)
    save_setting(folder, _setting(bench, size))
    for scenario in scenarios.chosen(args.only):
        scenario(bench, size)


def _setting(bench: Bench, size: scenarios.Size) -> Setting:
    builds: dict[str, dict[str, str]] = {}
    for build in bench.python:
        command = bench.command(build, "stress.compare.record")
        builds[build] = json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        )
    said = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return Setting(
        mode=size.name,
        date=time.strftime("%Y-%m-%d"),
        commit=said.stdout.strip() or "unknown",
        machine=machine(),
        builds=builds,
    )


if __name__ == "__main__":
    sys.exit(main())
