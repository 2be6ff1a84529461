"""How long a caller waits for an answer through the three vendors, at fixed latencies of theirs.

    python -m stress.bench.cascade --turns 200
    python -m stress.bench.cascade --barges 100

Deepgram, OpenAI and Cartesia are played by the servers of the tests, each a process of its own:
final transcript after 60 ms, first token after 150 and then one every 10 ms, first audio after
90 ms and then at five times real time. The callers are recorded people (Debian's prompts; the
local voice where they are not installed), of whom those are taken who make no pause that would end
the turn. Measured from the true end of the caller's speech to the first audible frame at the
phone's socket, and to the ear, behind the phone's own buffer of 40 ms; once with the plain end of
turn (200 ms of silence) and once with the model asked ahead of it. Then interruptions, from their
true onset to the last audible frame, at the same two places. The limits are those of the socket:
what a phone keeps back is not ours.

The floor is what nobody can go below with these vendors and this end of turn. Exit status 0 when
every limit was kept.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from threadline.audio import mulaw
from threadline.audio.mulaw import RATE
from threadline.config import Endpoint, Vad
from threadline.listening.silero import WINDOW, Silero
from threadline.listening.speech import Over, SpeechMachine
from threadline.models.store import ModelStore
from threadline.observe.callreport import CallReport, judge, server_turns
from threadline.observe.turns import STAGES
from threadline.threads.caller import place_calls
from threadline.threads.phone_line import CallPlan
from threadline.wire.script import Barge, Clip

from ..flags import command_line, count_or_none, told
from .phone import serving, spoken, voice
from .turns import after_clear, people
from .vendors import CASCADE, Latencies, vendors

LINE = "A table for four, please."
ANSWER = "Sure, I can do that. And for which day would you like to book it?"
LONG = " ".join(f"This is sentence number {n} of a long answer." for n in range(4))
TURNS_A_CALL = 10
AT_ONCE = 10
PHONE_MS = 40.0
SHORTEST, LONGEST = RATE, 3 * RATE  # samples of speech
SPREAD_MS = 60.0  # p99 may be so far above p50
LIMITS = {"plain": 560.0, "ahead": 470.0}  # ms, p50
BARGE_LIMIT_MS = 130.0
PLAIN = ("--set", "endpoint.mode=silence", "--set", "llm.speculate=false")
AHEAD = ("--set", "endpoint.mode=silence", "--set", "llm.speculate=true")


@told
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line("bench cascade", __doc__)
    parser.add_argument("--turns", type=count_or_none, default=200, help="in each of the two ways")
    parser.add_argument("--barges", type=count_or_none, default=100, help="interruptions")
    args = parser.parse_args(argv)
    console, speaker, kept = Console(), voice(), True
    line = spoken(speaker, LINE, "line")
    lines = without_pauses(people(speaker, every=1)) or [line]
    console.print(f"{len(lines)} recorded lines", highlight=False)
    for name, flags in (("plain", PLAIN), ("ahead", AHEAD)) if args.turns else ():
        with vendors(LINE, ANSWER) as environ:
            reports = _talk(name, flags, environ, lines, args.turns)
        kept &= _responses(console, name, reports, args.turns)
    if args.barges:
        with vendors(LINE, LONG) as environ:
            cuts = _interrupt(environ, line, people(speaker), args.barges)
        kept &= _barges(console, cuts, args.barges)
    return int(not kept)


def _talk(
    name: str, flags: Sequence[str], environ: Mapping[str, str], lines: Sequence[Clip], turns: int
) -> list[CallReport]:
    calls = max(1, turns // TURNS_A_CALL)
    reports: list[CallReport] = []
    with (
        patch.dict(os.environ, environ),
        serving("threadline", "serve", *CASCADE, *flags) as (
            server,
            log,
        ),
    ):
        for start in track(range(0, calls, AT_ONCE), f"{name}: {AT_ONCE} calls at a time"):
            plan = CallPlan(
                url=f"ws://{server.address}/twilio",
                clips=tuple(
                    lines[(start + n) % len(lines)] for n in range(min(turns, TURNS_A_CALL))
                ),
                calls=min(AT_ONCE, calls - start),
                stagger_ms=311.0,
            )
            reports += _judged(plan, log)
    return reports


def _interrupt(
    environ: Mapping[str, str], line: Clip, voices: Sequence[Clip], barges: int
) -> list[CallReport]:
    reports: list[CallReport] = []
    with (
        patch.dict(os.environ, environ),
        serving("threadline", "serve", *CASCADE, *AHEAD) as (
            server,
            log,
        ),
    ):
        for start in track(range(0, barges, AT_ONCE), "interruptions"):
            plan = CallPlan(
                url=f"ws://{server.address}/twilio",
                clips=(line, voices[start // AT_ONCE % len(voices)]),
                calls=min(AT_ONCE, barges - start),
                stagger_ms=137.0,  # so that onsets fall on other phases of window and frame
                barge=Barge(1.5 + 0.011 * start, 1),
            )
            reports += _judged(plan, log)
    return reports


def _judged(plan: CallPlan, log: Path) -> list[CallReport]:
    records = place_calls(plan).calls
    said = server_turns(log)
    return [judge(record, said.get(record.call_sid, ())) for record in records]


def without_pauses(clips: Sequence[Clip]) -> list[Clip]:
    """Those of a few seconds that are one turn, by the same VAD and the same end of turn."""
    silero = Silero(ModelStore().path("silero-vad", "silero_vad.onnx"), 1)
    found = []
    for one in clips:
        if one.speech is None or not SHORTEST <= one.speech[1] - one.speech[0] <= LONGEST:
            continue
        silero.reset(0)
        machine, ends = SpeechMachine(Vad(), Endpoint().complete_ms), 0
        for at in range(0, len(one.codes) + RATE, WINDOW):
            window = one.codes[at : at + WINDOW].ljust(WINDOW, mulaw.SILENCE_BYTE)
            samples = mulaw.decode_float(window)
            chance = float(silero.run(np.zeros(1, np.intp), samples[None])[0])
            level = 10 * float(np.log10(np.dot(samples, samples) / WINDOW + 1e-12))
            ends += sum(isinstance(event, Over) for event in machine.feed(chance, level, 0, 9))
        if ends == 1:
            found.append(one)
    return found


def floor_ms(name: str) -> float:
    """To the phone's socket: silence, the model's first clause, the voice."""
    at = Latencies()
    clause = at.first_token + at.token * len(ANSWER.partition(",")[0].split()) + at.token
    silence = float(Endpoint().complete_ms)
    asked = silence if name == "plain" else float(Vad().probe_ms)
    return max(silence, asked + clause) + at.first_audio


def _responses(console: Console, name: str, reports: Sequence[CallReport], wanted: int) -> bool:
    turns = [turn for report in reports for turn in report.turns if turn.response_ms is not None]
    ear = np.array([turn.response_ms for turn in turns])
    times = ear - PHONE_MS
    table = Table("stage", "p50 ms", "p95 ms", "p99 ms", box=None, pad_edge=False)
    staged = [turn.server.stages_ms for turn in turns if turn.server and turn.server.stages_ms]
    for stage in STAGES:
        values = [stages[stage] for stages in staged if stage in stages]
        if values:
            table.add_row(stage, *(f"{np.percentile(values, q):.0f}" for q in (50, 95, 99)))
    p50, p95, p99 = (float(np.percentile(times, q)) for q in (50, 95, 99))
    table.add_row("at the phone", f"{p50:.0f}", f"{p95:.0f}", f"{p99:.0f}", style="bold")
    table.add_row("at the ear", *(f"{np.percentile(ear, q):.0f}" for q in (50, 95, 99)))
    console.print(table)
    floor = floor_ms(name)
    console.print(
        f"{name}: {len(times)} of {wanted} answers measured; p50 {p50:.0f} ms (limit "
        f"{LIMITS[name]:.0f}), of it {floor:.0f} the vendors' floor and {p50 - floor:.0f} ours; "
        f"p99 {p99 - p50:.0f} above p50 (limit {SPREAD_MS:.0f})",
        highlight=False,
    )
    early = [turn.server.early for turn in turns if turn.server]
    if any(early):
        console.print(f"the model was asked ahead, rightly, in {sum(early)} of {len(early)} turns")
    return len(times) == wanted and p50 <= LIMITS[name] and p99 - p50 <= SPREAD_MS


def _barges(console: Console, reports: Sequence[CallReport], wanted: int) -> bool:
    turns = [turn for report in reports for turn in report.turns if turn.barge_ms is not None]
    times = [turn.barge_ms or 0.0 for turn in turns]
    late = sum(after_clear(report) for report in reports)
    p50, p95, most = (float(np.percentile(times, q)) for q in (50, 95, 100))
    console.print(
        f"interruptions: {len(times)} of {wanted} measured; the last frame arrives after p50 "
        f"{p50 - PHONE_MS:.0f}, p95 {p95 - PHONE_MS:.0f} (limit {BARGE_LIMIT_MS:.0f}), max "
        f"{most - PHONE_MS:.0f} ms; at the ear it is silent after {p50:.0f}, {p95:.0f}, "
        f"{most:.0f} ms; frames of an interrupted answer after its clear: {late}",
        highlight=False,
    )
    return len(times) == wanted and p95 - PHONE_MS <= BARGE_LIMIT_MS and late == 0


if __name__ == "__main__":
    sys.exit(main())
