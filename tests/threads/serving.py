"""Whole servers for tests, and a telephone played by hand.

`house` is a `Server` in this process: real sockets, threads and VAD; unless told otherwise a voice
of tones, a brain that says one sentence, and a decoder of orders in a real child process. `alone`
is the io-calls thread without the others, whose parts the test plays. `Line` is one connection of
a carrier: nothing happens on it but what the test says, and every wait has a deadline.
"""

from __future__ import annotations

import json
import os
import select
import socket
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from helpers import DEADLINE, Worker, until
from numpy.typing import NDArray
from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.uri import parse_uri

from threadline.agent import Agent
from threadline.audio import mulaw
from threadline.audio.stream import Resampler
from threadline.cli_serve import make_brain
from threadline.config import Config, Log
from threadline.config import Server as ServerConfig
from threadline.dialog.brain import Answer, LocalBrain, RemoteBrain
from threadline.models.piper import PiperVoice
from threadline.models.store import ModelStore
from threadline.talking.clauses import ClauseCutter
from threadline.threads import logs
from threadline.threads.calls import FRAME, Call
from threadline.threads.door import Door
from threadline.threads.gil import Facts, judge
from threadline.threads.io_calls import IoCalls, listen
from threadline.threads.messages import CallOpened, Event
from threadline.threads.server import Parts, Server
from threadline.threads.siblings import Siblings
from threadline.threads.tts import APOLOGY, Voice
from threadline.threads.wake import Inbox, Outbox
from threadline.wire.twilio_carrier import TwilioCarrier

FAKE_DECODER = "fake_decoder:Fake"
SILENCE = b"\xff" * FRAME


class ToneVoice:
    """Each text is one tone: pitch and length follow from the text alone."""

    rate = 16_000

    def synthesize(self, text: str) -> NDArray[np.float32]:
        return tone(text, self.rate)


