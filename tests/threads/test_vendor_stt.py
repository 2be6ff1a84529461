"""What is said comes back as text, to the utterance and the call it was said in."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvloop")
from ears_rig import PATIENCE, DeepgramServer, Desk, Plan, Wire, controls, dg, play, speak

from threadline.config import Deepgram
from threadline.errors import ConfigError
from threadline.observe.prometheus import render
from threadline.threads import vendor_stt, vendor_stt_session
from threadline.threads.messages import Heard, HearFailed
from threadline.threads.vendor_stt import Ears
from threadline.vendors import deepgram_stream


@pytest.fixture(autouse=True)
def patient_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock answers nothing by itself, however busy the machine is, unless a test wants it."""
    monkeypatch.setattr(deepgram_stream, "QUIET_SECONDS", 5 * PATIENCE)


@pytest.fixture
def server() -> Iterator[DeepgramServer]:
    with DeepgramServer(final_ms=10) as server:
        yield server


# -- the healthy way -------------------------------------------------------------------------------


def test_audio_goes_out_untouched_and_in_order_and_comes_back_as_text(
    server: DeepgramServer,
) -> None:
    server.key = "secret"
    audio = bytes(range(256)) * 10 + speak(7, 8, 9)

    async def scenario(desk: Desk) -> None:
        desk.open()
        await desk.connected()
        desk.say(1, audio)
        desk.ask(1, 43)
        await desk.text_of(1)
        desk.hang_up()
        await desk.until(lambda: server.wires[0].lost, "the connection closed")

    desk = play(server, scenario, key="secret")
    end = desk.endings(1)[0]
    assert end == Heard(0, 1, utterance=1, windows=43, text=end.text, final=True)  # type: ignore[union-attr]  # Heard
    assert end.text.endswith("w7 w8 w9")  # type: ignore[union-attr]  # as above
    [wire] = server.wires
    assert wire.received == [audio, '{"type": "Finalize"}', '{"type": "CloseStream"}']
    assert wire.headers["authorization"] == "Token secret"
    assert wire.query["encoding"] == ["mulaw"]


def test_the_connection_is_open_before_anybody_speaks(server: DeepgramServer) -> None:
    async def scenario(desk: Desk) -> None:
        desk.open()
        await desk.connected()
        assert len(server.wires) == 1
        desk.say(1, speak(5))
        desk.ask(1)
        assert await desk.text_of(1) == "w5"
        assert len(server.wires) == 1

    play(server, scenario)


def test_what_is_said_before_there_is_a_connection_is_not_lost(server: DeepgramServer) -> None:
    async def scenario(desk: Desk) -> None:
        desk.say(1, speak(1, 2))  # asr was faster than reply: not even the call was opened
        desk.ask(1)
        desk.open()
        desk.say(2, speak(3))
        desk.ask(2)
        assert await desk.text_of(1) == "w1 w2"
        assert await desk.text_of(2) == "w3"
        assert len(server.wires) == 1

    play(server, scenario)


def test_guesses_come_while_the_caller_speaks(server: DeepgramServer) -> None:
    async def scenario(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(1, 2, 3, 4, ms=160))
        await desk.until(lambda: len(desk.events) == 4, "four guesses")
        desk.ask(1)
        await desk.end_of(1)
        said = [(e.text, e.final, e.windows) for e in desk.events if isinstance(e, Heard)]
        assert said == [
            ("w1", False, 0),
            ("w1 w2", False, 0),
            ("w1 w2 w3", False, 0),
            ("w1 w2 w3 w4", False, 0),
            ("w1 w2 w3 w4", True, 9),
        ]

    play(server, scenario)


def test_an_utterance_goes_on_after_its_text_was_asked_for(server: DeepgramServer) -> None:
    async def scenario(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(1))
        desk.ask(1, 4)
        assert await desk.text_of(1) == "w1"
        desk.say(1, speak(2))
        desk.ask(1, 8)
        desk.say(1, speak(3))  # before the answer
        desk.ask(1, 12)
        await desk.end_of(1, count=3)
        ends = [(e.windows, e.text) for e in desk.endings(1) if isinstance(e, Heard)]
        assert ends == [(4, "w1"), (8, "w1 w2"), (12, "w1 w2 w3")]

    play(server, scenario)


