"""Cartesia's streaming speech, without its socket.

Configuration to addresses and messages, server messages to values, errors to one sentence with
its remedy. A context carries the clauses of one reply, and a manual flush after each makes the
server say where it ends: see cartesia_speech.py.
"""

from __future__ import annotations

import binascii
import json
from typing import Literal, NamedTuple, TypeGuard
from urllib.parse import urlsplit

from websockets.exceptions import (
    ConnectionClosed,
    InvalidMessage,
    InvalidStatus,
    PayloadTooBig,
    WebSocketException,
)

from ..audio.mulaw import RATE
from ..config import Cartesia
from ..errors import ConfigError

_DEFAULT_HOST = urlsplit(Cartesia().url).hostname
_LONGEST_SECONDS = 1e6  # a time beyond it is no time; nor is NaN


def check(config: Cartesia) -> str:
    """The key to send, "" for none. ConfigError when Cartesia itself is to be asked without one."""
    if not config.api_key and urlsplit(config.url).hostname == _DEFAULT_HOST:
        raise ConfigError(
            "The voice is `cartesia` and there is no key: set CARTESIA_API_KEY, or name a server"
            " of your own with CARTESIA_URL."
        )
    return config.api_key


def base_urls(config: Cartesia) -> tuple[str, str]:
    """What the client takes for HTTP and for WebSockets, ``https://...`` and ``wss://...``.

    It adds the path of the endpoint itself; one that `config.url` has already is left off.
    Raises ConfigError.
    """
    parts = urlsplit(config.url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.query:
        raise ConfigError(
            f"cartesia.url is '{config.url}': give it as wss://HOST or as ws://HOST:PORT."
        )
    path = parts.path.rstrip("/").removesuffix("/tts/websocket")
    rest = f"{parts.netloc}{path}"
    return f"http{parts.scheme[2:]}://{rest}", f"{parts.scheme}://{rest}"


# -- what we say ------------------------------------------------------------------------------


class Requests:
    """Messages of one configuration. Within a context they differ in text and flags alone, as
    the server demands."""

    __slots__ = ("_fixed",)

    def __init__(self, config: Cartesia) -> None:
        fixed = {
            "model_id": config.model,
            "voice": {"mode": "id", "id": config.voice},
            "language": config.language,
            "output_format": {"container": "raw", "encoding": "pcm_mulaw", "sample_rate": RATE},
            "add_timestamps": True,
            "use_normalized_timestamps": False,  # words as we wrote them
            "max_buffer_delay_ms": 0,  # we cut the clauses
        }
        self._fixed = json.dumps(fixed)[:-1]

    def clause(self, context: str, text: str) -> str:
        """Say `text`. The server joins texts as they are: the space keeps the next one apart."""
        return self._message(context, f"{text} ", "true")

    def flush(self, context: str) -> str:
        """What was asked until here is one piece: tell where its audio ends."""
        return self._message(context, "", 'true, "flush": true')

    def end(self, context: str) -> str:
        """Nothing follows."""
        return self._message(context, "", "false")

    @staticmethod
    def cancel(context: str) -> str:
        """Begin nothing more of it. What has begun goes on and must be ignored."""
        return json.dumps({"cancel": True, "context_id": context})

    def _message(self, context: str, text: str, flags: str) -> str:
        return (
            f'{self._fixed}, "context_id": {json.dumps(context)},'
            f' "transcript": {json.dumps(text)}, "continue": {flags}}}'
        )


# -- what the server says ---------------------------------------------------------------------

Kind = Literal["audio", "words", "flushed", "done", "error", "rubbish", "garbage", "other"]


class Answer(NamedTuple):
    """One message of the server.

    audio     `audio` is mu-law
    words     `words`: text and the ms at which it ends, counted from where the server counts;
              `began_ms`: where the first of them begins
    flushed   all audio up to a flush has been sent
    done      the context is over
    error     `reason` says why; of the connection when `context` is ""
    rubbish   a message for a context whose content cannot be read
    garbage   no message at all
    other     anything else: new kinds may come at any time
    """

    kind: Kind
    context: str = ""
    flush: int = 0  # of which flush, from 1; 0: not said
    audio: bytes = b""
    words: tuple[tuple[str, int], ...] = ()
    began_ms: int = 0
    reason: str = ""
    status: int = 0


_GARBAGE = Answer("garbage")


def read(message: bytes | str) -> Answer:
    """Read one message. Never raises."""
    try:
        fields = json.loads(message)
    except ValueError, RecursionError:
        return _GARBAGE
    if not isinstance(fields, dict):
        return _GARBAGE
    context = fields.get("context_id")
    if not isinstance(context, str):
        context = ""
    flush = fields.get("flush_id")
    if type(flush) is not int or flush < 0:
        flush = 0
    match fields.get("type"):
        case "chunk":
            return _audio(context, flush, fields.get("data"))
        case "timestamps":
            return _words(context, flush, fields.get("word_timestamps"))
        case "flush_done":
            return Answer("flushed", context, flush)
        case "done":
            return Answer("done", context)
        case "error":
            return _error(context, fields)
    return Answer("other", context)


def _audio(context: str, flush: int, data: object) -> Answer:
    if isinstance(data, str):
        try:
            return Answer("audio", context, flush, binascii.a2b_base64(data, strict_mode=True))
        except ValueError:  # not base64, or not ASCII
            pass
    return Answer("rubbish", context, flush)


def _words(context: str, flush: int, stamps: object) -> Answer:
    """Columns that do not match give no words: they only make the heard text finer."""
    columns: list[list[object]] = []
    if isinstance(stamps, dict):
        given = (stamps.get(key) for key in ("words", "start", "end"))
        columns = [column for column in given if isinstance(column, list)]
    words: list[tuple[str, int]] = []
    began = 0
    for word, start, end in zip(*columns, strict=False) if len(columns) == 3 else ():
        if isinstance(word, str) and _is_time(start) and _is_time(end):
            began = began if words else round(start * 1000)
            words.append((word, round(end * 1000)))
    return Answer("words", context, flush, words=tuple(words), began_ms=began)


def _is_time(value: object) -> TypeGuard[float]:
    return type(value) in (int, float) and 0 <= value < _LONGEST_SECONDS  # type: ignore[operator]  # a number by now


def _error(context: str, fields: dict[str, object]) -> Answer:
    status = fields.get("status_code")
    said = [fields.get(key) for key in ("title", "message", "error")]
    text = ": ".join(part for part in said if isinstance(part, str) and part)
    return Answer("error", context, reason=text, status=status if type(status) is int else 0)


# -- what went wrong --------------------------------------------------------------------------


def explain(error: BaseException, config: Cartesia) -> str:
    """One sentence on why there is no connection (any more), and what to do about it."""
    where = _where(config)
    match error:
        case InvalidStatus():
            body = bytes(error.response.body or b"").decode(errors="replace")
            return refusal(error.response.status_code, body, config)
        case TimeoutError():
            return (
                f"{where} took no connection within {config.connect_seconds:g} s: check the"
                " network, or raise cartesia.connect_seconds."
            )
        case ConnectionClosed() if isinstance(error.__cause__, PayloadTooBig):
            return f"{where} sent a message beyond all bounds: check that cartesia.url names it."
        case ConnectionClosed():
            why = error.rcvd.reason if error.rcvd is not None else ""
            return f"{where} closed the connection{_said(why)}: its status page may say why."
        case OSError():
            return f"{where} cannot be reached: start it, or correct cartesia.url."
        case InvalidMessage() if isinstance(error.__cause__, EOFError):
            return f"{where} broke off the handshake: its status page may say why."
        case WebSocketException():
            return f"{where} does not speak its protocol: correct cartesia.url."
    return f"{where} made its client fail ({type(error).__name__}): update the cartesia package."


def rest(error: BaseException) -> float:
    """For how many seconds the server wants no further attempt; 0: it does not say."""
    if not isinstance(error, InvalidStatus):
        return 0.0
    text = error.response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0.0


def refusal(status: int, said: str, config: Cartesia) -> str:
    """One sentence on an error that the server reports. `status` as in HTTP, 0 for none."""
    where = _where(config)
    match status:
        case 401 | 403:
            return f"{where} refused the key ({status}): set CARTESIA_API_KEY to a valid one."
        case 402:
            return f"{where} says that the account of CARTESIA_API_KEY has no credits left (402)."
        case 429:
            return (
                f"{where} limits our requests (429): lower cartesia.max_contexts, or ask for a"
                " higher limit."
            )
        case 404:
            return f"{where} does not know what was asked for (404{_said(said, '; ')}): correct" + (
                " cartesia.model, cartesia.voice or cartesia.url."
            )
        case _ if status >= 500 or not status:
            return f"{where} failed{_said(said)}: its status page may say why."
    return f"{where} rejected the request ({status}{_said(said, '; ')}): correct its settings."


def too_slow(config: Cartesia, *, begun: bool) -> str:
    """The sentence for a clause whose audio did not come in time: its first, or more of it."""
    if begun:
        return (
            f"{_where(config)} fell {config.audio_seconds:g} s behind with a clause: it is"
            " overloaded, or cartesia.audio_seconds is too low for it."
        )
    return (
        f"{_where(config)} sent no audio for {config.first_audio_seconds:g} s: it is overloaded,"
        " or cartesia.first_audio_seconds is too low for it."
    )


def too_many(config: Cartesia, contexts: int) -> str:
    """The sentence for a clause that found no free context in time."""
    return (
        f"All {contexts} contexts of the Cartesia key were in use for {config.queue_seconds:g} s:"
        " raise cartesia.max_contexts if the account allows it."
    )


def ended_early(config: Cartesia) -> str:
    """The sentence for a context that the server ended with a clause unspoken."""
    return f"{_where(config)} ended before a clause was spoken: its status page may say why."


def senseless(config: Cartesia) -> str:
    """The sentence for a connection on which no message can be read."""
    return f"{_where(config)} sends what is no message of its protocol: correct cartesia.url."


def deaf(config: Cartesia) -> str:
    """The sentence for a connection that takes nothing."""
    return f"{_where(config)} takes no requests: it is overloaded, or the network is."


def resting(config: Cartesia) -> str:
    """The sentence for a clause that was not even asked for."""
    return f"{_where(config)} failed several times in a row and is left alone for a while."


def _where(config: Cartesia) -> str:
    return f"The voice server at {config.url}"


def _said(text: str, before: str = " and said ") -> str:
    text = " ".join(text.split())
    return f"{before}'{text if len(text) <= 160 else f'{text[:157]}...'}'" if text else ""
