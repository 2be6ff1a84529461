"""Runs every program and every control under the watched interpreter; see the package.

    python -m stress.tsan /path/to/the/watched/python3.14t --seconds 20

Each runs in a process of its own with the suppressions that CPython ships and none of ours.
Exit status 0: every program ended with its invariant held and nothing reported, and every planted
race was reported. Anything else is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import SystemRandom

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..flags import amount
from .controls import CONTROLS
from .programs import PROGRAMS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "races.md"
PURE = ("structlog", "prometheus_client")
"""Packages without C code that our modules import. No other package can be imported."""

FRAMES = 4
"""Innermost frames shown of each of a report's two stacks."""

CONTROL_SECONDS = 5.0
"""How long a control runs, at most: it is reported within its first round."""

REPORTED = 66
"""What ThreadSanitizer makes of the exit status when it has reported something."""

HANGS = 180.0
"""Seconds beyond its time after which a program is ended."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one process."""

    name: str
    seconds: float
    reports: tuple[str, ...]
    counts: dict[str, int]
    failure: str  # what it said when it ended otherwise than by its time being up

    @property
    def wrong(self) -> str:
        """Empty when this is the outcome that it should be."""
        if self.failure:
            return self.failure
        if self.name in CONTROLS:
            return "" if self.shown else "the planted race was not reported"
        return "a race" if self.reports else ""

    @property
    def shown(self) -> str:
        """The report to show, if any: of a control the first that is of the planted race."""
        control = CONTROLS.get(self.name)
        seen_in = control.seen_in if control else ("",)
        return next((one for one in self.reports if any(name in one for name in seen_in)), "")


class Watched:
    """Runs programs under the interpreter `python`, which ThreadSanitizer watches."""

    def __init__(self, python: Path, folder: Path, seed: int, seconds: float) -> None:
        self._python = python
        self._folder = folder
        self._seed = seed
        self._seconds = seconds
        self._environment = self._environ()

    def _environ(self) -> dict[str, str]:
        pure = self._folder / "pure"
        pure.mkdir()
        for name in PURE:
            spec = importlib.util.find_spec(name)
            if spec is None or spec.origin is None:
                raise SystemExit(f"{name} is not installed here: run this through ./justw tsan.")
            (pure / name).symlink_to(Path(spec.origin).parent)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        path = os.pathsep.join(map(str, (pure, ROOT / "src", ROOT)))
        return kept | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}

    def run(self, name: str) -> Outcome:
        """One program or control."""
        options = {
            "suppressions": self._python.parents[1] / "suppressions_free_threading.txt",
            "external_symbolizer_path": shutil.which("llvm-symbolizer-19") or "",
            "log_path": self._folder / name.replace(" ", "-"),
        }
        text = " ".join(f"{key}={value}" for key, value in options.items())
        command = [str(self._python), "-m", "stress.tsan.programs", name]
        seconds = min(self._seconds, CONTROL_SECONDS) if name in CONTROLS else self._seconds
        command += [f"--seed={self._seed}", f"--seconds={seconds}"]
        begin = time.monotonic()
        try:
            done = subprocess.run(
                command,
                env=self._environment | {"TSAN_OPTIONS": text},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds + HANGS,
            )
        except subprocess.TimeoutExpired:
            return Outcome(name, time.monotonic() - begin, self._reports(name), {}, "it hung")
        took, reports = time.monotonic() - begin, self._reports(name)
        try:
            counts = json.loads(done.stdout.splitlines()[-1])
        except ValueError, IndexError:
            counts = {}
        failure = ""
        if "rounds" not in counts or done.returncode != (REPORTED if reports else 0):
            counts = {}
            failure = (done.stderr.splitlines() or [f"exit status {done.returncode}"])[-1]
        return Outcome(name, took, reports, counts, failure)

    def _reports(self, name: str) -> tuple[str, ...]:
        """What ThreadSanitizer wrote, one text for each race; of every process there was."""
        logs = sorted(self._folder.glob(f"{name.replace(' ', '-')}.*"))
        parts = re.split(r"^=+$", "".join(log.read_text() for log in logs), flags=re.MULTILINE)
        return tuple(part.strip() for part in parts if "WARNING: ThreadSanitizer" in part)


