"""Local stand-ins for the three vendors, with fixed latencies, each a process of its own.

They are the servers that the tests use (tests/vendors): the true wire protocols on loopback.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from threadline.errors import ThreadlineError

_SERVERS = Path(__file__).parents[2] / "tests" / "vendors"
CASCADE = ("--stt", "deepgram", "--llm", "openai", "--tts", "cartesia")
"""Flags of a server that uses all three."""


@dataclass(frozen=True, slots=True)
class Latencies:
    """What each vendor takes, in ms; `speed`: seconds of audio made in one second."""

    final: float = 60.0  # from Finalize to the final transcript
    first_token: float = 150.0
    token: float = 10.0
    first_audio: float = 90.0
    speed: float = 5.0


@contextmanager
def vendors(
    heard: str,
    answer: str,
    latencies: Latencies = Latencies(),
    wrap: Callable[[list[str]], list[str]] = lambda command: command,
    tool: str = "",
) -> Iterator[dict[str, str]]:
    """Deepgram that hears `heard`, a model that says `answer`, Cartesia; yields the environment
    that points a server at them. `wrap` may put something before each command (taskset). The
    model first wants the function `tool`, when one is named."""
    commands = {
        "deepgram": ["--final-ms", f"{latencies.final:g}", "--text", heard],
        "llm": [
            *("--first-ms", f"{latencies.first_token:g}"),
            *("--token-ms", f"{latencies.token:g}", "--text", answer, "--tool", tool),
        ],
        "cartesia": [
            *("--first-ms", f"{latencies.first_audio:g}", "--speed", f"{latencies.speed:g}"),
        ],
    }
    processes: list[subprocess.Popen[bytes]] = []
    try:
        ports = {}
        for name, flags in commands.items():
            process = _start(name, flags, wrap)
            processes.append(process)
            ports[name] = _port(name, process)
        yield {
            "DEEPGRAM_API_KEY": "local",
            "DEEPGRAM_URL": f"ws://127.0.0.1:{ports['deepgram']}",
            "OPENAI_API_KEY": "local",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{ports['llm']}/v1",
            "CARTESIA_API_KEY": "local",
            "CARTESIA_URL": f"ws://127.0.0.1:{ports['cartesia']}",
        }
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.communicate(timeout=5)  # closes our end of its pipe, too
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _start(
    name: str, flags: Sequence[str], wrap: Callable[[list[str]], list[str]]
) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(_SERVERS / f"{name}_server.py"), "--port", "0", *flags]
    return subprocess.Popen(wrap(command), stdout=subprocess.PIPE)


def _port(name: str, process: subprocess.Popen[bytes]) -> int:
    """The port that the server names on its first line."""
    assert process.stdout is not None, "it was started with a pipe"
    line = process.stdout.readline()
    if not line:
        raise ThreadlineError(f"The local {name} server did not start: run its file to see why.")
    return int(json.loads(line)["port"])
