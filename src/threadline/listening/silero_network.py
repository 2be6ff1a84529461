"""Silero's network for 8 kHz, for many windows at a time: a row of matrix products.

    window, 256 samples   behind 32 of the one before, and 32 more: its own end, mirrored
    4 spectra of 65       each of 128 samples, 64 apart: a matrix of cosines and sines
    4 x 128               convolution over three spectra, ReLU
    2 x 64, then 1 x 64   two more, each halving the time
    1 x 128               one more, of one instant by now
    128 + 128             an LSTM: what it hides and what it keeps for the next window
    1                     the probability

onnxruntime computes the same graph at twice the price: it takes the convolutions of a batch one
window after another, and a product with four columns leaves most of a core's lanes empty. Here
each is one product for all windows; biases are rows of the matrices, next to a column of ones.
"""

from __future__ import annotations

from os import PathLike

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ..errors import ModelError
from ..models.onnx import constants

SAMPLES = 288  # of a window, and before it
HIDDEN = 128  # units of the LSTM
BATCH = 128  # windows at once: more of them gain nothing

_MIRRORED = 32
_FFT, _HOP, _FRAMES, _BINS = 128, 64, 4, 65
_FIRST, _MIDDLE = 128, 64  # channels of the convolutions
_SHAPES = {
    "stft.forward_basis_buffer": (2 * _BINS, 1, _FFT),
    "encoder.0.reparam_conv.weight": (_FIRST, _BINS, 3),
    "encoder.0.reparam_conv.bias": (_FIRST,),
    "encoder.1.reparam_conv.weight": (_MIDDLE, _FIRST, 3),
    "encoder.1.reparam_conv.bias": (_MIDDLE,),
    "encoder.2.reparam_conv.weight": (_MIDDLE, _MIDDLE, 3),
    "encoder.2.reparam_conv.bias": (_MIDDLE,),
    "encoder.3.reparam_conv.weight": (HIDDEN, _MIDDLE, 3),
    "encoder.3.reparam_conv.bias": (HIDDEN,),
    "decoder.rnn.weight_ih": (4 * HIDDEN, HIDDEN),
    "decoder.rnn.weight_hh": (4 * HIDDEN, HIDDEN),
    "decoder.rnn.bias_ih": (4 * HIDDEN,),
    "decoder.rnn.bias_hh": (4 * HIDDEN,),
    "decoder.decoder.2.weight": (1, HIDDEN, 1),
    "decoder.decoder.2.bias": (1,),
}

type Floats = NDArray[np.float32]


