"""``just stalls``: hold up every thread of a server for 50 ms and see what the watchdog says.

    just stalls                      two minutes; writes docs/stalls.md

The whole cascade with everything in it (the vendors' sockets, the local voice, the end-of-turn
model, an agent with tools), a few calls on. First nothing is planted, and nothing should be said.
Then every thread in turn is held up in the middle of its own work, once by sleeping and once by
computing; the saboteur is stalls_server.py, in the server's process.

Exit status 0 when every stall was reported within a second, by the name of its thread and with a
stack that names the planted function, and nothing else was.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from unittest.mock import patch

from rich.console import Console

from threadline.errors import ThreadlineError
from threadline.threads.caller import place_calls
from threadline.threads.child_server import ChildServer
from threadline.threads.phone_line import CallPlan
from threadline.wire.script import Clip

from .bench.phone import serving, spoken, voice
from .bench.vendors import vendors
from .compare.record import machine
from .flags import amount, command_line, count, told
from .soak_server import ALARMS, ANSWER, HEARD

ROOT = Path(__file__).parents[1]
WITHIN_MS = 1_000.0
LONGEST_SECONDS = 120.0
FLAGS = ("--stt", "deepgram", "--llm", "openai", "--tts", "cartesia,piper", "--max-calls", "16")
APP = "examples.booking:agent"
HEAD = ("thread", "held up", "ms", "told after ms", "it says ms", "the stack", "rings", "collector")


@dataclass(frozen=True, slots=True)
class Report:
    """One record of the watchdog's; `at` in unix seconds."""

    at: float
    event: str
    fields: Mapping[str, object]

    @property
    def thread(self) -> str:
        return str(self.fields["stage"])


@dataclass(frozen=True, slots=True)
class Case:
    """One planted stall, and the report of it."""

    thread: str
    kind: str
    function: str
    times: tuple[float, float]  # began and ended, unix seconds
    report: Report | None

    @property
    def after_ms(self) -> float:
        """From its begin to the record; nan when there is none."""
        return (self.report.at - self.times[0]) * 1e3 if self.report else float("nan")

    @property
    def named(self) -> bool:
        """The stack names the culprit."""
        return self.report is not None and self.function in str(self.report.fields["stack"])

    @property
    def well(self) -> bool:
        """It was reported as it should be."""
        told = self.report
        return (
            told is not None
            and told.event == "stall"
            and self.after_ms <= WITHIN_MS
            and self.named
            and {"depths", "audio_depths", "gc"} <= set(told.fields)
        )


@told
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line("just stalls", __doc__)
    add = parser.add_argument
    add("--calls", type=count, default=4, help="on the line meanwhile")
    add("--calm", type=amount, default=30.0, help="seconds in which nothing is planted, first")
    args = parser.parse_args(argv)
    console = Console(highlight=False)
    calm, cases, others = run(args.calls, args.calm)
    missed = [case for case in cases if not case.well]
    for line in table(cases):
        console.print(line, soft_wrap=True, markup=False)
    verdict = (
        f"{len(cases) - len(missed)} of {len(cases)} planted stalls were reported in full; "
        f"{calm} false reports in {args.calm:g} s before them, {len(others)} among them"
    )
    for other in others:
        console.print(f"false: {other.event} {dict(other.fields)}", soft_wrap=True, markup=False)
    console.print(verdict)
    write(ROOT / "docs" / "stalls.md", args.calls, cases, verdict)
    return int(bool(missed or calm or others))


def run(calls: int, calm_seconds: float) -> tuple[int, list[Case], list[Report]]:
    """False reports of the calm, the cases, and false reports among those."""
    line = spoken(voice(), HEARD, "line")
    with (
        tempfile.TemporaryDirectory() as name,
        vendors(HEARD, ANSWER) as environ,
        patch.dict(os.environ, environ),
        serving("stress.stalls_server", name, "serve", APP, *FLAGS) as (server, log),
        on_the_line(server, line, calls),
    ):
        time.sleep(calm_seconds)
        calm = _stalls(reports(log))
        begun = time.time()
        os.kill(server.pid, signal.SIGUSR1)
        _wait_for(Path(name) / "done", server.pid)
        told = [one for one in reports(log) if one.at >= begun]
        planted = (Path(name) / "planted.jsonl").read_text("utf-8").splitlines()
        cases = [_case(json.loads(one), told) for one in planted]
        mine = [case.report for case in cases]
        return len(calm), cases, _stalls([one for one in told if one not in mine])


def _stalls(told: Sequence[Report]) -> list[Report]:
    """Of them, those that blame somebody."""
    return [one for one in told if one.event != "no core for a stage"]


