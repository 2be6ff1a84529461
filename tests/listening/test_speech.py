"""The state table, row by row; then any speech at all against what must always hold."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from threadline.config import Vad
from threadline.listening.speech import (
    WINDOW_MS,
    Lapsed,
    Onset,
    Over,
    Paused,
    SpeechMachine,
    State,
    Taken,
    windows,
)

# In windows: onset 2, floor 3, or 6 when busy, resume 4, probe 3, hangover 5, pre-roll 4, max 40.
CONFIG = Vad(
    threshold=0.5,
    release=0.35,
    pause_threshold=0.3,
    drop_db=35.0,
    onset_ms=2 * WINDOW_MS,
    min_speech_ms=3 * WINDOW_MS,
    interrupt_ms=6 * WINDOW_MS,
    resume_ms=4 * WINDOW_MS,
    probe_ms=3 * WINDOW_MS,
    hangover_ms=5 * WINDOW_MS,
    preroll_ms=4 * WINDOW_MS,
    max_utterance_ms=40 * WINDOW_MS,
)
WINDOWS = {  # probability, dBFS
    "s": (0.9, -20.0),  # speech
    "b": (0.4, -20.0),  # between the thresholds: keeps open what is open
    "q": (0.9, -55.1),  # the model still believes, but the sound has gone
    ".": (0.1, -20.0),  # silence
}


def run(machine, pattern, busy=False, available=100):
    """Feed `WINDOWS` by their letters; events by window index."""
    events = []
    for i, letter in enumerate(pattern):
        events += [(i, event) for event in machine.feed(*WINDOWS[letter], busy, available)]
    return events


def at(pattern, busy=False, config=CONFIG):
    """A machine that has heard `pattern`."""
    machine = SpeechMachine(config)
    run(machine, pattern, busy)
    return machine


@pytest.mark.parametrize(("ms", "count"), [(0, 1), (1, 1), (32, 1), (33, 2), (480, 15)])
def test_milliseconds_are_rounded_up_to_windows(ms, count):
    assert windows(ms) == count


# -- SILENCE -----------------------------------------------------------------------------------


def test_speech_for_onset_ms_is_an_onset():
    machine = SpeechMachine(CONFIG)
    assert run(machine, "s") == []
    assert machine.state is State.SILENCE
    assert run(machine, "s") == [(0, Onset())]
    assert machine.state is State.SPEECH
    assert not machine.taken


def test_speech_that_breaks_off_before_onset_ms_starts_from_nothing():
    assert run(SpeechMachine(CONFIG), "s.s.s.") == []


def test_what_lies_between_the_thresholds_opens_only_to_pause_a_talking_agent():
    assert run(SpeechMachine(CONFIG), "bbbbbb") == []
    assert run(SpeechMachine(CONFIG), "bb", busy=True) == [(1, Onset())]


def test_speech_opens_on_the_models_word_however_quiet():
    assert run(SpeechMachine(CONFIG), "qqq") == [(1, Onset()), (2, Taken())]


@pytest.mark.parametrize(("busy", "opens", "below"), [(False, 0.5, 0.499), (True, 0.3, 0.299)])
def test_each_threshold_is_itself_speech(busy, opens, below):
    machine = SpeechMachine(CONFIG)
    for probability in (opens, below, opens):
        assert machine.feed(probability, -20.0, busy, 9) == ()
    assert machine.feed(opens, -20.0, busy, 9) == (Onset(),)
    machine.feed(0.35, -20.0, busy, 9)
    assert machine.state is State.SPEECH
    machine.feed(0.349, -20.0, busy, 9)
    assert machine.state is State.HANGOVER


# -- SPEECH ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("busy", "needed"), [(False, 3), (True, 6)])
def test_the_floor_is_taken_by_enough_speech_and_more_of_it_from_a_talking_agent(busy, needed):
    machine = SpeechMachine(CONFIG)
    assert run(machine, "s" * needed, busy) == [(1, Onset()), (needed - 1, Taken())]
    assert machine.taken
    assert run(machine, "sss", busy) == []


def test_pauses_too_short_to_lapse_do_not_count_against_tentative_speech():
    assert run(SpeechMachine(CONFIG), "ss...ss..ss", busy=True) == [(1, Onset()), (10, Taken())]


def test_the_agent_that_falls_silent_makes_the_floor_cheaper():
    machine = at("ssss", busy=True)
    assert not machine.taken
    assert run(machine, "s", busy=False) == [(0, Taken())]


def test_silence_in_speech_is_a_hangover_and_no_event():
    for pattern in ("ss", "sss"):
        machine = at(pattern)
        assert run(machine, ".") == []
        assert machine.state is State.HANGOVER


def test_between_the_thresholds_speech_stays_open():
    machine = at("ss")
    assert run(machine, "b") == [(0, Taken())]
    assert machine.state is State.SPEECH


# -- HANGOVER ----------------------------------------------------------------------------------


def test_speech_again_is_speech_and_no_event():
    machine = at("sss..")
    assert run(machine, "s") == []
    assert machine.state is State.SPEECH


def test_between_the_thresholds_a_hangover_ends():
    machine = at("sss.")
    run(machine, "b")
    assert machine.state is State.SPEECH


# -- the level ---------------------------------------------------------------------------------


def test_a_turn_ends_with_its_sound_although_the_model_still_believes():
    quiet, silent = SpeechMachine(CONFIG), SpeechMachine(CONFIG)
    assert run(quiet, "sssqqqqq") == run(silent, "sss.....")


@pytest.mark.parametrize(
    ("level", "state"), [(-45.0, State.SPEECH), (-45.1, State.HANGOVER), (0.0, State.SPEECH)]
)
def test_silence_is_drop_db_below_the_loudest_window(level, state):
    machine = at("ss")
    machine.feed(0.9, -10.0, False, 9)
    machine.feed(0.9, -30.0, False, 9)
    machine.feed(0.9, level, False, 9)
    assert machine.state is state


def test_a_quieter_utterance_is_not_measured_by_a_louder_one_before_it():
    machine = at("sss.....")
    assert machine.state is State.SILENCE
    assert run(machine, "qqqq") == [(1, Onset()), (2, Taken())]


def test_tentative_speech_lapses_after_resume_ms():
    machine = SpeechMachine(CONFIG)
    assert run(machine, "ss....", busy=True) == [(1, Onset()), (5, Lapsed())]
    assert machine.state is State.SILENCE
    assert run(machine, "ss", busy=True) == [(1, Onset())]


def test_tentative_speech_never_pauses():
    assert run(at("ss"), "...") == []


def test_probe_ms_of_silence_may_be_decoded_and_hangover_ms_end_the_turn():
    machine = SpeechMachine(CONFIG)
    events = run(machine, "sss.....", available=0)
    # Without pre-roll the first window of the two-window onset is lost: 2 of speech, 3 of silence.
    assert events == [(1, Onset()), (2, Taken()), (5, Paused(5)), (7, Over(5, 5))]
    assert machine.state is State.SILENCE
    assert not machine.taken


def test_each_pause_may_be_decoded_and_the_turn_ends_with_the_last():
    events = run(SpeechMachine(CONFIG), "sss...s...s.....", available=0)
    assert [event for _, event in events[2:]] == [Paused(5), Paused(9), Paused(13), Over(13, 5)]


def test_a_turn_that_ends_before_it_could_be_probed_names_all_its_windows():
    config = replace(CONFIG, probe_ms=8 * WINDOW_MS)
    events = run(SpeechMachine(config), "sss.....", available=0)
    assert events[2:] == [(7, Over(7, 5))]


# -- the pre-roll ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("available", "included"),
    [(0, 0), (1, 1), (5, 5), (100, 5)],  # 4 of pre-roll, and the onset's own first window
)
def test_an_utterance_takes_the_preroll_there_is(available, included):
    machine = SpeechMachine(CONFIG)
    assert machine.preroll == 4
    *_, (_, paused) = run(machine, "sss...", available=available)
    assert paused == Paused(included + 2 + 3)


# -- the longest utterance ---------------------------------------------------------------------


def test_speech_without_end_ends_at_max_utterance():
    machine = SpeechMachine(CONFIG)
    events = run(machine, "s" * 60, available=0)
    assert events[:3] == [(1, Onset()), (2, Taken()), (40, Over(40, 0))]
    assert events[3:5] == [(42, Onset()), (43, Taken())]  # and what follows is a new utterance


def test_a_pause_at_max_utterance_ends_it_there():
    events = run(SpeechMachine(CONFIG), "s" * 40 + ".", available=0)
    assert events[-1] == (40, Over(40, 1))


def test_a_decode_begun_in_a_pause_stays_right_when_max_utterance_ends_it():
    events = run(SpeechMachine(CONFIG), "s" * 37 + "....", available=0)
    assert events[-2:] == [(39, Paused(39)), (40, Over(39, 4))]


# -- another caller ----------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["s", "ss", "sss", "sss.", "sss...", "ss.."])
def test_a_new_caller_inherits_nothing(before):
    machine = at(before)
    machine.reset()
    assert run(machine, "sss.....", available=3) == run(
        SpeechMachine(CONFIG), "sss.....", available=3
    )


# -- always ------------------------------------------------------------------------------------

few = st.integers(1, 12)


class AnySpeech(RuleBasedStateMachine):
    """Classifies windows on its own account and keeps its own count of what was said."""

    @initialize(onset=few, free=few, busy=few, resume=few, probe=few, hangover=few, preroll=few)
    def begin(self, onset, free, busy, resume, probe, hangover, preroll):
        # Long enough for the floor to be taken first, whatever the pauses.
        self.longest = preroll + onset + max(free, busy) * resume + 20
        self.probe, self.hangover, self.resume = probe, hangover, resume
        self.onset, self.preroll = onset, preroll
        self.streak = 0  # windows in a row that could open
        self.loudest = 0.0
        config = Vad(
            threshold=0.5,
            release=0.35,
            pause_threshold=0.3,
            drop_db=35.0,
            onset_ms=onset * WINDOW_MS,
            min_speech_ms=free * WINDOW_MS,
            interrupt_ms=busy * WINDOW_MS,
            resume_ms=resume * WINDOW_MS,
            probe_ms=probe * WINDOW_MS,
            hangover_ms=hangover * WINDOW_MS,
            preroll_ms=preroll * WINDOW_MS,
            max_utterance_ms=self.longest * WINDOW_MS,
        )
        self.machine = SpeechMachine(config)
        self.last = None  # the last event of the utterance that is on
        self.length = 0  # its windows, pre-roll included
        self.silence = 0  # windows of silence at its end
        self.paused = None  # windows named by `Paused` in the pause that is on

    @rule(
        probability=st.sampled_from([0.0, 0.2, 0.3, 0.35, 0.45, 0.5, 1.0]),
        level=st.sampled_from([-90.0, -50.0, -40.0, -20.0, -5.0]),
        times=st.integers(1, 15),
        busy=st.booleans(),
        available=st.integers(0, 20),
    )
    def hear(self, probability, level, times, busy, available):
        for _ in range(times):
            self.window(probability, level, busy, available)

    def window(self, probability, level, busy, available):
        was = self.machine.state
        events = self.machine.feed(probability, level, busy, available)
        assert len(events) <= 1
        if was is State.SILENCE:
            self.streak = self.streak + 1 if probability >= (0.3 if busy else 0.5) else 0
            self.loudest = level
            assert (Onset() in events) == (self.streak == self.onset)
        else:
            self.streak = 0
            self.length += 1
            self.loudest = max(self.loudest, level)
            if probability >= 0.35 and level >= self.loudest - 35.0:
                self.silence, self.paused = 0, None
            else:
                self.silence += 1
        for event in events:
            self.event(event, available)
        assert self.length <= self.longest

    def event(self, event, available):
        allowed = {
            None: Onset,
            Onset: Taken | Lapsed,
            Taken: Paused | Over,
            Paused: Paused | Over,
        }
        assert isinstance(event, allowed[self.last])
        self.last = type(event)
        match event:
            case Onset():
                self.length = min(self.preroll + self.onset - 1, available) + 1
                self.silence, self.paused = 0, None
            case Lapsed():
                assert self.silence == self.resume
                self.last, self.length = None, 0
            case Paused(count):
                assert count == self.length
                assert self.silence == self.probe
                self.paused = count
            case Over(count, silence):
                assert silence == self.silence
                assert silence == self.hangover or self.length == self.longest
                assert count == self.length - max(0, silence - self.probe)
                assert self.paused in (None, count)
                self.last, self.length = None, 0

    @invariant()
    def silence_is_exactly_when_no_utterance_is_on(self):
        if hasattr(self, "machine"):
            assert (self.machine.state is State.SILENCE) == (self.last is None)
            assert self.machine.taken == (self.last in (Taken, Paused))

    def teardown(self):
        """Every utterance ends, once the caller is quiet for long enough."""
        if hasattr(self, "machine"):
            for _ in range(max(self.resume, self.hangover)):
                self.window(0.0, -90.0, False, 0)
            assert self.last is None


TestAnySpeech = AnySpeech.TestCase
TestAnySpeech.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
