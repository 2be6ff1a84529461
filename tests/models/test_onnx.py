"""The reader of ONNX files, on messages made by hand."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.errors import ModelError
from threadline.models.onnx import constants


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name: str, values: list[float], dims: bytes) -> bytes:
    return dims + field(2, 1) + field(8, name.encode()) + field(9, np.float32(values).tobytes())


def node(*attributes: bytes) -> bytes:
    return field(1, b"".join(field(5, attribute) for attribute in attributes))


def constant(name: str, values: list[float], dims: bytes) -> bytes:
    return node(field(1, b"value") + field(5, tensor(name, values, dims)))


def branch(name: str, graph: bytes) -> bytes:
    return field(1, name.encode()) + field(6, graph)


def model(graph: bytes) -> bytes:
    return field(1, 8) + field(7, graph) + b"\x4d\0\0\0\0" + b"\x51" + bytes(8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.onnx"


def test_constants_of_a_graph_and_of_the_named_branch(file: Path) -> None:
    plain = constant("a", [1, 2, 3, 4, 5, 6], field(1, 2) + field(1, 3))
    packed = constant("b", [7, 8], field(1, varint(2) + varint(1)))
    wanted = branch("else_branch", packed + constant("a", [0], field(1, 1)))
    other = branch("then_branch", constant("c", [9], b""))
    file.write_bytes(model(plain + node(wanted, other)))
    found = constants(file, "else_branch")
    assert set(found) == {"a", "b"}
    np.testing.assert_array_equal(found["a"], np.float32([[1, 2, 3], [4, 5, 6]]))
    np.testing.assert_array_equal(found["b"], np.float32([[7], [8]]))
    assert set(constants(file, "then_branch")) == {"a", "c"}


def test_what_is_no_float32_or_has_no_name_is_left_out(file: Path) -> None:
    whole = field(1, 1) + field(2, 7) + field(8, b"n") + field(9, bytes(8))
    short = field(1, 3) + field(2, 1) + field(8, b"m") + field(9, bytes(8))
    graph = constant("", [1], field(1, 1)) + node(field(5, whole)) + node(field(5, short))
    file.write_bytes(model(graph))
    assert constants(file, "else_branch") == {}


@given(st.binary(max_size=60))
def test_any_bytes_give_constants_or_one_error(tmp_path_factory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.onnx"
    file.write_bytes(field(7, data))
    with suppress(ModelError):
        assert all(array.dtype == np.float32 for array in constants(file, "else_branch").values())
