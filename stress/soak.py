"""``just soak``: what one server process holds after ten thousand calls, or many minutes.

    just soak --calls 10000                        short calls, many at a time; 10 minutes
    just soak --minutes 10 --calls-at-once 100     a steady load in real time
    just soak --page                               only write the page anew, from the last runs

The whole cloud cascade, the vendors played by local servers. Short calls leave in every way there
is: after the greeting, after an answer, in the middle of one, before they began; with the
carrier's stop, a WebSocket close, the end of the stream, a reset. Once a second the process is
looked at from outside: resident memory, threads, descriptors, slots in use, collections.

Exit status 0 when nothing grew, no call failed and, under the steady load, the watchdog had
nothing to report. Writes docs/soak.md and docs/soak.png.
"""

from __future__ import annotations

import argparse
import json
import random
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import override

from rich.console import Console
from rich.progress import Progress

from threadline.audio import mulaw
from threadline.errors import ConfigError, ThreadlineError
from threadline.threads.caller import place_calls
from threadline.threads.calls import FRAME
from threadline.threads.phone_line import CallPlan
from threadline.wire.script import Clip

from . import soak_page
from .bench.phone import spoken, value, voice
from .bench.vendors import Latencies
from .bout import Bout
from .flags import amount, command_line, count, told
from .phones import Phone
from .soak_page import Run
from .soak_server import HEARD, Looks, cascade, result

ROOT = Path(__file__).parents[1]
QUICK = Latencies(final=20.0, first_token=30.0, token=2.0, first_audio=30.0, speed=20.0)
SILENCE_FRAMES = 16  # they end the turn
PATIENCE = 15.0  # s for one answer
CALLERS = 4  # threads of ours
DIAL_AGAIN = 0.2  # s after a refusal: a server that has no room says so
GIVE_UP = 100  # refusals of one call
WAYS = ("stop", "stop", "close", "end of stream", "reset")
KINDS = ("calls", "steady")


