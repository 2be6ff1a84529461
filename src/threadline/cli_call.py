"""``threadline call``: a phone and the telephone company in front of it, to try a server with.

Everything that is watched goes to stderr, the result to stdout, so that ``--json`` can be piped.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .audio import mulaw, wav
from .audio.levels import speech_bounds
from .errors import ConfigError, Exit
from .observe.callreport import CallReport, judge, server_turns, summary
from .observe.live import Board
from .observe.timeline import draw
from .observe.waterfall import waterfall
from .threads.caller import place_calls
from .threads.phone_line import CallPlan
from .wire.script import Barge, Clip

_POLL_SECONDS = 0.1  # of the plain printer


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command; its namespace goes to `run`."""
    parser = subparsers.add_parser(
        "call",
        help="place calls to a server, as Twilio would",
        description="Place calls to a server as Twilio does and measure what the caller gets: "
        "each clip is said after the reply to the one before has ended. Exit status 0 when every "
        "turn was answered and no call was dropped, 1 when not, 5 when the server cannot be "
        "reached.",
    )
    add = parser.add_argument
    add("url", metavar="URL", help="ws://HOST:PORT/twilio")
    add("--wav", nargs="+", required=True, type=Path, metavar="FILE", help="what the caller says")
    add("--calls", type=_whole(1), default=1, metavar="N", help="calls at once")
    add("--stagger-ms", type=_number(0), default=0.0, metavar="MS", help="between their starts")
    add("--no-greeting", action="store_true", help="speak at once, wait for no greeting")
    add("--barge-at", type=_number(0), metavar="S", help="interrupt S seconds into a reply")
    add("--barge-turn", type=_whole(0), default=1, metavar="N",
        help="which reply: the one to clip N, 0 for the greeting (default 1)")  # fmt: skip
    add("--phone-buffer-ms", type=_number(0), default=40.0, metavar="MS",
        help="playout buffer of the phone (default 40)")  # fmt: skip
    add("--quiet-ms", type=_number(0), default=300.0, metavar="MS",
        help="silence after which a reply counts as over (default 300)")  # fmt: skip
    add("--answer-within", type=_number(0), default=10.0, metavar="S",
        help="a later answer counts as none (default 10)")  # fmt: skip
    add("--timeout", type=_number(0), default=300.0, metavar="S",
        help="bound on a whole call (default 300)")  # fmt: skip
    add("--noise-dbfs", type=_number(-120), default=-65.0, metavar="DB",
        help="line noise between clips (default -65)")  # fmt: skip
    add("--auth-token", default="", metavar="TOKEN", help="sign the call as the carrier would")
    add("--record", type=Path, metavar="WAV", help="stereo: caller left, agent right")
    add("--picture", type=Path, metavar="FILE", help="timeline as .png or .svg")
    add("--server-log", type=Path, metavar="FILE",
        help="the server's JSON log: its words, and what each answer waited for")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Place the calls, tell the result, return the exit status.

    Raises ThreadlineError when no call could be placed at all.
    """
    plan = plan_of(args)
    board = Board(plan.calls)
    with watched(board, Console(stderr=True)):
        placed = place_calls(plan, board)
    log = server_turns(args.server_log) if args.server_log else {}
    reports = [judge(record, log.get(record.call_sid, ())) for record in placed.calls]
    for number, report in enumerate(reports, 1):
        if args.record:
            left, right = (
                mulaw.decode(side.tobytes()) for side in (report.record.caller, report.record.agent)
            )
            wav.write_stereo(_numbered(args.record, number, plan.calls), left, right, mulaw.RATE)
        if args.picture:
            draw(report, _numbered(args.picture, number, plan.calls))
    result = summary(reports, placed.client_lateness_ms)
    if args.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        _tell(result, reports)
    return _status(reports, result)


def plan_of(args: argparse.Namespace) -> CallPlan:
    """The flags as a plan. Raises ConfigError for a clip that cannot be used."""
    clips = tuple(load_clip(path) for path in args.wav)
    barge = None if args.barge_at is None else Barge(args.barge_at, args.barge_turn)
    if barge and barge.turn >= len(clips):
        raise ConfigError(
            f"--barge-turn {barge.turn} leaves no clip to interrupt with: "
            f"give {barge.turn + 1} files after --wav, or a lower turn"
        )
    return CallPlan(
        url=args.url,
        clips=clips,
        calls=args.calls,
        stagger_ms=args.stagger_ms,
        greeting=not args.no_greeting,
        barge=barge,
        phone_buffer_ms=args.phone_buffer_ms,
        quiet_ms=args.quiet_ms,
        answer_within=args.answer_within,
        timeout=args.timeout,
        noise_dbfs=args.noise_dbfs,
        auth_token=args.auth_token,
    )


def load_clip(path: Path) -> Clip:
    """A WAV file of any rate as a clip, with the true bounds of its speech."""
    codes = wav.read_mulaw(path)
    first, last = speech_bounds(mulaw.decode(codes), mulaw.RATE)
    return Clip(path.stem, codes, (first, last) if last else None)


@contextmanager
def watched(board: Board, console: Console) -> Iterator[None]:
    """Show the board from a thread of its own, so that the calls' loop never draws."""
    if console.is_terminal:
        with Live(
            console=console,
            get_renderable=lambda: board.draw(console.width),
            refresh_per_second=8,
            transient=False,
        ):
            yield
        return
    over = threading.Event()
    printer = threading.Thread(target=_print, args=(board, console, over), name="printer")
    printer.start()
    try:
        yield
    finally:
        over.set()
        printer.join()


