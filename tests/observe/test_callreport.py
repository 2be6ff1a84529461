from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from threadline.audio.mulaw import FRAME, RATE, SILENCE
from threadline.errors import AddressError, ConfigError, ThreadlineError
from threadline.observe.callreport import (
    CallRecord,
    ServerTurn,
    judge,
    server_turns,
    summary,
    transcript,
)
from threadline.wire.phone import Phone
from threadline.wire.script import Said

LOUD = b"\x10"


def said(turn: int, onset: float, end: float, *, speaks: bool = True) -> Said:
    at, until = round(onset * RATE), round(end * RATE)
    return Said(turn, f"c{turn}", at - 80, until + 80, at, until, speaks)


def record(
    phone: Phone,
    *clips: Said,
    seconds: float = 20.0,
    fault: ThreadlineError | None = None,
    answer_within: float = 5.0,
) -> CallRecord:
    phone.play(seconds)
    length = round(seconds * RATE)
    return CallRecord(
        call_sid="CA1",
        said=clips,
        unsaid=0,
        utterances=tuple(phone.utterances),
        clears=tuple(phone.clears),
        gaps=tuple(phone.gaps),
        marks=phone.marks,
        arrivals=phone.arrivals(),
        caller=np.full(length, SILENCE, np.uint8),
        agent=phone.heard(length),
        answer_within=answer_within,
        ended="done",
        fault=fault,
    )


def speak(phone: Phone, at: float, seconds: float, *, mark: bool = True, late: float = 0) -> None:
    """Frames on the grid, the second half ``late`` seconds behind it."""
    frames = round(seconds * RATE / FRAME)
    for index in range(frames):
        delay = late if index >= frames // 2 else 0.0
        phone.media(LOUD * FRAME, at + index * 0.02 + delay)
    if mark:
        phone.mark("m", at + seconds + late)


def test_response_is_from_the_true_end_of_speech_to_the_first_audible_sample() -> None:
    phone = Phone(buffer_ms=40)
    speak(phone, 0.1, 0.5)
    speak(phone, 3.0, 1.0)
    greeting, turn = judge(record(phone, said(1, 1.0, 2.5))).turns
    assert (greeting.reply_start, greeting.reply_end) == (0.14, 0.64)
    assert turn.response_ms == 540.0
    assert (turn.reply_start, turn.reply_end) == (3.04, 4.04)
    assert turn.barge_ms is None
    assert not turn.unanswered
    assert not turn.early


def test_the_silence_in_front_of_the_agents_words_is_part_of_the_wait() -> None:
    phone = Phone(buffer_ms=0)
    phone.media(bytes([SILENCE]) * RATE + LOUD * RATE, 3.0)
    assert judge(record(phone, said(1, 1.0, 2.5))).turns[1].response_ms == 1500.0


def test_no_answer_and_one_that_came_too_late() -> None:
    phone = Phone()
    speak(phone, 9.0, 1.0)
    turns = judge(record(phone, said(1, 1.0, 2.0), said(2, 3.0, 3.5))).turns
    assert [turn.unanswered for turn in turns] == [False, True, True]
    assert turns[2].response_ms is None


def test_an_interruption_ends_with_the_last_audible_sample_of_the_old_reply() -> None:
    phone = Phone(buffer_ms=0)
    speak(phone, 3.0, 1.14, mark=False)  # 20 ms of it will not be played
    phone.clear(4.12)
    speak(phone, 5.5, 0.5)
    turns = judge(record(phone, said(1, 1.0, 2.0), said(2, 4.0, 5.0))).turns
    assert turns[1].response_ms == 1000.0
    assert turns[2].barge_ms == 120.0
    assert turns[2].silenced == 4.12
    assert turns[2].response_ms == 500.0


def test_an_agent_that_pauses_and_resumes_is_silent_only_when_it_was_cleared() -> None:
    phone = Phone(buffer_ms=0)
    speak(phone, 3.0, 1.04, mark=False)  # held 40 ms into the caller's speech
    speak(phone, 4.3, 0.1, mark=False)  # and resumed
    phone.clear(4.4)
    turns = judge(record(phone, said(1, 1.0, 2.0), said(2, 4.0, 5.0))).turns
    assert turns[2].barge_ms == 400.0
    assert not turns[2].early


def test_an_old_reply_resumed_after_a_long_pause_is_no_answer() -> None:
    phone = Phone(buffer_ms=0)
    speak(phone, 3.0, 1.04, mark=False)
    speak(phone, 4.7, 0.4, mark=False)
    phone.clear(5.1)
    speak(phone, 5.6, 0.5)
    turns = judge(record(phone, said(1, 1.0, 2.0), said(2, 4.0, 5.0))).turns
    assert turns[2].barge_ms == 1100.0
    assert turns[2].response_ms == 600.0
    assert turns[2].reply_start == 5.6
    assert not turns[2].early