def test_nothing_of_a_forgotten_utterance_is_published_nor_given_to_the_next() -> None:
    async def scenario(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(1, 2, 3, 4))  # guesses and final results of it are on their way
        desk.ask(1)
        desk.forget(1)
        desk.say(1, speak(9))  # not wanted any more
        desk.ask(1)
        desk.say(2, speak(5))
        desk.forget(2)
        desk.say(3, speak(6))
        desk.ask(3)
        assert await desk.text_of(3) == "w6"
        assert {event.utterance for event in desk.events} == {3}

    with DeepgramServer(final_ms=40, interim_ms=30) as server:
        play(server, scenario)
        assert speak(9) not in b"".join(m for m in server.wires[0].received if type(m) is bytes)


@pytest.mark.parametrize("seed", range(3))
def test_words_stay_with_their_utterance_whatever_the_order(seed: int) -> None:
    """Long and short ones, some forgotten, most asked for before the last was answered."""
    rng = random.Random(seed)
    wanted: dict[int, str] = {}

    async def scenario(desk: Desk) -> None:
        desk.open()
        for utterance in range(1, 41):
            words = [(utterance * 7 + i) % 250 + 1 for i in range(rng.randint(1, 8))]
            desk.say(utterance, speak(*words, ms=rng.choice([40, 100])))
            fate = rng.random()
            if fate < 0.2:
                desk.forget(utterance)
            elif fate < 0.9:
                desk.ask(utterance)
                wanted[utterance] = " ".join(f"w{word}" for word in words)
            await asyncio.sleep(rng.choice([0, 0, 0.003, 0.02]))
        for utterance, text in wanted.items():
            assert await desk.text_of(utterance) == text, f"seed {seed}"

    with DeepgramServer(final_ms=15, interim_ms=60, final_every_ms=250) as server:
        desk = play(server, scenario)
        assert len(server.wires) == 1
    assert desk.ears.answered == len(wanted)
    assert desk.ears.late == 0


def test_many_calls_at_once_each_hear_their_own(server: DeepgramServer) -> None:
    server.interim_ms = 60
    calls = range(40)

    async def scenario(desk: Desk) -> None:
        for slot in calls:
            desk.open(slot)
        await desk.connected(len(calls))
        for slot in calls:
            desk.say(1, speak(slot + 1, slot + 101), slot=slot)
            desk.ask(1, slot=slot)
        for slot in calls:
            assert await desk.text_of(1, slot) == f"w{slot + 1} w{slot + 101}"
        assert len(server.wires) == len(calls)

    play(server, scenario)


# -- connections come and go -----------------------------------------------------------------------


def test_a_connection_lost_between_two_turns_costs_nothing(server: DeepgramServer) -> None:
    async def scenario(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(1))
        desk.ask(1)
        await desk.text_of(1)
        server._loop.call_soon_threadsafe(dg.reset, server.wires[0])
        await desk.until(lambda: len(server.wires) == 2, "a new connection, unasked")
        desk.say(2, speak(2))
        desk.ask(2)
        assert await desk.text_of(2) == "w2"
        assert not [event for event in desk.events if isinstance(event, HearFailed)]

    play(server, scenario)


def test_an_utterance_that_goes_on_over_a_lost_connection_fails_then(
    server: DeepgramServer,
) -> None:
    """What was said of it before is known to nobody on the new connection."""

    async def scenario(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(1))
        desk.ask(1)
        await desk.text_of(1)
        server._loop.call_soon_threadsafe(dg.reset, server.wires[0])
        await desk.until(lambda: len(server.wires) == 2 and desk.ears.connected, "reconnected")
        desk.say(1, speak(2))
        desk.ask(1, 12)
        assert isinstance(await desk.end_of(1, count=2), HearFailed)

    play(server, scenario)
    assert server.wires[1].received == ['{"type": "CloseStream"}']


