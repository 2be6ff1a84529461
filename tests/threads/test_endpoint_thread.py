"""Which pauses are judged, in which batch, and what vad is told."""

import numpy as np
import pytest

from threadline.audio import mulaw
from threadline.config import Endpoint
from threadline.listening.smart_turn import SmartTurn
from threadline.threads.endpoint import MOST, EndpointStage, by_words
from threadline.threads.messages import JudgeTurn, Patience
from threadline.threads.wake import Inbox

CONFIG = Endpoint(complete_ms=200, patient_ms=1200, dictation_ms=2000, threshold=0.5)
LIVE = 3


class Model:
    """In the place of Smart Turn: a turn is as probably complete as its first byte says."""

    def __init__(self):
        self.runs = []
        self.meanwhile = None  # done while the model runs

    def judge(self, turns):
        assert all(turn.dtype == np.float32 for turn in turns)
        self.runs.append([int(mulaw.encode_float(turn[:1])[0]) for turn in turns])
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return np.array([first / 255 for first in self.runs[-1]], np.float32)


class Rig:
    def __init__(self):
        self.model = Model()
        self.inbox, self.vad = Inbox("endpoint"), Inbox("vad")
        self.asr = self.inbox.port("asr")
        self.stage = EndpointStage(
            CONFIG, lambda: self.model, self.inbox, self.vad.port("endpoint")
        )
        self.stage.begin()
        self.model.runs.clear()  # a first one, to warm up

    def ask(self, sound=255, text="", slot=0, windows=9, utterance=1, generation=LIVE, hold=False):
        audio = bytes([sound]) * 16
        self.asr.put(JudgeTurn(slot, generation, 1, utterance, windows, audio, text, hold))

    def step(self):
        self.inbox.wake()
        self.stage.step()
        return list(self.vad.events())

    def close(self):
        self.inbox.close()
        self.vad.close()


@pytest.fixture
def rig():
    made = Rig()
    yield made
    made.close()


def test_the_model_is_loaded_and_run_once_before_the_first_call(rig):
    rig.stage.begin()
    assert len(rig.model.runs) == 1
    assert rig.stage.judged == 0


@pytest.mark.parametrize(
    ("sound", "silence_ms", "why"), [(255, 200, "complete"), (0, 1200, "sounds unfinished")]
)
def test_a_pause_is_worth_what_it_sounds_like(rig, sound, silence_ms, why):
    rig.ask(sound)
    assert rig.step() == [Patience(0, LIVE, 1, 9, silence_ms, why)]
    assert rig.model.runs == [[sound]]


def test_an_answer_that_is_held_back_comes_with_the_words_and_costs_no_second_run(rig):
    rig.ask(255, hold=True)
    assert rig.step() == []
    rig.ask(255, "a table for four")
    assert rig.step() == [Patience(0, LIVE, 1, 9, 200, "complete")]
    assert rig.model.runs == [[255]]


def test_what_waits_is_judged_in_one_run(rig):
    for slot in range(3):
        rig.ask(255 - slot, slot=slot)
    assert [told.slot for told in rig.step()] == [0, 1, 2]
    assert rig.model.runs == [[255, 254, 253]]
    assert (rig.stage.runs, rig.stage.judged, rig.stage.skipped) == (1, 3, 0)


def test_but_no_run_is_so_long_that_the_first_wait_for_all(rig):
    for slot in range(MOST + 2):
        rig.ask(slot=slot)
    assert [told.slot for told in rig.step()] == list(range(MOST))
    assert [told.slot for told in rig.step()] == [MOST, MOST + 1]


def test_a_pause_that_the_caller_has_spoken_on_over_is_skipped(rig):
    rig.ask(255, windows=9)
    rig.ask(0, windows=14)
    rig.ask(1, windows=5, utterance=2)
    assert [(told.utterance, told.windows) for told in rig.step()] == [(2, 5)]
    assert rig.model.runs == [[1]]
    assert rig.stage.skipped == 2


