"""The chain of voices as `reply` sees it: clauses go out, audio comes back. Its thread's alone.

Which clause is with which voice is known to its line (line.py); here is what every call shares.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..dialog import events as talk
from ..observe.prometheus import Sample, counter
from .line import Clause, Ending, Line, Order
from .logs import logger
from .messages import Speak, Spoken
from .wake import Outbox

log = logger("reply")


class Voices:
    """`chain`: each voice's name, and where clauses for it go; the first that can, speaks."""

    def __init__(self, chain: Sequence[tuple[str, Outbox[object]]]) -> None:
        self._chain = chain
        self.failed = [0] * len(chain)

    def __len__(self) -> int:
        return len(self._chain)

    def flush(self) -> bool:
        """Deliver what had to wait; True when nothing is left."""
        kept = [name for name, box in self._chain if not box.flush()]
        return not kept

    def tell(self, line: Line, orders: Iterable[Order], now: int) -> None:
        """Pass on what the line wants of its voices."""
        for voice, order in orders:
            if isinstance(order, Speak):
                line.turns.voice_asked(order.clause, now)
            self._chain[voice][1].put(order)

    def request(self, line: Line, now: int) -> None:
        """Ask for clauses, a little ahead of the ear and no further."""
        if line.queue:
            self.tell(line, line.due_speech(), now)

    def spoken(self, line: Line, event: Spoken, now: int) -> None:
        """Audio came, or the news that none will; what the conversation must know is in
        `line.facts` afterwards."""
        one = line.answered(event.clause, ended=event.ended) if event.epoch == line.epoch else None
        if one is None:
            return  # void, or taken back
        if event.audio and line.wants(one):
            line.add(one, event.audio)
            line.turns.audio(event.clause, now)
        if event.reason:
            name = self._chain[one.voice][0]
            self.failed[one.voice] += 1
            log.warning("voice failed", call_id=line.info.call_id, voice=name, reason=event.reason)
        if isinstance(one, Ending):
            self.tell(line, line.complete(one), now)
        else:
            self._clause(line, one, event, now)
        self.request(line, now)

    def _clause(self, line: Line, clause: Clause, event: Spoken, now: int) -> None:
        if event.done and event.reason and not clause.audio:
            orders = line.fail(clause)
            if orders is None:
                line.facts.append(talk.SpeechFailed(event.epoch, event.clause))
            else:
                self.tell(line, orders, now)
            return
        if (event.done or event.words) and not clause.again:
            length = (event.duration_ms or len(clause.audio) // 8) if event.done else 0
            line.facts.append(talk.ClauseSpoken(event.clause, length, event.words))
        if event.done:
            self.tell(line, line.complete(clause), now)

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        text = "Clauses that a voice did not speak, or not to their end."
        for (name, _), value in zip(self._chain, self.failed, strict=True):
            yield counter("threadline_reply_unspoken_total", text, value, voice=name)
