"""A call on the terminal while it runs: two scrolling lanes and what happened.

`Board` is written by the loop that carries the calls, which only appends, and drawn by another
thread: that one copies what it shows, so neither waits for the other.
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_BLOCKS = " ▁▂▃▄▅▆▇█"
_COLUMN_FRAMES = 5  # 100 ms to a column
_MARGIN = 14  # beside the lanes: their names, the frame
_EVENTS = 8
# mu-law's magnitude code is a logarithmic level already: 0 is silence, 127 full scale.
_MAGNITUDE = bytes(~code & 0x7F for code in range(256))
_FLOOR, _CEILING = 24, 104  # magnitude codes that draw as nothing and as a full block

CALLER, AGENT = "cyan", "yellow"


class Board:
    """Implements `threads.phone_line.Watcher`."""

    def __init__(self, calls: int) -> None:
        self.events: list[tuple[int, float, str]] = []  # call, seconds, sentence
        self._calls = calls
        self._caller = bytearray()  # one peak for each 20 ms
        self._agent = bytearray()

    def note(self, call: int, seconds: float, text: str) -> None:
        """Loop only."""
        self.events.append((call, seconds, text))

    def sound(self, caller: bytes, agent: bytes) -> None:
        """Loop only: 20 ms of the first call, mu-law."""
        self._caller.append(max(caller.translate(_MAGNITUDE)))
        self._agent.append(max(agent.translate(_MAGNITUDE), default=0))

    def draw(self, width: int) -> RenderableType:
        """Any thread: the picture of this moment, ``width`` columns wide."""
        columns = max(10, width - _MARGIN)
        frames = min(len(self._caller), len(self._agent))
        lanes = Table.grid(padding=(0, 1))
        lanes.add_column(width=6, style="bold")
        lanes.add_column()
        lanes.add_row(Text("caller", CALLER), Text(_lane(self._caller, frames, columns), CALLER))
        lanes.add_row(Text("agent", AGENT), Text(_lane(self._agent, frames, columns), AGENT))
        lanes.add_row("", Text(_axis(frames, columns), "dim"))
        lines = [self.line(event) for event in self.events[-_EVENTS:]]
        lines += [Text()] * (_EVENTS - len(lines))
        title = f"{self._calls} calls, the first one shown" if self._calls > 1 else "call"
        return Panel(Group(lanes, *lines), title=title, title_align="left", border_style="dim")

    def line(self, event: tuple[int, float, str]) -> Text:
        """One event as one line."""
        call, seconds, text = event
        who = f"call {call + 1:<3} " if self._calls > 1 else ""
        style = CALLER if text.startswith("caller") else AGENT if text.startswith("agent") else ""
        return Text.assemble((f"{seconds:8.2f} s  {who}", "dim"), (text, style))


def _lane(peaks: bytearray, frames: int, columns: int) -> str:
    """The last ``columns`` * 100 ms of one side, a column's edge fixed to the call's time."""
    first = max(0, -(-frames // _COLUMN_FRAMES) - columns)
    recent = bytes(peaks[first * _COLUMN_FRAMES : frames])
    heights = [
        (max(recent[at : at + _COLUMN_FRAMES]) - _FLOOR) * 8 // (_CEILING - _FLOOR)
        for at in range(0, len(recent), _COLUMN_FRAMES)
    ]
    return "".join(_BLOCKS[min(8, max(0, height))] for height in heights)


def _axis(frames: int, columns: int) -> str:
    """Whole seconds under the lanes."""
    first = max(0, -(-frames // _COLUMN_FRAMES) - columns)
    out = [" "] * columns
    for second in range(-(-first // 10), (first + columns) // 10 + 1):
        for at, char in enumerate(f"|{second}", second * 10 - first):
            if at < columns:
                out[at] = char
    return "".join(out)
