"""What happens when the GIL comes back: before the start, and while twenty callers are on.

The server is a process of its own, because the interpreter never turns the GIL off again. It is
`threadline serve` from its command line to its exit status; only models and brain are quick ones.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import Worker, until
from prometheus_client.parser import text_string_to_metric_families
from serving import Line, Records, close_lines, get, recorded
from unsafe_extension import make_extensions

from threadline.audio import mulaw
from threadline.audio.levels import speech_bounds
from threadline.config import Pacer
from threadline.errors import Exit
from threadline.models.store import ModelStore
from threadline.threads.caller import Placed, place_calls
from threadline.threads.phone_line import CallPlan
from threadline.threads.server import FALLBACK_PREBUFFER, FALLBACK_SHARE
from threadline.wire.script import Clip

FREE = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
only_free = pytest.mark.skipif(not FREE, reason="on the GIL build the GIL cannot come back")
only_gil = pytest.mark.skipif(FREE, reason="about the build that has nothing but the GIL")

CALLERS = 20
MAX_CALLS = 24
FEWER = MAX_CALLS // FALLBACK_SHARE
SECONDS = 60.0  # turns a hang into a failure
WORDS = "I would like a table for two."


class Child(Records):
    """A server in a process of its own, seen from outside."""

    def __init__(self, popen: subprocess.Popen[bytes], folder: Path) -> None:
        super().__init__(folder / "log")
        self.popen = popen
        self.folder = folder
        until(self._listens, "the server listens", SECONDS)
        record = self.records("listening")[0]
        self.address: tuple[str, int] = (record["host"], record["port"])
        until(lambda: not self.facts()["reason"], "it is ready", SECONDS)
        until(lambda: get(self.address, "/metrics")[2], "it has measured itself", SECONDS)

    def _listens(self) -> bool:
        assert self.popen.poll() is None, self.said()
        return bool(self.records("listening"))

    def said(self) -> str:
        return (self.folder / "log").read_text()

    def facts(self) -> dict[str, Any]:
        """Of /readyz."""
        facts: dict[str, Any] = json.loads(get(self.address, "/readyz")[2])
        return facts

    def metric(self, name: str) -> float:
        page = get(self.address, "/metrics")[2].decode()
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == name:
                    return float(sample.value)
        return float("nan")

    def imports(self, name: str) -> None:
        """Have the brain import this module when it next answers a caller."""
        (self.folder / "orders" / f"late-{name}").touch()

    def imported(self, name: str) -> bool:
        return any((self.folder / "orders").glob(f"imported-*-{name}"))

    def end(self) -> int:
        """SIGTERM: the exit status."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(SECONDS)


def start(folder: Path, *flags: str, early: str = "") -> subprocess.Popen[bytes]:
    """Start it, with `rude`, which turns the GIL on, and sixty calm modules within its reach."""
    orders, decoder = folder / "orders", folder / "decoder"
    orders.mkdir()
    decoder.mkdir()
    if early:
        (orders / f"early-{early}").touch()
    unset = ("PYTHON_GIL", "THREADLINE_GIL", "THREADLINE_CONFIG")
    environ = {key: value for key, value in os.environ.items() if key not in unset}
    environ |= {"ORDERS": str(orders), "DECODER_ORDERS": str(decoder)}
    environ["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, sys.path)])
    command = [sys.executable, str(Path(__file__).with_name("fallback_server.py"))]
    command += ["--port", "0", "--max-calls", str(MAX_CALLS), "--log-format", "json", *flags]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, env=environ, stdout=log, stderr=log)


@contextmanager
def serving(folder: Path, *flags: str, early: str = "") -> Iterator[Child]:
    popen = start(folder, *flags, early=early)
    try:
        yield Child(popen, folder)
    finally:
        close_lines()
        popen.kill()
        popen.wait(SECONDS)


@pytest.fixture
def rude(tmp_path: Path) -> str:
    """An extension that has not declared itself safe."""
    make_extensions(tmp_path, "rude", safe=False)
    return "rude"


@pytest.fixture(scope="module")
def clip(models: ModelStore) -> Clip:
    codes = recorded(models, WORDS)
    return Clip(WORDS, codes, speech_bounds(mulaw.decode(codes), mulaw.RATE))


def callers(child: Child, clip: Clip, calls: int = CALLERS) -> Worker:
    """So many callers, who say four things each. Returns when all are on the line."""
    host, port = child.address
    plan = CallPlan(f"ws://{host}:{port}/twilio", (clip,) * 4, calls, timeout=SECONDS)
    worker = Worker(lambda: place_calls(plan), "callers")
    until(lambda: child.facts()["calls"] == calls, "every caller is on")
    return worker


