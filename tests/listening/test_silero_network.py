"""The network beside onnxruntime, which computes the file's own graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from threadline.errors import ModelError
from threadline.listening.silero_network import BATCH, HIDDEN, SAMPLES, Network
from threadline.models.onnx import constants
from threadline.models.store import ModelStore

ROUNDING = 3e-5  # it adds up over windows


@pytest.fixture(scope="module")
def path(models: ModelStore) -> Path:
    return models.path("silero-vad", "silero_vad.onnx")


@pytest.fixture(scope="module")
def network(path: Path) -> Network:
    return Network(path)


@pytest.fixture(scope="module")
def graph(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def sounds(batch: int, seed: int) -> NDArray[np.float32]:
    """From digital silence over hiss and hum to what is clipped."""
    random = np.random.default_rng(seed)
    time = np.arange(SAMPLES) / 8000
    hum = np.sin(2 * np.pi * time * random.uniform(80, 3000, (batch, 1)))
    mixed = hum * random.uniform(0, 1, (batch, 1)) + random.normal(0, 0.3, (batch, SAMPLES))
    mixed *= 10 ** random.uniform(-5, 0.3, (batch, 1))
    mixed[1::4] = 0.0
    return np.clip(mixed, -1, 1).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 2, 7, BATCH])
def test_it_is_the_graph_over_many_windows(
    network: Network, graph: onnxruntime.InferenceSession, batch: int
) -> None:
    hidden, cell = np.zeros((2, batch, HIDDEN), np.float32)
    state = np.zeros((2, batch, HIDDEN), np.float32)
    rate = np.array(8000, np.int64)
    spread = 0.0
    for step in range(40):
        samples = sounds(batch, step)
        expected, state = graph.run(None, {"input": samples, "state": state, "sr": rate})
        chances = network.run(samples, hidden, cell)
        np.testing.assert_allclose(chances, expected[:, 0], atol=ROUNDING)
        np.testing.assert_allclose(hidden, state[0], atol=ROUNDING)
        np.testing.assert_allclose(cell, state[1], atol=10 * ROUNDING)
        spread = max(spread, float(np.ptp(chances)))
    assert batch == 1 or spread > 0.02, "nothing was told from anything"


def test_a_batch_leaves_nothing_behind(network: Network) -> None:
    """A small batch after a large one sees zeros where the network has its borders."""
    samples = sounds(3, 1)
    first = network.run(samples, *np.zeros((2, 3, HIDDEN), np.float32))
    network.run(sounds(BATCH, 2), *np.ones((2, BATCH, HIDDEN), np.float32))
    again = network.run(samples, *np.zeros((2, 3, HIDDEN), np.float32))
    np.testing.assert_array_equal(first, again)


def test_the_two_rates_are_told_apart(path: Path) -> None:
    basis = "stft.forward_basis_buffer"
    assert constants(path, "else_branch")[basis].shape == (130, 1, 128)
    assert constants(path, "then_branch")[basis].shape == (258, 1, 256)


def test_another_file_is_refused(tmp_path: Path, path: Path) -> None:
    whole = path.read_bytes()
    for name, content in (
        ("empty", b""),
        ("text", b"this is no model at all"),
        ("half", whole[: len(whole) // 2]),
        ("number", b"\x38\x05"),
    ):
        file = tmp_path / f"{name}.onnx"
        file.write_bytes(content)
        with pytest.raises(ModelError, match=rf"{name}\.onnx.*threadline models fetch"):
            Network(file)
    with pytest.raises(ModelError, match="absent"):
        Network(tmp_path / "none.onnx")
