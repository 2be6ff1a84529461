"""``threadline doctor``: what this machine can and cannot do, and what to do about it.

Each `check_*` turns facts into findings and reads nothing itself, except the files of the model
store; `examine` gathers the facts; `show` draws them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from . import cli_vendors
from .chains import names
from .config import Config, GilPolicy
from .config_sources import load, named_file
from .errors import ConfigError, Exit, GilError, ModelError
from .models.store import ModelStore, State
from .threads import gil
from .threads.child_server import ready
from .threads.gil import Audited, Facts
from .threads.realtime import Favour, Lateness, lock_memory, measure_lateness

TICKS = 50  # one second of them
LATE_MS = 5.0  # p90 of the pacer's ticks; a phone's own buffer hides about 20 ms

Standing = Literal["fine", "note", "trouble"]
_SIGNS = {"fine": ("✔", "green"), "note": ("▲", "yellow"), "trouble": ("✘", "red")}
_PLAIN_SIGNS = {"✔": "+", "▲": "!", "✘": "x", "→": "->", "·": "-"}

_HELP = """\
Look at everything a call needs: the interpreter and its GIL, the clock, the models, the vendors'
keys. Takes some seconds, changes nothing. Exit status 0 when calls can be answered, 1 when not.
"""
_FIFO_REMEDY = (
    "Allow a priority of 5: LimitRTPRIO=5 in a systemd unit, --cap-add SYS_NICE for a container. "
    "Without it the pacer waits its turn whenever the machine is busy."
)
_MEMORY_REMEDY = (
    "Allow it: LimitMEMLOCK=infinity in a systemd unit, --cap-add IPC_LOCK for a container; or "
    "run without swap."
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. Only ``trouble`` keeps calls from being answered."""

    topic: str
    name: str
    standing: Standing
    found: str
    remedy: str = ""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command; its namespace goes to `run`."""
    parser = subparsers.add_parser(
        "doctor",
        help="say what this machine can and cannot do, and what to do about it",
        description=_HELP,
        epilog=cli_vendors.help_text(os.environ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", help="a TOML file (or THREADLINE_CONFIG)")
    add("--gil", metavar="POLICY", help="as of `threadline serve`: what would this policy do?")
    add("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look at everything, tell it, return the exit status."""
    with Console(stderr=True).status("measuring this machine, some seconds"):
        findings = examine(args.config, args.gil)
    answers = all(finding.standing != "trouble" for finding in findings)
    if args.json:
        rows = [asdict(finding) for finding in findings]
        print(json.dumps({"can_answer_calls": answers, "findings": rows}, ensure_ascii=False))
    else:
        show(findings, Console())
    return Exit.OK if answers else Exit.FAILED


def examine(file: Path | None = None, policy: str | None = None) -> list[Finding]:
    """Every finding, in the order in which they are shown."""
    config, findings = check_config(file, policy, os.environ)
    traced = gil.TRACE_MODULES if config.observe.otlp else ()
    audited = gil.audit((*gil.MODULES, *gil.VENDOR_MODULES, *traced, *gil.RECOGNISER_MODULES))
    ordinary, prepared = (measure_lateness(fifo, TICKS) for fifo in (False, True))
    store = ModelStore(Path(config.models).expanduser() if config.models else None)
    host = config.server.host
    address = f"{'127.0.0.1' if host == '0.0.0.0' else host}:{config.server.port}"
    return [
        *check_interpreter(gil.facts(), config.gil, audited, config.start_with_gil),
        *check_modules(audited, config.gil),
        *check_clock(ordinary, prepared, lock_memory()),
        *check_models(store, config),
        *check_vendors(config),
        *findings,
        *check_server(address, ready(address)[1]),
    ]


def check_config(
    file: Path | None, policy: str | None, environ: Mapping[str, str]
) -> tuple[Config, list[Finding]]:
    """The configuration `serve` would have; the defaults when there is something wrong with it."""
    file = file or named_file(environ)
    source = str(file) if file else "defaults and environment"
    try:
        config = load(file, environ, {"gil": policy})
    except ConfigError as error:
        wrong = Finding("Service", "configuration", "trouble", "cannot be used", str(error))
        return Config(), [wrong]
    return config, [Finding("Service", "configuration", "fine", source)]