def stacks(report: str) -> Iterator[str]:
    """The innermost frames of the two accesses, a line each."""
    for part in report.split("\n\n")[:2]:
        lines = [line.strip() for line in part.splitlines() if "WARNING" not in line]
        yield re.sub(r"at 0x\w+ ", "", "".join(lines[:1]))
        for line in lines[1 : 1 + FRAMES]:
            # Of "#0 function /where/it/was/built/source/file.c:1:2 (module+0x1) (BuildId: ...)"
            yield "    " + re.sub(r" \(BuildId.*| \(\S+\+0x\w+\)|/\S*/source/(\./)?", "", line)


def shown(outcome: Outcome) -> str:
    """One word or two for the table."""
    if outcome.wrong:
        return f"WRONG: {outcome.wrong}"
    return "reported, as it must be" if outcome.name in CONTROLS else "clean"


def rows(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, ...]]:
    """Of the table on the terminal and in the page."""
    for outcome in outcomes:
        counts = ", ".join(f"{key} {count}" for key, count in outcome.counts.items())
        reports = str(len(outcome.reports))
        yield outcome.name, shown(outcome), reports, f"{outcome.seconds:.0f}", counts


HEADINGS = ("program", "result", "reports", "s", "what was done")


def page(outcomes: Sequence[Outcome], version: str, command: str) -> str:
    """The section of docs/races.md, in Markdown."""
    lines = [
        f"Last run {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, in"
        f" {sum(outcome.seconds for outcome in outcomes) / 60:.1f} minutes"
        f" on {os.process_cpu_count()} cores: `{command}`",
        "",
        f"Interpreter: {version}, {platform.machine()}.",
        "",
        f"| {' | '.join(HEADINGS)} |",
        "| --- | --- | ---: | ---: | --- |",
        *(f"| {' | '.join(row)} |" for row in rows(outcomes)),
        "",
        "What ThreadSanitizer says of the first planted race, innermost frames first:",
        "",
    ]
    planted = next((one.shown for one in outcomes if one.name in CONTROLS and one.shown), "")
    lines += ["```text", *stacks(planted), "```"]
    return "\n".join(lines)


def record(section: str) -> None:
    """Put it between its two markers in docs/races.md."""
    begin, end = "<!-- tsan: begin -->", "<!-- tsan: end -->"
    before, found, rest = PAGE.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{PAGE} has no place for the result: {begin} ... {end}")
    PAGE.write_text(f"{before}{begin}\n{section}\n{end}{after}")


@contextmanager
def watched(python: Path, seed: int, seconds: float) -> Iterator[Watched]:
    """With a folder for the reports."""
    with tempfile.TemporaryDirectory(prefix="tsan-") as folder:
        yield Watched(python, Path(folder), seed, seconds)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="just tsan", description=__doc__)
    parser.add_argument("python", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=amount, default=20.0, help="how long each program runs")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--only", metavar="NAME", choices=[*PROGRAMS, *CONTROLS])
    parser.add_argument("--record", action="store_true", help="write docs/races.md's section")
    asked = parser.parse_args()
    names = [asked.only] if asked.only else [*PROGRAMS, *CONTROLS]
    console = Console()
    version = subprocess.check_output(
        [asked.python, "-c", "import sys; print(*sys.version.split())"], text=True
    ).strip()
    console.print(f"Python {version}, seed {asked.seed}", highlight=False)
    outcomes = []
    with watched(asked.python, asked.seed, asked.seconds) as under:
        for name in names:
            with console.status(name):
                outcomes.append(under.run(name))
            console.print(f"{name}: {shown(outcomes[-1])}", highlight=False)
    table = Table(*HEADINGS, box=SIMPLE, padding=(0, 1, 0, 0))
    for row in rows(outcomes):
        table.add_row(*row)
    console.print(table)
    for outcome in outcomes:
        if outcome.wrong:
            console.print(f"{outcome.name}: {outcome.wrong}", style="bold red")
            console.print(Text("\n".join(stacks(outcome.shown))))
    if asked.record:
        command = f"just tsan --seconds {asked.seconds:g} --seed {asked.seed}"
        record(page(outcomes, version, command))
    sys.exit(any(outcome.wrong for outcome in outcomes))


if __name__ == "__main__":
    main()
