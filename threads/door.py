"""The door: who is given a line, and the plain HTTP beside it.

Used by one thread: io-calls, or the first of them when there are several. It alone gives away the
slots of all of them and takes them back, so the bound on calls is exact however many threads serve
them; the one with most lines free gets the next call. `limit` and `strained` are stored by others,
`live` is read by them.

`Doorway` reads the head of whatever connects and decides: a carrier's WebSocket becomes a `Leg`
(connection.py), anything else is one HTTP request with one answer. Bounds on what a peer may take
of us here: the handshake's time, the head's and the body's size.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qsl

import h11

from ..config import Server
from ..errors import ConfigError
from ..observe.prometheus import CONTENT_TYPE, Sample, counter, gauge
from ..wire import signature, twiml
from .calls import Call
from .connection import Leg
from .logs import logger
from .siblings import Siblings

if TYPE_CHECKING:
    from .io_calls import IoCalls

log = logger("io-calls")

Answer = tuple[int, str, bytes]
Refusal = tuple[int, str]
STREAM_PATH = "/twilio"
MAX_HEAD_BYTES = 16_384
MAX_BODY_BYTES = 65_536
REFUSALS = ("full", "strained", "draining", "unsigned")
METHODS = (b"GET", b"HEAD", b"POST")
_TEXT = "text/plain; charset=utf-8"


class Door:
    """See the module.

    Args:
        calls: of all threads; the k-th of them serves the slots k, k + threads, ...
        listener: where callers come in.
        readiness: why no call should be sent here, or ""; and the facts of /readyz.
        metrics: the page of /metrics; empty until `readiness` says yes.
        siblings: other processes that accept from this socket.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        config: Server,
        listener: socket.socket,
        readiness: Callable[[], tuple[str, dict[str, object]]],
        metrics: Callable[[], bytes],
        siblings: Siblings | None = None,
        threads: int = 1,
    ) -> None:
        self.config = config
        self.listener = listener
        self.siblings = siblings
        self.limit = len(calls)  # lowered by the supervisor when the GIL is back
        self.strained = ""  # why no call is taken just now; written by watch
        self.draining = False
        self.live = 0  # slots in use
        self._readiness = readiness
        self._metrics = metrics
        self._free = [deque(calls[number::threads]) for number in range(threads)]
        # Reports.
        self.opened = 0
        self.refusals = dict.fromkeys(REFUSALS, 0)

    # -- admission ------------------------------------------------------------------------------

    def admit(self, path: str, headers: dict[str, str]) -> Call | Refusal:
        """A slot, reserved; or with which status and sentence this caller is refused."""
        lower = {name.lower(): value for name, value in headers.items()}
        token = self.config.twilio_auth_token
        if token:
            url = signature.request_url(
                path, lower, websocket=True, public_url=self.config.public_url
            )
            if not signature.valid(token, url, (), lower.get("x-twilio-signature")):
                return self._refuse(403, "the request is not signed by the carrier", "unsigned")
        busy = self.busy()
        if busy:
            return self._refuse(503, busy, self._why())
        self.live += 1
        self.opened += 1
        self.tell_siblings()
        return max(self._free, key=len).popleft()

    def give_back(self, call: Call) -> None:
        """A slot is free again: behind all others."""
        self.live -= 1
        self._free[call.slot % len(self._free)].append(call)
        self.tell_siblings()

    def free(self) -> list[int]:
        """The slots that nobody has, for reports."""
        return sorted(call.slot for calls in self._free for call in calls)

    def closed(self) -> str:
        """Why no call is taken, however many lines are free."""
        if self.draining:
            return "this server is being stopped"
        return self.strained

    def busy(self) -> str:
        """Why no call can be taken now; empty when one can."""
        if self.live >= self.limit:
            return self.closed() or f"all {self.limit} lines are in use"
        return self.closed()

    def elsewhere(self) -> bool:
        """A sibling has a line free."""
        return self.siblings is not None and self.siblings.another_is_free()

    def tell_siblings(self) -> None:
        """How we do."""
        if self.siblings is not None:
            free = 0 if self.busy() else self.limit - self.live
            self.siblings.tell(free, self.live, ready=not self.closed())

    def _why(self) -> str:
        """The same, as the metrics call it."""
        return "draining" if self.draining else "strained" if self.strained else "full"

    def _refuse(self, status: int, reason: str, kind: str) -> Refusal:
        self.refusals[kind] += 1
        log.warning("call refused", status=status, reason=reason)
        return status, reason

    # -- plain HTTP -----------------------------------------------------------------------------

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        """One HTTP request. `headers` have lower-case names."""
        path = target.partition("?")[0]
        if path == "/healthz":
            return 200, _TEXT, b"ok\n"
        if path == "/readyz":
            return self._ready()
        if path == "/metrics":
            return 200, CONTENT_TYPE, self._metrics()
        if path == "/twiml":
            return self._twiml(method, target, headers, body)
        if path == STREAM_PATH:
            return 426, _TEXT, b"This is a WebSocket: connect a Twilio <Stream> to it.\n"
        paths = f"{STREAM_PATH}, /twiml, /healthz, /readyz and /metrics"
        return 404, _TEXT, f"Nothing is here. There are {paths}.\n".encode()

    def _ready(self) -> Answer:
        problem, facts = self._readiness()
        problem = self.busy() or problem
        if self.siblings is not None:
            facts |= {"processes": self.siblings.count, "calls_in_all": self.siblings.live()}
            if self.elsewhere():
                problem = ""  # who connects is let in there
        body = {
            "ready": not problem,
            "reason": problem,
            "calls": self.live,
            "limit": self.limit,
            **facts,
        }
        return 503 if problem else 200, "application/json", json.dumps(body).encode() + b"\n"

    def _twiml(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        form = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
        public, token = self.config.public_url, self.config.twilio_auth_token
        if token:
            pairs = form if method == "POST" else ()
            url = signature.request_url(target, headers, websocket=False, public_url=public)
            if not signature.valid(token, url, pairs, headers.get("x-twilio-signature")):
                return 403, _TEXT, b"The request is not signed by the carrier.\n"
        if self.busy() and not self.elsewhere():
            self.refusals[self._why()] += 1
            return 200, "text/xml", twiml.busy().encode()
        stream = signature.request_url(STREAM_PATH, headers, websocket=True, public_url=public)
        caller = {
            name: value for name, value in form if name in ("From", "To") and value.isprintable()
        }
        try:
            return 200, "text/xml", twiml.connect_stream(stream, caller).encode()
        except ConfigError as error:
            sentence = f"{error} Set server.public_url to the address the carrier reaches.\n"
            return 500, _TEXT, sentence.encode()

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        yield gauge("threadline_calls", "Calls on the line.", self.live)
        yield gauge("threadline_calls_limit", "Calls that are admitted.", self.limit)
        yield counter("threadline_calls_opened_total", "Calls admitted.", self.opened)
        for reason, value in self.refusals.items():
            yield counter("threadline_calls_refused_total", "Calls refused.", value, reason=reason)


class Doorway(asyncio.Protocol):
    """A new connection, until it is known what it wants. On the thread that has the door."""

    def __init__(self, io: IoCalls, door: Door) -> None:
        self._io = io
        self._door = door
        self._head = bytearray()
        self._http: h11.Connection | None = None
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock of the handshake."""
        self._transport = cast("asyncio.Transport", transport)
        self._timer = self._io.loop.call_later(self._io.config.handshake_seconds, self._expire)
        self._io.doorways.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer went away, or had its answer."""
        self._timer.cancel()
        self._io.doorways.discard(self)

    def abort(self) -> None:
        """The server is stopping."""
        self._transport.abort()

    def _expire(self) -> None:
        if not self._answered:
            log.info("no request in time", limit_s=self._io.config.handshake_seconds)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Collect the head; then hand over, or answer."""
        if self._answered:
            return  # read and forgotten: see _answer
        if self._http is not None:
            self._feed_http(data)
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0 and len(self._head) <= MAX_HEAD_BYTES:
            return
        head = bytes(self._head[: max(0, end)])
        target = head.split(b"\r\n", 1)[0].split(b" ")[1:2]
        stream = target and target[0].split(b"?")[0] == STREAM_PATH.encode()
        if stream and b"\nupgrade:" in head.lower():
            self._become_leg(end + 4)
            return
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._feed_http(bytes(self._head))

    def _become_leg(self, end: int) -> None:
        self._timer.cancel()
        self._io.doorways.discard(self)
        leg = Leg(self._io, self._transport)
        self._io.working_on(leg)
        leg.ask(self._door, bytes(self._head[:end]), bytes(self._head[end:]))
        self._io.place(leg, self._transport)
        self._io.working_on(None)

    def _feed_http(self, data: bytes) -> None:
        assert self._http is not None, "data_received made it"
        self._http.receive_data(data)
        try:
            while (event := self._http.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Request):
                    self._request = event
                elif isinstance(event, h11.Data):
                    self._body += event.data
                    if len(self._body) > MAX_BODY_BYTES:
                        self._answer(413, "text/plain", b"The body is too large.\n")
                        return
                else:
                    self._route()
                    return
        except h11.RemoteProtocolError as error:
            self._answer(error.error_status_hint, "text/plain", f"{error}\n".encode())

    def _route(self) -> None:
        request = self._request
        if request is None:  # the peer closed before it asked anything
            self._transport.abort()
            return
        if request.method not in METHODS:
            self._answer(405, "text/plain", b"GET, HEAD and POST are served here.\n")
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers
        }
        self._answer(
            *self._door.answer(
                request.method.decode("ascii"),
                request.target.decode("latin-1"),
                headers,
                bytes(self._body),
            )
        )

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        """One answer, and no more from our side.

        The socket is left to the peer to close, until the handshake's time is over: to close it
        on input that nobody has read resets the connection, and the peer loses the answer.
        """
        http = self._http
        assert http is not None, "only asked after a request"
        self._answered = True
        head = [
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        out = http.send(h11.Response(status_code=status, headers=head)) or b""
        if self._request is None or self._request.method != b"HEAD":
            out += http.send(h11.Data(data=body)) or b""
        out += http.send(h11.EndOfMessage()) or b""
        self._transport.write(out)
        self._transport.write_eof()