@told
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line("just soak", __doc__)
    add = parser.add_argument
    add("--calls", type=count, default=0, help="short calls in all")
    add("--minutes", type=amount, default=0.0, help="a steady load for so long")
    add("--calls-at-once", type=count, default=0, help="(40 short ones, 100 steady ones)")
    add("--seed", type=int, default=1, help="of who leaves when and how")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the server")
    add("--page", action="store_true", help="run nothing")
    add("--phones", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.phones:
        return _hold(*args.phones)
    console, kept = Console(highlight=False), ROOT / "out" / "soak"
    kept.mkdir(parents=True, exist_ok=True)
    ok = True
    if not (args.calls or args.minutes or args.page):
        raise ConfigError("Say how long: --calls 10000, or --minutes 10.")
    if args.calls:
        run = short(args.calls, args.calls_at_once or 40, args.seed, args.set, console)
        ok &= _told(run, kept, console)
        ok &= _frames(kept, console)
    if args.minutes:
        run = steady(args.minutes, args.calls_at_once or 100, args.set, console)
        ok &= _told(run, kept, console)
    runs = [Run.load(file) for kind in KINDS if (file := kept / f"{kind}.json").exists()]
    garbage = kept / "garbage.json"
    found = json.loads(garbage.read_text("utf-8")) if garbage.exists() else {}
    soak_page.write(ROOT / "docs", runs, found)
    console.print("docs/soak.md is written")
    return int(not ok)


def _told(run: Run, kept: Path, console: Console) -> bool:
    run.save(kept / f"{run.kind}.json")
    for line in soak_page.lines(run):
        console.print(line, soft_wrap=True)
    return not run.problems()


def _frames(kept: Path, console: Console) -> bool:
    """Whether frames leave garbage behind: in a process of its own, whose collector it uses."""
    done = subprocess.run(
        [sys.executable, "-m", "stress.soak_garbage"], stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise ThreadlineError("The count of garbage failed; what it said is above.")
    (kept / "garbage.json").write_bytes(done.stdout)
    rounds = [one for way in json.loads(done.stdout).values() for one in way]
    frames = sum(one["heard"] + one["said"] for one in rounds)
    objects = sum(one["objects"] for one in rounds)
    console.print(f"{frames:,} frames left {objects} objects to the collector")
    return bool(objects < frames / 1000)


# -- ten thousand short calls ---------------------------------------------------------------------


def short(calls: int, at_once: int, seed: int, settings: Sequence[str], console: Console) -> Run:
    """So many calls, one after another, `at_once` at a time."""
    clip = spoken(voice(), HEARD, "yes")
    bout = Bout("soak", seed, 1.0)
    with cascade(QUICK, at_once + CALLERS, settings) as (server, log), Looks(server) as looks:
        host, _, port = server.address.rpartition(":")
        crews = [
            Callers(bout, number, (host, int(port)), clip, calls, at_once)
            for number in range(CALLERS)
        ]
        with Progress(console=console, transient=True) as bar, ThreadPoolExecutor(CALLERS) as pool:
            task = bar.add_task(f"{calls:,} calls", total=calls)
            futures = [pool.submit(crew.run) for crew in crews]
            while not all(future.done() for future in futures):
                looks.done = sum(crew.done for crew in crews)
                bar.update(task, completed=looks.done)
                time.sleep(0.2)
            for future in futures:
                future.result()
        looks.done = sum(crew.done for crew in crews)
        looks.rest()
        counts: Counter[str] = Counter()
        for crew in crews:
            counts += crew.counts
        looks.end()
        return result("calls", at_once, looks, counts, log)


class Caller(Phone):
    """A phone that says "yes" in one burst: the server's VAD counts audio, not time."""

    def __init__(
        self, bout: Bout, number: int, address: tuple[str, int], rng: random.Random
    ) -> None:
        super().__init__(bout, number, address, full=False)
        self.way = rng.choice(WAYS)
        self.turns = rng.choices((0, 1, 2), (5, 4, 1))[0]
        self.begins = rng.random() > 0.02  # else it leaves between the upgrade and the start
        self.patience = rng.randrange(1, 15)  # frames of an answer before it goes on
        self.deadline = time.monotonic() + PATIENCE

    @override
    def _media(self, text: str) -> None:
        self.frames += 1
        self.fresh += 1
        self._cleared = False

    @override
    def _check_mark(self, epoch: int, clause: str) -> None:
        """What is said is not ours to judge here."""

    def speak(self, clip: Clip) -> None:
        """A whole turn."""
        self.turns -= 1
        self.fresh = 0
        self.deadline = time.monotonic() + PATIENCE
        codes = clip.codes + mulaw.SILENCE_BYTE * (
            -len(clip.codes) % FRAME + SILENCE_FRAMES * FRAME
        )
        frames = (codes[at : at + FRAME] for at in range(0, len(codes), FRAME))
        self.send(*map(self.carrier.media, frames))

    def leave(self) -> None:
        """In its way; the socket is ours no more after a reset."""
        self.leaving = True
        self.deadline = time.monotonic() + PATIENCE
        if self.way == "reset":
            self.cut()
        elif self.way == "close":
            self._write(b"\x88\x82" + bytes(4) + (1000).to_bytes(2))
        elif self.way == "stop" and self.begins:
            self.hang_up()
        else:
            self.sock.shutdown(socket.SHUT_WR)


class Callers:
    """One thread of ours, with every `CALLERS`-th of the calls."""

    def __init__(
        self,
        bout: Bout,
        number: int,
        address: tuple[str, int],
        clip: Clip,
        calls: int,
        at_once: int,
    ) -> None:
        self.done = 0
        self.counts: Counter[str] = Counter()
        self._bout, self._address, self._clip = bout, address, clip
        self._rng = bout.draws(f"callers {number}")
        self._numbers = iter(range(number, calls, CALLERS))
        self._refused = (0, 0)  # the number that was, and how often
        self._dial_at = 0.0
        self._most = max(1, at_once // CALLERS)
        self._live: dict[int, Caller] = {}
        self._poll = select.epoll()

    def run(self) -> None:
        """All of them."""
        more = True
        try:
            while more or self._live:
                more = more and (len(self._live) >= self._most or self._place())
                for fd, _ in self._poll.poll(0.02 if len(self._live) >= self._most else 0.002, 64):
                    caller = self._live[fd]
                    caller.read()
                    self._go_on(caller, fd)
                now = time.monotonic()
                for fd, caller in list(self._live.items()):
                    if now > caller.deadline:
                        self.counts["overstayed" if caller.leaving else "unanswered"] += 1
                        self._forget(caller, fd)
        finally:
            for caller in self._live.values():
                caller.close()
            self._poll.close()

    def _place(self) -> bool:
        if time.monotonic() < self._dial_at:
            return True
        number, times = self._refused
        if not times:
            following = next(self._numbers, None)
            if following is None:
                return False
            number = following
        caller = Caller(self._bout, number, self._address, self._rng)
        status = caller.upgrade()
        self._refused = (number, times + 1) if status != 101 else (0, 0)
        if status != 101:
            caller.close()
            self._turn_away(status)
            return True
        fd = caller.sock.fileno()
        self._live[fd] = caller
        self._poll.register(fd, select.EPOLLIN)
        if caller.begins:
            caller.start()
        else:
            self._leave(caller, fd)
        return True

    def _turn_away(self, status: int) -> None:
        self.counts[f"refused with {status}"] += 1
        self._dial_at = time.monotonic() + DIAL_AGAIN
        if self._refused[1] == GIVE_UP:
            self.counts["given up"] += 1
            self.done += 1
            self._refused = (0, 0)

    def _go_on(self, caller: Caller, fd: int) -> None:
        if caller.gone:
            self.counts["ended by the server"] += not caller.leaving
            self._forget(caller, fd)
        elif not caller.leaving and caller.fresh >= caller.patience:
            if caller.turns:
                caller.speak(self._clip)
                self.counts["turns"] += 1
            else:
                self._leave(caller, fd)

    def _leave(self, caller: Caller, fd: int) -> None:
        self.counts[f"left by {caller.way}"] += 1
        if caller.way == "reset":
            self._poll.unregister(fd)
            caller.leave()
            self._forget(caller, fd)
        else:
            caller.leave()

    def _forget(self, caller: Caller, fd: int) -> None:
        self.done += 1
        self.counts["frames heard"] += caller.frames
        self.counts["interruptions"] += caller.clears
        del self._live[fd]
        caller.close()  # which takes it out of the poll


# -- a steady load ---------------------------------------------------------------------------------


def steady(minutes: float, at_once: int, settings: Sequence[str], console: Console) -> Run:
    """`at_once` calls in real time, replaced as they end."""
    speaker = voice()
    with (
        tempfile.TemporaryDirectory() as folder,
        cascade(Latencies(), at_once + CALLERS, settings) as (server, log),
        Looks(server) as looks,
    ):
        clip = Path(folder) / "line"
        clip.write_bytes(spoken(speaker, HEARD, "line").codes)
        url = f"ws://{server.address}/twilio"
        counts: Counter[str] = Counter()
        with Progress(console=console, transient=True) as bar, ThreadPoolExecutor(1) as pool:
            task = bar.add_task(f"{at_once} calls for {minutes:g} minutes", total=minutes * 60)
            command = [url, str(at_once), str(minutes * 60), str(clip)]
            phones = pool.submit(_phones, command)
            while not phones.done():
                looks.done = int(value(server.metrics(), "threadline_calls_opened_total"))
                bar.update(task, completed=looks.seconds)
                time.sleep(1.0)
            counts.update(phones.result())
        looks.rest()
        looks.end()
        return result("steady", at_once, looks, counts, log)


def _phones(command: list[str]) -> dict[str, int]:
    """The callers, in a process of their own."""
    with tempfile.NamedTemporaryFile("r") as told:
        phones = [sys.executable, "-m", "stress.soak", "--phones", *command, told.name]
        if subprocess.run(phones, check=False).returncode:
            raise ThreadlineError("The callers failed; what they said is above.")
        found: dict[str, int] = json.load(told)
        return found


def _hold(url: str, calls: str, seconds: str, clip: str, told: str) -> int:
    """In that process: each thread places its share of the calls again and again."""
    from .bench.phone import clip as as_clip

    line = as_clip("line", Path(clip).read_bytes())
    end = time.monotonic() + float(seconds)

    def share(number: int) -> Counter[str]:
        counts: Counter[str] = Counter()
        plan = CallPlan(
            url=url,
            clips=(line,) * 8,
            calls=int(calls) // CALLERS + (number < int(calls) % CALLERS),
            stagger_ms=211.0,
            greeting=number % 2 == 0,  # the others speak at once, over it
            timeout=600.0,
        )
        while plan.calls and time.monotonic() < end:
            for record in place_calls(plan).calls:
                counts["calls"] += 1
                counts["turns"] += len(plan.clips) - record.unsaid
                if record.fault is not None:
                    counts["dropped"] += 1
                    counts[str(record.fault)] += 1
        return counts

    with ThreadPoolExecutor(CALLERS) as pool:
        total = sum(pool.map(share, range(CALLERS)), Counter())
    Path(told).write_text(json.dumps(total), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
