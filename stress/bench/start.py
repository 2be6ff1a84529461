"""How long a server takes from its start until it answers a call, with the models on disk.

    python -m stress.bench.start --starts 10        half a minute

*listening*: voice, turn detector and VAD are loaded, every thread runs, and the log says so.
*ready*: the recogniser, which loads behind, has its model too, and /readyz says so. The yardstick
is a plain script that imports what the server and its recogniser import, and loads no model.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from threadline.errors import ThreadlineError

from ..flags import amount, command_line, count, told
from .phone import serving

IMPORTS = "import numpy, onnxruntime, soxr, structlog, websockets.server, faster_whisper"


@told
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, compare with the limit."""
    parser = command_line("bench start", __doc__)
    parser.add_argument(
        "--starts", type=count, default=10, metavar="N", help="so often (default 10)"
    )
    parser.add_argument(
        "--limit", type=amount, default=2.0, metavar="S", help="until ready, median"
    )
    args = parser.parse_args(argv)
    console = Console(highlight=False)
    table = Table("start", "the imports alone, s", "listening, s", "ready, s")
    runs = []
    with console.status("Starting servers, one after the other") as status:
        for number in range(1, args.starts + 1):
            status.update(f"Starting server {number} of {args.starts}")
            runs.append((imports(), *start()))
            table.add_row(str(number), *(f"{seconds:.2f}" for seconds in runs[-1]))
    middle = [median(column) for column in zip(*runs, strict=True)]
    table.add_section()
    table.add_row("median", *(f"{seconds:.2f}" for seconds in middle))
    console.print(table)
    good = middle[-1] < args.limit
    console.print(
        f"ready after {middle[-1] / middle[0]:.1f} times what the imports alone take; "
        f"limit {args.limit:g} s: {'kept' if good else 'missed'}"
    )
    return 0 if good else 1


def imports() -> float:
    """Seconds that a script takes which only imports."""
    began = time.monotonic()
    command = [sys.executable, "-X", "gil=1", "-W", "ignore", "-c", IMPORTS]
    subprocess.run(command, check=True, timeout=60)
    return time.monotonic() - began


def start() -> tuple[float, float]:
    """Seconds until one server listens, and until it is ready (which is asked every 50 ms)."""
    wall, began = time.time(), time.monotonic()
    with serving("threadline", "serve") as (_, log):
        ready = time.monotonic() - began
        return listening(log) - wall, ready


def listening(log: Path) -> float:
    """When the log says so: seconds since 1970."""
    for line in log.read_text("utf-8").splitlines():
        record = json.loads(line)
        if record["event"] == "listening":
            return datetime.fromisoformat(record["timestamp"]).timestamp()
    raise ThreadlineError("The server did not log that it listens.")


if __name__ == "__main__":
    sys.exit(main())
