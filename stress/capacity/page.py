"""docs/capacity.md and its picture, written anew from the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..compare.plots import style
from ..compare.record import BUILDS, NAMES, Build
from .run import ATTEMPTS, NOISY_MS, Result

YARDSTICK_CALLS, YARDSTICK_BROKE, YARDSTICK_CPU, YARDSTICK_MB = 24, 28, 3.9, 25.0
"""The best-known asyncio framework, on such a machine with the same vendor latencies."""

LOCAL = "## Everything local"
"""The heading of the second half of the page: see local_page.py."""

COLUMNS = (
    *("build", "calls", "response p50", "p95 ms", "silent p95 ms", "frame p99.9 ms", "timer"),
    *("underruns", "lost", "% of a core a call", "MB", "messages/s", "level"),
)


def line(one: Result) -> str:
    """One run in one line, while they go on."""
    return (
        f"{one.calls:>4} calls: response {one.response_p50:.0f}/{one.response_p95:.0f} ms, silent "
        f"{one.barge_p95:.0f} ms, frames {one.frame_p999:.1f} ms (timer {one.control_p999:.1f}), "
        f"{one.cpu_percent:.2f} % a call, {one.rss_mb:.0f} MB, {one.underruns} underruns"
    )


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """The cells of the table."""
    single = {one.build: one.response_p95 for one in reversed(results)}
    return [
        (
            NAMES[one.build],
            str(one.calls),
            f"{one.response_p50:.0f}",
            f"{one.response_p95:.0f}",
            f"{one.barge_p95:.0f}" if one.barge_p95 == one.barge_p95 else "",
            f"{one.frame_p999:.2f}",
            f"{one.control_p999:.2f}",
            str(one.underruns),
            str(one.lost),
            f"{one.cpu_percent:.2f}",
            f"{one.rss_mb:.0f}",
            f"{one.messages:,.0f}",
            _level(one, single[one.build]),
        )
        for one in results
    ]


def _level(one: Result, single: float) -> str:
    problems = ", ".join(one.broken(single))
    return problems + " (the machine was noisy)" * one.noisy if problems else "kept"


def table(results: Sequence[Result]) -> Table:
    """For the terminal."""
    made = Table(*COLUMNS, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows(results):
        made.add_row(*row)
    return made


def held(results: Sequence[Result], build: Build) -> int:
    """The largest number of calls that kept the service level, before fewer broke it while the
    machine was quiet."""
    mine = [one for one in results if one.build == build]
    most = 0
    for one in mine:
        if not one.broken(mine[0].response_p95):
            most = one.calls
        elif not one.noisy:
            break
    return most


def _typical(results: Sequence[Result], build: Build) -> Result:
    """With the most calls held; when one was all it held, with the fewest beyond."""
    mine = [one for one in results if one.build == build]
    kept = [one for one in mine if 1 < one.calls <= held(results, build)]
    return (kept or mine[1:2] or mine)[-1]


def _beside(results: Sequence[Result]) -> list[str]:
    """The two builds with the same calls: what the GIL saves, and what it costs."""
    runs = {(one.build, one.calls): one for one in results}
    both = [calls for build, calls in runs if build == "gil" and ("free", calls) in runs]
    if not both:
        return []
    free, gil = runs["free", max(both)], runs["gil", max(both)]
    return [
        f"With {free.calls} calls on its one core 3.14t spends {free.cpu_percent:.2f} % of it on a "
        f"call, and the GIL build {gil.cpu_percent:.2f} %:",
        "where only one thread can run at a time anyway, locks and atomic counts bring nothing in.",
        f"Of a thousand frames the last one is {free.frame_p999:.1f} ms late on 3.14t, and "
        f"{gil.frame_p999:.1f} ms on the GIL build,",
        "where a thread that is due asks for the interpreter and may wait for the switch interval,",
        "5 ms by default. Response and interruptions hardly differ. The GIL build would need more",
        "processes to use more cores; 3.14t needs a larger number of threads.",
        "",
    ]


def per_call_mb(results: Sequence[Result], build: Build) -> float:
    """Memory of one further call: between the fewest and the most."""
    mine = sorted((one for one in results if one.build == build), key=lambda one: one.calls)
    if len(mine) < 2:
        return 0.0
    return (mine[-1].rss_mb - mine[0].rss_mb) / (mine[-1].calls - mine[0].calls)


def write(folder: Path, results: Sequence[Result], machine: Mapping[str, str]) -> None:
    """The page and the picture."""
    _draw(folder / "capacity.png", results)
    builds = [build for build in BUILDS if any(one.build == build for one in results)]
    text = [
        "# How many calls one core carries",
        "",
        "Written by `./justw capacity`. Every call goes through the whole cascade: Deepgram, a",
        "model, Cartesia, played by local servers that speak the vendors' protocols with fixed",
        "latencies (final transcript 60 ms, first token 150 ms and then one every 10 ms, first",
        "audio 90 ms and then at five times real time). A caller says a few lines and is answered",
        "with ten seconds each; a quarter of them cut into an answer once. The server process has",
        "one core for itself; callers and vendors share the other.",
        on(machine, results),
        "",
        "The service level: response p95 within 100 ms of a single call's; p99.9 of frame",
        "lateness within 5 ms, or what a bare timer had beside it; no underrun behind the phone's",
        "40 ms buffer; nothing dropped or unanswered; 95 % of the interruptions silent in 150 ms.",
        f"A load that broke it while a bare timer beside it was late by over {NOISY_MS:g} ms",
        f"(p99.9) was run again, up to {ATTEMPTS} times in all: a machine has other tenants.",
        "",
        "| | calls within the level | % of a core a call | MB a further call |",
        "| --- | ---: | ---: | ---: |",
    ]
    for build in builds:
        one = _typical(results, build)
        text.append(
            f"| Threadline, {NAMES[build]} | {held(results, build)} | {one.cpu_percent:.2f}, with "
            f"{one.calls} | {per_call_mb(results, build):.2f} |"
        )
    text += [
        "| the best-known asyncio framework, one process on such a machine "
        f"| {YARDSTICK_CALLS}, broke at {YARDSTICK_BROKE} "
        f"| {YARDSTICK_CPU} | {YARDSTICK_MB:.0f} |",
        "",
        "![Response, lateness and CPU over the number of calls](capacity.png)",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "| --- |" + " ---: |" * (len(COLUMNS) - 2) + " --- |",
        *("| " + " | ".join(row) + " |" for row in rows(results)),
        "",
        *_beside(results),
        *_threads(results, builds),
    ]
    save(folder / "capacity.md", "\n".join(text), local=False)


def on(machine: Mapping[str, str], results: Sequence[Result]) -> str:
    """What it ran on. The image's interpreter is an optimised one."""
    optimised = all("--enable-optimizations" in one.flags for one in results)
    return (
        f"{machine['processor']}, Linux {machine['kernel']}; Python built "
        f"with{'' if optimised else 'out'} profile-guided optimisation."
    )


