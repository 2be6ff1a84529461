"""What one answer waited for, on the terminal: a bar for each stage, and what became of it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .callreport import Turn

LINE = "line and phone"
"""The stage that only the phone sees: the wire, and its own buffer."""

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_NARROW, _WIDE = 16, 48  # columns of the bars


def waterfall(turn: Turn, width: int) -> RenderableType:
    """One turn, ``width`` columns wide: its stages, if the server's log told them, and notes."""
    rows = stages(turn)
    whole = sum(rows.values())
    columns = max(_NARROW, min(_WIDE, width - 64))
    table = Table.grid(padding=(0, 1))
    table.add_column(width=14, style="dim")
    table.add_column(width=columns, no_wrap=True)
    table.add_column(width=6, justify="right")
    table.add_column(style="dim", overflow="fold")
    at, beside = 0.0, _beside(turn)
    for name, ms in rows.items():
        bar = _bar(at, at + ms, whole, columns)
        colour = "dim" if name == LINE else "cyan"
        table.add_row(name, Text(bar, colour), f"{ms:.0f}", Text(beside.get(name, "")))
        at += ms
    return Group(_title(turn), table, *(Text(f"  {note}", "dim") for note in notes(turn)))


def stages(turn: Turn) -> dict[str, float]:
    """Milliseconds by stage, what only the phone saw last; empty when the server told none."""
    found = dict(turn.server.stages_ms) if turn.server else {}
    if found and turn.response_ms is not None:
        found[LINE] = max(0.0, turn.response_ms - sum(found.values()))
    return found


def notes(turn: Turn) -> list[str]:
    """What else became of the answer, one sentence each."""
    server, out = turn.server, []
    if turn.filler_ms is not None and server:
        out.append(f"filler after {turn.filler_ms:.0f} ms: “{' '.join(server.fillers)}”")
    if turn.barge_ms is not None:
        out.append(f"the agent fell silent {turn.barge_ms:.0f} ms after the caller cut in")
    if server and server.pauses:
        times = "once" if server.pauses == 1 else f"{server.pauses} times"
        out.append(f"held up {times}, and went on")
    if server and server.interrupted:
        heard, lost = len(server.played.split()), len(server.unplayed.split())
        out.append(f"interrupted: {heard} of {heard + lost} words heard")
        out.append(f"not heard: “{server.unplayed}”" if lost else "all of it had been heard")
    return out


def _title(turn: Turn) -> Text:
    answer = "no answer" if turn.unanswered else "spoke too early" if turn.early else ""
    if turn.response_ms is not None:
        answer = f"answered after {turn.response_ms:.0f} ms"
    heard = f"  “{turn.server.heard}”" if turn.server and turn.server.heard else ""
    return Text.assemble((f"{turn.number}  {turn.clip}  ", "bold"), answer, (heard, "dim"))


def _beside(turn: Turn) -> dict[str, str]:
    """What each stage's row says of it. Instants are ms after the caller's last sound."""
    server = turn.server
    if server is None:
        return {}
    at = server.at_ms
    said = {"endpoint": server.why, "recognise": server.source}
    if "asked" in at:
        early = " early" if server.early else ""
        said["think"] = f"model asked at {at['asked']:.0f}{early}"
        if "first_token" in at:
            said["think"] += f", token {at['first_token']:.0f}"
    if "first_clause" in at:
        said["phrase"] = f"clause at {at['first_clause']:.0f}"
    if "voice_asked" in at:
        said["speak"] = f"voice asked at {at['voice_asked']:.0f}"
        if "first_audio" in at:
            said["speak"] += f", audio {at['first_audio']:.0f}"
    if "first_frame" in at:
        said["pace"] = f"frame at {at['first_frame']:.0f}"
    return said


def _bar(start: float, end: float, whole: float, columns: int) -> str:
    """A bar from ``start`` to ``end`` of ``whole``, to an eighth of a column at its end."""
    scale = columns / whole if whole > 0 else 0.0
    first, last = int(start * scale), end * scale
    full = max(0, int(last) - first)
    part = _EIGHTHS[int((last - int(last)) * 8)] if int(last) < columns else ""
    return (" " * first + "█" * full + part).rstrip() if end > start else ""
