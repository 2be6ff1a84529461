import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from threadline.audio import levels, mulaw


def tone(n: int, amplitude: float, rate: int = 8000) -> NDArray[np.float32]:
    return (amplitude * np.sin(2 * np.pi * 400 * np.arange(n) / rate)).astype(np.float32)


def pcm(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    return (samples * 32_767).astype(np.int16)


def test_levels_of_known_sounds() -> None:
    assert levels.dbfs(np.ones(100, np.float32)) == pytest.approx(0)
    assert levels.dbfs(tone(8000, 1.0)) == pytest.approx(-3.01, abs=0.01)
    assert levels.dbfs(pcm(tone(8000, 0.1))) == pytest.approx(-23.01, abs=0.01)
    assert levels.dbfs(np.zeros(100, np.int16)) == levels.SILENT_DB
    assert levels.dbfs(np.zeros(0, np.int16)) == levels.SILENT_DB
    assert levels.rms(np.full(5, -32_768, np.int16)) == 1.0


@given(st.integers(0, 900), st.integers(1, 300))
def test_blocks_are_levels_of_their_parts(n: int, size: int) -> None:
    samples = tone(n, 0.3) + np.float32(0.01)
    want = [levels.dbfs(samples[at : at + size]) for at in range(0, n, size)]
    assert levels.block_dbfs(samples, size).tolist() == pytest.approx(want, abs=0.01)


@given(st.integers(0, 9000), st.integers(2000, 9000), st.integers(0, 9000))
def test_bounds_find_the_sound_to_one_window(before: int, length: int, after: int) -> None:
    quiet = np.random.default_rng(0).standard_normal(before + length + after) * 1e-3
    samples = quiet.astype(np.float32)
    samples[before : before + length] += tone(length, 0.2)
    first, last = levels.speech_bounds(samples, 8000)
    assert before - 80 < first <= before + 80
    assert before + length - 80 <= last < before + length + 80
    assert last <= len(samples)
    assert levels.speech_bounds(pcm(samples), 8000) == (first, last)


def test_bounds_of_no_sound() -> None:
    assert levels.speech_bounds(np.zeros(800, np.int16), 8000) == (0, 0)
    assert levels.speech_bounds(np.zeros(0, np.float32), 8000) == (0, 0)


def test_floor_decides_what_is_sound() -> None:
    murmur = tone(1600, 0.003)  # -53 dBFS
    assert levels.speech_bounds(murmur, 8000) == (0, 0)
    assert levels.speech_bounds(murmur, 8000, floor_db=-60) == (0, 1600)


def test_a_pause_is_shortened_and_no_sound_is_lost() -> None:
    first, second, pause = tone(1600, 0.2), tone(800, 0.1), np.zeros(2400, np.float32)
    samples = np.concatenate([first, pause, second, pause[:640], first])
    shortened = levels.shorten_pauses(samples, 8000, 120)
    assert np.array_equal(
        shortened, np.concatenate([first, pause[:960], second, pause[:640], first])
    )
    assert np.array_equal(levels.shorten_pauses(samples, 8000, 300), samples)
    assert len(levels.shorten_pauses(pause, 8000, 0)) == 0
    assert len(levels.shorten_pauses(pause[:0], 8000, 100)) == 0
    assert levels.shorten_pauses(pcm(samples), 8000, 120).dtype == np.int16


def test_audible_frames() -> None:
    assert levels.audible(mulaw.encode_float(tone(160, 0.05)))
    assert levels.audible(memoryview(mulaw.encode_float(tone(160, -0.02))))
    assert not levels.audible(bytes([mulaw.SILENCE]) * mulaw.FRAME)
    assert not levels.audible(b"\x7f" * mulaw.FRAME)  # the other zero
    assert not levels.audible(mulaw.encode_float(tone(160, 0.003)))  # a line's noise
    click = np.zeros(160, np.int16)
    click[80:83] = 20_000
    assert not levels.audible(mulaw.encode(click))
    assert not levels.audible(b"")
