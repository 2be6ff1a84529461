"""What a soak came to: flat or not, docs/soak.md and its picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from .compare.plots import style
from .compare.record import machine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROWTH_MB = 8.0
"""The last quarter's median RSS may be so far above the second quarter's: arenas, caches."""
SPARE_FDS, SPARE_THREADS = 8, 0  # connections that vendors' pools keep
TITLES = {"calls": "Short calls", "steady": "A steady load"}
_BLUE, _ORANGE, _GREY = "#0b7285", "#d9480f", "#7b8794"


@dataclass(frozen=True, slots=True)
class Look:
    """One second. `at` in s since the begin; `slots`: calls on the line."""

    at: float
    done: int
    rss_mb: float
    threads: int
    fds: int
    slots: int
    collections: int
    collecting_s: float
    cpu_s: float


@dataclass(frozen=True)
class Run:
    """One soak. The looks end with some at rest, when nobody is on the line any more."""

    kind: str  # "calls" or "steady"
    at_once: int
    looks: list[Look]
    counts: Mapping[str, int] = field(default_factory=dict)  # by our callers
    logged: Mapping[str, int] = field(default_factory=dict)  # records by level
    alarms: Mapping[str, int] = field(default_factory=dict)  # of the watchdog, and errors

    @classmethod
    def load(cls, path: Path) -> Run:
        """As `save` wrote it."""
        found = json.loads(path.read_text("utf-8"))
        return cls(**{**found, "looks": [Look(**look) for look in found["looks"]]})

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), "utf-8")

    @property
    def loaded(self) -> list[Look]:
        """While calls were on the line."""
        busy = [i for i, look in enumerate(self.looks) if look.slots]
        return self.looks[busy[0] : busy[-1] + 1] if busy else []

    def quarter(self, number: int, of: Callable[[Look], float]) -> float:
        """The median over one quarter of the loaded time, 0 to 3; nan when there is none."""
        looks = self.loaded
        part = looks[number * len(looks) // 4 : (number + 1) * len(looks) // 4]
        return median(map(of, part)) if part else float("nan")

    def growth(self, of: Callable[[Look], float]) -> float:
        """From the second quarter's median to the last one's."""
        return self.quarter(3, of) - self.quarter(1, of)

    def alarmed(self, event: str) -> int:
        """Log records of the watchdog with this event."""
        return sum(many for name, many in self.alarms.items() if name.startswith(f"{event}: "))

    def problems(self) -> list[str]:
        """What was not flat, or not well."""
        found = []
        for name, of, spare in (
            ("RSS in MB", lambda look: look.rss_mb, GROWTH_MB),
            ("threads", lambda look: look.threads, SPARE_THREADS),
            ("descriptors", lambda look: look.fds, SPARE_FDS),
        ):
            grown = self.growth(of)
            if not grown <= spare:  # nan, too: there was nothing to compare
                found.append(f"{name} grew by {grown:.1f}")
        if not self.looks or self.looks[-1].slots:
            found.append("slots are in use though nobody is on the line")
        for name in ("unanswered", "overstayed", "ended by the server", "dropped", "given up"):
            if self.counts.get(name):
                found.append(f"{self.counts[name]} calls {name}")
        if self.kind == "steady":
            for event in ("stall", "stage is stalled"):
                if self.alarmed(event):
                    found.append(f"{self.alarmed(event)} alarms: {event}")
        if self.alarmed("error"):
            found.append(f"{self.alarmed('error')} errors in the log")
        return found


def lines(run: Run) -> list[str]:
    """The figures, one a line."""
    looks = run.loaded
    if not looks:
        return ["no call was seen on the line"]
    seconds = max(1.0, looks[-1].at - looks[0].at)
    calls = run.looks[-1].done
    cpu = looks[-1].cpu_s - looks[0].cpu_s
    rss, threads, fds = (
        [run.quarter(number, of) for number in range(4)]
        for of in (lambda one: one.rss_mb, lambda one: one.threads, lambda one: one.fds)
    )
    first, last = run.looks[0], run.looks[-1]
    alarms = ", ".join(
        f"{run.alarmed(event)} x {event!r}"
        for event in ("stall", "stage is stalled", "no core for a stage", "error")
    )
    told = ", ".join(f"{name} {many:,}" for name, many in sorted(run.counts.items()) if many)
    problems = run.problems()
    return [
        f"{calls:,} calls, up to {max(look.slots for look in looks)} at once, in {seconds / 60:.1f}"
        f" minutes: {calls / seconds:.1f} calls a second, {100 * cpu / seconds:.0f} % of a core",
        f"callers: {told}",
        f"RSS by quarter: {_row(rss)} MB; {first.rss_mb:.1f} before, {last.rss_mb:.1f} after",
        f"threads by quarter: {_row(threads)}; {first.threads} before, {last.threads} after",
        f"descriptors by quarter: {_row(fds)}; {first.fds} before, {last.fds} after",
        f"slots in use at the end: {last.slots}",
        f"garbage collections: {last.collections - first.collections}, "
        f"{1e3 * (last.collecting_s - first.collecting_s):.0f} ms in all",
        f"log records: {', '.join(f'{n:,} {name}' for name, n in sorted(run.logged.items()))}",
        f"watchdog: {alarms}" + "".join(f"; {n} {name}" for name, n in sorted(run.alarms.items())),
        f"verdict: {'flat' if not problems else '; '.join(problems)}",
    ]


def _row(values: Sequence[float]) -> str:
    return " / ".join(f"{value:.1f}".removesuffix(".0") for value in values)


def write(
    folder: Path, runs: Sequence[Run], garbage: Mapping[str, Sequence[Mapping[str, int]]]
) -> None:
    """The page and the picture. `garbage`: as soak_garbage.py prints it."""
    draw(folder / "soak.png", runs)
    about = machine()
    text = [
        "# What one process holds after ten thousand calls",
        "",
        "Written by `./justw soak --calls 10000` and `./justw soak --minutes 10`. Every call goes",
        "through the whole cascade, with local servers in the place of Deepgram, the model and",
        "Cartesia. The short ones are greeted, most say something, and they leave in every way",
        "there is: after the greeting or an answer, in the middle of one, before they began; with",
        "the carrier's stop, a WebSocket close, the end of the stream, a reset. The steady ones",
        "talk in real time. Server, vendors and callers share the machine:",
        f"{about['processor']}, Linux {about['kernel']}.",
        "",
        f"Flat: RSS in the last quarter within {GROWTH_MB:g} MB of the second quarter's (medians),",
        f"no further thread, at most {SPARE_FDS} further descriptors, every slot back at the end.",
        "",
        "![RSS, threads, descriptors and calls over time](soak.png)",
        "",
    ]
    for run in runs:
        text += [f"## {TITLES[run.kind]}", "", *(f"- {line}" for line in lines(run)), ""]
    if garbage:
        text += [
            "## What a frame leaves behind",
            "",
            "With the collector off, as always while calls are on, calls are held for a second and",
            "for four; then a collection says how many objects it found unreachable.",
            "",
            "| | frames in | frames out | objects |",
            "| --- | ---: | ---: | ---: |",
        ]
        text += [
            f"| {name} | {one['heard']:,} | {one['said']:,} | {one['objects']:,} |"
            for name, rounds in garbage.items()
            for one in rounds
        ]
        text.append("")
    (folder / "soak.md").write_text("\n".join(text), "utf-8")


def draw(path: Path, runs: Sequence[Run]) -> None:
    """Four panels for each run."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(style()):
        figure = Figure(
            figsize=(11, 2.6 * max(1, len(runs))), layout="constrained", facecolor="white"
        )
        panels = figure.subplots(max(1, len(runs)), 4, squeeze=False)
        for row, run in zip(panels, runs, strict=True):
            minutes = [look.at / 60 for look in run.looks]
            title = f"{TITLES[run.kind]}: " if len(runs) > 1 else ""
            _panel(row[0], minutes, [look.rss_mb for look in run.looks], f"{title}RSS, MB", _BLUE)
            for number in (1, 3) if run.loaded else ():
                row[0].axhline(
                    run.quarter(number, lambda look: look.rss_mb), color=_GREY, lw=0.8, ls="--"
                )
            _panel(row[1], minutes, [look.threads for look in run.looks], "threads", _BLUE)
            _panel(row[2], minutes, [look.fds for look in run.looks], "descriptors", _BLUE)
            slots = [look.slots for look in run.looks]
            row[2].plot(minutes, slots, color=_ORANGE, lw=1.4, label="slots in use")
            row[2].legend(frameon=False, loc="center", fontsize=8)
            _panel(row[3], minutes, [look.done for look in run.looks], "calls done", _BLUE)
        figure.savefig(path, dpi=110)


def _panel(
    axes: Axes,
    minutes: Sequence[float],
    values: Sequence[float],
    title: str,
    colour: str,
) -> None:
    axes.plot(minutes, values, color=colour, lw=1.4)
    axes.set_ylim(0, 1.2 * max([*values, 1]))
    axes.set_xlim(0)
    axes.set_xlabel("minutes")
    axes.grid(color="#e4e7eb", lw=0.7)
    axes.set_title(title)