def nobody_was_dropped(child: Child, talking: Worker) -> Placed:
    """Every caller said it all, was answered each time, and hung up himself."""
    placed = talking.join(SECONDS)
    assert isinstance(placed, Placed)
    for record in placed.calls:
        assert (record.fault, record.unsaid) == (None, 0)
        assert record.ended == "hung up here, all said"
        until(lambda one=record: child.records("call closed", call_id=one.call_sid), "its end")
        turns = child.records("turn", call_id=record.call_sid)
        assert [turn["said"] for turn in turns] == ["Hello there.", *["Very well."] * 4]
        assert all(turn["heard"] for turn in turns[1:])
    assert {one["reason"] for one in child.records("call closed")} == {"the caller hung up"}
    return placed


def in_fallback(child: Child, culprit: str) -> None:
    """The mode, on every surface of a server."""
    facts = child.facts()
    assert facts["fallback"] is True
    assert facts["gil_enabled"] is True
    assert facts["gil"].startswith("FALLBACK MODE")
    assert culprit in facts["gil"]
    assert facts["gil_remedy"]
    assert facts["limit"] == FEWER
    until(lambda: child.metric("threadline_fallback") == 1, "the page tells of it")
    assert child.metric("threadline_gil_enabled") == 1
    assert child.metric("threadline_calls_limit") == FEWER
    prebuffer = Pacer().prebuffer_ms / 1000 * FALLBACK_PREBUFFER
    assert child.metric("threadline_prebuffer_seconds") == pytest.approx(prebuffer)
    (*_, record) = child.records("gil")
    assert culprit in record["verdict"]
    assert record["remedy"] == facts["gil_remedy"]


def free_of_it(child: Child) -> None:
    facts = child.facts()
    assert (facts["fallback"], facts["gil_enabled"]) == (False, False)
    assert facts["limit"] == MAX_CALLS
    assert child.metric("threadline_fallback") == 0
    assert child.metric("threadline_prebuffer_seconds") == Pacer().prebuffer_ms / 1000
    assert not child.records("gil", level="error")


def admits_exactly(child: Child, lines: int) -> None:
    open_lines = [Line(child.address) for _ in range(lines)]
    assert [line.handshake() for line in open_lines] == [101] * lines
    late = Line(child.address)
    assert late.handshake() == 503
    assert late.refusal.startswith(f"all {lines} lines are in use")
    close_lines()


# -- before the start ------------------------------------------------------------------------------


@only_free
@pytest.mark.parametrize("policy", ["isolate", "accept"])
def test_an_early_one_starts_the_server_in_fallback_mode(
    models: ModelStore, tmp_path: Path, rude: str, policy: str
) -> None:
    with serving(tmp_path, "--gil", policy, early=rude) as child:
        in_fallback(child, rude)
        admits_exactly(child, FEWER)
        assert child.end() == Exit.OK


@only_free
@pytest.mark.parametrize(
    ("flags", "remedies"),
    [
        (["--gil", "refuse"], ["`refuse`", "Remove that module"]),
        (["--set", "start_with_gil=false"], ["start_with_gil", "--gil accept"]),
    ],
)
def test_an_early_one_that_is_not_wanted_ends_the_server_with_the_remedy(
    models: ModelStore, tmp_path: Path, rude: str, flags: list[str], remedies: list[str]
) -> None:
    popen = start(tmp_path, *flags, early=rude)
    assert popen.wait(SECONDS) == Exit.GIL
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.startswith(f"threadline: The module {rude} turned the GIL on")
    for remedy in remedies:
        assert remedy in line


@only_free
def test_who_accepts_the_gil_starts_whatever_the_image_prefers(
    models: ModelStore, tmp_path: Path, rude: str
) -> None:
    flags = ["--set", "start_with_gil=false", "--gil", "accept"]
    with serving(tmp_path, *flags, early=rude) as child:
        assert child.facts()["fallback"] is True


# -- in the middle of twenty calls -----------------------------------------------------------------


@only_free
@pytest.mark.long
@pytest.mark.parametrize("policy", ["isolate", "accept"])
def test_a_late_one_moves_a_running_server_into_fallback_mode(
    models: ModelStore, tmp_path: Path, rude: str, clip: Clip, policy: str
) -> None:
    with serving(tmp_path, "--gil", policy) as child:
        free_of_it(child)
        talking = callers(child, clip)
        child.imports(rude)
        until(lambda: child.facts()["fallback"], "it notices")
        assert child.imported(rude)
        assert child.facts()["calls"] == CALLERS
        assert child.facts()["reason"] == f"all {FEWER} lines are in use"
        late = Line(child.address)
        assert late.handshake() == 503
        assert late.refusal.startswith(f"all {FEWER} lines are in use")
        in_fallback(child, rude)
        assert child.facts()["calls"] == CALLERS, "the calls did not outlast the test of them"

        placed = nobody_was_dropped(child, talking)
        records = child.records()
        (flip,) = (
            at for at, one in enumerate(records) if one in child.records("gil", level="error")
        )
        after = {one["call_id"] for one in records[flip:] if one["event"] == "turn"}
        assert after >= {record.call_sid for record in placed.calls}, "no turn after the flip"

        until(lambda: child.facts()["calls"] == 0, "all lines are free")
        assert child.facts()["ready"] is True
        admits_exactly(child, FEWER)
        if policy == "isolate":
            doctor_tells(child, rude)
        else:
            the_recogniser_moved(child)
        assert child.end() == Exit.OK


