"""Recorded prompts with pauses in them, and what is known in each pause: for the bench `endpoint`.

A prompt is cut at a boundary of two words and 300 to 1500 ms of its own room noise are put in;
recorded digits and letters are joined to telephone numbers and spellings with pauses between the
groups. All of it goes over a line with a little noise, through mu-law, Silero and the product's
own `SpeechMachine`, which says where pauses are. For every pause Smart Turn is asked as often as
there are probes, and Whisper once, each for what the caller had said by then.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soxr
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from threadline.audio import mulaw
from threadline.audio.levels import block_dbfs, speech_bounds
from threadline.config import Vad
from threadline.listening.silero import WINDOW, Silero
from threadline.listening.smart_turn import SmartTurn
from threadline.listening.speech import FREE, Paused, SpeechMachine, State
from threadline.models.store import ModelStore
from threadline.models.whisper import WhisperDecoder

from .clips import Clip, load

MS = 8  # samples
PROBES = (64, 96, 128, 160, 192)  # ms of silence at which Smart Turn is asked
TEXT_PROBE = 96  # and at which Whisper is
SHORTEST, LONGEST = 300, 1500  # ms put in
CUTS = 2  # within the sentences of one prompt
NUMBERS, SPELLINGS = 24, 16
PIECES = ("digits/", "astcc-", "conf-has", "for", "from-", "is-")  # said to be joined to others
TAIL = 2_500  # ms of noise after the end

Kind = Literal["inside", "between", "broken off", "dictating", "end", "short", "dictated"]
"""In a sentence; between two; at the end of a prompt that breaks off; within a number or spelling;
at the end of a prompt, of one below 2 s, of a number or spelling."""

ENDS: tuple[Kind, ...] = ("end", "short", "dictated")

Sound = NDArray[np.float32]
Spoken = Sequence[tuple[str, float, float]]
"""Words with the seconds they begin and end at."""


@dataclass(frozen=True)
class Pause:
    """One pause as the VAD sees it, and what is known of it."""

    kind: Kind
    name: str
    silence: int  # windows until speech went on
    late: float  # ms from the true end of speech to the first silent window
    chances: dict[int, float]  # ms of silence -> that the turn is complete, by Smart Turn
    text: str  # said so far, as heard
    made: bool  # in a sound that was cut or put together, not in a prompt as recorded


@dataclass(frozen=True)
class Line:
    """A sound, and where a pause is what."""

    name: str
    sound: Sound
    pauses: tuple[tuple[int, int, Kind], ...]  # samples
    end: int
    last: Kind
    length: int = 0  # samples of the last pause, when speech is to go on after it
    made: bool = False  # cut or put together


def measure(keep: Path | None, most: int, console: Console) -> list[Pause]:
    """All pauses; those of the file `keep`, if there is one, else measured, and kept there."""
    if keep is not None and keep.exists():
        return [_read(one) for one in json.loads(keep.read_text("utf-8"))]
    # ctranslate2 says that it turns the GIL on. It does; nothing here is timed.
    warnings.filterwarnings("ignore", "The global interpreter lock", RuntimeWarning)
    store = ModelStore()
    lines = list(_lines(most, store, console))
    found = _pauses(lines, store)
    smart = SmartTurn(store.path("smart-turn", "smart-turn-v3.2-cpu.onnx"), threads=2)
    whisper = WhisperDecoder(store.directory("whisper-base"), threads=2, language="en")
    pauses = []
    for pause, heard in track(found, "listening", console=console, transient=True):
        turns = [heard(probe) for probe in PROBES]
        chances = dict(zip(PROBES, smart.judge(turns).tolist(), strict=True))
        wide = soxr.resample(heard(TEXT_PROBE), mulaw.RATE, 2 * mulaw.RATE)
        pauses.append(replace(pause, chances=chances, text=whisper.decode(wide).text))
    if keep is not None:
        keep.write_text(json.dumps([asdict(one) for one in pauses]), "utf-8")
    return pauses


def _read(fields: dict[str, Any]) -> Pause:
    fields["chances"] = {int(probe): chance for probe, chance in fields["chances"].items()}
    return Pause(**fields)


def _lines(most: int, store: ModelStore, console: Console) -> Iterator[Line]:
    """Every prompt as it is, and once for each cut; then the numbers and the spellings."""
    from faster_whisper import WhisperModel

    model = WhisperModel(str(store.directory("whisper-base")), device="cpu", compute_type="int8")
    random = np.random.default_rng(4)
    prompts = [clip for clip in load(0.5, 8.0) if not clip.text.startswith("...")]
    prompts = [clip for clip in prompts if not clip.name.startswith(PIECES)]
    if most:  # spread over the names, because neighbours say almost the same
        prompts = prompts[:: max(1, len(prompts) // most)][:most]
    for clip in track(prompts, "finding words", console=console, transient=True):
        if clip.text.endswith(("...", ":")):
            yield _whole(clip, (), "broken off", _length(random))
            continue
        if not clip.text.endswith((".", "?", "!")):
            continue
        if clip.seconds < 2:
            yield _whole(clip, (), "short")
            continue
        segments, _ = model.transcribe(clip.heard, language="en", beam_size=1, word_timestamps=True)
        words = [(one.word, one.start, one.end) for part in segments for one in part.words or ()]
        yield _whole(clip, words, "end")
        yield from _cut(clip, words, random)
    digits = {clip.name: clip.pcm for clip in load(0.1, 2.0)}
    for number in range(min(NUMBERS, most or NUMBERS)):
        names = [f"digits/{one}" for one in random.integers(0, 10, 10)]
        yield _dictated(f"number {number}", names, (3, 6), digits, random)
    for number in range(min(SPELLINGS, most or SPELLINGS)):
        names = [f"letters/{chr(ord('a') + one)}" for one in random.integers(0, 26, 6)]
        yield _dictated(f"spelling {number}", names, (3,), digits, random)


def _length(random: np.random.Generator) -> int:
    """Samples of a pause: as many short ones as long ones."""
    return round(float(np.exp(random.uniform(np.log(SHORTEST), np.log(LONGEST))))) * MS


def _whole(clip: Clip, words: Spoken, last: Kind, length: int = 0) -> Line:
    """The prompt as it is; its own pauses are `between` where a sentence ends."""
    sound = _unit(clip.pcm)
    pauses = []
    for (text, _, end), (_, start, _) in pairwise(words):
        kind: Kind = "between" if text.endswith((".", "?", "!")) else "inside"
        middle = round((end + start) / 2 * mulaw.RATE)
        pauses.append((middle - 200 * MS, middle + 200 * MS, kind))
    pauses.sort(key=lambda one: one[2])  # where both would do, a sentence ends
    return Line(clip.name, sound, tuple(pauses), speech_bounds(sound, mulaw.RATE)[1], last, length)


def _cut(clip: Clip, words: Spoken, random: np.random.Generator) -> Iterator[Line]:
    """The prompt with a pause: at its quietest boundary, at others, at the end of a sentence."""
    sound = _unit(clip.pcm)
    seams: dict[Kind, list[tuple[float, int]]] = {"inside": [], "between": []}
    for (text, begin, end), (_, start, _) in pairwise(words[1:]):
        if begin < 0.3 or start > clip.seconds - 0.4:
            continue
        kind: Kind = "between" if text.endswith((".", "?", "!")) else "inside"
        seams[kind].append(_quietest(sound, round(end * mulaw.RATE), round(start * mulaw.RATE)))
    chosen: list[tuple[int, Kind]] = [(at, "between") for _, at in seams["between"][:1]]
    inside = sorted(seams["inside"])
    if inside:
        rest = [inside[one] for one in random.permutation(len(inside) - 1)[: CUTS - 1] + 1]
        chosen += [(at, "inside") for _, at in [inside[0], *rest]]
    for at, kind in chosen:
        gap = _room(sound, _length(random))
        whole = np.concatenate([_faded(sound[:at]), gap, _faded(sound[at:][::-1])[::-1]])
        end = speech_bounds(whole, mulaw.RATE)[1]
        seam = (at - 150 * MS, at + len(gap), kind)
        yield Line(clip.name, whole, (seam,), end, "end", made=True)


def _dictated(
    name: str,
    parts: Sequence[str],
    breaks: tuple[int, ...],
    sounds: dict[str, NDArray[np.int16]],
    random: np.random.Generator,
) -> Line:
    """Recorded words in a row, 80 ms apart, with a pause before each of `breaks`."""
    pieces: list[Sound] = []
    pauses: list[tuple[int, int, Kind]] = []
    at = 0
    for position, part in enumerate(parts):
        word = _unit(sounds[part])
        first, last = speech_bounds(word, mulaw.RATE)
        gap = _length(random) if position in breaks else 80 * MS
        if position in breaks:
            pauses.append((at - 150 * MS, at + gap, "dictating"))
        pieces += [_room(word, gap if position else 0), word[first:last]]
        at += sum(map(len, pieces[-2:]))
    return Line(name, np.concatenate(pieces), tuple(pauses), at, "dictated", made=True)


def _unit(pcm: NDArray[np.int16]) -> Sound:
    return pcm.astype(np.float32) / np.float32(32_768)


def _quietest(sound: Sound, end: int, start: int) -> tuple[float, int]:
    """Level and place of the quietest 10 ms about the boundary of two words."""
    low, high = max(0, min(end, start) - 60 * MS), max(end, start) + 60 * MS
    levels = block_dbfs(sound[low:high], 10 * MS)
    best = int(levels.argmin())
    return float(levels[best]), low + best * 10 * MS + 5 * MS


def _room(sound: Sound, length: int) -> Sound:
    """So much of the quietest 60 ms of a recording, forth and back."""
    size = 60 * MS
    levels = block_dbfs(sound, size)[:-1]
    at = int(levels.argmin()) * size if len(levels) else 0
    piece = sound[at : at + size]
    both = np.concatenate([piece, piece[::-1]])
    return np.tile(both, length // max(1, len(both)) + 1)[:length]


def _faded(sound: Sound) -> Sound:
    """With its last 5 ms faded out: a cut must not click."""
    faded = sound.copy()
    faded[-5 * MS :] *= np.linspace(1, 0, 5 * MS, dtype=np.float32)[-len(faded) :]
    return faded


def _pauses(lines: Sequence[Line], store: ModelStore) -> list[tuple[Pause, Callable[[int], Sound]]]:
    """Every pause that the VAD sees, and a function that gives the turn with so much silence."""
    lead = mulaw.RATE
    random = np.random.default_rng(1)
    longest = max(len(line.sound) for line in lines) + lead + TAIL * MS
    sheet = np.zeros((len(lines), longest), np.float32)
    for row, line in enumerate(lines):
        sheet[row, lead : lead + len(line.sound)] = line.sound
        sheet[row] += random.normal(0, 10 ** (-65 / 20), longest).astype(np.float32)
        sheet[row] = mulaw.decode_float(mulaw.encode_float(sheet[row]))
    found: list[tuple[Pause, Callable[[int], Sound]]] = []
    for row, judged in enumerate(judge(sheet, store)):
        line, signal = lines[row], sheet[row]
        stop = (lead + len(line.sound)) // WINDOW + TAIL // 32
        for start, began, silence in _silences(judged[:stop]):
            kind = _kind(line, began * WINDOW - lead)
            if kind is None:
                continue
            if kind == line.last and line.length:
                silence = line.length // WINDOW
            late = (began * WINDOW - lead - line.end) / MS

            heard = partial(_heard, signal, start, began)
            found.append((Pause(kind, line.name, silence, late, {}, "", line.made), heard))
    return found


def _heard(signal: Sound, start: int, silent: int, ms: int) -> Sound:
    """The utterance from one window until so much silence, which begins at another."""
    return signal[start * WINDOW : (silent + ms // 32) * WINDOW]


def judge(sheet: Sound, store: ModelStore) -> list[list[tuple[float, float]]]:
    """Of each row of samples, of each window: Silero's probability, and the level in dBFS."""
    silero = Silero(store.path("silero-vad", "silero_vad.onnx"), len(sheet))
    slots = np.arange(len(sheet))
    rows: list[list[tuple[float, float]]] = [[] for _ in sheet]
    for at in range(0, sheet.shape[1] - WINDOW + 1, WINDOW):
        window = np.ascontiguousarray(sheet[:, at : at + WINDOW])
        levels = 10 * np.log10((window**2).mean(1) + 1e-12)
        for row, pair in enumerate(zip(silero.run(slots, window), levels, strict=True)):
            rows[row].append((float(pair[0]), float(pair[1])))
    return rows


def _silences(judged: Sequence[tuple[float, float]]) -> Iterator[tuple[int, int, int]]:
    """(window the utterance begins at, first silent window, how many) of each pause."""
    machine = SpeechMachine(replace(Vad(), probe_ms=64), patience_ms=30_000)
    probe = 2
    open_at: tuple[int, int] | None = None
    for number, (chance, level) in enumerate(judged):
        for event in machine.feed(chance, level, FREE, number):
            if isinstance(event, Paused):
                open_at = number + 1 - event.windows, number + 1 - probe
        if open_at and machine.state is State.SPEECH:
            yield *open_at, number - open_at[1]
            open_at = None
    if open_at:
        yield *open_at, 10_000


def _kind(line: Line, at: int) -> Kind | None:
    """What a pause that begins at this sample of the line is; None: none that counts."""
    for first, last, kind in line.pauses:
        if first <= at <= last:
            return kind
    return line.last if at > line.end - 400 * MS else None
