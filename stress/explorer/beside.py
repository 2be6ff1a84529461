"""A second copy of threads/, from its own source, that can be changed and instrumented.

Nothing is written to the tree. A change is exact text that must stand in the source exactly
once, so that it cannot silently stop to apply.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from threadline import threads

from . import memory
from .memory import here

SOURCE = Path(threads.__file__).resolve().parent
_NAME = "threadline.threads_beside"


@dataclass(frozen=True, slots=True)
class Change:
    """In `module` (a file of threads/, without .py), this text becomes that text."""

    module: str
    old: str
    new: str


class Stale(LookupError):  # noqa: N818  # "Error" would say less
    """The text that a change replaces is not in the source any more."""


def changed(change_list: Sequence[Change]) -> dict[str, str]:
    """Module -> its whole source with all changes made. Raises Stale."""
    sources: dict[str, str] = {}
    for change in change_list:
        source = sources.get(change.module) or (SOURCE / f"{change.module}.py").read_text()
        found = source.count(change.old)
        if found != 1:
            raise Stale(
                f"threads/{change.module}.py holds this text {found} times, not once; bring "
                f"the change up to date:\n{change.old}"
            )
        sources[change.module] = source.replace(change.old, change.new)
    return sources


def fill(module: types.ModuleType, source: str) -> None:
    """Run changed source as this module."""
    path = SOURCE / f"{module.__name__.rpartition('.')[2]}.py"
    module.__file__ = str(path)
    exec(compile(source, str(path), "exec"), module.__dict__)


@contextlib.contextmanager
def beside(changes: Sequence[Change] = ()) -> Iterator[Callable[[str], Any]]:
    """Yields a function from a module's name to its copy; the copies are forgotten afterwards."""
    package = types.ModuleType(_NAME)
    package.__path__ = [str(SOURCE)]
    sys.modules[_NAME] = package
    try:
        for name, source in changed(changes).items():
            full = f"{_NAME}.{name}"
            module = sys.modules[full] = types.ModuleType(full)
            module.__package__ = _NAME
            fill(module, source)
        yield lambda name: importlib.import_module(f"{_NAME}.{name}")
    finally:
        for name in [name for name in sys.modules if name.split(".")[:2] == _NAME.split(".")]:
            del sys.modules[name]


class Code:
    """The instrumented copy, as models use it. `small` maps a call's ring sizes to smaller ones."""

    def __init__(self, module: Callable[[str], Any]) -> None:
        self.small: dict[int, int] = {}
        self.os = memory.Os()
        self.module = module
        self._instrument_rings()
        self._loaded: set[str] = set()

    def fresh(self) -> None:
        """Before each execution."""
        self.os.counters.clear()
        self.small = {}

    def _instrument_rings(self) -> None:
        ring, wake, calls = self.module("ring"), self.module("wake"), self.module("calls")
        ring.get_ident = lambda: here.world.ident()
        memory.instrument_slot(ring.Cursor, "at")
        ring.bytearray, ring.memoryview, ring.Struct = memory.Bytes, memory.View, memory.Layout
        ring._HEADER = memory.Layout(ring._HEADER.format)
        wake.EventRing = partial(ring.EventRing, cells=memory.Cells)
        wake.os = self.os
        wake.time = memory.Clock()
        wake.select = types.SimpleNamespace(poll=lambda: memory.Poll(self.os), POLLIN=1)
        calls.AudioRing = lambda capacity, payload: ring.AudioRing(
            self.small.get(capacity, capacity), payload
        )
        self.ring, self.wake, self.calls = ring, wake, calls

    def stage(self, name: str) -> Any:
        """One more module, with a clock that stands still."""
        module = self.module(name)
        if name not in self._loaded:
            self._loaded.add(name)
            module.time = memory.Clock()
            if hasattr(module, "log"):
                module.log = Mock()
            if name == "supervisor":
                module.threading = memory.Threading
                memory.instrument_attribute(module.Running, "_stopping")
        return module

    def name(self, thing: object, called: str) -> None:
        """Names for the trace: of a ring's cursors, of a call's cursors and rings."""
        for part in ("head", "tail", "generation", "epoch", "hold", "busy", "playing"):
            place = getattr(getattr(thing, part, None), "place", None)
            if place is not None:
                here.world.names[place.key] = f"{called}.{part}"
        for part in ("heard", "speech", "outgoing", "due"):
            if hasattr(thing, part):
                self.name(getattr(thing, part), part)
