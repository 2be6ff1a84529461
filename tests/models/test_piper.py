import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.audio import levels
from threadline.errors import ModelError
from threadline.models import piper
from threadline.models.piper import PiperVoice, trimmed

if TYPE_CHECKING:
    from threadline.models.store import ModelStore

RATE = 22_050
ONNX, JSON = "en_US-joe-medium.onnx", "en_US-joe-medium.onnx.json"


@pytest.fixture(scope="module")
def files(models: ModelStore) -> tuple[Path, Path]:
    pytest.importorskip("espeakng_loader", reason="the extra `local` is not installed")
    return models.path("piper-joe", ONNX), models.path("piper-joe", JSON)


@pytest.fixture(scope="module")
def voice(files: tuple[Path, Path]) -> PiperVoice:
    return PiperVoice(*files)


def seconds(voice: PiperVoice, text: str) -> float:
    return len(voice.synthesize(text)) / voice.rate


def test_it_speaks(voice: PiperVoice) -> None:
    sound = voice.synthesize("Hello, how can I help you?")
    assert voice.rate == RATE
    assert sound.dtype == np.float32
    assert 1 < len(sound) / RATE < 3
    assert -35 < levels.dbfs(sound) < -10
    assert np.abs(sound).max() <= 1


@pytest.mark.parametrize("text", ["", " \n", "...", "?!", "\0", "\ud800", "<>", '"("'])
def test_nothing_to_say_is_no_sound(voice: PiperVoice, text: str) -> None:
    assert voice.synthesize(text).shape == (0,)


def test_more_words_take_longer(voice: PiperVoice) -> None:
    assert seconds(voice, "One.") < 1
    assert seconds(voice, "One, two, three, four, five, six, seven, eight.") > 2


def test_marks_reach_the_model(voice: PiperVoice) -> None:
    sentences = voice._sentences("Well, is it? Yes; Dr. Smith: at 7 a.m.")
    assert [re.sub(r"[^.,;:!?]", "", one) for one in sentences] == [",?", ";:."]


@given(st.text(max_size=60))
def test_any_text_has_phonemes_or_none(voice: PiperVoice, text: str) -> None:
    assert all(0 < len(one) <= 401 for one in voice._sentences(text))


@pytest.mark.parametrize("text", ["9" * 500, "a" * 500, "a, " * 160, "word " * 100])
def test_long_text_is_run_in_bounded_parts(voice: PiperVoice, text: str) -> None:
    sentences = voice._sentences(text)
    assert sentences
    assert max(map(len, sentences)) <= 401


def test_too_long_text_is_refused(voice: PiperVoice) -> None:
    with pytest.raises(ModelError, match="at most 500 characters at once, not 501"):
        voice.synthesize("a" * 501)


@pytest.mark.parametrize(("text", "tail"), [("Hello there,", 0.12), ("Hello there.", 0.22)])
def test_silence_around_a_clause_is_a_natural_pause(
    voice: PiperVoice, text: str, tail: float
) -> None:
    sound = voice.synthesize(text)
    first, last = levels.speech_bounds(sound, RATE, floor_db=-60)
    assert first <= 0.041 * RATE  # 30 ms and the window that finds the edge
    assert len(sound) - last <= (tail + 0.011) * RATE
    assert abs(sound[0]) == abs(sound[-1]) == 0


def test_trimming_cuts_both_ends_without_a_click() -> None:
    sound = np.full(RATE, 1e-4, np.float32)  # the model's own silence, -80 dBFS
    sound[8000:12_000] = 0.5
    cut = trimmed(sound, RATE, 120)
    loud = np.flatnonzero(cut > 0.4)
    assert 0.03 * RATE - 1 <= loud[0] <= 0.041 * RATE
    assert 0.12 * RATE - 1 <= len(cut) - loud[-1] <= 0.131 * RATE
    assert cut[0] == cut[-1] == 0
    assert np.array_equal(cut[loud[0] : loud[-1] + 1], sound[8000:12_000])
    assert sound[0] == np.float32(1e-4)  # a copy


def test_trimming_sound_that_fills_its_buffer_still_fades() -> None:
    cut = trimmed(np.ones(RATE, np.float32), RATE, 120)
    assert len(cut) == RATE
    assert cut[0] == cut[-1] == 0
    assert np.abs(np.diff(cut)).max() < 0.02


def test_trimming_silence_leaves_nothing() -> None:
    assert len(trimmed(np.zeros(RATE, np.float32), RATE, 120)) == 0
    assert len(trimmed(np.ones(9, np.float32), RATE, 120)) == 9  # shorter than the fades


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    about = tmp_path / JSON
    about.write_text(
        '{"audio": {"sample_rate": 22050}, "espeak": {"voice": "en-us"}, "inference": '
        '{"noise_scale": 0.6, "length_scale": 1, "noise_w": 0.8}, '
        '"phoneme_id_map": {"^": [1], "_": [0], "$": [2]}}'
    )
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setattr(piper, "_espeak", piper._Espeak)  # the real one may be loaded already
    with pytest.raises(ModelError, match=r"pip install 'threadline\[local\]'$"):
        PiperVoice(tmp_path / ONNX, about)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"[]", b"{}", b'{"audio": 3}'])
def test_a_bad_description_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / JSON).write_bytes(content)
    with pytest.raises(ModelError, match=r"run: threadline models fetch$"):
        PiperVoice(tmp_path / ONNX, tmp_path / JSON)


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_bad_model_is_one_sentence(
    tmp_path: Path, files: tuple[Path, Path], content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / ONNX).write_bytes(content)
    with pytest.raises(ModelError, match=r"absent or damaged: run: threadline models fetch$"):
        PiperVoice(tmp_path / ONNX, files[1])
