"""The whole configuration, as one typed, immutable value.

Sources from weak to strong: the defaults below, a TOML file, the environment
(``THREADLINE_VAD_HANGOVER_MS=500``), flags. Each section is a frozen dataclass; ``load`` in
``config_sources.py`` builds it and names the nearest key for one it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

GilPolicy = Literal["isolate", "refuse", "accept", "force"]


@dataclass(frozen=True, slots=True)
class Server:
    """Where calls arrive, and the bounds on what one peer may take of us."""

    host: str = "127.0.0.1"
    port: int = 8080
    max_calls: int = 64
    public_url: str = ""  # what the carrier reaches, as wss://host; empty: taken from the request
    twilio_auth_token: str = field(
        default="", repr=False
    )  # when set, webhooks and upgrades must carry a valid signature
    handshake_seconds: float = 5.0
    start_seconds: float = 10.0  # from the upgrade to the carrier's `start`
    silent_peer_seconds: float = 30.0  # a live carrier sends 50 frames a second
    max_message_bytes: int = 65_536
    max_write_bytes: int = 65_536  # about five seconds of frames; then the peer is not reading
    drain_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Vad:
    """When speech starts, when it interrupts, when a turn is over. All in ms of audio."""

    threshold: float = 0.5  # speech probability that opens
    release: float = 0.35  # the lower one that keeps it open
    pause_threshold: float = 0.2  # and the one that pauses a talking agent
    drop_db: float = 35.0  # so far below an utterance's loudest window is silence in any case
    onset_ms: int = 32  # speech that pauses the agent
    min_speech_ms: int = 96  # speech that takes a free floor
    interrupt_ms: int = 320  # speech that takes the floor from a talking agent
    resume_ms: int = 160  # silence after which a paused agent goes on
    probe_ms: int = 160  # silence after which the recogniser starts, ahead of the end
    hangover_ms: int = 416  # silence that ends the turn
    preroll_ms: int = 300
    max_utterance_ms: int = 28_000
    batch_ms: int = 8  # the VAD thread sleeps this long between batches


@dataclass(frozen=True, slots=True)
class Asr:
    """The recogniser of whole utterances."""

    model: str = "whisper-base"
    language: str = "en"
    workers: int = 1
    threads: int = 2  # of one worker
    deadline_seconds: float = 8.0  # of one utterance, waiting and the retry included


@dataclass(frozen=True, slots=True)
class Llm:
    """Who decides what to say."""

    brain: Literal["scripted", "openai"] = "scripted"
    model: str = "gpt-4.1-mini"
    api_key: str = field(default="", repr=False)
    base_url: str = ""
    instructions: str = "You answer the phone. Be brief: one or two short sentences a turn."
    greeting: str = "Hello, how can I help you?"
    connect_seconds: float = 2.0
    token_seconds: float = 5.0  # the longest wait for a next token
    total_seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class Tts:
    """The voice."""

    voice: str = "piper-joe"
    threads: int = 1
    cache_bytes: int = 32_000_000  # of clauses already spoken


@dataclass(frozen=True, slots=True)
class Pacer:
    """The 20 ms clock."""

    prebuffer_ms: int = 40  # in our ring, before the first frame of an utterance leaves
    subticks: int = 4  # calls are spread over this many instants of each 20 ms


@dataclass(frozen=True, slots=True)
class Log:
    """Where records go."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything. ``Config()`` answers a call with no key and no network."""

    gil: GilPolicy = "isolate"
    models: str = ""  # the model store's folder; empty: the user's cache folder
    start_with_gil: bool = True  # false: `isolate` too exits when the GIL is on at the start
    server: Server = field(default_factory=Server)
    vad: Vad = field(default_factory=Vad)
    asr: Asr = field(default_factory=Asr)
    llm: Llm = field(default_factory=Llm)
    tts: Tts = field(default_factory=Tts)
    pacer: Pacer = field(default_factory=Pacer)
    log: Log = field(default_factory=Log)
