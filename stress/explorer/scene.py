"""One call slot with the production stages around it, for the models.

`Pacer.advance`, `VadStage._act` and `_collect`, `IoCalls._woken` and `release`, `Door.admit`,
`Leg`'s `_start`, `pump` and `end`, `ReplyStage.step` run as they are; around them stand a recorder
for the socket and, where reply itself is not looked at, a few lines that fill the outgoing ring.
Frames bear the epoch and the generation they were made under, so what the recorder holds tells
who heard what.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from threadline.config import Endpoint, Pacer, Talk, Vad

from .beside import Code
from .world import World, demand

SMALL = {128: 4, 8: 2}
"""A call's rings, so that they wrap and fill."""


type Said = tuple[object, ...]


class Wire:
    """In the place of the carrier's protocol: what is sent, as an array."""

    def media(self, payload: bytes) -> str:
        return json.dumps(["media", *payload])

    def clear(self) -> str:
        return json.dumps(["clear"])

    def mark(self, name: str) -> str:
        return json.dumps(["mark", name])


class Protocol:
    """In the place of the WebSocket's, which has no part in what is looked at."""

    state = None

    def __init__(self, **_: object) -> None: ...


class Socket:
    """In the place of a caller's: keeps what it is told to send."""

    def __init__(self) -> None:
        self.sent: list[Said] = []

    def is_closing(self) -> bool:
        return True

    def write(self, data: bytes) -> None:
        while data:  # short frames: two bytes, of which the second is the text's size
            end = 2 + data[1]
            self.sent.append(tuple(json.loads(data[2:end])))
            data = data[end:]


class Scene:
    """One call slot and the stages that share it, none of them on a thread yet."""

    def __init__(self, code: Code, world: World, *, answers: bool = False) -> None:
        self.code, self.world = code, world
        code.small = SMALL
        self.call = code.calls.Call(0)
        self.call.generation.at = 1
        code.name(self.call, "call")
        self.io_box = code.wake.Inbox("io-calls")
        self.vad_box = code.wake.Inbox("vad")
        self.reply_box = code.wake.Inbox("reply")
        self.answers = answers
        self._ports: list[Any] = []

    def to_reply(self, name: str) -> Any:
        """A port to reply; when nobody answers in this model, nothing goes there."""
        if not self.answers:
            return SimpleNamespace(put=lambda _: None, flush=lambda: True)
        self._ports.append(self.reply_box.port(name))
        return self._ports[-1]

    def vad(self, wake_io: Callable[[], None]) -> Any:
        vad = self.code.stage("vad")
        silero = SimpleNamespace(reset=lambda slot: None)
        to_asr = SimpleNamespace(put=lambda _: None)
        to_reply = self.to_reply("vad")
        stage = vad.VadStage(
            [self.call],
            Vad(),
            Endpoint(),
            silero,
            self.vad_box,
            to_asr,
            to_reply,
            lambda slots: wake_io(),
            False,
        )
        stage._ears[0].generation = self.call.generation.at
        return stage

    def hear(self, stage: Any, event: object) -> None:
        """What vad does about one event; the windows themselves are not what is looked at."""
        stage._act(stage._ears[0], event)

    def pacer(self, wake_io: Callable[[], None]) -> Any:
        pacer = self.code.stage("pacer")
        stage = pacer.Pacer([self.call], Pacer(prebuffer_ms=20, subticks=1), [wake_io])
        stage.lateness = SimpleNamespace(observe=lambda _: None)
        return stage

    def reply(self) -> Any:
        """reply with a brain that only greets, and a voice that answers within the same step."""
        reply, spoken = self.code.stage("reply"), self.code.stage("messages").Spoken
        brain = SimpleNamespace(greeting="Hello.", begin=lambda: None)

        class Voice:
            @staticmethod
            def put(order: Any) -> None:
                ended = type(order).__name__ == "EndOfSpeech"
                audio = b"" if ended else bytes((order.generation & 255, order.epoch, 0))
                voiced.append(
                    spoken(
                        order.slot, order.generation, order.epoch, order.clause, audio, 20, ended, 0
                    )
                )

            @staticmethod
            def flush() -> bool:
                return True

        class Stage(reply.ReplyStage):  # type: ignore[misc, name-defined]  # a class of the copy
            def _take(self, event: Any) -> None:
                super()._take(event)
                while voiced:
                    super()._take(voiced.pop(0))

        voiced: list[Any] = []
        talk = Talk(nudge_seconds=0.0)
        chain = [("voice", Voice)]
        return Stage([self.call], brain, talk, self.reply_box, Voice, chain, None, None, bytes)

    def say(self, epoch: int, numbers: range, generation: int = 1) -> None:
        """reply's part: frames that say what they are."""
        for number in numbers:
            payload = bytes((generation, epoch, number))
            demand(
                self.call.outgoing.push(generation, epoch, 1 + epoch, 0, 0, payload),
                "the model's own ring is too small",
            )

    def hand_over(self) -> None:
        """What was done so far was done by nobody."""
        call = self.call
        rings = (call.heard, call.speech, call.outgoing, call.due)
        for ring in (*rings, *[port._ring for port in self._ports]):
            ring._producer.release()
            ring._consumer.release()

    def io(self) -> Any:
        """io-calls without its loop and its sockets."""
        io_calls, connection = self.code.stage("io_calls"), self.code.stage("connection")
        connection.TwilioLeg, connection.ServerProtocol = Wire, Protocol
        io = object.__new__(io_calls.IoCalls)
        io.config = SimpleNamespace(max_message_bytes=0, twilio_auth_token="")
        io._door = self.code.stage("door").Door([self.call], io.config, None, None, None)
        io._ports = ()
        io.inbox = self.io_box
        io.to_reply = self.to_reply("io-calls")
        io.wake_vad = lambda slots: self.vad_box.wake()
        io.legs, io._by_slot = set(), {}
        io.lateness = SimpleNamespace(observe=lambda _: None)
        io.beat = io.frames = io.stale = io.clears = 0
        io._on_leg = None
        return io

    def leg(self, io: Any, *, generation: int = 0) -> Any:
        """A carrier's stream that was admitted; live already when it has a generation."""
        leg = self.code.stage("connection").Leg(io, Socket())
        leg.call = io._door.admit("", {})
        demand(leg.call is self.call, f"a free slot is refused: {leg.call}")
        io.seat(leg)
        leg.generation = generation
        return leg

    def serve(self, io: Any) -> None:
        """io-calls' loop: sleep until the eventfd is readable, then look at every leg."""
        ready = self.code.wake.select.poll()
        ready.register(io.inbox.fileno(), 1)
        while True:
            ready.poll(0)
            io._woken()


def heard(sent: list[Said]) -> list[tuple[int, int, int]]:
    """(generation, epoch, number) of every frame that the carrier was given."""
    return [said[1:] for said in sent if said[0] == "media"]  # type: ignore[misc]  # three


def judge_wire(sent: list[Said], generation: int) -> None:
    """What one caller's socket may carry."""
    newest = oldest = -1
    cleared = True  # the carrier holds nothing of an older epoch
    for said in sent:
        if said[0] == "clear":
            cleared = True
            oldest = newest + 1
        elif said[0] == "media":
            made_for, epoch, _ = said[1:]
            demand(made_for == generation, f"{said} is sent to the caller of {generation}")
            assert isinstance(epoch, int), epoch
            demand(epoch >= newest, f"{said} follows a frame of epoch {newest}")
            demand(epoch >= oldest, f"{said} follows the clear of epoch {newest}")
            demand(epoch == newest or cleared, f"{said} is sent before the clear")
            newest, cleared = epoch, False
