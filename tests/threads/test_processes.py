"""`threadline serve --processes`: several real processes behind one port, and their vendors."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest
from helpers import DEADLINE, until
from prometheus_client.parser import text_string_to_metric_families
from serving import Line

CHILDREN = 2
LINES = 2  # of each


@contextmanager
def serving(folder, *flags):
    """The parent process, its log, and its port. Local recogniser and voice."""
    log = folder / "log.jsonl"
    command = [sys.executable, "-m", "threadline", "serve", "--port", "0", "--log-format", "json"]
    command += ["--processes", str(CHILDREN), "--max-calls", str(LINES)]
    command += ["--set", "server.drain_seconds=20", "--set", "endpoint.mode=silence"]
    command += ["--set", "server.silent_peer_seconds=600", *flags]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, stdin=subprocess.DEVNULL)
    try:
        until(lambda: len(records(log, "listening")) == CHILDREN, "every process listens", 60)
        port = records(log, "listening")[0]["port"]
        until(lambda: ready(port).get("ready"), "some process is ready", 60)
        yield process, log, port
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(DEADLINE)


def records(log, event):
    found = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    return [one for one in found if one.get("event") == event]


def ready(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return json.load(error)


def page(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()


def on_the_line(port):
    """Calls by process."""
    return {
        sample.labels["process"]: int(sample.value)
        for family in text_string_to_metric_families(page(port))
        for sample in family.samples
        if sample.name == "threadline_calls"
    }


@pytest.mark.long
def test_several_processes_are_one_server(models, tmp_path):
    with serving(tmp_path) as (process, log, port):
        pids = {one["process"]: one["pid"] for one in records(log, "process started")}
        assert set(pids) == {0, 1}

        lines = [Line(("127.0.0.1", port)) for _ in range(CHILDREN * LINES)]
        for line in lines:  # every line of every process, and no call refused
            line.start()
        until(lambda: on_the_line(port) == {"0": LINES, "1": LINES}, "all lines are in use")
        assert ready(port)["calls_in_all"] == CHILDREN * LINES
        assert not ready(port)["ready"]

        os.kill(pids[0], signal.SIGKILL)  # as a crash in native code: its own calls are lost
        until(lambda: len(records(log, "process started")) == CHILDREN + 1, "it is replaced", 60)
        until(lambda: ready(port).get("ready"), "and takes calls", 60)
        for line in lines:
            line.read(0)
        left = [line for line in lines if not line.gone]
        assert len(left) == LINES

        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        until(lambda: len(records(log, "draining")) == CHILDREN, "both drain")
        for line in left:
            line.hang_up()
        assert process.wait(DEADLINE) == 0
        assert time.monotonic() - began < DEADLINE


def test_a_setting_that_none_can_start_with_ends_the_parent_too(tmp_path):
    environ = {**os.environ, "THREADLINE_MODELS": str(tmp_path / "none")}
    command = [sys.executable, "-m", "threadline", "serve", "--port", "0", "--processes", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60)
    assert ended.returncode == 3
    assert "models fetch" in ended.stderr
    assert "Traceback" not in ended.stderr
