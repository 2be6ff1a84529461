"""The three vendors of one call of stress/faults.py: well, or ill for a while.

They are the servers that the tests use (tests/vendors), each behind a gate of its own, which can
be shut. An illness is told when to begin and when to end; between the two every connection,
request and clause meets it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, override

from .faults_texts import ANSWERS, FIRST, LONG

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "vendors"))
deepgram: Any = import_module("deepgram_server")
llm: Any = import_module("llm_server")
cartesia: Any = import_module("cartesia_server")

SPEED = 1.5  # seconds of audio a second: what is cancelled is still being sent
START_SECONDS = 10.0


@dataclass
class Vendors:
    """The three, and which of the caller's lines is being dealt with."""

    deepgram: Any
    llm: Any
    cartesia: Any
    gates: dict[str, Gate]
    line: int = 0
    ill: Illness | None = None  # now

    def fall_ill(self, illness: Illness) -> None:
        self.ill = illness
        illness.begin(self)

    def recover(self) -> None:
        illness, self.ill = self.ill, None
        if illness is not None:
            illness.end(self)


def _nothing(vendors: Vendors) -> None:
    pass


@dataclass(frozen=True)
class Illness:
    """What is wrong, for each way in which a vendor is met; None: nothing."""

    begin: Callable[[Vendors], None] = _nothing
    end: Callable[[Vendors], None] = _nothing
    ears: Any = None  # deepgram_server.Plan: of a new connection
    request: Callable[[Any], None] | None = None  # of the model: takes its Exchange
    only: str = ""  # of this model
    handshake: Any = None  # of the voice
    clause: Any = None  # cartesia_server.Fault


class _Plans(deque[Any]):
    """A list of plans that never ends: each is asked for when it is needed."""

    def __init__(self, plan: Callable[[], Any]) -> None:
        super().__init__()
        self._plan = plan

    def __bool__(self) -> bool:
        return True

    @override
    def popleft(self) -> Any:
        return self._plan()


class Gate:
    """A port that leads to another. On the loop of its `Gates`."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.get_running_loop()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def shut(self) -> None:
        """From any thread: refuse, and break what is open."""
        self._do(self._shut)

    def open(self) -> None:
        """From any thread: as before."""
        asyncio.run_coroutine_threadsafe(self.listen(), self._loop).result(START_SECONDS)

    def cut(self) -> None:
        """From any thread: break what is open."""
        self._do(self._cut)

    def _do(self, what: Callable[[], None]) -> None:
        async def work() -> None:
            what()

        asyncio.run_coroutine_threadsafe(work(), self._loop).result(START_SECONDS)

    def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
        self._cut()

    def _cut(self) -> None:
        for writer in self._open:
            _reset(writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer}
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer), return_exceptions=True)
        finally:
            self._open -= {writer}
            writer.transport.abort()
            back.transport.abort()


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until it ends; a broken end breaks the other one too."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError, RuntimeError:
        _reset(writer)


class Ears:
    """What is said, whatever it sounds like: the number of the line. A `deepgram_server.Voice`."""

    def __init__(self, vendors: Callable[[], Vendors]) -> None:
        self._vendors = vendors

    def words(self, segment: bytes, share: str) -> list[tuple[str, float, float]]:
        loud = segment.translate(deepgram.Texts.LOUD)
        if share == "some" or loud.count(1) < 400:
            return []
        first, last = loud.index(1) / 8000, (loud.rindex(1) + 1) / 8000
        middle = (first + last) / 2
        return [("line", first, middle), (str(self._vendors().line), middle, last)]


@contextmanager
def vendors(long: bool) -> Iterator[Vendors]:
    """All three; `long`: the first answer is, so that it can be interrupted."""
    made: Vendors

    def ill() -> Illness:
        return made.ill or Illness()

    def answer(exchange: Any) -> None:
        illness, model = ill(), exchange.body["model"]
        if illness.request is not None and illness.only in ("", model):
            illness.request(exchange)
        elif long and made.line == 1 and model == FIRST:
            drawl(exchange, LONG)
        else:
            exchange.stream(said(made.line, model))

    def said(line: int, model: str) -> list[str]:
        return [f"{word} " for word in ANSWERS[max(1, line), model].split()]

    def plan() -> Callable[[Any], None]:
        return answer

    with ExitStack() as stack:
        ears = deepgram.DeepgramServer(
            key="local", plans=_Plans(lambda: ill().ears), voice=lambda: Ears(lambda: made)
        )
        brain = llm.LlmServer(plans=_Plans(plan))
        voice = cartesia.CartesiaServer(
            first_ms=50.0,
            speed=SPEED,
            key="local",
            handshakes=_Plans(lambda: ill().handshake),
            clauses=_Plans(lambda: ill().clause),
        )
        stack.enter_context(ears)
        stack.enter_context(brain)
        gates = stack.enter_context(_on_a_loop(voice, ears.port, brain))
        made = Vendors(ears, brain, voice, gates)
        yield made


def drawl(exchange: Any, text: str) -> None:
    """Three words at a time, so that it can be cut off while it comes."""
    exchange.begin()
    words = text.split()
    for at in range(0, len(words), 3):
        exchange.send(llm.chunk({"content": f"{' '.join(words[at : at + 3])} "}))
        if exchange.stopping.wait(0.05):
            return
    exchange.send(llm.tail())
    exchange.end()


@contextmanager
def _on_a_loop(voice: Any, ears: int, brain: Any) -> Iterator[dict[str, Gate]]:
    """The voice's server and the gates, on a thread of their own."""
    ready, gates = threading.Event(), dict[str, Gate]()
    over: list[Callable[[], object]] = []

    async def run() -> None:
        end, loop = asyncio.Event(), asyncio.get_running_loop()
        over.append(lambda: loop.call_soon_threadsafe(end.set))
        async with voice:
            ports = {"deepgram": ears, "openai": int(brain.url.split(":")[2].split("/")[0])}
            for name, port in (ports | {"cartesia": voice.port}).items():
                gates[name] = Gate(port)
                await gates[name].listen()
            ready.set()
            await end.wait()
            for gate in gates.values():
                gate._shut()
            await asyncio.sleep(0.05)

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="vendors", daemon=True)
    thread.start()
    assert ready.wait(START_SECONDS), "the local vendors do not start"
    try:
        yield gates
    finally:
        over[0]()
        thread.join(START_SECONDS)