def check_interpreter(
    found: Facts, policy: GilPolicy, audited: Sequence[Audited], start_with_gil: bool = True
) -> list[Finding]:
    """Versions, the build, and what ``policy`` would make of the GIL."""
    try:
        ours = version("threadline")
    except PackageNotFoundError:
        ours = "not installed, run from its source"
    free = found.build == "free-threaded"
    build = Finding(
        "Interpreter",
        "Python",
        "fine" if free else "note",
        f"{platform.python_version()}, {'free-threaded' if free else 'built with the GIL'}",
        "" if free else "Run Threadline with python3.14t; this build answers fewer calls.",
    )
    foretold = _gil(found, policy, audited, start_with_gil)
    return [Finding("Interpreter", "Threadline", "fine", ours), build, foretold]


def _gil(
    found: Facts, policy: GilPolicy, audited: Sequence[Audited], start_with_gil: bool
) -> Finding:
    """What `threadline serve` would say of the GIL, foretold from the audit."""
    here = {*gil.MODULES, *gil.VENDOR_MODULES, *gil.TRACE_MODULES} | (
        set() if policy == "isolate" else set(gil.RECOGNISER_MODULES)
    )
    culprits = [one for one in audited if one.state == "turns the GIL on" and one.module in here]
    if found.build == "free-threaded" and policy == "force":
        found = Facts(found.build, gil_on=False, setting=0)
    elif culprits and found.setting is None:
        found = Facts(found.build, True, culprits[0].detail or culprits[0].module)
    name = f"GIL, --gil {policy}"
    try:
        verdict = gil.judge(found, policy, start_with_gil)
    except GilError as error:
        return Finding("Interpreter", name, "trouble", "the server would not start", str(error))
    standing: Standing = "note" if verdict.fallback or policy == "force" else "fine"
    return Finding("Interpreter", name, standing, verdict.sentence, verdict.remedy)


def check_modules(audited: Sequence[Audited], policy: GilPolicy) -> list[Finding]:
    """What is installed, and what importing it does to the GIL."""
    findings = []
    for state, name in (("safe", "leave the GIL off"), ("n/a", "present")):
        if calm := [one.module for one in audited if one.state == state]:
            findings.append(Finding("Modules", name, "fine", ", ".join(calm)))
    for one in audited:
        if one.state == "turns the GIL on":
            findings.append(_loud(one, policy))
        elif one.state == "absent":
            remedy = "Install Threadline again with its dependencies."
            if one.module in gil.TRACE_MODULES:
                remedy = "pip install 'threadline[otel]', or leave observe.otlp out."
            findings.append(Finding("Modules", one.module, "trouble", "absent", remedy))
        elif one.state == "failed":
            remedy = f"Install {one.module.partition('.')[0]} again."
            findings.append(Finding("Modules", one.module, "trouble", one.detail, remedy))
    return findings


def _loud(one: Audited, policy: GilPolicy) -> Finding:
    """A module that turns the GIL on, and where the policy would load it."""
    standing: Standing = "note"
    if policy == "isolate" and one.module in gil.RECOGNISER_MODULES:
        standing, where = "fine", "would turn the GIL on: kept in a process of its own"
    elif policy == "force":
        where = "undeclared: runs without the GIL at your own risk"
    else:
        where = "turns the GIL on"
    cause = f" ({one.detail})" if one.detail not in ("", one.module) else ""
    return Finding("Modules", one.module, standing, where + cause)


def check_clock(ordinary: Lateness, prepared: Lateness, memory: Favour) -> list[Finding]:
    """How late a 20 ms tick comes, and what the system grants the thread that waits for it."""
    late = prepared.p90 > LATE_MS or prepared.missed > 0
    fifo, slack = prepared.rights.fifo, prepared.rights.slack
    return [
        Finding("Clock", "20 ms tick, ordinary", "fine", _lateness(ordinary)),
        Finding(
            "Clock",
            "20 ms tick, as the pacer",
            "note" if late else "fine",
            _lateness(prepared),
            "Give this machine cores of its own, or fewer other jobs: callers would hear gaps."
            if late
            else "",
        ),
        _favour("scheduling", fifo, _FIFO_REMEDY),
        _favour("timer slack", slack, "The system rounds timers; ticks come up to 50 us late."),
        _favour("locked memory", memory, _MEMORY_REMEDY),
        Finding("Clock", "cores", "fine", str(os.process_cpu_count())),
    ]


def _lateness(measured: Lateness) -> str:
    missed = f", {measured.missed} missed" if measured.missed else ""
    return (
        f"late by {measured.p50:.2f} ms p50 · {measured.p90:.2f} p90 · {measured.max:.2f} max"
        f" of {measured.ticks}{missed}"
    )


def _favour(name: str, favour: Favour, remedy: str) -> Finding:
    standing: Standing = "fine" if favour.granted else "note"
    return Finding("Clock", name, standing, favour.detail, "" if favour.granted else remedy)


