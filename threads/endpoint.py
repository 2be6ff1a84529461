"""The `endpoint` thread: has the caller finished?

Wakes on   its inbox: asr's questions, one at each pause, and one more when its words are known.
Owns       the end-of-turn model, what waits for it, and for each call what its last pause
           sounded like.
Reads      nothing of a call: whether the caller has gone on, vad knows better.
Writes     `Patience` to vad.

What waits is judged in one run of the model, the newest question of each call only: of an older
one the caller has gone on. How a pause sounds is asked once, however often its words change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..audio import mulaw
from ..config import Endpoint
from ..listening.endpoint import Decision, decide
from ..listening.smart_turn import LONGEST as LONGEST
from ..observe.histogram import LATENCY_MS, Histogram
from ..observe.prometheus import Sample, counter, milliseconds
from .calls import Call
from .messages import JudgeTurn, Patience
from .wake import Inbox, Outbox

MOST = 8
"""Turns of one run: each takes the model 10 ms and more, and the others wait for all of it."""


MODEL_MS = 1_000.0
"""A run may take so long, on a loaded machine."""


class Judge(Protocol):
    """What judges: see listening/smart_turn.py."""

    def judge(self, turns: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """How probable it is that each of these is complete; samples at 8 kHz, 8 s at most."""


def by_words(config: Endpoint, text: str) -> Decision | None:
    """What these words are worth however they sounded; None when that depends on the sound."""
    unfinished, complete = decide(config, 0.0, text), decide(config, 1.0, text)
    return complete if unfinished == complete else None


class EndpointStage:
    """See the module. `step` is one batch."""

    name = "endpoint"

    def __init__(
        self,
        config: Endpoint,
        load: Callable[[], Judge],
        inbox: Inbox,
        to_vad: Outbox[object],
    ) -> None:
        self.inbox = inbox
        self.on_call: Call | None = None  # a batch is of many: a defect here ends none of them
        self._config = config
        self._load = load
        self._model: Judge | None = None
        self._to_vad = to_vad
        self._waiting: dict[int, JudgeTurn] = {}  # by slot, in the order of their coming
        self._sounds: dict[int, tuple[tuple[int, ...], float]] = {}  # by slot: pause, probability
        # Reports.
        self.beat = 0
        self.judged = 0
        self.runs = 0
        self.skipped = 0
        self.seconds = Histogram(LATENCY_MS)

    def begin(self) -> None:
        """Load the model on the thread that will use it; its first run is a slow one."""
        self._model = self._load()
        self._model.judge([np.zeros(mulaw.RATE, np.float32)])

    def step(self) -> None:
        """Take what came; judge it, or the first of it."""
        self.beat += 1
        kept = self._to_vad.flush()
        if not self._waiting:
            self.inbox.wait(1.0 if kept else 0.02)
        self._take()
        batch = [self._waiting.pop(slot) for slot in list(self._waiting)[:MOST]]
        self._listen([turn for turn in batch if self._unheard(turn)])
        self._take()  # the words of some may have come meanwhile
        for turn in batch:
            newer = self._waiting.get(turn.slot)
            if newer is None:
                self._answer(turn)
                continue
            self.skipped += _pause(newer) != _pause(turn)
            if not self._unheard(newer):
                self._answer(self._waiting.pop(turn.slot))

    def _take(self) -> None:
        for event in self.inbox.events():
            assert isinstance(event, JudgeTurn), event
            older = self._waiting.get(event.slot)
            self.skipped += older is not None and _pause(older) != _pause(event)
            self._waiting[event.slot] = event

    def _unheard(self, turn: JudgeTurn) -> bool:
        """The model has to be asked."""
        pause, _ = self._sounds.get(turn.slot, ((), 0.0))
        return pause != _pause(turn) and by_words(self._config, turn.text) is None

    def _listen(self, turns: Sequence[JudgeTurn]) -> None:
        if not turns:
            return
        assert self._model is not None, "begin() comes first"
        began = time.monotonic_ns()
        with self.inbox.awake.longer(MODEL_MS):
            chances = self._model.judge([mulaw.decode_float(turn.audio) for turn in turns])
        self.seconds.observe((time.monotonic_ns() - began) / 1e6)
        self.runs += 1
        self.judged += len(turns)
        for turn, chance in zip(turns, chances.tolist(), strict=True):
            self._sounds[turn.slot] = _pause(turn), chance

    def _answer(self, turn: JudgeTurn) -> None:
        if turn.hold:
            return
        _, chance = self._sounds.get(turn.slot, ((), 0.0))  # of this pause, or it is all the same
        decision = decide(self._config, chance, turn.text)
        self._to_vad.put(
            Patience(
                turn.slot,
                turn.generation,
                turn.utterance,
                turn.windows,
                decision.silence_ms,
                decision.why,
            )
        )

    def finish(self) -> None:
        """Give the model back."""
        self._model = None

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        about = "One run of the end-of-turn model."
        yield milliseconds("threadline_endpoint_run_seconds", about, self.seconds)
        for name, help_text, value in (
            ("judgements", "Pauses judged by their sound.", self.judged),
            ("runs", "Runs of the model; judgements / runs is the batch size.", self.runs),
            ("skipped", "Pauses not judged: the caller had gone on.", self.skipped),
        ):
            yield counter(f"threadline_endpoint_{name}_total", help_text, value)


def _pause(turn: JudgeTurn) -> tuple[int, ...]:
    """Which pause of a call a question is about."""
    return turn.generation, turn.utterance, turn.windows
