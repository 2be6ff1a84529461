"""Is the GIL off, who turned it on, and what this server does about it.

Three facts
    The build: was this interpreter compiled without the GIL? `sys._is_gil_enabled()`: is it on
    right now? The culprit: the interpreter turns the GIL on, for the rest of the process's life,
    when it imports an extension module that has not declared itself safe, and names that module
    in a RuntimeWarning. `Culprits` records the warning; `preload` also looks before and after
    each import, because a library may swallow it.

One verdict
    `judge` turns the facts and the policy into a `Verdict`. It is the same value that the log,
    the metrics, the ready endpoint and `threadline doctor` show.

| policy  | modules that turn the GIL on   | the GIL is on all the same            |
| ------- | ------------------------------ | ------------------------------------- |
| isolate | kept in a child process        | fallback; exit, at the start, if told |
| refuse  | loaded here                    | exit, with the name and the remedy    |
| accept  | loaded here                    | fallback                              |
| force   | loaded here under PYTHON_GIL=0 | cannot be, or exit (build with a GIL) |

Threads: `preload` belongs to the main thread, before any other is started. A warning may arrive
on any thread. A `GilWatch` belongs to the thread that samples it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import sysconfig
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, NoReturn, TextIO

from ..config import GilPolicy
from ..errors import GilError, ThreadlineError

Build = Literal["free-threaded", "gil"]
Placement = Literal["process", "thread"]

# Everything that this process may import while calls run, imported before the first call: an
# extension import stops the world even when it leaves the GIL off.
MODULES = (
    "ssl",
    "unicodedata",
    "encodings.idna",
    "numpy",
    "onnxruntime",
    "soxr",
    "uvloop",
    "h11",
    "websockets.server",
    "structlog",
)
VENDOR_MODULES = ("openai", "cartesia")  # by the name of the vendor in its chain
TRACE_MODULES = (  # when a collector is named; requests looks for netrc with its first request
    "opentelemetry.sdk.trace",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "netrc",
)
RECOGNISER_MODULES = ("ctranslate2", "faster_whisper")

# A safe import also flips the GIL, for milliseconds; two readings this far apart are believed.
SETTLED_SECONDS = 0.1
# When no module was named, a library may be importing one safe module after another, and we always
# looked in the middle of one. So that many seconds must pass in which nothing was imported, too.
UNNAMED_SECONDS = 5.0

_WARNING = re.compile(
    r"The global interpreter lock \(GIL\) has been enabled to load module '(.+?)'"
)
_FORCED_ONCE = "_THREADLINE_GIL_FORCED"  # THREADLINE_* are settings


@dataclass(frozen=True, slots=True)
class Facts:
    """What the interpreter says about itself."""

    build: Build
    gil_on: bool
    culprit: str = ""  # module that turned it on; empty: nobody did, or nobody was named
    setting: int | None = None  # `sys.flags.gil`: 0 and 1 are forced by the user, None is not


@dataclass(frozen=True, slots=True)
class Verdict:
    """The facts, the policy, and what follows from both."""

    build: Build
    gil_on: bool
    culprit: str
    policy: GilPolicy
    fallback: bool  # inference in child processes, a larger prebuffer, fewer calls
    placement: Placement  # of the recogniser
    sentence: str  # for people: log, ready endpoint, doctor
    remedy: str = ""  # what to do about it; empty: nothing


@dataclass(frozen=True, slots=True)
class Flip:
    """The GIL came on while the server was running."""

    verdict: Verdict  # from now on
    drain: bool  # the policy is `refuse`: take no new call, exit after the last one


class Audited(NamedTuple):
    """What importing one module does to the GIL."""

    module: str
    state: Literal["safe", "turns the GIL on", "absent", "failed", "n/a"]
    detail: str = ""  # extension module at fault, or why the import failed


class Culprits:
    """Names of the modules that turned the GIL on, from the interpreter's own warnings.

    `install` chains to the `warnings.showwarning` it finds, and is a filter of the logger that
    `logging.captureWarnings` sends warnings to, should that replace it later. The GIL's warning
    is recorded and not passed on, because the verdict says it better. Appending to a deque is
    atomic on both builds, so a warning from any thread is safe.
    """

    def __init__(self) -> None:
        self._names: deque[str] = deque(maxlen=16)
        self._shown_by: Callable[..., None] | None = None

    def install(self) -> None:
        """Listen from now on. Installing twice is the same as once."""
        if warnings.showwarning is self._shown_by:
            return
        before = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not self._record(str(message)):
                before(message, category, filename, lineno, file, line)

        self._shown_by = warnings.showwarning = show
        # Ahead of whatever -W says: "ignore" would hide the name, and "error" would break an
        # import after the GIL is already on.
        warnings.filterwarnings("always", "The global interpreter lock", RuntimeWarning)

        captured = logging.getLogger("py.warnings")
        captured.addFilter(self)
        captured.setLevel(logging.WARNING)  # whatever the root's level: a filter must see them

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the GIL's warning out of the log. (The interface of a logging filter.)"""
        return not self._record(record.getMessage())

    def _record(self, text: str) -> bool:
        found = _WARNING.search(text)
        if found:
            self._names.append(found[1])
        return found is not None

    def first(self) -> str:
        """The module that turned the GIL on; empty when none was named."""
        return self._names[0] if self._names else ""


