"""``threadline demo``: one whole call on this machine, to hear, to see and to read.

A server of its own process answers on a free loopback port; this process is the telephone. The
caller's lines are spoken once by the local voice, pitched up, and kept beside the models.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import soxr
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .audio import mulaw, wav
from .cli_call import load_clip, watched
from .cli_models import fetch_shown
from .errors import ConfigError, Exit, ThreadlineError
from .models.piper import PiperVoice
from .models.store import ModelStore, State
from .observe.callreport import CallReport, Turn, judge, server_turns
from .observe.live import Board
from .observe.timeline import draw
from .observe.words import errors, normalise
from .threads.caller import place_calls
from .threads.phone_line import CallPlan
from .wire.script import Barge, Clip

_EXAMPLES = """\
examples:
  threadline demo                    a call with the scripted receptionist
  threadline demo --out /tmp/call    keep the recording, the picture and the log there
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
MUST_SAY = ("friday", "four", "seven", "anna", "booked")  # what the agent must have understood
READY_SECONDS = 60.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command; its namespace goes to `run`."""
    parser = subparsers.add_parser(
        "demo",
        help="hold one recorded call with the agent and show it",
        description="Fetch the models, start a server, place a call with four lines of which one "
        "interrupts the agent, and show what happened. Exit status 0 only if every line was "
        "answered and understood.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("out"), metavar="FOLDER",
        help="where the recording, the picture and the log go (default: out)")  # fmt: skip
    add("--gil", default="isolate", metavar="POLICY", help="the server's GIL policy")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Exit:
    """Hold the call; tell whether it went as it must."""
    console = Console()
    out: Path = args.out
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"Cannot write to {out} ({error.strerror}): choose another --out."
        ) from None
    store = ModelStore()
    if any(state is not State.PRESENT for state in store.status().values()):
        console.print("fetching the models, once (205 MB)")
        fetch_shown(store, [], console)
    clips = _clips(store, console)
    log = out / "server.jsonl"
    with _server(log, args.gil, console) as server:
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
    draw(report, picture)
    console.print()
    _tell(report, console)
    console.print()
    console.print(_threads(server))
    console.print(f"listen   {recording}   caller left, agent right")
    console.print(f"look     {picture}")
    console.print(f"read     {log}")
    problems = [*_problems(report), *server.problems()]
    for problem in problems:
        console.print(f"[red]not as it must be:[/] {problem}")
    if not problems:
        console.print("[green]every line was answered and understood[/]")
    return Exit.FAILED if problems else Exit.OK


# -- the caller --------------------------------------------------------------------------------


def _clips(store: ModelStore, console: Console) -> tuple[Clip, ...]:
    """The caller's lines as WAV files beside the models, spoken when they are not there yet."""
    folder = store.folder / "demo-caller"
    paths = [folder / f"{name}.wav" for name in LINES]
    spoken = folder / "lines.json"
    wanted = json.dumps([LINES, PITCH])
    if not spoken.exists() or spoken.read_text("utf-8") != wanted:
        console.print("speaking the caller's lines, once (about 4 s)")
        folder.mkdir(parents=True, exist_ok=True)
        voice = PiperVoice(
            store.path("piper-joe", "en_US-joe-medium.onnx"),
            store.path("piper-joe", "en_US-joe-medium.onnx.json"),
        )
        for line, path in zip(LINES.values(), paths, strict=True):
            higher = soxr.resample(voice.synthesize(line), voice.rate * PITCH, mulaw.RATE)
            codes = mulaw.decode(mulaw.encode_float(higher))
            wav.write_mono(path, codes, mulaw.RATE)
        spoken.write_text(wanted, "utf-8")
    return tuple(load_clip(path) for path in paths)


# -- the server --------------------------------------------------------------------------------


@dataclass(slots=True)
class _Watched:
    """The server process, as seen from outside while the call runs."""

    pid: int
    address: str
    looks: int = 0
    gil_on: int = 0  # looks that found it on
    facts: dict[str, object] = field(default_factory=dict)
    threads: list[tuple[str, float]] = field(default_factory=list)  # (name, CPU seconds)

    def look(self) -> None:
        """Ask /readyz, read /proc."""
        _, self.facts = _ready(self.address)
        self.looks += 1
        self.gil_on += bool(self.facts.get("gil_enabled", True))
        self.threads = _read_threads(self.pid)

    def problems(self) -> list[str]:
        """What is wrong with the process itself."""
        if self.gil_on and not self.facts.get("fallback"):
            return [f"the GIL was on at {self.gil_on} of {self.looks} looks"]
        return []


