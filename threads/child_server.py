"""A server in a process of its own, started and looked at from outside.

For whoever measures or shows one: the demo and the benchmarks. Runs in the thread that asks; one
more thread, `looker`, asks the server twice a second how it does and reads its threads from
/proc, until the server has ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import IO

from ..errors import Exit, ThreadlineError

READY_SECONDS = 60.0
LOOK_SECONDS = 0.5
END_SECONDS = 10.0


@dataclass(slots=True)
class ChildServer:
    """What is seen of the process. Written by the looker; read it after the `with` block."""

    pid: int
    address: str
    looks: int = 0
    gil_on: int = 0  # looks that found it on
    facts: dict[str, object] = field(default_factory=dict)  # of /readyz
    threads: dict[str, float] = field(default_factory=dict)  # CPU seconds by thread name

    def look(self) -> None:
        """Ask /readyz, read /proc."""
        _, self.facts = ready(self.address)
        if not self.facts:
            return  # it is ending
        self.looks += 1
        self.gil_on += bool(self.facts.get("gil_enabled", True))
        self.threads = cpu_by_thread(self.pid)

    def metrics(self) -> str:
        """The text of /metrics."""
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=5) as answer:
            return str(answer.read().decode())


@contextmanager
def child_server(command: Sequence[str], log: Path) -> Iterator[ChildServer]:
    """Start `command`, which must serve and log JSON to stderr, here into the file `log`.

    Yields once /readyz says yes; ends it, politely first, when the block is left. Raises
    ThreadlineError with what the server said when it ended instead of getting ready.
    """
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr)
    over = threading.Event()
    try:
        server = ChildServer(process.pid, _wait_until_ready(process, log))
        looker = threading.Thread(target=_keep_looking, args=(server, over), name="looker")
        looker.start()
        try:
            yield server
        finally:
            over.set()
            looker.join()
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _keep_looking(server: ChildServer, over: threading.Event) -> None:
    while not over.wait(LOOK_SECONDS):
        server.look()


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address, once /readyz says yes."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
            sentence = said[0].removeprefix("threadline: ") if said else "it said nothing"
            error = ThreadlineError(f"The server did not start: {sentence}")
            error.exit_code = _exit_code(process.returncode)
            raise error
        address = _address(log)
        if address and ready(address)[0]:
            return address
        time.sleep(0.05)
    raise ThreadlineError(
        f"The server was not ready after {READY_SECONDS:g} s: {log} says what it was doing."
    )


def _exit_code(returned: int) -> Exit:
    try:
        return Exit(returned)
    except ValueError:
        return Exit.CRASH


def _address(log: Path) -> str:
    for line in log.read_text("utf-8", "replace").splitlines():
        if '"listening"' in line:
            record = json.loads(line)
            return f"{record['host']}:{record['port']}"
    return ""


def ready(address: str) -> tuple[bool, dict[str, object]]:
    """What /readyz says, and its facts; none when nobody answers."""
    try:
        try:
            with urllib.request.urlopen(f"http://{address}/readyz", timeout=2) as answer:
                return True, _facts(answer)
        except urllib.error.HTTPError as error:
            with error:
                return False, _facts(error)
    except OSError, ValueError, HTTPException:
        return False, {}


def _facts(answer: IO[bytes]) -> dict[str, object]:
    """ValueError when something else than this server answers there."""
    facts = json.load(answer)
    if not isinstance(facts, dict):
        raise ValueError("not an object")  # as what is no JSON at all
    return facts


def cpu_by_thread(pid: int) -> dict[str, float]:
    """CPU seconds by thread name, from /proc; threads of one name are added up."""
    found: dict[str, float] = {}
    tick = os.sysconf("SC_CLK_TCK")
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            stat = (task / "stat").read_text()
        except OSError:  # it has just ended
            continue
        name, _, rest = stat.partition("(")[2].rpartition(")")
        fields = rest.split()  # from proc(5)'s field 3 on: 14 and 15 are utime and stime
        found[name] = found.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / tick
    return found
