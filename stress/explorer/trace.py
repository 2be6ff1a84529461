"""A schedule, readable: one column a thread, time runs downwards."""

from __future__ import annotations

from itertools import zip_longest
from textwrap import wrap

from .world import World

_WIDTH = 96


def columns(world: World) -> str:
    """What each thread did, in order, and the line of production code that did it."""
    assert world.lines is not None, "recorded"
    width = max(24, _WIDTH // max(1, len(world.threads)))
    rows = [[thread.name for thread in world.threads], ["-" * (width - 2)] * len(world.threads)]
    places = ["", ""]
    for line in world.lines:
        indent = "  " if line.what.startswith(" ") else ""
        pieces = wrap(line.what.strip(), width - 4, initial_indent=indent) or [""]
        for piece, where in zip_longest(pieces, [line.where], fillvalue=""):
            row = [""] * len(world.threads)
            row[line.thread] = piece
            rows.append(row)
            places.append(where)
    return "\n".join(
        ("".join(cell.ljust(width) for cell in row) + where).rstrip()
        for row, where in zip(rows, places, strict=True)
    )
