"""The constants of an ONNX file, by name: for networks that are computed without its graph.

An ONNX file is one protobuf message. Of protobuf's wire format only what these files use is read:
a message is a row of fields, and a field is a number, a kind, and a varint, or bytes of a length
that stands before them. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError

_VARINT, _BYTES = 0, 2  # kinds of fields
_SIZES = {1: 8, 5: 4}  # other kinds, and their bytes
_MODEL_GRAPH = 7
_GRAPH_NODE = 1
_NODE_ATTRIBUTE = 5
_ATTRIBUTE_NAME, _ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH = 1, 5, 6
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_FLOAT = 1  # a tensor's type


def constants(path: str | PathLike[str], branch: str) -> dict[str, NDArray[np.float32]]:
    """The named float32 constants of a graph, and of the graphs that its nodes hold in
    attributes called ``branch`` ("else_branch" of an If), read-only, in their own shapes.

    Of several with one name the first counts. ModelError when the file is absent or damaged.
    """
    found: dict[str, NDArray[np.float32]] = {}
    try:
        for number, graph in _fields(Path(path).read_bytes()):
            if number == _MODEL_GRAPH:
                _search(_message(graph), branch.encode(), found)
    except (OSError, ValueError, IndexError) as error:
        raise ModelError(f"{path}: is absent or damaged: run: threadline models fetch") from error
    return found


def _search(graph: bytes, branch: bytes, found: dict[str, NDArray[np.float32]]) -> None:
    for number, node in _fields(graph):
        if number != _GRAPH_NODE:
            continue
        for part, attribute in _fields(_message(node)):
            if part != _NODE_ATTRIBUTE:
                continue
            fields = dict(_fields(_message(attribute)))  # each of these is there once
            if _ATTRIBUTE_TENSOR in fields:
                _read(_message(fields[_ATTRIBUTE_TENSOR]), found)
            elif fields.get(_ATTRIBUTE_NAME) == branch:
                _search(_message(fields[_ATTRIBUTE_GRAPH]), branch, found)


def _read(tensor: bytes, found: dict[str, NDArray[np.float32]]) -> None:
    shape: list[int] = []
    fields: dict[int, int | bytes] = {}
    for number, value in _fields(tensor):
        if number == _TENSOR_DIMS:
            shape += [value] if isinstance(value, int) else _packed(value)
        else:
            fields[number] = value
    name = _message(fields.get(_TENSOR_NAME, b"")).decode()
    raw = _message(fields.get(_TENSOR_RAW, b""))
    if fields.get(_TENSOR_TYPE) == _FLOAT and name and len(raw) == 4 * prod(shape):
        found.setdefault(name, np.frombuffer(raw, "<f4").reshape(shape))


def _message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        value: int | bytes
        if kind == _VARINT:
            value, at = _varint(message, at)
        elif kind in _SIZES:
            size = _SIZES[kind]
            value, at = message[at : at + size], at + size
        elif kind == _BYTES:
            size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        else:
            raise ValueError(f"no kind of field: {kind}")
        if at > len(message):
            raise ValueError("the file ends within a field")
        yield key >> 3, value


def _packed(data: bytes) -> list[int]:
    """Varints, one after another."""
    numbers, at = [], 0
    while at < len(data):
        number, at = _varint(data, at)
        numbers.append(number)
    return numbers


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where the next field begins."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
