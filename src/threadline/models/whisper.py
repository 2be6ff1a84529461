"""Whisper on one utterance, with a window as long as the utterance needs.

Whisper was trained on windows of 30 seconds, and the usual decoders pad every clip to that length:
a caller's "yes, please" costs as much in the encoder as half a minute of speech. The encoder
accepts any shorter window. What a short one loses is the long silence that tells the decoder that
the speaker has finished; below about ten seconds it often says the sentence again. So the window
is the utterance plus a margin and never below `SHORTEST`, or `BRIEF_WINDOW` for a word or two; a
text that looks like a loop is decoded once more in the full window. The figures beside the
constants were measured on recorded telephone prompts with ``python -m stress.bench.asr``.

Numerals stay as Whisper writes them ("press 1"): whoever reads the text reads both.

Importing ctranslate2 turns the GIL on for the rest of the process, so it happens inside
`WhisperDecoder` and nowhere else; in a server, that object lives in a child process.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ModelError
from ..listening.agreement import Word

RATE = 16_000
"""Samples a second that Whisper wants."""

FULL = 3_000
"""Frames, of 10 ms each, of the window that Whisper was trained on and the longest it takes."""

SHORTEST = 1_000
"""Frames of the shortest window: 10 s."""

BRIEF = 200
"""An utterance below this many frames (2 s) has little context and is easily misheard..."""

BRIEF_WINDOW = 2_000
"""...so it gets this window: 23 % of words wrong on prompts below 2 s, against 27 % in `SHORTEST`
and 22 % in `FULL`, which takes four times as long. From 2 s on, `SHORTEST` is as good as `FULL`."""

MARGIN = 100
"""Frames after the end of the utterance, at least: 1 s."""

SILENCE = 0.5
"""Probability of no speech above which, if the text is in doubt too, there was none. Silence, hum,
tones and noise give 0.53 to 0.89 here, 350 recorded prompts at most 0.46."""

DOUBT = -1.0
"""Mean log-probability of a token below which a text is in doubt. Silence, hum, tones and noise
give -1.3 to -2.6; so do a few prompts of one word, rightly heard, hence the two conditions."""

REPETITIVE = 2.4
"""Length of the text over its zlib length, above which it says the same again and again."""

_ATTENTION = 50  # frames a second in which the decoder's attention is told
_LOOP = 3  # tokens of the shortest phrase whose immediate repetition counts as a loop
_SHORTEST_AUDIO = RATE // 10  # nothing shorter than this holds a word


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said. ``text`` is empty when nothing was, or nothing that can be believed."""

    text: str
    seconds: float  # of audio
    no_speech: float  # probability, by the model, that nobody speaks: 0..1
    avg_logprob: float  # mean natural log-probability of a token; 0 is certain
    words: tuple[Word, ...] = ()  # with their times, if they were asked for


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What a run of the decoder said of one sound."""

    text: str
    tokens: Sequence[int]
    frames: int  # of the sound
    no_speech: float
    avg_logprob: float
    finished: bool  # it ended by itself, not at the cap on tokens
    encoded: Any  # what the encoder made of all the sounds of the run

    @property
    def looks_looped(self) -> bool:
        return not self.finished or repeats(self.tokens) or compression(self.text) > REPETITIVE

    @property
    def believable(self) -> bool:
        """Not a loop that went on until the cap, and not what Whisper makes of silence."""
        if compression(self.text) > REPETITIVE:
            return False
        return self.avg_logprob >= DOUBT or self.no_speech <= SILENCE


class WhisperDecoder:
    """The model, loaded (about a second, 150 MB). Not thread-safe.

    ``folder`` holds ``model.bin``, ``config.json``, ``tokenizer.json`` and ``vocabulary.txt``;
    ``threads`` is how many cores one decode may use; ``language`` is Whisper's code, like "en".
    Raises ModelError for a folder that cannot be loaded, ConfigError for an unknown language.
    """

    def __init__(self, folder: str | Path, *, threads: int, language: str) -> None:
        from faster_whisper import WhisperModel
        from faster_whisper.tokenizer import Tokenizer
        from faster_whisper.transcribe import get_suppressed_tokens

        try:
            whisper = WhisperModel(
                str(folder), device="cpu", compute_type="int8", cpu_threads=threads
            )
        except (RuntimeError, OSError, ValueError) as error:
            raise ModelError(
                f"The recogniser cannot load its model from {folder} ({error}): "
                "run `threadline models verify`."
            ) from error
        try:
            self._tokenizer: Any = Tokenizer(
                whisper.hf_tokenizer,
                whisper.model.is_multilingual,
                task="transcribe",
                language=language,
            )
        except ValueError as error:
            raise ConfigError(
                f"asr.language is {language!r}, which Whisper does not know: "
                'give a code like "en" or "de".'
            ) from error
        self._features: Any = whisper.feature_extractor
        self._encode: Any = whisper.encode
        self._generate: Any = whisper.model.generate
        self._align: Any = whisper.model.align
        # Tags like [MUSIC] and the model's own control tokens are never part of an answer.
        self._suppressed = list(get_suppressed_tokens(self._tokenizer, [-1]))
        self._prompt = [*self._tokenizer.sot_sequence, self._tokenizer.no_timestamps]

    def decode(self, audio: NDArray[np.float32]) -> Transcript:
        """The text of one utterance: (n,) samples in -1..1 at 16 kHz, up to 30 s.

        What lies beyond 30 s is not heard, so callers cut before. Feed it only what a VAD called
        speech: a recogniser that is given silence invents text, and the thresholds here catch
        most of that, not all.
        """
        return self.decode_many([audio])[0]

    def decode_many(self, audios: Sequence[NDArray[np.float32]]) -> list[Transcript]:
        """The same of several utterances, in their order; those with the same window share a run.

        Two of 2 to 3 s take 0.74 to 0.83 of the processor time of two runs; four and eight save
        hardly more, and the first waits for the last. See ``python -m stress.bench.batch``.
        """
        heard = self._hear(audios)
        return [self._transcript(*one) for one in zip(audios, heard, strict=True)]

    def decode_words(self, audio: NDArray[np.float32]) -> Transcript:
        """One utterance with the times of each word: some 10 ms more for a few seconds."""
        (attempt,) = self._hear([audio])
        said = self._transcript(audio, attempt)
        return replace(said, words=self._words(attempt)) if attempt and said.text else said

    def _transcript(self, audio: NDArray[np.float32], attempt: _Attempt | None) -> Transcript:
        seconds = len(audio) / RATE
        if attempt is None:
            return Transcript("", seconds, 1.0, 0.0)
        text = attempt.text if attempt.believable else ""
        return Transcript(text, seconds, attempt.no_speech, attempt.avg_logprob)

    def _hear(self, audios: Sequence[NDArray[np.float32]]) -> list[_Attempt | None]:
        """The attempt that counts, of each; None: it is too short to hold a word."""
        features = {
            row: self._features(audio)[:, :FULL]
            for row, audio in enumerate(audios)
            if len(audio) >= _SHORTEST_AUDIO
        }
        alike: dict[int, list[int]] = {}
        for row, one in features.items():
            alike.setdefault(window(one.shape[1]), []).append(row)
        attempts: dict[int, _Attempt] = {}
        for frames, rows in alike.items():
            found = self._attempts([features[row] for row in rows], frames)
            attempts.update(zip(rows, found, strict=True))
        for row, attempt in attempts.items():
            if attempt.looks_looped:
                (attempts[row],) = self._attempts([features[row]], FULL)
        return [attempts.get(row) for row in range(len(audios))]

    def _words(self, attempt: _Attempt) -> tuple[Word, ...]:
        """When each word was said: where the decoder looked for its tokens. Of a run alone."""
        path = self._align(
            attempt.encoded, self._tokenizer.sot_sequence, [list(attempt.tokens)], attempt.frames
        )[0].alignments
        first: dict[int, int] = {}  # frame in which a token's sound begins; the end token's: ends
        for token, frame in path:
            first.setdefault(token, frame)
        words: list[Word] = []
        at = 0
        for text, tokens in zip(
            *self._tokenizer.split_to_word_tokens([*attempt.tokens, self._tokenizer.eot]),
            strict=True,
        ):
            begin, at = at, at + len(tokens)
            if at not in first:
                break  # the end token is no word
            if words and not any(map(str.isalnum, text)):  # a mark: its sound is silence
                words[-1] = replace(words[-1], text=words[-1].text + text.rstrip())
            else:
                times = first[begin] / _ATTENTION, first[at] / _ATTENTION
                words.append(Word(text.strip(), *times))
        return tuple(words)

    def _attempts(self, features: Sequence[NDArray[np.float32]], frames: int) -> list[_Attempt]:
        """Decode ``features``, (80, T) each, in a window of ``frames`` >= T, greedily.

        The rest of the window is zeros in the features, not silence in the samples: in short
        windows the latter repeats itself four times as often.
        """
        padded = np.zeros((len(features), features[0].shape[0], frames), dtype=np.float32)
        for row, one in zip(padded, features, strict=True):
            row[:, : one.shape[1]] = one
        encoded = self._encode(padded)
        results = self._generate(
            encoded,
            [self._prompt] * len(features),
            beam_size=1,
            max_length=len(self._prompt) + max(most_tokens(one.shape[1]) for one in features),
            suppress_tokens=self._suppressed,
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [
            self._read(result, one.shape[1], encoded)
            for result, one in zip(results, features, strict=True)
        ]

    def _read(self, result: Any, frames: int, encoded: Any) -> _Attempt:
        """What the decoder said of ``frames`` of sound."""
        tokens = result.sequences_ids[0]
        return _Attempt(
            text=self._tokenizer.decode(tokens).strip(),
            tokens=tokens,
            frames=frames,
            no_speech=result.no_speech_prob,
            # The score is the mean over the tokens; the end token is one more that was scored.
            avg_logprob=result.scores[0] * len(tokens) / (len(tokens) + 1),
            finished=len(tokens) < most_tokens(frames),
            encoded=encoded,
        )


def window(frames: int) -> int:
    """Frames of the encoder's window for an utterance of so many frames: even, at most `FULL`."""
    wanted = BRIEF_WINDOW if frames < BRIEF else max(frames + MARGIN, SHORTEST)
    return min(wanted + wanted % 2, FULL)


def most_tokens(frames: int) -> int:
    """Tokens that so many frames of speech can hold. Fast speech has about seven a second."""
    return 8 + frames // 10


def repeats(tokens: Sequence[int]) -> bool:
    """Whether some phrase of three tokens or more is said again right after itself.

    People do repeat themselves, so this only asks for a second opinion.
    """
    return any(
        tokens[at : at + size] == tokens[at + size : at + 2 * size]
        for size in range(_LOOP, len(tokens) // 2 + 1)
        for at in range(len(tokens) - 2 * size + 1)
    )


def compression(text: str) -> float:
    """Bytes of the text over bytes of its zlib stream: ordinary speech stays below two."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data))
