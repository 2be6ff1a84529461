import audioop
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.audio import mulaw

ALL_SAMPLES = np.arange(-32_768, 32_768).astype(np.int16)
ALL_CODES = bytes(range(256))


def test_decode_is_g711_for_every_code() -> None:
    assert mulaw.decode(ALL_CODES).tobytes() == audioop.ulaw2lin(ALL_CODES, 2)


def test_encode_is_g711_for_every_sample() -> None:
    assert mulaw.encode(ALL_SAMPLES) == audioop.lin2ulaw(ALL_SAMPLES.tobytes(), 2)


@pytest.mark.parametrize(
    ("code", "sample"), [(0xFF, 0), (0x7F, 0), (0x00, -32_124), (0x80, 32_124), (0x7E, -8)]
)
def test_decode_vectors(code: int, sample: int) -> None:
    assert mulaw.decode(bytes([code])).tolist() == [sample]


@pytest.mark.parametrize(
    ("sample", "code"), [(0, mulaw.SILENCE), (-1, 0x7E), (32_767, 0x80), (-32_768, 0x00)]
)
def test_encode_vectors(sample: int, code: int) -> None:
    assert mulaw.encode(np.array([sample], np.int16)) == bytes([code])


@given(st.binary(max_size=400))
def test_a_frame_survives_decoding_and_encoding(codes: bytes) -> None:
    # 0x7F is minus zero, which comes back as the other zero; every other code is its own.
    assert mulaw.encode(mulaw.decode(codes)) == codes.replace(b"\x7f", b"\xff")


@given(st.binary(max_size=400))
def test_float_is_the_same_sound(codes: bytes) -> None:
    unit = mulaw.decode_float(codes)
    assert unit.dtype == np.float32
    assert np.array_equal(unit * 32_768, mulaw.decode(codes))
    assert mulaw.encode_float(unit) == mulaw.encode(mulaw.decode(codes))


def test_error_is_under_half_a_step() -> None:
    back = mulaw.decode(mulaw.encode(ALL_SAMPLES)).astype(int)
    inside = np.abs(ALL_SAMPLES.astype(int)) <= 32_124
    error = np.abs(back - ALL_SAMPLES)[inside]
    step = np.maximum(8, (np.abs(ALL_SAMPLES.astype(int)[inside]) + 132) / 16)
    assert (error <= step).all()


def test_loud_floats_are_clipped_not_wrapped() -> None:
    assert mulaw.encode_float(np.array([3.0, -3.0, 1.0], np.float32)) == b"\x80\x00\x80"


def test_floats_are_rounded_not_cut() -> None:
    # 3.9 of 32,768ths belongs to sample 4, whose code differs from that of 3.
    assert mulaw.encode_float(np.array([3.9 / 32_768], np.float32)) == mulaw.encode(
        np.array([4], np.int16)
    )
    assert mulaw.encode(np.array([3], np.int16)) != mulaw.encode(np.array([4], np.int16))


def test_accepts_views_and_strides() -> None:
    arena = bytearray(ALL_CODES)
    assert (
        mulaw.decode(memoryview(arena)[10:20]).tolist() == mulaw.decode(ALL_CODES)[10:20].tolist()
    )
    stereo = np.arange(20, dtype=np.int16).reshape(-1, 2) * 100
    assert mulaw.encode(stereo[:, 1]) == mulaw.encode(stereo[:, 1].copy())


def test_nothing_in_nothing_out() -> None:
    assert mulaw.encode(mulaw.decode(b"")) == b""
    assert mulaw.encode_float(mulaw.decode_float(b"")) == b""


def test_what_is_returned_is_the_callers_and_the_tables_are_nobodys() -> None:
    mulaw.decode(b"\x00")[0] = 1
    assert mulaw.decode(b"\x00").tolist() == [-32_124]
    with pytest.raises(ValueError, match="read-only"):
        mulaw.DECODE[0] = 1
