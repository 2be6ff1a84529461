"""A server for measurements of the media path: real sockets, rings, VAD and threads, no thinking.

Its voice answers every turn of a call with a tone of its own pitch, so that a frame of another
call can be told; its recogniser knows one word and needs no time. Run by `pacing.py` as a
process of its own; takes the flags of `threadline serve`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from threadline.cli_serve import add_parser, settings
from threadline.dialog.brain import Answer
from threadline.listening.agreement import Word
from threadline.models.store import ModelStore
from threadline.threads import gil, logs
from threadline.threads.asr_worker import Decoder
from threadline.threads.io_calls import listen
from threadline.threads.server import Parts, Server

from ..flags import told

RATE = 8_000
LOWEST_HZ, STEP_HZ, TONES = 300, 40, 80
SECONDS = 20  # of tone in one answer, in clauses of five


def hertz(number: int) -> int:
    """The pitch of the call whose brain has this number; calls TONES apart share one."""
    return LOWEST_HZ + STEP_HZ * (number % TONES)


@dataclass
class Humming:
    """A brain that answers everything with the call's number, four clauses long."""

    greeting: str = ""
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def begin(self) -> int:
        return next(self._numbers)

    def answer(self, state: int, words: str) -> tuple[int, Answer]:
        clauses = [f"Tone {state} part {part}." for part in range(SECONDS // 5)]
        return state, Answer(" ".join(clauses))


class ToneVoice:
    """Five seconds of the tone that a clause names."""

    rate = RATE

    def synthesize(self, text: str) -> NDArray[np.float32]:
        named = re.search(r"Tone (\d+)", text)
        if named is None:
            return np.zeros(RATE // 2, np.float32)
        at = np.arange(5 * RATE, dtype=np.float32)
        wave = 0.4 * np.sin(2 * np.pi * hertz(int(named[1])) * at / RATE)
        return wave.astype(np.float32)


@dataclass(frozen=True)
class Heard:
    text: str
    words: tuple[Word, ...] = ()  # their times are nobody's business here


class OneWord(Decoder):
    """A decoder that hears the same word in everything."""

    def decode(self, audio: NDArray[np.float32], /) -> Heard:
        return Heard("hello")


@told
def serve(flags: Sequence[str], brain: Humming) -> int:
    """Until a signal. `flags` are those of `threadline serve`."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    config = settings(parser.parse_args(["serve", *flags]), os.environ)
    verdict = gil.preload(config.gil, recogniser=())
    parts = Parts(
        silero=ModelStore().path("silero-vad", "silero_vad.onnx"),
        load_voice=ToneVoice,
        decoder="stress.bench.tone_server:OneWord",
        decoder_options={},
        brain=brain,
    )
    server = Server(config, verdict, parts, listen(config.server.host, config.server.port))
    logs.start(config.log)
    try:
        server.start()
        return server.run()
    finally:
        logs.stop(2.0)


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:], Humming()))
