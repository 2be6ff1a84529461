"""Silero VAD at 8 kHz: the probability of speech in each 32 ms window, many calls at a time.

Silero is a small recurrent network. It keeps a state per stream and wants to see the last 32
samples of the previous window before the new one. Both live here, one row per call slot, so that
the windows of every call that is due go through the network as one batch: a batch of eight costs
a third per window of eight single runs, and gives the same numbers.

Not thread-safe: one thread owns a `Silero`, and with it the state of every slot.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

RATE = 8_000
"""Samples a second. The network also knows 16 kHz; telephone audio has nothing to gain from it."""

WINDOW = 256
"""New samples of one run: 32 ms."""

CONTEXT = 32
"""Samples of the previous window that the network sees again, in front of the new ones."""

_HIDDEN = 128  # units of each of the two halves (hidden and cell) of the LSTM's state


class Silero:
    """The network, and the state of ``slots`` streams. Every slot starts reset.

    ``path`` is the ``silero_vad.onnx`` of the model store; ``threads`` is what onnxruntime may use
    inside one run (one is fastest for these sizes and leaves the other cores to other stages).
    """

    __slots__ = ("_context", "_input", "_rate", "_session", "_state", "_state_in")

    def __init__(self, path: str | Path, slots: int, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A spinning pool burns a core between two windows, on a machine that other stages share.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3  # its remarks on graph initialisers are of no use here
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._rate = np.array(RATE, dtype=np.int64)
        self._state = np.zeros((2, slots, _HIDDEN), dtype=np.float32)
        self._context = np.zeros((slots, CONTEXT), dtype=np.float32)
        # Scratch for one batch. The state's is flat, because a prefix of a flat array can be seen
        # as a contiguous (2, B, 128) for every B, and a slice [:, :B] of a cube cannot.
        self._state_in = np.zeros(2 * slots * _HIDDEN, dtype=np.float32)
        self._input = np.zeros((slots, CONTEXT + WINDOW), dtype=np.float32)

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
        batch = len(slots)
        if not batch:
            return np.zeros(0, dtype=np.float32)
        state = self._state_in[: 2 * batch * _HIDDEN].reshape(2, batch, _HIDDEN)
        # mode="clip" because take() with the default "raise" fills a hidden copy of `out` first;
        # the plain indexing below refuses a slot out of range.
        np.take(self._state, slots, axis=1, out=state, mode="clip")
        samples = self._input[:batch]
        samples[:, :CONTEXT] = self._context[slots]
        samples[:, CONTEXT:] = windows
        speech, after = self._session.run(
            ("output", "stateN"), {"input": samples, "state": state, "sr": self._rate}
        )
        self._state[:, slots] = after
        self._context[slots] = samples[:, -CONTEXT:]
        probability: NDArray[np.float32] = speech[:, 0]
        return probability

    def reset(self, slot: int) -> None:
        """Forget everything heard in this slot: the next window is a new caller's first."""
        self._state[:, slot] = 0.0
        self._context[slot] = 0.0