def test_who_speaks_does_not_wait_for_the_next_attempt(
    server: DeepgramServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor_stt_session, "FIRST_REST_SECONDS", 10 * PATIENCE)
    monkeypatch.setattr(vendor_stt_session, "LONGEST_REST_SECONDS", 10 * PATIENCE)
    server.plans.append(Plan("request", dg.status(500)))

    async def scenario(desk: Desk) -> None:
        desk.open()
        await desk.until(lambda: desk.ears._sessions[0]._tries == 1, "a rest after a failure")
        assert len(server.wires) == 1
        desk.say(1, speak(1))
        desk.ask(1)
        assert await desk.text_of(1) == "w1"

    play(server, scenario)


def test_keep_alive_is_said_while_no_audio_flows(
    server: DeepgramServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor_stt_session, "KEEP_ALIVE_SECONDS", 0.02)

    async def scenario(desk: Desk) -> None:
        desk.open()
        await desk.until(lambda: server.wires, "a connection")
        await desk.until(lambda: len(controls(server.wires[0])) > 5, "messages")
        desk.say(1, speak(1))
        desk.ask(1)
        assert await desk.text_of(1) == "w1"

    play(server, scenario)
    [wire] = server.wires
    assert controls(wire)[:5] == ["KeepAlive"] * 5


def test_no_keep_alive_while_audio_flows(
    server: DeepgramServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor_stt_session, "KEEP_ALIVE_SECONDS", 0.5)
    gaps: list[float] = []

    async def scenario(desk: Desk) -> None:
        desk.open()
        await desk.connected()
        said = began = time.monotonic()
        while time.monotonic() < began + 0.8:
            desk.say(1, speak(1))
            gaps.append(time.monotonic() - said)
            said = time.monotonic()
            await asyncio.sleep(0.02)

    play(server, scenario)
    if max(gaps) < 0.25:  # else this machine was too busy to let audio flow
        assert controls(server.wires[0]) == ["CloseStream"]


def test_without_keep_alive_the_server_leaves_and_we_come_back(server: DeepgramServer) -> None:
    server.idle_seconds = 0.1

    async def scenario(desk: Desk) -> None:
        desk.open()
        await desk.until(lambda: len(server.wires) >= 2, "a second connection")
        assert desk.events == []
        assert desk.ears.lost >= 1

    play(server, scenario)


def test_the_end_of_a_call_closes_in_good_order_and_publishes_nothing(
    server: DeepgramServer,
) -> None:
    server.final_ms = 0  # it answers before it closes

    async def scenario(desk: Desk) -> None:
        desk.open()
        await desk.connected()
        desk.say(1, speak(1, 2, ms=400))
        desk.ask(1)
        desk.hang_up()
        desk.say(1, speak(3))  # asr has not heard of it: no session is opened for that
        desk.ask(1)
        await desk.until(lambda: server.wires and server.wires[0].lost, "the connection closed")
        await desk.until(lambda: not desk.ears._tasks, "its task ended")
        assert desk.events == []
        assert desk.ears._sessions == {}
        desk.open(generation=3)
        desk.say(1, speak(4), generation=3)
        desk.ask(1, generation=3)
        assert await desk.text_of(1) == "w4"

    play(server, scenario)
    assert controls(server.wires[0])[-1] == "CloseStream"
    assert len(server.wires) == 2


@pytest.mark.parametrize("fault", [dg.hang, dg.stall, dg.hang_handshake])
def test_a_call_leaves_nothing_behind_at_a_server_that_does_not_answer(
    server: DeepgramServer, fault: Callable[[Wire], bool]
) -> None:
    phase: dg.Phase = "request" if fault is dg.hang_handshake else "audio"
    server.plans.append(Plan(phase, fault))

    async def scenario(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(1))
        await desk.until(lambda: server.wires and server.wires[0].plan is None, "the fault")
        desk.hang_up()
        await desk.until(lambda: not desk.ears._tasks, "the session's task ended")
        assert desk.ears.connected == 0

    play(server, scenario)


