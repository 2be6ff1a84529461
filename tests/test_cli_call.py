"""The sub-command as a user calls it; the calls themselves are tested with threads/caller."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from threadline import cli_call
from threadline.audio import mulaw, wav
from threadline.audio.mulaw import RATE, SILENCE
from threadline.errors import AddressError, ConfigError, Exit
from threadline.observe.callreport import CallRecord
from threadline.threads.caller import Placed
from threadline.threads.phone_line import CallPlan, Watcher
from threadline.wire.phone import Phone
from threadline.wire.script import Barge, Said

LENGTH = 5 * RATE


def parse(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli_call.add_parser(parser.add_subparsers())
    return parser.parse_args(["call", "ws://127.0.0.1:1/twilio", *flags])


@pytest.fixture
def clip(tmp_path: Path) -> str:
    samples = np.zeros(RATE, np.int16)
    samples[800:2400] = 12_000 * np.sign(np.sin(np.arange(1600) + 0.5))
    path = tmp_path / "hello.wav"
    wav.write_stereo(path, samples, samples, RATE)
    return str(path)


def record(*, answered: bool = True, fault: AddressError | None = None) -> CallRecord:
    phone = Phone(buffer_ms=0)
    if answered:
        phone.media(b"\x10" * RATE, 2.0)
        phone.play(9.0)
    caller = np.full(LENGTH, SILENCE, np.uint8)
    caller[8000:12_000] = 0x20
    clips = (Said(1, "hello", 7000, 13_000, 8000, 12_000, True),)
    return CallRecord(
        "CA1", clips, 0, tuple(phone.utterances), (), (), 1, phone.arrivals(),
        caller, phone.heard(LENGTH), 10.0, "done", fault,
    )  # fmt: skip


@pytest.fixture
def placing(monkeypatch: pytest.MonkeyPatch) -> list[CallRecord]:
    """What the next call finds; the plan it was placed with is appended to `plans`."""
    records: list[CallRecord] = []

    def place(plan: CallPlan, watcher: Watcher | None = None) -> Placed:
        assert watcher is not None
        watcher.note(0, 1.25, "agent answers after 500 ms")
        return Placed(tuple(records), np.array([0.5]))

    monkeypatch.setattr(cli_call, "place_calls", place)
    return records


def test_the_flags_become_the_plan(clip: str) -> None:
    plan = cli_call.plan_of(
        parse("--wav", clip, clip, "--calls", "3", "--barge-at", "1.5", "--no-greeting",
              "--answer-within", "4", "--stagger-ms", "7")
    )  # fmt: skip
    assert (plan.calls, plan.greeting, plan.answer_within, plan.stagger_ms) == (3, False, 4.0, 7.0)
    assert plan.barge == Barge(1.5, 1)
    assert [c.name for c in plan.clips] == ["hello", "hello"]
    speech = plan.clips[0].speech
    assert speech is not None
    assert abs(speech[0] - 800) <= 80
    assert abs(speech[1] - 2400) <= 80


def test_a_clip_of_silence_has_no_speech(tmp_path: Path) -> None:
    zeros = np.zeros(RATE, np.int16)
    wav.write_stereo(tmp_path / "s.wav", zeros, zeros, RATE)
    assert cli_call.load_clip(tmp_path / "s.wav").speech is None


def test_an_interruption_needs_a_clip_to_interrupt_with(clip: str) -> None:
    with pytest.raises(ConfigError, match="give 2 files"):
        cli_call.plan_of(parse("--wav", clip, "--barge-at", "1"))


@pytest.mark.parametrize(
    "flags", [("--calls", "0"), ("--timeout", "-1"), ("--barge-at", "nan"), ("--calls", "x")]
)
def test_a_number_out_of_bounds_is_refused(clip: str, flags: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--wav", clip, *flags)
    assert caught.value.code == 2


def test_json_is_one_object_and_nothing_else(
    clip: str, placing: list[CallRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    placing.append(record())
    assert cli_call.run(parse("--wav", clip, "--json")) == Exit.OK
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["response_ms"]["p50"] == 500.0
    assert "1.25 s  agent answers after 500 ms" in err


def test_the_table_shows_every_turn(
    clip: str, placing: list[CallRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    placing.append(record())
    assert cli_call.run(parse("--wav", clip)) == Exit.OK
    out = capsys.readouterr().out
    assert "hello" in out
    assert "p50 500.0" in out


def test_an_unanswered_turn_fails_the_run(clip: str, placing: list[CallRecord]) -> None:
    placing.append(record(answered=False))
    assert cli_call.run(parse("--wav", clip, "--json")) == Exit.FAILED


def test_a_dropped_call_says_why(
    clip: str, placing: list[CallRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    placing.append(record(fault=AddressError("the server vanished")))
    assert cli_call.run(parse("--wav", clip, "--json")) == Exit.ADDRESS
    assert "threadline call: the server vanished" in capsys.readouterr().err


def test_recording_and_picture_are_numbered_for_many_calls(
    clip: str, placing: list[CallRecord], tmp_path: Path
) -> None:
    placing.extend([record(), record(answered=False)])
    flags = ("--calls", "2", "--record", str(tmp_path / "out.wav"))
    cli_call.run(parse("--wav", clip, *flags, "--picture", str(tmp_path / "out.svg")))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"hello.wav", "out-1.wav", "out-2.wav", "out-1.svg", "out-2.svg"}


def test_the_recording_has_the_caller_left_and_the_agent_right(
    clip: str, placing: list[CallRecord], tmp_path: Path
) -> None:
    import wave

    placing.append(record())
    cli_call.run(parse("--wav", clip, "--record", str(tmp_path / "out.wav"), "--json"))
    with wave.open(str(tmp_path / "out.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 8000, 2)
        both = np.frombuffer(file.readframes(LENGTH), np.int16).reshape(-1, 2)
    code = mulaw.decode(b"\x20\x10")
    assert (both[8000:12_000, 0] == code[0]).all()
    assert (both[16_000:24_000, 1] == code[1]).all()
    assert np.count_nonzero(both) == 4000 + 8000


def test_the_servers_log_gives_the_words(
    clip: str,
    placing: list[CallRecord],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    placing.append(record())
    line = {"event": "turn", "call_id": "CA1", "heard": "good morning", "said": "and to you"}
    (tmp_path / "log").write_text(json.dumps(line))
    cli_call.run(parse("--wav", clip, "--json", "--server-log", str(tmp_path / "log")))
    result = json.loads(capsys.readouterr().out)
    assert result["transcript"][1]["heard"] == "good morning"
