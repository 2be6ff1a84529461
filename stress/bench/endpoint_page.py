"""docs/endpointing.md and its picture, written anew from the measurement: `--page`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from threadline.config import Endpoint, Vad
from threadline.listening.endpoint import decide

from ..compare.plots import style
from . import pauses as sounds
from .pauses import ENDS, PROBES, Kind, Pause
from .turn_ends import Outcome, Way, outcome, sound, sound_and_words, timer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TIMERS = (200, 300, 416, 500, 600, 800, 1000, 1200, 1400, 1600)  # ms
THRESHOLDS = (0.05, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
PATIENCES = (800, 1000, 1200, 1500)
KINDS: tuple[Kind, ...] = ("inside", "dictating", "broken off", "between")

_INK, _SOFT, _GRID = "#1f2933", "#7b8794", "#e4e7eb"
_TIMER, _SOUND, _WORDS = "#868e96", "#d9480f", "#0b7285"

_HEAD = """\
# When a turn is over

Written by `./justw bench endpoint --page`. A caller who pauses in the middle of a sentence must not
be cut off; one who has finished should not have to wait. This page is the measurement behind the
defaults of `[endpoint]` and `vad.probe_ms`.

## What was measured

The prompts of Debian's asterisk-core-sounds-en-wav of up to 8 s, read by one professional speaker,
at 8 kHz through mu-law, with a little line noise. Pauses were made by cutting a prompt at the
boundary of two words (Whisper's word times, moved to the quietest 10 ms nearby) and putting in
{shortest} to {longest} ms of the recording's own room noise, as many short ones as long ones.
Telephone numbers (3-3-4) and spellings (3-3) were put together from single recorded digits and
letters, with such pauses between the groups. Silero and the product's own state machine find the
pauses; Smart Turn judges each after {probe} ms of silence, and Whisper (base) writes what was said
up to there.

| pauses | | |
| --- | ---: | --- |
{counts}

A *false cut-off* is a pause that the turn would not have outlived. The *wait* is from the last
sound of a prompt to the decision: the silence that is asked for, in whole windows of 32 ms.
*As recorded*: of the prompts of 2 s and more, with no pause put in, how many became two turns.

## The curve

![False cut-offs against waiting time](endpointing.png)

*Silence*: a timer alone. *Sound*: Smart Turn, {complete} ms when it says complete, {patient} ms
when not; the points of a curve are its thresholds. *Sound and words*: the same with the rules of
`listening/endpoint.py` on the text.

"""

_LIMITS = """\
## What this does not show

- One speaker, read speech, clean recordings. A cut prompt lacks what people do when they hesitate:
  the drawn-out vowel, the "um". Smart Turn was trained on those; here it is judged without.
- Pauses were drawn up to {longest} ms and no longer: that `patient_ms` = {patient} cuts off few of
  them says little about longer ones. Compare the ways with one another, not with the world.
- Nothing in these prompts tells a sentence that ends from a turn that ends: these are speeches,
  not answers in a conversation, which are shorter.
- The words count here as if they came in time. A streaming recogniser's do. Whisper's, on this
  machine, come after `complete_ms`: they can still lengthen a pause that sounded unfinished.
"""


_SAYS: dict[Kind, str] = {
    "inside": "within a sentence",
    "dictating": "between the groups of a number or a spelling",
    "broken off": 'after a prompt that is only half a sentence ("To leave the conference...")',
    "between": "between two sentences of one prompt",
    "end": "at the end of a prompt of 2 s and more, with or without a pause in it",
    "short": "at the end of a shorter one",
    "dictated": "at the end of a number or a spelling",
}

_HEADINGS = (
    *(f"cut off: {kind}" for kind in KINDS),
    "as recorded, in two",
    *("wait: mean", "p50", "p95", "short, mean", "dictated, p50"),
)


def write(folder: Path, pauses: Sequence[Pause], config: Endpoint, vad: Vad) -> None:
    """Write ``endpointing.md`` and ``endpointing.png`` into the folder."""
    probe = _probe(vad)
    _draw(folder / "endpointing.png", pauses, config, probe)
    counts = Counter(pause.kind for pause in pauses)
    text = _HEAD.format(
        shortest=sounds.SHORTEST,
        longest=sounds.LONGEST,
        probe=probe,
        complete=config.complete_ms,
        patient=config.patient_ms,
        counts="\n".join(f"| {kind} | {counts[kind]} | {_SAYS[kind]} |" for kind in _SAYS),
    )
    parts = [text, _ways(pauses, config, probe), _choices(pauses, config, probe)]
    parts.append(_LIMITS.format(longest=sounds.LONGEST, patient=config.patient_ms))
    (folder / "endpointing.md").write_text("\n".join(parts), "utf-8")


def table(pauses: Sequence[Pause], config: Endpoint, vad: Vad) -> Table:
    """For the terminal."""
    made = Table("", *_HEADINGS, box=None)
    for name, way in _rows(config, _probe(vad)):
        mine = name.startswith("**")
        made.add_row(name.strip("*"), *_cells(outcome(pauses, way)), style="bold" if mine else "")
    return made


def _probe(vad: Vad) -> int:
    """The judgement that the server would have: the next one, if not that very one."""
    return next((probe for probe in PROBES if probe >= vad.probe_ms), PROBES[-1])


def _rows(config: Endpoint, probe: int) -> list[tuple[str, Way]]:
    rows: list[tuple[str, Way]] = [(f"silence, {ms} ms", timer(ms)) for ms in TIMERS]
    rows.append(("sound", sound(config, probe)))
    rows.append(("**sound and words: the defaults**", sound_and_words(config, probe)))
    return rows


def _cells(came: Outcome) -> list[str]:
    cells = [f"{came.cut.get(kind, 0):.0%}" for kind in KINDS]
    cells += [
        f"{came.split:.0%}",
        f"{came.mean():.0f}",
        f"{came.wait(0.5):.0f}",
        f"{came.wait(0.95):.0f}",
    ]
    return [*cells, f"{came.mean('short'):.0f}", f"{came.wait(0.5, 'dictated'):.0f}"]


def _ways(pauses: Sequence[Pause], config: Endpoint, probe: int) -> str:
    lines = ["| | " + " | ".join(_HEADINGS) + " |", "| --- |" + " ---: |" * len(_HEADINGS)]
    for name, way in _rows(config, probe):
        lines.append(f"| {name} | " + " | ".join(_cells(outcome(pauses, way))) + " |")
    return "\n".join(lines) + "\n"


def _choices(pauses: Sequence[Pause], config: Endpoint, probe: int) -> str:
    return "\n".join(
        [
            "## The choices\n",
            _threshold(pauses, config, probe),
            _silences(pauses, config, probe),
            _probes(pauses, config, probe),
            _rules(pauses, config, probe),
        ]
    )


def _threshold(pauses: Sequence[Pause], config: Endpoint, probe: int) -> str:
    """False cut-offs within a sentence, and the mean wait, for each threshold and patience."""
    text = (
        f"**`threshold` = {config.threshold:g}, `patient_ms` = {config.patient_ms}.** What is cut\n"
        "off within a sentence, and the mean wait, by both. A higher threshold and a longer\n"
        "patience buy the same thing, and patience is the cheaper one: only the turns that are\n"
        "misjudged pay for it, while a higher threshold makes more of them.\n\n"
    )
    shown = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9)
    lines = ["| patience \\ threshold | " + " | ".join(f"{one:g}" for one in shown) + " |"]
    lines.append("| --- |" + " ---: |" * len(shown))
    for patience in PATIENCES:
        cells = []
        for threshold in shown:
            these = replace(config, patient_ms=patience, threshold=threshold)
            came = outcome(pauses, sound_and_words(these, probe))
            cell = f"{came.cut['inside']:.0%}, {came.mean():.0f} ms"
            mine = (patience, threshold) == (config.patient_ms, config.threshold)
            cells.append(f"**{cell}**" if mine else cell)
        lines.append(f"| {patience} ms | " + " | ".join(cells) + " |")
    return text + "\n".join(lines) + "\n"


def _silences(pauses: Sequence[Pause], config: Endpoint, probe: int) -> str:
    lines = [
        f"**`complete_ms` = {config.complete_ms}.** Every caller waits so long, however sure the\n"
        "judgement. A short one is paid for between sentences: speakers leave 200 to 400 ms\n"
        "there, and what they have said by then is complete. A caller who goes on before the\n"
        "answer is heard notices nothing of it.\n",
        "| silence | inside | between | as recorded, in two | mean wait |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for silence in sorted({200, 264, 328, 392, config.complete_ms}):
        came = outcome(pauses, sound_and_words(replace(config, complete_ms=silence), probe))
        shares = (came.cut["inside"], came.cut["between"], came.split)
        cells = " | ".join(f"{share:.0%}" for share in shares)
        lines.append(f"| {silence} ms | {cells} | {came.mean():.0f} ms |")
    dictating = []
    for silence in (1_000, 1_200, 1_500, 2_000):
        these = replace(config, dictation_ms=silence)
        came = outcome(pauses, sound_and_words(these, probe))
        dictating.append(f"{silence} ms cuts off {came.cut['dictating']:.0%}")
    lines.append(
        f"\n**`dictation_ms` = {config.dictation_ms}.** Of the pauses within a number or a\n"
        f"spelling {', '.join(dictating)}.\n"
        "The default leaves room for longer ones than were made here. A number that is as long as\n"
        "such numbers are is not held to it.\n"
    )
    return "\n".join(lines)


def _probes(pauses: Sequence[Pause], config: Endpoint, probe: int) -> str:
    lines = [
        f"**`vad.probe_ms` = {probe}.** Smart Turn was trained on turns that end in some silence.\n"
        "What it is worth after how much of it: how often a finished prompt is given a higher\n"
        "probability than a pause within a sentence (AUC), and the shares that reach the\n"
        "threshold.\n",
        "| silence | AUC | finished | within a sentence | dictating |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for silence in PROBES:
        known = {
            kind: [one.chances[silence] for one in pauses if one.kind == kind]
            for kind in ("end", "inside", "dictating")
        }
        pairs = [end > stop for end in known["end"] for stop in known["inside"]]
        shares = [sum(p >= config.threshold for p in some) / len(some) for some in known.values()]
        lines.append(
            f"| {silence} ms | {sum(pairs) / len(pairs):.3f} | "
            + " | ".join(f"{share:.0%}" for share in shares)
            + " |"
        )
    lines.append(
        "\nThe silence hardly matters. So it is asked early, and its answer, with some\n"
        "recognisers the words too, is there before `complete_ms`.\n"
    )
    return "\n".join(lines)


def _rules(pauses: Sequence[Pause], config: Endpoint, probe: int) -> str:
    """Which rule decided how often, and how often it was right."""
    finished: Counter[str] = Counter()
    going: Counter[str] = Counter()
    for pause in pauses:
        why = decide(config, pause.chances[probe], pause.text).why
        (finished if pause.kind in ENDS else going)[why] += 1
    lines = [
        "**The rules on the words.** What decided, at how many true ends and in how many pauses\n"
        "after which speech went on (those between two sentences and broken off included):\n",
        "| | at an end | in a pause |",
        "| --- | ---: | ---: |",
    ]
    names = sorted({*finished, *going}, key=lambda why: -(finished[why] + going[why]))
    lines += [f"| {why} | {finished[why]} | {going[why]} |" for why in names]
    return "\n".join(lines) + "\n"


def _draw(path: Path, pauses: Sequence[Pause], config: Endpoint, probe: int) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(style()):
        figure = Figure(figsize=(11, 4.2), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2, sharex=True)
        _panel(left, pauses, config, probe, "inside")
        left.set_title("Pauses within a sentence: % cut off")
        _panel(right, pauses, config, probe, "dictating")
        right.set_title("Pauses within a number or a spelling: % cut off")
        left.legend(frameon=False, loc="upper right")
        figure.supxlabel("ms from the last sound of a finished prompt to the decision, mean",
                         color=_SOFT, fontsize=9)  # fmt: skip
        figure.savefig(path, dpi=110)


def _panel(axes: Axes, pauses: Sequence[Pause], config: Endpoint, probe: int, kind: Kind) -> None:
    came = [outcome(pauses, timer(ms)) for ms in TIMERS]
    _curve(axes, came, kind, _TIMER, "silence", [f"{ms}" for ms in TIMERS])
    for name, colour, way in (
        ("sound", _SOUND, sound),
        ("sound and words", _WORDS, sound_and_words),
    ):
        came = [outcome(pauses, way(replace(config, threshold=t), probe)) for t in THRESHOLDS]
        labels = [f"{t:g}" for t in THRESHOLDS] if way is sound else ()  # the same, point by point
        _curve(axes, came, kind, colour, name, labels)
    mine = outcome(pauses, sound_and_words(config, probe))
    axes.plot(mine.mean(), 100 * mine.cut[kind], "o", ms=13, mfc="none", mec=_INK, mew=1.3,
              label="the defaults")  # fmt: skip
    axes.set_ylim(-6, 102)
    axes.set_xlim(0, 1_650)
    axes.grid(color=_GRID, lw=0.7)


def _curve(
    axes: Axes, came: Sequence[Outcome], kind: Kind, colour: str, name: str, labels: Sequence[str]
) -> None:
    points = [(one.mean(), 100 * one.cut[kind]) for one in came]
    axes.plot(*zip(*points, strict=True), "-o", color=colour, ms=3.5, lw=1.8, label=name)
    for at, label in zip(points, labels, strict=False):
        axes.annotate(label, at, (4, 4), textcoords="offset points", fontsize=7, color=colour)
