"""How one run becomes a record: a server in a process of its own, phones, and a bare timer.

The server runs on the build to be measured. The phones are a thread of this process, always on
the same build, with real-time priority where that is allowed: they stand for a network, which
does not wait for a processor. They do share the cores with the server.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from threadline.errors import ThreadlineError
from threadline.observe.callreport import judge, summary
from threadline.threads.caller import Placed, place_calls
from threadline.threads.child_server import ChildServer, child_server, cpu_by_thread, ready
from threadline.threads.phone_line import CallPlan
from threadline.threads.realtime import prepare_thread
from threadline.wire.script import Clip

from ..bench.phone import value
from .record import Build, Lateness, Record

SERVER = "stress.compare.server"
BASELINE = "stress.compare.asyncio_baseline"

CLAUSE_FRAMES = 250

_PHONES_PRIORITY = 3  # below the server's own threads
_PATIENCE_MS = 1_000.0  # of silence, and a caller hangs up: a held-up loop has not finished
_PAGE_SECONDS = 2.0  # the metrics page is drawn once a second
_COUNTED = {
    "pacer_underruns": "threadline_pacer_underruns_total",
    "pacer_gaps": "threadline_pacer_gaps_total",
    "decodes": "threadline_asr_decodes_total",
    "log_dropped": "threadline_log_dropped_total",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One server on one build, and the calls it gets."""

    scenario: str
    case: str
    build: Build
    calls: int
    turn: int = 0
    module: str = SERVER
    flags: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    clauses: int = 1  # of five seconds, in one answer
    stagger_ms: float | None = None  # None: all of them begin within half a second
    lines: int = 1  # how often the caller speaks


@dataclass(frozen=True, slots=True)
class Bench:
    """The two interpreters, the line that callers say, and what is done with a record."""

    python: Mapping[Build, str]
    line: Clip
    folder: Path  # for the server's log; that of a run with lost turns stays there
    keep: Callable[[Record], None]

    def command(self, build: Build, *args: str) -> list[str]:
        """On both builds a thread starts with its maker's context: free-threading's default."""
        return [self.python[build], "-X", "thread_inherit_context=1", "-m", *args]

    def run(self, run: Run) -> Record:
        """Start the server, place the calls, read the server's figures, keep the record."""
        command = self.command(run.build, run.module, "--max-calls", str(run.calls))
        command += ["--clauses", str(run.clauses), *run.flags]
        if run.module == SERVER:
            command += ["--port", "0", "--log-format", "json", "--set", "server.drain_seconds=0.1"]
        command = [
            "env",
            "-u",
            "PYTHON_GIL",
            *(f"{name}={text}" for name, text in run.environ.items()),
            *command,
        ]
        load, began = os.getloadavg()[0], time.monotonic()
        log = self.folder / "server.log"
        with child_server(command, log) as server:
            gil_before = _gil(server)
            with _control(self.command("free", "stress.compare.probes", "control")) as control:
                lateness, figures = self._calls(run, server)
            lateness["control"] = control[0]
            gil_after = _gil(server)
        record = Record(
            scenario=run.scenario,
            case=run.case,
            build=run.build,
            turn=run.turn,
            calls=run.calls,
            lateness=lateness,
            figures=figures,
            gil=(gil_before, gil_after),
            load=(load, os.getloadavg()[0]),
            seconds=time.monotonic() - began,
        )
        if figures.get("unanswered") or figures.get("dropped"):
            log.replace(self.folder / record.file.replace(".json", ".log"))
        self.keep(record)
        return record

    def probe(self, name: str, build: Build, turn: int, seconds: float) -> None:
        """One of those in `probes.py` that need no calls."""
        load, began = os.getloadavg()[0], time.monotonic()
        command = self.command(build, "stress.compare.probes", name, str(seconds))
        said = subprocess.run(command, check=True, capture_output=True).stdout
        record = Record(
            scenario=name,
            case="alone",
            build=build,
            turn=turn,
            figures=json.loads(said),
            gil=(build == "gil", build == "gil"),
            load=(load, os.getloadavg()[0]),
            seconds=time.monotonic() - began,
        )
        self.keep(record)

    def _calls(self, run: Run, server: ChildServer) -> tuple[dict[str, Lateness], dict[str, float]]:
        """Place the calls; what the phones and the server say of them."""
        plan = CallPlan(
            url=f"ws://{server.address}/twilio",
            clips=(self.line,) * run.lines,
            calls=run.calls,
            stagger_ms=500 / run.calls if run.stagger_ms is None else run.stagger_ms,
            greeting=False,
            quiet_ms=_PATIENCE_MS,
            timeout=90.0,
        )
        pages = run.module == SERVER
        before = _counted(server.metrics()) if pages else {}
        cpu = sum(cpu_by_thread(server.pid).values())
        try:
            placed = _place(plan)
        except ThreadlineError:  # not one call could be opened
            return {}, {"frames": 0, "dropped": run.calls, "unanswered": run.calls}
        cpu = sum(cpu_by_thread(server.pid).values()) - cpu
        wanted = run.calls * run.lines * run.clauses * CLAUSE_FRAMES
        lateness, figures = _phones(placed, cpu, wanted)
        if pages:
            page = _page(server, int(figures["frames"]))
            lateness["frame"] = Lateness.of_page(page, "threadline_frame_lateness_seconds")
            lateness["pacer"] = Lateness.of_page(page, "threadline_pacer_lateness_seconds")
            figures |= {name: after - before[name] for name, after in _counted(page).items()}
        return lateness, figures