@contextmanager
def on_the_line(server: ChildServer, line: Clip, calls: int) -> Iterator[None]:
    """So many calls that go on."""
    over = threading.Event()
    plan = CallPlan(
        url=f"ws://{server.address}/twilio",
        clips=(line,) * 4,
        calls=calls,
        stagger_ms=700.0,
        greeting=True,
        timeout=60.0,
    )

    def hold() -> None:
        while not over.is_set():
            place_calls(plan)

    thread = threading.Thread(target=hold, name="callers")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _wait_for(file: Path, pid: int) -> None:
    end = time.monotonic() + LONGEST_SECONDS
    while not file.exists():
        if time.monotonic() > end or not Path(f"/proc/{pid}").exists():
            raise ThreadlineError("The saboteur did not come to its end: see the server's log.")
        time.sleep(0.1)


def reports(log: Path) -> list[Report]:
    """What the watchdog has said by now."""
    found = []
    for line in log.read_text("utf-8").splitlines():
        record = json.loads(line)
        if record["event"] in ALARMS:
            at = datetime.fromisoformat(record.pop("timestamp")).timestamp()
            found.append(Report(at, record.pop("event"), record))
    return found


def _case(planted: Mapping[str, object], told: Sequence[Report]) -> Case:
    thread, times = planted["thread"], planted["times"]
    assert isinstance(times, list), "as stalls_server.py writes it"
    began, ended = (ns / 1e9 for ns in times)
    mine = [
        one
        for one in told
        if one.thread == thread and began <= one.at + 1e-3 and one.at <= ended + WITHIN_MS / 1e3
    ]
    about = (str(planted[key]) for key in ("thread", "kind", "function"))
    thread, kind, function = about
    return Case(thread, kind, function, (began, ended), mine[0] if mine else None)


def table(cases: Sequence[Case]) -> list[str]:
    """In Markdown."""
    rows = ["| " + " | ".join(HEAD) + " |", "| --- | --- | ---: | ---: | ---: | --- | --- | --- |"]
    for case in cases:
        began, ended = case.times
        cells = [case.thread, case.kind, f"{(ended - began) * 1e3:.0f}"]
        if case.report is None:
            cells += ["never", "", "", "", ""]
        else:
            fields = case.report.fields
            cells += [
                f"{case.after_ms:.0f}",
                f"{fields['ms']:.0f}" if case.report.event == "stall" else case.report.event,
                f"names `{case.function}`" if case.named else "does not name it",
                _waiting(fields),
                _collector(fields),
            ]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _waiting(fields: Mapping[str, object]) -> str:
    """Which rings hold anything: of events, then the fullest of a call."""
    parts = []
    for kind in ("depths", "audio_depths"):
        depths = fields.get(kind)
        if isinstance(depths, dict):
            parts.append(" ".join(f"{name} {n}" for name, n in depths.items() if n) or "none")
    return "; ".join(parts)


def _collector(fields: Mapping[str, object]) -> str:
    state = fields.get("gc")
    if not isinstance(state, dict):
        return ""
    automatic = "on" if state["automatic"] else "off"
    return f"{automatic}, {state['counts'][0]} new, last {state['last_ago_s']:.0f} s ago"


def write(path: Path, calls: int, cases: Sequence[Case], verdict: str) -> None:
    """The page."""
    about = machine()
    example = next((case.report for case in cases if case.well and case.thread == "vad"), None)
    text = [
        "# What the watchdog says of a stall",
        "",
        "Written by `./justw stalls`. A server with the whole cascade and everything local beside",
        f"it holds {calls} calls; every thread in turn is held up for 50 ms in the middle of its",
        "own work, once by sleeping and once by computing. On",
        f"{about['processor']}, Linux {about['kernel']}, callers and vendors on the same cores.",
        "",
        f"{verdict}.",
        "",
        "The rings: events that wait for a thread, then the fullest of a call's four audio rings",
        "(`outgoing` holds the answer that is being said, and is full by design). Waiting for a",
        "core is no stall: such a record says `no core for a stage`, and blames nobody.",
        "",
        *table(cases),
        "",
    ]
    if example is not None:
        fields = dict(example.fields)
        stack = str(fields.pop("stack"))
        text += ["One of them whole, as the log has it:", "", "```text"]
        text += [
            f"{example.event}",
            *(f"{name}: {json.dumps(one)}" for name, one in fields.items()),
        ]
        for folder in (ROOT, sys.base_prefix):
            stack = stack.replace(f"{folder}/", "")
        text += stack.splitlines()
        text += ["```", ""]
    path.write_text("\n".join(text), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
