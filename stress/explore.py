"""Search the interleavings of the production rings, wake-ups and floor changes.

    python -m stress.explore                          all models
    python -m stress.explore --only clear             one family, or one model
    python -m stress.explore --only clear/weak --replay aaBbA...
    python -m stress.explore --only wrap --mutant publish-first

Exits with 1 when something forbidden can happen, and prints how; with 2 for a wrong argument.
"""

from __future__ import annotations

import sys
import time
from functools import partial

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from .explorer.beside import Change, Code, Stale, beside
from .explorer.jobs import explore, named, side_by_side
from .explorer.search import Found, Model, Unplayable, replay
from .explorer.trace import columns
from .flags import command_line
from .mutations import MUTANTS

LIMIT = 60.0
"""Seconds for one model. One that needs more counts as a failure: it is not exhausted."""


def show(model: Model, changes: tuple[Change, ...], schedule: str) -> str:
    """Print a schedule's trace. Returns what went wrong in it, or nothing."""
    with beside(changes) as module:
        world, failure = replay(model, Code(module), schedule)
    print(columns(world))
    print(f"\n{failure or 'Nothing forbidden happens.'}")
    return failure


def run(models: list[Model], changes: tuple[Change, ...], option: str) -> int:
    """Search them all; a table of counts, then each failure with its trace."""
    began = time.monotonic()
    jobs = [partial(explore, model.name, changes, LIMIT, True) for model in models]
    found: list[Found | None] = [None] * len(jobs)
    for i, one in side_by_side(jobs):
        found[i] = one
    table = Table("model", "search", "states", "schedules", "seconds", "", box=SIMPLE)
    for column in table.columns[2:5]:
        column.justify = "right"
    done = [one for one in found if one is not None]
    for one in done:
        verdict = "FORBIDDEN" if one.failure else "ok" if one.complete else "out of time"
        table.add_row(
            one.model,
            one.how,
            f"{one.states:,}",
            f"{one.schedules:,}",
            f"{one.seconds:.1f}",
            verdict,
        )
    console = Console()
    console.print(table)
    console.print(
        f"{len(done)} models, {sum(one.states for one in done):,} states, "
        f"{sum(one.schedules for one in done):,} schedules, {time.monotonic() - began:.0f} s"
    )
    by_name = {model.name: model for model in models}
    for one in done:
        if one.failure:
            print(f"\n{one.model}\n")
            show(by_name[one.model], changes, one.schedule)
            print(f"\npython -m stress.explore --only {one.model}{option} --replay {one.schedule}")
    return int(any(one.failure or not one.complete for one in done))


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    parser = command_line("python -m stress.explore", __doc__)
    parser.add_argument("--only", default="", metavar="NAME", help="a model or a family of them")
    parser.add_argument("--replay", metavar="SCHEDULE", help="run this one schedule, with a trace")
    parser.add_argument("--mutant", metavar="NAME", help="plant this race first (stress/mutations)")
    given = parser.parse_args(arguments)
    changes: tuple[Change, ...] = ()
    try:
        models = named(given.only)
        if given.mutant:
            changes = MUTANTS[given.mutant].changes
        if given.replay is None:
            return run(models, changes, f" --mutant {given.mutant}" if given.mutant else "")
        if len(models) != 1:
            names = ", ".join(model.name for model in models)
            raise LookupError(f"A schedule belongs to one model: name one of {names}.")
        return int(bool(show(models[0], changes, given.replay)))
    except KeyError:
        print(f"No mutant is called {given.mutant}; see `python -m stress.mutants`.")
    except (LookupError, Stale, Unplayable) as error:
        print(error)
    return 2


if __name__ == "__main__":
    sys.exit(main())
