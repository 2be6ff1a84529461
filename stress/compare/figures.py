"""From records to rows: what the terminal and the page both show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from .record import BUILDS, NAMES, Build, Lateness, Record, merged
from .saboteurs import TITLES
from .scenarios import LIMIT_MS, PLACEMENTS, SABOTAGE, broken

FRAME_MS = 20.0
CLEAR = 1.5  # how many times as late a build must be for a word about it: machines are noisy
HEARD_MS = 20.0  # of silence in a minute: one frame
CLEAR_RING = 1.2  # of times between threads, which are medians
CLEAR_CPU = 1.05  # likewise of processor time, which other processes do not add to
WORK = {
    "guard": "PII guard, one chunk (pure Python)",
    "json": "json.loads of 5 MB (C, makes objects)",
    "sort": "sorted() of 400,000 floats (C)",
    "collect": "gc.collect() over 300,000 objects (C)",
}
RING = {"alone": "push + pop, one thread", "across": "item between two busy threads",
        "trip_p50": "echo between two sleeping threads, p50"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Section:
    """One table. `key` names its text and its picture."""

    key: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Duel:
    """One figure of both builds, less of it being better."""

    what: str
    free: float
    gil: float
    shown: str  # both, with units
    clear: float = CLEAR

    @property
    def winner(self) -> Build | None:
        """None when neither is clearly better."""
        if self.free > self.clear * self.gil:
            return "gil"
        return "free" if self.gil > self.clear * self.free else None


def pick(
    records: Iterable[Record], scenario: str, case: str | None = None, build: Build | None = None
) -> list[Record]:
    """The runs of a scenario; of one case or one build only, when these are given."""
    return [
        record
        for record in records
        if record.scenario == scenario
        and case in (None, record.case)
        and build in (None, record.build)
    ]


def ms(value: float, top: float = 100.0) -> str:
    """Milliseconds as they are read; `top` is where the histogram ends."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return f"> {top:g}"
    return f"{value:.2f}" if value < 9.95 else f"{value:.0f}"


def over(late: Lateness | None, limit: float = FRAME_MS) -> float:
    """The share that was later than the first bound at or above `limit` ms."""
    if late is None or not late.count:
        return math.nan
    at = next(i for i, bound in enumerate(late.bounds) if bound >= limit)
    return late.above()[at]


def mean(records: Sequence[Record], figure: str) -> float:
    """The median of a figure over some runs; nan when none has it."""
    found = [record.figures[figure] for record in records if figure in record.figures]
    return median(found) if found else math.nan


def silence(records: Sequence[Record]) -> float:
    """Milliseconds for which a caller's sound had run dry, of each minute of answer."""
    minutes = sum(record.figures.get("wanted", 0) for record in records) / 3_000
    total = sum(record.figures.get("phone_silence_ms", 0) for record in records)
    return total / minutes if minutes else math.nan


def _tail(records: Sequence[Record], key: str, top: float) -> tuple[str, ...]:
    late = merged(records, key)
    if late is None:
        return ("-",) * 4
    share = over(late)
    return (
        *(ms(late.quantile(q), top) for q in (0.5, 0.99, 0.999)),
        "-" if math.isnan(share) else f"{share:.2%}",
    )


def _control(records: Sequence[Record]) -> str:
    control = merged(records, "control")
    return "-" if control is None else ms(control.quantile(0.999))


def _whole(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0f}"


def _row(name: str, runs: Sequence[Record], key: str = "frame", top: float = 100.0) -> list[str]:
    dry = silence(runs)
    return [
        name,
        NAMES[runs[0].build],
        *_tail(runs, key, top),
        _whole(dry),
        _whole(mean(runs, "response_p95")),
        _control(runs),
    ]


_LATE = ("build", "p50", "p99", "p99.9", "over\n20 ms", "silence\nms/min", "response\np95",
         "control\np99.9")  # fmt: skip


def sabotage(records: Sequence[Record]) -> Section:
    rows = [
        tuple(_row(TITLES[case], runs))
        for case in SABOTAGE
        for build in BUILDS
        if (runs := pick(records, "sabotage", case, build))
    ]
    calls = max((record.calls for record in pick(records, "sabotage")), default=0)
    name = f"Frame lateness in ms, {calls} calls, beside a worker thread that does this"
    return Section("sabotage", name, ("saboteur", *_LATE), tuple(rows))


def calm(records: Sequence[Record]) -> Section:
    rows = []
    for calls in sorted({record.calls for record in pick(records, "calm")}):
        for build in BUILDS:
            for run in pick(records, "calm", str(calls), build):
                single = pick(records, "calm", "1", build)
                problems = ", ".join(broken(run, single[0])) if single else ""
                cpu = mean([run], "cpu_percent_per_call") * calls
                rows.append((*_row(str(calls), [run]), _whole(cpu), problems or "kept"))
    headings = ("calls", *_LATE, "% of\na core", "service\nlevel")
    name = "Frame lateness in ms, so many calls and nothing else"
    return Section("calm", name, headings, tuple(rows))


