"""``threadline serve``: answer calls."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from .config import Config, GilPolicy
from .config_sources import Value, describe, load
from .dialog.brain import LocalBrain, RemoteBrain
from .dialog.scripted import Scripted
from .errors import ConfigError, Exit
from .models.piper import PiperVoice
from .models.store import ModelStore
from .threads import gil, logs
from .threads.asr_process import WHISPER
from .threads.io_calls import listen
from .threads.server import Parts, Server
from .threads.supervisor import ignore_signals
from .threads.tts import Voice

_HELP = """\
Answer calls. A carrier's media stream connects to /twilio; the webhook that tells it so is
/twiml. /healthz, /readyz and /metrics say how the server does. Without any option it listens on
127.0.0.1:8080, speaks with the local voice and needs no key.

The first SIGTERM or Ctrl-C drains: no new calls, live ones end by themselves. The second stops
now. Exit codes: 0 all calls ended, 2 a bad setting, 3 a model is missing, 4 the GIL is on and
the policy forbids it, 5 the port is taken, 6 calls had to be cut off, 70 a defect of ours.
"""
_EXAMPLES = """\
examples:
  threadline serve
  threadline serve --host 0.0.0.0 --port 9000 --max-calls 200 --log-format json
  threadline serve --brain openai --set llm.model=gpt-4.1-mini     (OPENAI_API_KEY is set)
  threadline serve --config threadline.toml --set vad.hangover_ms=600
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command; its namespace goes to `run`."""
    parser = subparsers.add_parser(
        "serve",
        help="answer calls",
        description=_HELP,
        epilog=_EXAMPLES + _settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", help="a TOML file (or THREADLINE_CONFIG)")
    add("--host", help="address to listen on (default 127.0.0.1)")
    add("--port", help="port to listen on, 0 for a free one (default 8080)")
    add("--max-calls", metavar="N", help="calls at once (default 64)")
    add("--gil", metavar="POLICY", help=f"one of {', '.join(get_args(GilPolicy))} (isolate)")
    add("--brain", metavar="NAME", help="scripted or openai (default scripted)")
    add("--log-format", metavar="FORMAT", help="console or json (default console)")
    add("--log-level", metavar="LEVEL", help="debug, info, warning or error (default info)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any setting, like vad.hangover_ms=600; may be given again",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Exit:
    """Serve until a signal."""
    config = settings(args, os.environ)
    verdict = gil.preload(config.gil, start_with_gil=config.start_with_gil)
    parts = real_parts(config)
    verdict = gil.look_again(verdict, config.start_with_gil)
    server = Server(config, verdict, parts, listen(config.server.host, config.server.port))
    logs.start(config.log)
    try:
        server.supervisor.catch_signals()
        server.start()
        return server.run()
    finally:
        logs.stop(2.0)
        ignore_signals()


def settings(args: argparse.Namespace, environ: Mapping[str, str]) -> Config:
    """The configuration that the file, the environment and the flags make."""
    flags: dict[str, Value | None] = {
        "server.host": args.host,
        "server.port": args.port,
        "server.max_calls": args.max_calls,
        "gil": args.gil,
        "llm.brain": args.brain,
        "log.format": args.log_format,
        "log.level": args.log_level,
    }
    for pair in args.set:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair} has no value: write --set {key}=VALUE.")
        flags[key.strip()] = value.strip()
    named = environ.get("THREADLINE_CONFIG", "")
    file = args.config or (Path(named) if named else None)
    return load(file, environ, flags)


def real_parts(config: Config) -> Parts:
    """The models of the store, each verified, and the brain that the configuration names."""
    store = ModelStore(Path(config.models) if config.models else None)
    voice = store.directory(_of_kind(store, "tts.voice", config.tts.voice, "voice", ".onnx.json"))
    whisper = store.directory(
        _of_kind(store, "asr.model", config.asr.model, "recogniser", "model.bin")
    )

    def load_voice() -> Voice:
        (network,) = voice.glob("*.onnx")
        (about,) = voice.glob("*.onnx.json")
        return PiperVoice(network, about, threads=config.tts.threads)

    return Parts(
        silero=store.path("silero-vad", "silero_vad.onnx"),
        load_voice=load_voice,
        decoder=WHISPER,
        decoder_options={
            "folder": str(whisper),
            "threads": config.asr.threads,
            "language": config.asr.language,
        },
        brain=make_brain(config),
    )


def _of_kind(store: ModelStore, setting: str, name: str, kind: str, ending: str) -> str:
    """The model's name, if it has a file that only models of this kind have."""
    if not any(file.name.endswith(ending) for file in store.model(name).files):
        raise ConfigError(
            f"{setting} is {name!r}, and {name} is no {kind}: see `threadline models list`."
        )
    return name


def make_brain(config: Config) -> LocalBrain[Any] | RemoteBrain:
    """The receptionist, or a model behind a socket."""
    if config.llm.brain == "scripted":
        return Scripted()
    if not config.llm.api_key and not config.llm.base_url:
        raise ConfigError(
            "The brain is openai and there is no key: set OPENAI_API_KEY, or OPENAI_BASE_URL to "
            "a server that needs none."
        )
    return RemoteBrain(greeting=config.llm.greeting, instructions=config.llm.instructions)


def _settings() -> str:
    """Every key there is, for the end of the help text."""
    rows = [f"  {one.name:<30} {one.default!r}" for one in describe()]
    return "\nsettings, with their defaults:\n" + "\n".join(rows) + "\n"
