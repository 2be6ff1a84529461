"""One sentence and one exit code for whatever a user can cause."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from threadline import cli
from threadline.config_sources import WELL_KNOWN
from threadline.errors import Exit


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the person who runs the tests."""
    for name in ("THREADLINE_CONFIG", *WELL_KNOWN):
        monkeypatch.delenv(name, raising=False)


def fails(capsys: pytest.CaptureFixture[str], argv: list[str], code: Exit) -> str:
    """The sentence; nothing else is said, and no traceback."""
    assert cli.main(argv) == code
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("threadline: ")
    return line


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--port", "http"], "port .*http.* an integer from 0 to 65535"),
        (["--port", "70000"], "port .*70000"),
        (["--gil", "off"], "gil .*one of isolate, refuse, accept, force"),
        (["--llm", "parrot"], "llm.chain names 'parrot': choose from openai.*, scripted"),
        (["--stt", "deepgran"], "stt.chain names 'deepgran': the nearest is deepgram"),
        (["--set", "vad.hangover_mss=5"], "nearest is vad.hangover_ms"),
        (["--set", "vad.hangover_ms"], "has no value: write --set vad.hangover_ms=VALUE"),
        (["--set", "vad.probe_ms=900"], "vad.probe_ms is 900 .*vad.hangover_ms"),
        (["--config", "/nonexistent.toml"], "/nonexistent.toml"),
        (["--llm", "openai"], "no key: set OPENAI_API_KEY"),
        (["--stt", "deepgram,whisper"], "no key: set DEEPGRAM_API_KEY"),
        (["--tts", "piper,cartesia"], "no key: set CARTESIA_API_KEY"),
        (["--otlp", "127.0.0.1:4318"], "otlp .* an address that starts with http:// or https://"),
        (["--otlp", "http://:4318"], "names no host: give the address of a collector, like http"),
        (["app:agent"], "An app needs a model .*: set OPENAI_API_KEY, or OPENAI_BASE_URL"),
        (["app:agent", "--llm", "openai"], "no key: set OPENAI_API_KEY"),
        (["--set", "tts.voice=parrot"], "no model 'parrot': choose from"),
        (["--set", "tts.voice=whisper-base"], "whisper-base is no voice"),
        (["--set", "asr.model=piper-joe"], "piper-joe is no recogniser"),
    ],
)
def test_a_setting_that_cannot_be_used(
    models: object, capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    assert re.search(words, fails(capsys, ["serve", *argv], Exit.USAGE))


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("no_such_app:agent", "no module 'no_such_app'"),
        ("no_such_app.py:agent", "There is no file no_such_app.py"),
        ("threadline.errors:Exit", "is of type EnumType, not an Agent"),
        ("nonsense", "names no agent: write MODULE:NAME"),
    ],
)
def test_an_app_that_is_none(
    models: object,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    app: str,
    words: str,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    assert re.search(words, fails(capsys, ["serve", "--port", "0", app], Exit.USAGE))


def test_a_demo_of_an_app_needs_a_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = ["demo", "--app", "examples.bare:agent", "--out", str(tmp_path / "out")]
    sentence = fails(capsys, argv, Exit.USAGE)
    assert re.search("An app needs a model .*: set OPENAI_API_KEY, or OPENAI_BASE_URL", sentence)
    assert not (tmp_path / "out").exists(), "nothing was begun"


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_the_help_says_which_vendors_have_their_keys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("DEEPGRAM_API_KEY", "secret-key")
    monkeypatch.setenv("CARTESIA_URL", "ws://127.0.0.1:5")
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    out = capsys.readouterr().out
    assert re.search(r"--stt deepgram\[:MODEL\] +DEEPGRAM_API_KEY is set; wss://api", out)
    assert re.search(r"--tts cartesia\[:VOICE\] +CARTESIA_API_KEY is not set; ws://127.*:5 ", out)
    assert "secret-key" not in out


def test_a_variable_that_is_no_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREADLINE_VAD_HANGOVER", "5")
    assert "THREADLINE_VAD_HANGOVER_MS" in fails(capsys, ["serve"], Exit.USAGE)


def test_a_file_with_an_unknown_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "threadline.toml"
    file.write_text("[server]\nprot = 1\n")
    assert "server.port" in fails(capsys, ["serve", "--config", str(file)], Exit.USAGE)


def test_a_missing_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("THREADLINE_MODELS", str(tmp_path))
    sentence = fails(capsys, ["serve", "--port", "0"], Exit.MODEL)
    assert re.search(r"not on this machine .*run `threadline models fetch", sentence)


def test_a_damaged_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("THREADLINE_MODELS", str(tmp_path))
    for model, file in (
        ("piper-joe", "en_US-joe-medium.onnx"),
        ("whisper-base", "model.bin"),
        ("silero-vad", "silero_vad.onnx"),
    ):
        (tmp_path / model).mkdir()
        (tmp_path / model / file).write_bytes(b"not a model")
    sentence = fails(capsys, ["serve", "--port", "0"], Exit.MODEL)
    assert re.search(r"is damaged .*run `threadline models fetch", sentence)


def test_a_port_that_is_taken(models: object, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        sentence = fails(capsys, ["serve", "--port", port], Exit.ADDRESS)
    assert f"Cannot listen on 127.0.0.1:{port}" in sentence


@pytest.mark.parametrize("host", ["no.such.host.invalid", "x" * 64])
def test_a_host_that_is_none(models: object, capsys: pytest.CaptureFixture[str], host: str) -> None:
    assert host in fails(capsys, ["serve", "--port", "0", "--host", host], Exit.ADDRESS)


@pytest.mark.parametrize("argv", [[], ["sing"], ["serve", "--nonsense"], ["call"]])
def test_a_command_line_that_makes_no_sense(
    capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(argv)
    assert left.value.code == Exit.USAGE
    assert "usage: threadline" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "call", "demo", "models", "doctor"])
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([command, "--help"])
    assert left.value.code == 0
    assert f"threadline {command}" in capsys.readouterr().out


def test_every_setting_is_in_the_help_of_serve(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["serve", "--help"])
    out = capsys.readouterr().out
    assert "vad.hangover_ms" in out
    assert "Exit codes" in out


def test_an_interrupted_command_leaves_like_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.cli_serve, "run", interrupted)
    assert cli.main(["serve"]) == 130


def test_a_defect_of_ours_is_shown_in_full(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> int:
        raise ZeroDivisionError("injected")

    monkeypatch.setattr(cli.cli_serve, "run", broken)
    assert cli.main(["serve"]) == Exit.CRASH
    assert "ZeroDivisionError: injected" in capsys.readouterr().err
