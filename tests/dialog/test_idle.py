"""The clock of a quiet call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from threadline.dialog.events import Quiet
from threadline.dialog.idle import Idle


def test_nudge_then_goodbye_each_counted_from_the_end_of_playback() -> None:
    idle = Idle(15, 1)
    idle.agent_speaking()
    idle.played_out(3.0)
    assert idle.next_due() == 18.0
    assert idle.tick(17.9) is None
    assert idle.tick(18.0) == Quiet(1, last=False)
    assert idle.next_due() is None  # the nudge is being spoken
    assert idle.tick(99.0) is None
    idle.agent_speaking()
    idle.played_out(20.0)
    assert idle.tick(34.9) is None
    assert idle.tick(35.0) == Quiet(2, last=True)
    idle.played_out(37.0)
    assert idle.next_due() is None
    assert idle.tick(1000.0) is None


def test_the_clock_stands_before_anything_was_played() -> None:
    idle = Idle(15, 1)
    assert idle.next_due() is None
    assert idle.tick(1e9) is None


def test_words_begin_the_count_again() -> None:
    idle = Idle(15, 1)
    idle.played_out(0.0)
    assert idle.tick(15.0) == Quiet(1, last=False)
    idle.caller_active(16.0)
    assert idle.next_due() is None
    idle.played_out(20.0)
    assert idle.tick(35.0) == Quiet(1, last=False)


def test_a_floor_with_nothing_but_noise_in_it_stops_the_clock_and_keeps_the_count() -> None:
    idle = Idle(15, 1)
    idle.played_out(0.0)
    assert idle.tick(15.0) == Quiet(1, last=False)
    idle.played_out(16.0)
    idle.caller_active(20.0, words=False)
    assert idle.tick(31.0) is None
    idle.played_out(40.0)
    assert idle.tick(55.0) == Quiet(2, last=True)


def test_an_end_of_playback_from_before_the_caller_spoke_starts_nothing() -> None:
    idle = Idle(15, 1)
    idle.caller_active(5.0)
    idle.played_out(4.9)
    assert idle.next_due() is None


def test_more_is_said_before_the_time_is_over() -> None:
    idle = Idle(15, 1)
    idle.played_out(0.0)
    idle.agent_speaking()
    assert idle.tick(20.0) is None
    idle.played_out(22.0)
    assert idle.next_due() == 37.0


def test_settings() -> None:
    never = Idle(0, 1)
    never.played_out(0.0)
    assert never.next_due() is None
    assert never.tick(1e9) is None
    at_once = Idle(10, 0)
    at_once.played_out(0.0)
    assert at_once.tick(10.0) == Quiet(1, last=True)


STEPS = st.lists(
    st.tuples(st.sampled_from(["speak", "active", "noise", "out", "tick"]), st.floats(0, 30)),
    max_size=60,
)


@given(STEPS, st.integers(0, 3))
def test_quiet_is_noticed_only_after_the_limit_and_at_the_time_told(
    steps: list[tuple[str, float]], nudges: int
) -> None:
    idle = Idle(15, nudges)
    now, out, told = 0.0, None, 0
    for what, wait in steps:
        now += wait
        match what:
            case "speak":
                idle.agent_speaking()
                out = None
            case "active" | "noise":
                idle.caller_active(now, words=what == "active")
                out, told = None, 0 if what == "active" else told
            case "out":
                idle.played_out(now)
                out = now
            case "tick":
                due = idle.next_due()
                quiet = idle.tick(now)
                assert (quiet is not None) == (due is not None and now >= due)
                assert (due is None) == (out is None or told > nudges)
                if quiet is not None:
                    assert out is not None
                    assert now - out >= 15
                    told += 1
                    assert quiet == Quiet(told, last=told == nudges + 1)
                    out = None
