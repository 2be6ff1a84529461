"""Does one decode of several utterances cost less than one after the other?

    python -m stress.bench.batch                         2 to 3 s, batches of 1, 2, 4 and 8
    python -m stress.bench.batch --clips 16 --threads 1  a quick look, one core

The same recorded prompts go through the same model both ways, group by group and in turn, so that a
busy machine slows both alike: trust the ratio before the absolute figures. Seconds are of CPU, all
threads together, for each utterance; the ratio is of all of them, its p50 of the groups. The first
of a batch waits for all of it: the last column is how long, in decodes of one alone.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from threadline.errors import ConfigError
from threadline.models.store import ModelStore
from threadline.models.whisper import WhisperDecoder
from threadline.observe.words import word_error_rate

from ..flags import amount, command_line, count, told
from .clips import Clip, load

SIZES = (1, 2, 4, 8)


@dataclass(slots=True)
class Figures:
    """Of one size of batch."""

    size: int
    alone: float = 0.0  # s
    together: float = 0.0
    ratios: list[float] = field(default_factory=list)  # of each group
    said: list[tuple[str, str]] = field(default_factory=list)  # text and what was heard, alone
    told: list[tuple[str, str]] = field(default_factory=list)  # the same, together


def measure(clips: Sequence[Clip], size: int, decoder: WhisperDecoder, console: Console) -> Figures:
    """Every clip alone and in a batch of so many."""
    made = Figures(size)
    groups = [clips[at : at + size] for at in range(0, len(clips) - size + 1, size)]
    for number, group in enumerate(track(groups, f"{size}", console=console, transient=True)):
        heard = [clip.heard for clip in group]
        times = {}
        for together in (True, False) if number % 2 else (False, True):
            began = time.process_time()
            said = decoder.decode_many(heard) if together else list(map(decoder.decode, heard))
            times[together] = time.process_time() - began
            pairs = made.told if together else made.said
            pairs += [(clip.text, one.text) for clip, one in zip(group, said, strict=True)]
        made.alone += times[False]
        made.together += times[True]
        made.ratios.append(times[True] / times[False])
    return made


def report(rows: Sequence[Figures], threads: int) -> Table:
    table = Table(title=f"{threads} thread(s)")
    for heading in (
        *("batch", "alone s", "together s", "ratio", "p50"),
        *("WER alone", "together", "other", "wait"),
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        count = len(row.said)
        other = sum(one[1] != two[1] for one, two in zip(row.said, row.told, strict=True))
        table.add_row(
            str(row.size),
            f"{row.alone / count:.3f}",
            f"{row.together / count:.3f}",
            f"{row.together / row.alone:.2f}",
            f"{np.median(row.ratios):.2f}",
            f"{word_error_rate(row.said):.2%}",
            f"{word_error_rate(row.told):.2%}",
            f"{other}/{count}",
            f"{row.size * row.together / row.alone:.2f}",
        )
    return table


@told
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line("python -m stress.bench.batch", __doc__)
    parser.add_argument("--clips", type=count, default=0, help="how many prompts (default: all)")
    parser.add_argument("--threads", type=count, default=1, help="of one decode (default: 1)")
    parser.add_argument("--shortest", type=amount, default=2.0, help="in seconds (default: 2)")
    parser.add_argument("--longest", type=amount, default=3.0, help="in seconds (default: 3)")
    args = parser.parse_args(argv)
    console = Console()
    clips = load(args.shortest, args.longest)
    if len(clips) < SIZES[-1]:
        raise ConfigError("Too few prompts have such a length: widen --shortest and --longest.")
    if args.clips > 0:  # spread over the names, because neighbours say almost the same
        clips = clips[:: max(1, len(clips) // args.clips)][: args.clips]
    # ctranslate2 says that it turns the GIL on. It does, for both ways alike.
    warnings.filterwarnings("ignore", "The global interpreter lock", RuntimeWarning)
    folder = ModelStore().directory("whisper-base")
    decoder = WhisperDecoder(folder, threads=args.threads, language="en")
    decoder.decode_many([clip.heard for clip in clips[:2]])
    rows = [measure(clips, size, decoder, console) for size in SIZES]
    console.print(report(rows, args.threads))
    return 0


if __name__ == "__main__":
    sys.exit(main())
