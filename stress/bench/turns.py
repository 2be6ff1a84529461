"""How long a caller waits for an answer, and for silence after cutting in. Everything is real.

    python -m stress.bench.turns --calls 8 --barges 40

First single calls, one after the other, to the scripted receptionist with the local models: from
the true end of the caller's speech to the first audible frame, split by stage. Then calls in
which recorded people (Debian's prompts; the local voice where they are not installed) cut into
a long answer: from the true onset to the last audible sample at the phone, its 40 ms buffer
included. Exit status 0 when the median answer came within 900 ms, 95 % of the interruptions
were silent within 150 ms, and no frame of an interrupted answer followed its clear.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from threadline.errors import ThreadlineError
from threadline.models.piper import PiperVoice
from threadline.observe.callreport import CallReport, judge, server_turns
from threadline.observe.turns import STAGES
from threadline.threads.caller import place_calls
from threadline.threads.phone_line import CallPlan
from threadline.wire.script import Barge, Clip

from ..flags import command_line, count, told
from . import clips as prompts
from .phone import clip, serving, spoken, voice

RESPONSE_LIMIT_MS = 900.0
BARGE_LIMIT_MS = 150.0
AT_ONCE = 4
QUESTION = "What are your opening hours?"
TALK = ("I'd like a table for four on Friday at seven.", QUESTION, "My name is Anna.")


@told
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line("bench turns", __doc__)
    parser.add_argument("--calls", type=count, default=8, help="with three answers each")
    parser.add_argument("--barges", type=count, default=40, help="interruptions")
    args = parser.parse_args(argv)
    console = Console()
    speaker = voice()
    with serving("threadline", "serve") as (server, log):
        url = f"ws://{server.address}/twilio"
        answers = _talk(url, log, speaker, args.calls)
        cuts = _interrupt(url, speaker, args.barges)
    response = _response(console, answers)
    barge = _barge(console, cuts)
    return int(response > RESPONSE_LIMIT_MS or not barge)


def _talk(url: str, log: Path, speaker: PiperVoice, calls: int) -> list[CallReport]:
    lines = tuple(spoken(speaker, text, str(n)) for n, text in enumerate(TALK, 1))
    records = [
        place_calls(CallPlan(url=url, clips=lines)).calls[0]
        for _ in track(range(calls), "one call at a time")
    ]
    said = server_turns(log)
    return [judge(record, said.get(record.call_sid, ())) for record in records]


def _interrupt(url: str, speaker: PiperVoice, barges: int) -> list[CallReport]:
    question = spoken(speaker, QUESTION, "question")
    voices = people(speaker)
    reports: list[CallReport] = []
    for start in track(range(0, barges, AT_ONCE), "interruptions"):
        plan = CallPlan(
            url=url,
            clips=(question, voices[start // AT_ONCE % len(voices)]),
            calls=min(AT_ONCE, barges - start),
            stagger_ms=137.0,  # so that onsets fall on other phases of window and frame
            barge=Barge(1.5 + 0.011 * start, 1),
        )
        reports += [judge(record) for record in place_calls(plan).calls]
    return reports


def people(speaker: PiperVoice, every: int = 0) -> list[Clip]:
    """Recorded voices, to cut in with: a dozen, or each `every`-th."""
    try:
        found = prompts.load()
    except ThreadlineError:
        return [spoken(speaker, text, "stop") for text in ("Wait a moment, please.", "Stop.")]
    return [clip(one.name, one.mulaw) for one in found[:: every or max(1, len(found) // 12)]]


def _response(console: Console, reports: Sequence[CallReport]) -> float:
    turns = [turn for report in reports for turn in report.turns if turn.response_ms is not None]
    times = [turn.response_ms or 0.0 for turn in turns]
    table = Table("stage", "p50 ms", "p95 ms", box=None, pad_edge=False)
    staged = [turn.server.stages_ms for turn in turns if turn.server and turn.server.stages_ms]
    for name in STAGES:
        values = [stages[name] for stages in staged]
        table.add_row(name, f"{np.percentile(values, 50):.0f}", f"{np.percentile(values, 95):.0f}")
    median = float(np.percentile(times, 50))
    table.add_row("at the ear", f"{median:.0f}", f"{np.percentile(times, 95):.0f}", style="bold")
    console.print(table)
    wanted = len(reports) * len(TALK)
    console.print(f"{len(times)} of {wanted} answers measured", highlight=False)
    return median if len(times) == wanted else float("inf")


def _barge(console: Console, reports: Sequence[CallReport]) -> bool:
    turns = [turn for report in reports for turn in report.turns if turn.barge_ms is not None]
    times = [turn.barge_ms or 0.0 for turn in turns]
    late = sum(after_clear(report) for report in reports)
    console.print(
        f"interruptions: {len(times)} of {len(reports)} measured, silent after p50 "
        f"{np.percentile(times, 50):.0f}, p95 {np.percentile(times, 95):.0f}, "
        f"max {max(times):.0f} ms; frames of an interrupted answer after its clear: {late}",
        highlight=False,
    )
    return bool(np.percentile(times, 95) <= BARGE_LIMIT_MS and late == 0)


def after_clear(report: CallReport) -> int:
    """Agent frames between a clear and the end of the interrupting speech: there must be none."""
    record = report.record
    arrived = record.arrivals.at * 8_000
    return sum(
        int(((arrived > clear) & (arrived < said.speech_end)).sum())
        for said in record.said
        for clear in record.clears
        if said.onset <= clear < said.speech_end
    )


if __name__ == "__main__":
    sys.exit(main())