def doctor_tells(child: Child, culprit: str) -> None:
    quick = "gil.MODULES = gil.VENDOR_MODULES = gil.RECOGNISER_MODULES = (); "
    quick += "sys.exit(cli.main(['doctor', '--json']))"
    code = f"import sys; from threadline import cli; from threadline.threads import gil; {quick}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "THREADLINE_SERVER_PORT": str(child.address[1])},
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    rows = json.loads(done.stdout)["findings"]
    (row,) = (row for row in rows if row["name"] == f"server 127.0.0.1:{child.address[1]}")
    assert f"FALLBACK MODE. The module {culprit} turned the GIL on" in row["found"]
    assert (row["standing"], row["remedy"]) == ("note", child.facts()["gil_remedy"])


def the_recogniser_moved(child: Child) -> None:
    """Out of a thread, where the GIL would hold up every other one, into a process."""
    before, after = child.records("recogniser ready")
    assert before["pid"] is None
    assert after["pid"] is not None
    assert child.records("recogniser moves to a process of its own")


@only_free
@pytest.mark.long
def test_a_late_one_that_is_refused_drains_the_server(
    models: ModelStore, tmp_path: Path, rude: str, clip: Clip
) -> None:
    with serving(tmp_path, "--gil", "refuse") as child:
        talking = callers(child, clip)
        child.imports(rude)
        child.logged("draining")
        assert child.facts()["reason"] == "this server is being stopped"
        assert child.facts()["calls"] == CALLERS
        late = Line(child.address)
        assert late.handshake() == 503
        (record,) = child.records("gil", level="error")
        assert rude in record["verdict"]
        assert "exits after the last one" in record["verdict"]
        assert "Remove that module" in record["remedy"]
        child.popen.send_signal(signal.SIGTERM)  # the first one drains, also now
        nobody_was_dropped(child, talking)
        assert child.popen.wait(SECONDS) == Exit.GIL


@only_free
@pytest.mark.long
def test_force_keeps_it_off_whenever_it_is_imported(
    models: ModelStore, tmp_path: Path, rude: str, clip: Clip
) -> None:
    make_extensions(tmp_path, "rude_too", safe=False)
    with serving(tmp_path, "--gil", "force", early=rude) as child:
        assert "the risk you took" in child.said()
        talking = callers(child, clip)
        child.imports("rude_too")
        until(lambda: child.imported("rude_too"), "the import")
        nobody_was_dropped(child, talking)
        free_of_it(child)
        assert child.imported(rude)
        assert child.facts()["gil"].startswith("The GIL is off, by force.")
        assert child.end() == Exit.OK


@only_free
@pytest.mark.long
def test_safe_modules_one_after_another_do_not_count(
    models: ModelStore, tmp_path: Path, clip: Clip
) -> None:
    """For three seconds the GIL is on at almost every look: each import lasts 50 ms."""
    names = [f"calm{number:02}" for number in range(60)]
    make_extensions(tmp_path, *names, safe=True, pause_ms=50)
    with serving(tmp_path) as child:
        talking = callers(child, clip, calls=5)
        for name in names:
            child.imports(name)
        until(lambda: child.metric("threadline_gil_enabled") == 1, "the watch sees it on")
        until(lambda: child.imported(names[-1]), "all are imported")
        nobody_was_dropped(child, talking)
        until(lambda: child.metric("threadline_gil_enabled") == 0, "and off again")
        free_of_it(child)
        assert child.end() == Exit.OK


# -- the GIL build ---------------------------------------------------------------------------------


@only_gil
def test_the_gil_build_serves_in_fallback_mode(
    models: ModelStore, tmp_path: Path, clip: Clip
) -> None:
    with serving(tmp_path) as child:
        in_fallback(child, "built with the GIL")
        nobody_was_dropped(child, callers(child, clip, calls=FEWER - 1))
        until(lambda: child.facts()["calls"] == 0, "all lines are free")
        admits_exactly(child, FEWER)
        assert child.end() == Exit.OK


@only_gil
@pytest.mark.parametrize(
    "flags", [["--gil", "refuse"], ["--gil", "force"], ["--set", "start_with_gil=false"]]
)
def test_the_gil_build_ends_with_the_remedy_where_it_is_not_wanted(
    models: ModelStore, tmp_path: Path, flags: list[str]
) -> None:
    popen = start(tmp_path, *flags)
    assert popen.wait(SECONDS) == Exit.GIL
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.startswith("threadline: This Python was built with the GIL")
    assert "python3.14t" in line
