"""A picture of one call: who spoke when, where an interruption cut, what each answer waited for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..audio import mulaw
from ..audio.mulaw import RATE
from ..errors import ConfigError
from .callreport import CallReport, ServerTurn, Turn
from .turns import STAGES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FORMATS = (".png", ".svg", ".pdf")
_INK, _SOFT, _GRID = "#1f2933", "#7b8794", "#e4e7eb"
_CALLER, _AGENT, _CUT = "#0b7285", "#d9730d", "#d6264f"
_STAGES = ("#364fc7", "#4c6ef5", "#15aabf", "#12b886", "#82c91e", "#fab005", "#be4bdb")
_LINE, _ALL = "line and phone buffer", "end of speech to answer"
_REST = "#ced4da"  # between what the server's stages explain and what the phone measured
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _SOFT,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "svg.hashsalt": "call",  # the same call gives the same file
}
_LANE = {"caller": 1.0, "agent": -1.0}  # the lanes' middles
_COLUMNS = 2400  # of the envelope over the whole call
_QUIET, _LOUD = -48.0, 0.0  # dBFS drawn as nothing and as a full lane
_ROW = 0.62  # inches to a turn's bar and words
_INSTANTS = {"asked": ("model asked", "v", _INK), "voice_asked": ("voice asked", "v", "white")}
_WORDS = 72  # letters of a turn's words that fit beside its bar


def draw(report: CallReport, path: Path) -> None:
    """Write the picture; the suffix of ``path`` says the format.

    Raises ConfigError without matplotlib, for an unknown suffix, and when ``path`` cannot be
    written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"{path}: a picture is one of {', '.join(_FORMATS)}")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ConfigError("a picture needs matplotlib: pip install 'threadline[dev]'") from error
    turns = [turn for turn in report.turns if turn.number]
    rows = max(1, len(turns))
    height = 3.3 + _ROW * rows + 0.9
    with rc_context(_STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12)
        figure = Figure(figsize=(14, height), layout=layout, facecolor="white")
        talk, falls = figure.subplots(2, 1, height_ratios=[3.3, _ROW * rows + 0.6])
        _talk(talk, report)
        _falls(falls, turns)
        try:
            figure.savefig(path, dpi=150)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written ({error.strerror or error})") from error


