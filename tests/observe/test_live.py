from __future__ import annotations

import io

from rich.console import Console

from threadline.audio.mulaw import FRAME, SILENCE
from threadline.observe.live import Board

QUIET = bytes([SILENCE]) * FRAME
LOUD = b"\x00" * FRAME


def drawn(board: Board, width: int = 60) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(board.draw(width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_both_lanes_show_who_speaks() -> None:
    board = Board(1)
    for second in range(3):
        for _ in range(50):
            board.sound(LOUD if second == 1 else QUIET, LOUD if second == 2 else b"")
    caller, agent, axis = drawn(board)[1:4]
    start = axis.index("|0")
    assert [at - start for at, char in enumerate(caller) if char == "█"] == list(range(10, 20))
    assert [at - start for at, char in enumerate(agent) if char == "█"] == list(range(20, 30))


def test_a_long_call_scrolls_and_its_axis_with_it() -> None:
    board = Board(1)
    for second in range(60):
        for _ in range(50):
            board.sound(LOUD if second == 58 else QUIET, b"")
    caller, _, axis = drawn(board)[1:4]
    assert "|0" not in axis
    assert caller.index("█") == axis.index("|58")


def test_an_empty_board_and_a_narrow_one_can_be_drawn() -> None:
    assert drawn(Board(1), 20)


def test_the_latest_events_are_listed_with_their_time() -> None:
    board = Board(3)
    for number in range(20):
        board.note(2, number / 2, f"event {number}")
    text = "\n".join(drawn(board))
    assert "9.50 s  call 3   event 19" in text
    assert "event 3\n" not in text
    assert "3 calls" in text