def test_the_next_caller_of_a_slot_replaces_the_last(server: DeepgramServer) -> None:
    async def scenario(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(1, 2))
        desk.ask(1)
        desk.say(1, speak(4), generation=3)  # its CallClosed is late
        desk.ask(1, generation=3)
        desk.hang_up(generation=1)
        desk.say(1, speak(9), generation=1)
        await desk.until(lambda: desk.events, "an answer")
        assert {event.generation for event in desk.events} == {3}
        assert await desk.text_of(1) == "w4"

    play(server, scenario)


@pytest.mark.parametrize("fault", [dg.hang, dg.stall, dg.hang_handshake])
def test_close_does_not_wait_for_a_server_that_does_not_answer(
    server: DeepgramServer, fault: Callable[[Wire], bool]
) -> None:
    phase: dg.Phase = "request" if fault is dg.hang_handshake else "audio"
    server.plans.append(Plan(phase, fault))

    async def scenario(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(1))
        await desk.until(lambda: server.wires and server.wires[0].plan is None, "the fault")

    play(server, scenario)  # whose `close` has a deadline far below these time-outs


def test_warm_connects_once_and_leaves(server: DeepgramServer) -> None:
    async def scenario(desk: Desk) -> None:
        desk.ears.warm()
        await desk.until(lambda: server.wires and server.wires[0].lost, "come and gone")
        assert desk.ears.connects == 1
        await desk.until(lambda: not desk.ears._tasks, "the task ended")

    play(server, scenario)
    assert controls(server.wires[0]) == ["CloseStream"]


def test_a_key_that_is_refused_is_known_before_the_first_call(
    server: DeepgramServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "right"
    said: list[str] = []
    monkeypatch.setattr(
        vendor_stt.log.__class__, "warning", lambda _, __, **fields: said.append(fields["reason"])
    )

    async def scenario(desk: Desk) -> None:
        desk.ears.warm()
        await desk.until(lambda: said, "a warning")

    play(server, scenario, key="wrong")
    assert "DEEPGRAM_API_KEY" in said[0]


def test_without_a_key_there_are_no_ears() -> None:
    with pytest.raises(ConfigError, match="DEEPGRAM_API_KEY"):
        Ears(Deepgram(), 1.0, print)


# -- reports ---------------------------------------------------------------------------------------


def test_samples(server: DeepgramServer) -> None:
    async def scenario(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(1, 2))
        desk.ask(1)
        await desk.text_of(1)
        page = render(desk.ears.samples()).decode()
        for line in (
            "threadline_stt_connect_seconds_count 1.0",
            "threadline_stt_first_text_seconds_count 1.0",
            "threadline_stt_final_seconds_count 1.0",
            "threadline_stt_answered_total 1.0",
            "threadline_stt_failed_total 0.0",
            "threadline_stt_connected 1.0",
            'threadline_stt_breaker_open{kind="hearing"} 0.0',
        ):
            assert line in page

    play(server, scenario)


def test_the_server_as_a_process() -> None:
    """As benchmarks use it: texts in turn, one for each stretch of speech."""
    path = Path(dg.__file__)
    command = [
        sys.executable,
        str(path),
        "--final-ms",
        "5",
        "--text",
        "a table",
        "--text",
        "for two",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        loud, quiet = b"\x80" * 4000, b"\xff" * 4000

        async def scenario(desk: Desk) -> None:
            desk.open()
            desk.say(1, quiet + loud)
            desk.ask(1)
            assert await desk.text_of(1) == "a table"
            desk.say(1, quiet)
            desk.ask(1, 20)
            assert await desk.text_of(1, count=2) == "a table"
            desk.say(2, quiet + loud)
            desk.ask(2)
            assert await desk.text_of(2) == "for two"

        try:
            play(f"ws://127.0.0.1:{port}", scenario)
        finally:
            process.terminate()
            process.wait(PATIENCE)
    assert process.returncode == 0
