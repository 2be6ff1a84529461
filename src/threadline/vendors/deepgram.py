"""Deepgram's streaming recognition, without its socket.

Configuration to address and headers, server messages to values, errors to one sentence with its
remedy. Audio goes out as binary messages, mu-law untouched; what else we say is the three texts
below. Times in the server's messages are seconds of the audio sent on this connection: stream
time, which stands still while nothing is sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from websockets.exceptions import ConnectionClosed, InvalidStatus

from ..config import Deepgram
from ..errors import ConfigError

KEEP_ALIVE = '{"type": "KeepAlive"}'
"""Due every 3 to 5 s while no audio flows: 10 s of silence closes the connection (NET-0001)."""
FINALIZE = '{"type": "Finalize"}'
"""Make final, now, what you have heard."""
CLOSE_STREAM = '{"type": "CloseStream"}'
"""No audio follows: say the rest, then close."""

_PATH = "/v1/listen"
_DEFAULT_HOST = urlsplit(Deepgram().url).hostname
_LONGEST_SECONDS = 1e6  # eleven days: a time beyond it is no stream time


def check(config: Deepgram) -> str:
    """The key to send, "" for none.

    Raises:
        ConfigError: no key, and Deepgram's own servers are to be asked; or a key or an address that
            is none.
    """
    try:
        parts = urlsplit(config.url)
        usable = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            f"deepgram.url is '{config.url}', which is no address of a WebSocket: give one like"
            f" {Deepgram().url}, or ws://HOST:PORT."
        )
    if not config.api_key and parts.hostname == _DEFAULT_HOST:
        raise ConfigError(
            "The recogniser is `deepgram` and there is no key: set DEEPGRAM_API_KEY, or name a"
            " server of your own with DEEPGRAM_URL."
        )
    if not all("!" <= letter <= "~" for letter in config.api_key):
        raise ConfigError(
            "DEEPGRAM_API_KEY holds what no key does: set it again, without space or line end."
        )
    return config.api_key


def address(config: Deepgram) -> str:
    """The URL to connect to. A bare ``ws://host:port`` gets the path; a query of its own wins."""
    parts = urlsplit(config.url)
    query = {
        "model": config.model,
        "language": config.language,
        "encoding": "mulaw",
        "sample_rate": "8000",
        "channels": "1",
        "interim_results": "true",
        "smart_format": "true",
        # Where a turn ends is decided here, and a Finalize says so. With its own endpointing on,
        # each pause in a dictated number would be formatted by itself.
        "endpointing": "false",
    }
    query.update(parse_qsl(parts.query, keep_blank_values=True))
    path = parts.path if parts.path not in ("", "/") else _PATH
    return urlunsplit((parts.scheme, parts.netloc, path, urlencode(query), ""))


def headers(key: str) -> dict[str, str]:
    """For the opening handshake."""
    return {"Authorization": f"Token {key}"} if key else {}


# -- what the server says --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Word:
    """One word, in s of stream time."""

    text: str  # with its punctuation
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Results:
    """What is said between `start` and `end`, in s of stream time.

    Not `final`: a guess, which the next result for this stretch replaces. `flushed`: nothing
    that was sent before a Finalize is left to say.
    """

    start: float
    end: float
    text: str
    final: bool
    flushed: bool
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Metadata:
    """The last message of a stream: how much audio there was, in s."""

    duration: float


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The server's own opinion on where speech began; we do not ask for it."""

    at: float


@dataclass(frozen=True, slots=True)
class UtteranceEnd:
    """The server's own opinion on where an utterance ended; we do not ask for it."""

    at: float


@dataclass(frozen=True, slots=True)
class Trouble:
    """The server cannot go on; it will close the connection."""

    reason: str


type Message = Results | Metadata | SpeechStarted | UtteranceEnd | Trouble


def read(message: str | bytes) -> Message | None:
    """Read one message. None: it is none that we know. Never raises."""
    try:
        fields = json.loads(message)
    except ValueError, RecursionError:
        return None
    if not isinstance(fields, dict):
        return None
    match fields.get("type"):
        case "Results":
            return _results(fields)
        case "Metadata":
            return Metadata(_seconds(fields.get("duration")) or 0.0)
        case "SpeechStarted":
            return SpeechStarted(_seconds(fields.get("timestamp")) or 0.0)
        case "UtteranceEnd":
            return UtteranceEnd(_seconds(fields.get("last_word_end")) or 0.0)
        case "Error":
            said = fields.get("description") or fields.get("message") or fields.get("reason")
            return Trouble(_brief(said) if isinstance(said, str) else "no reason given")
    return None


