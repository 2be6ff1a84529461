"""What the benchmarks of whole calls share: a spoken clip, a server process, its metrics."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from threadline.audio import mulaw
from threadline.audio.levels import speech_bounds
from threadline.audio.stream import Resampler
from threadline.models.piper import PiperVoice
from threadline.models.store import ModelStore
from threadline.threads.child_server import ChildServer, child_server
from threadline.wire.script import Clip


def voice() -> PiperVoice:
    """The local voice, which also lends itself to callers."""
    folder = ModelStore().directory("piper-joe")
    return PiperVoice(folder / "en_US-joe-medium.onnx", folder / "en_US-joe-medium.onnx.json")


def spoken(speaker: PiperVoice, text: str, name: str) -> Clip:
    """A line as the local voice says it."""
    stream = Resampler(speaker.rate, mulaw.RATE)
    codes = mulaw.encode_float(stream.feed(speaker.synthesize(text)))
    codes += mulaw.encode_float(stream.finish())
    return clip(name, codes)


def clip(name: str, codes: bytes) -> Clip:
    """Mu-law as a clip, with the true bounds of its speech."""
    first, last = speech_bounds(mulaw.decode(codes), mulaw.RATE)
    return Clip(name, codes, (first, last) if last else None)


@contextmanager
def serving(module: str, *flags: str) -> Iterator[tuple[ChildServer, Path]]:
    """A server process, `python -m module`, and the file of its JSON log."""
    command = [sys.executable, "-m", module, *flags, "--port", "0", "--log-format", "json"]
    command += ["--set", "server.drain_seconds=1"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.jsonl"
        with child_server(command, log) as server:
            yield server, log


def quantile_ms(page: str, metric: str, q: float) -> float:
    """The bucket bound, in ms, that a share `q` of a histogram's observations did not exceed."""
    buckets = [
        (float(sample.labels["le"]), sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == f"{metric}_bucket"
    ]
    total = buckets[-1][1]
    return next(bound for bound, count in buckets if count >= q * total) * 1e3


def value(page: str, metric: str) -> float:
    """A counter or a gauge."""
    return next(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == metric
    )