class Network:
    """The network, and room for one batch. Not thread-safe.

    ``path`` is the ``silero_vad.onnx`` of the model store. ModelError when it is absent, damaged,
    or another network.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        weights = constants(path, "else_branch")  # the other one is for 16 kHz
        if any(name not in weights or weights[name].shape != _SHAPES[name] for name in _SHAPES):
            raise ModelError(f"{path}: is not Silero VAD 6: run: threadline models fetch")
        self._fourier = np.ascontiguousarray(weights["stft.forward_basis_buffer"][:, 0].T)
        # Beyond both ends of what a convolution sees are zeros: some of its taps meet nothing else.
        self._convolutions = [
            _matrix(weights, "encoder.0.reparam_conv", slice(0, 3)),
            _matrix(weights, "encoder.1.reparam_conv", slice(0, 3)),
            _matrix(weights, "encoder.2.reparam_conv", slice(1, 3)),
            _matrix(weights, "encoder.3.reparam_conv", slice(1, 2)),
        ]
        self._gates = _gates(weights)
        self._output = weights["decoder.decoder.2.weight"][0, :, 0]
        self._bias = weights["decoder.decoder.2.bias"]

        def zeros(*shape: int) -> Floats:
            return np.zeros((BATCH, *shape), np.float32)

        # The last column of each input stays 1: the bias.
        def inputs(*shape: int) -> Floats:
            return np.ones((BATCH, *shape), np.float32)

        self._samples = zeros(SAMPLES + _MIRRORED)
        self._frames = zeros(_FRAMES, _FFT)
        self._spectra = zeros(_FRAMES, 2 * _BINS)
        self._padded = zeros(_FRAMES + 2, _BINS)  # magnitudes, between two zeros
        self._in = [
            inputs(_FRAMES, 3 * _BINS + 1),
            inputs(2, 3 * _FIRST + 1),
            inputs(2 * _MIDDLE + 1),
            inputs(_MIDDLE + 1),
        ]
        self._out = [zeros(_FRAMES, _FIRST), zeros(2, _MIDDLE), zeros(_MIDDLE), zeros(HIDDEN)]
        self._first = zeros(_FRAMES + 1, _FIRST)  # what the first gives, behind a zero
        self._recurrent = inputs(2 * HIDDEN + 1)
        self._raw = zeros(4 * HIDDEN)
        # The same numbers, seen as what each step takes.
        self._overlapping = _windows(self._samples, _FRAMES, _FFT, _HOP)
        self._threes = _windows(self._padded, _FRAMES, 3 * _BINS, _BINS)
        self._every_other = _windows(self._first, 2, 3 * _FIRST, 2 * _FIRST)

    def run(self, samples: Floats, hidden: Floats, cell: Floats) -> Floats:
        """Speech probability, 0..1, of B windows, at most `BATCH`: (B,).

        ``samples`` is (B, 288) in -1..1. ``hidden`` and ``cell`` are (B, 128), the LSTM's state
        before these windows; it is overwritten with that after them.
        """
        n = len(samples)
        self._magnitudes(samples)
        first, *others = self._in
        first[:n, :, :-1] = self._threes[:n]
        np.maximum(self._convolve(0, n), 0, out=self._first[:n, 1:])
        others[0][:n, :, :-1] = self._every_other[:n]
        np.maximum(self._convolve(1, n).reshape(n, -1), 0, out=others[1][:n, :-1])
        np.maximum(self._convolve(2, n), 0, out=others[2][:n, :-1])
        np.maximum(self._convolve(3, n), 0, out=self._recurrent[:n, :HIDDEN])
        self._remember(hidden, cell)
        score = np.maximum(hidden, 0) @ self._output + self._bias
        probability: Floats = np.reciprocal(1 + np.exp(-score))
        return probability

    def _magnitudes(self, samples: Floats) -> None:
        """Of the spectra, into `_padded`."""
        n = len(samples)
        mirrored, spectra = self._samples[:n], self._spectra[:n]
        mirrored[:, :SAMPLES] = samples
        mirrored[:, SAMPLES:] = samples[:, -2 : -2 - _MIRRORED : -1]
        frames = self._frames[:n]
        frames[:] = self._overlapping[:n]
        _product(frames, self._fourier, spectra)
        np.multiply(spectra, spectra, out=spectra)
        power = spectra[..., :_BINS]
        power += spectra[..., _BINS:]
        np.sqrt(power, out=self._padded[:n, 1:-1])

    def _convolve(self, layer: int, n: int) -> Floats:
        return _product(self._in[layer][:n], self._convolutions[layer], self._out[layer][:n])

    def _remember(self, hidden: Floats, cell: Floats) -> None:
        """One step of the LSTM, over what the last convolution gave."""
        n = len(hidden)
        self._recurrent[:n, HIDDEN : 2 * HIDDEN] = hidden
        gates = _product(self._recurrent[:n], self._gates, self._raw[:n])
        np.tanh(gates, out=gates)
        show = gates[:, 3 * HIDDEN :]
        for logistic in (gates[:, : 2 * HIDDEN], show):  # see `_gates`
            logistic *= 0.5
            logistic += 0.5
        new = gates[:, :HIDDEN]
        new *= gates[:, 2 * HIDDEN : 3 * HIDDEN]
        cell *= gates[:, HIDDEN : 2 * HIDDEN]
        cell += new
        np.tanh(cell, out=hidden)
        hidden *= show


def _matrix(weights: dict[str, Floats], name: str, taps: slice) -> Floats:
    """A convolution's weights, (taps * in + 1, out): the last row is the bias."""
    kernel = weights[f"{name}.weight"][:, :, taps]
    flat = kernel.transpose(2, 1, 0).reshape(-1, len(kernel))
    return np.vstack([flat, weights[f"{name}.bias"]])


def _gates(weights: dict[str, Floats]) -> Floats:
    """The LSTM's, (257, 512): of its input, of what it hid, and the bias.

    The logistic function is tanh of half its argument, halved and raised by a half: with the
    halves taken beforehand, one call of tanh serves all four gates.
    """
    bias = weights["decoder.rnn.bias_ih"] + weights["decoder.rnn.bias_hh"]
    inward, recurrent = weights["decoder.rnn.weight_ih"].T, weights["decoder.rnn.weight_hh"].T
    halves = np.full(4 * HIDDEN, 0.5, np.float32)
    halves[2 * HIDDEN : 3 * HIDDEN] = 1.0  # the third is a tanh by itself
    return np.ascontiguousarray(np.vstack([inward, recurrent, bias]) * halves)


def _windows(array: Floats, count: int, size: int, step: int) -> Floats:
    """(B, count, size): numbers `step` apart in each row of `array`, which is contiguous."""
    row, number = array.strides[0], array.itemsize
    return as_strided(array, (len(array), count, size), (row, step * number, number))


def _product(left: Floats, matrix: Floats, out: Floats) -> Floats:
    """One product for all windows and instants: (..., n) @ (n, m) into (..., m)."""
    np.matmul(left.reshape(-1, len(matrix)), matrix, out=out.reshape(-1, out.shape[-1]))
    return out