def tone(text: str, rate: int) -> NDArray[np.float32]:
    at = np.arange(len(text) * rate * 30 // 1000, dtype=np.float32) / rate
    pitch = 300 + 50 * (sum(text.encode()) % 20)
    return (0.3 * np.sin(2 * np.pi * pitch * at)).astype(np.float32)


@dataclass(frozen=True)
class Parrot:
    """Says the same thing whatever it hears."""

    greeting: str = "Hello there."
    reply: str = "Very well."
    hang_up: bool = False

    def begin(self) -> int:
        return 0

    def answer(self, state: int, words: str) -> tuple[int, Answer]:
        return state + 1, Answer(self.reply, hang_up=self.hang_up)


def spoken(text: str) -> bytes:
    """What a phone receives of one reply in the tone voice: exactly these bytes."""
    cutter = ClauseCutter()
    return _said([*cutter.feed(text), *cutter.finish()])


def apology() -> bytes:
    """What a phone receives when a defect ends its call."""
    return _said([APOLOGY])


def _said(clauses: Sequence[str]) -> bytes:
    stream = Resampler(ToneVoice.rate, mulaw.RATE)
    audio = b"".join(
        mulaw.encode_float(stream.feed(tone(clause, ToneVoice.rate))) for clause in clauses
    )
    audio += mulaw.encode_float(stream.finish())
    return audio + mulaw.SILENCE_BYTE * (-len(audio) % FRAME)


class Records:
    """What was logged, as it stands in a file."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def records(self, event: str = "", **fields: object) -> list[dict[str, Any]]:
        """What was logged so far: records of one event, with these fields."""
        lines = self._log.read_text().splitlines()
        found = [json.loads(line) for line in lines if line.endswith("}")]
        wanted = {"event": event, **fields} if event else fields
        return [one for one in found if all(one.get(k) == v for k, v in wanted.items())]

    def logged(self, event: str, **fields: object) -> dict[str, Any]:
        """Wait for such a record; the first one."""
        until(lambda: self.records(event, **fields), f"log record {event} {fields}")
        return self.records(event, **fields)[0]


@contextmanager
def logging(folder: Path, config: Log) -> Iterator[Path]:
    """The log thread, writing JSON to a file."""
    path = folder / "log.jsonl"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    logs.start(replace(config, format="json"), fd=fd)
    try:
        yield path
    finally:
        assert logs.stop(5.0)
        os.close(fd)
        logs.start(Log())  # what is logged between two tests goes to stderr, not to a closed file
        logs.stop(5.0)


class House(Records):
    """One running server, its log, and its clients' address."""

    def __init__(self, server: Server, log: Path) -> None:
        super().__init__(log)
        self.server = server
        self.door = server.door
        self.address = server.address
        self.url = f"ws://127.0.0.1:{server.address[1]}/twilio"
        self.expected = False  # a defect was injected, or a recogniser killed

    def call_of(self, line: Line) -> dict[str, Any]:
        """The record of a call's end."""
        return self.logged("call closed", call_id=line.call_id)

    def slot_of(self, line: Line) -> Call:
        """Its slot, once it is open."""
        slot = int(self.logged("call opened", call_id=line.call_id)["slot"])
        return self.server.calls[slot]

    def free(self) -> None:
        """Wait until nobody is on the line and every slot is back."""
        free(self.server.ios, self.door, self.server.calls)

    def line(self, **options: Any) -> Line:
        """A call, up to and including `start`."""
        line = Line(self.address, **options)
        line.start()
        return line


def free(ios: Sequence[IoCalls], door: Door, calls: Sequence[Call]) -> None:
    """Wait until no socket is open; every slot is then back, and nobody is on any."""
    until(lambda: not any(io.legs or io.doorways for io in ios), "every socket is closed")
    until(lambda: door.live == 0, "every slot is back")
    assert door.free() == list(range(len(calls)))
    assert not any(call.live for call in calls)


@contextmanager
def house(
    models: ModelStore,
    folder: Path,
    *,
    config: Config | None = None,
    brain: LocalBrain[Any] | RemoteBrain | None = None,
    voice: Callable[[], Voice] = ToneVoice,
    decoder: str = FAKE_DECODER,
    options: Mapping[str, object] | None = None,
    ready: bool = True,
    listener: socket.socket | None = None,
    agent: Agent | None = None,
    smart_turn: Path | None = None,
) -> Iterator[House]:
    """A server for the length of a test; its end is clean or the test fails.

    `ready`: wait until it is. With an `agent`, and a chain that names a model, the brain is
    what `threadline serve` makes of them.
    """
    config = config or quick()
    orders = folder / "orders"
    orders.mkdir(exist_ok=True)
    parts = Parts(
        silero=models.path("silero-vad", "silero_vad.onnx"),
        load_voice=voice,
        decoder=decoder,
        decoder_options=options or {"folder": str(orders)},
        brain=brain or (make_brain(config, agent) if agent else Parrot()),
        smart_turn=smart_turn,
        agent=agent,
    )
    before = set(threading.enumerate())
    verdict = judge(Facts("free-threaded", gil_on=False), "isolate")
    server = Server(config, verdict, parts, listener or listen("127.0.0.1", 0))
    with logging(folder, config.log) as log:
        server.start()
        this = House(server, log)
        try:
            if ready:
                until(lambda: server.asr.ready and server.watch.page, "it is ready")
            yield this
        finally:
            close_lines()
            ended = server.close()
    assert ended, "a thread was left behind"
    assert set(threading.enumerate()) <= before
    if not this.expected:
        assert not this.records("defect in a stage")
        assert not this.records(level="error")


class Alone(Records):
    """io-calls on its thread. The test is vad, pacer, reply and supervisor to it."""

    def __init__(
        self, log: Path, config: ServerConfig, calls: int, siblings: Siblings | None
    ) -> None:
        super().__init__(log)
        self.calls = [Call(slot) for slot in range(calls)]
        self.inbox = Inbox("io-calls")
        self.reply = Inbox("reply")
        self.orders: Outbox[object] = self.inbox.port("the test")
        self.problem = ""
        self.page = b""
        self.defects: list[BaseException] = []
        listener = listen("127.0.0.1", 0)
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self.door = Door(
            self.calls,
            config,
            listener,
            readiness=lambda: (self.problem, {"more": "facts"}),
            metrics=lambda: self.page,
            siblings=siblings,
        )
        self.io = IoCalls(
            config, self.inbox, self.reply.port("io-calls"), lambda slots: None, self.door
        )
        self.io.defect = self.defects.append
        self.events: list[object] = []  # told to reply so far

    def told(self, kind: type[Event]) -> list[Any]:
        """Events of that kind that reply was sent."""
        self.events += self.reply.events()
        return [event for event in self.events if isinstance(event, kind)]

    def line(self, **options: Any) -> Line:
        """A call, up to and including `start`, and its slot's news to reply."""
        opened = len(self.told(CallOpened))
        line = Line(self.address, **options)
        line.start()
        until(lambda: len(self.told(CallOpened)) > opened, "the call is open")
        return line

    def slot_of(self, line: Line) -> Call:
        (slot,) = (e.slot for e in self.told(CallOpened) if e.call_id == line.call_id)
        return self.calls[slot]

    def due(self, call: Call, clause: int, payload: bytes, flags: int = 0) -> None:
        """What the pacer does: one frame, under the call's epoch of now."""
        record = (call.generation.at, call.epoch.at, clause, flags, time.monotonic_ns(), payload)
        until(lambda: call.due.push(*record), "room in `due`")
        self.inbox.wake()

    def free(self) -> None:
        """Wait until every slot is back."""
        free([self.io], self.door, self.calls)


@contextmanager
def alone(
    folder: Path,
    config: ServerConfig | None = None,
    calls: int = 4,
    siblings: Siblings | None = None,
) -> Iterator[Alone]:
    """io-calls by itself for the length of a test."""
    with logging(folder, Log(level="debug")) as log:
        this = Alone(log, config or ServerConfig(), calls, siblings)
        over = False

        def run() -> None:
            this.io.begin()
            while not over:
                this.io.step()
            this.io.finish()

        worker = Worker(run, "io-calls")
        try:
            yield this
        finally:
            over = True
            this.io.stop()
            worker.join()
            close_lines()
            this.inbox.close()
            this.reply.close()


def quick(**sections: object) -> Config:
    """A configuration with these sections."""
    fields: dict[str, Any] = {"log": Log(level="debug"), **sections}
    return Config(**fields)


class Line:
    """One connection, by hand: Twilio's messages out, the server's in. One thread.

    `echo`: marks go back at once, as when the phone had played everything.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        path: str = "/twilio",
        headers: Mapping[str, str] | None = None,
        echo: bool = True,
        receive_buffer: int = 0,
        connect: bool = True,
    ) -> None:
        host, port = address
        self.echo = echo
        self.ws = ClientProtocol(parse_uri(f"ws://{host}:{port}{path}"))
        number = f"{id(self):x}-{time.monotonic_ns():x}"
        self.call_id = f"CA{number}"
        self.carrier = TwilioCarrier(f"MZ{number}", self.call_id, "AC0", {})
        self.messages: list[dict[str, Any]] = []
        self.gone = False  # the server has closed the connection
        self.reset = False  # and how
        self.pongs: list[bytes] = []
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(DEADLINE)
        self.sock.connect((host, port))
        _lines.append(self)
        self._headers = dict(headers or {})
        if connect:
            self.connect()

    def connect(self) -> None:
        """Ask for the upgrade."""
        request = self.ws.connect()
        for name, value in self._headers.items():
            request.headers[name] = value
        self.ws.send_request(request)
        self.flush()

    def handshake(self) -> int:
        """The status of the server's answer."""
        self.until(lambda: self.ws.state.name != "CONNECTING" or self.gone, "an answer")
        failure: Any = self.ws.handshake_exc
        return 101 if failure is None else int(failure.response.status_code)

    @property
    def refusal(self) -> str:
        failure: Any = self.ws.handshake_exc
        return bytes(failure.response.body).decode()

    def start(self) -> None:
        """The upgrade, `connected` and `start`."""
        assert self.handshake() == 101
        self.send(self.carrier.connected(), self.carrier.start())

    def send(self, *texts: str) -> None:
        """Whole text messages."""
        for text in texts:
            self.ws.send_text(text.encode())
        self.flush()

    def say(self, audio: bytes, call: Call | None = None) -> None:
        """Caller audio, half a second at a time, no faster than the VAD takes it from `call`."""
        for at in range(0, len(audio), 25 * FRAME):
            piece = audio[at : at + 25 * FRAME]
            texts = [self.carrier.media(piece[i : i + FRAME]) for i in range(0, len(piece), FRAME)]
            if call is None:
                self.send(*texts)
                continue
            head, taken = call.heard.head, call.heard.tail.at + len(texts)
            self.send(*texts)
            self.until(lambda h=head, t=taken: (t - h.at) % 256 == 0, "the VAD takes it", 0.002)
            self.until(lambda: call.speech.depth() < 64, "asr takes the speech", 0.002)

    def until(self, condition: Callable[[], object], what: str, nap: float = 0.02) -> None:
        """Read what comes until the condition holds."""
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
            self.read(nap)
        self.read(0)

    def read(self, wait: float) -> None:
        """Take what has come, waiting up to `wait` s for the first of it."""
        while not self.gone and select.select([self.sock], [], [], wait)[0]:
            wait = 0
            try:
                data = self.sock.recv(65_536)
            except ConnectionError:
                data = b""
                self.reset = True
            if not data:
                self.gone = True
                self.ws.receive_eof()
                return
            self.ws.receive_data(data)
            for event in self.ws.events_received():
                if isinstance(event, Frame):
                    self._take(event)
            self.flush()
        if self.gone and wait:
            time.sleep(0.001)

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PONG:
            self.pongs.append(bytes(frame.data))
        if frame.opcode is not Opcode.TEXT:
            return
        text = bytes(frame.data).decode()
        self.carrier.receive(text)  # which is strict about the form
        message = json.loads(text)
        self.messages.append(message)
        if message["event"] == "mark" and self.echo and self.ws.state.name == "OPEN":
            self.ws.send_text(self.carrier.mark(message["mark"]["name"]).encode())

    def flush(self) -> None:
        data = b"".join(self.ws.data_to_send())
        if data and not self.gone:
            try:
                self.sock.sendall(data)
            except ConnectionError:
                self.gone = self.reset = True

    @property
    def closing(self) -> Close | None:
        """The server's close frame."""
        return self.ws.close_rcvd

    @property
    def heard(self) -> bytes:
        """All audio that came, whatever stood between."""
        return b"".join(payload(m) for m in self.messages if m["event"] == "media")

    def count(self, event: str) -> int:
        return sum(message["event"] == event for message in self.messages)

    def replies(self) -> int:
        """Answers that came to their end."""
        return sum(m["event"] == "mark" and m["mark"]["name"].endswith(".end")
                   for m in self.messages)  # fmt: skip

    def hang_up(self) -> None:
        """As the carrier does."""
        if not self.gone and self.ws.state.name == "OPEN":
            self.send(self.carrier.stop())
            self.ws.send_close(1000)
            self.flush()
        self.until(lambda: self.gone, "the server closes")
        self.close()

    def cut(self) -> None:
        """The cable is pulled: a reset, no goodbye."""
        linger = (1).to_bytes(4, "little") + bytes(4)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close()

    def close(self) -> None:
        self.gone = True
        self.sock.close()


_lines: list[Line] = []  # every one that a test opened


def close_lines() -> None:
    """What a test left open, also when it failed."""
    while _lines:
        _lines.pop().close()


def payload(message: dict[str, Any]) -> bytes:
    """The audio of a media message."""
    return b64decode(message["media"]["payload"])


@cache
def recorded(models: ModelStore, text: str) -> bytes:
    """A person who says this: mu-law, with 300 ms of silence before and 800 ms after it."""
    samples = _person(models).synthesize(text)
    stream = Resampler(_person(models).rate, mulaw.RATE)
    speech = mulaw.encode_float(np.concatenate([stream.feed(samples), stream.finish()]))
    return SILENCE * 15 + speech + SILENCE * 40 + mulaw.SILENCE_BYTE * (-len(speech) % FRAME)


@cache
def _person(models: ModelStore) -> PiperVoice:
    folder = models.directory("piper-joe")
    (network,) = folder.glob("*.onnx")
    (about,) = folder.glob("*.onnx.json")
    return PiperVoice(network, about, threads=1)


def http(address: tuple[str, int], request: bytes) -> tuple[int, str, bytes]:
    """One request on a socket of its own, read to the end: status, head, body. 0: no answer."""
    with socket.create_connection(address, DEADLINE) as sock:
        sock.sendall(request)
        answer = b""
        while True:
            try:
                data = sock.recv(65_536)
            except ConnectionResetError:
                assert not answer, "a reset, which may cost a peer its answer"
                break
            if not data:
                break
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1]) if head else 0
    return status, head.decode("latin-1"), body


def get(address: tuple[str, int], path: str, **headers: str) -> tuple[int, str, bytes]:
    """GET."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return http(address, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode())