def _results(fields: Mapping[str, object]) -> Results | None:
    start, duration = _seconds(fields.get("start")), _seconds(fields.get("duration"))
    channel = fields.get("channel")
    alternatives = channel.get("alternatives") if isinstance(channel, dict) else None
    best = alternatives[0] if isinstance(alternatives, list) and alternatives else None
    text = best.get("transcript") if isinstance(best, dict) else None
    if start is None or duration is None or not isinstance(text, str) or best is None:
        return None
    words = best.get("words")
    return Results(
        start=start,
        end=start + duration,
        text=" ".join(text.split()),
        final=fields.get("is_final") is True,
        flushed=fields.get("from_finalize") is True,
        words=tuple(filter(None, map(_word, words))) if isinstance(words, list) else (),
    )


def _word(fields: object) -> Word | None:
    if not isinstance(fields, dict):
        return None
    start, end = _seconds(fields.get("start")), _seconds(fields.get("end"))
    text = fields.get("punctuated_word") or fields.get("word")
    if start is None or end is None or not isinstance(text, str):
        return None
    return Word(text, start, end)


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Compared before it is converted: a JSON integer may be too large for a float.
    return float(value) if 0 <= value <= _LONGEST_SECONDS else None


# -- what goes wrong ---------------------------------------------------------------------------


def explain(error: BaseException, config: Deepgram) -> str:
    """One sentence on why there is no connection (any more), and what to do about it."""
    where = _where(config)
    if isinstance(error, InvalidStatus):
        return f"{where} {_status(error, config)}"
    if isinstance(error, ConnectionClosed):
        return f"{where} {_closed(error)}"
    if isinstance(error, TimeoutError):
        return (
            f"{where} took no connection within {config.connect_seconds:g} s:"
            " check the network, or raise deepgram.connect_seconds."
        )
    if isinstance(error, OSError):
        return f"{where} cannot be reached ({_brief(str(error))}): check deepgram.url."
    # The rest is what websockets makes of a server that speaks too early, or another language.
    return f"{where} does not speak WebSocket ({type(error).__name__}): correct deepgram.url."


def rest(error: BaseException) -> float:
    """Seconds for which a refused connection should not be tried again, as the server says."""
    if not isinstance(error, InvalidStatus):
        return 0.0
    said = error.response.headers.get("Retry-After", "")
    return float(said) if said.isascii() and said.isdigit() and len(said) < 6 else 0.0


def unconnected(config: Deepgram) -> str:
    """The sentence for speech that found no connection in time."""
    return f"{_where(config)} could not be connected to in time: check the network."


def silent(config: Deepgram) -> str:
    """The sentence for a server that takes audio and says nothing of it."""
    return f"{_where(config)} left speech unanswered: it is overloaded, or the network is."


def overrun(config: Deepgram) -> str:
    """The sentence for a server that no longer follows what is sent."""
    return f"{_where(config)} has stopped following the audio: it is overloaded, or the network is."


def resting(config: Deepgram) -> str:
    """The sentence for a server that is left alone for a while."""
    return f"{_where(config)} has failed several times and is not asked for the moment."


def trouble(reason: str, config: Deepgram) -> str:
    """The sentence for a server that said itself what is wrong."""
    return f"{_where(config)} gave up ({reason}): see its status page."


def _where(config: Deepgram) -> str:
    parts = urlsplit(config.url)
    if parts.hostname == _DEFAULT_HOST:
        return "Deepgram"
    return f"The recogniser at {parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _status(error: InvalidStatus, config: Deepgram) -> str:
    status = error.response.status_code
    if status in (401, 403):
        return f"refused the key ({status}): set DEEPGRAM_API_KEY to one that is valid for it."
    if status == 402:
        return "says that the account has no credit left (402): top it up, or use another key."
    if status == 404:
        return f"knows no such address or model '{config.model}' (404): correct deepgram.url."
    if status == 429:
        return "limits our connections (429): lower server.max_calls, or ask for a higher limit."
    if status >= 500:
        return f"failed ({status}): try again later, or let stt.chain name another recogniser."
    said = error.response.headers.get("dg-error", "")
    if not said and error.response.body:
        said = bytes(error.response.body[:400]).decode(errors="replace")
    return f"rejected the request ({status}: {_brief(said)}): correct the deepgram settings."


def _closed(error: ConnectionClosed) -> str:
    if error.rcvd is None:
        return "broke off the connection: check the network."
    said = f"{error.rcvd.code} {_brief(error.rcvd.reason)}".strip()
    if "NET-0001" in error.rcvd.reason:
        return f"heard nothing of us and closed the connection ({said}): check the network."
    if "DATA-0000" in error.rcvd.reason:
        return f"cannot read the audio ({said}): use a model that takes mu-law at 8 kHz."
    return f"closed the connection ({said}): see its status page."


def _brief(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 160 else f"{text[:157]}..."
