"""What the network is given, beside the reference, and what it makes of recorded turns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from threadline.errors import ModelError
from threadline.listening import smart_turn
from threadline.listening.smart_turn import FRAMES, LONGEST, MELS, RATE, SmartTurn, features
from threadline.models.store import ModelStore

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")

_REFERENCE = """
import sys, warnings
import numpy as np
warnings.simplefilter("ignore")
from faster_whisper.feature_extractor import FeatureExtractor
extract = FeatureExtractor(feature_size=80, chunk_length=8)
waves = np.load(sys.argv[1])
np.save(sys.argv[2], np.stack([extract(wave, padding=0) for wave in waves]))
"""


@pytest.fixture(scope="module")
def network(models: ModelStore) -> SmartTurn:
    return SmartTurn(models.path("smart-turn", "smart-turn-v3.2-cpu.onnx"))


def recorded(name: str) -> NDArray[np.float32]:
    file = SOUNDS / f"{name}.wav"
    if not file.exists():
        pytest.skip("no recorded prompts: run tests/sounds.sh")
    return np.frombuffer(file.read_bytes()[44:], "<i2").astype(np.float32) / 32_768


def noise(seconds: float, seed: int = 1) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    return random.normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def padded(turn: NDArray[np.float32]) -> NDArray[np.float32]:
    """The waveform that the reference is given: the order of padding and normalising matters."""
    wave = soxr.resample(turn[-LONGEST:], RATE, 16_000) if len(turn) else turn
    wave = np.concatenate([np.zeros(128_000 - len(wave), np.float32), wave])
    return (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)


def test_the_features_are_the_reference_s(tmp_path: Path) -> None:
    """Beside faster-whisper's extractor, in a child: its package turns the GIL on."""
    long = np.concatenate([recorded("agent-alreadyon"), recorded("privacy-prompt")])
    turns = [
        long[:9_000],
        long,
        long[: LONGEST - 1],
        noise(8),
        noise(0.01),
        np.sin(np.arange(20_000, dtype=np.float32)),
        np.zeros(8_000, np.float32),
        np.zeros(0, np.float32),
    ]
    np.save(tmp_path / "waves.npy", np.stack([padded(turn) for turn in turns]))
    command = [sys.executable, "-c", _REFERENCE, tmp_path / "waves.npy", tmp_path / "out.npy"]
    subprocess.run(command, check=True, timeout=60)
    for turn, expected in zip(turns, np.load(tmp_path / "out.npy"), strict=True):
        np.testing.assert_allclose(features(turn), expected, atol=2e-4)


@given(st.integers(0, LONGEST + 900), st.integers(0, 5))
@settings(max_examples=25)
def test_skipping_the_padding_changes_nothing(length: int, seed: int) -> None:
    """The frames of the padding are computed once, and only those that are all padding."""
    turn = noise(length / RATE, seed)
    every = smart_turn.sliding_window_view(np.pad(padded(turn), 200, mode="reflect"), 400)
    spectrum = np.fft.rfft(every[::160][:FRAMES] * smart_turn._window(), axis=1)
    cells = np.log10(np.maximum(np.abs(spectrum) ** 2 @ smart_turn._filters(), 1e-10))
    expected = (np.maximum(cells, cells.max() - 8) + 4) / 4
    seen = features(turn)
    assert seen.shape == (MELS, FRAMES)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, expected.T, atol=2e-3)


def test_of_a_long_turn_the_last_eight_seconds_count(network: SmartTurn) -> None:
    turn = np.concatenate([noise(3), recorded("agent-alreadyon"), recorded("privacy-prompt")])
    assert len(turn) > LONGEST
    np.testing.assert_array_equal(features(turn), features(turn[-LONGEST:]))
    assert not np.array_equal(features(turn), features(turn[:LONGEST]))


def test_an_end_is_told_from_a_stop_in_mid_sentence(network: SmartTurn) -> None:
    """Margins, not thresholds: which prompts it gets right is measured elsewhere."""
    whole = [recorded(name) for name in ("agent-alreadyon", "all-circuits-busy-now", "pbx-invalid")]
    quiet = np.zeros(RATE // 5, np.float32)
    ends = [np.concatenate([turn, quiet]) for turn in whole]
    stops = [np.concatenate([turn[: len(turn) * 6 // 10], quiet]) for turn in whole]
    assert network.judge(ends).mean() > network.judge(stops).mean() + 0.3


def test_a_batch_gives_what_single_runs_give(network: SmartTurn) -> None:
    turn = recorded("agent-alreadyon")
    turns = [turn, turn[:9_000], noise(1), turn[:20_000]]
    together = network.judge(turns)
    alone = [network.judge([turn])[0] for turn in turns]
    assert together.shape == (4,)
    assert together.dtype == np.float32
    assert len({round(float(one), 3) for one in together}) > 1
    np.testing.assert_allclose(together, alone, atol=1e-3)
    assert ((together >= 0) & (together <= 1)).all()


def test_an_empty_batch_and_an_empty_turn(network: SmartTurn) -> None:
    assert network.judge([]).shape == (0,)
    assert np.isfinite(network.judge([np.zeros(0, np.float32)])).all()


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    damaged = tmp_path / "net.onnx"
    damaged.write_bytes(b"nothing")
    for path in (tmp_path / "absent.onnx", damaged):
        with pytest.raises(ModelError, match=r"absent or damaged: run `threadline models fetch"):
            SmartTurn(path)


def test_it_leaves_the_gil_off() -> None:
    if not hasattr(sys, "_is_gil_enabled") or sys._is_gil_enabled():
        pytest.skip("the GIL is on here anyway")
    program = "import sys, threadline.listening.smart_turn; sys.exit(sys._is_gil_enabled())"
    assert subprocess.run([sys.executable, "-W", "error", "-c", program]).returncode == 0
