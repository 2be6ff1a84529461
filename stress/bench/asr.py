"""What the short window buys and costs: our recogniser beside plain faster-whisper.

    python -m stress.bench.asr                          2 to 8 s, all prompts
    python -m stress.bench.asr --clips 20 --threads 1   a quick look, one core
    python -m stress.bench.asr --shortest 8 --longest 28

Both decode the same recorded prompts, after the telephone's mu-law and 8 kHz, in one process and
in turn, clip by clip, so that a busy machine slows both alike. Trust the ratio before the absolute
figures. faster-whisper runs with its defaults (window of 30 s, beam of 5, timestamps).
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from threadline.errors import ConfigError
from threadline.models.store import ModelStore
from threadline.models.whisper import WhisperDecoder
from threadline.observe.words import word_error_rate

from ..flags import amount, command_line, count, told
from .clips import Clip, load

Recognise = Callable[[NDArray[np.float32]], str]


@dataclass(slots=True)
class Side:
    """One recogniser and what came of it."""

    name: str
    recognise: Recognise
    latencies: list[float] = field(default_factory=list)  # seconds
    pairs: list[tuple[str, str]] = field(default_factory=list)  # said, heard

    def hear(self, clip: Clip, audio: NDArray[np.float32]) -> None:
        began = time.perf_counter()
        heard = self.recognise(audio)
        self.latencies.append(time.perf_counter() - began)
        self.pairs.append((clip.text, heard))


def sides(threads: int) -> list[Side]:
    """Ours and the plain one, both int8 on the CPU with so many threads."""
    # ctranslate2 says that it turns the GIL on. It does, for both sides alike.
    warnings.filterwarnings("ignore", "The global interpreter lock", RuntimeWarning)
    folder = ModelStore().directory("whisper-base")
    ours = WhisperDecoder(folder, threads=threads, language="en")

    from faster_whisper import WhisperModel

    plain = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=threads)

    def transcribe(audio: NDArray[np.float32]) -> str:
        segments, _ = plain.transcribe(audio, language="en")
        return "".join(segment.text for segment in segments).strip()

    return [Side("threadline", lambda audio: ours.decode(audio).text), Side("plain", transcribe)]


def measure(clips: list[Clip], threads: int, console: Console) -> list[Side]:
    """Let both sides hear every clip, in turn; the first clip is heard once more, unmeasured."""
    both = sides(threads)
    for side in both:
        side.recognise(clips[0].heard)
    for number, clip in enumerate(track(clips, "decoding", console=console, transient=True)):
        audio = clip.heard
        for side in both if number % 2 else reversed(both):
            side.hear(clip, audio)
    return both


def report(both: list[Side], clips: list[Clip], threads: int) -> Table:
    seconds = sum(clip.seconds for clip in clips)
    words = sum(len(clip.text.split()) for clip in clips)
    table = Table(
        title=f"{len(clips)} prompts, {seconds:.0f} s, about {words} words; {threads} thread(s)"
    )
    table.add_column("")
    for heading in ("WER", "s per s of audio", "p50 ms", "p95 ms", "max ms"):
        table.add_column(heading, justify="right")
    for side in both:
        p50, p95 = np.percentile(side.latencies, [50, 95]) * 1_000
        table.add_row(
            side.name,
            f"{word_error_rate(side.pairs):.2%}",
            f"{sum(side.latencies) / seconds:.3f}",
            f"{p50:.0f}",
            f"{p95:.0f}",
            f"{max(side.latencies) * 1_000:.0f}",
        )
    return table


@told
def main(argv: list[str] | None = None) -> int:
    parser = command_line("python -m stress.bench.asr", __doc__)
    parser.add_argument("--clips", type=count, default=0, help="how many prompts (default: all)")
    parser.add_argument("--threads", type=count, default=2, help="of one decode (default: 2)")
    parser.add_argument("--shortest", type=amount, default=2.0, help="in seconds (default: 2)")
    parser.add_argument("--longest", type=amount, default=8.0, help="in seconds (default: 8)")
    parser.add_argument("--errors", action="store_true", help="show what each heard wrong")
    args = parser.parse_args(argv)
    console = Console()
    clips = load(args.shortest, args.longest)
    if not clips:
        raise ConfigError("No prompt has such a length: widen --shortest and --longest.")
    if args.clips > 0:  # spread over the names, because neighbours say almost the same
        step = max(1, len(clips) // args.clips)
        clips = clips[::step][: args.clips]
    both = measure(clips, args.threads, console)
    console.print(report(both, clips, args.threads))
    if args.errors:
        for clip, *heard in zip(clips, *(side.pairs for side in both), strict=True):
            for side, pair in zip(both, heard, strict=True):
                if word_error_rate([pair]):
                    line = f"{clip.name}: {side.name} heard {pair[1]!r} for {pair[0]!r}"
                    console.print(line, markup=False, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
