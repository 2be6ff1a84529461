"""The `io-calls` thread: every caller's socket, and who gets a slot.

Wakes on   its event loop: sockets; its inbox's eventfd, written by pacer (frames are due), vad
           (an epoch rose), reply (hang up) and the supervisor (drain).
Owns       every caller socket and its wire state (connection.py), the free slots, admission.
Reads      a call's epoch; its `due` ring.
Writes     a call's generation; its `heard` ring; opens, closes, marks and cuts to reply.

The loop only moves bytes between sockets and rings. It is the single writer of every socket and
the single allocator of slots, so the bound on calls is exact and the last check before a frame
leaves is made where it leaves.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import parse_qsl

import uvloop

from ..config import Server
from ..errors import AddressError, ConfigError
from ..observe.histogram import LATENESS_MS, Histogram
from ..observe.prometheus import CONTENT_TYPE, Sample, counter, gauge, milliseconds
from ..wire import signature, twiml
from .awake import Pulse
from .calls import Call
from .connection import STREAM_PATH, Doorway, Leg
from .logs import logger
from .messages import CallClosed, Drain, HangUp
from .realtime import MEDIA_PRIORITY, prepare_thread
from .siblings import Siblings
from .wake import Inbox, Outbox

log = logger("io-calls")


def _raise(error: BaseException) -> None:
    raise error


Answer = tuple[int, str, bytes]
_TEXT = "text/plain; charset=utf-8"
_BACKLOG = 512  # connections that the kernel holds for us
_ELSEWHERE_SECONDS = 0.02  # for a sibling to let somebody in
REFUSALS = ("full", "strained", "draining", "unsigned")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. AddressError names the port and what to do when it cannot be had."""
    try:
        socket.getaddrinfo(host or None, port)  # create_server leaks its socket on a non-name
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError, ValueError) as error:  # ValueError: a host that is no name
        why = str(getattr(error, "strerror", None) or error).partition(" (while ")[0]
        raise AddressError(
            f"Cannot listen on {host}:{port} ({why}): stop what uses it, or choose another "
            "with --host and --port (0 takes a free one)."
        ) from None


