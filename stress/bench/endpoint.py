"""When a turn ends: cut too early against waiting too long, on recorded prompts.

    python -m stress.bench.endpoint             the table
    python -m stress.bench.endpoint --page      ... and docs/endpointing.md with its picture
    python -m stress.bench.endpoint --vad       the timer and the onset alone, by VAD threshold

Every pause of the sounds of `pauses.py` is judged once; then each way to end a turn is asked how
long it would have waited there. A pause that it does not outwait, though the caller went on, is a
false cut-off; at the true end of a prompt, the time from the last sound to the decision counts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from threadline.config import Endpoint, Vad
from threadline.errors import ThreadlineError

from ..flags import command_line, count, told
from . import endpoint_page, hangover
from .pauses import measure

DOCS = Path(__file__).parents[2] / "docs"


@told
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line("bench endpoint", __doc__)
    parser.add_argument("--vad", action="store_true", help="the VAD's own thresholds")
    parser.add_argument("--page", action="store_true", help="write docs/endpointing.md")
    parser.add_argument("--prompts", type=count, default=0, help="how many (default: all)")
    parser.add_argument("--keep", type=Path, help="read the judgements from this file, or write it")
    args = parser.parse_args(argv)
    if 0 < args.prompts < 10:
        parser.error("too few prompts for a table: give --prompts 10 or more")
    console = Console()
    try:
        if args.vad:
            return hangover.report(console)
        pauses = measure(args.keep, args.prompts, console)
    except ThreadlineError as error:
        console.print(str(error))
        return error.exit_code
    console.print(endpoint_page.table(pauses, Endpoint(), Vad()))
    if args.page:
        endpoint_page.write(DOCS, pauses, Endpoint(), Vad())
    return 0


if __name__ == "__main__":
    sys.exit(main())
