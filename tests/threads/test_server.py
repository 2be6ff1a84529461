"""Whole calls through a whole server, over real sockets."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import DEADLINE, until
from metrics_page import families
from prometheus_client.parser import text_string_to_metric_families
from serving import (
    SILENCE,
    House,
    Line,
    Parrot,
    apology,
    get,
    house,
    payload,
    quick,
    recorded,
    spoken,
)

from threadline.audio import mulaw
from threadline.audio.levels import speech_bounds
from threadline.config import Asr, Server, Stt
from threadline.dialog.conversation import NOT_CAUGHT
from threadline.dialog.scripted import Scripted
from threadline.listening.speech import Taken
from threadline.models.piper import PiperVoice
from threadline.models.store import ModelStore
from threadline.observe.turns import STAGES
from threadline.threads.asr_process import WHISPER
from threadline.threads.caller import place_calls
from threadline.threads.phone_line import CallPlan
from threadline.threads.watch import read_process
from threadline.wire.script import Clip

WORDS = "I would like a table for two."
LONG = "This is a very long sentence that is said by somebody who likes to hear himself talk."
PATIENT = quick(asr=Asr(deadline_seconds=60.0), stt=Stt(partials=False))


@pytest.fixture(scope="module")
def speech(models: ModelStore) -> bytes:
    """A person who says something: silence, words, silence."""
    return recorded(models, WORDS)


def greeted(this: House, **options: Any) -> Line:
    """A call whose greeting has been heard."""
    line = this.line(**options)
    line.until(lambda: line.replies() == 1, "the greeting")
    return line


def ask(this: House, line: Line, speech: bytes) -> None:
    """Say something and wait for the answer to end."""
    before = line.replies()
    line.say(speech, this.slot_of(line))
    line.until(lambda: line.replies() > before, "an answer")


# -- conversations ---------------------------------------------------------------------------------


def test_what_is_said_is_heard_and_answered(
    models: ModelStore, tmp_path: Path, speech: bytes
) -> None:
    with house(models, tmp_path) as this:
        line = greeted(this)
        assert line.heard == spoken("Hello there.")
        for turn in (1, 2):
            ask(this, line, speech)
            assert line.heard == spoken("Hello there.") + spoken("Very well.") * turn
        line.hang_up()
        assert this.call_of(line)["reason"] == "the caller hung up"
        this.free()
        this.logged("call closed", call_id=line.call_id)  # and before it the turns
        turns = this.records("turn", call_id=line.call_id)
        assert [turn["turn"] for turn in turns] == [0, 1, 2]
        for turn in turns[1:]:
            assert turn["said"] == "Very well."
            samples = int(turn["heard"].split()[0]) // 2  # the fake tells what it got at 16 kHz
            said = speech_bounds(mulaw.decode(speech), mulaw.RATE)
            assert 0 <= samples - (said[1] - said[0]) < mulaw.RATE, "the speech, and its pre-roll"
            assert tuple(turn["stages_ms"]) == STAGES
            assert min(turn["stages_ms"].values()) >= 0


def test_a_long_sentence_without_a_pause_arrives_whole(
    models: ModelStore, tmp_path: Path, speech: bytes
) -> None:
    first, last = speech_bounds(mulaw.decode(speech), mulaw.RATE)
    breathless = speech[first : first + (last - first) // 2 // 160 * 160] * 10
    assert len(breathless) > 6 * mulaw.RATE
    with house(models, tmp_path) as this:
        line = greeted(this)
        ask(this, line, SILENCE * 20 + breathless + SILENCE * 40)
        line.hang_up()
        turn = this.logged("turn", turn=1)
        assert this.server.vads[0].lost == 0
        assert int(turn["heard"].split()[0]) // 2 >= len(breathless)


def test_a_brain_that_says_goodbye_hangs_up_when_it_was_heard(
    models: ModelStore, tmp_path: Path, speech: bytes
) -> None:
    brain = Parrot(reply="Goodbye.", hang_up=True)
    with house(models, tmp_path, brain=brain) as this:
        line = greeted(this)
        line.say(speech, this.slot_of(line))
        line.until(lambda: line.gone, "the agent hangs up")
        assert line.heard == spoken("Hello there.") + spoken("Goodbye.")
        assert line.closing is not None
        assert (line.closing.code, line.closing.reason) == (1000, "the agent said goodbye")
        line.close()
        this.free()


def test_the_caller_who_speaks_cuts_the_agent_off(
    models: ModelStore, tmp_path: Path, speech: bytes
) -> None:
    """What the wire shows, in order: part of the old answer, one clear, all of the new one."""
    with house(models, tmp_path, brain=Parrot(greeting=LONG)) as this:
        line = this.line()
        line.until(lambda: line.count("media") >= 10, "the greeting plays")
        line.say(speech, this.slot_of(line))
        line.until(lambda: line.replies() == 1, "an answer")
        line.hang_up()
        events = [message["event"] for message in line.messages]
        assert events.count("clear") == 1
        cut = events.index("clear")
        before = b"".join(payload(m) for m in line.messages[:cut] if m["event"] == "media")
        after = b"".join(payload(m) for m in line.messages[cut:] if m["event"] == "media")
        assert 0 < len(before) < len(spoken(LONG))
        assert spoken(LONG).startswith(before)
        assert after == spoken("Very well.")
        this.logged("call closed", call_id=line.call_id)  # and before it the turns
        greeting, answer = this.records("turn", call_id=line.call_id)
        assert (greeting["interrupted"], answer["interrupted"]) == (True, False)
        assert this.server.vads[0].floors == 1


def test_a_backchannel_pauses_the_agent_and_costs_no_sample(
    models: ModelStore, tmp_path: Path, speech: bytes
) -> None:
    first, _ = speech_bounds(mulaw.decode(speech), mulaw.RATE)
    sound = speech[first + 800 : first + 800 + 160 * 8]
    with house(models, tmp_path, brain=Parrot(greeting=LONG)) as this:
        (tmp_path / "orders" / "1-say uh-huh").touch()
        vad, pacer = this.server.vads[0], this.server.pacer

        def after_ticks(count: int) -> None:
            beat = pacer.beat
            until(lambda: pacer.beat > beat + 4 * count, "the clock ticks")

        line = this.line()
        line.until(lambda: line.count("media") >= 10, "the greeting plays")
        call = this.slot_of(line)
        line.say(sound, call)
        until(lambda: vad.pauses == 1, "the agent is paused")
        after_ticks(2)
        frames = pacer.frames
        after_ticks(10)
        assert pacer.frames == frames, "a paused agent says nothing"
        line.say(SILENCE * 25, call)
        line.until(lambda: line.replies() == 1, "the end of the greeting")
        assert (vad.resumes, vad.floors) == (1, 0)
        assert not line.count("clear")
        assert line.heard == spoken(LONG)
        line.hang_up()


def test_a_conversation_with_the_real_models(models: ModelStore, tmp_path: Path) -> None:
    lines = (
        "I would like to book a table for four people.",
        "On Friday, at half past seven in the evening.",
        "What are your opening hours?",
    )
    clips = []
    for text in lines:
        codes = recorded(models, text)
        clips.append(Clip(text, codes, speech_bounds(mulaw.decode(codes), mulaw.RATE)))
    voice = models.directory("piper-joe")
    (network,), (about,) = voice.glob("*.onnx"), voice.glob("*.onnx.json")
    options = {"folder": str(models.directory("whisper-base")), "threads": 2, "language": "en"}
    with house(
        models,
        tmp_path,
        config=PATIENT,
        brain=Scripted(),
        voice=lambda: PiperVoice(network, about, threads=1),
        decoder=WHISPER,
        options=options,
    ) as this:
        plan = CallPlan(url=this.url, clips=tuple(clips), answer_within=60.0, timeout=90.0)
        (record,) = place_calls(plan).calls
        assert record.fault is None
        assert record.unsaid == 0
        closed = this.logged("call closed", call_id=record.call_sid)
        assert closed["reason"] == "the caller hung up"
        turns = this.records("turn", call_id=record.call_sid)
        heard = [re.sub(r"[^a-z0-9 ]", "", (turn["heard"] or "").lower()) for turn in turns]
        assert [turn["turn"] for turn in turns] == [0, 1, 2, 3]
        assert re.search(r"table for (four|4) people", heard[1])
        assert "friday" in heard[2]
        assert "opening hours" in heard[3]
        assert all(turn["said"] for turn in turns)
        assert "We are open" in turns[3]["said"]
        assert len(record.utterances) >= 4, "a greeting and three answers were played"


# -- a recogniser that dies ------------------------------------------------------------------------


def test_a_killed_recogniser_costs_the_caller_nothing(
    models: ModelStore, tmp_path: Path, speech: bytes
) -> None:
    with house(models, tmp_path, config=PATIENT) as this:
        this.expected = True
        line = greeted(this)
        orders = tmp_path / "orders"
        (orders / "1-hang").touch()
        before = line.replies()
        line.say(speech, this.slot_of(line))
        until((orders / "hanging").exists, "the decode is under way")
        (pid,) = this.server.asr.recogniser.pids
        os.kill(pid, signal.SIGKILL)
        line.until(lambda: line.replies() > before, "an answer")
        assert line.heard == spoken("Hello there.") + spoken("Very well.")
        assert this.records("recogniser worker ended", status=-9)
        ask(this, line, speech)
        line.hang_up()
        assert this.call_of(line)["reason"] == "the caller hung up"


def test_when_both_attempts_die_the_caller_is_asked_again(
    models: ModelStore, tmp_path: Path, speech: bytes
) -> None:
    with house(models, tmp_path, config=PATIENT) as this:
        this.expected = True
        line = greeted(this)
        orders = [tmp_path / "orders" / f"{number}-crash" for number in range(1, 10)]
        for order in orders:  # a decode that was begun within the sentence takes one, too
            order.touch()
        ask(this, line, speech)
        turn = this.logged("turn", turn=1)
        assert (turn["heard"], turn["said"]) == (None, NOT_CAUGHT[0])
        for order in orders:
            order.unlink(missing_ok=True)
        ask(this, line, speech)
        assert this.logged("turn", turn=2)["said"] == "Very well."
        line.hang_up()


# -- a stage that raises ---------------------------------------------------------------------------


class InjectedError(Exception):
    """Stands for any defect of ours."""


def broken_for(
    slot: int, whose: Callable[..., int], work: Callable[..., Any]
) -> Callable[..., Any]:
    """`work`, which raises whenever it is about this slot."""

    def raising(*args: Any, **more: Any) -> Any:
        if whose(*args) == slot:
            raise InjectedError
        return work(*args, **more)

    return raising


DEFECTS: dict[str, tuple[str, str, Callable[..., int]]] = {
    "vad at every window": ("vad", "_hear", lambda ear, *_: ear.call.slot),
    "vad while it holds the agent's tongue": (
        "vad",
        "_act",
        lambda ear, event: ear.call.slot if isinstance(event, Taken) else -1,
    ),
    "asr": ("asr", "_find", lambda event: event.slot),
    "tts": ("tts", "_send", lambda event, *_: event.slot),
    "reply": ("reply", "_transcript", lambda line, _: line.call.slot),
}


@pytest.mark.parametrize("case", DEFECTS)
def test_a_defect_ends_its_call_with_an_apology_and_no_other(
    models: ModelStore, tmp_path: Path, speech: bytes, case: str
) -> None:
    """The stage raises again and again for this call, as a real defect would."""
    stage, name, whose = DEFECTS[case]
    with house(models, tmp_path, config=PATIENT) as this:
        this.expected = True
        victim, other = greeted(this), greeted(this)
        part = this.server.vads[0] if stage == "vad" else getattr(this.server, stage)
        slot = this.slot_of(victim).slot
        setattr(part, name, broken_for(slot, whose, getattr(part, name)))
        victim.say(speech, None)
        ask(this, other, speech)
        victim.until(lambda: victim.gone, "the call is ended")
        assert victim.closing is not None
        assert (victim.closing.code, victim.closing.reason) == (1000, f"a defect in {stage}")
        assert victim.heard == spoken("Hello there.") + apology()
        assert "InjectedError" in this.logged("defect in a stage", stage=stage, slot=slot)["stack"]
        if stage == "vad":
            assert len(this.records("defect in a stage")) == 1, "it leaves that call alone"
        victim.close()
        goes_on(this, other, speech)


def test_a_defect_in_the_pacer_ends_its_call_and_no_other(
    models: ModelStore, tmp_path: Path, speech: bytes
) -> None:
    with house(models, tmp_path, config=PATIENT) as this:
        this.expected = True
        victim, other = greeted(this), greeted(this)
        pacer = this.server.pacer
        slot = this.slot_of(victim).slot
        broken = broken_for(slot, lambda call, _: call.slot, pacer._release)
        pacer._release = broken  # type: ignore[method-assign]
        victim.say(speech, None)
        victim.until(lambda: victim.gone, "the call is ended")
        assert victim.closing is not None
        assert victim.closing.reason == "a defect in pacer"
        victim.close()
        goes_on(this, other, speech)


def test_a_single_defect_in_the_pacer_leaves_room_for_the_apology(
    models: ModelStore, tmp_path: Path
) -> None:
    with house(models, tmp_path) as this:
        this.expected = True
        pacer, work = this.server.pacer, this.server.pacer._release

        def once(*_: object) -> int:
            pacer._release = work  # type: ignore[method-assign]
            raise InjectedError

        line = this.line()
        line.until(lambda: line.count("media") >= 2, "the greeting plays")
        pacer._release = once  # type: ignore[method-assign]
        line.until(lambda: line.gone, "the call is ended")
        assert line.heard == spoken("Hello there.") + apology()
        line.close()
        this.free()


def test_a_defect_in_io_calls_ends_its_call_and_no_other(
    models: ModelStore, tmp_path: Path, speech: bytes
) -> None:
    with house(models, tmp_path, config=PATIENT) as this:
        this.expected = True
        victim, other = greeted(this), greeted(this)
        (leg,) = (leg for leg in this.server.ios[0].legs if leg.call_id == victim.call_id)

        def broken(*_: object) -> None:
            raise InjectedError

        leg._send = broken  # type: ignore[method-assign]
        victim.say(speech, None)
        victim.until(lambda: victim.gone, "the call is ended")
        assert this.call_of(victim)["reason"] == "a defect in io-calls"
        victim.close()
        goes_on(this, other, speech)


def goes_on(this: House, other: Line, speech: bytes) -> None:
    """The other call is answered as ever, every thread lives, and every slot comes back."""
    before = other.heard
    ask(this, other, speech)
    assert other.heard == before + spoken("Very well.")
    assert all(running.thread.is_alive() for running in this.server.supervisor.stages)
    other.hang_up()
    assert this.call_of(other)["reason"] == "the caller hung up"
    late = greeted(this)
    late.hang_up()
    this.free()


# -- callers who leave -----------------------------------------------------------------------------


def state(this: House) -> tuple[int, int]:
    """Threads and descriptors of this process."""
    process = read_process()
    return process.threads, process.fds


def backlog(this: House) -> int:
    """Events that nobody has taken."""
    return sum(inbox.depth() for inbox in this.server.inboxes.values())


def connected_only(this: House, speech: bytes) -> Line:
    return Line(this.address, connect=False)


def upgraded(this: House, speech: bytes) -> Line:
    line = Line(this.address)
    assert line.handshake() == 101
    return line


def connected(this: House, speech: bytes) -> Line:
    line = upgraded(this, speech)
    line.send(line.carrier.connected())
    return line


def started(this: House, speech: bytes) -> Line:
    return this.line()


def greeting(this: House, speech: bytes) -> Line:
    line = this.line()
    line.until(lambda: line.count("media") >= 2, "the greeting plays")
    return line


def speaking(this: House, speech: bytes) -> Line:
    line = greeting(this, speech)
    floors = this.server.vads[0].floors
    line.say(speech[: len(speech) // 320 * 160], this.slot_of(line))
    until(lambda: this.server.vads[0].floors > floors, "the caller has the floor")
    return line


def recognising(this: House, speech: bytes) -> Line:
    line = this.line()
    whisper = this.server.asr._whisper
    assert whisper is not None
    decoded = whisper._numbers
    line.say(speech, this.slot_of(line))
    until(lambda: whisper._numbers > decoded, "the recogniser has it")
    return line


def answered(this: House, speech: bytes) -> Line:
    line = greeted(this)
    heard = line.count("media")
    line.say(speech, this.slot_of(line))
    line.until(lambda: line.count("media") > heard, "the answer plays")
    return line


def stopped(this: House, speech: bytes) -> Line:
    line = greeting(this, speech)
    line.send(line.carrier.stop())
    return line


STATES = (
    connected_only,
    upgraded,
    connected,
    started,
    greeting,
    speaking,
    recognising,
    answered,
    stopped,
)


def test_whenever_a_caller_leaves_nothing_is_left_of_him(
    models: ModelStore, tmp_path: Path, speech: bytes
) -> None:
    """A pulled cable in every state of a call; then 500 short calls; then all is as before."""
    with house(models, tmp_path, config=quick(server=Server(max_calls=8))) as this:
        for reach in STATES:  # once, so that what is made on first use is there
            reach(this, speech).cut()
        this.free()
        ask_once(this, speech)
        before = state(this)
        for _ in range(3):
            for reach in STATES:
                reach(this, speech).cut()
                reach(this, speech).close()
        this.free()
        ask_once(this, speech)
        assert state(this) == before

        resident = read_process().resident
        opened = this.door.opened
        for _ in range(500 // 8):
            lines = [this.line() for _ in range(8)]
            for line in lines:
                line.until(lambda line=line: line.count("media") >= 1, "the greeting plays")
            for line in lines:
                line.hang_up()
            until(lambda: this.door.live == 0, "all lines are free")
        this.free()
        assert this.door.opened - opened == 496
        ask_once(this, speech)
        assert state(this) == before
        assert read_process().resident - resident < 40_000_000
        until(lambda: backlog(this) == 0, "every event is taken")
        assert not this.server.reply._lines
        assert not this.server.asr._waiting
        assert not this.server.asr.decoding


def ask_once(this: House, speech: bytes) -> None:
    line = greeted(this)
    ask(this, line, speech)
    line.hang_up()
    this.free()


# -- what it tells about itself --------------------------------------------------------------------


def test_metrics_can_be_read_by_prometheus(
    models: ModelStore, tmp_path: Path, speech: bytes
) -> None:
    with house(models, tmp_path) as this:
        ask_once(this, speech)

        def value(name: str, **labels: str) -> float | None:
            page = get(this.address, "/metrics")[2].decode()
            for family in text_string_to_metric_families(page):
                for sample in family.samples:
                    if sample.name == name and sample.labels.items() >= labels.items():
                        return float(sample.value)
            return None

        until(lambda: value("threadline_reply_turns_total") == 1, "the page tells of the turn")
        assert value("threadline_calls_opened_total") == 1
        assert value("threadline_gil_enabled") == 0
        assert value("threadline_turn_response_seconds_count") == 1
        assert value("threadline_turn_stage_seconds_count", stage="endpoint") == 1
        frames = this.server.ios[0].frames
        until(lambda: value("threadline_frame_lateness_seconds_count") == frames, "every frame")
        assert value("threadline_stage_stalled", stage="pacer") == 0
        families(get(this.address, "/metrics")[2].decode())  # keeps to the conventions


def test_who_is_ready_has_a_metrics_page(models: ModelStore, tmp_path: Path) -> None:
    with house(models, tmp_path) as this:
        assert get(this.address, "/metrics")[2]
        watch = next(thread for thread in threading.enumerate() if thread.name == "watch")
        this.server.watch.stop()
        watch.join(DEADLINE)
        assert not watch.is_alive()
        this.server.watch.page = b""  # as before its first look
        status, _, body = get(this.address, "/readyz")
        assert (status, json.loads(body)["reason"]) == (503, "nobody has looked at its threads yet")


@pytest.mark.parametrize(
    ("order", "reason"),
    [("sleep", "the recogniser is loading its model"), ("refuse", "made of cheese")],
)
def test_not_ready_while_nothing_can_be_recognised(
    models: ModelStore, tmp_path: Path, order: str, reason: str
) -> None:
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / order).touch()
    with house(models, tmp_path, ready=False) as this:
        this.expected = True

        def why() -> str:
            status, _, body = get(this.address, "/readyz")
            assert status == 503
            return str(json.loads(body)["reason"])

        until(lambda: reason in why(), "the reason")
        assert get(this.address, "/healthz")[0] == 200
        line = greeted(this)  # who calls all the same is greeted
        line.hang_up()
        (tmp_path / "orders" / order).unlink()
        if order == "refuse":
            until(lambda: get(this.address, "/readyz")[0] == 200, "it has recovered")
            facts = json.loads(get(this.address, "/readyz")[2])
            assert facts["ready"] is True
            assert facts["gil_policy"] == "isolate"
            assert "pacer" in facts["stages"]
