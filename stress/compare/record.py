"""One run as a file: what was measured, beside what, on which interpreter and machine."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import sysconfig
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal

from prometheus_client.parser import text_string_to_metric_families

from threadline.errors import ConfigError
from threadline.observe.histogram import log_spaced

Build = Literal["free", "gil"]
BUILDS: tuple[Build, ...] = ("free", "gil")
NAMES: Mapping[str, str] = {"free": "3.14t", "gil": "3.14 GIL"}

PHONE_MS = log_spaced(0.05, 5_000.0, 60)
"""Bucket bounds at the phone: an asyncio loop that is busy is late by more than 100 ms."""


@dataclass(frozen=True, slots=True)
class Lateness:
    """A histogram: ascending upper bounds in ms, and a count for each and for what lies above."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of_page(cls, page: str, metric: str) -> Lateness:
        """From a histogram in seconds on a metrics page."""
        found = [
            (float(sample.labels["le"]) * 1e3, int(sample.value))
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == f"{metric}_bucket"
        ]
        below = [0, *(count for _, count in found)]
        counts = tuple(b - a for a, b in pairwise(below))
        return cls(tuple(round(bound, 6) for bound, _ in found[:-1]), counts)

    @classmethod
    def of_values(cls, values: Iterable[float], bounds: tuple[float, ...] = PHONE_MS) -> Lateness:
        """From milliseconds."""
        counts = [0] * (len(bounds) + 1)
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        return cls(bounds, tuple(counts))

    @property
    def count(self) -> int:
        """How many were measured."""
        return sum(self.counts)

    def quantile(self, q: float) -> float:
        """The ms that a share `q` did not exceed, linear inside its bucket.

        inf above the last bound; nan when empty.
        """
        if not self.count:
            return math.nan
        wanted, below, low = q * self.count, 0, 0.0
        for bound, here in zip(self.bounds, self.counts, strict=False):
            if here and below + here >= wanted:
                return low + (bound - low) * (wanted - below) / here
            below, low = below + here, bound
        return math.inf

    def above(self) -> list[float]:
        """The share of all that was later than each bound."""
        return [1 - below / self.count for below in accumulate(self.counts[:-1])]

    def __add__(self, other: Lateness) -> Lateness:
        if self.bounds != other.bounds:
            raise ValueError("histograms with other buckets cannot be added")
        counts = (a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Lateness(self.bounds, tuple(counts))


@dataclass(frozen=True, slots=True)
class Record:
    """One run of one case on one build."""

    scenario: str
    case: str
    build: Build
    turn: int  # counted from 0: A B A B are turns 0 0 1 1
    calls: int = 0
    lateness: dict[str, Lateness] = field(default_factory=dict)  # frame, pacer, phone, control
    figures: dict[str, float] = field(default_factory=dict)  # what was not measured is absent
    gil: tuple[bool, bool] = (False, False)  # on, at the start and at the end
    load: tuple[float, float] = (0.0, 0.0)  # average of one minute, likewise
    seconds: float = 0.0

    @property
    def file(self) -> str:
        """A run that is repeated replaces the one before."""
        case = "".join(letter if letter.isalnum() else "-" for letter in self.case)
        return f"{self.scenario}-{case}-{self.turn}-{self.build}.json"


@dataclass(frozen=True, slots=True)
class Setting:
    """On what all of it ran."""

    mode: str  # quick or full
    date: str
    commit: str
    machine: dict[str, str]
    builds: dict[str, dict[str, str]]


def machine() -> dict[str, str]:
    """The processor and the kernel, as far as they are told."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8", "replace").splitlines() if cpuinfo.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    return {
        "processor": model or platform.processor() or platform.machine(),
        "cores": str(os.process_cpu_count()),
        "kernel": platform.release(),
    }


def interpreter() -> dict[str, str]:
    """This interpreter, for the page. Run in a child of each build."""
    flags = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    return {
        "version": sys.version.replace("\n", " "),
        "flags": " ".join(f for f in flags.split() if not f.startswith("'--prefix=")),
        "gil": "on" if sys._is_gil_enabled() else "off",
        "inherit_context": str(sys.flags.thread_inherit_context),
    }


def save(folder: Path, record: Record) -> None:
    """Write one run."""
    (folder / record.file).write_text(json.dumps(asdict(record), indent=1), "utf-8")


def load(folder: Path) -> list[Record]:
    """Every run in the folder, in order of name. Raises ConfigError when there is none."""
    files = sorted(file for file in folder.glob("*.json") if file.name != "setting.json")
    if not files:
        raise ConfigError(f"{folder} holds no run: run `just compare` first.")
    return [_record(json.loads(file.read_text("utf-8"))) for file in files]


def save_setting(folder: Path, setting: Setting) -> None:
    """Write on what the runs of this folder ran."""
    (folder / "setting.json").write_text(json.dumps(asdict(setting), indent=1), "utf-8")


def load_setting(folder: Path) -> Setting:
    """Read it again."""
    return Setting(**json.loads((folder / "setting.json").read_text("utf-8")))


def merged(records: Sequence[Record], key: str) -> Lateness | None:
    """One histogram of several runs; None when none of them has it."""
    found = [record.lateness[key] for record in records if key in record.lateness]
    if not found:
        return None
    total = found[0]
    for one in found[1:]:
        total += one
    return total


def _record(data: dict[str, Any]) -> Record:
    data["lateness"] = {
        name: Lateness(tuple(one["bounds"]), tuple(one["counts"]))
        for name, one in data["lateness"].items()
    }
    data["gil"], data["load"] = tuple(data["gil"]), tuple(data["load"])
    return Record(**data)


if __name__ == "__main__":
    print(json.dumps(interpreter()))
