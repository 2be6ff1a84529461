"""asr's and reply's side of the ears, and a way to play a scene against a local server."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "vendors"))
import deepgram_server as dg
from deepgram_server import DeepgramServer, Plan, Wire, speak

from threadline.config import Deepgram
from threadline.threads.messages import (
    CallClosed,
    CallOpened,
    HearChunk,
    Heard,
    HearFailed,
    HearFinal,
    HearForget,
)
from threadline.threads.vendor_stt import Ears
from threadline.vendors.deepgram_stream import Stream

__all__ = ["PATIENCE", "DeepgramServer", "Desk", "Plan", "Wire", "controls", "dg", "play", "speak"]

PATIENCE = 20.0
WINDOW = 256


class Desk:
    """asr's and reply's side: tells, and collects what comes back."""

    def __init__(self, config: Deepgram, final_seconds: float) -> None:
        self.events: list[Heard | HearFailed] = []
        self.ears = Ears(config, final_seconds, self.events.append)  # type: ignore[arg-type]  # Event

    def open(self, slot: int = 0, generation: int = 1) -> None:
        self.ears.handle(CallOpened(slot, generation, "CA1", {}))

    def hang_up(self, slot: int = 0, generation: int = 1) -> None:
        self.ears.handle(CallClosed(slot, generation, "over"))

    def say(self, utterance: int, audio: bytes, slot: int = 0, generation: int = 1) -> None:
        for at in range(0, len(audio), WINDOW):
            piece = audio[at : at + WINDOW]
            self.ears.handle(HearChunk(slot, generation, utterance, piece))

    def ask(self, utterance: int, windows: int = 9, slot: int = 0, generation: int = 1) -> None:
        self.ears.handle(HearFinal(slot, generation, utterance, windows))

    def forget(self, utterance: int, slot: int = 0) -> None:
        self.ears.handle(HearForget(slot, 1, utterance))

    def endings(self, utterance: int, slot: int = 0) -> list[Heard | HearFailed]:
        return [
            event
            for event in self.events
            if (event.slot, event.utterance) == (slot, utterance)
            and (isinstance(event, HearFailed) or event.final)
        ]

    async def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"never: {what}; got {self.events}"
            await asyncio.sleep(0.002)

    async def end_of(self, utterance: int, slot: int = 0, count: int = 1) -> Heard | HearFailed:
        await self.until(
            lambda: len(self.endings(utterance, slot)) >= count, f"the end of {utterance}"
        )
        assert len(self.endings(utterance, slot)) == count
        return self.endings(utterance, slot)[-1]

    async def text_of(self, utterance: int, slot: int = 0, count: int = 1) -> str:
        end = await self.end_of(utterance, slot, count)
        assert isinstance(end, Heard), end
        return end.text

    async def reason_of(self, utterance: int) -> str:
        end = await self.end_of(utterance)
        assert isinstance(end, HearFailed), end
        return end.reason

    async def connected_again(self) -> None:
        """The deadline under test has passed: from here on only a defect takes time."""
        self.ears.config = replace(self.ears.config, connect_seconds=PATIENCE)
        self.ears.final_seconds = PATIENCE
        session = self.ears._sessions[0]
        session._stream = Stream(PATIENCE)
        await self.until(lambda: session._ws is not None, "a new connection")

    async def connected(self, count: int = 1) -> None:
        await self.until(lambda: self.ears.connected == count, f"{count} connections")


def play(
    server: DeepgramServer | str,
    scenario: Callable[[Desk], Awaitable[None]],
    final_seconds: float = PATIENCE,
    connect_seconds: float = 10 * PATIENCE,
    key: str = "",
) -> Desk:
    url = server if isinstance(server, str) else server.url
    config = Deepgram(url=url, api_key=key, connect_seconds=connect_seconds)

    async def main() -> Desk:
        desk = Desk(config, final_seconds)
        try:
            async with asyncio.timeout(3 * PATIENCE):
                await scenario(desk)
        finally:
            async with asyncio.timeout(PATIENCE):
                await desk.ears.close()
        assert desk.ears.connected == 0
        assert not desk.ears._tasks
        return desk

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def controls(wire: Wire) -> list[str]:
    return [json.loads(m)["type"] for m in wire.received if isinstance(m, str)]
