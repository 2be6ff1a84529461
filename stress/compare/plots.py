"""The pictures of the page: how many frames were later than so and so many milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .figures import mean, most_calls, pick
from .record import BUILDS, NAMES, Build, Lateness, Record, merged
from .saboteurs import TITLES
from .scenarios import LIMIT_MS, PLACEMENTS, SABOTAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _SOFT, _GRID = "#1f2933", "#7b8794", "#e4e7eb"
_COLOURS: dict[Build, str] = {"free": "#0b7285", "gil": "#d9480f"}
_CONTROL = "#adb5bd"
_FLOOR = 2e-5  # of shares
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _SOFT,
    "axes.edgecolor": _GRID,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "lines.linewidth": 1.8,
    "svg.hashsalt": "compare",
}


def style() -> dict[Any, Any]:
    """The look of every picture in docs/."""
    return _STYLE


def draw(folder: Path, records: Sequence[Record]) -> list[str]:
    """Write ``compare-*.png``; returns the names of those there was something to draw for."""
    from matplotlib import rc_context

    made = []
    with rc_context(_STYLE):
        for name, paint in (
            ("calm", _calm),
            ("sabotage", _sabotage),
            ("asr", _asr),
            ("asyncio", _asyncio),
        ):
            figure = paint(records)
            if figure is not None:
                figure.savefig(folder / f"compare-{name}.png", dpi=110)
                made.append(name)
    return made


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _sabotage(records: Sequence[Record]) -> Figure | None:
    cases = [case for case in SABOTAGE if pick(records, "sabotage", case)]
    if not cases:
        return None
    figure = _figure(11, 2.7 * -(-len(cases) // 3))
    panels = figure.subplots(-(-len(cases) // 3), 3, sharex=True, sharey=True, squeeze=False)
    for axes, case in zip(panels.flat, cases, strict=False):
        _tail_axes(axes, 0.05, 100)
        axes.set_title(TITLES[case])
        _curve(axes, merged(pick(records, "sabotage", case), "control"), "bare timer", _CONTROL)
        for build in BUILDS:
            late = merged(pick(records, "sabotage", case, build), "frame")
            _curve(axes, late, NAMES[build], _COLOURS[build])
    for axes in panels.flat[len(cases) :]:
        axes.set_visible(False)
    panels[0, 0].legend(frameon=False, loc="upper right")
    calls = pick(records, "sabotage")[0].calls
    figure.supylabel("share of frames that were later", color=_SOFT, fontsize=9)
    figure.supxlabel("ms from a frame's deadline to its socket (scale ends at 100)", color=_SOFT,
                     fontsize=9)  # fmt: skip
    figure.suptitle(f"{calls} calls are spoken to; beside them, in a worker thread of the server:",
                    x=0.01, ha="left", weight="bold")  # fmt: skip
    return figure


def _calm(records: Sequence[Record]) -> Figure | None:
    if not pick(records, "calm"):
        return None
    figure = _figure(11, 3.6)
    late, response = figure.subplots(1, 2)
    late.axhline(LIMIT_MS, color=_INK, lw=0.8, ls=(0, (4, 3)))
    late.text(1, LIMIT_MS * 0.9, "service level", fontsize=8, color=_INK, va="top",
              ha="right", transform=late.get_yaxis_transform())  # fmt: skip
    for build in BUILDS:
        runs = pick(records, "calm", build=build)
        steps = sorted({run.calls for run in runs})
        colour, name = _COLOURS[build], NAMES[build]
        for key, shade, style in (("frame", colour, "-"), ("control", colour, ":")):
            tails = []
            for step in steps:
                again = [run.lateness[key] for run in runs if run.calls == step]
                tails.append(min(120.0, min(one.quantile(0.999) for one in again)))
            label = name if key == "frame" else f"bare timer beside {name}"
            late.plot(steps, tails, style, color=shade, label=label,
                      lw=1.8 if key == "frame" else 1.2, marker="o" if key == "frame" else "",
                      ms=4)  # fmt: skip
        p95 = [mean([run for run in runs if run.calls == step], "response_p95") for step in steps]
        response.plot(steps, p95, "-o", color=colour, ms=4, label=name)
        held, lost = most_calls(records, build)
        if lost:
            late.axvspan(held, lost, color=colour, alpha=0.08, lw=0)
    late.set_yscale("log")
    late.set_yticks([0.1, 0.3, 1, 3, 10, 30, 100], ["0.1", "0.3", "1", "3", "10", "30", "100"])
    late.minorticks_off()
    late.set_title("Frame lateness, p99.9 in ms (shaded: where the level broke)")
    response.set_title("Response at the phone, p95 in ms")
    response.set_ylim(0, 1.2 * response.get_ylim()[1])
    for axes in (late, response):
        axes.set_xlabel("calls at once")
        axes.set_xlim(0)
        axes.grid(color=_GRID, lw=0.7)
    late.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def _asr(records: Sequence[Record]) -> Figure | None:
    cases = [case for case in PLACEMENTS if pick(records, "asr", case)]
    if not cases:
        return None
    figure = _figure(11, 3.8)
    tail, bars = figure.subplots(1, 2, width_ratios=[1.1, 1])
    _tail_axes(tail, 0.05, 100)
    tail.set_title("Frame lateness in ms: share of frames that were later")
    _curve(tail, merged(pick(records, "asr"), "control"), "bare timer", _CONTROL)
    shades = dict(zip(PLACEMENTS, ("#0b7285", "#37b24d", "#862e9c", "#f08c00", "#d9480f"),
                      strict=True))  # fmt: skip
    for row, case in enumerate(cases):
        runs = pick(records, "asr", case)
        _curve(tail, merged(runs, "frame"), case, shades[case])
        p50, p95 = mean(runs, "response_p50"), mean(runs, "response_p95")
        bars.barh(row, p50, 0.5, color=shades[case])
        bars.plot([p50, p95], [row, row], color=shades[case], lw=1.4)
        bars.plot([p95], [row], "|", color=shades[case], ms=11)
        bars.text(p95, row, f"  {p50:.0f}, p95 {p95:.0f}", va="center", fontsize=8)
    bars.set_yticks(range(len(cases)), [case.replace(", ", ",\n", 1) for case in cases])
    bars.invert_yaxis()
    bars.margins(x=0.25)
    bars.set_xlim(0)
    bars.set_title("Response in ms: p50, up to p95")
    bars.tick_params(length=0)
    return figure


def _asyncio(records: Sequence[Record]) -> Figure | None:
    cases = [case for case in SABOTAGE if pick(records, "asyncio", f"tutorial, {case}")]
    if not cases:
        return None
    figure = _figure(11, 3.6)
    panels = figure.subplots(1, len(cases), sharey=True, squeeze=False)[0]
    for axes, case in zip(panels, cases, strict=True):
        _tail_axes(axes, 0.05, 5_000)
        axes.set_title(TITLES[case])
        for build in BUILDS:
            for label, runs, style in (
                ("Threadline", pick(records, "sabotage", case, build), "-"),
                ("asyncio, careful", pick(records, "asyncio", f"careful, {case}", build), "--"),
                ("asyncio, tutorial", pick(records, "asyncio", f"tutorial, {case}", build), ":"),
            ):
                late = merged(runs, "phone")
                _curve(axes, late, f"{label}, {NAMES[build]}", _COLOURS[build], style)
        axes.set_xlabel("ms late at the phone")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=3, loc="outside lower center", fontsize=8)
    panels[0].set_ylabel("share of frames that were later")
    calls = pick(records, "asyncio")[0].calls
    figure.suptitle(f"{calls} calls are spoken to; beside them:", x=0.01, ha="left",
                    weight="bold")  # fmt: skip
    return figure


def _curve(axes: Axes, late: Lateness | None, label: str, colour: str, style: str = "-") -> None:
    """Share above each bound, down to nothing; a dot where the scale ends before the frames do."""
    if late is None or not late.count:
        return
    shares = [max(share, _FLOOR / 2) for share in late.above()]
    stop = next((i for i, share in enumerate(shares) if share < _FLOOR), len(shares) - 1)
    axes.plot(late.bounds[: stop + 1], shares[: stop + 1], style, color=colour, label=label)
    if shares[-1] >= _FLOOR:
        axes.plot(late.bounds[-1:], shares[-1:], "o", color=colour, ms=5, clip_on=False)


def _tail_axes(axes: Axes, low: float, high: float) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(_FLOOR, 1.3)
    ticks = [tick for tick in (0.1, 1, 5, 20, 100, 1_000) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    shares = [1e-4, 1e-3, 1e-2, 1e-1, 1]
    axes.set_yticks(shares, ["0.01 %", "0.1 %", "1 %", "10 %", "100 %"])
    axes.minorticks_off()
    axes.grid(color=_GRID, lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