class IoCalls:
    """See the module. `step` runs the event loop until `stop`."""

    name = "io-calls"

    def __init__(
        self,
        calls: Sequence[Call],
        config: Server,
        listener: socket.socket,
        inbox: Inbox,
        to_reply: Outbox[object],
        wake_vad: Callable[[], None],
        readiness: Callable[[], tuple[str, dict[str, object]]],
        metrics: Callable[[], bytes],
    ) -> None:
        self.config = config
        self.inbox = inbox
        self.to_reply = to_reply
        self.wake_vad = wake_vad
        self.pulse = Pulse()
        self.loop = uvloop.new_event_loop()
        self.legs: set[Leg] = set()
        self.doorways: set[Doorway] = set()
        self.defect: Callable[[BaseException], None] = _raise
        self.limit = len(calls)  # lowered by the supervisor when the GIL is back
        self.strained = ""  # why no call is taken just now; written by watch
        self.siblings: Siblings | None = None  # other processes that accept from this socket
        self.draining = False
        self._listener = listener
        self._readiness = readiness
        self._metrics = metrics
        self._free = deque(calls)
        self._by_slot: dict[int, Leg] = {}
        self._server: asyncio.AbstractServer | None = None
        self._accepted: set[asyncio.Task[object]] = set()
        self._on_leg: Leg | None = None  # being worked on
        # Reports.
        self.beat = 0
        self.lateness = Histogram(LATENESS_MS)
        self.frames = 0
        self.stale = 0
        self.clears = 0
        self.opened = 0
        self.refusals = dict.fromkeys(REFUSALS, 0)

    @property
    def on_call(self) -> Call | None:
        """The call being worked on, for the supervisor."""
        return None if self._on_leg is None else self._on_leg.call

    @property
    def live(self) -> int:
        """Slots in use."""
        return len(self._by_slot)

    def working_on(self, leg: Leg | None) -> None:
        """Remember whom a defect would concern."""
        self._on_leg = leg

    # -- the loop -------------------------------------------------------------------------------

    def begin(self) -> None:
        """On this thread: accept connections from now on."""
        prepare_thread(priority=MEDIA_PRIORITY)  # a due frame must not wait behind a decode
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(self._on_defect)
        if self.siblings is None:
            doorway = self.loop.create_server(
                lambda: Doorway(self), sock=self._listener, backlog=_BACKLOG
            )
            self._server = self.loop.run_until_complete(doorway)
        else:
            self._listener.setblocking(False)
            self._watch_door()
            self._tell_siblings()  # before the first caller: they leave him to us if they are full
        self.loop.add_reader(self.inbox.fileno(), self._woken)
        self.loop.add_reader(self.pulse.fileno(), self.pulse.answer)
        self.loop.call_later(1.0, self._sweep)

    def step(self) -> None:
        """Run until `stop`."""
        self.loop.run_forever()

    def stop(self) -> None:
        """Any thread: let `step` return."""
        self.loop.call_soon_threadsafe(self.loop.stop)

    def finish(self) -> None:
        """Close every socket."""
        if self._server is not None:
            self._server.close()
        else:
            self.loop.remove_reader(self._listener)
            self._listener.close()
        for leg in list(self.legs):
            leg.hang_up("the server is stopping")
            leg.abort()
        for doorway in list(self.doorways):
            doorway.abort()
        self.loop.remove_reader(self.inbox.fileno())
        self.loop.remove_reader(self.pulse.fileno())
        self.loop.run_until_complete(asyncio.sleep(0))  # connection_lost of what was aborted
        self.loop.close()

    # -- the door, when several processes share it -----------------------------------------------

    def _watch_door(self) -> None:
        self.loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Somebody is at the door: let him in, unless a sibling has a line for him and we not."""
        assert self.siblings is not None, "without siblings the loop accepts by itself"
        # Who has been let in and not asked yet may want a line.
        asking = len(self._accepted) + len(self.doorways)
        full = self._busy() or self.live + asking >= self.limit
        if full and self._elsewhere():
            self.loop.remove_reader(self._listener)
            self.loop.call_later(_ELSEWHERE_SECONDS, self._watch_door)
            return
        try:
            peer, _ = self._listener.accept()
        except OSError:  # a sibling was quicker, or he has left
            return
        work = self.loop.connect_accepted_socket(lambda: Doorway(self), peer)
        task: asyncio.Task[object] = self.loop.create_task(work)
        self._accepted.add(task)
        task.add_done_callback(self._accepted.discard)

    def _elsewhere(self) -> bool:
        """A sibling has a line free."""
        return self.siblings is not None and self.siblings.another_is_free()

    def _tell_siblings(self) -> None:
        if self.siblings is not None:
            free = 0 if self._busy() else self.limit - self.live
            self.siblings.tell(free, self.live, ready=not self._closed())

    # -- what the others want ---------------------------------------------------------------------

    def _woken(self) -> None:
        """Something is due, or an epoch rose: look at every leg."""
        self.inbox.clear()
        self.beat += 1
        self.to_reply.flush()
        for event in self.inbox.events():
            self._take(event)
        for leg in list(self._by_slot.values()):
            self._on_leg = leg
            leg.pump()
        self._on_leg = None

    def _take(self, event: object) -> None:
        if isinstance(event, HangUp):
            leg = self._by_slot.get(event.slot)
            if leg is not None and leg.generation == event.generation:
                leg.hang_up(event.reason)
        elif isinstance(event, Drain):
            self.draining = True
            self._tell_siblings()
            if event.now:
                for leg in list(self._by_slot.values()):
                    leg.hang_up("the server is stopping")

    def _sweep(self) -> None:
        """Once a second: those who never start, and those who fell silent."""
        self.loop.call_later(1.0, self._sweep)
        self.beat += 1
        self._tell_siblings()
        now = time.monotonic()
        for leg in list(self.legs):
            if not leg.generation and now - leg.since > self.config.start_seconds:
                leg.drop(f"no start within {self.config.start_seconds:g} s")
            elif leg.generation and now - leg.heard > self.config.silent_peer_seconds:
                leg.drop(f"no audio for {self.config.silent_peer_seconds:g} s")

    # -- admission ------------------------------------------------------------------------------

    def admit(self, leg: Leg, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Reserve a slot for this leg; or say with which status and sentence it is refused."""
        lower = {name.lower(): value for name, value in headers.items()}
        token = self.config.twilio_auth_token
        if token:
            url = signature.request_url(
                path, lower, websocket=True, public_url=self.config.public_url
            )
            if not signature.valid(token, url, (), lower.get("x-twilio-signature")):
                return self._refuse(403, "the request is not signed by the carrier", "unsigned")
        busy = self._busy()
        if busy:
            return self._refuse(503, busy, self._why())
        leg.call = self._free.popleft()
        self._by_slot[leg.call.slot] = leg
        self.opened += 1
        self._tell_siblings()
        return None

    def _closed(self) -> str:
        """Why no call is taken, however many lines are free."""
        if self.draining:
            return "this server is being stopped"
        return self.strained

    def _busy(self) -> str:
        """Why no call can be taken now; empty when one can."""
        if self.live >= self.limit:
            return self._closed() or f"all {self.limit} lines are in use"
        return self._closed()

    def _why(self) -> str:
        """The same, as the metrics call it."""
        return "draining" if self.draining else "strained" if self.strained else "full"

    def _refuse(self, status: int, reason: str, kind: str) -> tuple[int, str]:
        self.refusals[kind] += 1
        log.warning("call refused", status=status, reason=reason)
        return status, reason

    def release(self, leg: Leg, reason: str) -> None:
        """A leg has ended: give its slot back, behind all others."""
        call = leg.call
        if call is None:
            if not leg.generation:
                log.debug("connection closed before its call began", reason=reason)
            return
        if leg.generation:
            call.generation.at += 1  # even: nobody is on the line
            self.to_reply.put(CallClosed(call.slot, leg.generation, reason))
        else:
            log.warning("stream ended before its call began", reason=reason)
        self._by_slot.pop(call.slot, None)
        self._free.append(call)
        self._tell_siblings()
        self.wake_vad()

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
        problem = self._busy() or problem
        if self.siblings is not None:
            facts |= {"processes": self.siblings.count, "calls_in_all": self.siblings.live()}
            if self._elsewhere():
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
        if self._busy() and not self._elsewhere():
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

    # -- reports --------------------------------------------------------------------------------

    def _on_defect(self, _: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """A callback of the loop raised: that call ends, the loop goes on."""
        error = context.get("exception")
        if isinstance(error, Exception):
            self.defect(error)
        leg, self._on_leg = self._on_leg, None
        if leg is not None:
            leg.end("a defect in io-calls")
            leg.abort()

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        yield gauge("threadline_calls", "Calls on the line.", self.live)
        yield gauge("threadline_calls_limit", "Calls that are admitted.", self.limit)
        yield milliseconds(
            "threadline_frame_lateness_seconds",
            "From a frame's deadline to the write of its socket.",
            self.lateness,
        )
        for name, help_text, value in (
            ("threadline_calls_opened_total", "Calls admitted.", self.opened),
            ("threadline_io_frames_total", "Frames written.", self.frames),
            ("threadline_io_clears_total", "Clears sent.", self.clears),
            ("threadline_io_stale_frames_total", "Frames of an older epoch held back.", self.stale),
        ):
            yield counter(name, help_text, value)
        for reason, value in self.refusals.items():
            yield counter("threadline_calls_refused_total", "Calls refused.", value, reason=reason)
