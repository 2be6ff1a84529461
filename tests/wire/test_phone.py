from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from threadline.audio.mulaw import FRAME, RATE, SILENCE
from threadline.wire.phone import CONTINUES, HELD_SAMPLES, RESUMES, STARTS, Gap, Phone

LOUD = b"\x10"  # a mu-law code far above the threshold
FRAME_S = FRAME / RATE


def paced(phone: Phone, start: float, frames: int, code: bytes = LOUD) -> float:
    """Frames on the 20 ms grid; when the next would come."""
    for index in range(frames):
        assert phone.media(code * FRAME, start + index * FRAME_S) == []
    return start + frames * FRAME_S


def test_an_utterance_starts_after_the_playout_buffer_has_filled() -> None:
    phone = Phone(buffer_ms=40)
    phone.media(LOUD * FRAME, 1.0)
    assert phone.silent_since is None
    phone.play(1.0399)
    assert phone.played == 0
    phone.play(1.05)
    assert phone.played == 80
    assert phone.utterances[0].start == 1.04 * RATE


def test_frames_on_the_grid_join_without_a_seam() -> None:
    phone = Phone()
    end = paced(phone, 0.5, 50)
    assert phone.mark("end", end) == []
    assert phone.play(end + 0.0399) == []
    assert phone.play(end + 0.04) == ["end"]
    (utterance,) = phone.utterances
    assert (utterance.start, utterance.end) == (0.54 * RATE, 1.54 * RATE)
    assert (utterance.first_loud, utterance.last_loud) == (utterance.start, utterance.end - 1)
    assert not phone.gaps
    heard = phone.heard(2 * RATE)
    assert set(np.flatnonzero(heard == LOUD[0])) == set(range(utterance.start, utterance.end))
    assert set(heard.tolist()) == {LOUD[0], SILENCE}


def test_audio_faster_than_real_time_is_played_in_real_time() -> None:
    phone = Phone(buffer_ms=0)
    for code in range(10):
        phone.media(bytes([code]) * RATE, 0.001 * code)
        phone.mark(str(code), 0.001 * code)
    came = [(at / 10, name) for at in range(120) for name in phone.play(at / 10)]
    assert came == [(float(code + 1), str(code)) for code in range(10)]
    assert phone.heard(10 * RATE).tolist() == [c for c in range(10) for _ in range(RATE)]


def test_a_mark_with_nothing_before_it_comes_back_at_once() -> None:
    phone = Phone()
    assert phone.mark("early", 0.0) == ["early"]
    end = paced(phone, 1.0, 5)
    phone.play(end + 1)
    assert phone.mark("late", end + 1) == ["late"]


def test_clear_empties_the_buffer_and_returns_every_pending_mark() -> None:
    phone = Phone(buffer_ms=0)
    phone.media(LOUD * RATE, 0.0)
    phone.mark("played", 0.0)
    phone.media(LOUD * RATE, 0.0)
    phone.mark("a", 0.0)
    phone.mark("b", 0.0)
    assert phone.clear(1.5) == ["played", "a", "b"]
    assert phone.silent_since == 1.5 * RATE
    assert phone.clear(1.6) == []
    assert phone.play(9.0) == []
    assert phone.clears == [1.5 * RATE, 1.6 * RATE]
    assert phone.utterances[0].end == 1.5 * RATE
    phone.media(LOUD * FRAME, 1.7)  # soon after, and yet no underrun: a clear ends an utterance
    assert not phone.gaps
    assert len(phone.utterances) == 2


def test_a_clear_after_the_audio_ran_dry_ends_the_utterance_too() -> None:
    phone = Phone()
    end = paced(phone, 0.0, 10)
    phone.clear(end + 0.1)
    paced(phone, end + 0.2, 10)
    assert not phone.gaps
    assert len(phone.utterances) == 2


def test_running_dry_within_an_utterance_is_a_gap_and_the_buffer_fills_again() -> None:
    phone = Phone(buffer_ms=40)
    end = paced(phone, 0.0, 10)
    paced(phone, end + 0.1, 10)
    assert phone.gaps == [Gap(1920, 2720, 10)]  # 240 ms played dry; 300 + 40 ms plays again
    assert len(phone.utterances) == 1
    assert phone.arrivals().kind.tolist() == [STARTS, *[CONTINUES] * 9, RESUMES, *[CONTINUES] * 9]


def test_a_late_frame_within_the_buffer_is_no_gap() -> None:
    phone = Phone(buffer_ms=40)
    end = paced(phone, 0.0, 10)
    paced(phone, end + 0.039, 10)
    assert not phone.gaps


