"""The `io-calls` thread: every caller's socket, and who gets a slot.

Wakes on   its event loop: sockets; its inbox's eventfd, written by pacer (frames are due), vad
           (an epoch rose), reply (hang up) and the supervisor (drain).
Owns       every caller socket and its wire state (connection.py); the free slots and admission
           (door.py).
Reads      a call's epoch; its `due` ring.
Writes     a call's generation; its `heard` ring; opens, closes, marks and cuts to reply.

The loop only moves bytes between sockets and rings. It is the single writer of every socket and
the single allocator of slots, so the bound on calls is exact and the last check before a frame
leaves is made where it leaves.

There may be several, io-calls-1, -2, ..., each with a loop of its own and the slots of shards.py.
The first one has the door: it answers what is plain HTTP, gives lines away, and hands a caller
whose slot is another's to that one, socket and all, before a byte of the answer is sent. The
others tell it when a line is free again.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence

import uvloop

from ..config import Server
from ..errors import AddressError
from ..observe.histogram import LATENESS_MS, Histogram
from ..observe.prometheus import Sample, counter, milliseconds
from .awake import Pulse
from .calls import Call
from .connection import Leg
from .door import Door, Doorway
from .logs import logger
from .messages import CallClosed, Drain, Handed, HangUp, LineFreed
from .realtime import MEDIA_PRIORITY, prepare_thread
from .wake import Inbox, Outbox

log = logger("io-calls")


def _raise(error: BaseException) -> None:
    raise error


_BACKLOG = 512  # connections that the kernel holds for us
_ELSEWHERE_SECONDS = 0.02  # for a sibling to let somebody in
_JOIN_SECONDS = 1.0  # for sockets on their way here when the thread ends
MANY_LEGS = 24  # from so many on, waking for each of their messages costs more than it saves
NAP_MS = 2


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
    """See the module. `step` runs the event loop until `stop`.

    Args:
        inbox: the stage has its name.
        wake_vad: wakes the threads that hear these slots.
        door: None when another thread has it.
        ports: the first one's to each of the others, in their order; another's to the first.
    """

    def __init__(
        self,
        config: Server,
        inbox: Inbox,
        to_reply: Outbox[object],
        wake_vad: Callable[[Iterable[int]], None],
        door: Door | None,
        ports: Sequence[Outbox[object]] = (),
    ) -> None:
        self.name = inbox.name
        self.config = config
        self.inbox = inbox
        self.to_reply = to_reply
        self.wake_vad = wake_vad
        self.pulse = Pulse()
        self.loop = uvloop.new_event_loop()
        self.legs: set[Leg] = set()
        self.doorways: set[Doorway] = set()
        self.defect: Callable[[BaseException], None] = _raise
        self._door = door
        self._ports = ports
        self._by_slot: dict[int, Leg] = {}
        self._unheard: list[int] = []  # slots
        self._wanted = select.poll()  # what ends a nap: frames are due, an epoch rose
        self._wanted.register(inbox.fileno(), select.POLLIN)
        self._server: asyncio.AbstractServer | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self._on_leg: Leg | None = None  # being worked on
        # Reports.
        self.beat = 0
        self.lateness = Histogram(LATENESS_MS)
        self.frames = 0
        self.stale = 0
        self.clears = 0

    @property
    def on_call(self) -> Call | None:
        """The call being worked on, for the supervisor."""
        return None if self._on_leg is None else self._on_leg.call

    def working_on(self, leg: Leg | None) -> None:
        """Remember whom a defect would concern."""
        self._on_leg = leg

    # -- the loop -------------------------------------------------------------------------------

    def begin(self) -> None:
        """On this thread: accept connections from now on."""
        prepare_thread(priority=MEDIA_PRIORITY)  # a due frame must not wait behind a decode
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(self._on_defect)
        if self._door is not None:
            self._open(self._door)
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
        elif self._door is not None:
            self.loop.remove_reader(self._door.listener)
            self._door.listener.close()
        for event in self.inbox.events():
            if isinstance(event, Handed):
                event.sock.close()
        if self._connecting:
            self.loop.run_until_complete(asyncio.wait(self._connecting, timeout=_JOIN_SECONDS))
        for leg in list(self.legs):
            leg.hang_up("the server is stopping")
            leg.abort()
        for doorway in list(self.doorways):
            doorway.abort()
        self.loop.remove_reader(self.inbox.fileno())
        self.loop.remove_reader(self.pulse.fileno())
        self.loop.run_until_complete(asyncio.sleep(0))  # connection_lost of what was aborted
        self.loop.close()

    # -- the door ---------------------------------------------------------------------------------

    def _open(self, door: Door) -> None:
        if door.siblings is None:
            accepting = self.loop.create_server(
                lambda: Doorway(self, door), sock=door.listener, backlog=_BACKLOG
            )
            self._server = self.loop.run_until_complete(accepting)
        else:
            door.listener.setblocking(False)
            self._watch(door)
            door.tell_siblings()  # before the first caller: they leave him to us if they are full

    def _watch(self, door: Door) -> None:
        self.loop.add_reader(door.listener, self._accept, door)

    def _accept(self, door: Door) -> None:
        """Somebody is at the door: let him in, unless a sibling has a line for him and we not."""
        # Who has been let in and not asked yet may want a line.
        asking = len(self._connecting) + len(self.doorways)
        full = door.busy() or door.live + asking >= door.limit
        if full and door.elsewhere():
            self.loop.remove_reader(door.listener)
            self.loop.call_later(_ELSEWHERE_SECONDS, self._watch, door)
            return
        try:
            peer, _ = door.listener.accept()
        except OSError:  # a sibling was quicker, or he has left
            return
        self._connect(Doorway(self, door), peer)

    def _connect(self, protocol: Doorway | Leg, sock: socket.socket) -> None:
        task = self.loop.create_task(self._connected(protocol, sock))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connected(self, protocol: Doorway | Leg, sock: socket.socket) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: protocol, sock)
        except OSError:
            sock.close()
            if isinstance(protocol, Leg):
                protocol.end("the caller's connection was lost")

    def place(self, leg: Leg, transport: asyncio.Transport) -> None:
        """A peer who asked for a line is served here, unless his slot is another thread's.

        Then he goes there, and this thread touches neither him nor his socket any more.
        """
        call = leg.call
        whose = call.slot % (len(self._ports) + 1) if call is not None else 0
        if not whose:
            transport.set_protocol(leg)
            leg.connection_made(transport)
            return
        sock = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        transport.set_protocol(asyncio.Protocol())  # that this one is closed is news for nobody
        transport.abort()  # closes a descriptor; the connection lives on in ours
        self._ports[whose - 1].put(Handed(leg, sock))

    def seat(self, leg: Leg) -> None:
        """A leg has its socket; its call, if it has one, can be told what concerns it."""
        self.legs.add(leg)
        if leg.call is not None:
            self._by_slot[leg.call.slot] = leg

    # -- what the others want ---------------------------------------------------------------------

    def _woken(self) -> None:
        """Something is due, or an epoch rose: look at every leg."""
        self.inbox.clear()
        self.beat += 1
        for outbox in (self.to_reply, *self._ports):
            outbox.flush()
        for event in self.inbox.events():
            self._take(event)
        for leg in list(self._by_slot.values()):
            call = leg.call  # asked in place: a thousand times a second, of every leg
            if call is not None and (call.due.depth() or call.epoch.at != leg.epoch):
                self._on_leg = leg
                leg.pump()
        self._on_leg = None

    def audio_came(self, slot: int) -> None:
        """A caller's audio is in its ring: whoever hears it is woken once for all that is read in
        this turn of the loop."""
        if not self._unheard:
            self.loop.call_soon(self._pass_on)
        self._unheard.append(slot)

    def _pass_on(self) -> None:
        """When there are many callers, let a little more come before the loop turns again: vad
        takes it in batches anyway. A frame that falls due ends the nap."""
        slots, self._unheard = self._unheard, []
        self.wake_vad(slots)
        if len(self._by_slot) >= MANY_LEGS:
            self._wanted.poll(NAP_MS)  # nothing is read: the loop sees it as well

    def _take(self, event: object) -> None:
        if isinstance(event, HangUp):
            leg = self._by_slot.get(event.slot)
            if leg is not None and leg.generation == event.generation:
                leg.hang_up(event.reason)
        elif isinstance(event, Handed):
            event.leg.move_to(self)
            self._connect(event.leg, event.sock)
        elif isinstance(event, LineFreed):
            self._give_back(event.call)
        elif isinstance(event, Drain):
            if self._door is not None:
                self._door.draining = True
                self._door.tell_siblings()
            if event.now:
                for leg in list(self._by_slot.values()):
                    leg.hang_up("the server is stopping")

    def _sweep(self) -> None:
        """Once a second: those who never start, and those who fell silent."""
        self.loop.call_later(1.0, self._sweep)
        self.beat += 1
        if self._door is not None:
            self._door.tell_siblings()
        now = time.monotonic()
        for leg in list(self.legs):
            if not leg.generation and now - leg.since > self.config.start_seconds:
                leg.drop(f"no start within {self.config.start_seconds:g} s")
            elif leg.generation and now - leg.heard > self.config.silent_peer_seconds:
                leg.drop(f"no audio for {self.config.silent_peer_seconds:g} s")

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
        self._give_back(call)
        self.wake_vad((call.slot,))

    def _give_back(self, call: Call) -> None:
        if self._door is not None:
            self._door.give_back(call)
        else:
            self._ports[0].put(LineFreed(call))

    # -- reports --------------------------------------------------------------------------------

    def _on_defect(self, _: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """A callback of the loop raised: that call ends, the loop goes on."""
        error = context.get("exception")
        if isinstance(error, Exception):
            self.defect(error)
        leg, self._on_leg = self._on_leg, None
        if leg is not None:
            leg.end(f"a defect in {self.name}")
            leg.abort()

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        yield milliseconds(
            "threadline_frame_lateness_seconds",
            "From a frame's deadline to the write of its socket.",
            self.lateness,
        )
        for name, help_text, value in (
            ("threadline_io_frames_total", "Frames written.", self.frames),
            ("threadline_io_clears_total", "Clears sent.", self.clears),
            ("threadline_io_stale_frames_total", "Frames of an older epoch held back.", self.stale),
        ):
            yield counter(name, help_text, value)


def io_threads(
    config: Server,
    inboxes: Sequence[Inbox],
    reply: Inbox,
    wake_vad: Callable[[Iterable[int]], None],
    door: Door,
) -> list[IoCalls]:
    """As many as there are inboxes; the first one has the door."""
    first, *others = inboxes
    to_others: list[Outbox[object]] = [inbox.port(first.name) for inbox in others]
    return [
        IoCalls(config, first, reply.port(first.name), wake_vad, door, to_others),
        *(
            IoCalls(config, one, reply.port(one.name), wake_vad, None, [first.port(one.name)])
            for one in others
        ),
    ]
