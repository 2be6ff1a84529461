"""What a model is told of the functions it may call, and what it asks of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """One function as a model sees it. ``parameters`` is a JSON schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish. ``id`` is the model's own; ``arguments`` is JSON, as the model wrote it."""

    id: str
    name: str
    arguments: str
