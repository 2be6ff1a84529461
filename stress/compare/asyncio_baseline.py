"""Everything on one asyncio loop, as the usual tutorial does it. What the server is compared with.

    tutorial   the receive coroutine runs the VAD inline, an answer is sent with
               `asyncio.sleep(0.02)` after each frame, other work is called where it falls due
    careful    the same by somebody who knows: uvloop, absolute deadlines, real-time priority, and
               all other work in `asyncio.to_thread`

Both hear the same network, speak the same protocol and hum the same tone as the server under
test. Neither can be interrupted, has limits, or survives a defect: this is less work, not more.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import http
import json
import logging
import sys
from collections.abc import Callable

import numpy as np
import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from threadline.audio import mulaw
from threadline.config import Vad
from threadline.listening.silero import WINDOW, Silero
from threadline.models.store import ModelStore
from threadline.threads.realtime import MEDIA_PRIORITY, prepare_thread

from ..bench.tone_server import ToneVoice
from . import saboteurs

FRAME = 160  # bytes, 20 ms
FRAME_SECONDS = 0.02


class Agent:
    """The calls of one loop."""

    def __init__(self, max_calls: int, clauses: int, careful: bool) -> None:
        path = ModelStore().path("silero-vad", "silero_vad.onnx")
        self._silero = Silero(path, max_calls)
        self._slots = list(range(max_calls))
        self._config = Vad()
        self._clauses, self._careful = clauses, careful
        self._called = 0

    async def call(self, socket: ServerConnection) -> None:
        """Receive, detect, answer."""
        slot, number = self._slots.pop(), self._called
        self._called += 1
        self._silero.reset(slot)
        heard, silence, speaking, answer = bytearray(), 0, False, None
        hangover = self._config.hangover_ms // 32
        stream = ""
        try:
            async for message in socket:
                event = json.loads(message)
                if event["event"] == "start":
                    stream = event["start"]["streamSid"]
                if event["event"] != "media":
                    continue
                heard += base64.b64decode(event["media"]["payload"])
                while len(heard) >= WINDOW:
                    samples = mulaw.decode_float(heard[:WINDOW])
                    del heard[:WINDOW]
                    at = np.array([slot])
                    speech = self._silero.run(at, samples[np.newaxis])[0]
                    if speech > self._config.threshold:
                        speaking, silence = True, 0
                    elif speaking and (silence := silence + 1) >= hangover:
                        speaking = False
                        answer = asyncio.create_task(self._answer(socket, stream, number))
        except ConnectionClosed:
            pass
        finally:
            if answer is not None:
                answer.cancel()
            self._slots.append(slot)

    async def _answer(self, socket: ServerConnection, stream: str, number: int) -> None:
        """Hum. Recognition and thought take no time, here as there."""
        loop = asyncio.get_running_loop()
        start, sent = loop.time(), 0
        for part in range(self._clauses):
            wave = ToneVoice().synthesize(f"Tone {number} part {part}.")
            audio = mulaw.encode_float(wave)
            for at in range(0, len(audio), FRAME):
                payload = base64.b64encode(audio[at : at + FRAME]).decode()
                media = {"event": "media", "streamSid": stream, "media": {"payload": payload}}
                await socket.send(json.dumps(media))
                sent += 1
                if self._careful:
                    await asyncio.sleep(start + sent * FRAME_SECONDS - loop.time())
                else:
                    await asyncio.sleep(FRAME_SECONDS)
        mark = {"event": "mark", "streamSid": stream, "mark": {"name": "end"}}
        await socket.send(json.dumps(mark))


async def sabotage(saboteur: saboteurs.Saboteur, careful: bool) -> None:
    """The same work as often, where a coroutine would do it."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        if careful:
            await asyncio.to_thread(saboteur.work)
        else:
            saboteur.work()
        due = max(due + saboteur.period, loop.time())
        await asyncio.sleep(due - loop.time())


def health(_: ServerConnection, request: Request) -> Response | None:
    """/readyz, for whoever measures."""
    if request.path != "/readyz":
        return None
    body = json.dumps({"gil_enabled": sys._is_gil_enabled()}).encode()
    headers = Headers({"Content-Length": str(len(body)), "Connection": "close"})
    return Response(http.HTTPStatus.OK, "OK", headers, body)


async def run(args: argparse.Namespace) -> None:
    careful = args.style == "careful"
    if careful:
        prepare_thread(priority=MEDIA_PRIORITY)
    agent = Agent(args.max_calls, args.clauses, careful)
    say: Callable[[int, str], object] = lambda n, text: logging.info("%s number=%d", text, n)  # noqa: E731  # a def would be as long and say less
    names = [name for name in args.sabotage.split(",") if name]
    others = [sabotage(one, careful) for one in saboteurs.make(names, say)]
    async with serve(agent.call, "127.0.0.1", 0, process_request=health) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        line = {"event": "listening", "host": "127.0.0.1", "port": port}
        print(json.dumps(line), file=sys.stderr, flush=True)
        await asyncio.gather(server.serve_forever(), *others)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--style", choices=("tutorial", "careful"), default="tutorial")
    parser.add_argument("--sabotage", default="")
    parser.add_argument("--max-calls", type=int, default=64)
    parser.add_argument("--clauses", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("websockets").setLevel(logging.WARNING)
    loops = uvloop.new_event_loop if args.style == "careful" else None
    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(run(args))


if __name__ == "__main__":
    main()