def test_an_agent_that_does_not_stop_is_timed_to_its_own_end() -> None:
    phone = Phone(buffer_ms=0)
    speak(phone, 3.0, 4.0)
    turns = judge(record(phone, said(1, 1.0, 2.0), said(2, 4.0, 5.0))).turns
    assert turns[2].barge_ms == 3000.0
    assert turns[2].unanswered


def test_speech_into_the_agents_silence_is_no_interruption() -> None:
    phone = Phone(buffer_ms=0)
    speak(phone, 3.0, 0.9)
    turns = judge(record(phone, said(1, 1.0, 2.0), said(2, 4.0, 5.0))).turns
    assert turns[2].barge_ms is None


def test_an_answer_into_the_callers_speech_is_early_and_no_response_time() -> None:
    phone = Phone(buffer_ms=0)
    speak(phone, 1.5, 1.0, mark=False)
    turn = judge(record(phone, said(1, 1.0, 2.0))).turns[1]
    assert turn.early
    assert turn.response_ms is None
    assert not turn.unanswered


def test_lateness_is_measured_on_the_grid_of_the_utterance() -> None:
    phone = Phone(buffer_ms=40)
    speak(phone, 3.0, 1.0, late=0.005)
    report = judge(record(phone, said(1, 1.0, 2.0)))
    assert report.lateness_ms.round(6).tolist() == [0.0] * 25 + [5.0] * 25
    assert not report.underruns


def test_early_frames_are_not_late() -> None:
    phone = Phone()
    for _ in range(10):
        phone.media(LOUD * FRAME, 3.0)
    assert judge(record(phone)).lateness_ms.tolist() == [0.0] * 10


def test_a_stall_is_one_underrun_and_one_late_frame() -> None:
    phone = Phone(buffer_ms=40)
    speak(phone, 4.0, 1.0, late=0.2)
    report = judge(record(phone, said(1, 1.0, 2.0)))
    assert len(report.underruns) == 1
    assert report.lateness_ms.max() == pytest.approx(200)
    assert int((report.lateness_ms > 1).sum()) == 1


def test_a_pause_under_the_callers_voice_is_neither_underrun_nor_late() -> None:
    for held in (0.03, 0.2):  # within the phone's buffer, and beyond it
        phone = Phone(buffer_ms=40)
        speak(phone, 3.0, 2.0, late=held)
        report = judge(record(phone, said(1, 1.0, 2.0), said(2, 3.9, 4.1)))
        assert not report.underruns
        assert len(report.pauses) == (held > 0.1)
        assert report.lateness_ms.max() < 1e-6


def test_a_long_stall_counts_only_for_a_server_that_marks_its_ends() -> None:
    for mark, underruns in ((True, 1), (False, 0)):
        phone = Phone()
        speak(phone, 3.0, 2.0, late=0.9, mark=mark)
        assert len(judge(record(phone, said(1, 1.0, 2.0))).underruns) == underruns


def test_summary_has_the_promised_keys_and_null_for_what_nobody_measured() -> None:
    phone = Phone()
    speak(phone, 3.0, 1.0)
    good = judge(record(phone, said(1, 1.0, 2.5)))
    lost = judge(record(Phone(), fault=AddressError("gone")))
    result = summary([good, lost], np.array([0.1, 0.2]))
    assert result["calls"] == 2
    assert result["turns"] == 1
    assert result["unanswered"] == 0
    assert result["dropped"] == 1
    assert result["response_ms"] == {"p50": 540.0, "p95": 540.0, "p99": 540.0}
    assert result["barge_ms"] == {"p50": None, "p95": None, "max": None}
    assert result["lateness_ms"] == {"p50": 0.0, "p99": 0.0, "p999": 0.0, "max": 0.0}
    assert result["client_lateness_ms"]["max"] == 0.2
    assert result["underruns"] == 0
    assert result["frames"] == 50
    assert json.loads(json.dumps(result)) == result
    assert summary([], np.zeros(0))["response_ms"]["p50"] is None


def test_a_percentile_is_a_value_that_was_measured() -> None:
    phone, clips = Phone(buffer_ms=0), []
    for turn, wait in enumerate((0.5, 0.6, 0.9), 1):
        clips.append(said(turn, turn * 5, turn * 5 + 1))
        speak(phone, turn * 5 + 1 + wait, 1.0)
    result = summary([judge(record(phone, *clips))], np.zeros(0))
    assert result["response_ms"] == {"p50": 600.0, "p95": 900.0, "p99": 900.0}