def check_models(store: ModelStore, config: Config) -> list[Finding]:
    """Every model of the store, and the phonemes that the local voice needs."""
    speaks = "piper" in names(config.tts.chain)
    needed = {"silero-vad"}
    needed |= {config.tts.voice} if speaks else set()
    needed |= {config.asr.model} if "whisper" in names(config.stt.chain) else set()
    needed |= {"smart-turn"} if config.endpoint.mode == "smart" else set()
    findings = [Finding("Models", "folder", "fine", str(store.folder))]
    standing: Standing
    try:
        for name, state in store.status().items():
            row = store.model(name)
            standing = "trouble" if name in needed else "note"
            if state is State.PRESENT:
                text = f"{row.what}, {row.size / 1e6:.1f} MB"
                findings.append(Finding("Models", name, "fine", text))
            else:
                remedy = f"Run: threadline models fetch {name}"
                findings.append(Finding("Models", name, standing, str(state), remedy))
    except ModelError as error:
        findings.append(Finding("Models", "files", "trouble", "cannot be read", str(error)))
    for name in sorted(needed - set(store.table)):
        known = ", ".join(store.table)
        findings.append(
            Finding("Models", name, "trouble", "no such model", f"Choose from {known}.")
        )
    if find_spec("espeakng_loader"):
        findings.append(Finding("Models", "espeak-ng", "fine", "phonemes for the local voice"))
    else:
        remedy = "Install the extra: pip install 'threadline[local]'"
        standing = "trouble" if speaks else "note"
        findings.append(Finding("Models", "espeak-ng", standing, "absent", remedy))
    return findings


def check_vendors(config: Config) -> list[Finding]:
    """Who listens, thinks and speaks, and whether they have their keys; those not used, too."""
    findings = []
    for state in cli_vendors.states(config):
        wrong = state.used and state.problem
        findings.append(
            Finding(
                "Vendors",
                f"{state.kind} {state.name}",
                "trouble" if wrong else "fine",
                state.text if state.used else f"not used; {state.text}",
                state.problem if wrong else "",
            )
        )
    return findings


def check_server(address: str, facts: Mapping[str, object]) -> list[Finding]:
    """What a server that runs where the configuration says tells of its mode; else nothing."""
    if "gil_policy" not in facts:
        return []
    standing: Standing = "note" if facts["fallback"] else "fine"
    text = f"{facts['calls']} of {facts['limit']} calls. {facts['gil']}"
    return [Finding("Service", f"server {address}", standing, text, str(facts["gil_remedy"]))]


def show(findings: Sequence[Finding], console: Console) -> None:
    """Draw the findings, one panel per topic, and the conclusion last, where the eye is."""
    for topic in dict.fromkeys(finding.topic for finding in findings):
        rows = [finding for finding in findings if finding.topic == topic]
        console.print(
            Panel(
                _table(rows, console),
                title=Text(topic, "bold"),
                title_align="left",
                border_style="dim",
                padding=(0, 1),
            )
        )
    console.print(_conclusion(findings, console))


def _table(findings: Iterable[Finding], console: Console) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=1)
    table.add_column(width=24, style="bold", overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    for finding in findings:
        sign, colour = _SIGNS[finding.standing]
        says: list[RenderableType] = [Text(_plain(finding.found, console))]
        if finding.remedy:
            advice = Table.grid(padding=(0, 1))
            advice.add_row(Text(_plain("→", console), colour), Text(finding.remedy, colour))
            says.append(advice)
        table.add_row(Text(_plain(sign, console), colour), Text(finding.name), Group(*says))
    return table


def _conclusion(findings: Sequence[Finding], console: Console) -> Text:
    trouble = sum(finding.standing == "trouble" for finding in findings)
    notes = sum(finding.standing == "note" for finding in findings)
    if trouble:
        sign, text = _SIGNS["trouble"], f"Calls cannot be answered yet: {_count(trouble)} to mend."
    else:
        sign, text = _SIGNS["fine"], "Calls can be answered."
    if notes:
        text += f" {_count(notes).capitalize()} could be better."
    return Text(f" {_plain(sign[0], console)} {text}", f"bold {sign[1]}")


def _count(number: int) -> str:
    return "one thing" if number == 1 else f"{number} things"


def _plain(text: str, console: Console) -> str:
    """The text as the terminal can draw it."""
    if not console.options.ascii_only:
        return text
    for sign, instead in _PLAIN_SIGNS.items():
        text = text.replace(sign, instead)
    return text
