"""Cartesia: clauses in, mu-law pieces out; a part of the `io-vendors` thread.

One WebSocket for all calls (vendor_tts_socket.py) and one context on it for each reply. A slot's
replies are spoken one after another; the replies of all calls share the contexts that the key
has, and wait for one in turn. What the server says is routed here, by context: once a context is
given up, whatever still arrives for it is dropped.

Every `Speak` ends in exactly one done `Spoken` and every `EndOfSpeech` in exactly one ended one,
unless it is cancelled. What a clause waits for has a deadline: a free context, a connection, its
first audio, more of it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from ..config import Cartesia
from ..errors import ProtocolError
from ..observe.histogram import LATENCY_MS, Histogram
from ..observe.prometheus import Sample, counter, gauge, milliseconds
from ..vendors import cartesia as codec
from ..vendors.breaker import FAILURES, Breaker
from ..vendors.cartesia_speech import Piece, Speech
from ..vendors.pacing import HOLD_SECONDS, Pacing
from .messages import CancelSpeech, EndOfSpeech, Event, Speak, Spoken
from .vendor_tts_socket import Socket

CONTEXT_SECONDS = 0.7  # the server forgets a context 1 s after its last audio
GRACE_SECONDS = 0.5  # the attempt to connect has a deadline of its own, and says more
GARBAGE = 3  # unreadable messages in a row, and the connection is no good
BYTES_PER_SECOND = 8000


class _Reply:
    """One reply of one call, and the context it is spoken in."""

    __slots__ = (
        "clause", "context", "deadline", "end", "end_sent", "heard_at", "name", "pacing",
        "releasing", "rings_at", "room", "since", "slot", "speech", "timer",
    )  # fmt: skip

    def __init__(self, event: Speak | EndOfSpeech) -> None:
        self.slot = event.slot
        self.name = (event.generation, event.epoch)
        self.speech = Speech()
        self.pacing = Pacing()
        self.releasing = False  # a timer sees to what is held
        self.end: EndOfSpeech | None = None  # no clause follows
        self.end_sent = False
        self.room = False  # one of the contexts is its own
        self.context = ""  # its name, once it is open
        self.heard_at = 0.0  # the context's last audio
        self.clause = 0  # the last one that was heard of
        self.since = 0.0  # when the server began with it
        self.deadline = 0.0
        self.timer: asyncio.Handle | None = None
        self.rings_at = 0.0  # the timer; it may be earlier than the deadline


class Voices:
    """See the module. On the running loop.

    Args:
        config: server, voice and deadlines.
        publish: takes `Spoken`; called on the loop's thread.
        max_contexts: how many may be open at once; further replies wait.
        failures: so many in a row open the breaker.

    Raises:
        ConfigError: there is no key, or the address cannot be used.
    """

    def __init__(
        self,
        config: Cartesia,
        publish: Callable[[Event], None],
        max_contexts: int,
        failures: int = FAILURES,
    ) -> None:
        self._config = config
        self._publish = publish
        self._max_contexts = self._free = max_contexts
        self._requests = codec.Requests(config)
        self._socket = Socket(config, self._opened, self._received, self._lost)
        self._breaker = Breaker(failures)
        self._slots: dict[int, deque[_Reply]] = {}  # in each: replies of one epoch, in order
        self._contexts: dict[str, _Reply] = {}
        self._queue: dict[_Reply, None] = {}  # those that wait for room, in order
        self._prefix = uuid.uuid4().hex[:12]  # other processes may use the same key
        self._opened_contexts = 0
        self._garbage_in_a_row = 0
        # Reports.
        self.clauses = 0
        self.failed = 0
        self.cancelled = 0
        self.late = 0
        self.garbage = 0
        self.acquire = Histogram(LATENCY_MS)
        self.first_audio = Histogram(LATENCY_MS)
        self.total = Histogram(LATENCY_MS)

    def warm(self) -> None:
        """Open the connection ahead of need."""
        self._socket.open()

    async def close(self) -> None:
        """End everything, within about a second. Nothing more is published."""
        for replies in self._slots.values():
            for reply in replies:
                self._disarm(reply)
                reply.pacing.take()
        self._slots.clear()
        self._contexts.clear()
        self._queue.clear()
        await self._socket.close()

    # -- what reply asks ----------------------------------------------------------------------

    def handle(self, event: Speak | EndOfSpeech | CancelSpeech) -> None:
        """Begin, continue, end or cancel a reply."""
        if isinstance(event, CancelSpeech):
            self._outdate(event.slot, (event.generation, event.epoch + 1))
            return
        name = (event.generation, event.epoch)
        self._outdate(event.slot, name)
        replies = self._slots.setdefault(event.slot, deque())
        if replies and replies[-1].name != name:
            return  # of an older epoch, all of which is cancelled
        if isinstance(event, Speak) and not self._breaker.allows(time.monotonic()):
            self._refuse(event)
            return
        if not replies or replies[-1].end is not None:
            replies.append(_Reply(event))
        reply = replies[-1]
        if isinstance(event, Speak):
            self.clauses += 1
            reply.speech.ask(event.clause, event.text, time.monotonic())
        else:
            reply.end = event
        self._move(reply)

    def _outdate(self, slot: int, name: tuple[int, int]) -> None:
        """Cancel the call's replies that are older than (generation, epoch)."""
        replies = self._slots.get(slot)
        while replies and replies[0].name < name:
            reply = replies.popleft()
            self.cancelled += bool(reply.speech.open)
            self._disarm(reply)
            reply.pacing.take()
            self._leave(reply, self._requests.cancel)

    def _refuse(self, event: Speak) -> None:
        reason = codec.resting(self._config)
        self._say(_Reply(event), Piece(event.clause, b"", True, reason=reason))

    # -- a reply's way ------------------------------------------------------------------------

    def _move(self, reply: _Reply) -> None:
        """Do for it what can be done now, and see to its next deadline."""
        if self._slots[reply.slot][0] is not reply:
            return  # its turn comes when the one before has ended
        speech = reply.speech
        if speech.open and not speech.open[-1].sent:
            self._ask(reply)
        if reply.end is not None and not speech.open:
            self._finish(reply, reply.end)
            return
        if reply.end is not None and reply.context and not reply.end_sent and speech.open[-1].sent:
            reply.end_sent = True
            self._socket.send(self._requests.end(reply.context))
        self._arm(reply)

    def _ask(self, reply: _Reply) -> None:
        """Send the clauses that have not been sent, if there is room and a connection."""
        now = time.monotonic()
        if not reply.room:
            if not self._free:
                self._queue[reply] = None
                return
            self._free -= 1
            reply.room = True
        if not self._socket.up:
            self._socket.open()
            return
        speech = reply.speech
        if reply.context and now - reply.heard_at > CONTEXT_SECONDS and not speech.open[0].sent:
            self._forget(reply)
        if not reply.context:
            self._opened_contexts += 1
            reply.context = f"{self._prefix}.{self._opened_contexts}"
            reply.end_sent = False
            reply.speech.new_context()
            self._contexts[reply.context] = reply
        for clause in speech.ask_for(now):
            self.acquire.observe((now - clause.asked) * 1e3)
            self._socket.send(self._requests.clause(reply.context, clause.text))
            self._socket.send(self._requests.flush(reply.context))

    def _finish(self, reply: _Reply, end: EndOfSpeech) -> None:
        """All of it has been said: its last frame, and on with the call's next reply."""
        self._disarm(reply)
        self._leave(reply, None if reply.end_sent else self._requests.end)
        audio = reply.speech.tail()
        name = (end.slot, end.generation, end.epoch, end.clause)
        self._publish(Spoken(*name, audio, 0, ended=True, at=time.monotonic_ns()))
        replies = self._slots[reply.slot]
        replies.popleft()
        if replies:
            replies[0].speech.begin(time.monotonic())
            self._move(replies[0])

    def _say(self, reply: _Reply, piece: Piece) -> None:
        if piece.audio and piece.clause != reply.clause:
            reply.clause = piece.clause
            reply.since = reply.speech.open[0].since
            self.first_audio.observe((reply.heard_at - reply.since) * 1e3)
        if piece.reason:
            self.failed += 1
        elif piece.done:
            self._breaker.succeeded()
            self.total.observe((time.monotonic() - reply.since) * 1e3)
        for ready in reply.pacing.put(piece, time.monotonic()):
            self._give(reply, ready)
        if reply.pacing.held is not None and not reply.releasing:
            reply.releasing = True
            asyncio.get_running_loop().call_later(HOLD_SECONDS, self._release, reply)

    def _release(self, reply: _Reply) -> None:
        reply.releasing = False
        for piece in reply.pacing.take():
            self._give(reply, piece)

    def _give(self, reply: _Reply, piece: Piece) -> None:
        self._publish(
            Spoken(
                slot=reply.slot,
                generation=reply.name[0],
                epoch=reply.name[1],
                clause=piece.clause,
                audio=piece.audio,
                duration_ms=piece.duration_ms,
                ended=False,
                at=time.monotonic_ns(),
                reason=piece.reason,
                done=piece.done,
                words=piece.words,
            )
        )

    def _fail(self, reply: _Reply, reason: str) -> None:
        """Its open clauses will not be spoken (any further)."""
        self._leave(reply, self._requests.cancel)
        for piece in reply.speech.fail(reason):
            self._say(reply, piece)
        self._move(reply)

    def _again(self, reply: _Reply, reason: str) -> None:
        """The context is no more. A continuation of which nothing came is asked for in another,
        as its first clause: the server may just have forgotten the old one."""
        head = reply.speech.open[0]
        if head.continued and not head.size:
            self._forget(reply)
            reply.speech.new_context()
            self._move(reply)
        else:
            self._breaker.failed(time.monotonic())
            self._fail(reply, reason)

    def _forget(self, reply: _Reply) -> None:
        """From here on nothing that comes for its context is published."""
        self._contexts.pop(reply.context, None)
        reply.context = ""

    def _leave(self, reply: _Reply, message: Callable[[str], str] | None) -> None:
        """Give up its context, telling the server with `message`, and its room."""
        if reply.context and message is not None and self._socket.up:
            self._socket.send(message(reply.context))
        self._forget(reply)
        self._queue.pop(reply, None)
        if reply.room:
            reply.room = False
            self._free += 1
            if self._queue:
                following = next(iter(self._queue))
                del self._queue[following]
                self._move(following)

    # -- deadlines ----------------------------------------------------------------------------

    def _arm(self, reply: _Reply) -> None:
        """A timer is only moved forward here; one that comes too early sets itself again."""
        reply.deadline = self._due_at(reply)
        if not reply.deadline:
            self._disarm(reply)
            return
        if reply.timer is not None:
            if reply.rings_at <= reply.deadline:
                return
            reply.timer.cancel()
        reply.rings_at = reply.deadline
        left = max(reply.deadline - time.monotonic(), 0.0)
        reply.timer = asyncio.get_running_loop().call_later(left, self._due, reply)

    def _due_at(self, reply: _Reply) -> float:
        config = self._config
        if not reply.speech.open:
            return reply.heard_at + CONTEXT_SECONDS if reply.context else 0.0
        head = reply.speech.open[0]
        if not head.sent:
            if not reply.room:
                return head.asked + config.queue_seconds
            return head.asked + config.connect_seconds + GRACE_SECONDS
        if not head.size:
            return head.since + config.first_audio_seconds
        behind = head.began + head.size / BYTES_PER_SECOND  # where real time would be
        return min(reply.heard_at, behind) + config.audio_seconds

    def _disarm(self, reply: _Reply) -> None:
        if reply.timer is not None:
            reply.timer.cancel()
            reply.timer = None

    def _due(self, reply: _Reply) -> None:
        reply.timer = None
        if time.monotonic() < reply.deadline:
            self._arm(reply)
        elif not reply.speech.open:
            self._leave(reply, self._requests.end)
        elif not reply.room:
            self._fail(reply, codec.too_many(self._config, self._max_contexts))
        else:
            self._late(reply)

    def _late(self, reply: _Reply) -> None:
        head = reply.speech.open[0]
        if not head.sent:
            self._breaker.failed(time.monotonic())
            self._fail(reply, codec.explain(TimeoutError(), self._config))
            return
        config = self._config
        reason = codec.too_slow(config, begun=head.size > 0)
        patience = config.audio_seconds if head.size else config.first_audio_seconds
        if time.monotonic() - self._socket.heard_at > patience / 2:
            self._socket.drop(reason)  # nothing for anybody else either: it is the connection
        if reply.speech.open:
            self._breaker.failed(time.monotonic())
            self._fail(reply, reason)

    # -- what the server says -----------------------------------------------------------------

    def _opened(self) -> None:
        self._garbage_in_a_row = 0
        for reply in self._heads():
            self._move(reply)

    def _lost(self, reason: str, rest: float) -> None:
        hit = [reply for reply in self._heads() if reply.room]
        if rest or any(reply.speech.open for reply in hit):
            self._breaker.failed(time.monotonic(), rest)
        for reply in hit:
            self._fail(reply, reason)

    def _heads(self) -> Iterator[_Reply]:
        return iter([replies[0] for replies in self._slots.values() if replies])

    def _received(self, message: bytes) -> None:
        answer = codec.read(message)
        if answer.kind == "garbage":
            self._unreadable()
            return
        self._garbage_in_a_row = 0
        reply = self._contexts.get(answer.context)
        if reply is None:
            if answer.kind == "error" and not answer.context:
                self._socket.drop(codec.refusal(answer.status, answer.reason, self._config))
            self.late += answer.kind == "audio"
            return
        if answer.kind == "done":
            self._over(reply)
        elif answer.kind == "error":
            self._again(reply, codec.refusal(answer.status, answer.reason, self._config))
        else:
            self._take(reply, answer)

    def _take(self, reply: _Reply, answer: codec.Answer) -> None:
        now = time.monotonic()
        if answer.audio:
            reply.heard_at = now
        try:
            pieces = reply.speech.take(answer, now)
        except ProtocolError as error:
            self._breaker.failed(now)
            self._fail(reply, str(error))
            return
        for piece in pieces:
            if piece.reason:  # a clause of silence
                self._breaker.failed(now)
            self._say(reply, piece)
        self._move(reply)

    def _over(self, reply: _Reply) -> None:
        for piece in reply.speech.over(time.monotonic()):
            self._say(reply, piece)
        self._forget(reply)
        if reply.speech.open:
            self._again(reply, codec.ended_early(self._config))
        else:
            self._leave(reply, None)
            self._move(reply)

    def _unreadable(self) -> None:
        self.garbage += 1
        self._garbage_in_a_row += 1
        if self._garbage_in_a_row >= GARBAGE:
            self._socket.drop(codec.senseless(self._config))

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        for name, help_text, histogram in (
            (
                "acquire",
                "From a clause to its request: a free context, a connection.",
                self.acquire,
            ),
            ("first_audio", "From the request, or the clause before, to audio.", self.first_audio),
            ("total", "The same to the end of the clause.", self.total),
        ):
            yield milliseconds(f"threadline_tts_vendor_{name}_seconds", help_text, histogram)
        for name, help_text, value in (
            ("clauses", "Clauses asked of the vendor's voice.", self.clauses),
            ("failed", "Of them, not spoken or not to their end.", self.failed),
            ("cancelled", "Replies cancelled while they were spoken.", self.cancelled),
            ("late_chunks", "Audio of contexts already given up, dropped.", self.late),
            ("garbage", "Messages that could not be read.", self.garbage),
            ("connects", "Connections opened.", self._socket.connects),
        ):
            yield counter(f"threadline_tts_vendor_{name}_total", help_text, value)
        for name, help_text, value in (
            ("contexts", "Contexts in use.", self._max_contexts - self._free),
            ("waiting", "Replies that wait for one.", len(self._queue)),
            ("connected", "1 while there is a connection.", self._socket.up),
            ("breaker_open", "1 while the vendor is left alone.", self._breaker.open),
        ):
            yield gauge(f"threadline_tts_vendor_{name}", help_text, value)
