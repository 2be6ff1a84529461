"""The part of a WebSocket that every 20 ms of a call pass through: whole text messages.

The protocol of the websockets library makes half a dozen objects of a message and takes longer
over it than the rest of its way to vad. Here a whole text message is two slices; all that is
anything else (pings, fragments, a goodbye, what breaks the protocol) is handed on as it came, and
the library deals with it.
"""

from __future__ import annotations

from struct import Struct

try:
    from websockets.speedups import apply_mask
except ImportError:  # built without its C part
    from websockets.utils import apply_mask

_FIN, _OPCODE, _RESERVED = 0x80, 0x0F, 0x70
_CONTINUATION, _TEXT, _BINARY, _PING, _PONG = 0, 1, 2, 9, 10
_WHOLE_TEXT = _FIN | _TEXT
_MASKED, _LENGTH = 0x80, 0x7F
_KNOWN = (_CONTINUATION, _TEXT, _BINARY, _PING, _PONG)
_ALL = 1 << 62  # bytes: whatever may come

_short_head, _long_head, _longest_head = Struct("!BB"), Struct("!BBH"), Struct("!BBQ")


class Splitter:
    """One peer's stream, from the end of the handshake on, cut where its frames are.

    ``max_bytes`` bounds a text message; what is longer is left to the protocol, which refuses it.
    ``masked``: the peer is a client; a server's frames are plain.
    """

    __slots__ = ("_foreign", "_fragment", "_mask", "_max", "_rest")

    def __init__(self, max_bytes: int, *, masked: bool = True) -> None:
        self._max = max_bytes
        self._mask = _MASKED if masked else 0
        self._rest = b""  # of a frame that is not complete
        self._foreign = 0  # so many of the bytes to come are the protocol's
        self._fragment = False  # a message in several frames has begun

    def feed(self, data: bytes) -> list[tuple[bool, bytes]]:
        """Take more of the stream; give, in its order, text messages (True, the text, unmasked)
        and what is for the protocol (False, as it came). It never raises.

        A text that follows what the protocol found broken is none: ask it, or whoever closed.
        """
        found: list[tuple[bool, bytes]] = []
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        while at < size:
            if self._foreign:
                end = min(size, at + self._foreign)
                self._foreign -= end - at
                found.append((False, data[at:end]))
                at = end
                continue
            if size - at < 2:
                break
            first, second = data[at], data[at + 1]
            mask = second & _MASKED
            length, body = second & _LENGTH, at + (6 if mask else 2)
            if length == 126:
                length, body = int.from_bytes(data[at + 2 : at + 4]), body + 2
            elif length == 127:
                length, body = int.from_bytes(data[at + 2 : at + 10]), body + 8
            if body > size:
                break  # its head is not complete
            end = body + length
            if (
                first == _WHOLE_TEXT
                and mask == self._mask
                and length <= self._max
                and not self._fragment
            ):
                if end > size:
                    break
                text = data[body:end]
                found.append((True, apply_mask(text, data[body - 4 : body]) if mask else text))
                at = end
            else:
                self._foreign = self._left_over(first, second, end - at)
        self._rest = data[at:]
        return found

    def _left_over(self, first: int, second: int, size: int) -> int:
        """How much is the protocol's when a frame begins that is not ours; `size` is the frame's.
        All of it, once the protocol is broken or the peer has said goodbye."""
        opcode = first & _OPCODE
        if opcode not in _KNOWN or first & _RESERVED or second & _MASKED != self._mask:
            return _ALL
        if opcode in (_TEXT, _BINARY, _CONTINUATION):
            self._fragment = not first & _FIN
        return size


def text_frame(text: bytes) -> bytes:
    """A server's frame around a whole text message (UTF-8)."""
    size = len(text)
    if size < 126:
        return _short_head.pack(_WHOLE_TEXT, size) + text
    if size < 65_536:
        return _long_head.pack(_WHOLE_TEXT, 126, size) + text
    return _longest_head.pack(_WHOLE_TEXT, 127, size) + text
