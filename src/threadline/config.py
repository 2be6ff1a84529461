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
    max_calls: int = 64  # of one process
    processes: int = 1  # that share the port
    io_threads: int = 1  # of one process, among which the callers' sockets are divided
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
    interrupt_ms: int = 320  # speech over a talking agent after which its words are asked for
    grace_ms: int = 400  # without an answer for so long, that much speech takes the floor
    resume_ms: int = 160  # silence after which a paused agent goes on, or that is asked
    probe_ms: int = 96  # silence after which the recogniser starts, ahead of the end
    hangover_ms: int = 416  # silence that ends the turn, where no endpoint decides
    preroll_ms: int = 300
    max_utterance_ms: int = 28_000
    batch_ms: int = 8  # the VAD thread's nap between two batches; 2 with few calls, 10 with many
    threads: int = 1  # among which the calls are divided


@dataclass(frozen=True, slots=True)
class Endpoint:
    """When a pause is the end of the turn. All in ms of silence."""

    mode: Literal["smart", "silence"] = "smart"  # silence: `complete_ms` ends every turn
    complete_ms: int = 200  # a turn that sounds and reads complete
    patient_ms: int = 1_500  # one that does not
    dictation_ms: int = 2_000  # one that stops within a number or a spelling
    threshold: float = 0.5  # Smart Turn's probability from which a turn sounds complete
    threads: int = 1  # of the model


@dataclass(frozen=True, slots=True)
class Stt:
    """Who turns speech into text: the first of the chain that can."""

    chain: tuple[str, ...] = ("whisper",)  # of deepgram[:MODEL], whisper[:MODEL]
    final_seconds: float = 1.0  # from the end of the turn; then the next of the chain is asked
    partials: bool = True
    partial_ms: int = 640  # new speech between two local partials


@dataclass(frozen=True, slots=True)
class Deepgram:
    """Streaming recognition: one WebSocket a call."""

    api_key: str = field(default="", repr=False)
    url: str = "wss://api.deepgram.com/v1/listen"
    model: str = "nova-3"
    language: str = "en"
    connect_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Asr:
    """The recogniser of whole utterances."""

    model: str = "whisper-base"
    language: str = "en"
    workers: int = 1
    threads: int = 2  # of one worker
    deadline_seconds: float = 8.0  # of one utterance, waiting and the retry included
    queue: int = 4  # finished turns that wait for each worker; with more, no call is taken


@dataclass(frozen=True, slots=True)
class Llm:
    """Who decides what to say: the first of the chain that can."""

    chain: tuple[str, ...] = ("scripted",)  # of openai[:MODEL], scripted
    model: str = "gpt-4.1-mini"  # of an `openai` without one
    api_key: str = field(default="", repr=False)
    base_url: str = ""
    instructions: str = "You answer the phone. Be brief: one or two short sentences a turn."
    greeting: str = "Hello, how can I help you?"
    connect_seconds: float = 2.0
    first_token_seconds: float = 3.0  # then the next of the chain is asked
    token_seconds: float = 5.0  # the longest wait for a next token
    total_seconds: float = 20.0
    max_requests: int = 0  # at once, of one key; 0: as many as there are calls
    queue_seconds: float = 1.0  # the longest wait for one of them
    speculate: bool = True  # ask at the first silence, before the turn is known to be over


@dataclass(frozen=True, slots=True)
class Tts:
    """The voice: the first of the chain that can."""

    chain: tuple[str, ...] = ("piper",)  # of cartesia[:VOICE], piper[:VOICE]
    voice: str = "piper-joe"  # of a `piper` without one
    threads: int = 1
    cache_bytes: int = 32_000_000  # of clauses already spoken


@dataclass(frozen=True, slots=True)
class Cartesia:
    """Streaming synthesis: one WebSocket for all calls, a context for each reply."""

    api_key: str = field(default="", repr=False)
    url: str = "wss://api.cartesia.ai"
    model: str = "sonic-3.5"
    voice: str = "694f9389-aac1-45b6-b726-9d9369183238"
    language: str = "en"
    connect_seconds: float = 2.0
    first_audio_seconds: float = 2.0  # of a clause; then the next of the chain is asked
    audio_seconds: float = 3.0  # the longest wait for more of it
    max_contexts: int = 0  # at once, of one key; 0: as many as there are calls
    queue_seconds: float = 1.0  # the longest wait for one of them


@dataclass(frozen=True, slots=True)
class Talk:
    """How the agent behaves in a conversation."""

    protect_greeting: bool = False  # the greeting cannot be interrupted
    nudge_seconds: float = 15.0  # silence after playback until "are you still there?"; 0: never
    nudges: int = 1  # then goodbye
    digit_seconds: float = 2.5  # after the last key, a number is complete
    digit_terminator: Literal["#", "*", "none"] = "#"
    tool_seconds: float = 10.0  # deadline of one tool
    filler_seconds: float = 0.8  # a tool that takes longer gets a filler
    guard_seconds: float = 2.0  # deadline of one guard on one clause
    workers: int = 4  # threads that run tools and guards


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
class Observe:
    """Who is told how it went, besides the log and /metrics."""

    otlp: str = ""  # an OpenTelemetry collector, as http://host:4318; empty: no traces


@dataclass(frozen=True, slots=True)
class Config:
    """Everything. ``Config()`` answers a call with no key and no network."""

    gil: GilPolicy = "isolate"
    models: str = ""  # the model store's folder; empty: the user's cache folder
    start_with_gil: bool = True  # false: `isolate` too exits when the GIL is on at the start
    server: Server = field(default_factory=Server)
    vad: Vad = field(default_factory=Vad)
    endpoint: Endpoint = field(default_factory=Endpoint)
    stt: Stt = field(default_factory=Stt)
    asr: Asr = field(default_factory=Asr)
    deepgram: Deepgram = field(default_factory=Deepgram)
    llm: Llm = field(default_factory=Llm)
    tts: Tts = field(default_factory=Tts)
    cartesia: Cartesia = field(default_factory=Cartesia)
    talk: Talk = field(default_factory=Talk)
    pacer: Pacer = field(default_factory=Pacer)
    log: Log = field(default_factory=Log)
    observe: Observe = field(default_factory=Observe)