@contextmanager
def _server(log: Path, policy: str, console: Console) -> Iterator[_Watched]:
    """A server process on a free loopback port, looked at twice a second until it has ended."""
    command = [sys.executable, "-m", "threadline", "serve", "--port", "0"]
    command += ["--gil", policy, "--log-format", "json", "--set", "server.drain_seconds=3"]
    console.print("starting the server")
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr)
    over = threading.Event()
    try:
        server = _Watched(process.pid, _wait_until_ready(process, log))
        looker = threading.Thread(target=_keep_looking, args=(server, over), name="looker")
        looker.start()
        try:
            yield server
        finally:
            over.set()
            looker.join()
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _keep_looking(server: _Watched, over: threading.Event) -> None:
    while not over.wait(0.5):
        server.look()


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address, once /readyz says yes. Raises what the server said when it ended instead."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
            sentence = said[0].removeprefix("threadline: ") if said else "it said nothing"
            error = ThreadlineError(f"The server did not start: {sentence}")
            error.exit_code = Exit(process.returncode) if process.returncode > 0 else Exit.FAILED
            raise error
        address = _address(log)
        if address and _ready(address)[0]:
            return address
        time.sleep(0.05)
    raise ThreadlineError(
        f"The server was not ready after {READY_SECONDS:g} s: {log} says what it was doing."
    )


def _address(log: Path) -> str:
    for line in log.read_text("utf-8", "replace").splitlines():
        if '"listening"' in line:
            record = json.loads(line)
            return f"{record['host']}:{record['port']}"
    return ""


def _ready(address: str) -> tuple[bool, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=2) as answer:
            return True, json.load(answer)
    except urllib.error.HTTPError as error:
        return False, json.load(error)
    except OSError, ValueError:
        return False, {}


def _read_threads(pid: int) -> list[tuple[str, float]]:
    """(name, CPU seconds) of every thread, from /proc; proc(5) has the fields of stat."""
    found = []
    tick = os.sysconf("SC_CLK_TCK")
    for task in sorted(Path(f"/proc/{pid}/task").glob("*"), key=lambda path: int(path.name)):
        try:
            stat = (task / "stat").read_text()
        except OSError:  # it has just ended
            continue
        name, _, rest = stat.partition("(")[2].rpartition(")")
        fields = rest.split()
        found.append((name, (int(fields[11]) + int(fields[12])) / tick))
    return found


# -- what is shown -----------------------------------------------------------------------------


def _tell(report: CallReport, console: Console) -> None:
    """The words, and under each answer what the caller waited for."""
    for turn in report.turns:
        heard = turn.server.heard if turn.server else ""
        said = turn.server.said if turn.server else ""
        if turn.number:
            console.print(Text.assemble(("caller  ", "bold green"), heard or "(nothing)"))
        console.print(Text.assemble(("agent   ", "bold cyan"), said or "(nothing)"))
        notes = _waited(turn)
        if turn.barge_ms is not None:
            notes = f"fell silent {turn.barge_ms:.0f} ms after the caller cut in; {notes}"
        if notes:
            console.print(Text(f"        {notes}", style="dim"))


def _waited(turn: Turn) -> str:
    """The response time by stage; `line` is what only the phone sees: its buffer and the wire."""
    if turn.response_ms is None:
        return ""
    stages = dict(turn.server.stages_ms) if turn.server else {}
    if stages:
        stages["line"] = turn.response_ms - sum(stages.values())
    split = " + ".join(f"{name} {ms:.0f}" for name, ms in stages.items())
    return f"answered after {turn.response_ms:.0f} ms" + (f" = {split}" if split else "")


def _threads(server: _Watched) -> Table:
    state = "off" if not server.gil_on else "ON"
    title = f"the server's threads; the GIL was {state} at {server.looks} of {server.looks} looks"
    if server.gil_on:
        title = f"the server's threads; the GIL was ON at {server.gil_on} of {server.looks} looks"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("thread")
    table.add_column("CPU s", justify="right")
    for name, seconds in server.threads:
        table.add_row(name, f"{seconds:.2f}")
    return table


def _problems(report: CallReport) -> list[str]:
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
    said = " ".join(turn.server.said for turn in turns if turn.server).lower()
    found += [f"the agent never said {word!r}" for word in MUST_SAY if word not in said]
    if len(turns) >= INTERRUPTED + 1 and turns[INTERRUPTED].barge_ms is None:
        found.append("the interruption did not cut the agent short")
    return found
