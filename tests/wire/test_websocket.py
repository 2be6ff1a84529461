"""Splitter and protocol together take a client's stream just as the protocol alone does."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from threadline.wire.websocket import Splitter, text_frame

MAX = 300
MASK = b"\x5a\x00\xff\x17"

type Seen = tuple[int, bytes, bool]


def client_frame(head: int, data: bytes, *, masked: bool = True, wide: int = 0) -> bytes:
    """A frame as a client sends it; `wide`: its length in so many bytes, needed or not."""
    size, bit = len(data), 0x80 if masked else 0
    wide = max(wide, 0 if size < 126 else 2 if size < 65_536 else 8)
    short = {0: size, 2: 126, 8: 127}[wide]
    length = size.to_bytes(wide) if wide else b""
    body = bytes(a ^ MASK[i % 4] for i, a in enumerate(data)) if masked else data
    return bytes([head, bit | short]) + length + (MASK if masked else b"") + body


class Whole:
    """The library alone, as the end of a stream that is masked, a client's, or is not."""

    def __init__(self, masked: bool = True) -> None:
        side = Side.SERVER if masked else Side.CLIENT
        self.protocol = Protocol(side, state=State.OPEN, max_size=MAX)
        self.seen: list[Seen] = []

    def feed(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for frame in self.protocol.events_received():
            assert isinstance(frame, Frame)
            self.seen.append((frame.opcode, bytes(frame.data), frame.fin))

    def outcome(self) -> tuple[object, ...]:
        protocol = self.protocol
        return self.seen, protocol.data_to_send(), protocol.state, repr(protocol.parser_exc)


class Split(Whole):
    """The same behind a splitter, which may take text messages away from it."""

    def __init__(self, masked: bool = True) -> None:
        super().__init__(masked)
        self.splitter = Splitter(MAX, masked=masked)
        self.taken = 0

    def feed(self, data: bytes) -> None:
        for is_text, part in self.splitter.feed(data):
            if is_text and self.protocol.state is not State.OPEN:
                continue  # the protocol was broken: the leg is closed
            if is_text:
                self.taken += 1
                self.seen.append((Opcode.TEXT, bytes(part), True))
            else:
                super().feed(part)


def streams(masked: bool) -> st.SearchStrategy[bytes]:
    texts = st.binary(max_size=MAX)
    right = partial(st.builds, client_frame, masked=st.just(masked))
    good = st.one_of(
        right(st.just(0x81), texts, wide=st.sampled_from((0, 2, 8))),
        right(st.sampled_from((0x01, 0x80, 0x00, 0x82)), texts),
        right(st.sampled_from((0x89, 0x8A)), st.binary(max_size=125)),
    )
    bad = st.one_of(
        st.builds(client_frame, st.integers(0, 255), texts, masked=st.booleans()),
        st.just(client_frame(0x81, bytes(MAX + 1), masked=masked)),
        st.just(client_frame(0x88, b"\x03\xe8bye", masked=masked)),
    )
    return st.lists(st.one_of(good, good, good, bad), max_size=8).map(b"".join)


sides = st.booleans().flatmap(lambda masked: st.tuples(st.just(masked), streams(masked)))


@patch("websockets.frames.secrets.token_bytes", lambda size: MASK)  # of a client's own frames
@given(sides, st.lists(st.integers(0, 4000), max_size=12))
def test_the_protocol_alone_would_see_the_same(side: tuple[bool, bytes], cuts: list[int]) -> None:
    masked, stream = side
    alone, split = Whole(masked), Split(masked)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for begin, end in pairwise(places):
        split.feed(stream[begin:end])
    alone.feed(stream)
    seen, *rest = split.outcome()
    expected, *others = alone.outcome()
    assert seen == expected
    if split.splitter._rest:  # its end is not there: the protocol has not been shown its begin
        return
    assert rest == others


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 200, MAX])
def test_whole_texts_never_reach_the_protocol(size: int, masked: bool) -> None:
    split = Split(masked)
    frame = client_frame(0x81, (bytes(range(256)) * 2)[:size], masked=masked)
    split.feed(frame * 3 + frame[:1])
    split.feed(frame[1:])
    assert split.taken == 4
    assert not split.protocol.reader.buffer
    assert set(split.seen) == {(Opcode.TEXT, (bytes(range(256)) * 2)[:size], True)}


def test_a_text_in_the_middle_of_a_fragmented_message_breaks_the_protocol() -> None:
    split = Split()
    split.feed(client_frame(0x01, b"a") + client_frame(0x81, b"b"))
    assert (split.taken, split.protocol.parser_exc is None) == (0, False)
    split = Split()
    split.feed(client_frame(0x01, b"a") + client_frame(0x89, b"") + client_frame(0x80, b"b"))
    split.feed(client_frame(0x81, b"c"))
    assert (split.taken, split.protocol.parser_exc) == (1, None)


def test_nothing_is_read_after_a_goodbye() -> None:
    split = Split()
    split.feed(client_frame(0x88, b"\x03\xe8") + client_frame(0x81, b"late"))
    assert split.taken == 0


def test_a_message_beyond_the_bound_is_refused_before_it_is_there() -> None:
    split = Split()
    split.feed(client_frame(0x81, bytes(70_000), wide=8)[:14])
    assert "exceeds limit" in str(split.protocol.parser_exc)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_our_frames_are_the_librarys(size: int) -> None:
    text = b"x" * size
    assert text_frame(text) == Frame(Opcode.TEXT, text).serialize(mask=False)
