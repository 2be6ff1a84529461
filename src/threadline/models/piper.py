"""The local voice: Piper (VITS) through onnxruntime, phonemes from espeak-ng.

espeak-ng keeps its state in globals of the C library, so everything here belongs to one thread
of the process: the one that builds a ``PiperVoice`` is the only one that may use it or any
other. espeak-ng is GPL and comes with the optional extra ``local``; it is loaded on first use.
"""

from __future__ import annotations

import ctypes
import json
import re
import unicodedata
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..audio import levels
from ..errors import ModelError
from ..talking.speakable import spell_out, stop_ends

MAX_TEXT = 500  # characters in one call
_MAX_PHONEMES = 400  # in one run of the model, whose memory grows with the square
_REMEDY = "run: threadline models fetch"

# The model leaves 30-70 ms of silence before the sound and 90-290 ms after it, at random. Cut to
# this, two clauses join with a comma's pause and two sentences with a full stop's.
_FLOOR_DB = -60.0  # its silence is below -90; the breath of a final "f" is not
_LEAD_MS, _TAIL_MS, _SENTENCE_TAIL_MS, _FADE_MS = 30, 120, 220, 3

_SENTENCE_MARKS = ".!?"
_MARKS = re.compile(r"""[.,;:!?…]+(?=["')\]”’]*(?:\s|$))|—""")  # noqa: RUF001  # curly quotes
_LANGUAGE_FLAG = re.compile(r"\([a-z-]+\)")  # espeak marks words of another language: (fr)


class _Espeak:
    """espeak-ng, loaded into the process once and never let go."""

    _INITIALIZE = (2, 0)  # retrieval only, no sound device; the default buffer
    _DONT_EXIT = 0x8000  # without it the library ends the process when its data is missing
    _UTF8, _IPA = 1, 2

    def __init__(self) -> None:
        try:
            import espeakng_loader  # here, since it is the optional extra
        except ImportError as error:
            raise ModelError(
                "the local voice needs the extra `local`: pip install 'threadline[local]'"
            ) from error
        try:
            self._library = ctypes.CDLL(espeakng_loader.get_library_path())
            data = espeakng_loader.get_data_path().encode()
            rate = self._library.espeak_Initialize(*self._INITIALIZE, data, self._DONT_EXIT)
        except (OSError, RuntimeError) as error:
            raise ModelError(f"espeak-ng cannot be loaded ({error}): reinstall it") from error
        if rate <= 0:
            raise ModelError("espeak-ng has lost its data: reinstall espeakng-loader")
        self._text_to_phonemes = self._library.espeak_TextToPhonemes
        self._text_to_phonemes.restype = ctypes.c_char_p
        self._text_to_phonemes.argtypes = [
            ctypes.POINTER(ctypes.c_void_p),
            ctypes.c_int,
            ctypes.c_int,
        ]
        self._voice = ""

    def use(self, voice: str) -> None:
        """Speak as ``voice``, an espeak name such as en-us."""
        if voice == self._voice:
            return
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ModelError(f"espeak-ng does not know the voice {voice!r}: {_REMEDY}")
        self._voice = voice

    def phonemes(self, text: str) -> str:
        """IPA of a text; its punctuation is lost, since espeak reads it as pauses."""
        text = text.replace("\0", " ")
        source = ctypes.create_string_buffer(text.encode("utf-8", "ignore"))
        at = ctypes.c_void_p(ctypes.addressof(source))
        parts = []
        while at.value:  # each turn takes what espeak thinks is a clause; at the end it is null
            ipa = self._text_to_phonemes(ctypes.byref(at), self._UTF8, self._IPA) or b""
            parts.append(_LANGUAGE_FLAG.sub("", ipa.decode("utf-8", "ignore")).strip())
        return unicodedata.normalize("NFD", " ".join(filter(None, parts)))


_espeak = cache(_Espeak)


def _phrases(text: str) -> list[tuple[str, str]]:
    """The text as (words, the mark that ends them), the mark one of ``.!?,;:`` or empty."""
    phrases = []
    start = 0
    for mark in _MARKS.finditer(text):
        words = text[start : mark.start()]
        if mark[0] == "." and not stop_ends(words, text[mark.end() :]):
            continue
        kind = next((one for one in "?!.…" if one in mark[0]), mark[0][0])
        phrases.append((words, {"…": ".", "—": ","}.get(kind, kind)))
        start = mark.end()
    rest = text[start:].rstrip()
    phrases.append((rest, "." if rest.endswith(".") else ""))  # "... at 7 a.m." ends both
    return phrases