def _place(plan: CallPlan) -> Placed:
    with ThreadPoolExecutor(1, "phones", _prepare) as phones:
        return phones.submit(place_calls, plan).result()


def _prepare() -> None:
    prepare_thread(priority=_PHONES_PRIORITY)


def _phones(
    placed: Placed, cpu: float, wanted: int
) -> tuple[dict[str, Lateness], dict[str, float]]:
    """What the callers got. `cpu`: seconds of the server process; `wanted`: frames of answers.

    A frame that never came, because its caller had given up, is later than everything.
    """
    reports = [judge(record) for record in placed.calls]
    told = summary(reports, placed.client_lateness_ms)
    seconds = sum(report.record.seconds for report in reports)
    missing = max(0, wanted - told["frames"])
    late = [value for report in reports for value in report.lateness_ms.tolist()]
    dry = sum(gap.end - gap.start for report in reports for gap in report.underruns) / 8
    figures: dict[str, float | None] = {
        "response_p50": told["response_ms"]["p50"],
        "response_p95": told["response_ms"]["p95"],
        "phone_underruns": told["underruns"],
        "phone_silence_ms": dry + 20 * missing,
        "wanted": wanted,
        "phone_p999": told["lateness_ms"]["p999"],
        "client_p999": told["client_lateness_ms"]["p999"],
        "frames": told["frames"],
        "dropped": told["dropped"],
        "unanswered": told["unanswered"],
        "cpu_percent_per_call": 100 * cpu / seconds if seconds else None,
    }  # fmt: skip
    known = {name: figure for name, figure in figures.items() if figure is not None}
    return {"phone": Lateness.of_values([*late, *[math.inf] * missing])}, known


def _page(server: ChildServer, frames: int) -> str:
    """The metrics, when the last of these frames is in them, or soon."""
    deadline = time.monotonic() + _PAGE_SECONDS
    while True:
        page = server.metrics()
        if value(page, "threadline_pacer_frames_total") >= frames or time.monotonic() > deadline:
            return page
        time.sleep(0.1)


def _counted(page: str) -> dict[str, float]:
    return {name: value(page, metric) for name, metric in _COUNTED.items()}


def _gil(server: ChildServer) -> bool:
    """Whether it is on, as the server says."""
    return bool(ready(server.address)[1].get("gil_enabled", True))


@contextmanager
def _control(command: Sequence[str]) -> Iterator[list[Lateness]]:
    """A bare timer beside what is in the block. Its histogram is in the list afterwards."""
    found: list[Lateness] = []
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        yield found
    finally:
        process.terminate()
        said = json.loads(process.communicate(timeout=10)[0])
        found.append(Lateness(tuple(said["bounds"]), tuple(said["counts"])))
