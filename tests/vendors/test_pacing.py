"""A reply's pieces come out in order and whole, and none is held when the ear might wait for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from threadline.audio.mulaw import FRAME
from threadline.vendors.cartesia_speech import Piece
from threadline.vendors.pacing import AHEAD_SECONDS, HOLD_SECONDS, Pacing

MS = FRAME // 20


def audio(ms: int) -> bytes:
    return bytes(ms * MS)


def far_ahead() -> Pacing:
    """Of a reply of which a second has left."""
    pacing = Pacing()
    assert pacing.put(Piece(0, audio(1000), done=True), 0.0)
    return pacing


def test_the_first_pieces_leave_as_they_come_and_later_ones_together() -> None:
    pacing, now, left = Pacing(), 100.0, []
    for _ in range(12):  # three times as fast as they are heard
        left.append(sum(len(piece.audio) // MS for piece in pacing.put(Piece(1, audio(100)), now)))
        now += 0.03
    assert left == [100] * 6 + [0, 200] + [0] * 4
    assert pacing.take() == [Piece(1, audio(400))]
    assert pacing.take() == []


def test_the_end_of_a_clause_takes_all_of_it_along() -> None:
    pacing = far_ahead()
    assert pacing.put(Piece(1, audio(900)), 0.0) == []
    words = (("Good", 300),)
    assert pacing.put(Piece(1, b"", words=words), 0.0) == []
    assert pacing.put(Piece(1, audio(20)), 0.0) == []
    last = Piece(1, audio(20), done=True, duration_ms=940)
    assert pacing.put(last, 0.0) == [Piece(1, audio(940), True, 940, words)]
    assert pacing.held is None


def test_a_failure_is_told_apart_from_what_came_before_it() -> None:
    pacing = far_ahead()
    pacing.put(Piece(1, audio(900)), 0.0)
    failed = Piece(1, audio(20), done=True, reason="gone")
    assert pacing.put(failed, 0.0) == [Piece(1, audio(900)), failed]


def test_after_a_gap_the_ear_waits_again() -> None:
    pacing = Pacing()
    pacing.put(Piece(1, audio(900), done=True), 0.0)
    assert pacing.put(Piece(2, audio(100)), 0.1) == []
    pacing.take()
    assert pacing.put(Piece(2, audio(100)), 5.0) == [Piece(2, audio(100))]


steps = st.lists(st.tuples(st.floats(0, 0.3), st.integers(0, 15)), max_size=40)


@given(steps)
def test_whoever_asks_in_time_never_lets_the_ear_wait(steps: list[tuple[float, int]]) -> None:
    """The ear hears a piece at the earliest when it came, and one after another. Held pieces are
    asked for at their last moment."""
    pacing, now = Pacing(), 0.0
    due: float | None = None
    came, left = [0.0], [0.0]  # when each frame could be heard: as it came, as it left

    def hear(times: list[float], frames: int, at: float) -> None:
        for _ in range(frames):
            times.append(max(times[-1] + 0.02, at))

    for wait, frames in steps:
        now += wait
        if due is not None and due <= now:
            for piece in pacing.take():
                hear(left, len(piece.audio) // FRAME, due)
            due = None
        hear(came, frames, now)
        for piece in pacing.put(Piece(1, bytes(FRAME * frames)), now):
            hear(left, len(piece.audio) // FRAME, now)
        if pacing.held is None:
            due = None
        elif due is None:
            due = now + HOLD_SECONDS
    for piece in pacing.take():
        hear(left, len(piece.audio) // FRAME, due or now)
    assert HOLD_SECONDS < AHEAD_SECONDS
    assert all(abs(a - b) < 1e-6 for a, b in zip(came, left, strict=True))
