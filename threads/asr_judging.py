"""What `asr` tells vad and endpoint of the words that it has: part of the `asr` thread.

An `Opinion` says what speech over a talking agent was; a `JudgeTurn` asks how a pause sounds, with
the words before it as far as they are known; `Patience` says how long it may last where the words
alone decide that.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..config import Endpoint
from ..listening.backchannel import Barge, classify
from ..observe.prometheus import Sample, counter
from .calls import WINDOW
from .endpoint import LONGEST, by_words
from .messages import JudgeTurn, Opinion, Patience
from .transcribe import Utterance
from .wake import Outbox


class Judging:
    """See the module. `to_endpoint` is None when nobody judges pauses."""

    def __init__(
        self, config: Endpoint, to_vad: Outbox[object], to_endpoint: Outbox[object] | None
    ) -> None:
        self._config = config
        self._to_vad = to_vad
        self._to_endpoint = to_endpoint
        self.opinions = dict.fromkeys(Barge, 0)

    def opine(self, said: Utterance, windows: int, kind: Barge) -> None:
        """Say what it is. It is in doubt no more."""
        said.doubt = 0
        self.opinions[kind] += 1
        self._to_vad.put(Opinion(said.call.slot, said.generation, said.number, windows, kind))

    def opine_early(self, said: Utterance, windows: int, text: str) -> None:
        """The same of a text that may not be complete: it can say that there are words, not that
        there are none."""
        kind = classify(text)
        if kind is Barge.STOP or kind is Barge.WORDS:
            self.opine(said, windows, kind)

    def ask(self, said: Utterance, *, awaited: bool) -> None:
        """Ask whether this pause sounds like the end of the turn. `awaited`: words that are not
        known yet will come in a moment, and nothing is to be said before."""
        if self._to_endpoint is None:
            return
        end = said.pause * WINDOW
        known = said.known == said.pause
        self._to_endpoint.put(
            JudgeTurn(
                said.call.slot,
                said.generation,
                said.epoch,
                said.number,
                said.pause,
                bytes(said.audio[max(0, end - LONGEST) : end]),
                (said.text or "") if known else "",
                hold=awaited and not known,
            )
        )

    def take_words(self, said: Utterance, text: str) -> None:
        """The words of a pause are known. Those that decide alone need not wait for the sound."""
        if self._to_endpoint is None:
            return
        if decision := by_words(self._config, text):
            self._to_vad.put(
                Patience(
                    said.call.slot,
                    said.generation,
                    said.number,
                    said.pause,
                    decision.silence_ms,
                    decision.why,
                )
            )
        # What was judged without them, or is about to be, is judged anew.
        self.ask(said, awaited=False)

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        about = "What speech over a talking agent was."
        for kind, count in self.opinions.items():
            yield counter("threadline_asr_opinions_total", about, count, kind=kind.name.lower())
