"""One turn on the terminal: every stage with its bar, every instant, every fate."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from threadline.observe.callreport import ServerTurn, Turn
from threadline.observe.waterfall import LINE, notes, stages, waterfall

SERVER = ServerTurn(
    heard="what are your hours",
    said="We are open daily from noon.",
    stages_ms={"endpoint": 200.0, "recognise": 10.0, "think": 90.0, "phrase": 20.0,
               "speak": 80.0, "pace": 40.0},
    at_ms={"turn_over": 200.0, "transcript": 210.0, "asked": 101.0, "first_token": 300.0,
           "first_clause": 320.0, "voice_asked": 321.0, "first_audio": 400.0,
           "first_frame": 440.0},
    why="complete", source="deepgram", early=True,
)  # fmt: skip
TURN = Turn(2, "question", 1.0, 2.0, speaks=True, reply_start=2.5, reply_end=4.0,
            response_ms=500.0, server=SERVER)  # fmt: skip


def drawn(turn: Turn, width: int = 100, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=width, force_terminal=False)
    console.print(waterfall(turn, width))
    stream.seek(0)
    return stream.read()


def test_every_stage_and_instant_is_there() -> None:
    text = drawn(TURN)
    for expected in (
        "2  question  answered after 500 ms", "“what are your hours”", "endpoint", "200",
        "complete", "deepgram", "model asked at 101 early, token 300",
        "clause at 320", "voice asked at 321, audio 400", "frame at 440",
        LINE, "60",
    ):  # fmt: skip
        assert expected in text, expected


def test_the_bars_follow_one_another_and_fill_the_width() -> None:
    rows = [line for line in drawn(TURN).splitlines() if "█" in line or "▌" in line]
    ends = [max(line.rfind(sign) for sign in "█▏▎▍▌▋▊▉") for line in rows]
    starts = [min(line.find(sign) for sign in "█▏▎▍▌▋▊▉" if sign in line) for line in rows]
    assert ends == sorted(ends)
    for end, start in zip(ends, starts[1:], strict=False):
        assert abs(end - start) <= 1
    assert ends[-1] - starts[0] == 35, "a hundred columns leave 36 to the bars"


def test_the_rest_is_what_only_the_phone_saw() -> None:
    assert stages(TURN)[LINE] == pytest.approx(60.0)
    assert LINE not in stages(replace(TURN, response_ms=None))
    assert stages(replace(TURN, server=None)) == {}
    assert "answered after 500 ms" in drawn(replace(TURN, server=None))


def test_what_became_of_the_answer() -> None:
    server = replace(SERVER, interrupted=True, played="We are open", unplayed="daily from noon.",
                     pauses=1, fillers=("One moment.",), filler_ms=700.0)  # fmt: skip
    said = notes(replace(TURN, server=server, filler_ms=760.0, barge_ms=98.0))
    assert said == [
        "filler after 760 ms: “One moment.”",
        "the agent fell silent 98 ms after the caller cut in",
        "held up once, and went on",
        "interrupted: 3 of 6 words heard",
        "not heard: “daily from noon.”",
    ]
    assert notes(TURN) == []
    assert "held up 3 times" in notes(replace(TURN, server=replace(SERVER, pauses=3)))[0]


@pytest.mark.parametrize("turn", [replace(TURN, response_ms=None, reply_start=None), TURN])
@pytest.mark.parametrize("width", [20, 60, 200])
def test_any_turn_fits_any_terminal(turn: Turn, width: int) -> None:
    lines = drawn(turn, width).splitlines()
    assert max(map(len, lines)) <= width
    assert ("no answer" in " ".join(" ".join(lines).split())) == turn.unanswered


def test_words_are_never_taken_for_markup() -> None:
    assert "[bold]x[/bold]" in drawn(replace(TURN, server=replace(SERVER, heard="[bold]x[/bold]")))
