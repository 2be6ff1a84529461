"""The second half of docs/capacity.md, and its picture: calls with everything local."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..compare.plots import style
from . import page
from .run import Result

SLOWER_MS = 1_000.0
"""Answers that come so much later than a single call's are slow, but still answers."""


def answered(results: Sequence[Result]) -> int:
    """The largest number of calls that were all answered, slowly at worst, and without a gap."""
    single = results[0].response_p95
    good = [one for one in results if not (one.lost or one.underruns)]
    return max((one.calls for one in good if one.response_p95 <= single + SLOWER_MS), default=0)


def write(folder: Path, results: Sequence[Result], machine: Mapping[str, str]) -> None:
    """Rising numbers of calls, of one run each."""
    _draw(folder / "capacity-local.png", results)
    full = max(results, key=lambda one: one.calls)
    kept = [one for one in results if one.calls <= page.held(results, "free")]
    cpu = (kept or [full])[-1]
    columns = [name for name in page.COLUMNS if name != "build"]
    text = [
        page.LOCAL,
        "",
        "Written by `./justw capacity --local`. The same calls without any vendor, on 3.14t:",
        "Silero, Whisper (base, int8), a brain that gives every caller the answer of above, Piper.",
        "All of the server, the process of its recogniser included, has one core; the voice's",
        "cache is off, since a model would not say the same twice. Callers think for up to four",
        "seconds before each line, so that they meet as chance has it.",
        page.on(machine, results),
        "",
        "| calls per core with everything local | |",
        "| --- | ---: |",
        f"| within the service level of above | {page.held(results, 'free')} |",
        "| all answered, p95 at most a second later than a single call's, no gaps "
        f"| {answered(results)} |",
        f"| one core divided by what a call takes ({cpu.cpu_percent:.1f} % of it, of {cpu.calls} "
        f"calls) | {100 / cpu.cpu_percent:.0f} |",
        "",
        "![Response and CPU over the number of calls](capacity-local.png)",
        "",
        "| " + " | ".join(columns) + " |",
        "| ---: |" + " ---: |" * (len(columns) - 2) + " --- |",
        *("| " + " | ".join(row[1:]) + " |" for row in page.rows(results)),
        "",
        "`asr-decode` is the recogniser's process, `tts` the voice.",
        "",
        f"| {cpu.calls} calls | % of a core a call |",
        "| --- | ---: |",
        *page.shares(cpu),
    ]
    page.save(folder / "capacity.md", "\n".join(text), local=True)


def _draw(path: Path, results: Sequence[Result]) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(style()):
        figure = Figure(figsize=(11, 3.6), layout="constrained", facecolor="white")
        response, cpu = figure.subplots(1, 2)
        calls = [one.calls for one in results]
        look = {"color": "#0b7285", "marker": "o", "markersize": 4}
        response.plot(calls, [one.response_p95 for one in results], label="p95", **look)
        response.plot(calls, [one.response_p50 for one in results], label="p50", ls=":", **look)
        single = results[0].response_p95
        for limit in (single + 100, single + SLOWER_MS):
            response.axhline(limit, color="#1f2933", lw=0.8, ls="--")
        names = sorted(results[-1].cpu, key=lambda name: -results[-1].cpu[name])[:3]
        parts = {name: [one.cpu.get(name, 0) * one.calls for one in results] for name in names}
        parts["all others"] = [
            one.cpu_percent * one.calls - sum(part[row] for part in parts.values())
            for row, one in enumerate(results)
        ]
        shades = ("#0b7285", "#f08c00", "#862e9c", "#adb5bd")
        cpu.stackplot(calls, *parts.values(), labels=list(parts), colors=shades)
        cpu.axhline(100, color="#1f2933", lw=0.8, ls="--")
        response.set_title("Response at the phone, ms (dashed: the level, and a second)")
        cpu.set_title("The server's CPU, % of a core")
        for axes in (response, cpu):
            axes.set_xlabel("calls at once")
            axes.set_ylim(bottom=0)
            axes.grid(color="#e4e7eb")
            axes.set_axisbelow(True)
        response.legend(frameon=False, loc="upper left")
        cpu.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.93))  # below the line
        cpu.set_xlim(calls[0], calls[-1])
        figure.savefig(path, dpi=110)
