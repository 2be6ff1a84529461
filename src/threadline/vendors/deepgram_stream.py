"""Whose words are these? The texts of one connection, told apart by stream time.

Theory of operation. A connection carries the utterances of one call, one after the other, with
nothing between them. Each result of the server says which stretch of the stream it covers, so it
belongs to the utterance whose audio that was: a result that comes late, for an utterance that is
forgotten or over, can never be taken for words of the next one.

The text of an utterance is its final results, joined, and after them the newest guess. It is
complete up to a point of the stream when the final results reach that point, or when the server
says so (`Results.flushed`). The latter it says "usually", about a Finalize that found something to
do; so what was asked for is answered without it after `QUIET_SECONDS`, provided that the server
has accounted for all but the last `NEAR_SECONDS` of the audio. When it has not, it hangs, and
`overdue` says so in time.

No socket and no clock: `now` is in s, of any steady clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .deepgram import Results

BYTES_PER_SECOND = 8000
QUIET_SECONDS = 0.3
"""After a Finalize the server has had its time to say that it found nothing to do."""
NEAR_SECONDS = 0.2
"""So much at the end of the audio may be without a result of its own: it is asked for in silence,
and a word is longer."""
SLOP_SECONDS = 0.1
"""By so much the server's bounds of a result may miss ours."""
TOUCH_SECONDS = 0.02
"""Final results that come so near to a point reach it: the server counts in steps of its own."""
MAX_ASKS = 32
"""Answers an utterance may wait for at once."""


@dataclass(frozen=True, slots=True)
class Said:
    """Text of an utterance from its beginning on.

    `final`: the answer to the `ask` of `windows`, `seconds` after it; `late`: by the clock, not
    by the server's word. `first`: s from the utterance's first audio to its first text; 0 when
    there was text before. `covered`: s of the utterance that the server has heard.
    """

    utterance: int
    windows: int
    text: str
    final: bool
    seconds: float = 0.0
    late: bool = False
    first: float = 0.0
    covered: float = 0.0


@dataclass(slots=True)
class _Ask:
    windows: int
    at: float  # stream time
    asked: float


@dataclass(slots=True)
class _Utterance:
    number: int
    begin: float  # stream time; the end too
    began: float  # s
    end: float = math.inf
    finals: list[str] = field(default_factory=list)
    guess: str = ""
    told: str = ""
    answered: float = -1.0  # stream time up to which it was answered
    asks: list[_Ask] = field(default_factory=list)
    silent: bool = True  # no text yet

    @property
    def text(self) -> str:
        return " ".join(filter(None, [*self.finals, self.guess]))


