"""``threadline serve``: answer calls."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from . import cli_vendors
from .agent import Agent
from .agent import load as load_agent
from .chains import forms, names
from .config import Config, GilPolicy
from .config_sources import Value, describe, load, named_file
from .dialog.brain import LocalBrain, RemoteBrain
from .dialog.scripted import Scripted
from .errors import ConfigError, Exit
from .models.piper import PiperVoice
from .models.store import ModelStore
from .threads import gil, logs, traces
from .threads.asr_process import WHISPER
from .threads.io_calls import listen
from .threads.processes import Processes, command
from .threads.server import Parts, Server
from .threads.siblings import Siblings
from .threads.supervisor import ignore_signals
from .threads.tts import Voice

_HELP = """\
Answer calls. A carrier's media stream connects to /twilio; the webhook that tells it so is
/twiml. /healthz, /readyz and /metrics say how the server does. Without any option it listens on
127.0.0.1:8080, speaks with the local voice and needs no key.

APP is an agent of yours: MODULE:NAME, or FILE.py:NAME. It needs a model to talk for it.

--stt, --llm and --tts name who listens, thinks and speaks, in the order in which they are tried:
--llm openai:gpt-4.1-mini,openai:gpt-4.1-nano,scripted asks the second model when the first fails.

The first SIGTERM or Ctrl-C drains: no new calls, live ones end by themselves. The second stops
now. Exit codes: 0 all calls ended, 2 a bad setting, 3 a model is missing, 4 the GIL is on and
the policy forbids it, 5 the port is taken, 6 calls had to be cut off, 70 a defect of ours.
"""
_EXAMPLES = """\
examples:
  threadline serve
  threadline serve --host 0.0.0.0 --port 9000 --max-calls 200 --log-format json
  threadline serve examples.booking:agent --llm openai:gpt-4.1-mini    (OPENAI_API_KEY is set)
  threadline serve app.py:agent --stt deepgram,whisper --llm openai --tts cartesia,piper
  threadline serve --processes 4 --max-calls 100
  threadline serve --config threadline.toml --set vad.hangover_ms=600
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command; its namespace goes to `run`."""
    parser = subparsers.add_parser(
        "serve",
        help="answer calls",
        description=_HELP,
        epilog=_EXAMPLES + cli_vendors.help_text(os.environ) + _settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("app", nargs="?", metavar="APP", help="your agent, as MODULE:NAME or FILE.py:NAME")
    add("--config", type=Path, metavar="FILE", help="a TOML file (or THREADLINE_CONFIG)")
    add("--host", help="address to listen on (default 127.0.0.1)")
    add("--port", help="port to listen on, 0 for a free one (default 8080)")
    add("--max-calls", metavar="N", help="calls at once (default 64)")
    add("--processes", metavar="K", help="so many processes share the port (default 1)")
    add("--inherited", help=argparse.SUPPRESS)  # a child's descriptors: see threads/processes.py
    add("--gil", metavar="POLICY", help=f"one of {', '.join(get_args(GilPolicy))} (isolate)")
    for kind, what in (("stt", "who listens"), ("llm", "who thinks"), ("tts", "who speaks")):
        add(f"--{kind}", metavar="CHAIN", help=f"{what}: of {forms(f'{kind}.chain')}")
    add("--log-format", metavar="FORMAT", help="console or json (default console)")
    add("--log-level", metavar="LEVEL", help="debug, info, warning or error (default info)")
    add("--otlp", metavar="URL", help="an OpenTelemetry collector that is sent traces of turns")
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
    if args.app:
        config = cli_vendors.with_model(config)
    cli_vendors.check(config)
    traces.check(config.observe.otlp)
    if config.server.processes > 1 and not args.inherited:
        return _serve_in_many(config)
    local = "whisper" in names(config.stt.chain)
    used = {*names(config.stt.chain), *names(config.llm.chain), *names(config.tts.chain)}
    optional = (
        *(name for name in gil.VENDOR_MODULES if name in used),
        *(gil.TRACE_MODULES if config.observe.otlp else ()),
    )
    verdict = gil.preload(
        config.gil,
        (*gil.MODULES, *optional),
        recogniser=gil.RECOGNISER_MODULES if local else (),
        start_with_gil=config.start_with_gil,
    )
    agent = load_agent(app_name(args.app)) if args.app else None
    parts = real_parts(config, agent)
    verdict = gil.look_again(verdict, config.start_with_gil)
    listener, siblings = _door(config, args.inherited)
    server = Server(config, verdict, parts, listener, siblings)
    logs.start(config.log)
    try:
        server.supervisor.catch_signals()
        server.start()
        return server.run()
    finally:
        logs.stop(2.0)
        ignore_signals()


def _serve_in_many(config: Config) -> Exit:
    """Be the parent of several servers; each is this very command again."""
    listener = listen(config.server.host, config.server.port)
    logs.start(config.log)
    many = Processes(
        command(sys.argv[1:]), listener, config.server.processes, config.server.drain_seconds
    )
    try:
        return many.run()
    finally:
        many.close()
        listener.close()
        logs.stop(2.0)
        ignore_signals()


def _door(config: Config, inherited: str | None) -> tuple[socket.socket, Siblings | None]:
    """Where callers come in, and who else stands there."""
    if not inherited:
        return listen(config.server.host, config.server.port), None
    try:
        door, shared, row, count = map(int, inherited.split(","))
        return socket.socket(fileno=door), Siblings(shared, count, row)
    except ValueError, OSError:
        raise ConfigError(
            "--inherited is what --processes gives its children: leave it out."
        ) from None


def settings(args: argparse.Namespace, environ: Mapping[str, str]) -> Config:
    """The configuration that the file, the environment and the flags make."""
    flags: dict[str, Value | None] = {
        "server.host": args.host,
        "server.port": args.port,
        "server.max_calls": args.max_calls,
        "server.processes": args.processes,
        "gil": args.gil,
        "stt.chain": args.stt,
        "llm.chain": args.llm,
        "tts.chain": args.tts,
        "log.format": args.log_format,
        "log.level": args.log_level,
        "observe.otlp": args.otlp,
    }
    for pair in args.set:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair} has no value: write --set {key}=VALUE.")
        flags[key.strip()] = value.strip()
    return load(args.config or named_file(environ), environ, flags)


def app_name(app: str) -> str:
    """An app as `agent.load` takes it; the folder of a file goes onto the path."""
    file, _, attribute = app.partition(".py")
    if attribute[:1] not in ("", ":") or not app.startswith(f"{file}.py"):
        return app
    path = Path(f"{file}.py")
    if not path.is_file():
        raise ConfigError(
            f"There is no file {path}: name your agent as MODULE:NAME or FILE.py:NAME."
        )
    sys.path.insert(0, str(path.resolve().parent))
    return f"{path.stem}{attribute or ':agent'}"


def real_parts(config: Config, agent: Agent | None = None) -> Parts:
    """The models that the chains need, each verified, and who decides what to say."""
    store = ModelStore(Path(config.models) if config.models else None)
    load_voice, options = None, {}
    if "piper" in names(config.tts.chain):
        folder = store.directory(
            _of_kind(store, "tts.voice", config.tts.voice, "voice", ".onnx.json")
        )

        def load_voice() -> Voice:
            (network,) = folder.glob("*.onnx")
            (about,) = folder.glob("*.onnx.json")
            return PiperVoice(network, about, threads=config.tts.threads)

    if "whisper" in names(config.stt.chain):
        whisper = _of_kind(store, "asr.model", config.asr.model, "recogniser", "model.bin")
        options = {
            "folder": str(store.directory(whisper)),
            "threads": config.asr.threads,
            "language": config.asr.language,
        }
    smart = config.endpoint.mode == "smart"
    return Parts(
        silero=store.path("silero-vad", "silero_vad.onnx"),
        smart_turn=store.path("smart-turn", "smart-turn-v3.2-cpu.onnx") if smart else None,
        load_voice=load_voice,
        decoder=WHISPER,
        decoder_options=options,
        brain=make_brain(config, agent),
        agent=agent,
    )


def _of_kind(store: ModelStore, setting: str, name: str, kind: str, ending: str) -> str:
    """The model's name, if it has a file that only models of this kind have."""
    if not any(file.name.endswith(ending) for file in store.model(name).files):
        raise ConfigError(
            f"{setting} is {name!r}, and {name} is no {kind}: see `threadline models list`."
        )
    return name


def make_brain(config: Config, agent: Agent | None = None) -> LocalBrain[Any] | RemoteBrain:
    """The receptionist, or a model behind a socket, which speaks for the user's agent."""
    llm = config.llm
    vendors = names(llm.chain)
    if vendors == ("scripted",):
        return Scripted()
    return RemoteBrain(
        greeting=agent.greeting if agent else llm.greeting,
        instructions=(agent.instructions if agent else "") or llm.instructions,
        tools=agent.tools if agent else (),
        fallback=Scripted() if "scripted" in vendors else None,
        speculate=llm.speculate,
    )


def _settings() -> str:
    """Every key there is, for the end of the help text."""
    rows = [f"  {one.name:<30} {_shown(one.default)}" for one in describe()]
    return "\nsettings, with their defaults:\n" + "\n".join(rows) + "\n"


def _shown(value: Value) -> str:
    return ",".join(value) if isinstance(value, tuple) else repr(value)