CULPRITS = Culprits()  # of this process: warnings are a process-wide channel


def facts(culprit: str = "") -> Facts:
    """Read the three facts now. `culprit` is used when no warning named one."""
    free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    return Facts(
        build="free-threaded" if free else "gil",
        gil_on=sys._is_gil_enabled(),
        culprit=CULPRITS.first() or culprit,
        setting=sys.flags.gil if free else None,
    )


def judge(found: Facts, policy: GilPolicy, start_with_gil: bool = True) -> Verdict:
    """What `policy` makes of the facts, at start.

    Raises `GilError` when the policy is `refuse` and the GIL is on, or `isolate` and not
    `start_with_gil`, or `force` on a build that has only the one with a GIL.
    """
    if policy == "force" and found.build == "gil":
        raise GilError(
            "This Python was built with the GIL, which cannot be forced off: "
            "run Threadline with python3.14t, or use --gil accept."
        )
    if policy in ("refuse", "force") and found.gil_on:
        raise GilError(f"{_why_on(found)} and the policy is `{policy}`. {_remedy(found)}")
    if policy == "isolate" and found.gil_on and not start_with_gil:
        raise GilError(
            f"{_why_on(found)} and start_with_gil is false. {_remedy(found)} To start all the "
            "same, in fallback mode, use --gil accept."
        )
    verdict = Verdict(
        build=found.build,
        gil_on=found.gil_on,
        culprit=found.culprit if found.gil_on else "",
        policy=policy,
        fallback=found.gil_on,
        placement="process" if found.gil_on or policy == "isolate" else "thread",
        sentence="",
    )
    return _told(verdict, found)


def preload(
    policy: GilPolicy,
    modules: Iterable[str] = MODULES,
    recogniser: Iterable[str] = RECOGNISER_MODULES,
    start_with_gil: bool = True,
) -> Verdict:
    """Import everything heavy before the first call, then judge. Main thread, before others.

    `recogniser` names what the local recogniser needs, or nothing when a vendor does that work.
    It is imported here only where it will run here. Raises `GilError` as `judge` does, and
    `ThreadlineError` for a module that cannot be imported.
    """
    CULPRITS.install()
    ensure_forced(policy)
    found = facts()
    here = policy != "isolate" and found.build == "free-threaded"
    culprit = ""
    for name in (*modules, *(recogniser if here else ())):
        was_on = sys._is_gil_enabled()
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ThreadlineError(
                f"The module {name} cannot be imported ({error}): "
                "install Threadline again with its dependencies."
            ) from error
        if not was_on and sys._is_gil_enabled():
            culprit = culprit or name
    return judge(_settled(culprit), policy, start_with_gil)


def look_again(verdict: Verdict, start_with_gil: bool) -> Verdict:
    """The verdict once everything is imported: a brain may bring modules of its own.

    Raises `GilError` as `judge` does. Main thread, before others.
    """
    found = _settled(verdict.culprit)
    return judge(found, verdict.policy, start_with_gil)


def _settled(culprit: str) -> Facts:
    """Facts that are not the blink of another thread's safe import."""
    found = facts(culprit)
    if found.build == "free-threaded" and found.gil_on:
        time.sleep(SETTLED_SECONDS)
        found = facts(culprit)
    return found


def ensure_forced(
    policy: GilPolicy,
    found: Facts | None = None,
    environ: Mapping[str, str] | None = None,
    execve: Callable[[str, list[str], dict[str, str]], NoReturn] = os.execve,
) -> None:
    """Under `force`, start this very command again with PYTHON_GIL=0, once. Else do nothing.

    The interpreter reads that variable only at its start, so the process replaces itself. Call it
    before anything is open. Raises `GilError` when it cannot work.
    """
    found = found or facts()
    environ = os.environ if environ is None else environ
    if policy != "force" or found.setting == 0:
        return
    if found.build == "gil":
        judge(found, policy)  # raises
    if environ.get(_FORCED_ONCE):
        raise GilError(
            "Python was started again with PYTHON_GIL=0 and did not obey: "
            "drop -E, -I or -X gil=1 from its command line, or use --gil isolate."
        )
    print(
        "threadline: --gil force: starting again with PYTHON_GIL=0. Modules that have not declared"
        " themselves safe now run without the GIL; if one of them crashes this process or corrupts"
        " a call, that is the risk you took.",
        file=sys.stderr,
        flush=True,
    )
    execve(
        sys.executable,
        [sys.executable, *sys.orig_argv[1:]],
        {**environ, "PYTHON_GIL": "0", _FORCED_ONCE: "1"},
    )


