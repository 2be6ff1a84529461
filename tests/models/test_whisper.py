"""The window, the loop detector, and the decoder on recorded speech.

The decoder turns the GIL on, so it runs in a child process, as it does in a server.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.listening.agreement import Word
from threadline.models import whisper
from threadline.models.store import ModelStore
from threadline.models.whisper import FULL, SHORTEST, Transcript, compression, repeats, window

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")

_CHILD = """
import json, sys, warnings
import numpy as np, soxr
warnings.simplefilter("ignore")
from threadline.errors import ThreadlineError
from threadline.models.whisper import WhisperDecoder
job = json.loads(sys.argv[1])
try:
    decoder = WhisperDecoder(job["folder"], threads=2, language=job["language"])
except ThreadlineError as error:
    sys.exit(f"{type(error).__name__}: {error}")
windows, audios, alone, runs = [], [], [], 0
attempts = decoder._attempts
decoder._attempts = lambda features, frames: windows.append(frames) or attempts(features, frames)
for clip in job["clips"]:
    audio = np.frombuffer(open(clip, "rb").read()[44:], "<i2").astype("f4") / 32768
    audio = soxr.resample(audio, 8000, 16000)
    said = decoder.decode(audio)
    assert said.words == ()
    used = windows[:]
    timed = decoder.decode_words(audio)
    assert timed.text == said.text
    words = [(word.text, word.start, word.end) for word in timed.words]
    print(json.dumps([said.text, said.seconds, said.no_speech, said.avg_logprob, words, used]))
    audios.append(audio)
    alone.append(said.text)
    runs += len(used)
    windows.clear()
together = decoder.decode_many(audios)
assert [said.text for said in together] == alone
assert [said.seconds for said in together] == [len(audio) / 16000 for audio in audios]
print(json.dumps([windows, runs]))
"""


def child(folder: Path, *clips: Path, language: str = "en") -> subprocess.CompletedProcess[str]:
    job = {"folder": str(folder), "language": language, "clips": [str(clip) for clip in clips]}
    command = [sys.executable, "-c", _CHILD, json.dumps(job)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def wav(path: Path, samples: np.ndarray) -> Path:
    """44 bytes that the child skips, then int16 at 8 kHz."""
    path.write_bytes(bytes(44) + (samples * 32_767).astype("<i2").tobytes())
    return path


def test_recorded_speech_silence_and_noise(models: ModelStore, tmp_path: Path) -> None:
    """One child for all: loading the model is most of the time."""
    if not SOUNDS.exists():
        pytest.skip("no recorded prompts: run tests/sounds.sh")
    random = np.random.default_rng(3)
    done = child(
        models.directory("whisper-base"),
        SOUNDS / "agent-alreadyon.wav",
        SOUNDS / "dictate" / "play_help.wav",
        SOUNDS / "digits" / "2.wav",
        wav(tmp_path / "silence", np.zeros(16_000)),
        wav(tmp_path / "hiss", random.normal(0, 0.02, 16_000)),
        wav(tmp_path / "hum", 0.1 * np.sin(np.arange(16_000) * 2 * np.pi * 50 / 8_000)),
        wav(tmp_path / "blink", np.zeros(400)),
    )
    assert done.returncode == 0, done.stderr
    *rows, (shared, runs) = map(json.loads, done.stdout.splitlines())
    said, twice, brief, *nothing = [
        (Transcript(*row[:4], tuple(Word(*word) for word in row[4])), row[5]) for row in rows
    ]
    for transcript, _ in (said, twice, brief, *nothing):
        check_words(transcript)
    transcript, windows = said
    assert transcript.text == (
        "That agent is already logged on. Please enter your agent number followed by the pound key."
    )
    assert transcript.seconds == pytest.approx(5.5, abs=0.1)
    on, please = transcript.words[5:7]
    assert (on.text, please.text) == ("on.", "Please")
    assert 0.2 < please.start - on.end < 0.8, "she pauses between the sentences"
    assert transcript.avg_logprob > -0.5
    assert windows == [SHORTEST], "5.5 s of speech need no window of 30 s"
    assert twice[0].text.lower().count("press 8 to jump forward") == 1
    assert twice[1][1:] == [FULL], "the short window loops here, and the full one puts it right"
    assert brief[0].text.strip(".") in ("2", "Two")
    assert brief[1] == [whisper.BRIEF_WINDOW]
    assert [transcript.text for transcript, _ in nothing] == [""] * 4
    assert nothing[-1][1] == [], "50 ms are not worth a decode"
    short = [SHORTEST, twice[1][0], whisper.BRIEF_WINDOW]
    assert shared[:3] == short, "one run for each window"
    assert shared[3:] == [FULL] * (len(shared) - 3), "and one more for each that loops"
    assert len(shared) < runs


def check_words(transcript: Transcript) -> None:
    """They are the text, in order, within the sound."""
    words = transcript.words
    assert " ".join(word.text for word in words) == transcript.text
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(0 <= time <= transcript.seconds + 0.1 for time in times)


def test_a_folder_without_a_model_is_one_sentence(tmp_path: Path) -> None:
    done = child(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("ModelError: The recogniser cannot load its model from")
    assert done.stderr.rstrip().endswith("run `threadline models verify`.")


def test_an_unknown_language_is_one_sentence(models: ModelStore) -> None:
    done = child(models.directory("whisper-base"), language="klingon")
    assert done.stderr.startswith("ConfigError: asr.language is 'klingon', which Whisper does not")


def test_importing_the_module_leaves_the_gil_off() -> None:
    if not hasattr(sys, "_is_gil_enabled") or sys._is_gil_enabled():
        pytest.skip("the GIL is on here anyway")
    program = "import sys, threadline.models.whisper; sys.exit(sys._is_gil_enabled())"
    assert subprocess.run([sys.executable, "-W", "error", "-c", program]).returncode == 0


@given(st.integers(10, FULL))
def test_the_window_holds_the_utterance_and_its_margin(frames: int) -> None:
    chosen = window(frames)
    assert chosen % 2 == 0
    assert SHORTEST <= chosen <= FULL
    assert chosen >= min(frames + whisper.MARGIN, FULL)
    if frames >= whisper.BRIEF:
        assert chosen <= max(SHORTEST, frames + whisper.MARGIN + 1)


@given(st.lists(st.integers(0, 50), unique=True), st.integers(0, 50))
def test_only_a_phrase_said_again_at_once_is_a_repeat(tokens: list[int], cut: int) -> None:
    assert not repeats(tokens)
    phrase = tokens[:3]
    if len(phrase) == 3:
        assert repeats(tokens[cut:] + phrase + phrase)
        assert not repeats([*phrase, 99, *phrase])


def test_compression_tells_a_loop_from_speech() -> None:
    assert compression("Please enter your agent number followed by the pound key.") < 1.5
    assert compression("I am here. " * 20) > whisper.REPETITIVE
