"""From a function's annotations to a JSON schema, and from a model's JSON to its arguments.

An annotation is read once, when the function is decorated; what cannot be described is said
then. What a model gets wrong is one sentence that names the argument, so that it can try again.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError

_HEADING = re.compile(r"(?:Args|Arguments|Parameters):\s*")
_SHOWN = 60  # characters of a wrong value that a sentence quotes


@dataclass(frozen=True, slots=True)
class _Kind:
    """One type: its schema, what it is called, and how a JSON value becomes one.

    ``read`` raises ValueError with the whole sentence's end: "must be ...".
    """

    schema: Mapping[str, object]
    noun: str
    read: Callable[[Any], object]


class _Unsupported(Exception):  # noqa: N818  # never leaves this module
    """An annotation that no schema can be made of."""


@dataclass(frozen=True, slots=True)
class _Field:
    kind: _Kind
    required: bool


@dataclass(frozen=True, slots=True)
class Parameters:
    """What one function takes, as a model sees it."""

    description: str
    schema: Mapping[str, object]  # of type object
    skipped: bool  # the first parameter is of the type to skip
    fields: Mapping[str, _Field]

    @classmethod
    def of(cls, function: Callable[..., object], skip: type) -> Self:
        """Read a function. Raises ConfigError that names the function and the parameter."""
        name = function.__name__
        try:
            hints = get_type_hints(function)
        except (NameError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"An annotation of the tool {name} cannot be read: {error}."
            ) from None
        signature = list(inspect.signature(function).parameters.values())
        skipped = bool(signature) and hints.get(signature[0].name) is skip
        taken: dict[str, _Field] = {}
        for one in signature[skipped:]:
            if one.kind not in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
                raise ConfigError(
                    f"The tool {name} takes {one}: a model can only give named arguments."
                )
            try:
                kind = _kind(hints.get(one.name, inspect.Parameter.empty))
            except _Unsupported as error:
                raise ConfigError(
                    f"The parameter {one.name!r} of the tool {name} {error}"
                ) from None
            taken[one.name] = _Field(kind, one.default is one.empty)
        description, texts = _read_docstring(inspect.getdoc(function) or "", taken)
        return cls(description, _schema(taken, texts), skipped, taken)

    def read(self, text: str) -> dict[str, object]:
        """A model's JSON as keyword arguments. ValueError with one sentence when it is wrong."""
        try:
            given = json.loads(text) if text.strip() else {}
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its arguments are no JSON ({error}).") from None
        if not isinstance(given, dict):
            raise ValueError("its arguments must be a JSON object.")
        try:
            return _read_fields(self.fields, given)
        except ValueError as error:
            raise ValueError(f"{error}.") from None


def as_json(value: object) -> str:
    """A tool's result for the model. Dataclasses are objects, enums their values; what JSON does
    not know is its str."""
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    return str(value)


def _schema(taken: Mapping[str, _Field], texts: Mapping[str, str]) -> dict[str, object]:
    return {
        "type": "object",
        "properties": {
            name: {**one.kind.schema, **({"description": texts[name]} if name in texts else {})}
            for name, one in taken.items()
        },
        "required": [name for name, one in taken.items() if one.required],
        "additionalProperties": False,
    }


def _read_fields(taken: Mapping[str, _Field], given: Mapping[str, object]) -> dict[str, object]:
    unknown = [name for name in given if name not in taken]
    if unknown:
        there = ", ".join(taken) or "none"
        raise ValueError(f"there is no argument {_show(unknown[0])}; there are: {there}")
    missing = [name for name, one in taken.items() if one.required and name not in given]
    if missing:
        raise ValueError(f"the argument {missing[0]!r} is missing")
    read: dict[str, object] = {}
    for name, value in given.items():
        try:
            read[name] = taken[name].kind.read(value)
        except ValueError as error:
            if value is not None or taken[name].required:  # a null stands for "as you like"
                raise ValueError(f"{name!r} {error}") from None
    return read