class PiperVoice:
    """A voice that turns one clause at a time into sound. One thread only (see the module).

    ``threads`` are the cores one clause may use. Building it loads 63 MB and speaks once in
    silence, so that the first caller does not pay for it. Raises ModelError when a file is
    absent or damaged, or when the extra ``local`` is not installed.
    """

    def __init__(
        self, onnx_path: str | PathLike[str], json_path: str | PathLike[str], *, threads: int = 1
    ) -> None:
        about = _description(json_path)
        try:
            self.rate = int(about["audio"]["sample_rate"])
            inference = about["inference"]
            scales = [inference[key] for key in ("noise_scale", "length_scale", "noise_w")]
            self._scales = np.array(scales, np.float32)
            self._ids = {key: int(ids[0]) for key, ids in about["phoneme_id_map"].items()}
            self._first, self._gap, self._last = (self._ids[key] for key in "^_$")
            self._language = str(about["espeak"]["voice"])
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{json_path}: does not describe a Piper voice: {_REMEDY}") from error
        self._espeak = _espeak()
        self._session = _session(onnx_path, threads)
        self.synthesize("Hello there.")

    def synthesize(self, text: str) -> NDArray[np.float32]:
        """A clause as float32[n] at ``rate``, |x| <= 1; empty when there is nothing to say.

        Leading and trailing silence are cut to a clause's natural pause. Piper draws noise into
        rhythm and timbre, so the same text sounds a little different each time. Raises
        ModelError for more than ``MAX_TEXT`` characters.
        """
        if len(text) > MAX_TEXT:
            raise ModelError(
                f"the local voice speaks at most {MAX_TEXT} characters at once, "
                f"not {len(text)}: cut the text into clauses"
            )
        sound = [self._run(phonemes) for phonemes in self._sentences(spell_out(text))]
        return np.concatenate(sound) if sound else np.zeros(0, np.float32)

    def _sentences(self, text: str) -> list[str]:
        """Phonemes of each sentence with their marks; none is longer than ``_MAX_PHONEMES``."""
        self._espeak.use(self._language)
        sentences = []
        current = ""
        for words, mark in _phrases(text):
            spoken = self._espeak.phonemes(words)
            if not spoken:
                continue
            if len(current) + len(spoken) > _MAX_PHONEMES:
                sentences.append(current)
                current = ""
            while len(spoken) > _MAX_PHONEMES:
                cut = spoken.rfind(" ", 1, _MAX_PHONEMES)
                cut = cut if cut > 0 else _MAX_PHONEMES
                sentences.append(spoken[:cut])
                spoken = spoken[cut:].strip()
            current = f"{current} {spoken}{mark}".strip()
            if mark and mark in _SENTENCE_MARKS:
                sentences.append(current)
                current = ""
        return [one for one in [*sentences, current] if one]

    def _run(self, phonemes: str) -> NDArray[np.float32]:
        ids = [self._first, self._gap]
        for phoneme in phonemes:
            if phoneme in self._ids:
                ids += self._ids[phoneme], self._gap
        ids.append(self._last)
        feed = {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": self._scales,
        }
        (sound,) = self._session.run(None, feed)
        tail = _SENTENCE_TAIL_MS if phonemes[-1] in _SENTENCE_MARKS else _TAIL_MS
        return trimmed(sound.ravel(), self.rate, tail)


def trimmed(sound: NDArray[np.float32], rate: int, tail_ms: int) -> NDArray[np.float32]:
    """A copy with at most 30 ms of silence before and ``tail_ms`` after it, faded in and out."""
    first, last = levels.speech_bounds(sound, rate, floor_db=_FLOOR_DB)
    if first == last:
        return np.zeros(0, np.float32)
    begin = max(0, first - rate * _LEAD_MS // 1000)
    cut = np.clip(sound[begin : last + rate * tail_ms // 1000], -1, 1)
    ramp = np.linspace(0, 1, rate * _FADE_MS // 1000, dtype=np.float32)
    cut[: len(ramp)] *= ramp[: len(cut)]
    cut[-len(ramp) :] *= ramp[::-1][-len(cut) :]
    return cut


def _description(path: str | PathLike[str]) -> dict[str, Any]:
    try:
        about = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}): {_REMEDY}") from error
    except ValueError as error:
        raise ModelError(f"{path}: is damaged: {_REMEDY}") from error
    if not isinstance(about, dict):
        raise ModelError(f"{path}: does not describe a Piper voice: {_REMEDY}")
    return about


def _session(path: str | PathLike[str], threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; they are raised as well
    # No spinning: idle threads must leave the cores to the media path. No memory pattern: it is
    # planned anew for every length of clause, and costs 100 MB for nothing. No plan of which output
    # takes which one's place: it takes 0.8 s to make and saves neither memory nor time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False
    options.enable_mem_reuse = False
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no nearer base
        raise ModelError(f"{path}: is absent or damaged: {_REMEDY}") from error
