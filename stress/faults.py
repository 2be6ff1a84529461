"""``just faults``: a call survives every vendor's worst day. Writes docs/vendors.md.

    just faults                          the whole table, some minutes on two cores
    just faults --only cartesia,resets   rows whose names have these words in them
    just faults --page                   only write the page anew, from the rows of the last time

For every vendor, every way to fail and every phase of a turn, one call of three lines through a
whole server, with Deepgram, a model and Cartesia played by local servers over their true
protocols, one of which is ill for a while. See faults_call.py for what must be true of it.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from threadline.config import Log
from threadline.errors import ConfigError
from threadline.models.store import ModelStore
from threadline.threads import logs

from . import faults_page
from .bench.phone import spoken, voice
from .faults_call import Case, Line, Row, Stage, cases, row_of
from .faults_list import faults
from .flags import command_line, count, told

ROOT = Path(__file__).parents[1]
LINE = "I would like that one please."
AT_ONCE = 8
APART_SECONDS = 0.7  # a process that starts takes a core
CASE_SECONDS = 150.0
STDERR_CHARACTERS = 4000


@told
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line("just faults", __doc__)
    add = parser.add_argument
    add("--only", default="", metavar="WORD,WORD", help="rows with these in their names")
    add("--at-once", type=count, default=AT_ONCE, metavar="N", help=f"calls at a time ({AT_ONCE})")
    add("--page", action="store_true", help="run nothing")
    add("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        return _child(Path(args.child))
    console, kept = Console(highlight=False), ROOT / "out" / "faults" / "rows.json"
    console.width = max(console.width, 130)  # when its cells wrap, nobody can read a table
    if not args.page:
        words = [word.strip() for word in args.only.split(",") if word.strip()]
        wanted = [one for one in table() if all(word in one.name for word in words)]
        if not wanted:
            raise ConfigError(f"No row has {' and '.join(words)} in its name: see docs/vendors.md.")
        rows = run(wanted, args.at_once, console)
        console.print(faults_page.table(rows))
        if not words:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps([asdict(row) for row in rows], indent=1), "utf-8")
    if args.page or not args.only:
        rows = _kept(kept)
        faults_page.write(ROOT / "docs" / "vendors.md", rows)
        console.print("docs/vendors.md is written")
    wrong = [row for row in rows if row.problems]
    for row in wrong:
        console.print(f"[red]{row.vendor}, {row.fault}, {row.phase}:[/] {'; '.join(row.problems)}")
    return 1 if wrong else 0


def table() -> list[Case]:
    """All rows there are, in the order of the page."""
    return cases(faults())


def _kept(path: Path) -> list[Row]:
    if not path.exists():
        raise ConfigError("There are no rows to write about: run `just faults` first.")
    found = json.loads(path.read_text("utf-8"))
    return [Row(**one | {"lines": [Line(**line) for line in one["lines"]]}) for one in found]


def run(wanted: Sequence[Case], at_once: int, console: Console | None = None) -> list[Row]:
    """Hold these calls, so many at a time, in processes of their own: one may die of its row."""
    names = [one.name for one in table()]
    todo: queue.SimpleQueue[Case] = queue.SimpleQueue()
    for case in wanted:
        todo.put(case)
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as folder, _progress(console, len(wanted)) as step:
        speech = Path(folder) / "speech.json"
        clip = spoken(voice(), LINE, "line")
        speech.write_text(json.dumps([clip.codes.hex(), clip.speech]), "utf-8")
        threads = [
            threading.Thread(target=_feed, args=(todo, names, speech, rows, step), daemon=True)
            for _ in range(min(at_once, len(wanted)))
        ]
        for thread in threads:
            thread.start()
            time.sleep(APART_SECONDS)
        for thread in threads:
            thread.join()
    return [rows[case.name] for case in wanted]


@contextmanager
def _progress(console: Console | None, total: int) -> Iterator[Callable[[str], None]]:
    if console is None:
        yield lambda name: None
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[name]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total, name="")
        yield lambda name: bar.update(task, advance=1, name=name)


def _feed(
    todo: queue.SimpleQueue[Case],
    names: Sequence[str],
    speech: Path,
    rows: dict[str, Row],
    step: Callable[[str], None],
) -> None:
    """One process after another, as long as there is a case."""
    child: _Child | None = None
    while True:
        try:
            case = todo.get_nowait()
        except queue.Empty:
            break
        child = child or _Child(speech)
        row = child.run(names.index(case.name))
        if row is None:
            row = row_of(case)
            row.problems.append(f"the server's process died: {child.last_words()}")
            child = None
        rows[case.name] = row
        step(case.name)
    if child is not None:
        child.end()


class _Child:
    """A process that holds one call after another."""

    def __init__(self, speech: Path) -> None:
        environ = {name: text for name, text in os.environ.items() if name != "PYTHON_GIL"}
        environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "stress.faults", "--child", str(speech)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environ,
        )

    def run(self, number: int) -> Row | None:
        """The row; None: it died, or hangs."""
        assert self._process.stdin is not None, "it was started with pipes"
        assert self._process.stdout is not None, "it was started with pipes"
        late = threading.Timer(CASE_SECONDS, self._process.kill)
        late.start()
        try:
            self._process.stdin.write(f"{number}\n".encode())
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = b""
        finally:
            late.cancel()
        if not line:
            return None
        found = json.loads(line)
        return Row(**found | {"lines": [Line(**one) for one in found["lines"]]})

    def last_words(self) -> str:
        """Why it is no more."""
        code = self._process.wait()
        self._stderr.seek(0)
        said = self._stderr.read().decode("utf-8", "replace")[-STDERR_CHARACTERS:]
        self.end()
        return f"status {code}; {said}"

    def end(self) -> None:
        """Nothing more to do: it ends by itself."""
        with suppress(OSError):  # what is written to one that died
            self._process.communicate()
        self._stderr.close()


def _child(speech: Path) -> int:
    """Read numbers of cases, write their rows."""
    codes, bounds = json.loads(speech.read_text("utf-8"))
    found = table()
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            log = Path(folder) / "log.jsonl"
            stage = Stage(ModelStore(), bytes.fromhex(codes), (bounds[0], bounds[1]), log)
            case = found[int(line)]
            fd = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_TRUNC)
            logs.start(Log(format="json"), fd=fd)
            try:
                row = stage.run(case)
            finally:
                logs.stop(5.0)
                os.close(fd)
            if row.problems and (keep := os.environ.get("FAULTS_LOGS")):
                (Path(keep) / f"{case.name}.jsonl".replace("/", "-")).write_bytes(log.read_bytes())
            print(json.dumps(asdict(row)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