def _print(board: Board, console: Console, over: threading.Event) -> None:
    printed, last = 0, False
    while not last:
        last = over.wait(_POLL_SECONDS)
        for event in board.events[printed:]:
            console.print(board.line(event), soft_wrap=True)
            printed += 1


def _tell(result: dict[str, Any], reports: Sequence[CallReport]) -> None:
    console = Console()
    if len(reports) == 1:
        table = Table(box=None, header_style="dim", pad_edge=False)
        for name in ("turn", "clip", "response ms", "interrupted ms", "heard", "said"):
            table.add_column(name, justify="right" if name.endswith("ms") else "left")
        for turn in reports[0].turns:
            missing = "unanswered" if turn.unanswered else "early" if turn.early else ""
            server = turn.server
            words = (Text(server.heard), Text(server.said)) if server else ()  # never markup
            response = missing if turn.response_ms is None else f"{turn.response_ms:.0f}"
            barge = "" if turn.barge_ms is None else f"{turn.barge_ms:.0f}"
            table.add_row(str(turn.number), Text(turn.clip or "greeting"), response, barge, *words)
        console.print(table)
        for turn in reports[0].turns:
            if turn.server and turn.server.stages_ms:
                console.print()
                console.print(waterfall(turn, console.width))
        console.print()
    for name in ("response_ms", "filler_ms", "barge_ms", "lateness_ms", "client_lateness_ms"):
        figures = [f"{k} {v}" for k, v in result[name].items() if v is not None]
        print(f"{name:20}", ", ".join(figures) or "none measured")
    counts = ("calls", "turns", "unanswered", "dropped", "early", "unsaid", "underruns", "frames")
    print(", ".join(f"{name} {result[name]}" for name in counts))


def _status(reports: Sequence[CallReport], result: dict[str, Any]) -> int:
    for number, report in enumerate(reports, 1):
        if report.record.fault is not None:
            who = f"call {number}: " if len(reports) > 1 else ""
            print(f"threadline call: {who}{report.record.fault}", file=sys.stderr)
    if len(reports) == 1 and reports[0].record.fault is not None:
        return int(reports[0].record.fault.exit_code)
    return int(Exit.FAILED if result["dropped"] or result["unanswered"] else Exit.OK)


def _numbered(path: Path, number: int, calls: int) -> Path:
    return path if calls == 1 else path.with_stem(f"{path.stem}-{number}")


def _number(low: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not low <= value < 1e9:  # also turns NaN away
            raise argparse.ArgumentTypeError(f"{text} is not a number from {low:g} up")
        return value

    return number


def _whole(low: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{text} is less than {low}")
        return value

    whole.__name__ = "whole number"  # argparse names the type in its message
    return whole
