"""docs/compare.md, written anew from the records: no figure in it comes from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.table import Table

from . import plots
from .figures import (
    CLEAR,
    CLEAR_CPU,
    CLEAR_RING,
    Duel,
    Section,
    duels,
    most_calls,
    ms,
    pick,
    sections,
    silence,
)
from .record import BUILDS, NAMES, Record, Setting
from .scenarios import LIMIT_MS

_HEAD = """\
# What the GIL costs a voice server, and what it does not

The same commit on CPython 3.14 from the same source with the same flags, built with and without
the GIL, in turn. Everything below was written by one command, `./justw compare{flag}`. Each run is
a server process of its own with real sockets, VAD and threads, called over the Twilio protocol.
The recogniser and the voice are stand-ins that need no time, except where Whisper is named.
"""

_TEXTS = {
    "calm": """\
## Calm

Calls that are spoken to, more and more of them, until the service level breaks twice at one
number: p99.9 of frame lateness within 5 ms (or what the bare timer had beside it, if that was
more), no underrun in the server, p95 of the response within 100 ms of one call's. Frame lateness
is the time from a frame's deadline to its socket; the phones share the cores with the server.
`control` is the bare timer's lateness beside these runs.

On cores that other programs use too, the GIL build can be late with nothing wrong in it: a thread
that holds the GIL may lose its core to another program, and the clock thread, whatever its
priority, then waits for both.
""",
    "sabotage": """\
## Sabotage

What else an application does in the same process, in a worker thread, one at a time and
together: a *PII guard in pure Python* that needs 80 to 200 ms for a chunk, every 300 ms; a *log
flood* of 5,000 records a second (the log thread takes what it can and counts the rest); twice a
second *json.loads* of 5 MB, *sorted()* of 400,000 floats, or *gc.collect()* with 300,000 young
objects; and ten times a second *a stop-the-world*. The work has the same size on both builds.
`silence`: for how long a caller's sound had run dry, behind the phone's 40 ms buffer, in a minute
of answer.

A stop-the-world waits until every thread has reached a safe point, and a long C call reaches none
before its end. So a stop or a collection *beside* a long sort or parse costs the free-threaded
build what the GIL costs the other one: compare the last two pairs of rows.
""",
    "asr": """\
## The recogniser: process or thread

Whisper (base, int8, one thread) recognises some callers while others are spoken to. Its
extension module turns the GIL on when it is imported, unless `PYTHON_GIL=0` forbids it.
""",
    "asyncio": """\
## Everything on one asyncio loop

What most voice servers do today (`stress/compare/asyncio_baseline.py`), with the same client and
the same saboteurs. *tutorial*: the VAD inline in the receive coroutine, `asyncio.sleep(0.02)`
after each frame (so its clock drifts even when nothing else runs), other work inline. *careful*:
uvloop, absolute deadlines, real-time priority, other work in `asyncio.to_thread`. Lateness is
measured at the phone here, since that is the only place where all three can be measured; a
sound that has run dry starts a new 20 ms grid, so `silence` belongs to the picture. Callers hang up
after a second of silence; what they then missed counts as later than everything, and as silence.
""",
    "alone": """\
## Costs without calls

