"""The callers of a capacity run, as a process of its own; prints one JSON object.

    python -m stress.capacity.load URL CALLS LINES BARGES CLIPS... [--scattered]

Each call says the first clip LINES times, waiting for each answer; in one of four calls, if
BARGES is 1, the second answer is cut into with the second clip. The calls begin one after the
other at the same distance; scattered, at once, and each caller thinks for a while before each line,
so that they meet as chance has it.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from threadline.audio import mulaw
from threadline.cli_call import load_clip
from threadline.observe.callreport import CallReport, judge
from threadline.threads.caller import Placed, place_calls
from threadline.threads.phone_line import CallPlan
from threadline.threads.realtime import prepare_thread
from threadline.wire.script import Barge, Clip

SPREAD_SECONDS = 8.0  # in which the calls begin
INTERRUPT_AFTER = 1.5  # s
SECOND_SENTENCE = 2.5  # s from the beginning of an answer by the local voice
THINK_SECONDS = 12.0, 4.0  # at most: before the first line, and before the others
PRIORITY = 3  # below the server's own threads


def main() -> None:
    url, calls, lines, barges, *rest = sys.argv[1:]
    line, cut = (load_clip(Path(path)) for path in rest[:2])
    number, barging = int(calls), int(calls) // 4 if int(barges) else 0
    plans = [CallPlan(
        url=url,
        clips=(line,) * int(lines),
        calls=number - barging,
        stagger_ms=SPREAD_SECONDS * 1e3 / max(1, number - barging),
        greeting=False,
        timeout=600.0,
    )]  # fmt: skip
    if barging:
        plans.append(CallPlan(
            url=url,
            clips=(line, line, cut, *(line,) * (int(lines) - 3)),
            calls=barging,
            stagger_ms=SPREAD_SECONDS * 1e3 / barging,
            greeting=False,
            barge=Barge(INTERRUPT_AFTER, 2),
            timeout=600.0,
        ))  # fmt: skip
    if "--scattered" in rest:
        plans = [one for plan in plans for one in _scattered(plan)]
    with ThreadPoolExecutor(len(plans), initializer=_prepare) as phones:
        placed = list(phones.map(place_calls, plans))
    print(json.dumps(_figures(placed)))


def _scattered(plan: CallPlan) -> list[CallPlan]:
    """Each call by itself, with silence before each line but those that cut in.

    They cut into the second sentence: a voice pauses after the first, and may be silent by itself.
    """
    draw = random.Random(len(plan.clips) * plan.calls)
    cut = plan.barge.turn if plan.barge else -1
    later = plan.barge and replace(plan.barge, seconds=SECOND_SENTENCE)
    return [
        replace(
            plan,
            calls=1,
            barge=later,
            clips=tuple(
                clip if turn == cut else _after(draw.uniform(0, THINK_SECONDS[turn > 0]), clip)
                for turn, clip in enumerate(plan.clips)
            ),
        )
        for _ in range(plan.calls)
    ]


def _after(seconds: float, clip: Clip) -> Clip:
    """The clip, with silence before it."""
    wait = round(seconds * mulaw.RATE)
    first, last = clip.speech or (0, len(clip.codes))
    codes = mulaw.SILENCE_BYTE * wait + clip.codes
    return Clip(clip.name, codes, (first + wait, last + wait))


def _prepare() -> None:
    prepare_thread(priority=PRIORITY)


def _figures(placed: list[Placed]) -> dict[str, object]:
    reports = [judge(record) for one in placed for record in one.calls]
    late = np.concatenate([one.client_lateness_ms for one in placed])
    return {
        "response_ms": _known(turn.response_ms for report in reports for turn in report.turns),
        "barge_ms": _known(turn.barge_ms for report in reports for turn in report.turns),
        "underruns": sum(len(report.underruns) for report in reports),
        "dropped": sum(report.record.fault is not None for report in reports),
        "unanswered": sum(_unanswered(report) for report in reports),
        "unsaid": sum(report.record.unsaid for report in reports),
        "seconds": sum(report.record.seconds for report in reports),
        "messages": sum(len(r.record.arrivals.at) + len(r.record.caller) // 160 for r in reports),
        "client_p999": float(np.percentile(late, 99.9)),
    }


def _known(values: Iterable[float | None]) -> list[float]:
    return [round(value, 1) for value in values if value is not None]


def _unanswered(report: CallReport) -> int:
    return sum(turn.unanswered for turn in report.turns)


if __name__ == "__main__":
    main()