def test_also_when_he_does_while_the_model_runs(rig):
    rig.ask(255, windows=9)
    rig.ask(255, windows=4, slot=1)
    rig.model.meanwhile = lambda: rig.ask(0, windows=14)
    assert [(told.slot, told.windows) for told in rig.step()] == [(1, 4)]
    assert [(told.slot, told.windows) for told in rig.step()] == [(0, 14)]
    assert rig.stage.skipped == 1


def test_words_that_come_while_the_model_runs_are_counted_in(rig):
    rig.ask(255)
    rig.model.meanwhile = lambda: rig.ask(255, text="a table for four and")
    (told,) = rig.step()
    assert told.silence_ms == CONFIG.patient_ms
    assert rig.step() == []
    assert rig.model.runs == [[255]]


def test_other_words_of_a_pause_that_was_not_listened_to_wait_for_that(rig):
    rig.ask(0, text="a table for four and")
    rig.ask(255, slot=1)
    rig.model.meanwhile = lambda: rig.ask(0, text="a table for four Anne")
    assert [told.slot for told in rig.step()] == [1]
    assert [(told.slot, told.why) for told in rig.step()] == [(0, "sounds unfinished")]
    assert rig.model.runs == [[255], [0]]


def test_words_that_come_later_are_judged_with_the_sound_that_is_known(rig):
    rig.ask(0)
    rig.step()
    rig.ask(0, text="no, thank you")
    (told,) = rig.step()
    assert told.silence_ms == CONFIG.complete_ms
    rig.ask(0, text="a table for four please I think")
    (told,) = rig.step()
    assert told.why == "sounds unfinished"
    assert rig.model.runs == [[0]]
    rig.ask(1, windows=14)
    rig.step()
    assert rig.model.runs == [[0], [1]]


@pytest.mark.parametrize("change", [{"generation": LIVE + 2}, {"utterance": 2}, {"windows": 10}])
def test_the_sound_of_one_pause_is_not_that_of_another(rig, change):
    rig.ask(0)
    rig.step()
    rig.ask(255, **change)
    (told,) = rig.step()
    assert told.why == "complete"


def test_words_that_decide_alone_spare_the_model(rig):
    rig.ask(255, text="a table for four and")
    (told,) = rig.step()
    assert told.silence_ms == CONFIG.patient_ms
    assert rig.model.runs == []


def test_a_defect_costs_its_own_batch_only(rig):
    rig.ask()
    rig.model.meanwhile = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        rig.step()
    assert rig.stage.on_call is None
    rig.ask(slot=1)
    assert [told.slot for told in rig.step()] == [1]


@pytest.mark.parametrize("text", ["", "a table for four"])
def test_most_words_do_not_decide_alone(text):
    assert by_words(CONFIG, text) is None


def test_what_the_watch_reads(rig):
    rig.ask()
    rig.step()
    samples = {sample.name: sample.value for sample in rig.stage.samples()}
    assert samples["threadline_endpoint_judgements_total"] == 1
    assert samples["threadline_endpoint_run_seconds"].snapshot().count == 1


def test_with_the_real_model(models):
    """It is loaded on the thread that uses it, and gives probabilities."""
    inbox, vad = Inbox("endpoint"), Inbox("vad")
    path = models.path("smart-turn", "smart-turn-v3.2-cpu.onnx")
    stage = EndpointStage(CONFIG, lambda: SmartTurn(path), inbox, vad.port("endpoint"))
    stage.begin()
    asr = inbox.port("asr")
    asr.put(JudgeTurn(0, LIVE, 1, 1, 50, mulaw.SILENCE_BYTE * 50 * 256, ""))
    inbox.wake()
    stage.step()
    (told,) = vad.events()
    assert told.why in ("complete", "sounds unfinished")
    inbox.close()
    vad.close()
