"""`threadline models`: its words, its exit codes, its help."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import pytest

from threadline import cli_models
from threadline.errors import ConfigError, Exit
from threadline.models.store import Carrier, File, Model, ModelStore, Part

CONTENT = b"weights"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    """Every command sees a table of one small model, in a folder of its own."""
    part = Part(Carrier("carrier==1.0", 7), "carrier/net.bin")
    digest = hashlib.sha256(CONTENT).hexdigest()
    row = Model("net", "a network", "MIT", (File("net.bin", 7, digest, (part,)),))
    store = ModelStore(tmp_path / "store", table={"net": row})
    monkeypatch.setattr(
        cli_models,
        "ModelStore",
        lambda folder: ModelStore(folder or store.folder, table=store.table),
    )
    return store


def run(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="threadline")
    cli_models.add_parser(parser.add_subparsers())
    args = parser.parse_args(["models", *words])
    return int(args.run(args))


def put(folder: Path, content: bytes = CONTENT) -> None:
    (folder / "net").mkdir(parents=True, exist_ok=True)
    (folder / "net" / "net.bin").write_bytes(content)


def test_list_shows_every_model_and_the_folder(
    store: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("list") == Exit.OK
    absent = capsys.readouterr().out
    assert "net" in absent
    assert "absent" in absent
    assert "MIT" in absent
    assert str(store.folder) in absent
    put(store.folder)
    run("list")
    assert "present" in capsys.readouterr().out


def test_verify_names_the_remedy(store: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
    put(store.folder, CONTENT[::-1])
    assert run("verify") == Exit.MODEL
    said = capsys.readouterr().out
    assert "damaged" in said
    assert "threadline models fetch net" in said
    put(store.folder, CONTENT)
    assert run("verify", "net") == Exit.OK


def test_fetch_hands_names_and_progress_on(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def fake(target: ModelStore, names: list[str], progress: object) -> None:
        asked.append((target.folder, names))
        put(target.folder)
        progress("net", 3, 7)  # type: ignore[operator]  # the callback under test
        progress("net", 7, 7)  # type: ignore[operator]  # the callback under test

    monkeypatch.setattr(cli_models, "fetch", fake)
    assert run("fetch", "net") == Exit.OK
    assert asked == [(store.folder, ["net"])]
    assert str(store.folder) in capsys.readouterr().out


def test_another_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "elsewhere")
    assert run("verify", "--folder", str(tmp_path / "elsewhere")) == Exit.OK
    assert run("verify") == Exit.MODEL


@pytest.mark.parametrize("action", ["fetch", "verify"])
def test_an_unknown_model_is_a_wrong_argument(action: str) -> None:
    with pytest.raises(ConfigError, match=r"no model 'nett': choose from net\."):
        run(action, "nett")


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    said = capsys.readouterr().out
    assert "examples:" in said
    assert "threadline models fetch whisper-base" in said
