"""A call survives its vendors: the hardest rows of docs/vendors.md; `just faults` holds all."""

from __future__ import annotations

import json
from collections import deque

import numpy as np
import pytest

pytest.importorskip("uvloop")
from ears_rig import DeepgramServer, Desk, Plan, dg, play, speak

from stress import faults_texts as texts
from stress.faults import run, table
from stress.faults_call import Row
from stress.faults_vendors import cartesia
from threadline.audio import mulaw
from threadline.models.store import ModelStore
from threadline.threads.calls import WINDOW, Call
from threadline.threads.messages import HearFailed
from threadline.threads.transcribe import Answer, Deepgram, Utterance
from threadline.threads.wake import Inbox
from threadline.vendors import openai
from threadline.vendors.deepgram import Results
from threadline.vendors.deepgram_stream import Stream

HARDEST = {
    "deepgram, hangs before the handshake, connect": "whisper, first model, cartesia",
    "deepgram, says nothing more, middle": "whisper, first model, cartesia",
    "deepgram, text too late, cut-in": "whisper, first model, cartesia",
    "openai, hangs before the headers, request": "deepgram, scripted, cartesia",
    "openai, 500, its first model only, request": "deepgram, second model, cartesia",
    "openai, reset, half-way, middle": "deepgram, first model, cartesia",
    "cartesia, refuses, cut-in": "deepgram, first model, piper",
    "cartesia, an error, 500, request": "deepgram, first model, piper",
}
AT_ONCE = 8


@pytest.fixture(scope="module")
def hardest(models: ModelStore) -> dict[str, Row]:
    """All of them at once, in about 20 s."""
    cases = {case.name: case for case in table()}
    return dict(zip(HARDEST, run([cases[name] for name in HARDEST], len(HARDEST)), strict=True))


@pytest.mark.parametrize("name", HARDEST)
def test_a_call_survives(name: str, hardest: dict[str, Row]) -> None:
    row = hardest[name]
    assert not row.problems
    assert row.faulted.who == HARDEST[name]


def test_an_answer_that_breaks_off_ends_in_an_apology(hardest: dict[str, Row]) -> None:
    words = hardest["openai, reset, half-way, middle"].faulted.words
    assert words.startswith("Two it is.")
    assert any(apology in words for apology in texts.phrases.FAILED)


# -- what judges it ----------------------------------------------------------------------------


def test_every_row_has_a_name_of_its_own() -> None:
    names = [case.name for case in table()]
    assert len(names) == len(set(names))


def played(*audio: bytes) -> texts.Heard:
    return texts.listen(np.frombuffer(b"".join(audio) + mulaw.SILENCE_BYTE * 512, np.uint8))


def vendor(text: str) -> bytes:
    said: bytes = cartesia.tone(text)
    return said


def local(text: str) -> bytes:
    return mulaw.encode_float(texts.LocalVoice().synthesize(text))


def test_every_clause_is_told_from_every_other_in_both_voices() -> None:
    for text in texts.known():
        heard = played(vendor(text), local(text))
        assert [(one.known.text, one.voice) for one in heard.clauses] == [
            (text, "cartesia"),
            (text, "piper"),
        ]
        assert heard.strange < 0.05


def test_a_clause_that_is_said_again_is_noticed() -> None:
    one, other = "Two it is.", "That is well."
    assert played(vendor(one), vendor(other)).twice() == []
    half = vendor(one)[: len(vendor(one)) // 2]
    assert played(half, vendor(one)).twice() == [one]
    assert played(half, local(one)).twice() == [one]


def test_sound_that_nobody_meant_is_noticed() -> None:
    assert played(vendor("Nobody says this.")).strange > 0.5


# -- what the table has found ------------------------------------------------------------------


def test_a_recogniser_that_is_not_reached_has_not_heard_silence() -> None:
    """A short utterance was answered with no words at all before there was a connection."""

    async def scene(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(5, ms=100))
        desk.ask(1)
        assert isinstance(await desk.end_of(1), HearFailed)

    with DeepgramServer(plans=deque([Plan("accept", dg.hang)] * 9)) as server:
        play(server, scene, final_seconds=1.0)


def test_a_recogniser_that_fails_before_it_is_asked_has_answered() -> None:
    """asr waited for the rest of `stt.final_seconds`, with nobody else to ask."""
    inbox = Inbox("io-vendors")
    try:
        source = Deepgram(inbox.port("asr"))
        said = Utterance(Call(0), generation=1, number=1)
        said.audio += bytes(8 * WINDOW)
        source.more(said)
        source.heard(HearFailed(0, 1, 1, "it is not there"))
        source.answers(0.0)
        source.ask(said, 8, 0.0)
        (answer,) = source.answers(0.0)
    finally:
        inbox.close()
    assert isinstance(answer, Answer)
    assert (answer.windows, answer.text, answer.reason) == (8, None, "it is not there")


def test_a_text_of_audio_that_was_never_sent_is_nobodys() -> None:
    """All that was said after it was answered with no words at all."""
    stream = Stream(final_seconds=1.0)
    stream.begin(1, 0.0)
    stream.add(8000)
    stream.ask(1, 31, 0.0)
    assert stream.read(Results(50.0, 51.0, "stray", final=True, flushed=True), 0.1) == []
    (told,) = stream.read(Results(0.0, 1.0, "mine", final=True, flushed=True), 0.2)
    assert (told.text, told.final) == ("mine", True)


def test_words_of_a_second_choice_are_not_said() -> None:
    """A model that gives more answers than were asked for had them mixed."""
    answer = openai.Answer("the model")
    other = {"index": 1, "delta": {"content": "stray "}, "finish_reason": None}
    mine = {"index": 0, "delta": {"content": "mine "}, "finish_reason": None}
    events = [json.dumps({"choices": [one]}).encode() for one in (mine, other, mine)]
    assert answer.feed(b"".join(b"data: %s\n\n" % one for one in events)) == "mine mine "