class Stream:
    """One connection's stream time: what was sent, and what is known of it.

    Args:
        final_seconds: from an `ask`; what is not answered by then is `overdue`.
    """

    def __init__(self, final_seconds: float) -> None:
        self._final_seconds = final_seconds
        self._sent = 0  # bytes
        self._seen = 0.0  # stream time up to which there are results of any kind; and final ones
        self._final = 0.0
        self._flushed = 0  # bytes before the newest Finalize
        self._flushes: list[float] = []  # stream times of those not known to be answered
        self._utterances: list[_Utterance] = []  # that wait for an answer; the newest is last

    @property
    def behind(self) -> float:
        """Seconds of audio that the server has said nothing about."""
        return self._position - self._seen

    @property
    def unanswered(self) -> list[int]:
        """Utterances with speech that nobody has been told the final text of, oldest first."""
        return [
            u.number
            for u in self._utterances
            if u.asks or (u.end == math.inf and self._position > max(u.begin, u.answered))
        ]

    def begin(self, utterance: int, now: float) -> None:
        """What is sent from here on is this utterance's."""
        at = self._position
        for said in self._utterances:
            said.end = min(said.end, at)
        self._utterances = [said for said in self._utterances if said.asks]
        self._utterances.append(_Utterance(utterance, at, now))

    def add(self, size: int) -> None:
        """`size` bytes of audio are sent, of the newest utterance."""
        self._sent += size

    def flush(self) -> bool:
        """Is a Finalize due, to part what was sent from what follows? Then it counts as sent."""
        if self._flushed == self._sent:
            return False
        self._flushed = self._sent
        self._flushes = [*self._flushes[1 - MAX_ASKS :], self._position]
        return True

    def ask(self, utterance: int, windows: int, now: float) -> list[Said] | None:
        """The final text up to here is wanted. None: too many such answers are awaited already."""
        for said in self._utterances:
            if said.number == utterance:
                if len(said.asks) >= MAX_ASKS:
                    return None
                said.asks.append(_Ask(windows, min(said.end, self._position), now))
                return self._answers(now)
        return []

    def forget(self, utterance: int) -> None:
        """Nothing of it is wanted any more; its audio stays in the stream, as nobody's."""
        self._utterances = [u for u in self._utterances if u.number != utterance]

    def read(self, results: Results, now: float) -> list[Said]:
        """What a result makes known; one about audio that was never sent, nothing."""
        if results.end > self._position + SLOP_SECONDS:
            return []  # taken at its word, it would answer for all that is still to be said
        before = self._final
        further = results.end > self._seen
        for said in self._utterances:
            self._take(said, results)
        self._seen = max(self._seen, results.end)
        if results.final:
            self._final = max(before, results.end)
        if results.flushed:
            self._match(results.end, before)
        answers = self._answers(now)
        answers += [
            self._tell(said, 0, now)
            for said in self._utterances
            if said.text
            and (said.text != said.told or further)
            and min(said.end, self._position) > said.answered
        ]
        return answers

    def expire(self, now: float) -> list[Said]:
        """What the server's silence makes known."""
        return self._answers(now)

    def overdue(self, now: float) -> bool:
        """Has the server left an `ask` without an answer? Call `expire` first."""
        return any(now >= a.asked + self._final_seconds for u in self._utterances for a in u.asks)

    def deadline(self, now: float) -> float | None:
        """When `expire` and `overdue` are to be asked again; None: when a result comes."""
        ends = [
            end
            for said in self._utterances
            for ask in said.asks
            for end in (ask.asked + QUIET_SECONDS, ask.asked + self._final_seconds)
            if end > now
        ]
        return min(ends, default=None)

    # -- inside ---------------------------------------------------------------------------------

    @property
    def _position(self) -> float:
        return self._sent / BYTES_PER_SECOND

    def _take(self, said: _Utterance, results: Results) -> None:
        low = max(said.begin, self._final)
        if results.end <= low or results.start >= said.end:
            return
        text = part(results, low, said.end)
        if results.final:
            said.finals.append(text)
            said.guess = ""
        else:
            said.guess = text

    def _match(self, end: float, before: float) -> None:
        """The server has answered a Finalize: the one sent nearest to where its answer ends.

        Those before it found nothing to do. An answer that adds nothing and is not near any is
        one that was answered already.
        """
        if not self._flushes:
            return
        nearest = min(range(len(self._flushes)), key=lambda i: abs(self._flushes[i] - end))
        at = self._flushes[nearest]
        if end > before or abs(at - end) <= NEAR_SECONDS:
            del self._flushes[: nearest + 1]
            self._final = max(self._final, at)
            self._seen = max(self._seen, at)

    def _answers(self, now: float) -> list[Said]:
        answers: list[Said] = []
        for said in self._utterances:
            waiting: list[_Ask] = []
            for ask in said.asks:
                complete = self._final + TOUCH_SECONDS >= ask.at
                late = now >= ask.asked + QUIET_SECONDS and self._seen + NEAR_SECONDS >= ask.at
                if not complete and not late:
                    waiting.append(ask)
                    continue
                said.answered = max(said.answered, ask.at)
                answers.append(self._tell(said, ask.windows, now, ask.asked, late=not complete))
            said.asks = waiting
        if any(u.end != math.inf and not u.asks for u in self._utterances):
            self._utterances = [u for u in self._utterances if u.end == math.inf or u.asks]
        return answers

    def _tell(
        self,
        said: _Utterance,
        windows: int,
        now: float,
        asked: float | None = None,
        late: bool = False,
    ) -> Said:
        said.told = said.text
        first = now - said.began if said.silent and said.text else 0.0
        said.silent = said.silent and not said.text
        covered = max(0.0, min(self._seen, said.end) - said.begin)
        if asked is None:
            return Said(said.number, 0, said.text, False, first=first, covered=covered)
        return Said(said.number, windows, said.text, True, now - asked, late, first, covered)


def part(results: Results, low: float, high: float) -> str:
    """The text of a result that was spoken in the stretch [`low`, `high`) of the stream.

    All of it when the result lies there, give or take `SLOP_SECONDS`; else the words whose middle
    does; when the server names no words, all or nothing, by the larger share.
    """
    length = results.end - results.start
    spill = length - max(0.0, min(results.end, high) - max(results.start, low))
    mostly = 2 * spill < length or (length == 0 and low <= results.start <= high)
    if mostly and spill <= SLOP_SECONDS:
        return results.text
    if results.words:
        return " ".join(w.text for w in results.words if low <= (w.start + w.end) / 2 < high)
    return results.text if mostly else ""