def envelope(
    codes: NDArray[np.uint8], columns: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Loudness to draw: (seconds[n], height[n] in 0..1, from dB), n <= ``columns``."""
    size = max(1, -(-len(codes) // columns))
    if not len(codes):
        return np.zeros(0), np.zeros(0)
    starts = np.arange(0, len(codes), size)
    peaks = np.maximum.reduceat(np.abs(mulaw.DECODE.astype(np.int32))[codes], starts)
    level = 20 * np.log10(np.maximum(peaks, 1) / 32_768)
    return (starts + size / 2) / RATE, np.clip((level - _QUIET) / (_LOUD - _QUIET), 0, 1) ** 1.6


def _talk(axes: Axes, report: CallReport) -> None:
    record = report.record
    for name, codes, colour in (
        ("caller", record.caller, _CALLER),
        ("agent", record.agent, _AGENT),
    ):
        at, height = envelope(codes, _COLUMNS)
        middle = _LANE[name]
        axes.axhline(middle, color=colour, lw=0.6, alpha=0.5)
        axes.fill_between(at, middle - 0.68 * height, middle + 0.68 * height, color=colour, lw=0)
    for turn in report.turns:
        _spans(axes, turn)
        if turn.response_ms is not None and turn.reply_start is not None:
            _wait(axes, turn.speech_end, turn.speech_end + turn.response_ms / 1000)
        if turn.unanswered:
            axes.text(turn.speech_end, -0.05, " no answer", color=_CUT, va="center", weight="bold")
        if turn.silenced is not None:
            _cut(axes, turn.onset, turn.silenced)
    for gap in report.underruns:
        axes.plot([gap.start / RATE], [_LANE["agent"] - 0.8], "v", color=_CUT, ms=6)
    axes.set_xlim(0, max(record.seconds, 1.0))
    axes.set_ylim(-2.0, 2.0)
    axes.set_yticks(list(_LANE.values()), list(_LANE), fontsize=11, weight="bold")
    for label, colour in zip(axes.get_yticklabels(), (_CALLER, _AGENT), strict=True):
        label.set_color(colour)
    _bare(axes)
    axes.grid(axis="x", color=_GRID, lw=0.7)
    axes.set_xlabel("seconds of the call")
    dry = len(report.underruns)
    late = (
        f", latest frame {report.lateness_ms.max():.1f} ms late" if len(report.lateness_ms) else ""
    )
    facts = f"{record.seconds:.1f} s, {len(record.arrivals.at)} agent frames, {dry} underruns{late}"
    axes.set_title("The call as the caller heard it", loc="left", weight="bold", fontsize=12)
    axes.set_title(f"{facts}; {record.ended}", loc="right", color=_SOFT, fontsize=9)


def _spans(axes: Axes, turn: Turn) -> None:
    """Shade what was spoken; number the clips."""
    boxes = []
    if turn.speaks:
        boxes.append((turn.onset, turn.speech_end, _LANE["caller"], _CALLER))
        label = f"{turn.number}  {turn.clip}"
        axes.text(
            turn.onset + 0.04, 1.86, label, color=_CALLER, va="top", fontsize=8.5, clip_on=True
        )
    if turn.reply_start is not None and turn.reply_end is not None:
        boxes.append((turn.reply_start, turn.reply_end, _LANE["agent"], _AGENT))
        if not turn.number:
            axes.text(turn.reply_start, -1.86, "greeting", color=_AGENT, fontsize=8.5)
    for start, end, middle, colour in boxes:
        axes.fill_between(
            [start, end], middle - 0.68, middle + 0.68, color=colour, alpha=0.12, lw=0
        )


def _wait(axes: Axes, start: float, end: float) -> None:
    """The caller's wait, as an arrow between the lanes."""
    arrow = {"arrowstyle": "-|>", "color": _INK, "lw": 1.1, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (end, -0.3), (start, 0.3), arrowprops=arrow)
    axes.text(end + 0.06, 0.02, f"{(end - start) * 1000:.0f} ms", va="center", weight="bold")


def _cut(axes: Axes, onset: float, silenced: float) -> None:
    """An interruption: from the caller's onset to the agent's last audible sample."""
    axes.axvline(onset, color=_CUT, lw=1.1, ls=(0, (4, 2)))
    axes.axvspan(onset, silenced, color=_CUT, alpha=0.25, lw=0)
    axes.plot([silenced, silenced], [-1.7, -0.3], color=_CUT, lw=1.8)
    text = f"interrupted: silent\nafter {(silenced - onset) * 1000:.0f} ms"
    axes.text(
        silenced + 0.06,
        -1.36,
        text,
        color=_CUT,
        va="center",
        weight="bold",
        fontsize=8.5,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
    )


def _falls(axes: Axes, turns: Sequence[Turn]) -> None:
    """One row for each turn: its response time, split by stage where the server told."""
    stages = list(dict.fromkeys([*STAGES, *(name for turn in turns for name in _known(turn))]))
    colours = {name: _STAGES[at % len(_STAGES)] for at, name in enumerate(stages)}
    longest = max([100.0, *(_length(turn) for turn in turns)])
    shown: set[str] = set()
    for row, turn in enumerate(turns):
        at = 0.0
        parts = dict(_known(turn))
        rest = (turn.response_ms or 0.0) - sum(parts.values())
        if rest > 0.5:
            parts[_LINE if parts else _ALL] = rest
        for name, width in parts.items():
            label = "_" if name in shown else name
            shown.add(name)
            axes.barh(row, width, 0.56, at, color=colours.get(name, _REST), label=label, lw=0)
            if width > longest * 0.035:
                light = _INK if name not in colours else "white"
                axes.text(
                    at + width / 2, row, f"{width:.0f}", color=light, ha="center", va="center"
                )
            at += width
        _asked(axes, row, turn, shown)
        _beside(axes, row, max(at, turn.response_ms or 0.0) + longest * 0.01, longest * 1.13, turn)
    axes.set_ylim(len(turns) - 0.4, -0.6)
    axes.set_yticks(range(len(turns)), [f"{t.number}  {t.clip}"[:28] for t in turns])
    axes.set_xlim(0, longest * 1.75)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= longest * 1.05])
    axes.set_xlabel("ms after the caller's last sound", x=0.0, ha="left")
    axes.set_title("What each answer waited for", loc="left", weight="bold", fontsize=12)
    _bare(axes)
    axes.grid(axis="x", color=_GRID, lw=0.7)
    if shown:
        _legend(axes, stages)


