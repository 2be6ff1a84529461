"""`threadline demo --app`: the call that is held with an agent of the user's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent / "vendors"))
from llm_server import Exchange, LlmServer

from threadline import cli, cli_demo
from threadline.errors import Exit
from threadline.models.store import ModelStore

ROOT = Path(__file__).parents[1]
ANSWER = "We are open from noon until ten, every day but Monday, and you are very welcome."


def talk(exchange: Exchange) -> None:
    exchange.stream([ANSWER])


def hold(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    out: Path,
    app: str,
) -> list[dict[str, Any]]:
    """The demo's call with a model that says one thing; the turns that the server logged."""
    monkeypatch.chdir(ROOT)
    for name in ("THREADLINE_CONFIG", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with LlmServer() as server:
        server.plans += [talk] * 50
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        ended = cli.main(["demo", "--app", app, "--out", str(out)])
        shown = capsys.readouterr().out
    assert ended == Exit.OK, shown
    for expected in ("Harbour Bistro, good evening.", "endpoint", "model asked", "voice asked"):
        assert expected in shown, expected
    assert (out / "call.png").stat().st_size > 10_000
    assert (out / "call.wav").stat().st_size > 100_000
    log = [json.loads(line) for line in (out / "server.jsonl").read_text().splitlines()]
    return [record for record in log if record["event"] == "turn"]


def test_a_question_is_answered_by_the_users_agent(
    models: ModelStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    one = list(cli_demo.LINES).index("question")
    (clip,) = cli_demo._clips(models, Console())[one : one + 1]
    monkeypatch.setattr(cli_demo, "LINES", {"question": cli_demo.LINES["question"]})
    monkeypatch.setattr(cli_demo, "_clips", lambda *_: (clip,))
    turns = hold(capsys, monkeypatch, tmp_path, "examples/bare.py:agent")
    assert [turn["said"] for turn in turns] == ["Harbour Bistro, good evening.", ANSWER]
    assert turns[1]["played"] == ANSWER
    assert turns[1]["stages_ms"]


@pytest.mark.long
def test_the_whole_call_is_held_with_the_users_agent(
    models: ModelStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    turns = hold(capsys, monkeypatch, tmp_path, "examples.bare:agent")
    assert len(turns) >= 1 + len(cli_demo.LINES)
    assert any(turn["interrupted"] for turn in turns)