def test_a_frame_at_the_very_instant_the_audio_ends_is_in_time() -> None:
    phone = Phone(buffer_ms=0)
    phone.media(LOUD * FRAME, 0.0)
    phone.play(FRAME_S)
    phone.media(LOUD * FRAME, FRAME_S)
    assert not phone.gaps
    assert len(phone.utterances) == 1


def test_a_mark_ends_an_utterance() -> None:
    for marked_at in (0.2, 0.3):  # while it plays; after it ran dry
        phone = Phone()
        end = paced(phone, 0.0, 10)
        assert end == 0.2
        assert phone.mark("end", marked_at) + phone.play(0.39) == ["end"]
        paced(phone, 0.4, 10)
        assert not phone.gaps
        assert len(phone.utterances) == 2


def test_a_long_silence_starts_a_new_utterance_and_is_still_a_gap() -> None:
    phone = Phone()
    end = paced(phone, 0.0, 10)
    paced(phone, end + 0.7, 10)
    assert len(phone.utterances) == 2
    assert len(phone.gaps) == 1  # whether it counts depends on the server's use of marks


def test_quiet_samples_are_played_and_not_audible() -> None:
    phone = Phone(buffer_ms=0)
    phone.media(bytes([SILENCE]) * 100 + LOUD * 50 + bytes([SILENCE]) * 10, 0.0)
    phone.play(1.0)
    (utterance,) = phone.utterances
    assert (utterance.first_loud, utterance.last_loud, utterance.end) == (100, 149, 160)


def test_ten_minutes_are_held_and_no_more() -> None:
    phone = Phone(buffer_ms=0)
    phone.media(LOUD * HELD_SAMPLES, 0.0)
    phone.media(LOUD, 0.0)
    assert phone.discarded == 1
    phone.media(LOUD * RATE, 1.0)
    assert phone.discarded == 1


def test_a_recording_may_end_before_the_audio_does() -> None:
    phone = Phone(buffer_ms=0)
    assert phone.heard(3).tolist() == [SILENCE] * 3
    phone.media(LOUD * FRAME, 0.0)
    phone.play(1.0)
    phone.media(LOUD * FRAME, 2.0)
    phone.play(3.0)
    assert phone.heard(100).tolist() == [LOUD[0]] * 100
    assert phone.heard(0).tolist() == []


steps = st.lists(
    st.tuples(
        st.integers(0, 3000),  # samples until it happens
        st.sampled_from(["media", "media", "media", "mark", "clear"]),
        st.integers(1, 2000),  # samples of audio
    ),
    max_size=40,
)


def run(todo: list[tuple[int, str, int]], buffer_ms: int, poll: int) -> tuple[Phone, list[str]]:
    """The steps, with a poll every ``poll`` samples between (0: none)."""
    phone, at, back = Phone(buffer_ms), 0, list[str]()
    for number, (wait, what, size) in enumerate(todo):
        for between in range(at, at + wait, poll) if poll else ():
            back += phone.play(between / RATE)
        at += wait
        match what:
            case "media":
                back += phone.media(bytes([number % 100]) * size, at / RATE)
            case "mark":
                back += phone.mark(str(number), at / RATE)
            case "clear":
                back += phone.clear(at / RATE)
    return phone, back + phone.play(at / RATE + 60)


@given(steps, st.sampled_from([0, 40, 200]))
def test_every_mark_comes_back_once_and_in_order(
    todo: list[tuple[int, str, int]], buffer_ms: int
) -> None:
    asked = [str(number) for number, (_, what, _) in enumerate(todo) if what == "mark"]
    phone, back = run(todo, buffer_ms, 0)
    assert back == asked
    assert phone.silent_since is not None


@given(steps, st.sampled_from([0, 40, 200]), st.integers(50, 700))
def test_how_often_it_is_asked_makes_no_difference(
    todo: list[tuple[int, str, int]], buffer_ms: int, poll: int
) -> None:
    seldom, _ = run(todo, buffer_ms, 0)
    often, _ = run(todo, buffer_ms, poll)
    length = sum(wait + size for wait, _, size in todo) + 4000
    assert seldom.heard(length).tobytes() == often.heard(length).tobytes()
    assert seldom.utterances == often.utterances
    assert seldom.gaps == often.gaps


@given(steps, st.sampled_from([0, 40, 200]))
def test_without_a_clear_all_audio_is_played_once_and_in_order(
    todo: list[tuple[int, str, int]], buffer_ms: int
) -> None:
    todo = [step for step in todo if step[1] != "clear"]
    phone, _ = run(todo, buffer_ms, 0)
    sent = b"".join(
        bytes([number % 100]) * size
        for number, (_, what, size) in enumerate(todo)
        if what == "media"
    )
    assert phone.played_since(0) == sent
    length = sum(wait + size for wait, _, size in todo) + 100 * 2000
    heard = phone.heard(length).tobytes()
    assert heard.translate(None, bytes([SILENCE])) == sent