def test_the_servers_words_are_joined_by_call_and_in_order(tmp_path: Path) -> None:
    lines = [
        {"event": "turn", "call_id": "CA1", "heard": "", "said": "Hello."},
        {"event": "other", "call_id": "CA1"},
        {"event": "turn", "call_id": "CA2", "heard": "x", "said": "y"},
        {
            "event": "turn",
            "call_id": "CA1",
            "heard": "first",
            "said": "one",
            "stages_ms": {"asr": 70, "odd": "x"},
        },
        {"event": "turn", "call_id": "CA1", "heard": "second", "said": "two", "stages_ms": None},
    ]
    log = tmp_path / "server.log"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + "not json\n[]\n")
    turns = server_turns(log)
    assert set(turns) == {"CA1", "CA2"}
    silent = said(1, 1.0, 1.0, speaks=False)
    report = judge(record(Phone(), silent, said(2, 2.0, 3.0), said(3, 4.0, 5.0)), turns["CA1"])
    assert [turn.server and turn.server.said for turn in report.turns] == (
        ["Hello.", None, "one", "two"]
    )
    assert report.turns[2].server == ServerTurn("first", "one", {"asr": 70.0})
    entry = transcript(report)[2]
    assert (entry["call"], entry["clip"], entry["heard"]) == ("CA1", "c2", "first")


def test_a_turn_that_nobody_understood_is_still_the_callers() -> None:
    log = [
        ServerTurn("", "Hello."),
        ServerTurn("first", "one", why="silence"),
        ServerTurn("", "Sorry?", why="silence"),
        ServerTurn("", "", why="silence"),  # a cough
        ServerTurn("", "Are you there?"),  # after a long silence
        ServerTurn("third", "three", why="silence"),
    ]
    lines = [said(n, 2.0 * n, 2.0 * n + 1) for n in (1, 2, 3)]
    report = judge(record(Phone(), *lines), log)
    assert [turn.server and turn.server.said for turn in report.turns] == (
        ["Hello.", "one", "Sorry?", "three"]
    )


FULL = {
    "event": "turn", "call_id": "CA1", "turn": 1, "heard": "a table", "said": "Let me see. Yes.",
    "played": "Let me", "unplayed": "see. Yes.", "interrupted": True, "pauses": 2,
    "why": "complete", "source": "deepgram", "early": True, "fillers": ["One moment."],
    "filler_ms": 400.0, "stages_ms": {"endpoint": 200.0}, "at_ms": {"first_frame": 900.0},
    "decode_ms": 40.0,
}  # fmt: skip


def test_every_field_of_a_turns_record_is_read(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(json.dumps(FULL))
    (turn,) = server_turns(log)["CA1"]
    for name in ("heard", "said", "played", "unplayed", "interrupted", "pauses", "why", "source",
                 "early", "filler_ms", "stages_ms", "at_ms"):  # fmt: skip
        assert getattr(turn, name) == FULL[name], name
    assert turn.fillers == ("One moment.",)


def test_a_record_of_other_kinds_than_ours_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    odd = {name: [] for name in FULL} | {"event": "turn", "call_id": "CA1", "fillers": 3}
    log = tmp_path / "server.log"
    log.write_text(json.dumps(odd))
    assert server_turns(log) == {"CA1": [ServerTurn("", "")]}


def test_a_filler_is_no_answer() -> None:
    """What is audible first is the filler; the answer comes so much later as at the server."""
    phone = Phone(buffer_ms=0)
    speak(phone, 3.0, 1.0)
    filled = ServerTurn("x", "y", filler_ms=420.0, at_ms={"first_frame": 1420.0})
    answered = judge(record(phone, said(1, 1.0, 2.5)), [filled]).turns[1]
    assert (answered.filler_ms, answered.response_ms) == (500.0, 1500.0)
    only = ServerTurn("x", "", filler_ms=420.0)
    waiting = judge(record(phone, said(1, 1.0, 2.5)), [only]).turns[1]
    assert (waiting.filler_ms, waiting.response_ms) == (500.0, None)
    report = judge(record(phone, said(1, 1.0, 2.5)), [filled])
    result = summary([report], np.zeros(0))
    assert result["filler_ms"]["p50"] == 500.0
    assert result["response_ms"]["p50"] == 1500.0
    (_, entry) = result["transcript"]
    assert (entry["filler_ms"], entry["at_ms"]) == (500.0, {"first_frame": 1420.0})
    assert json.loads(json.dumps(result)) == result


def test_a_log_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="server log"):
        server_turns(Path("/nowhere/log"))
