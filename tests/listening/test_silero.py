"""Silero's batches, its state per slot, and that it knows speech from silence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from threadline.listening.silero import WINDOW, Silero
from threadline.models.store import ModelStore

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")


@pytest.fixture(scope="module")
def path(models: ModelStore) -> Path:
    return models.path("silero-vad", "silero_vad.onnx")


@pytest.fixture(scope="module")
def prompt() -> NDArray[np.float32]:
    """A recorded sentence at 8 kHz, as (n, 256) windows."""
    file = SOUNDS / "agent-alreadyon.wav"
    if not file.exists():
        pytest.skip("no recorded prompts: run tests/sounds.sh")
    samples = np.frombuffer(file.read_bytes()[44:], dtype="<i2").astype(np.float32) / 32_768
    return samples[: len(samples) // WINDOW * WINDOW].reshape(-1, WINDOW)


def one(silero: Silero, slot: int, window: NDArray[np.float32]) -> float:
    return float(silero.run(np.array([slot]), window[None])[0])


def noise(*shape: int, seed: int = 1, level: float = 0.1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, level, shape).astype(np.float32)


def test_speech_is_told_from_silence_and_noise(path: Path, prompt: NDArray[np.float32]) -> None:
    silero = Silero(path, 3)
    speech = [one(silero, 0, window) for window in prompt]
    silent = [one(silero, 1, window) for window in np.zeros_like(prompt)]
    hiss = [one(silero, 2, window) for window in noise(*prompt.shape, level=0.01)]
    assert np.mean(np.array(speech) > 0.5) > 0.85
    assert max(silent) < 0.1
    assert max(hiss[3:]) < 0.35


def test_a_batch_gives_what_single_runs_give(path: Path, prompt: NDArray[np.float32]) -> None:
    """Eight calls, each somewhere else in the sentence, in slots out of order."""
    slots = np.array([11, 3, 0, 7, 15, 4, 9, 2])
    together, alone = Silero(path, 16), Silero(path, 16)
    for step in range(len(prompt) - len(slots)):
        windows = prompt[step : step + len(slots)]
        batch = together.run(slots, windows)
        single = [one(alone, slot, window) for slot, window in zip(slots, windows, strict=True)]
        np.testing.assert_allclose(batch, single, atol=1e-5)


def test_batches_of_changing_size_keep_each_call_apart(
    path: Path, prompt: NDArray[np.float32]
) -> None:
    """Slot 5 hears the sentence; its neighbours come and go with noise."""
    expected = Silero(path, 8)
    shared = Silero(path, 8)
    random = np.random.default_rng(7)
    for step, window in enumerate(prompt[:60]):
        others = [slot for slot in range(8) if slot != 5 and random.random() < 0.5]
        slots = np.array([*others, 5])
        random.shuffle(slots)
        windows = noise(len(slots), WINDOW, seed=step)
        windows[slots == 5] = window
        got = shared.run(slots, windows)[slots == 5][0]
        assert got == pytest.approx(one(expected, 5, window), abs=1e-5)


def test_the_state_matters_and_reset_forgets_it(path: Path, prompt: NDArray[np.float32]) -> None:
    silero = Silero(path, 2)
    first = [one(silero, 1, window) for window in prompt[:10]]
    again = [one(silero, 1, window) for window in prompt[:10]]
    assert again != pytest.approx(first, abs=1e-3), "the second hearing goes on from the first"
    silero.reset(1)
    assert [one(silero, 1, window) for window in prompt[:10]] == pytest.approx(first, abs=1e-5)


def test_reset_touches_no_other_slot(path: Path, prompt: NDArray[np.float32]) -> None:
    kept, disturbed = Silero(path, 2), Silero(path, 2)
    for window in prompt[:12]:
        disturbed.reset(0)
        assert one(disturbed, 1, window) == pytest.approx(one(kept, 1, window), abs=1e-5)


def test_the_last_samples_of_a_window_are_context_of_the_next(
    path: Path, prompt: NDArray[np.float32]
) -> None:
    """Two streams that differ only in the seam: with the state alone they would agree."""
    silero = Silero(path, 2)
    seam = prompt[20].copy()
    for window in prompt[10:20]:
        silero.run(np.array([0, 1]), np.stack([window, window]))
    silero.run(np.array([0, 1]), np.stack([seam, seam]))
    silero._context[1] = 0.0
    apart = silero.run(np.array([0, 1]), np.stack([prompt[21] * 0.01, prompt[21] * 0.01]))
    assert apart[0] != apart[1]


def test_a_result_is_not_overwritten_by_the_next_run(
    path: Path, prompt: NDArray[np.float32]
) -> None:
    silero = Silero(path, 1)
    results = [silero.run(np.array([0]), window[None]) for window in prompt[:10]]
    copies = [result.copy() for result in results]
    silero.run(np.array([0]), prompt[:1] * 0)
    np.testing.assert_array_equal(results, copies)


def test_an_empty_batch_and_a_slot_out_of_range(path: Path) -> None:
    silero = Silero(path, 4)
    assert silero.slots == 4
    assert silero.run(np.zeros(0, np.intp), np.zeros((0, WINDOW), np.float32)).shape == (0,)
    with pytest.raises(IndexError):
        silero.run(np.array([4]), np.zeros((1, WINDOW), np.float32))


def test_it_leaves_the_gil_off() -> None:
    if not hasattr(sys, "_is_gil_enabled") or sys._is_gil_enabled():
        pytest.skip("the GIL is on here anyway")
    program = "import sys, threadline.listening.silero; sys.exit(sys._is_gil_enabled())"
    assert subprocess.run([sys.executable, "-W", "error", "-c", program]).returncode == 0
