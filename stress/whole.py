"""The whole server on its real threads, with inference that takes no time and can be checked.

Each caller hums a tone of its own. The fake VAD takes what is loud for speech; the fake
recogniser, in its real child process, says which tone it heard; the brain answers with that
number and a serial number; the voice speaks both as labels (pattern.py), which pass the rest of
the server unchanged. So a phone can tell from every frame it is sent whether somebody took
another's speech, text or audio for its own, and whether an answer is older than it may be.

    python -m stress.whole SEED DISTURBANCES FLAGS...    as a process of its own

DISTURBANCES are names of perturb.py, joined by commas, or `none`; FLAGS are `threadline serve`'s.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, override

import numpy as np
from numpy.typing import NDArray

from threadline.audio import mulaw
from threadline.cli_serve import add_parser, settings
from threadline.config import Asr, Config, Vad
from threadline.config import Server as ServerConfig
from threadline.dialog.brain import Answer
from threadline.listening.agreement import Word
from threadline.observe.headroom import Headroom
from threadline.observe.histogram import LATENESS_MS
from threadline.threads import gil, logs, server
from threadline.threads.asr_worker import Decoder
from threadline.threads.calls import FRAME
from threadline.threads.child_server import ChildServer, child_server
from threadline.threads.io_calls import listen
from threadline.threads.supervisor import ignore_signals

from . import pattern
from .bout import Bout
from .perturb import ALL
from .phones import Phone

TONES = 200
LOWEST_HZ, STEP_HZ = 300, 15
SECONDS_OF_TONE = 0.1
EXCUSE = 0xEEEE  # as a call's number: what the agent says without having understood
MUDDLED = 0xBAD0  # several callers' words in one turn
PIECES, PIECE_FRAMES = ("alpha", "beta", "gamma"), 12
_SILENCE = mulaw.SILENCE_BYTE * FRAME
_MODEL_RATE = 16_000

VAD = Vad(
    onset_ms=32, min_speech_ms=32, interrupt_ms=32, grace_ms=32, resume_ms=32, probe_ms=32,
    hangover_ms=64, preroll_ms=32, batch_ms=1,
)  # fmt: skip
"""A caller's burst of 300 ms is a whole turn, and an interruption."""


class Loudness:
    """In the place of Silero: what is loud is speech."""

    def __init__(self, path: Path, slots: int) -> None:
        """As Silero; there is no file."""

    def reset(self, slot: int) -> None:
        """It keeps no state."""

    def run(self, slots: NDArray[np.intp], windows: NDArray[np.float32]) -> NDArray[np.float32]:
        power: NDArray[np.float32] = np.einsum("ij,ij->i", windows, windows)
        return np.where(power > 1.0, np.float32(1), np.float32(0))


@dataclass(frozen=True)
class Heard:
    text: str
    words: tuple[Word, ...] = ()  # their times are nobody's business here


class _Undaunted(Headroom):
    """Takes every call: a server that is disturbed on purpose would rightly take no more."""

    def look(self, now: float, counts: Sequence[int], waited: float, queued: int) -> str:
        return ""


class ByEar(Decoder):
    """A decoder that says which tone it hears."""

    def decode(self, audio: NDArray[np.float32], /) -> Heard:
        spectrum = np.abs(np.fft.rfft(audio, _MODEL_RATE))  # bins of 1 Hz
        return Heard(str(round((int(spectrum.argmax()) - LOWEST_HZ) / STEP_HZ)))


@dataclass
class Echo:
    """A brain that says back what it heard, under a new serial number each time."""

    greeting: str = ""
    _serials: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def begin(self) -> int:
        return 0

    def answer(self, state: int, words: str) -> tuple[int, Answer]:
        heard, serial = set(words.split()), next(self._serials)
        number = heard.pop() if len(heard) == 1 else MUDDLED
        said = [f"Call {number} answer {serial} piece {piece}." for piece in PIECES]
        return state + 1, Answer(" ".join(said))


class Labels:
    """The voice."""

    rate = mulaw.RATE

    def synthesize(self, text: str) -> NDArray[np.float32]:
        said = re.findall(r"Call (\d+) answer (\d+) piece (\w+)", text)
        codes = b"".join(
            pattern.frame(int(number), int(serial), PIECES.index(piece), count)
            for number, serial, piece in said or [(EXCUSE, 0, PIECES[0])]
            for count in range(PIECE_FRAMES)
        )
        return mulaw.decode_float(codes)


def tone(number: int) -> bytes:
    """What this caller hums: a burst that is a turn, silence included. Whole frames."""
    at = np.arange(int(SECONDS_OF_TONE * mulaw.RATE)) / mulaw.RATE
    hum = 0.5 * np.sin(2 * np.pi * (LOWEST_HZ + STEP_HZ * (number % TONES)) * at)
    return mulaw.encode_float(hum.astype(np.float32)) + _SILENCE * 8