def _read_docstring(doc: str, taken: Mapping[str, _Field]) -> tuple[str, dict[str, str]]:
    """The text without its lines on parameters, and those by parameter."""
    kept: list[str] = []
    texts: dict[str, str] = {}
    inside, indent = "", 0
    for line in doc.splitlines():
        bare = line.strip()
        deep = len(line) - len(line.lstrip())
        name, colon, text = bare.partition(":")
        if colon and name in taken:
            inside, indent = name, deep
            texts[name] = text.strip()
        elif inside and bare and deep > indent:
            texts[inside] = f"{texts[inside]} {bare}".strip()
        elif not _HEADING.fullmatch(bare):
            inside = ""
            kept.append(line)
    return "\n".join(kept).strip(), texts


# -- types -------------------------------------------------------------------------------------


def _kind(hint: Any, within: tuple[type, ...] = ()) -> _Kind:
    """``within``: the dataclasses that it is a field of."""
    if hint is inspect.Parameter.empty:
        raise _Unsupported("has no annotation: say what it is, such as `: str`.")
    if isinstance(hint, type) and hint in _PLAIN:
        return _PLAIN[hint]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is list and len(inner) == 1:
        return _list(_kind(inner[0], within))
    if origin is Literal:
        return _choice([(value, value) for value in inner])
    if origin in (Union, types.UnionType) and len(inner) == 2 and types.NoneType in inner:
        return _optional(_kind(inner[inner[0] is types.NoneType], within))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _choice([(member.value, member) for member in hint])
    if isinstance(hint, type) and is_dataclass(hint):
        return _record(hint, within)
    shown = getattr(hint, "__name__", None) if isinstance(hint, type) else None
    raise _Unsupported(
        f"is a {shown or hint}, which no model can be told: use str, int, float, bool, "
        "list[...], Literal, an Enum or a dataclass."
    )


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {_show(value)}")
    return value


def _integer(value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 4.0 is what some models write
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"must be an integer, not {_show(value)}")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"must be a number, not {_show(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"must be a finite number, not {_show(value)}")
    return number


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {_show(value)}")
    return value


_PLAIN: dict[type, _Kind] = {
    str: _Kind({"type": "string"}, "a string", _string),
    int: _Kind({"type": "integer"}, "an integer", _integer),
    float: _Kind({"type": "number"}, "a number", _number),
    bool: _Kind({"type": "boolean"}, "true or false", _boolean),
}


def _list(item: _Kind) -> _Kind:
    def read(value: object) -> list[object]:
        if not isinstance(value, list):
            raise ValueError(f"must be a list, not {_show(value)}")
        return [item.read(one) for one in value]

    return _Kind({"type": "array", "items": item.schema}, f"a list, each {item.noun}", read)


def _choice(pairs: Sequence[tuple[Any, object]]) -> _Kind:
    """One of some texts, or one of some integers: as JSON has it, and what it means."""
    kinds = {type(value) for value, _ in pairs}
    if kinds not in ({str}, {int}):
        raise _Unsupported("must have choices that are all texts, or all integers.")
    (kind,) = kinds
    members = dict(pairs)
    noun = "one of " + ", ".join(json.dumps(value, ensure_ascii=False) for value in members)
    schema = {"type": "string" if kind is str else "integer", "enum": list(members)}

    def read(value: object) -> object:
        if type(value) is not kind or value not in members:
            raise ValueError(f"must be {noun}, not {_show(value)}")
        return members[value]

    return _Kind(schema, noun, read)


def _optional(kind: _Kind) -> _Kind:
    def read(value: object) -> object:
        return None if value is None else kind.read(value)

    return _Kind({"anyOf": [kind.schema, {"type": "null"}]}, f"{kind.noun} or null", read)


def _record(cls: type, within: tuple[type, ...]) -> _Kind:
    assert is_dataclass(cls)
    if cls in within:
        raise _Unsupported("is a dataclass that holds itself, which no model can be told.")
    hints = get_type_hints(cls)
    taken: dict[str, _Field] = {}
    for one in fields(cls):
        if not one.init:
            continue
        try:
            kind = _kind(hints[one.name], (*within, cls))
        except _Unsupported as error:
            raise _Unsupported(f"has a field {one.name!r} that {error}") from None
        required = one.default is MISSING and one.default_factory is MISSING
        taken[one.name] = _Field(kind, required)

    def read(value: object) -> object:
        if not isinstance(value, dict):
            raise ValueError(f"must be an object, not {_show(value)}")
        return cls(**_read_fields(taken, value))

    return _Kind(_schema(taken, {}), "an object", read)


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
