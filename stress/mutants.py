"""Plant every race of `stress/mutations.py` and see that it is found.

    python -m stress.mutants                  all of them, and a table of what found which
    python -m stress.mutants --only view-kept

Exits with 1 when a tier that must notice does not, or when a change no longer fits the source.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from . import native
from .explorer.beside import Stale, beside, changed, fill
from .explorer.jobs import explore, side_by_side
from .flags import command_line
from .mutations import MUTANTS, Mutant

LIMIT = 20.0
NATIVE_SECONDS = 5.0
UNIT_SECONDS = 100.0
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one tier made of one mutant."""

    tier: str
    killed: bool
    how: str
    schedules: int = 0
    seconds: float = 0.0
    must: bool = True


def plant(name: str) -> None:
    """In a process of its own: from now on `threadline.threads` is the changed source."""
    for module, source in changed(MUTANTS[name].changes).items():
        full = f"threadline.threads.{module}"
        spec = importlib.util.find_spec(full)
        assert spec is not None, full
        made = sys.modules[full] = importlib.util.module_from_spec(spec)
        fill(made, source)
        setattr(importlib.import_module("threadline.threads"), module, made)


def _explorer(mutant: Mutant, model: str) -> Verdict:
    began = time.monotonic()
    found = explore(model, mutant.changes, LIMIT, plain=False)
    how = found.failure.removeprefix("FORBIDDEN: ") if found.failure else f"survives {found.how}"
    return Verdict(
        f"explorer {model}", bool(found.failure), how, found.schedules, time.monotonic() - began
    )


def _native(mutant: Mutant) -> Verdict:
    began = time.monotonic()
    with beside(mutant.changes) as module:
        failure, items = native.race(module("ring"), NATIVE_SECONDS)
    how = failure or f"survives {items:,} items"
    must = mutant.native == "must"
    return Verdict("native", bool(failure), how, 0, time.monotonic() - began, must)


def _unit(name: str, mutant: Mutant) -> Verdict:
    began = time.monotonic()
    # No cache: what fails here must not be remembered by the real tests.
    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", mutant.unit]
    command = (
        f"import sys, pytest; from stress.mutants import plant; plant({name!r}); "
        f"sys.exit(pytest.main({options!r}))"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", command],
            cwd=ROOT, capture_output=True, text=True, timeout=UNIT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Verdict("unit", False, f"no result in {UNIT_SECONDS:g} s", 0, UNIT_SECONDS)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    how = failed[0].partition("::")[2] if failed else f"pytest exits with {done.returncode}"
    return Verdict("unit", bool(failed) and done.returncode == 1, how, 0, time.monotonic() - began)


def trial(name: str) -> list[Verdict]:
    """Every tier that must notice this one."""
    mutant = MUTANTS[name]
    try:
        verdicts = [_explorer(mutant, model) for model in mutant.models]
        if mutant.native:
            verdicts.append(_native(mutant))
        if mutant.unit:
            verdicts.append(_unit(name, mutant))
    except Stale as error:
        return [Verdict("source", False, str(error))]
    return verdicts


def run(names: Sequence[str]) -> int:
    """Try these, print the kill table."""
    began = time.monotonic()
    table = Table("mutant", "must be found by", "", "how", "schedules", "seconds", box=SIMPLE)
    table.columns[4].justify = table.columns[5].justify = "right"
    found = dict(side_by_side([partial(trial, name) for name in names]))
    survivors = []
    for i, name in enumerate(names):
        verdicts = found[i]
        for n, one in enumerate(verdicts):
            title = f"{name}\n[dim]{MUTANTS[name].what}[/dim]" if n == 0 else ""
            table.add_row(
                title,
                one.tier if one.must else f"({one.tier})",
                "killed" if one.killed else "[bold red]SURVIVED[/]" if one.must else "not seen",
                one.how[:100].replace("[", r"\["),
                f"{one.schedules:,}" if one.schedules else "",
                f"{one.seconds:.1f}",
            )
        if not any(one.must for one in verdicts) or any(
            one.must and not one.killed for one in verdicts
        ):
            survivors.append(name)
    console = Console()
    console.print(table)
    trials = sum(len(found[i]) for i in range(len(names)))
    console.print(f"{len(names)} mutants, {trials} trials, {time.monotonic() - began:.0f} s")
    if survivors:
        console.print(f"[bold red]Not killed as they must be:[/] {', '.join(survivors)}")
    return int(bool(survivors))


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    parser = command_line("python -m stress.mutants", __doc__)
    parser.add_argument("--only", default="", metavar="NAME")
    only = parser.parse_args(arguments).only
    if only and only not in MUTANTS:
        print(f"No mutant is called {only}; there are {', '.join(MUTANTS)}.")
        return 2
    return run([only] if only else list(MUTANTS))


if __name__ == "__main__":
    sys.exit(main())
