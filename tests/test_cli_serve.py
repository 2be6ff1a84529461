"""`threadline serve` as a process: how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from threadline.errors import Exit
from threadline.observe.callreport import CallRecord
from threadline.threads.caller import place_calls
from threadline.threads.phone_line import CallPlan
from threadline.wire.script import Clip

DEADLINE = 60.0  # seconds; turns a hang into a failure


class Process:
    """A server, its log, and the calls it has."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.popen = popen
        self._log = log
        self.port = int(self.logged("listening")["port"])
        self.placed: list[CallRecord] = []
        self._calls: list[threading.Thread] = []

    def logged(self, event: str) -> dict[str, Any]:
        """Wait for the first such record."""
        end = time.monotonic() + DEADLINE
        while True:
            text = self._log.read_text()
            for line in text.splitlines():
                if line.startswith("{") and line.endswith("}"):
                    record: dict[str, Any] = json.loads(line)
                    if record["event"] == event:
                        return record
            assert time.monotonic() < end, f"no {event!r} in {text}"
            assert self.popen.poll() is None, f"it ended with {self.popen.returncode}: {text}"
            time.sleep(0.01)

    def call(self, seconds: float) -> None:
        """A caller who stays on the line for so long, at least; returns when the call is on."""
        clip = Clip("silence", b"\xff" * int(8000 * seconds), None)
        plan = CallPlan(url=f"ws://127.0.0.1:{self.port}/twilio", clips=(clip,), greeting=False)
        thread = threading.Thread(target=lambda: self.placed.extend(place_calls(plan).calls))
        thread.start()
        self._calls.append(thread)
        self.logged("call opened")

    def ended(self) -> int:
        """Wait for the end: the exit code."""
        code = self.popen.wait(DEADLINE)
        for thread in self._calls:
            thread.join(DEADLINE)
            assert not thread.is_alive()
        return code


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Process]:
    """`threadline serve` on a free port."""
    log = folder / "log"
    command = [sys.executable, "-m", "threadline", "serve", "--port", "0", "--log-format", "json"]
    with log.open("wb") as stderr:
        popen = subprocess.Popen([*command, *flags], stderr=stderr, stdout=stderr)
    try:
        yield Process(popen, log)
    finally:
        popen.kill()
        popen.wait(DEADLINE)
    assert "Traceback" not in log.read_text()


def test_it_leaves_at_once_when_nobody_is_on_the_line(models: object, tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.popen.send_signal(signal.SIGINT)
        assert server.ended() == Exit.OK


def test_a_live_call_is_heard_out(models: object, tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.call(seconds=2.0)
        server.popen.send_signal(signal.SIGTERM)
        assert server.logged("draining")["calls"] == 1
        assert server.ended() == Exit.OK
        (call,) = server.placed
        assert call.fault is None
        assert call.ended == "hung up here, all said"


def test_the_second_signal_cuts_calls_off(models: object, tmp_path: Path) -> None:
    with serving(tmp_path, "--set", "server.drain_seconds=600") as server:
        server.call(seconds=120.0)
        server.popen.send_signal(signal.SIGTERM)
        server.logged("draining")
        server.popen.send_signal(signal.SIGTERM)
        assert server.ended() == Exit.DRAIN
        (call,) = server.placed
        assert call.ended == "the server hung up"
        assert call.fault is None, "it was told goodbye"


def test_a_request_that_comes_too_late_changes_nothing(models: object, tmp_path: Path) -> None:
    """At every moment of the end, the interpreter's own included."""
    with serving(tmp_path) as server:
        while server.popen.poll() is None:
            server.popen.send_signal(signal.SIGTERM)
            time.sleep(0.001)
        assert server.ended() == Exit.OK


def test_the_policy_refuse_leaves_when_the_gil_is_on(models: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "threadline", "serve", "--port", "0", "--gil", "refuse"],
        env={**os.environ, "PYTHON_GIL": "1"},
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == Exit.GIL
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("threadline: ")
    assert "refuse" in line
