"""Silero VAD at 8 kHz: the probability of speech in each 32 ms window, many calls at a time.

Silero is a small recurrent network. It keeps a state per stream and wants to see the last 32
samples of the previous window before the new one. Both live here, one row per call slot, so that
the windows of every call that is due go through the network as one batch: in a batch of 64 a
window costs a sixth of what it costs alone, and comes to the same number but for its rounding.

Not thread-safe: one thread owns a `Silero`, and with it the state of every slot.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .silero_network import BATCH, HIDDEN, SAMPLES, Network

RATE = 8_000
"""Samples a second. Silero also knows 16 kHz; telephone audio has nothing to gain from it."""

WINDOW = 256
"""New samples of one run: 32 ms."""

CONTEXT = SAMPLES - WINDOW
"""Samples of the previous window that the network sees again, in front of the new ones."""


class Silero:
    """The network, and the state of ``slots`` streams. Every slot starts reset.

    ``path`` is the ``silero_vad.onnx`` of the model store. ModelError when it is absent, damaged,
    or another network.
    """

    __slots__ = ("_cell", "_context", "_hidden", "_network", "_samples")

    def __init__(self, path: str | Path, slots: int) -> None:
        self._network = Network(path)
        self._hidden = np.zeros((slots, HIDDEN), dtype=np.float32)
        self._cell = np.zeros((slots, HIDDEN), dtype=np.float32)
        self._context = np.zeros((slots, CONTEXT), dtype=np.float32)
        self._samples = np.zeros((BATCH, SAMPLES), dtype=np.float32)  # of one batch

    @property
    def slots(self) -> int:
        """How many streams there is room for."""
        return self._context.shape[0]

    def run(self, slots: NDArray[np.intp], windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Speech probability, 0..1, of one new window for each of the B given slots.

        ``slots`` is (B,), each slot at most once: a second window of the same call must see the
        state that the first one leaves. ``windows`` is (B, 256), samples in -1..1 at 8 kHz.
        The result is (B,), in the order given; the state of these slots moves on.
        """
        chances = np.zeros(len(slots), dtype=np.float32)
        for begin in range(0, len(slots), BATCH):
            part = slice(begin, begin + BATCH)
            chances[part] = self._batch(slots[part], windows[part])
        return chances

    def _batch(self, slots: NDArray[np.intp], windows: NDArray[np.float32]) -> NDArray[np.float32]:
        samples = self._samples[: len(slots)]
        samples[:, :CONTEXT] = self._context[slots]
        samples[:, CONTEXT:] = windows
        hidden, cell = self._hidden[slots], self._cell[slots]
        chances = self._network.run(samples, hidden, cell)
        self._hidden[slots], self._cell[slots] = hidden, cell
        self._context[slots] = samples[:, -CONTEXT:]
        return chances

    def reset(self, slot: int) -> None:
        """Forget everything heard in this slot: the next window is a new caller's first."""
        self._hidden[slot] = self._cell[slot] = 0.0
        self._context[slot] = 0.0
