"""Recorded human speech through the whole server: is it heard right, and as one turn?

    python -m stress.bench.speech --clips 40

Telephone prompts of Debian's asterisk-core-sounds-en-wav are said into real calls, over the
WebSocket, through VAD and recogniser; what the server's log says was heard is compared with the
prompts' texts. Then line noise and silence, for a minute each: nothing may be heard in them.

Exit status 0 when the word error rate is at most 5 %, no more than one prompt in twenty became
two turns, and nothing was invented. The server runs in this process, with a brain that only
says "Go on." so that the calls follow no script.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from threadline.audio import mulaw
from threadline.cli_serve import real_parts
from threadline.config import Config, Log
from threadline.config import Server as ServerConfig
from threadline.dialog.brain import Answer
from threadline.errors import ThreadlineError
from threadline.observe.callreport import ServerTurn, server_turns
from threadline.observe.words import errors, normalise, word_error_rate
from threadline.threads import gil, logs
from threadline.threads.caller import place_calls
from threadline.threads.child_server import ready
from threadline.threads.io_calls import listen
from threadline.threads.phone_line import CallPlan
from threadline.threads.server import Server

from ..flags import command_line, count, told
from ..until import until
from . import clips as prompts
from .phone import clip

WER_LIMIT = 0.05
CUT_LIMIT = 1 / 20
NOISE_SECONDS = 60
QUIET = mulaw.SILENCE_BYTE * mulaw.RATE  # after what is said, before the caller hangs up


class Listener:
    """A brain that lets the caller go on."""

    greeting = ""

    def begin(self) -> None:
        return None

    def answer(self, state: None, words: str) -> tuple[None, Answer]:
        return None, Answer("Go on.")


@told
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line("bench speech", __doc__)
    parser.add_argument("--clips", type=count, default=40)
    parser.add_argument("--calls", type=count, default=4, help="prompts at once")
    args = parser.parse_args(argv)
    console = Console()
    try:
        chosen = _spread(prompts.load(), args.clips)
    except ThreadlineError as error:
        console.print(str(error))
        return error.exit_code
    seconds = sum(one.seconds for one in chosen)
    console.print(f"{len(chosen)} prompts, {seconds:.0f} s of speech, {args.calls} calls at once")
    with _serving() as (address, log):
        turns = _say(address, log, [one.mulaw for one in chosen], args.calls, console)
        noises = _noises()
        console.print(f"now {len(noises)} kinds of noise, {NOISE_SECONDS} s of each")
        invented = _say(address, log, list(noises.values()), len(noises), console)
    heard = [" ".join(turn.heard for turn in said) for said in turns]
    wer = word_error_rate((one.text, text) for one, text in zip(chosen, heard, strict=True))
    cut = [one.name for one, said in zip(chosen, turns, strict=True) if len(said) > 1]
    _tell(console, chosen, heard)
    console.print(f"word error rate {wer:.1%} (limit {WER_LIMIT:.0%})", highlight=False)
    console.print(f"became two turns: {len(cut)} of {len(chosen)} {cut}", highlight=False)
    made_up = {
        name: [turn.heard for turn in said]
        for name, said in zip(noises, invented, strict=True)
        if any(turn.heard for turn in said)
    }
    console.print(f"heard in noise: {made_up or 'nothing'}", highlight=False)
    return int(wer > WER_LIMIT or len(cut) > CUT_LIMIT * len(chosen) or bool(made_up))


def _spread(found: list[prompts.Clip], count: int) -> list[prompts.Clip]:
    """As many as asked for, from all over the alphabet."""
    step = max(1, len(found) // count)
    return found[::step][:count]


@contextmanager
def _serving() -> Iterator[tuple[str, Path]]:
    """A server of this process on a free port, and its log."""
    config = Config(server=ServerConfig(port=0, max_calls=16), log=Log(format="json"))
    verdict = gil.preload(config.gil)
    parts = replace(real_parts(config), brain=Listener())
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        fd = os.open(log, os.O_WRONLY | os.O_CREAT)
        server = Server(config, verdict, parts, listen("127.0.0.1", 0))
        logs.start(config.log, fd=fd)
        server.start()
        address = f"127.0.0.1:{server.address[1]}"
        try:
            while not ready(address)[0]:
                pass  # each question takes its time; the recogniser loads for a second or two
            yield address, log
        finally:
            server.close()
            logs.stop(2.0)
            os.close(fd)


def _say(
    address: str, log: Path, speech: Sequence[bytes], at_once: int, console: Console
) -> list[list[ServerTurn]]:
    """A call for each piece of sound; the turns in which the server heard words, call by call."""

    def place(codes: bytes) -> str:
        plan = CallPlan(
            url=f"ws://{address}/twilio",
            clips=(clip("prompt", codes + QUIET),),
            greeting=False,
            answer_within=5.0,
        )
        return place_calls(plan).calls[0].call_sid

    with (
        ThreadPoolExecutor(at_once) as phones,
        Progress(console=console, transient=True) as progress,
    ):
        calls = list(
            progress.track(phones.map(place, speech), total=len(speech), description="speaking")
        )
    _until_closed(log, calls)
    found = server_turns(log)
    return [[turn for turn in found.get(call, []) if turn.heard] for call in calls]


def _until_closed(log: Path, calls: Sequence[str]) -> None:
    """The log is written behind the calls: a turn comes before the record that closes its call."""

    def logged() -> bool:
        lines = [line for line in log.read_text().splitlines() if '"call closed"' in line]
        return all(any(call in line for line in lines) for call in calls)

    until(logged, "the server logs the end of every call", 10.0)


def _noises() -> dict[str, bytes]:
    """What a line carries when nobody speaks, as mu-law."""
    random = np.random.default_rng(7)
    count = NOISE_SECONDS * mulaw.RATE
    at = np.arange(count) / mulaw.RATE
    white = random.normal(0, 1, count)
    pink = np.cumsum(white) - np.cumsum(white).mean()
    pink /= np.abs(pink).max()
    crackle = np.where(random.random(count) < 0.0005, random.normal(0, 0.3, count), 0)
    waves: dict[str, NDArray[np.float64]] = {
        "silence": np.zeros(count),
        "white noise, -45 dBFS": white * 10 ** (-45 / 20),
        "brown noise, -25 dBFS": pink * 10 ** (-15 / 20),
        "50 Hz hum": 0.05 * np.sin(2 * np.pi * 50 * at) + 0.02 * np.sin(2 * np.pi * 150 * at),
        "crackle": crackle + white * 10 ** (-55 / 20),
    }
    return {name: mulaw.encode_float(wave.astype(np.float32)) for name, wave in waves.items()}


def _tell(console: Console, chosen: Sequence[prompts.Clip], heard: Sequence[str]) -> None:
    """The prompts that were not heard word for word."""
    table = Table("prompt", "said", "heard", box=None, pad_edge=False)
    for one, text in zip(chosen, heard, strict=True):
        if errors(normalise(one.text), normalise(text)):
            table.add_row(one.name, one.text, text)
    if table.row_count:
        console.print(table)


if __name__ == "__main__":
    sys.exit(main())
