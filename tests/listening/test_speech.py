"""The state table, row by row; then any speech at all against what must always hold."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from threadline.config import Vad
from threadline.listening.backchannel import Barge
from threadline.listening.speech import (
    FREE,
    PROTECTED,
    TALKING,
    WINDOW_MS,
    Doubted,
    Lapsed,
    Onset,
    Over,
    Paused,
    SpeechMachine,
    State,
    Taken,
    silent_windows,
    windows,
)

# In windows: onset 2, floor 3, asked 6, grace 3, resume 4, probe 3, hangover 5, pre-roll 4, max 40.
CONFIG = Vad(
    threshold=0.5,
    release=0.35,
    pause_threshold=0.3,
    drop_db=35.0,
    onset_ms=2 * WINDOW_MS,
    min_speech_ms=3 * WINDOW_MS,
    interrupt_ms=6 * WINDOW_MS,
    grace_ms=3 * WINDOW_MS,
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


LISTENS = (Barge.NOTHING, Barge.BACKCHANNEL)
SPEAKS = (Barge.WORDS, Barge.STOP)


def run(machine, pattern, busy=FREE, available=100):
    """Feed `WINDOWS` by their letters; events by window index."""
    events = []
    for i, letter in enumerate(pattern):
        events += [(i, event) for event in machine.feed(*WINDOWS[letter], busy, available)]
    return events


def at(pattern, busy=FREE, config=CONFIG, available=100):
    """A machine that has heard `pattern`."""
    machine = SpeechMachine(config)
    run(machine, pattern, busy, available)
    return machine


@pytest.mark.parametrize(("ms", "count"), [(0, 1), (1, 1), (32, 1), (33, 2), (480, 15)])
def test_milliseconds_are_rounded_up_to_windows(ms, count):
    assert windows(ms) == count


@pytest.mark.parametrize(
    ("ms", "count"), [(0, 1), (16, 1), (48, 1), (49, 2), (200, 6), (208, 6), (209, 7), (416, 13)]
)
def test_speech_ends_in_the_middle_of_its_last_window_so_silence_is_half_a_window_older(ms, count):
    assert silent_windows(ms) == count


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
    assert run(SpeechMachine(CONFIG), "bb", busy=TALKING) == [(1, Onset())]


def test_speech_opens_on_the_models_word_however_quiet():
    assert run(SpeechMachine(CONFIG), "qqq") == [(1, Onset()), (2, Taken())]


@pytest.mark.parametrize(
    ("busy", "opens", "below"), [(FREE, 0.5, 0.499), (TALKING, 0.3, 0.299), (PROTECTED, 0.5, 0.499)]
)
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


def test_a_free_floor_is_taken_by_enough_speech():
    machine = SpeechMachine(CONFIG)
    assert run(machine, "sss") == [(1, Onset()), (2, Taken())]
    assert machine.taken
    assert run(machine, "sss") == []


def test_what_is_said_over_a_talking_agent_is_asked_for_and_so_much_of_it_is_enough():
    machine = SpeechMachine(CONFIG)
    events = run(machine, "s" * 9, TALKING, available=0)
    assert events == [(1, Onset()), (5, Doubted(5, stopped=False)), (8, Taken())]
    assert machine.taken
    assert run(machine, "sss", TALKING) == []


def test_pauses_too_short_to_lapse_do_not_count_against_tentative_speech():
    events = run(SpeechMachine(CONFIG), "ss...ss..ss", TALKING, available=0)
    assert events == [(1, Onset()), (10, Doubted(10, stopped=False))]


def test_the_agent_that_falls_silent_makes_the_floor_cheaper():
    machine = at("ssss", busy=TALKING)
    assert not machine.taken
    assert run(machine, "s", busy=FREE) == [(0, Taken())]


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
    assert run(machine, "ss....", busy=TALKING) == [(1, Onset()), (5, Lapsed())]
    assert machine.state is State.SILENCE
    assert run(machine, "ss", busy=TALKING) == [(1, Onset())]


def test_tentative_speech_never_pauses():
    assert run(at("ss"), "...") == []


def test_probe_ms_of_silence_may_be_decoded_and_hangover_ms_end_the_turn():
    machine = SpeechMachine(CONFIG)
    events = run(machine, "sss.....", available=0)
    # Without pre-roll the first window of the two-window onset is lost: 2 of speech, 3 of silence.
    assert events == [(1, Onset()), (2, Taken()), (5, Paused(5)), (7, Over(5, 5, "hangover"))]
    assert machine.state is State.SILENCE
    assert not machine.taken


def test_each_pause_may_be_decoded_and_the_turn_ends_with_the_last():
    events = run(SpeechMachine(CONFIG), "sss...s...s.....", available=0)
    assert [event for _, event in events[2:]] == [
        Paused(5),
        Paused(9),
        Paused(13),
        Over(13, 5, "hangover"),
    ]


def test_a_turn_that_ends_before_it_could_be_probed_names_all_its_windows():
    config = replace(CONFIG, probe_ms=8 * WINDOW_MS)
    events = run(SpeechMachine(config), "sss.....", available=0)
    assert events[2:] == [(7, Over(7, 5, "hangover"))]


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
    assert events[:3] == [(1, Onset()), (2, Taken()), (40, Over(40, 0, "longest"))]
    assert events[3:5] == [(42, Onset()), (43, Taken())]  # and what follows is a new utterance


def test_a_pause_at_max_utterance_ends_it_there():
    events = run(SpeechMachine(CONFIG), "s" * 40 + ".", available=0)
    assert events[-1] == (40, Over(40, 1, "longest"))


def test_a_decode_begun_in_a_pause_stays_right_when_max_utterance_ends_it():
    events = run(SpeechMachine(CONFIG), "s" * 37 + "....", available=0)
    assert events[-2:] == [(39, Paused(39)), (40, Over(39, 4, "longest"))]


# -- another caller ----------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["s", "ss", "sss", "sss.", "sss...", "ss.."])
def test_a_new_caller_inherits_nothing(before):
    machine = at(before)
    machine.reset()
    assert run(machine, "sss.....", available=3) == run(
        SpeechMachine(CONFIG), "sss.....", available=3
    )


# -- who speaks over a talking agent -------------------------------------------------------------

PATIENT = replace(CONFIG, grace_ms=20 * WINDOW_MS)


@pytest.mark.parametrize("kind", SPEAKS)
def test_words_take_the_floor_at_once_and_the_turn_goes_on(kind):
    machine = at("ssssss", TALKING, available=0)
    assert machine.opinion(kind, 5) == (Taken(),)
    assert machine.taken
    assert machine.opinion(kind, 5) == ()
    assert run(machine, "s.....", TALKING)[-1] == (5, Over(9, 5, "hangover"))


@pytest.mark.parametrize("kind", LISTENS)
def test_a_backchannel_leaves_the_agent_paused_while_it_lasts_and_lapses_then(kind):
    machine = at("ssssss", TALKING, available=0)
    assert machine.opinion(kind, 5) == ()
    assert run(machine, "ss...", TALKING) == []
    assert run(machine, ".", TALKING) == [(0, Doubted(10, stopped=True))]  # two windows are new
    assert machine.opinion(kind, 10) == (Lapsed(),)
    assert machine.state is State.SILENCE


@pytest.mark.parametrize("kind", LISTENS)
def test_what_was_read_to_its_end_lapses_without_another_question(kind):
    machine = at("ssssss", TALKING, available=0)
    assert machine.opinion(kind, 5) == ()
    assert run(machine, "....", TALKING) == [(3, Lapsed())]


def test_who_goes_on_after_a_backchannel_is_asked_again_and_may_take_the_floor_then():
    machine = at("ssssss", TALKING, available=0)
    assert machine.opinion(Barge.BACKCHANNEL, 5) == ()
    assert run(machine, "ssssss", TALKING) == [(5, Doubted(11, stopped=False))]
    assert machine.opinion(Barge.WORDS, 11) == (Taken(),)


def test_speech_that_stops_is_asked_about_and_the_agent_waits_for_the_answer():
    machine = SpeechMachine(CONFIG)
    events = run(machine, "sss....", TALKING, available=0)
    assert events == [(1, Onset()), (6, Doubted(2 + 3, stopped=True))]
    assert machine.state is State.HANGOVER


def test_words_that_are_read_after_they_ended_are_a_turn_of_their_own():
    machine = at("sss....", TALKING, available=0)
    assert machine.opinion(Barge.STOP, 5) == (Taken(), Paused(5))
    assert machine.patience(5, 4 * WINDOW_MS, "complete") == (Over(5, 4, "complete"),)
    assert not machine.taken


def test_and_it_is_over_at_once_when_its_silence_is_long_enough_already():
    machine = at("sss.....", TALKING, available=0)
    assert machine.opinion(Barge.STOP, 5) == (Taken(), Over(5, 5, "hangover"))


def test_words_that_are_read_in_a_silence_too_short_to_decode_wait_for_it():
    machine = at("ssssss..", TALKING, available=0)
    assert machine.opinion(Barge.WORDS, 5) == (Taken(),)
    assert run(machine, "...", TALKING) == [(0, Paused(8)), (2, Over(8, 5, "hangover"))]


@pytest.mark.parametrize("kind", LISTENS)
def test_that_there_were_no_words_lets_the_agent_go_on(kind):
    machine = at("sss.....", TALKING, available=0)
    assert machine.opinion(kind, 5) == (Lapsed(),)


@pytest.mark.parametrize("kind", LISTENS)
def test_that_there_were_no_words_so_far_says_nothing_of_what_came_since(kind):
    machine = at("ssssss" + "s....", TALKING, PATIENT, available=0)  # asked at 5, and at the stop
    assert machine.opinion(kind, 5) == ()
    assert machine.state is State.HANGOVER
    assert machine.opinion(kind, 9) == (Lapsed(),)


def test_but_words_were_said_however_old_the_reading():
    machine = at("ssssss" + "s....", TALKING, PATIENT, available=0)
    assert machine.opinion(Barge.WORDS, 5)[0] == Taken()


def test_speech_that_goes_on_is_not_lapsed_by_what_was_read_of_it():
    machine = at("sss....s", TALKING, available=0)
    assert machine.opinion(Barge.NOTHING, 5) == ()
    assert machine.state is State.SPEECH


def test_without_an_answer_little_speech_lapses_and_much_of_it_takes_the_floor():
    machine = at("sss....", TALKING)
    assert run(machine, "...", TALKING) == [(2, Lapsed())]
    machine = at("ssssss....", TALKING, available=0)
    assert machine.taken  # asked at the sixth window, and three later
    assert run(machine, ".", TALKING) == [(0, Over(8, 5, "hangover"))]


def test_what_is_shorter_than_a_word_is_not_asked_about():
    assert run(SpeechMachine(CONFIG), "ss.....", TALKING) == [(1, Onset()), (5, Lapsed())]


def test_an_opinion_of_nothing_that_is_on_is_ignored():
    for pattern, busy in (("", FREE), ("s", TALKING), ("sss", FREE), ("sss.....", FREE)):
        machine = at(pattern, busy)
        state, taken = machine.state, machine.taken
        for kind in Barge:
            assert machine.opinion(kind, 0) == ()
        assert (machine.state, machine.taken) == (state, taken)


def test_a_protected_greeting_is_not_asked_about_and_not_taken():
    machine = SpeechMachine(CONFIG)
    assert run(machine, "s" * 20, PROTECTED) == [(1, Onset())]
    assert run(machine, "....", PROTECTED) == [(3, Lapsed())]


@pytest.mark.parametrize(("busy", "then"), [(FREE, Taken()), (TALKING, Doubted(9, stopped=False))])
def test_who_outlasts_a_protected_greeting_is_heard(busy, then):
    machine = at("s" * 9, PROTECTED, available=0)
    assert run(machine, "s", busy) == [(0, then)]


def test_what_was_asked_before_a_protected_greeting_is_asked_anew_after_it():
    machine = at("ssssss", TALKING, available=0)
    assert run(machine, "ss", PROTECTED) == []
    assert run(machine, "ssss", TALKING) == [(3, Doubted(11, stopped=False))]


def test_noise_without_end_over_a_protected_greeting_lapses_at_max_utterance():
    events = run(SpeechMachine(CONFIG), "s" * 41, PROTECTED, available=0)
    assert events == [(1, Onset()), (40, Lapsed())]


# -- a pause's patience --------------------------------------------------------------------------


def paused(pattern="sss...", **options):
    machine = SpeechMachine(CONFIG, 8 * WINDOW_MS, "unjudged")
    *_, (_, event) = run(machine, pattern, available=0, **options)
    return machine, event.windows


def test_without_a_judgement_a_turn_ends_after_the_patience_it_was_made_with():
    machine, count = paused()
    assert run(machine, "......") == [(4, Over(count, 8, "unjudged"))]


def test_a_pause_ends_the_turn_after_the_patience_given_for_it():
    machine, count = paused()
    assert machine.patience(count, 5 * WINDOW_MS, "complete") == ()
    assert run(machine, "..") == [(1, Over(count, 5, "complete"))]


def test_or_at_once_when_that_has_passed():
    machine, count = paused("sss....")
    assert machine.patience(count, 4 * WINDOW_MS, "complete") == (Over(count, 4, "complete"),)
    assert machine.state is State.SILENCE


def test_the_newest_patience_counts():
    machine, count = paused()
    machine.patience(count, 4 * WINDOW_MS, "complete")
    machine.patience(count, 6 * WINDOW_MS, "dictating")
    assert run(machine, "...") == [(2, Over(count, 6, "dictating"))]


def test_patience_with_another_pause_is_ignored():
    machine, count = paused()
    for other in (count - 1, count + 1, 0):
        assert machine.patience(other, WINDOW_MS, "complete") == ()
    run(machine, "s...")
    assert machine.patience(count, WINDOW_MS, "complete") == ()
    assert machine.state is State.HANGOVER


def test_patience_does_not_outlive_its_pause():
    machine, count = paused()
    machine.patience(count, 4 * WINDOW_MS, "complete")
    assert run(machine, "s........") == [
        (3, Paused(count + 4)),
        (8, Over(count + 4, 8, "unjudged")),
    ]


def test_patience_is_nothing_to_speech_or_to_what_has_no_floor():
    machine, count = paused()
    run(machine, "s")
    assert machine.patience(count + 1, WINDOW_MS, "complete") == ()
    machine = at("sss...", TALKING, available=0)
    assert machine.patience(5, WINDOW_MS, "complete") == ()
    assert at("").patience(0, WINDOW_MS, "complete") == ()


# -- always ------------------------------------------------------------------------------------

few = st.integers(1, 12)
BUSY = st.sampled_from([FREE, TALKING, PROTECTED])


class AnySpeech(RuleBasedStateMachine):
    """Classifies windows on its own account and keeps its own count of what was said and asked."""

    @initialize(
        onset=few,
        free=few,
        interrupt=few,
        grace=few,
        resume=few,
        probe=few,
        patience=few,
        preroll=few,
        more=st.integers(1, 60),
    )
    def begin(self, onset, free, interrupt, grace, resume, probe, patience, preroll, more):
        self.longest = preroll + onset + more
        self.free, self.interrupt, self.grace = free, interrupt, grace
        self.probe, self.default, self.resume = probe, patience, resume
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
            interrupt_ms=interrupt * WINDOW_MS,
            grace_ms=grace * WINDOW_MS,
            resume_ms=resume * WINDOW_MS,
            probe_ms=probe * WINDOW_MS,
            preroll_ms=preroll * WINDOW_MS,
            max_utterance_ms=self.longest * WINDOW_MS,
        )
        self.machine = SpeechMachine(config, patience * WINDOW_MS, "default")
        self.busy = FREE
        self.begun()
        self.last = None  # the last event of the utterance that is on

    def begun(self):
        self.length = 0  # its windows, pre-roll included
        self.spoken = 0  # and those of speech
        self.silence = 0  # windows of silence at its end
        self.paused = None  # windows named by `Paused` in the pause that is on
        self.patience = self.default, "default"
        self.asked = self.asked_spoken = 0
        self.waited = None  # windows since a question that has not been answered

    @rule(
        probability=st.sampled_from([0.0, 0.2, 0.3, 0.35, 0.45, 0.5, 1.0]),
        level=st.sampled_from([-90.0, -50.0, -40.0, -20.0, -5.0]),
        times=st.integers(1, 15),
        busy=BUSY,
        available=st.integers(0, 20),
    )
    def hear(self, probability, level, times, busy, available):
        for _ in range(times):
            self.window(probability, level, busy, available)

    @rule(kind=st.sampled_from(Barge), stale=st.booleans())
    def answer(self, kind, stale):
        told = self.machine.opinion(kind, self.asked - stale)
        if self.last not in (Onset, Doubted):
            assert told == ()
        elif kind in SPEAKS:
            assert told[0] == Taken()
        else:
            lapses = not stale and self.silence >= self.resume
            assert list(told) == [Lapsed()] * lapses
            self.waited = self.waited if stale else None
        self.events(told, 0, read=True)

    @rule(patience=few, stale=st.booleans())
    def judge(self, patience, stale):
        if self.paused is None:
            assert self.machine.patience(self.length - stale, patience * WINDOW_MS, "x") == ()
            return
        told = self.machine.patience(self.paused - stale, patience * WINDOW_MS, "given")
        if stale:
            assert told == ()
        else:
            self.patience = patience, "given"
            assert len(told) == (self.silence >= patience)
        self.events(told, 0)

    def window(self, probability, level, busy, available):
        was = self.machine.state
        self.busy = busy
        told = self.machine.feed(probability, level, busy, available)
        if was is State.SILENCE:
            opens = 0.3 if busy == TALKING else 0.5
            self.streak = self.streak + 1 if probability >= opens else 0
            self.loudest = level
            assert (Onset() in told) == (self.streak == self.onset)
        else:
            self.streak = 0
            self.length += 1
            self.loudest = max(self.loudest, level)
            if probability >= 0.35 and level >= self.loudest - 35.0:
                self.silence, self.paused, self.patience = 0, None, (self.default, "default")
                self.spoken += 1
            else:
                self.silence += 1
            if self.waited is not None:
                self.waited = None if busy == PROTECTED else self.waited + 1
        self.events(told, available)
        assert self.length <= self.longest
        if self.last in (Taken, Paused):
            assert self.silence < self.patience[0]

    def events(self, told, available, read=False):
        if len(told) > 1:
            assert [type(event) for event in told] in ([Taken, Paused], [Taken, Over])
        for event in told:
            self.event(event, available, read)

    def event(self, event, available, read):
        allowed = {
            None: Onset,
            Onset: Doubted | Taken | Lapsed,
            Doubted: Doubted | Taken | Lapsed,
            Taken: Paused | Over,
            Paused: Paused | Over,
        }
        assert isinstance(event, allowed[self.last])
        self.last = type(event)
        named = self.length - max(0, self.silence - self.probe)
        match event:
            case Onset():
                self.begun()
                self.spoken = self.onset
                self.length = min(self.preroll + self.onset - 1, available) + 1
            case Doubted(count, stopped):
                assert self.busy == TALKING
                assert count == named
                assert self.spoken > self.asked_spoken
                if stopped:
                    assert self.silence == self.resume
                    assert self.spoken >= self.free
                else:
                    assert self.silence == 0
                    assert self.spoken - self.asked_spoken >= self.interrupt
                self.asked, self.asked_spoken, self.waited = count, self.spoken, 0
            case Taken():
                alone = self.busy == FREE and self.spoken >= self.free and not self.silence
                unanswered = self.waited == self.grace and self.spoken >= self.interrupt
                assert read or alone or unanswered
                assert read or self.busy != PROTECTED
            case Lapsed():
                assert read or self.silence >= self.resume or self.length == self.longest
                self.last = None
                self.begun()
            case Paused(count):
                assert count == named
                assert self.silence >= self.probe
                assert self.paused is None
                self.paused = count
            case Over(count, silence, why):
                assert silence == self.silence
                assert count == named
                assert self.paused in (None, count)
                if why == "longest":
                    assert self.length == self.longest
                else:
                    assert (silence >= self.patience[0], why) == (True, self.patience[1])
                self.last = None
                self.begun()

    @invariant()
    def silence_is_exactly_when_no_utterance_is_on(self):
        if hasattr(self, "machine"):
            assert (self.machine.state is State.SILENCE) == (self.last is None)
            assert self.machine.taken == (self.last in (Taken, Paused))

    def teardown(self):
        """Every utterance ends, once the caller is quiet for long enough."""
        if hasattr(self, "machine"):
            for _ in range(max(self.resume + self.grace + 12, self.patience[0])):
                self.window(0.0, -90.0, FREE, 0)
            assert self.last is None


TestAnySpeech = AnySpeech.TestCase
TestAnySpeech.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
