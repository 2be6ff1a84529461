"""Two callers' tools burn processor time; what do the other callers notice?

    just bench tools            on both builds of Python, some minutes

The same server and calls, with and without the two burners: their tool is 200 ms of pure Python,
again and again, for as long as a tool may take. The model, the recogniser and the voice are the
local stand-ins. Lateness is that of every frame, from its deadline to its socket, beside that of
a bare timer at the same time. Whatever burns a whole core of two makes everything later that needs
that core; what is asked is whether the interpreter adds to it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from threadline.config import Talk
from threadline.errors import ConfigError
from threadline.observe.callreport import judge, summary
from threadline.threads.caller import place_calls
from threadline.threads.child_server import ChildServer, child_server
from threadline.threads.phone_line import CallPlan
from threadline.wire.script import Clip

from ..compare.record import BUILDS, NAMES, Build, Lateness
from ..flags import command_line, count, told
from ..until import until
from .burning import BURNERS
from .phone import spoken, value, voice
from .vendors import CASCADE, vendors

HEARD = "A table for four, please."
TOOLS_START_WITHIN = 20.0  # seconds
ANSWER = "Sure, that is possible. " + "We have a table by the window, and it is yours. " * 2


@told
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line("bench tools", __doc__)
    parser.add_argument("--gil-python", metavar="FILE", help="the GIL build's python")
    parser.add_argument("--calls", type=count, default=20, help="beside the two")
    args = parser.parse_args(argv)
    console = Console(highlight=False)
    if not args.gil_python:
        raise ConfigError("Run this as `./justw bench tools`, which finds both builds.")
    _measure(console, args.gil_python, args.calls)
    return 0


def _measure(console: Console, gil_python: str, calls: int) -> None:
    python: dict[Build, str] = {"free": sys.executable, "gil": gil_python}
    line = spoken(voice(), HEARD, "line")
    table = Table("build", "tools", "p50 ms", "p99", "p99.9", "max", "timer p99.9", "dry",
                  "answer p50", "p95", box=None, pad_edge=False)  # fmt: skip
    for build in BUILDS:
        for burning in (False, True):
            late, control, told = _run(python[build], build, line, calls, burning)
            found = told["response_ms"]
            table.add_row(
                NAMES[build],
                "two burn" if burning else "none",
                *(f"{late.quantile(q):.2f}" for q in (0.5, 0.99, 0.999, 1.0)),
                f"{control.quantile(0.999):.2f}",
                str(told["underruns"]),
                f"{found['p50']:.0f}",
                f"{found['p95']:.0f}",
            )
            console.print(f"[dim]{NAMES[build]}, {'two burn' if burning else 'none'}: done[/]")
    console.print(table)


def _run(
    python: str, build: Build, line: Clip, calls: int, burning: bool
) -> tuple[Lateness, Lateness, dict[str, Any]]:
    """Lateness of the frames and of a bare timer, and what the callers who do not burn got."""
    tool = "look_up" if burning else ""
    with (
        tempfile.TemporaryDirectory() as folder,
        vendors(HEARD, ANSWER, tool=tool) as environ,
        ThreadPoolExecutor(2) as phones,
    ):
        command = [
            *("env", "-u", "PYTHON_GIL", *(f"{name}={text}" for name, text in environ.items())),
            *(python, "-m", "threadline", "serve", "stress.bench.burning:agent", *CASCADE),
            *("--port", "0", "--log-format", "json", "--set", "endpoint.mode=silence"),
            *("--set", "server.drain_seconds=0.1", "--set", "server.max_calls=200"),
            *(() if build == "free" else ("--gil", "accept")),
        ]
        with child_server(command, Path(folder) / "log.jsonl") as server:
            control = subprocess.Popen(
                [sys.executable, "-m", "stress.compare.probes", "control"], stdout=subprocess.PIPE
            )
            url = f"ws://{server.address}/twilio"
            burners = phones.submit(place_calls, _plan(url, line, BURNERS, 2))
            if burning:
                _wait_until_busy(server, BURNERS)
            placed = phones.submit(place_calls, _plan(url, line, calls, 2)).result()
            page = server.metrics()
            burners.result()
            control.terminate()
            said = json.loads(control.communicate(timeout=10)[0])
    told = summary([judge(record) for record in placed.calls], placed.client_lateness_ms)
    timer = Lateness(tuple(said["bounds"]), tuple(said["counts"]))
    return Lateness.of_page(page, "threadline_frame_lateness_seconds"), timer, told


def _wait_until_busy(server: ChildServer, workers: int) -> None:
    """Until so many tools run: theirs must be the first. ThreadlineError when they do not."""
    left = Talk().workers - workers
    until(
        lambda: value(server.metrics(), "threadline_workers_idle") <= left,
        "the burners' tools run",
        TOOLS_START_WITHIN,
    )


def _plan(url: str, line: Clip, calls: int, lines: int) -> CallPlan:
    return CallPlan(
        url=url,
        clips=(line,) * lines,
        calls=calls,
        stagger_ms=97.0,
        greeting=False,
        answer_within=20.0,
    )


if __name__ == "__main__":
    sys.exit(main())
