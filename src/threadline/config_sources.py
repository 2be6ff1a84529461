"""Where a ``Config`` comes from, weak to strong: defaults, a TOML file, the environment, flags.

The settings are read off the dataclasses of ``config.py``; a field added there is at once a key
of the file, a variable and a flag. Whatever is wrong is a ``ConfigError`` of one sentence with the
place it was set, the value, and what to give instead. The value of a secret is never shown.

A list is an array of texts in the file and one text with commas elsewhere. ``llm = ["openai"]`` at
the top of the file means ``llm.chain``; so it is for ``stt`` and ``tts``.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeGuard, get_args, get_origin, get_type_hints

from . import chains
from .config import Config
from .errors import ConfigError

PREFIX = "THREADLINE_"
RESERVED = {"THREADLINE_CONFIG", "THREADLINE_HOME", "THREADLINE_CPYTHON_TARBALL"}  # not settings
WELL_KNOWN = {
    "DEEPGRAM_API_KEY": "deepgram.api_key",
    "DEEPGRAM_URL": "deepgram.url",
    "OPENAI_API_KEY": "llm.api_key",
    "OPENAI_BASE_URL": "llm.base_url",
    "CARTESIA_API_KEY": "cartesia.api_key",
    "CARTESIA_URL": "cartesia.url",
}
# A Kubernetes service named `threadline` puts these into every container beside it.
_SERVICE_LINK = re.compile(r"THREADLINE_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_\w+)?)")

SECRETS = {"server.twilio_auth_token", "deepgram.api_key", "llm.api_key", "cartesia.api_key"}
PREFIXES = {
    "server.public_url": ("wss://", "ws://"),
    "deepgram.url": ("wss://", "ws://"),
    "llm.base_url": ("https://", "http://"),
    "cartesia.url": ("wss://", "ws://"),
    "observe.otlp": ("http://", "https://"),
}
MULTIPLES = {"pacer.prebuffer_ms": 20}  # it is counted in frames
RANGES: dict[str, tuple[float, float]] = {
    "server.port": (0, 65_535),  # 0: any free one
    "server.max_calls": (1, 1000),
    "server.processes": (1, 64),
    "server.io_threads": (1, 16),
    "server.handshake_seconds": (0.1, 60),
    "server.start_seconds": (0.1, 120),
    "server.silent_peer_seconds": (1, 3600),
    "server.max_message_bytes": (4096, 1_048_576),
    "server.max_write_bytes": (4096, 16_777_216),
    "server.drain_seconds": (0, 86_400),
    "vad.threshold": (0.01, 0.99),
    "vad.release": (0.01, 0.99),
    "vad.pause_threshold": (0.01, 0.99),
    "vad.drop_db": (6, 120),
    "vad.onset_ms": (1, 5000),
    "vad.min_speech_ms": (1, 5000),
    "vad.interrupt_ms": (1, 5000),
    "vad.grace_ms": (1, 5000),
    "vad.resume_ms": (1, 5000),
    "vad.probe_ms": (1, 5000),
    "vad.hangover_ms": (1, 10_000),
    "vad.preroll_ms": (0, 2000),
    "vad.max_utterance_ms": (1000, 30_000),  # Whisper's window
    "vad.batch_ms": (1, 32),  # one window of the model
    "vad.threads": (1, 16),
    "endpoint.complete_ms": (1, 10_000),
    "endpoint.patient_ms": (1, 10_000),
    "endpoint.dictation_ms": (1, 10_000),
    "endpoint.threshold": (0.01, 0.99),
    "endpoint.threads": (1, 64),
    "stt.final_seconds": (0.1, 60),
    "stt.partial_ms": (100, 30_000),
    "deepgram.connect_seconds": (0.1, 60),
    "asr.workers": (1, 64),
    "asr.threads": (1, 64),
    "asr.deadline_seconds": (0.1, 120),
    "asr.queue": (1, 1000),
    "llm.connect_seconds": (0.1, 60),
    "llm.first_token_seconds": (0.1, 120),
    "llm.token_seconds": (0.1, 120),
    "llm.total_seconds": (0.1, 600),
    "llm.max_requests": (0, 10_000),
    "llm.queue_seconds": (0, 60),
    "tts.threads": (1, 64),
    "tts.cache_bytes": (0, 4_294_967_296),
    "cartesia.connect_seconds": (0.1, 60),
    "cartesia.first_audio_seconds": (0.1, 60),
    "cartesia.audio_seconds": (0.1, 60),
    "cartesia.max_contexts": (0, 10_000),
    "cartesia.queue_seconds": (0, 60),
    "talk.nudge_seconds": (0, 3600),
    "talk.nudges": (0, 10),
    "talk.digit_seconds": (0.1, 60),
    "talk.tool_seconds": (0.1, 600),
    "talk.filler_seconds": (0.1, 600),
    "talk.guard_seconds": (0.1, 60),
    "talk.workers": (1, 64),
    "pacer.prebuffer_ms": (0, 1000),
    "pacer.subticks": (1, 20),
}
# (smaller, larger, whether they may be equal)
ORDER = (
    ("server.io_threads", "server.max_calls", True),
    ("vad.threads", "server.max_calls", True),
    ("vad.release", "vad.threshold", True),
    ("vad.pause_threshold", "vad.threshold", True),
    ("vad.onset_ms", "vad.min_speech_ms", True),
    ("vad.onset_ms", "vad.interrupt_ms", True),
    ("vad.probe_ms", "vad.hangover_ms", False),
    ("vad.hangover_ms", "vad.max_utterance_ms", False),
    ("vad.probe_ms", "endpoint.complete_ms", False),
    ("endpoint.complete_ms", "endpoint.patient_ms", True),
    ("endpoint.patient_ms", "endpoint.dictation_ms", True),
)

_NOUNS: dict[type, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text in UTF-8",
    tuple: "a list of texts in UTF-8",
}

type Value = int | float | bool | str | tuple[str, ...]
type Given = tuple[str, str, object]  # where it was set, the setting's name, the value


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: what it is called and which values it takes."""

    name: str  # dotted: ``server.port``; also the flag
    kind: type  # int, float, bool, str, or tuple: texts
    default: Value
    choices: tuple[str, ...]  # of a str; empty: any text

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.name.upper().replace(".", "_")

    @property
    def expected(self) -> str:
        """Which values it takes, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.name in PREFIXES:
            return f"an address that starts with {' or '.join(PREFIXES[self.name])}"
        if self.name in chains.CHAINS:
            return f"a list of {chains.forms(self.name)}"
        noun = _NOUNS[self.kind]
        if self.name not in RANGES:
            return noun
        low, high = RANGES[self.name]
        step = f" in steps of {MULTIPLES[self.name]}" if self.name in MULTIPLES else ""
        return f"{noun} from {low} to {high}{step}"

    def accepts(self, value: object) -> TypeGuard[Value]:
        """Whether ``value``, of any type, can be taken. An integer passes for a float."""
        kind = type(value)
        if kind is not self.kind and (kind, self.kind) != (int, float):
            return False
        if isinstance(value, tuple):
            return all(isinstance(text, str) and not _has_surrogate(text) for text in value)
        if isinstance(value, str):
            starts = PREFIXES.get(self.name, ())
            unset = not value and not self.default
            return (
                (not self.choices or value in self.choices)
                and (not starts or unset or value.startswith(starts))
                and not _has_surrogate(value)
            )
        assert isinstance(value, int | float)
        low, high = RANGES.get(self.name, (-math.inf, math.inf))
        step = MULTIPLES.get(self.name)
        return low <= value <= high and (step is None or value % step == 0)


def _read_settings() -> tuple[dict[str, type], dict[str, Setting]]:
    """Return the sections by name, and the settings by dotted name, in the order of config.py."""
    sections, settings = {}, {}
    hints, defaults = get_type_hints(Config), Config()
    for top in fields(Config):
        hint = hints[top.name]
        if is_dataclass(hint):
            assert isinstance(hint, type)
            sections[top.name] = hint
            inner, section = get_type_hints(hint), getattr(defaults, top.name)
            for field in fields(hint):
                name = f"{top.name}.{field.name}"
                settings[name] = _setting(name, inner[field.name], getattr(section, field.name))
        else:
            settings[top.name] = _setting(top.name, hint, getattr(defaults, top.name))
    return sections, settings


def _setting(name: str, hint: Any, default: Value) -> Setting:
    origin = get_origin(hint)
    choices = get_args(hint) if origin is Literal else ()
    kind = str if choices else origin or hint
    assert kind in _NOUNS, f"{name}: settings of type {hint} cannot be read"
    return Setting(name, kind, default, choices)


SECTIONS, SETTINGS = _read_settings()
_VARIABLES = {setting.variable: setting.name for setting in SETTINGS.values()}


def load(
    file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Value | None]
) -> Config:
    """Return the configuration. Raises ``ConfigError``.

    ``flags`` are keyed by dotted name; text is converted, None means that the flag was not given.
    """
    values: dict[str, Any] = {name: setting.default for name, setting in SETTINGS.items()}
    origins = dict.fromkeys(SETTINGS, "the default")
    for source, name, value in chain(_from_file(file), _from_environ(environ), _from_flags(flags)):
        setting = SETTINGS[name]
        if not setting.accepts(value):
            raise ConfigError(f"{source} is {_shown(setting, value)}: give {setting.expected}.")
        if isinstance(value, tuple) and (problem := chains.problem(name, value)):
            raise ConfigError(f"{source} {problem}")
        values[name] = setting.kind(value)
        origins[name] = source
    _check_order(values, origins)
    chains.settle(values)
    return _build(values)


def named_file(environ: Mapping[str, str]) -> Path | None:
    """The configuration file that the environment names, for a command that was given none."""
    named = environ.get("THREADLINE_CONFIG", "")
    return Path(named) if named else None


def describe() -> list[Setting]:
    """Return every setting, for help texts, in the order of ``config.py``."""
    return list(SETTINGS.values())


def _from_file(file: Path | None) -> Iterator[Given]:
    if file is None:
        return
    for name, content in _parse(file).items():
        if name not in SECTIONS:
            yield f"{file}:{name}", _known(name, f"{file}:{name}"), content
        elif f"{name}.chain" in SETTINGS and isinstance(content, str | list):
            yield f"{file}:{name}", f"{name}.chain", _from_toml(SETTINGS[f"{name}.chain"], content)
        elif isinstance(content, dict):
            for key, value in content.items():
                source = f"{file}:{name}.{key}"
                setting = SETTINGS[_known(f"{name}.{key}", source)]
                yield source, setting.name, _from_toml(setting, value)
        else:
            raise ConfigError(
                f"{file}:{name} is a section: put its keys under a line that says [{name}]."
            )


def _parse(file: Path) -> dict[str, Any]:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"There is no configuration file {file}: create it, or name another."
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"The configuration file {file} cannot be read: {reason}.") from None
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}, line {line}: this is not UTF-8; save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{file}, line {error.lineno}: this is not TOML ({error.msg}); correct the line."
        ) from None
    except ValueError, RecursionError:  # thousands of digits or of brackets
        raise ConfigError(f"{file} holds a value too long to read: shorten it.") from None


def _from_environ(environ: Mapping[str, str]) -> Iterator[Given]:
    for variable, name in WELL_KNOWN.items():
        if text := environ.get(variable):
            yield variable, name, text
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in RESERVED:
            continue
        name = _VARIABLES.get(variable, "")
        if name:
            yield variable, name, _from_text(SETTINGS[name], environ[variable])
        elif not _SERVICE_LINK.fullmatch(variable):
            near = difflib.get_close_matches(variable, [*_VARIABLES, *RESERVED], 1, 0.8)
            hint = f"the nearest is {near[0]}" if near else f"{PREFIX}<SECTION>_<KEY> sets a key"
            raise ConfigError(f"{variable} is not a setting: {hint}.")


def _from_flags(flags: Mapping[str, Value | None]) -> Iterator[Given]:
    for flag, value in flags.items():
        if value is not None:
            source = f"The flag {flag}"
            setting = SETTINGS[_known(flag, source)]
            content = _from_text(setting, value) if isinstance(value, str) else value
            yield source, setting.name, content


def _from_toml(setting: Setting, value: object) -> object:
    """Return ``value`` as this setting has it; a list may be written as one text, too."""
    if setting.kind is tuple and isinstance(value, str):
        return _from_text(setting, value)
    if setting.kind is tuple and isinstance(value, list):
        return tuple(value)
    return value


def _from_text(setting: Setting, text: str) -> Value:
    """Return what ``text`` means as this setting, or ``text`` itself when it means nothing."""
    try:
        if setting.kind is tuple:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if setting.kind is bool:
            return {"true": True, "false": False}[text.lower()]
        converted: Value = setting.kind(text)
        return converted
    except ValueError, KeyError:
        return text


def _known(name: str, source: str) -> str:
    """Return ``name``, or raise with the nearest key, in whatever section that stands."""
    if name in SETTINGS:
        return name
    key = name.rpartition(".")[2]
    near = (
        [known for known in SETTINGS if known.rpartition(".")[2] == key]
        or difflib.get_close_matches(name, [*SETTINGS, *SECTIONS], 1)
        or [known for known in SETTINGS if known.rpartition(".")[0] == name.rpartition(".")[0]]
    )
    word = "the nearest is" if len(near) == 1 else "there are"
    raise ConfigError(f"{source} is not a setting: {word} {', '.join(near)}.")


def _shown(setting: Setting, value: object) -> str:
    if setting.name in SECRETS:
        return "of a kind that cannot be used (the value is not shown)"
    match value:
        case dict():
            return "a table"
        case list() | tuple():
            return "an array"
        case bool():
            return str(value).lower()  # as TOML spells it
        case str():
            text = repr(value)
        case _:
            text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _has_surrogate(text: str) -> bool:
    """Bytes of the environment that are no UTF-8 arrive as these, and fail where text leaves."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _check_order(values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    for smaller, larger, may_equal in ORDER:
        if values[smaller] < values[larger] or (may_equal and values[smaller] == values[larger]):
            continue
        raise ConfigError(
            f"{smaller} is {values[smaller]} ({_inside(origins[smaller])}), and must be "
            f"{'at most' if may_equal else 'less than'} {larger}, which is {values[larger]} "
            f"({_inside(origins[larger])}): change one of them."
        )


def _inside(origin: str) -> str:
    """An origin in the middle of a sentence."""
    return origin.replace("The flag", "the flag", 1)


def _build(values: Mapping[str, Any]) -> Config:
    grouped: dict[str, dict[str, Any]] = {name: {} for name in ("", *SECTIONS)}
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        grouped[section][key] = value
    sections = {name: cls(**grouped[name]) for name, cls in SECTIONS.items()}
    return Config(**grouped[""], **sections)
