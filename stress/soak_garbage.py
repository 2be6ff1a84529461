"""Does a frame leave garbage behind that only the collector can find? Counted by the collector.

    python -m stress.soak_garbage            prints one JSON object

A server's own threads in this process, with the collector off, as always while calls are on. Calls
are held for a short time and for a long one; after each, a collection says how many objects it
found unreachable. What that number grows by with the frames is what a frame leaves behind.

Two ways to hold a call: the agent talks and the caller is silent (sockets, vad, pacer, reply), or
the caller talks all the time (sockets, vad, asr).
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from threadline.audio import mulaw
from threadline.config import Asr, Config, Log, Stt
from threadline.config import Server as ServerConfig
from threadline.dialog.brain import Answer
from threadline.listening.silero import Silero
from threadline.models.store import ModelStore
from threadline.threads import gil, logs, server
from threadline.threads.calls import FRAME
from threadline.threads.io_calls import listen

from .bout import Bout, Crew
from .soak import Caller
from .whole import Loudness

CALLS = 20
WARM_SECONDS = 1.5
SECONDS = (1.0, 4.0)
TICK = 0.02
_SILENCE = mulaw.SILENCE_BYTE * FRAME


@dataclass(frozen=True, slots=True)
class Found:
    """After one round: frames in and out, objects that the collector found unreachable."""

    heard: int
    said: int
    objects: int


class Monologue:
    """A brain that talks on and on."""

    greeting = " ".join(f"This is sentence number {n} of a speech." for n in range(12))

    def begin(self) -> int:
        return 0

    def answer(self, state: int, words: str) -> tuple[int, Answer]:
        return state, Answer("")


class Drone:
    """A voice: two seconds of one tone, whatever the clause."""

    rate = mulaw.RATE

    def synthesize(self, text: str) -> NDArray[np.float32]:
        at = np.arange(2 * self.rate, dtype=np.float32) / self.rate
        return (0.3 * np.sin(2 * np.pi * 300 * at)).astype(np.float32)


def measure(
    silero: Path, *, speaking: bool, calls: int = CALLS, seconds: Sequence[float] = SECONDS
) -> list[Found]:
    """One `Found` for each of `seconds`. `speaking`: the callers talk, not the agent."""
    bout = Bout("garbage", 1, 1.0)
    vad = Loudness if speaking else Silero
    with patch.object(server, "Silero", vad), _serving(silero, calls, speaking) as made:
        callers = [Caller(bout, number, made.address, bout.rng) for number in range(calls)]
        for caller in callers:
            bout.expect(caller.upgrade() == 101, f"call {caller.number} was refused")
            caller.start()
            caller.sock.setblocking(False)
        crew = Crew(bout)
        try:
            crew.start("callers", lambda: _talk(crew, callers, speaking))
            time.sleep(WARM_SECONDS)
            found = [_round(made, callers, length) for length in (0.0, *seconds)][1:]
            defects = any(one.defects for one in made.supervisor.stages)
            bout.expect(not defects, "a stage raised")
            bout.expect(made.door.opened == made.door.live == calls, "not every call was on")
            bout.expect(
                sum(vad.floors for vad in made.vads) == calls * speaking,
                "the VAD heard something else",
            )
            return found
        finally:
            crew.end()
            for caller in callers:
                caller.close()


def _round(made: server.Server, callers: Sequence[Caller], seconds: float) -> Found:
    heard, said = sum(caller.sent for caller in callers), made.ios[0].frames
    time.sleep(seconds)
    objects = gc.collect()
    return Found(sum(caller.sent for caller in callers) - heard, made.ios[0].frames - said, objects)


def _talk(crew: Crew, callers: Sequence[Caller], speaking: bool) -> None:
    """A frame of each caller every 20 ms; what the server sends is read and thrown away."""
    hum = mulaw.encode_float((0.5 * np.sin(np.arange(FRAME))).astype(np.float32))
    payload = hum if speaking else _SILENCE
    due = time.monotonic()
    while not crew.over:
        for caller in callers:
            caller.send(caller.carrier.media(payload))
            caller.sent += 1
            try:
                while caller.sock.recv(65_536):
                    pass
            except BlockingIOError:
                pass
        due += TICK
        time.sleep(max(0.0, due - time.monotonic()))


@contextmanager
def _serving(silero: Path, calls: int, speaking: bool) -> Iterator[server.Server]:
    brain = Monologue()
    if speaking:
        brain.greeting = ""
    parts = server.Parts(
        silero=silero,
        brain=brain,
        load_voice=Drone,
        decoder="stress.whole:ByEar",
        decoder_options={},
    )
    config = Config(
        server=ServerConfig(max_calls=calls, drain_seconds=0.1),
        stt=Stt(chain=("whisper",)),
        asr=Asr(deadline_seconds=20.0),
    )
    verdict = gil.judge(gil.facts(), "isolate")
    made = server.Server(config, verdict, parts, listen("127.0.0.1", 0))
    logs.start(Log(level="error"))
    made.start()
    try:
        yield made
    finally:
        made.close()
        logs.stop(2.0)
        logs.start(Log())  # the level as it was
        logs.stop(2.0)


def main() -> int:
    silero = ModelStore().path("silero-vad", "silero_vad.onnx")
    found = {
        name: [asdict(one) for one in measure(silero, speaking=speaking)]
        for name, speaking in (("the agent talks", False), ("the callers talk", True))
    }
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
