"""``just rolling``: every server is replaced behind a balancer while calls go on; none is dropped.

Debian's haproxy with deploy/haproxy.cfg, two servers behind it, callers that come one after
another and stay for half a minute. Then, one at a time, each server is replaced: a new one starts
on a port of its own, the old one gets SIGTERM, is given no further call, and ends by itself when
its last caller has hung up. Prints what happened when, and which server had how many calls.

    just rolling                 50 calls at a time, a minute and a half
    just rolling --calls 20
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from threadline.errors import Exit, ThreadlineError
from threadline.threads.caller import Placed, place_calls
from threadline.threads.child_server import ready
from threadline.threads.phone_line import CallPlan
from threadline.wire.script import Clip

from .bench.phone import spoken, voice
from .flags import command_line, count, told

ROOT = Path(__file__).parents[1]
NAMES = ("FIRST", "SECOND", "THIRD")
LINES = 1  # the answer to it takes 20 s
WAIT_SECONDS = 90.0


@dataclass
class Backend:
    """One place behind the balancer, and the server that is there just now."""

    name: str
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    codes: list[int] = field(default_factory=list)

    def start(self) -> None:
        command = [sys.executable, "-m", "stress.bench.tone_server", "--port", str(self.port)]
        command += ["--max-calls", "64", "--log-format", "json"]
        command += ["--set", "server.drain_seconds=90"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        _until(lambda: ready(f"127.0.0.1:{self.port}")[0], f"{self.name} is ready")

    def calls(self) -> int:
        found = ready(f"127.0.0.1:{self.port}")[1].get("calls", 0)
        return found if isinstance(found, int) else 0

    def leave(self) -> None:
        """SIGTERM; the balancer sees it red, the callers who are on stay."""
        assert self.process is not None, "it was started"
        self.process.send_signal(signal.SIGTERM)

    def gone(self) -> bool:
        assert self.process is not None, "it was started"
        if self.process.poll() is None:
            return False
        self.codes.append(self.process.returncode)
        self.process = None
        return True


@told
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line("just rolling", __doc__)
    parser.add_argument("--calls", type=count, default=50, help="at once")
    args = parser.parse_args(argv)
    console = Console(highlight=False)
    haproxy = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if haproxy is None:
        print("There is no haproxy here: install Debian's package haproxy.", file=sys.stderr)
        return Exit.USAGE
    return _roll(console, haproxy, args.calls)


def _roll(console: Console, haproxy: str, calls: int) -> int:
    line, began = spoken(voice(), "A table for four, please.", "line"), time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - began:6.1f} s  {text}")

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ports = _free_ports(len(NAMES) + 1)
        places = [
            Backend(name.lower(), port, Path(folder) / f"{name}.log")
            for name, port in zip(NAMES, ports[1:], strict=True)
        ]
        for place in places:
            stack.callback(_end, place)
        for place in places[:2]:
            place.start()
        stack.enter_context(_balancer(haproxy, Path(folder), ports[0], places))
        _until(lambda: ready(f"127.0.0.1:{ports[0]}")[0], "the balancer is ready")
        say("two servers behind the balancer")
        crowd = Crowd(f"ws://127.0.0.1:{ports[0]}/twilio", line, calls)
        stack.callback(crowd.end)
        crowd.start()
        _until(lambda: sum(place.calls() for place in places[:2]) >= calls, "all callers are on")
        say(_table(places))
        spare = places[2]
        for leaving in places[:2]:
            spare.start()
            say(f"{spare.name} has started; {leaving.name} gets SIGTERM with "
                f"{leaving.calls()} calls on the line")  # fmt: skip
            leaving.leave()
            _until(leaving.gone, f"{leaving.name} has ended")
            say(f"{leaving.name} has ended with exit code {leaving.codes[-1]}; {_table(places)}")
            spare = leaving
        placed = crowd.finish()
    return _verdict(console, placed, [code for place in places for code in place.codes])


class Crowd:
    """Callers in rounds, so that there are always some; each round on a thread of its own."""

    ROUNDS = 4

    def __init__(self, url: str, line: Clip, calls: int) -> None:
        self._plan = CallPlan(
            url=url,
            clips=(line,) * LINES,
            calls=-(-calls // self.ROUNDS),
            stagger_ms=80.0,
            greeting=False,
            timeout=180.0,
        )
        self._over = threading.Event()
        self._placed: list[Placed] = []
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._keep_calling, name=f"callers-{n}")
            for n in range(self.ROUNDS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def _keep_calling(self) -> None:
        try:
            while not self._over.is_set():
                self._placed.append(place_calls(self._plan))
        except BaseException as error:  # noqa: BLE001  # raised again in `finish`
            self._errors.append(error)

    def finish(self) -> list[Placed]:
        """No further callers; what became of all of them."""
        self.end()
        if self._errors:
            raise self._errors[0]
        return self._placed

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()


def _verdict(console: Console, placed: Sequence[Placed], codes: Sequence[int]) -> int:
    records = [record for one in placed for record in one.calls]
    dropped = [record for record in records if record.fault is not None]
    unsaid = sum(record.unsaid for record in records)
    for record in dropped[:5]:
        console.print(f"dropped: {record.fault}")
    console.print(
        f"{len(records)} calls, {len(dropped)} dropped, {unsaid} lines unsaid; "
        f"the servers that were replaced ended with {', '.join(map(str, codes))}"
    )
    good = not dropped and not unsaid and all(code == 0 for code in codes) and len(codes) == 2
    return Exit.OK if good else Exit.FAILED


def _balancer(haproxy: str, folder: Path, front: int, places: Sequence[Backend]) -> ExitStack:
    environ = {
        **os.environ,
        "THREADLINE_FRONT": f"127.0.0.1:{front}",
        "THREADLINE_STATS": str(folder / "haproxy.sock"),
        **{f"THREADLINE_{place.name.upper()}": f"127.0.0.1:{place.port}" for place in places},
    }
    process = subprocess.Popen(
        [haproxy, "-db", "-q", "-f", str(ROOT / "deploy" / "haproxy.cfg")], env=environ
    )
    stack = ExitStack()
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return stack


def _end(place: Backend) -> None:
    if place.process is not None:
        place.process.kill()
        place.process.wait()


def _table(places: Sequence[Backend]) -> str:
    return ", ".join(f"{place.name}: {place.calls()}" for place in places if place.process)


def _until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise ThreadlineError(f"Not within {WAIT_SECONDS:g} s: {what}.")
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(sock.getsockname()[1]) for sock in socks]


if __name__ == "__main__":
    sys.exit(main())
