"""G.711 mu-law, by table.

One byte is one sample at 8 kHz; a frame is 20 ms. The tables are built once from the formulas
of ITU-T G.711 (encoding works on 14 bits) and never written again, so any thread may use them.
"""

from __future__ import annotations

from collections.abc import Buffer

import numpy as np
from numpy.typing import NDArray

RATE = 8000  # samples, and bytes, per second
FRAME = 160  # samples, and bytes, per 20 ms
SILENCE = 0xFF  # the code of 0
SILENCE_BYTE = bytes([SILENCE])


def _decode_table() -> NDArray[np.int16]:
    code = ~np.arange(256) & 0xFF
    magnitude = ((((code & 15) << 3) + 0x84) << (code >> 4 & 7)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _encode_table() -> NDArray[np.uint8]:
    # Indexed by the sample's own int16 value: numpy counts a negative index from the end, which
    # is just where two's complement puts the negative samples.
    sample = np.arange(65_536, dtype=np.uint16).view(np.int16).astype(np.int64) >> 2
    biased = np.minimum(np.abs(sample), 8158) + 33
    segment = np.frexp(biased)[1] - 6  # frexp's exponent is floor(log2) + 1
    code = segment << 4 | (biased >> segment + 1 & 15)
    table: NDArray[np.uint8] = (code ^ np.where(sample < 0, 0x7F, 0xFF)).astype(np.uint8)
    return table


def _frozen[T: np.generic](table: NDArray[T]) -> NDArray[T]:
    table.flags.writeable = False
    return table


DECODE = _frozen(_decode_table())
DECODE_FLOAT = _frozen(DECODE.astype(np.float32) / np.float32(32_768))
ENCODE = _frozen(_encode_table())


def decode(codes: Buffer) -> NDArray[np.int16]:
    """Mu-law bytes as int16[n], a fresh array; |sample| <= 32124."""
    return DECODE.take(np.frombuffer(codes, np.uint8))


def decode_float(codes: Buffer) -> NDArray[np.float32]:
    """Mu-law bytes as float32[n] in (-1, 1), a fresh array."""
    return DECODE_FLOAT.take(np.frombuffer(codes, np.uint8))


def encode(samples: NDArray[np.int16]) -> bytes:
    """Samples as mu-law, one byte each; the loudest codes stand for everything above them."""
    return ENCODE[samples].tobytes()


def encode_float(samples: NDArray[np.float32]) -> bytes:
    """Finite samples as mu-law, one byte each; 1.0 is full scale, louder is clipped."""
    scaled = np.rint(samples * np.float32(32_768))
    return encode(np.clip(scaled, -32_768, 32_767).astype(np.int16))