def _legend(axes: Axes, stages: Sequence[str]) -> None:
    """One row, the signs first, then the stages in the order in which they follow one another."""
    order = {name: at for at, name in enumerate([*stages, _ALL, _LINE])}
    signs = zip(*axes.get_legend_handles_labels(), strict=True)
    handles, labels = zip(*sorted(signs, key=lambda sign: order.get(sign[1], -1)), strict=True)
    axes.legend(handles, labels, loc="lower right", bbox_to_anchor=(1, 1), ncols=12,
                columnspacing=1.2, frameon=False, fontsize=8.5, handlelength=1, handleheight=1,
                borderaxespad=0.2)  # fmt: skip


def _asked(axes: Axes, row: int, turn: Turn, shown: set[str]) -> None:
    """Ticks above the bar, where the model and the voice were asked: inside of an earlier stage
    when the answer was begun before the turn was known to be over."""
    for name, (label, sign, colour) in _INSTANTS.items():
        at = turn.server.at_ms.get(name) if turn.server else None
        if at is None:
            continue
        axes.plot([max(0.0, at)], [row - 0.34], sign, color=colour, markeredgecolor=_INK, ms=5,
                  label="_" if label in shown else label, clip_on=False)  # fmt: skip
        shown.add(label)


def _beside(axes: Axes, row: int, at: float, words_at: float, turn: Turn) -> None:
    """The total, and the words and what became of them where they are known."""
    total = "" if turn.response_ms is None else f"{turn.response_ms:.0f} ms"
    missing = "no answer" if turn.unanswered else "spoke too early" if turn.early else ""
    axes.text(at, row, total or missing, va="center", weight="bold",
              color=_INK if total else _CUT)  # fmt: skip
    if turn.server:
        words = f"“{_short(turn.server.heard)}”\n→ {_short(turn.server.said)}"
        if facts := _facts(turn, turn.server):
            words += f"\n{_short(', '.join(facts))}"
        axes.text(words_at, row, words, va="center", fontsize=8, color=_SOFT, linespacing=1.4)


def _facts(turn: Turn, server: ServerTurn) -> list[str]:
    """What else became of the answer, in a few words each."""
    facts = [server.why] if server.why else []
    if server.early:
        facts.append("asked early")
    if turn.filler_ms is not None:
        facts.append(f"filler after {turn.filler_ms:.0f} ms")
    if server.pauses:
        facts.append("held up once" if server.pauses == 1 else f"held up {server.pauses} times")
    if server.interrupted:
        heard, lost = len(server.played.split()), len(server.unplayed.split())
        facts.append(f"{heard} of {heard + lost} words heard")
    return facts


def _known(turn: Turn) -> dict[str, float]:
    """The server's stages of a turn, those that took any time."""
    stages = turn.server.stages_ms if turn.server else {}
    return {name: ms for name, ms in stages.items() if ms > 0}


def _length(turn: Turn) -> float:
    return max(turn.response_ms or 0.0, sum(_known(turn).values()))


def _short(text: str) -> str:
    return text if len(text) <= _WORDS else text[: _WORDS - 1].rstrip() + "…"


def _bare(axes: Axes) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_axisbelow(True)
