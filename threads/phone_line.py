"""One call placed from outside: its WebSocket, Twilio's messages on it, the phone, the caller.

Runs on the loop of `caller`, which ticks it every 20 ms. Wakes on: that tick, its socket. Alone
owns: the connection, the script and the phone. Writes: the `Watcher`, if there is one.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import WebSocketURI

from ..audio.mulaw import RATE
from ..errors import AddressError, ProtocolError, ThreadlineError
from ..observe.callreport import CallRecord
from ..wire.phone import Phone
from ..wire.script import Barge, Clip, Script
from ..wire.signature import sign
from ..wire.twilio_carrier import ClearRequest, MarkRequest, Media, TwilioCarrier

CLOSE_SECONDS = 1.0  # the server's answer to our close; a whole second is generous
_CLOSED_WELL = (1000, 1001, 1005)  # done, going away, no code given
_MAX_MESSAGE = 1 << 20


@dataclass(frozen=True, slots=True)
class CallPlan:
    """What to place. Every call says the same clips in the same order."""

    url: str  # ws:// or wss://
    clips: tuple[Clip, ...]
    calls: int = 1
    stagger_ms: float = 0.0  # from the start of one call to that of the next
    greeting: bool = True  # wait for the agent's; False: speak at once
    barge: Barge | None = None
    phone_buffer_ms: float = 40.0
    quiet_ms: float = 300.0  # after the last audio, before a reply counts as over
    answer_within: float = 10.0  # seconds from the end of speech
    timeout: float = 300.0  # seconds, of a whole call
    noise_dbfs: float = -65.0  # line noise between the clips
    auth_token: str = ""  # signs the upgrade, for a server that checks


class Watcher(Protocol):
    """Told of everything while it happens, on the loop: append and return."""

    def note(self, call: int, seconds: float, text: str) -> None:
        """Something happened in a call, counted from 0."""

    def sound(self, caller: bytes, agent: bytes) -> None:
        """20 ms of the first call: what was said and what was played, mu-law."""


class PhoneLine(asyncio.Protocol):
    """One connection: the WebSocket, Twilio's messages on it, the phone and its caller."""

    def __init__(
        self,
        number: int,
        plan: CallPlan,
        uri: WebSocketURI,
        noise: bytes,
        watcher: Watcher | None,
        late_ns: array[int],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.fault: ThreadlineError | None = None
        self.call_sid = "CA" + secrets.token_hex(16)
        self._plan, self._watcher, self._late_ns = plan, watcher, late_ns
        self._phone = Phone(plan.phone_buffer_ms)
        self._script = Script(
            plan.clips,
            note=self._note,
            greeting=plan.greeting,
            barge=plan.barge,
            quiet_ms=plan.quiet_ms,
            answer_within=plan.answer_within,
            noise=noise,
        )
        self._carrier = TwilioCarrier(
            "MZ" + secrets.token_hex(16), self.call_sid, "AC" + secrets.token_hex(16), {}
        )
        self._ws = ClientProtocol(uri, max_size=_MAX_MESSAGE)
        self._transport: asyncio.Transport | None = None
        self._writable = True
        self._live = False
        self._start_ns = 0  # monotonic; 0: no tick has come yet
        self._said = bytearray()
        self._partial = b""  # of a fragmented message
        self._text = True  # and its kind
        self._ended = "never opened"
        self._ending = False

    # What the exchange asks

    def tick(self, due: int) -> None:
        """20 ms are over: play, send back marks, and send what the caller said in them."""
        if not self._live:
            return
        if not self._start_ns:
            self._start_ns = due  # what the agent sent before this instant plays from it on
            return
        at, phone = len(self._said), self._phone
        heard = phone.played
        self._echo(phone.play(self._now()))
        frame = self._script.frame(at, phone)
        if frame is None:
            self.end("hung up here, all said")
            return
        if at >= self._plan.timeout * RATE:
            limit = f"{self._plan.timeout:g} s"
            self.end("cut", ThreadlineError(f"the call was not over after {limit}: see --timeout"))
            return
        self._said += frame
        text = self._carrier.media(frame)
        if self._writable:  # as Twilio, which drops the audio that a server does not read (31930)
            self._ws.send_text(text.encode())
        self._flush()
        self._late_ns.append(time.monotonic_ns() - due)
        if self._watcher and self.number == 0:
            self._watcher.sound(frame, phone.played_since(heard))

    def end(self, ended: str, fault: ThreadlineError | None = None) -> None:
        """Hang up, the first time it is asked."""
        if self._ending or self.closed.done():
            return
        self._ending = True
        self._ended, self.fault = ended, fault
        self._note(len(self._said), ended if fault is None else str(fault))
        if self._transport is None:
            self.closed.set_result(None)
            return
        if not self._live:
            self._transport.abort()
            return
        self._live = False
        if self._ws.state is OPEN:
            self._ws.send_text(self._carrier.stop().encode())
            self._ws.send_close(1000)
        self._flush()
        asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)

    def never(self, reason: str) -> None:
        """The connection could not be made."""
        self.fault = AddressError(reason)
        if self._plan.calls > 1:  # else it is the one thing the user is told anyway
            self._note(0, reason)
        self.closed.set_result(None)

    def record(self) -> CallRecord:
        """All that was measured, after the end."""
        phone, script = self._phone, self._script
        said = np.frombuffer(bytes(self._said), np.uint8)
        return CallRecord(
            call_sid=self.call_sid,
            said=tuple(script.said),
            unsaid=script.unsaid,
            utterances=tuple(phone.utterances),
            clears=tuple(phone.clears),
            gaps=tuple(phone.gaps),
            marks=phone.marks,
            arrivals=phone.arrivals(),
            caller=said,
            agent=phone.heard(len(said)),
            answer_within=self._plan.answer_within,
            ended=self._ended,
            fault=self.fault,
        )

    # What the loop tells us

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the upgrade."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        request = self._ws.connect()
        if self._plan.auth_token:
            request.headers["X-Twilio-Signature"] = sign(self._plan.auth_token, self._plan.url, ())
        self._ws.send_request(request)
        self._flush()

    def pause_writing(self) -> None:
        """The server does not read."""
        self._writable = False

    def resume_writing(self) -> None:
        """It reads again."""
        self._writable = True

    def data_received(self, data: bytes) -> None:
        """Feed the WebSocket, act on what comes out."""
        self._ws.receive_data(data)
        for event in self._ws.events_received():
            if not self.opened.done():
                self._handshake()
                if self.fault is not None:
                    return
            elif isinstance(event, Frame) and self._live:
                self._frame(event)
        self._flush()
        if self._ws.close_rcvd is not None:
            self._server_closes(self._ws.close_rcvd)
        elif self._live and self._ws.state is not OPEN:
            reason = self._ws.parser_exc
            self.end("cut", ProtocolError(f"the server broke the WebSocket protocol: {reason}"))

    def eof_received(self) -> None:
        """The transport closes by itself."""
        self._ws.receive_eof()
        if not self.opened.done():
            self._handshake()

    def connection_lost(self, error: Exception | None) -> None:
        """Over, in whatever way."""
        if not self.opened.done() and self.fault is None:
            self.fault = AddressError("the server closed the connection during the handshake")
        elif self._live:
            self._live = False
            self._ended = "the server vanished"
            self.fault = AddressError(
                "the server vanished in mid-call: its process ended or the network broke"
            )
            self._note(len(self._said), self._ended)
        if not self.closed.done():
            self.closed.set_result(None)

    # One message

    def _handshake(self) -> None:
        refusal = self._ws.handshake_exc
        if refusal is not None or self._ws.state is not OPEN:
            self.fault = self.fault or _refused(refusal, self._plan.url)
            if self._plan.calls > 1:
                self._note(0, str(self.fault))
            if self._transport is not None:
                self._transport.close()
            return
        self.opened.set_result(None)
        self._live = True
        self._ended = ""
        for text in (self._carrier.connected(), self._carrier.start()):
            self._ws.send_text(text.encode())
        self._note(0, "connected")

    def _frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._text, self._partial = frame.opcode is Opcode.TEXT, bytes(frame.data)
        elif frame.opcode is Opcode.CONT:
            self._partial += frame.data
        else:
            return
        if frame.fin:
            try:
                self._message(self._partial.decode() if self._text else self._partial)
            except (ProtocolError, UnicodeDecodeError) as error:
                self.end("cut", ProtocolError(f"the server broke Twilio's protocol: {error}"))

    def _message(self, message: str | bytes) -> None:
        event, now, phone = self._carrier.receive(message), self._now(), self._phone
        match event:
            case Media(payload):
                stalls = len(phone.gaps)
                self._echo(phone.media(payload, now))
                for gap in phone.gaps[stalls:]:
                    missing = (gap.end - gap.start) * 1000 // RATE
                    self._note(gap.start, f"agent's audio ran dry for {missing} ms")
            case MarkRequest(name):
                self._echo(phone.mark(name, now))
            case ClearRequest():
                self._echo(phone.clear(now))
                self._note(int(now * RATE), "agent cleared its audio" + self._silenced())

    def _silenced(self) -> str:
        """How fast, when the caller's last clip had interrupted the agent."""
        said, spoken = self._script.said, self._phone.utterances
        if said and spoken and spoken[-1].first_loud >= 0:
            onset, last = said[-1].onset, spoken[-1]
            if last.first_loud <= onset <= last.last_loud:
                return f", silent {(last.last_loud + 1 - onset) * 1000 // RATE} ms after the onset"
        return ""

    def _server_closes(self, close: Close) -> None:
        if self._live:
            self._live = False
            self._ended = "the server hung up"
            if close.code not in _CLOSED_WELL:
                words = f"{close.code} {close.reason}".strip()
                self.fault = ProtocolError(f"the server broke off the call ({words})")
            self._note(len(self._said), str(self.fault or self._ended))
        if self._transport is not None:
            self._transport.close()

    def _echo(self, names: Sequence[str]) -> None:
        for name in names:
            self._ws.send_text(self._carrier.mark(name).encode())

    def _flush(self) -> None:
        data = b"".join(self._ws.data_to_send())
        if data and self._transport is not None:
            self._transport.write(data)

    def _now(self) -> float:
        """Seconds of the call; what comes before its first tick counts as at 0."""
        return max(0, time.monotonic_ns() - self._start_ns) / 1e9 if self._start_ns else 0.0

    def _note(self, at: int, text: str) -> None:
        if self._watcher:
            self._watcher.note(self.number, at / RATE, text)


def _refused(error: Exception | None, url: str) -> AddressError:
    """The server's answer to the upgrade, in a sentence."""
    if not isinstance(error, InvalidStatus):
        return AddressError(f"what answers at {url} speaks no WebSocket: is it the right port?")
    status = error.response.status_code
    body = bytes(error.response.body or b"").decode("utf-8", "replace").strip()
    words = f" ({body.splitlines()[0][:120]})" if body else ""
    match status:
        case 404:
            return AddressError(f"no call is answered at {url}{words}: try the path /twilio")
        case 401 | 403:
            return AddressError(f"the server wants a signed call{words}: give --auth-token")
        case 503:
            return AddressError(f"the server takes no more calls now{words}: try again later")
        case _:
            return AddressError(f"{url} answered {status} instead of opening a stream{words}")
