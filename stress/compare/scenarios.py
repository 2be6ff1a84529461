"""What is run, and in which order: each case on both builds in turn, then all of it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .measure import BASELINE, Bench, Run
from .record import BUILDS, Build, Record
from .saboteurs import NAMES

LIMIT_MS = 5.0  # of p99.9 frame lateness, or what the control had if that was more
RESPONSE_MS = 100.0  # p95 may be so much above one call's


SABOTAGE = {  # case: saboteurs
    "none": "",
    **{name: name for name in NAMES},
    "all but stops": ",".join(name for name in NAMES if name not in ("stop", "collect")),
    "all": ",".join(NAMES),
}

CHILD = "3.14t, child process"
CAME_BACK = "3.14t, thread, GIL turned on by the recogniser"
PLACEMENTS: dict[str, tuple[Build, tuple[str, ...], dict[str, str]]] = {
    CHILD: ("free", ("--gil", "isolate"), {}),
    "3.14t, thread, GIL forced off": (
        "free",
        ("--gil", "force", "--placement", "thread"),
        {"PYTHON_GIL": "0"},
    ),
    CAME_BACK: (
        "free",
        ("--gil", "accept", "--placement", "thread"),
        {},
    ),
    "GIL build, child process": ("gil", ("--gil", "accept"), {}),
    "GIL build, thread": ("gil", ("--gil", "accept", "--placement", "thread"), {}),
}


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    name: str
    turns: int  # A B A B: two
    seconds: float  # of each probe
    steps: tuple[int, ...]  # numbers of calls, rising
    calls: int  # under sabotage
    sabotage: tuple[str, ...]
    placements: tuple[str, ...]
    asr_calls: int
    baseline: tuple[str, ...]  # of those under sabotage


QUICK = Size(
    name="quick",
    turns=1,
    seconds=4,
    steps=(1, 60),
    calls=20,
    sabotage=("none", "guard", "sort", "stop", "all but stops", "all"),
    placements=(CHILD, CAME_BACK, "GIL build, thread"),
    asr_calls=5,
    baseline=("guard",),
)
FULL = Size(
    name="full",
    turns=2,
    seconds=4,
    steps=(1, 20, 60, 100, 140, 200),
    calls=20,
    sabotage=tuple(SABOTAGE),
    placements=tuple(PLACEMENTS),
    asr_calls=10,
    baseline=("none", "guard", "all"),
)


def probes(bench: Bench, size: Size) -> None:
    """Rings, and work in one thread."""
    for turn in range(size.turns):
        for name in ("ring", "work"):
            for build in BUILDS:
                bench.probe(name, build, turn, size.seconds)


def calm(bench: Bench, size: Size) -> None:
    """More and more calls, on each build until two runs in succession broke the service level."""
    single: dict[Build, Record] = {}
    going: list[Build] = list(BUILDS)
    for calls in size.steps:
        for build in list(going):
            run = Run("calm", str(calls), build, calls)
            first = bench.run(run)
            single.setdefault(build, first)
            if broken(first, single[build]):
                again = bench.run(Run("calm", str(calls), build, calls, turn=1))
                if broken(again, single[build]):
                    going.remove(build)


def broken(record: Record, single: Record) -> list[str]:
    """What of the service level this run did not keep; `single` is one call on the same build."""
    problems = []
    frame, control = record.lateness.get("frame"), record.lateness["control"]
    limit = max(LIMIT_MS, control.quantile(0.999))
    if frame is None or not frame.quantile(0.999) <= limit:
        problems.append("late frames")
    if record.figures.get("pacer_underruns"):
        problems.append("underruns")
    response = record.figures.get("response_p95", float("inf"))
    if response > single.figures.get("response_p95", 0.0) + RESPONSE_MS:
        problems.append("slow responses")
    if record.figures.get("dropped") or record.figures.get("unanswered"):
        problems.append("lost calls")
    return problems


def sabotage(bench: Bench, size: Size) -> None:
    """One saboteur at a time, and all of them, in worker threads of the server."""
    for turn in range(size.turns):
        for case in size.sabotage:
            for build in BUILDS:
                flags = ("--sabotage", SABOTAGE[case])
                bench.run(Run("sabotage", case, build, size.calls, turn, flags=flags))


def asr(bench: Bench, size: Size) -> None:
    """Real recognition while others are spoken to, wherever it may run."""
    for case in size.placements:
        build, flags, environ = PLACEMENTS[case]
        flags = ("--whisper", "--set", "asr.threads=1", *flags)
        bench.run(
            Run(
                "asr",
                case,
                build,
                size.asr_calls,
                flags=flags,
                environ=environ,
                stagger_ms=700,
                lines=2,
            )
        )


def baseline(bench: Bench, size: Size) -> None:
    """Everything on one loop, as the tutorial has it and as somebody careful would."""
    for case in size.baseline:
        for style in ("tutorial", "careful"):
            for build in BUILDS:
                flags = ("--style", style, "--sabotage", SABOTAGE[case])
                name = f"{style}, {case}"
                bench.run(Run("asyncio", name, build, size.calls, module=BASELINE, flags=flags))


ALL: dict[str, Callable[[Bench, Size], None]] = {
    "probes": probes,
    "calm": calm,
    "sabotage": sabotage,
    "asr": asr,
    "asyncio": baseline,
}


def chosen(names: str) -> Iterator[Callable[[Bench, Size], None]]:
    """The named scenarios, with commas between; all when none is named. KeyError for others."""
    wanted = [name for name in names.split(",") if name] or list(ALL)
    for name in wanted:
        yield ALL[name]
