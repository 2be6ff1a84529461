"""One caller's socket. Runs on an `io-calls` thread and nowhere else.

A `Leg` is what becomes of a `Doorway` (door.py) behind which a carrier's WebSocket is. Both are
asyncio protocols without a task of their own: bytes in, bytes out, one dictionary of live legs in
`io_calls.py`.

Bounds on what a peer may take of us: a message's size, the unsent bytes of a peer that has stopped
reading, and the silence of one that has stopped sending. Each ends the connection with a reason.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State as WebSocketState
from websockets.server import ServerProtocol

from ..errors import ProtocolError
from ..talking.heard import mark_name
from ..wire.events import Audio, Digit, Ended, MarkEchoed, Started
from ..wire.twilio import TwilioLeg
from ..wire.websocket import Splitter, text_frame
from .calls import END_OF_CLAUSE, END_OF_REPLY, FRAME, Call
from .logs import logger
from .messages import CallOpened, DigitPressed, FirstFrame, MarkReturned, PlaybackCut
from .reply import end_mark

if TYPE_CHECKING:
    from .door import Door
    from .io_calls import IoCalls

CLOSING_SECONDS = 2.0

log = logger("io-calls")


class Leg(asyncio.Protocol):
    """One carrier stream: the WebSocket, the wire protocol, and what is on its way to the ear.

    `pump` is the only place from which audio reaches a caller. It asks for a line on the thread
    that has the door, and lives on the one that has its slot from then on.
    """

    def __init__(self, io: IoCalls, transport: asyncio.Transport) -> None:
        self._io = io
        self._transport = transport
        self._ws = ServerProtocol(max_size=io.config.max_message_bytes)
        self._splitter = Splitter(io.config.max_message_bytes)
        self._wire = TwilioLeg()
        self._unsent: list[bytes] = []  # text, in frames
        self._early = b""  # what came behind the request
        self._message = bytearray()  # of a fragmented message
        self._rest = b""  # of caller audio, less than a frame
        self.call: Call | None = None  # reserved at the upgrade, live from `start`
        self.generation = 0
        self.call_id = ""
        self.epoch = 0  # the newest epoch that the carrier has been cleared for
        self._clause = 0
        self._clause_frames = 0
        self._sounding = False  # the carrier may still hold audio of ours
        self.since = self.heard = time.monotonic()
        self.closed = False
        self._leaving = False  # we have said goodbye to the socket

    # -- the socket -----------------------------------------------------------------------------

    def ask(self, door: Door, head: bytes, early: bytes) -> None:
        """Ask for a line; the answer is sent, and what came early read, when we have a socket."""
        self._early = early
        self._ws.receive_data(head)
        for event in self._ws.events_received():
            assert isinstance(event, Request), "the head ends where the request does"
            self._shake_hands(door, event)
        if self._ws.parser_exc is not None:
            self.end(f"the peer broke the WebSocket protocol: {self._ws.parser_exc}")

    def move_to(self, io: IoCalls) -> None:
        """On the thread that has the slot, before anything else there."""
        self._io = io

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what may wait to be sent; then answer."""
        self._transport = cast("asyncio.Transport", transport)
        limit = self._io.config.max_write_bytes
        self._transport.set_write_buffer_limits(high=limit)
        # What the kernel holds for a peer counts as well; by itself it would hold megabytes.
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limit)
        self._io.seat(self)
        self._flush()
        early, self._early = self._early, b""
        if early:
            self.data_received(early)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever closed it: the call is over."""
        self.end("the caller's connection was lost")
        self._io.legs.discard(self)
        # A generator whose frame holds the protocol that holds it: a cycle, and nobody collects
        # while calls are on.
        self._ws.parser.close()

    def pause_writing(self) -> None:
        """The write buffer is full: nobody reads at the other end."""
        self.drop(f"the peer stopped reading, {self._io.config.max_write_bytes} bytes are unsent")
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes of the WebSocket."""
        self._io.working_on(self)
        for is_text, part in self._splitter.feed(data):
            if is_text:
                self._text(part)
            else:
                self._feed(part)
                self._flush()
        self._io.working_on(None)

    def _feed(self, data: bytes) -> None:
        """What is not a short text message: the protocol knows what to do."""
        self._ws.receive_data(data)
        for event in self._ws.events_received():
            if isinstance(event, Frame):
                self._frame(event)
        if self._ws.parser_exc is not None:
            self.end(f"the peer broke the WebSocket protocol: {self._ws.parser_exc}")

    def eof_received(self) -> None:
        """The peer has closed its side: from here on the WebSocket takes nothing to send."""
        self._ws.receive_eof()
        self.end("the caller's connection was lost")
        self._flush()

    def _flush(self) -> None:
        if self._transport.is_closing():
            return
        if self._unsent:
            self._write()
        for data in self._ws.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.write_eof()  # not close: see Doorway._answer
        if self._ws.close_expected() and not self._leaving:
            self._leaving = True
            self._io.loop.call_later(CLOSING_SECONDS, self._transport.abort)

    def _write(self) -> None:
        self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _shake_hands(self, door: Door, request: Request) -> None:
        response = self._ws.accept(request)
        if response.status_code == 101:  # an upgrade that cannot be needs no slot
            given = door.admit(request.path, dict(request.headers.raw_items()))
            if isinstance(given, Call):
                self.call = given
            else:
                status, reason = given
                response = self._ws.reject(status, f"{reason}\n")
        self._ws.send_response(response)

    def _frame(self, frame: Frame) -> None:
        if self.closed:
            return
        if frame.opcode is Opcode.CLOSE:
            self.end("the carrier closed the stream")
        elif frame.opcode in (Opcode.TEXT, Opcode.CONT):
            if not frame.fin or self._message:
                self._message += frame.data
                if frame.fin:
                    whole, self._message = bytes(self._message), bytearray()
                    self._text(whole)
            else:
                self._text(bytes(frame.data))
        elif frame.opcode is Opcode.BINARY:
            self.drop("the peer sent a binary message, and this protocol is text only")

    def _text(self, data: bytes) -> None:
        if self.closed:
            return
        try:
            event = self._wire.receive(data.decode())
        except UnicodeDecodeError:
            self.drop("the peer sent text that is not UTF-8")
            return
        except ProtocolError as error:
            self.drop(str(error))
            return
        match event:
            case Audio(payload):
                self._listen(payload)
            case MarkEchoed(name):
                self._mark(name)
            case Started(_, call_id, parameters):
                self._start(call_id, parameters)
            case Digit(digit):
                call = self._live()
                self._io.to_reply.put(DigitPressed(call.slot, self.generation, digit))
            case Ended():
                self._say_goodbye(1000, "the caller hung up")

    # -- the call -------------------------------------------------------------------------------

    def _live(self) -> Call:
        assert self.call is not None, "the wire protocol allows nothing before start"
        return self.call

    def _start(self, call_id: str, parameters: Mapping[str, str]) -> None:
        call = self._live()
        self.call_id = call_id
        call.generation.at += 1  # odd: live
        self.generation = call.generation.at
        self.epoch = call.epoch.at
        self._io.to_reply.put(CallOpened(call.slot, self.generation, call_id, parameters))

    def _listen(self, payload: bytes) -> None:
        """Caller audio, any length, in frames to vad."""
        call = self._live()
        now = time.monotonic_ns()
        self.heard = now / 1e9
        audio = self._rest + payload if self._rest else payload
        whole = len(audio) - len(audio) % FRAME
        for at in range(0, whole, FRAME):
            call.heard.push(self.generation, 0, 0, 0, now, audio[at : at + FRAME])
        self._rest = audio[whole:]
        self._io.audio_came(call.slot)

    def _mark(self, name: str) -> None:
        """A mark came back. One of an older epoch was flushed by our clear, or might have been."""
        call = self._live()
        epoch, _, what = name.partition(".")
        if epoch != str(self.epoch):
            return
        if what == "end":
            self._sounding = False
        self._io.to_reply.put(MarkReturned(call.slot, self.generation, name))

    def pump(self) -> None:
        """Send what is due, unless the caller has taken the floor.

        `self.epoch` only rises here, together with the clear, and a frame goes out only under the
        epoch that has been cleared for; so after a clear, no frame of an older epoch can follow.
        A frame of a newer one proves that the caller's epoch has risen since it was looked at.
        """
        call = self.call
        if call is None or not self.generation or self.closed:
            return
        self._follow(call)
        while (record := call.due.pop()) is not None:
            generation, epoch, clause, flags, stamp, payload = record
            if generation == self.generation and epoch > self.epoch:
                self._follow(call)
            if generation != self.generation or epoch != self.epoch:
                self._io.stale += 1
                continue
            self._send(call, clause, flags, stamp, payload)
        if self._unsent:
            self._write()

    def _follow(self, call: Call) -> None:
        """Has the caller taken the floor since we last looked?"""
        epoch = call.epoch.at
        if epoch != self.epoch:
            self._clear(call, epoch)

    def _send(self, call: Call, clause: int, flags: int, stamp: int, payload: bytes) -> None:
        wire = self._wire
        if flags & END_OF_REPLY:
            self._say(wire.mark(end_mark(self.epoch)))
            return
        if clause != self._clause:
            self._clause, self._clause_frames = clause, 0
            at = time.monotonic_ns()
            self._io.to_reply.put(FirstFrame(call.slot, self.generation, self.epoch, clause, at))
        self._say(wire.media(payload))
        self._clause_frames += 1
        self._sounding = True
        self._io.frames += 1
        self._io.lateness.observe((time.monotonic_ns() - stamp) / 1e6)
        if flags & END_OF_CLAUSE:
            self._say(wire.mark(mark_name(self.epoch, clause)))

    def _say(self, message: str) -> None:
        self._unsent.append(text_frame(message.encode()))

    def _clear(self, call: Call, epoch: int) -> None:
        """The caller took the floor: empty the carrier, and say how much of us was heard."""
        if self._sounding:
            self._say(self._wire.clear())
            self._io.clears += 1
        played = self._clause_frames * 20
        self._io.to_reply.put(
            PlaybackCut(call.slot, self.generation, self.epoch, self._clause, played)
        )
        self.epoch = epoch
        self._clause = self._clause_frames = 0
        self._sounding = False

    # -- endings --------------------------------------------------------------------------------

    def hang_up(self, reason: str) -> None:
        """End the call from our side, in good order."""
        self._say_goodbye(1000, reason)

    def drop(self, reason: str) -> None:
        """End the call because of what the peer did."""
        self._say_goodbye(1008, reason)

    def _say_goodbye(self, code: int, reason: str) -> None:
        if self.closed:
            return
        self.end(reason)
        if self._ws.state is WebSocketState.CONNECTING:
            self._transport.abort()
            return
        if self._ws.state is WebSocketState.OPEN:  # else the peer's own close has been answered
            self._ws.send_close(code, reason.encode()[:120].decode(errors="ignore"))
        self._flush()

    def abort(self) -> None:
        """The server is stopping, or the peer had its time to say goodbye."""
        self._transport.abort()

    def end(self, reason: str) -> None:
        """The call is over; the socket may still have a goodbye to say. Once per leg."""
        if not self.closed:
            self.closed = True
            self._io.release(self, reason)