class GilWatch:
    """Notices a GIL that comes on late. Pure: feed it readings, one thread only.

    It believes readings in a row over at least 100 ms, or 5 s without an import when no module
    was named, and reports once: the interpreter never turns the GIL off again.
    """

    __slots__ = ("_culprit", "_imported", "_modules", "_since", "verdict")

    def __init__(
        self,
        verdict: Verdict,
        culprit: Callable[[], str] = CULPRITS.first,
        modules: Callable[[], int] = lambda: len(sys.modules),
    ) -> None:
        self.verdict = verdict
        self._culprit = culprit
        self._modules = modules
        self._imported = 0  # modules at the latest reading
        self._since: float | None = None

    def sample(self, enabled: bool, now: float) -> Flip | None:
        """Take one reading of `sys._is_gil_enabled()` at `now` seconds."""
        if self.verdict.gil_on:
            return None
        if not enabled:
            self._since = None
            return None
        before, self._imported = self._imported, self._modules()
        named = self._culprit()
        if self._since is None or (self._imported != before and not named):
            self._since = now
        if now - self._since < (SETTLED_SECONDS if named else UNNAMED_SECONDS):
            return None
        self.verdict = self._late()
        return Flip(self.verdict, drain=self.verdict.policy == "refuse")

    def _late(self) -> Verdict:
        late = replace(
            self.verdict,
            gil_on=True,
            culprit=self._culprit(),
            fallback=True,
            placement="process",
        )
        return _told(late, Facts(late.build, True, late.culprit), "while calls were running")


def _why_on(found: Facts) -> str:
    if found.build == "gil":
        return "This Python was built with the GIL"
    if found.setting == 1:
        return "The GIL is on because PYTHON_GIL=1 or -X gil=1 asked for it"
    if found.culprit:
        return f"The module {found.culprit} turned the GIL on"
    return "A module that was not named turned the GIL on"


def _remedy(found: Facts) -> str:
    if found.build == "gil":
        return "Run Threadline with python3.14t."
    if found.setting == 1:
        return "Start without them."
    if found.culprit.split(".")[0] in RECOGNISER_MODULES:
        return "Use --gil isolate, which keeps it in a process of its own."
    return (
        "Remove that module, or replace it by a release that declares itself safe without the "
        "GIL, or use --gil accept to run in fallback mode."
    )


def _told(verdict: Verdict, found: Facts, when: str = "") -> Verdict:
    """The verdict with its sentences."""
    if not verdict.fallback:
        forced = ", by force" if found.setting == 0 else ""
        alone = verdict.placement == "process"
        where = "a process of its own" if alone else "a thread of this process"
        sentence = f"The GIL is off{forced}. The recogniser runs in {where}."
        return replace(verdict, sentence=sentence)
    why = " ".join(filter(None, (_why_on(found), when)))
    if verdict.policy == "refuse":
        follows = "no new calls are taken, and the server exits after the last one"
    else:
        follows = (
            "recognition runs in child processes, the prebuffer is larger and fewer calls are "
            "admitted"
        )
    return replace(verdict, sentence=f"FALLBACK MODE. {why}: {follows}.", remedy=_remedy(found))


# Runs in a child of its own: prints one JSON line, whatever the module printed before it.
_AUDIT = """
import importlib, json, sys, warnings
said = []
warnings.showwarning = lambda message, *rest: said.append(str(message))
warnings.simplefilter("always")
failed = ""
try:
    importlib.import_module(sys.argv[1])
except BaseException as error:
    failed = f"{type(error).__name__}: {error}"[:200]
print("\\n" + json.dumps([sys._is_gil_enabled(), said, failed]), flush=True)
"""


def audit(modules: Iterable[str], seconds: float = 30.0, at_once: int = 2) -> list[Audited]:
    """What importing each module does to the GIL, tried in short-lived child interpreters.

    Bounded: each child has `seconds`, `at_once` of them run side by side. Never raises for a
    module that is absent, crashes or hangs: that is its state.
    """
    names = list(modules)
    with ThreadPoolExecutor(at_once, thread_name_prefix="gil-audit") as pool:
        return list(pool.map(lambda name: _audit_one(name, seconds), names))


def _audit_one(name: str, seconds: float) -> Audited:
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        return Audited(name, "absent")
    if facts().build == "gil":
        return Audited(name, "n/a")
    environ = {key: value for key, value in os.environ.items() if key != "PYTHON_GIL"}
    environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", _AUDIT, name],
            env=environ,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
        gil_on, said, failed = json.loads(child.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return Audited(name, "failed", f"not imported after {seconds:g} s")
    except ValueError, IndexError:
        return Audited(name, "failed", f"its import ended the interpreter ({child.returncode})")
    if gil_on:
        named = [found[1] for found in map(_WARNING.match, said) if found]
        return Audited(name, "turns the GIL on", named[0] if named else "")
    return Audited(name, "failed", failed) if failed else Audited(name, "safe")
