from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from threadline.audio import mulaw
from threadline.audio.mulaw import RATE, SILENCE
from threadline.errors import ConfigError
from threadline.observe.callreport import CallRecord, CallReport, ServerTurn, judge
from threadline.observe.timeline import draw, envelope
from threadline.wire.phone import Phone
from threadline.wire.script import Said


def report(stages: Mapping[str, float] | None = None) -> CallReport:
    """An answer, an interruption of it, and a turn that nobody answers."""
    phone = Phone(buffer_ms=0)
    phone.media(b"\x10" * 2 * RATE, 3.0)
    phone.clear(4.1)
    length = 9 * RATE
    clips = (
        Said(1, "booking", 0, 2 * RATE, 800, 2 * RATE - 800, True),
        Said(2, "wait", 4 * RATE, 5 * RATE, 4 * RATE, 5 * RATE, True),
    )
    record = CallRecord(
        "CA1", clips, 0, tuple(phone.utterances), tuple(phone.clears), (), 0, phone.arrivals(),
        np.full(length, SILENCE, np.uint8), phone.heard(length), 2.0, "hung up here", None,
    )  # fmt: skip
    log = [] if stages is None else [ServerTurn("a table for two", "certainly", stages)]
    return judge(record, log)


def words(path: Path) -> str:
    """The text of an SVG: matplotlib draws letters as shapes and leaves each text in a comment."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.parse(path, parser).getroot()
    comments = (node.text or "" for node in root.iter() if node.tag is ElementTree.Comment)
    return "\n".join(text.strip() for text in comments)


def test_the_picture_tells_the_call(tmp_path: Path) -> None:
    draw(report({"hangover": 480.0, "asr": 70.0}), tmp_path / "call.svg")
    text = words(tmp_path / "call.svg")
    for expected in (
        "1  booking",
        "1100 ms",  # the first answer: 1.9 s to 3.0 s
        "after 100 ms",  # the interruption
        "no answer",
        "hangover",
        "480",
        "line and phone buffer",
        "550",  # 1100 - 480 - 70
        "a table for two",
        "hung up here",
    ):
        assert expected in text, expected


def test_the_picture_tells_when_model_and_voice_were_asked_and_what_was_heard(
    tmp_path: Path,
) -> None:
    told = report({"endpoint": 200.0, "think": 150.0})
    server = ServerTurn(
        "a table for two", "Certainly. For which day?", {"endpoint": 200.0, "think": 150.0},
        {"asked": 100.0, "voice_asked": 360.0}, why="complete", early=True, interrupted=True,
        played="Certainly.", unplayed="For which day?", pauses=2,
    )  # fmt: skip
    turns = tuple(
        replace(turn, server=server, filler_ms=640.0) if turn.number == 1 else turn
        for turn in told.turns
    )
    draw(replace(told, turns=turns), tmp_path / "call.svg")
    text = words(tmp_path / "call.svg")
    assert "model asked" in text
    assert "voice asked" in text
    facts = "complete, asked early, filler after 640 ms, held up 2 times, 1 of 4 words heard"
    assert facts[:71] in text


def test_without_the_servers_log_there_is_one_bar(tmp_path: Path) -> None:
    draw(report(), tmp_path / "call.svg")
    text = words(tmp_path / "call.svg")
    assert "end of speech to answer" in text
    assert "line and phone buffer" not in text


def test_the_same_call_gives_a_png(tmp_path: Path) -> None:
    draw(report(), tmp_path / "call.png")
    assert (tmp_path / "call.png").read_bytes().startswith(b"\x89PNG")


def test_a_call_in_which_nothing_happened_can_be_drawn(tmp_path: Path) -> None:
    empty = np.zeros(0, np.uint8)
    record = CallRecord(
        "CA1", (), 1, (), (), (), 0, Phone().arrivals(), empty, empty, 1.0, "", None
    )
    draw(judge(record), tmp_path / "call.png")
    assert (tmp_path / "call.png").stat().st_size > 1000


def test_the_suffix_must_be_a_pictures(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.png, \.svg"):
        draw(report(), tmp_path / "call.txt")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        draw(report(), tmp_path / "no" / "call.png")


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"threadline\[dev\]"):
        draw(report(), tmp_path / "call.png")


def test_the_envelope_is_louder_where_the_sound_is() -> None:
    samples = np.zeros(RATE, np.int16)
    samples[4000:4100] = 20_000
    at, height = envelope(np.frombuffer(mulaw.encode(samples), np.uint8), 100)
    assert len(at) == 100
    assert height[50] > 0.7
    assert at[50] == pytest.approx(0.505)
    assert height.sum() == pytest.approx(height[50] + height[51])
    assert len(envelope(np.zeros(0, np.uint8), 100)[0]) == 0