def asr(records: Sequence[Record]) -> Section:
    rows = []
    for case, (build, *_) in PLACEMENTS.items():
        if runs := pick(records, "asr", case, build):
            row = _row(case, runs)
            row[1] = "on" if runs[0].gil[1] else "off"
            rows.append((*row[:7], _whole(mean(runs, "response_p50")), *row[7:]))
    headings = ("recogniser", "GIL", *_LATE[1:6], "response\np50", *_LATE[6:])
    return Section(
        "asr", "Frame lateness in ms while Whisper recognises others", headings, tuple(rows)
    )


def asyncio(records: Sequence[Record]) -> Section:
    rows = []
    for case in SABOTAGE:
        for style in ("tutorial", "careful"):
            for build in BUILDS:
                if runs := pick(records, "asyncio", f"{style}, {case}", build):
                    name = f"{TITLES[case]}: asyncio, {style}"
                    rows.append(tuple(_row(name, runs, "phone", 5_000)))
        if pick(records, "asyncio", f"tutorial, {case}"):
            for build in BUILDS:
                if runs := pick(records, "sabotage", case, build):
                    rows.append(tuple(_row(f"{TITLES[case]}: Threadline", runs, "phone", 5_000)))
    headings = ("beside it, and the server", *_LATE)
    return Section("asyncio", "Lateness at the phone in ms", headings, tuple(rows))


def alone(records: Sequence[Record]) -> Section:
    rows = []
    for duel in _alone(records):
        ratio = duel.free / duel.gil
        rows.append((duel.what, *duel.shown.split(" against "), f"{ratio:.2f}x"))
    headings = ("", NAMES["free"], NAMES["gil"], "ratio")
    return Section("alone", "Costs without calls (less is better)", headings, tuple(rows))


def sections(records: Sequence[Record]) -> list[Section]:
    """All tables that have a row."""
    made = (calm(records), sabotage(records), asr(records), asyncio(records), alone(records))
    return [one for one in made if one.rows]


# -- who is better at what ---------------------------------------------------------------------


def _alone(records: Sequence[Record]) -> list[Duel]:
    found = []
    free, gil = (pick(records, "work", build=build) for build in BUILDS)
    for name, text in WORK.items():
        a, b = mean(free, name), mean(gil, name)
        if not math.isnan(a + b):
            shown = f"{a:.1f} ms against {b:.1f} ms"
            found.append(Duel(text, a, b, shown, CLEAR_CPU))
    free, gil = (pick(records, "ring", build=build) for build in BUILDS)
    for contender in ("EventRing", "AudioRing (160)", "queue.SimpleQueue"):
        for figure, text in RING.items():
            a, b = (mean(runs, f"{contender}.{figure}") for runs in (free, gil))
            if not math.isnan(a + b):
                shown = f"{a:,.0f} ns against {b:,.0f} ns"
                clear = CLEAR_CPU if figure == "alone" else CLEAR_RING
                found.append(Duel(f"{contender}: {text}", a, b, shown, clear))
    return found


def duels(records: Sequence[Record]) -> list[Duel]:
    """Every figure that says something about the GIL."""
    found = []
    for case in SABOTAGE:
        free, gil = (pick(records, "sabotage", case, build) for build in BUILDS)
        if free and gil:
            found.append(_late(f"frame lateness beside {TITLES[case]}", free, gil))
            a, b = mean(free, "response_p95"), mean(gil, "response_p95")
            shown = f"p95 {a:.0f} ms against {b:.0f} ms"
            response = Duel(f"response beside {TITLES[case]}", a, b, shown)
            if response.winner:
                found.append(response)
    free, gil = (pick(records, "sabotage", "none", build) for build in BUILDS)
    a, b = (mean(runs, "cpu_percent_per_call") for runs in (free, gil))
    if not math.isnan(a + b):
        shown = f"{a:.2f} % of a core against {b:.2f} %"
        found.append(Duel("processor time of one call", a, b, shown, CLEAR_CPU))
    return found + _alone(records)


def _late(what: str, free: Sequence[Record], gil: Sequence[Record]) -> Duel:
    """By what callers missed, where they missed anything; else by p99.9, if anybody is late."""
    a, b = (merged(runs, "frame") for runs in (free, gil))
    assert a is not None, "every run of sabotage has frames"
    assert b is not None, "every run of sabotage has frames"
    x, y = a.quantile(0.999), b.quantile(0.999)
    shown = f"p99.9 {ms(x)} ms against {ms(y)} ms"
    missed = silence(free), silence(gil)
    if max(missed) >= HEARD_MS:
        shown += f", silence {missed[0]:,.0f} against {missed[1]:,.0f} ms in a minute"
        x, y = missed
    else:  # what stays within this is what nobody hears, or what a bare timer had as well
        floor = max(_allowed(free), _allowed(gil))
        x, y = max(x, floor), max(y, floor)
    return Duel(what, x, y, shown)


def _allowed(runs: Sequence[Record]) -> float:
    control = merged(runs, "control")
    return LIMIT_MS if control is None else max(LIMIT_MS, control.quantile(0.999))


def most_calls(records: Sequence[Record], build: Build) -> tuple[int, int]:
    """The most calls that kept the service level, and the next step, which did not; 0: none."""
    single = pick(records, "calm", "1", build)
    kept = 0
    for calls in sorted({record.calls for record in pick(records, "calm", build=build)}):
        runs = pick(records, "calm", str(calls), build)
        if all(broken(run, single[0]) for run in runs):
            return kept, calls
        kept = calls
    return kept, 0