Processor time of one piece of work in one thread, and what it takes to hand an item from thread
to thread (median of rounds). Here the free-threaded build pays for its locks and its atomic
reference counts.
""",
}


def write(folder: Path, records: Sequence[Record], setting: Setting) -> None:
    """Write ``compare.md`` and its pictures into the folder."""
    drawn = plots.draw(folder, records)
    parts = [_HEAD.format(flag=" --quick" if setting.mode == "quick" else "")]
    parts.append(_verdicts(records))
    for section in sections(records):
        parts.append(_TEXTS[section.key])
        if section.key in drawn:
            parts.append(f"![{section.title}](compare-{section.key}.png)\n")
        parts.append(_markdown(section))
    parts.append(_noise(records))
    parts.append(_setting(setting))
    (folder / "compare.md").write_text("\n".join(parts), "utf-8")


def table(section: Section) -> Table:
    """For the terminal."""
    made = Table(title=section.title, box=SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    for number, heading in enumerate(section.headings):
        made.add_column(heading, justify="right" if number > 1 else "left", no_wrap=True)
    for row in section.rows:
        made.add_row(*row)
    return made


def line(record: Record) -> str:
    """What came of one run, while the others go on."""
    text = f"{record.scenario}: {record.case}"
    late = record.lateness.get("frame") or record.lateness.get("phone")
    if late is not None:
        control = record.lateness["control"].quantile(0.999)
        text += f": p99.9 {ms(late.quantile(0.999))} ms (bare timer {ms(control)})"
        text += f", {silence([record]):.0f} ms/min silent"
    lost = record.figures.get("unanswered", 0)
    return f"{text}, {lost:.0f} turns unanswered" if lost else text


def _markdown(section: Section) -> str:
    headings = (heading.replace("\n", " ") for heading in section.headings)
    head = "| " + " | ".join(headings) + " |"
    rule = "| --- | --- |" + " ---: |" * (len(section.headings) - 2)
    rows = ["| " + " | ".join(row) + " |" for row in section.rows]
    return "\n".join([head, rule, *rows]) + "\n"


def _verdicts(records: Sequence[Record]) -> str:
    """Who is better at what, without a word of our own."""
    found = duels(records)
    lists = (
        ("Where free-threading wins", [d for d in found if d.winner == "free"]),
        ("Where free-threading loses", [d for d in found if d.winner == "gil"]),
        ("Where there is no clear difference", [d for d in found if d.winner is None]),
    )
    parts = [
        f"Figures are {NAMES['free']} against {NAMES['gil']}; less is better. `Beside`: while a "
        "worker thread of the server does that.\n"
    ]
    for heading, these in lists:
        parts.append(f"## {heading}\n\n" + _bullets(these))
    if pick(records, "calm"):
        parts.append(_held(records))
    return "\n".join(parts)


def _bullets(these: Sequence[Duel]) -> str:
    if not these:
        return "Nowhere in these runs.\n"
    return "".join(f"- {one.what}: {one.shown}\n" for one in these)


def _held(records: Sequence[Record]) -> str:
    parts = []
    for build in BUILDS:
        kept, lost = most_calls(records, build)
        end = f"broke at {lost}" if lost else "did not break"
        parts.append(f"{NAMES[build]} kept the service level with {kept} calls and {end}")
    return "With nothing else to do, " + "; ".join(parts) + ".\n"


def _noise(records: Sequence[Record]) -> str:
    """How far the machine itself may be believed."""
    tails = [r.lateness["control"].quantile(0.999) for r in records if "control" in r.lateness]
    loads = [load for record in records for load in record.load]
    text = "## Noise\n\n"
    if tails:
        text += (
            "Beside every run a bare timer woke every 5 ms in a process of its own, with real-time "
            f"priority and nothing behind it. Its p99.9 was {ms(min(tails))} ms in the quietest "
            f"run, {ms(median(tails))} in the middle one and {ms(max(tails))} in the worst: that "
            "much of any figure is the machine, which may hold a core back for tens of "
            "milliseconds. "
        )
    text += (
        f"The load average was between {min(loads):.1f} and {max(loads):.1f}, our own part "
        "included. A difference is called clear when one build is at least "
        f"{CLEAR:g} times as late and beyond both {LIMIT_MS:g} ms and the bare timer, "
        f"takes {CLEAR_RING:g} times as long between threads, or {CLEAR_CPU:g} times the processor "
        "time.\n"
    )
    odd = sorted({r.case for r in records if set(r.gil) != {r.build == "gil"}})
    told = f", but for: {'; '.join(odd)}" if odd else ""
    return text + (
        f"\nAt the start and at the end of every run the server said that the GIL was off on "
        f"{NAMES['free']} and on on {NAMES['gil']}{told}.\n"
    )


def _setting(setting: Setting) -> str:
    rows = [f"| {name} | {text} |" for name, text in setting.machine.items()]
    for build in BUILDS:
        rows += [
            f"| {NAMES[build]}: {name} | {text} |" for name, text in setting.builds[build].items()
        ]
    return "\n".join(
        [
            "## On what\n",
            f"Commit {setting.commit}, {setting.date}, {setting.mode} run.\n",
            "| | |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )
