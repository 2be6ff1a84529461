"""Chains of vendors: who may stand in one, and what an entry like ``openai:gpt-4.1`` means."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Vendor:
    """Who may stand in a chain."""

    name: str
    sets: str = ""  # the setting that what follows its colon is a value of; empty: takes no colon
    key: str = ""  # the setting with its key; empty: it is local and needs none
    url: str = ""  # the setting with its address
    several: bool = False  # it may stand there more than once, under different models
    final: bool = False  # it always answers: nothing may follow

    @property
    def form(self) -> str:
        """How an entry is written."""
        return f"{self.name}[:{self.sets.rpartition('.')[2].upper()}]" if self.sets else self.name


CHAINS: dict[str, tuple[Vendor, ...]] = {
    "stt.chain": (
        Vendor("deepgram", "deepgram.model", "deepgram.api_key", "deepgram.url"),
        Vendor("whisper", "asr.model"),
    ),
    "llm.chain": (
        Vendor("openai", "llm.model", "llm.api_key", "llm.base_url", several=True),
        Vendor("scripted", final=True),
    ),
    "tts.chain": (
        Vendor("cartesia", "cartesia.voice", "cartesia.api_key", "cartesia.url"),
        Vendor("piper", "tts.voice"),
    ),
}


def forms(chain: str) -> str:
    """What may stand in a chain, for help and error messages."""
    return ", ".join(vendor.form for vendor in CHAINS[chain])


def names(entries: Sequence[str]) -> tuple[str, ...]:
    """The vendors of a chain's entries, in order, each once."""
    return tuple(dict.fromkeys(entry.partition(":")[0] for entry in entries))


def problem(chain: str, entries: Sequence[str]) -> str:
    """Why this chain cannot be used and what to do, as the end of a sentence; else ""."""
    vendors = {vendor.name: vendor for vendor in CHAINS[chain]}
    if not entries:
        return f"is empty: give at least one of {forms(chain)}."
    for at, entry in enumerate(entries):
        name, colon, what = entry.partition(":")
        vendor = vendors.get(name)
        if vendor is None:
            near = difflib.get_close_matches(name, vendors, 1)
            hint = f"the nearest is {near[0]}" if near else f"choose from {forms(chain)}"
            return f"names {_quoted(entry)}: {hint}."
        if colon and not (vendor.sets and what):
            return f"names {_quoted(entry)}: write {vendor.form}."
        if entry in entries[:at]:
            return f"names {_quoted(entry)} twice: leave one out."
        if not vendor.several and name in names(entries[:at]):
            return f"names {name} twice: leave one out."
        if vendor.final and at < len(entries) - 1:
            return f"names {entries[at + 1]} after {name}, which always answers: put {name} last."
    return ""


def settle(values: dict[str, Any]) -> None:
    """Let an entry that names its model or voice set that of its section.

    A vendor that may stand in its chain several times keeps what each entry says.
    """
    for chain, vendors in CHAINS.items():
        said = _said(values[chain])
        for vendor in vendors:
            if vendor.sets and not vendor.several and said.get(vendor.name):
                values[vendor.sets] = said[vendor.name]


def _said(entries: Sequence[str]) -> Mapping[str, str]:
    """What follows the colon, by vendor."""
    parted = (entry.partition(":") for entry in entries)
    return {name: what for name, _, what in parted}


def _quoted(entry: str) -> str:
    return repr(entry if len(entry) <= 60 else f"{entry[:60]}…")