def save(page: Path, text: str, *, local: bool) -> None:
    """Write one half of the page: the cascade's, or what comes after `LOCAL`. The other stays."""
    before, heading, after = page.read_text("utf-8").partition(LOCAL) if page.exists() else [""] * 3
    halves = (before, text) if local else (text, heading + after)
    page.write_text("\n\n".join(half.strip() for half in halves if half) + "\n", "utf-8")


def _threads(results: Sequence[Result], builds: Sequence[Build]) -> list[str]:
    text = ["## By thread", "", "% of a core that one call takes, with the most calls held.", ""]
    for build in builds:
        mine = [one for one in results if one.build == build and one.calls <= held(results, build)]
        if not mine:
            continue
        text += [f"| {NAMES[build]}, {mine[-1].calls} calls | % |", "| --- | ---: |"]
        text += [*shares(mine[-1]), ""]
    return text


def shares(one: Result) -> list[str]:
    """Rows of a table: what each thread takes of a core for a call."""
    spent = sorted(one.cpu.items(), key=lambda item: -item[1])
    return [f"| {name} | {share:.3f} |" for name, share in spent if share >= 0.001]


def _draw(path: Path, results: Sequence[Result]) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(style()):
        figure = Figure(figsize=(11, 3.6), layout="constrained", facecolor="white")
        response, late, cpu = figure.subplots(1, 3)
        colours: dict[Build, str] = {"free": "#0b7285", "gil": "#d9480f"}
        for build in BUILDS:
            mine = [one for one in results if one.build == build]
            if not mine:
                continue
            calls = [one.calls for one in mine]
            look = {"color": colours[build], "marker": "o", "markersize": 4}
            response.plot(calls, [one.response_p95 for one in mine], label=NAMES[build], **look)
            late.plot(calls, [one.frame_p999 for one in mine], **look)
            late.plot(calls, [one.control_p999 for one in mine], color=colours[build], ls=":")
            cpu.plot(calls, [one.cpu_percent * one.calls for one in mine], **look)
        response.set_title("Response at the phone, p95 in ms")
        late.set_title("Frame lateness p99.9 (dotted: timer), ms")
        cpu.set_title("The server's CPU, % of a core")
        late.set_yscale("log")
        late.set_yticks([0.1, 0.2, 0.5, 1, 2, 5, 10, 20], minor=False)
        late.yaxis.set_major_formatter("{x:g}")
        late.yaxis.set_minor_formatter("")
        late.axhline(5.0, color="#1f2933", lw=0.8, ls="--")
        response.set_ylim(bottom=0)
        cpu.set_ylim(bottom=0)
        for axes in (response, late, cpu):
            axes.axvline(YARDSTICK_CALLS, color="#adb5bd", lw=1.0)
            axes.set_xlabel("calls at once")
            axes.grid(color="#e4e7eb")
        cpu.text(YARDSTICK_CALLS, 2, " asyncio framework's limit", color="#7b8794", fontsize=8)
        response.legend(frameon=False, loc="lower right")
        figure.savefig(path, dpi=110)
