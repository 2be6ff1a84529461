"""Many calls speaking at once: how exact the 20 ms are, and what a call costs.

    python -m stress.bench.pacing --calls 50

The server (tone_server.py) is a process of its own; this one is the phones, on the same cores.
Each caller says one line and is answered with twenty seconds of the call's own tone, so every
frame on the wire can be told from every other call's. Beside both runs a bare timer
(ticker.py), so that the machine's own lateness is not taken for ours: a shared machine may hold
a core back for tens of milliseconds.

Exit status 0 when no frame was another call's, none was missing, nothing ran dry and p99.9
stayed under 5 ms, or under what the bare timer had when that was more.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from threadline.audio import mulaw
from threadline.observe.callreport import CallReport, judge, summary
from threadline.observe.live import Board
from threadline.threads.caller import place_calls
from threadline.threads.child_server import cpu_by_thread
from threadline.threads.phone_line import CallPlan

from ..flags import command_line, count, told
from .phone import quantile_ms, serving, spoken, value, voice
from .tone_server import LOWEST_HZ, SECONDS, STEP_HZ, TONES

LIMIT_MS = 5.0


@told
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line("bench pacing", __doc__)
    parser.add_argument("--calls", type=count, default=50)
    args = parser.parse_args(argv)
    console = Console()
    line = spoken(voice(), "Hello, please hum for me.", "hum")
    console.print(f"{args.calls} calls at once, each answered with {SECONDS} s of tone")
    with serving("stress.bench.tone_server", "--max-calls", str(args.calls)) as (server, _):
        ticker = subprocess.Popen(
            [sys.executable, "-m", "stress.bench.ticker", str(SECONDS + 2)], stdout=subprocess.PIPE
        )
        before, began = cpu_by_thread(server.pid), time.monotonic()
        plan = CallPlan(
            url=f"ws://{server.address}/twilio",
            clips=(line,),
            calls=args.calls,
            stagger_ms=1000 / args.calls,
            greeting=False,
            timeout=60.0,
        )
        placed = place_calls(plan, Board(args.calls))
        seconds = time.monotonic() - began
        after, page = cpu_by_thread(server.pid), server.metrics()
        bare = json.loads(ticker.communicate(timeout=30)[0])
    reports = [judge(record) for record in placed.calls]
    result = summary(reports, placed.client_lateness_ms)
    call_seconds = sum(report.record.seconds for report in reports)
    _tell(console, result, page, bare)
    _tell_cost(console, before, after, seconds, call_seconds)
    console.print(f"GIL on at {server.gil_on} of {server.looks} looks", highlight=False)
    problems = _foreign(reports) + _short(reports)
    p999 = quantile_ms(page, "threadline_frame_lateness_seconds", 0.999)
    underruns = value(page, "threadline_pacer_underruns_total")
    if p999 > max(LIMIT_MS, bare[2]) or underruns or result["dropped"] or result["unanswered"]:
        problems.append(
            f"p99.9 {p999:.2f} ms, {underruns:.0f} underruns, {result['dropped']} calls dropped, "
            f"{result['unanswered']} unanswered"
        )
    for problem in problems:
        console.print(f"[red]{problem}[/]")
    return 1 if problems else 0


def _tell(console: Console, result: dict[str, Any], page: str, bare: Sequence[float]) -> None:
    table = Table("ms late", "p50", "p99", "p99.9", "at most", box=None, pad_edge=False)
    table.add_row("a bare timer on this machine", *(f"{figure:.2f}" for figure in bare))
    for name, metric in (
        ("pacer: deadline to release", "threadline_pacer_lateness_seconds"),
        ("io-calls: deadline to socket", "threadline_frame_lateness_seconds"),
    ):
        figures = [f"{quantile_ms(page, metric, q):.2f}" for q in (0.5, 0.99, 0.999, 1.0)]
        table.add_row(name, *figures)
    for name, key in (
        ("phone: arrival off the 20 ms grid", "lateness_ms"),
        ("the phones' own clock", "client_lateness_ms"),
    ):
        table.add_row(name, *(str(result[key][q]) for q in ("p50", "p99", "p999", "max")))
    console.print(table)
    console.print(
        f"frames {result['frames']}, phone underruns {result['underruns']}, "
        f"pacer underruns {value(page, 'threadline_pacer_underruns_total'):.0f}, "
        f"gaps {value(page, 'threadline_pacer_gaps_total'):.0f}",
        highlight=False,
    )


def _tell_cost(
    console: Console,
    before: dict[str, float],
    after: dict[str, float],
    seconds: float,
    call_seconds: float,
) -> None:
    cpu = Table("thread", "% of a core", "per call", box=None, pad_edge=False)
    spent = {name: after[name] - before.get(name, 0.0) for name in after}
    for name, used in spent.items():
        cpu.add_row(name, f"{100 * used / seconds:.1f}", f"{100 * used / call_seconds:.3f}")
    total = sum(spent.values())
    cpu.add_row("all", f"{100 * total / seconds:.1f}", f"{100 * total / call_seconds:.3f}")
    console.print(cpu)


def _foreign(reports: Sequence[CallReport]) -> list[str]:
    """Every 100 ms of every answer must be the one tone of its call, and no two calls share it."""
    found, pitches = [], set()
    for report in reports:
        heard = mulaw.decode_float(report.record.agent.tobytes())
        block = mulaw.RATE // 10  # bins of 10 Hz: a tone that a gap has bent is off by one
        blocks = heard[: len(heard) - len(heard) % block].reshape(-1, block)
        loud = blocks[np.sqrt((blocks**2).mean(1)) > 0.2]  # not those a tone begins or ends in
        bins = np.abs(np.fft.rfft(loud * np.hanning(block), axis=1)).argmax(1)
        tones = {round((10 * int(bin_) - LOWEST_HZ) / STEP_HZ) for bin_ in bins}
        if len(tones) != 1:
            found.append(f"call {report.record.call_sid} heard {sorted(tones)}, not one tone")
        pitches |= tones
    if len(pitches) != min(len(reports), TONES):
        found.append(f"{len(reports)} calls heard {len(pitches)} different tones")
    return found


def _short(reports: Sequence[CallReport]) -> list[str]:
    wanted = SECONDS * 50
    frames = [len(report.record.arrivals.at) for report in reports]
    short = [count for count in frames if count != wanted]
    return [f"{len(short)} calls got {short[:5]} frames instead of {wanted}"] if short else []


if __name__ == "__main__":
    sys.exit(main())