class Caller(Phone):
    """A phone that hums and checks what it is answered."""

    def __init__(self, bout: Bout, number: int, address: tuple[str, int], *, full: bool) -> None:
        super().__init__(bout, number, address, full=full)
        self.hums = 0
        self.excuses = self.answered = 0  # answers that began, with an excuse or not
        self._hum = tone(number)
        self._serial = self._last = -1  # of the answer that sounds, and the newest of all
        self._next = 0  # frame of it
        self.answer_over = False  # all of it was heard

    def hum(self) -> None:
        """Take the floor, say our tone, end the turn. On the thread that reads."""
        self.hums += 1
        hum = (self._hum[at : at + FRAME] for at in range(0, len(self._hum), FRAME))
        self.send(*map(self.carrier.media, hum))

    def expect_answer(self) -> None:
        """From now on only what comes counts as heard."""
        self.fresh = 0
        self.answer_over = False

    @override
    def _check(self, label: pattern.Label) -> None:
        expect, who = self._bout.expect, f"caller {self.number}"
        if label.call == EXCUSE:
            self.excuses += label.number == 0
            self.fresh, self._cleared, self._ended = self.fresh + 1, False, False
            self._serial = -1
            return
        expect(label.call == self.number % TONES, f"{who} heard {label}, for another call")
        if label.epoch != self._serial:
            if self._serial >= 0:
                over = self._cleared or self._ended
                expect(
                    over, f"{who} heard {label} with answer {self._serial} neither cleared nor over"
                )
            newer = label.epoch > self._last
            expect(newer, f"{who} heard {label}: answer {self._last} came before it")
            self._serial = self._last = label.epoch
            self._next = 0
            self.answered += 1
        elif self._cleared:
            self._bout.forbid(f"{who} heard {label} after its clear")
        at = label.clause * PIECE_FRAMES + label.number
        expect(at == self._next, f"{who} heard {label}, not frame {self._next} of the answer")
        self._next += 1
        self._cleared = self._ended = False
        self.fresh += 1

    @override
    def _check_mark(self, epoch: int, clause: str) -> None:
        """The serial number is not the epoch: only that nothing follows a clear but audio."""
        self._bout.expect(not self._cleared, f"caller {self.number}: a mark after a clear")
        self.answer_over = clause == "end"


# -- in this process -----------------------------------------------------------------------------


def make(
    calls: int,
    *,
    brain: Any = None,
    decoder: str = "stress.whole:ByEar",
    voice: Callable[[], Any] = Labels,
    placement: gil.Placement = "process",
    drain_seconds: float = 1.0,
) -> server.Server:
    """A server that has not been started."""
    config = Config(
        vad=VAD,
        asr=Asr(deadline_seconds=20.0),
        server=ServerConfig(max_calls=calls, drain_seconds=drain_seconds),
    )
    return _server(config, brain, decoder, voice, placement, listen("127.0.0.1", 0))


def _server(
    config: Config, brain: Any, decoder: str, voice: Any, placement: gil.Placement, listener: Any
) -> server.Server:
    found = gil.facts()
    verdict = gil.judge(found, "accept" if placement == "thread" else "isolate")
    parts = server.Parts(
        silero=Path(),
        load_voice=voice,
        decoder=decoder,
        decoder_options={},
        brain=brain or Echo(),
    )
    setattr(server, "Silero", Loudness)  # noqa: B010  # the one part it makes by itself
    made = server.Server(config, verdict, parts, listener)
    made._headroom = _Undaunted(LATENESS_MS, config.asr.queue)
    if verdict.fallback:  # the GIL build: the same number of calls
        made.door.limit = config.server.max_calls
    return made


# -- as a process of its own ---------------------------------------------------------------------


@contextmanager
def apart(
    seed: int, disturbances: Sequence[str], calls: int, *flags: str
) -> Iterator[tuple[ChildServer, Path]]:
    """The server's process, and the file of its JSON log."""
    command = [sys.executable, "-X", "faulthandler", "-m", "stress.whole", str(seed)]
    command += [",".join(disturbances) or "none", "--max-calls", str(calls), "--port", "0"]
    command += ["--log-format", "json", *flags]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.jsonl"
        with child_server(command, log) as child:
            try:
                yield child, log
            except AssertionError:
                told = [line for line in log.read_text().splitlines() if '"turn"' not in line]
                print("the server said last:", *told[-40:], sep="\n", file=sys.stderr)
                raise


def recognisers(pid: int) -> list[int]:
    """The worker processes of a server."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def kill(pid: int) -> None:
    """As a crash of native code would."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("seed", type=int)
    parser.add_argument("disturbances")
    add_parser(parser.add_subparsers())
    seed, disturbances = sys.argv[1], sys.argv[2]
    config = settings(parser.parse_args([seed, disturbances, "serve", *sys.argv[3:]]), os.environ)
    config = replace(config, vad=VAD, asr=replace(config.asr, deadline_seconds=20.0))
    gil.preload(config.gil, recogniser=())
    listener = listen(config.server.host, config.server.port)
    logs.start(config.log)
    made = _server(config, None, "stress.whole:ByEar", Labels, "process", listener)
    try:
        with ExitStack() as stack:
            made.start()
            for name in disturbances.split(","):
                if name != "none":
                    stack.enter_context(ALL[name](random.Random(f"{seed} {name}")))
            return made.run()
    finally:
        logs.stop(2.0)
        ignore_signals()


if __name__ == "__main__":
    sys.exit(main())
