"""Every way a recogniser can fail, over real sockets, ends in one event, in time."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

pytest.importorskip("uvloop")
from ears_rig import PATIENCE, DeepgramServer, Desk, Plan, Wire, dg, play, speak

from threadline.threads.messages import Heard, HearFailed
from threadline.vendors import deepgram_stream
from threadline.vendors.breaker import Breaker


@pytest.fixture(autouse=True)
def patient_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock answers nothing by itself, however busy the machine is, unless a test wants it."""
    monkeypatch.setattr(deepgram_stream, "QUIET_SECONDS", 5 * PATIENCE)


@pytest.fixture
def server() -> Iterator[DeepgramServer]:
    with DeepgramServer(final_ms=10) as server:
        yield server


# -- every fault, at every phase ---------------------------------------------------------------

ODD_STREAMS: list[tuple[str, Callable[[Wire], bool], str]] = [
    ("reset", dg.reset, "broke off"),
    ("half-close", dg.half_close, "broke off"),
    ("hang", dg.hang, "left speech unanswered"),
    ("stall", dg.stall, "left speech unanswered"),
    ("NET-0001", dg.closes(1011, "NET-0001: no audio"), "heard nothing of us"),
    ("DATA-0000", dg.closes(1008, "DATA-0000: unreadable"), "cannot read the audio"),
    ("1000", dg.closes(1000), "closed the connection (1000)"),
    ("1012", dg.closes(1012, "restart"), "closed the connection (1012 restart)"),
    ("error", dg.says('{"type": "Error", "description": "no GPU"}'), "gave up (no GPU)"),
    ("no UTF-8", dg.sends(b"\x81\x02\xff\xff"), "broke off"),
    ("no frame", dg.sends(b"\xff\xff\xff\xff"), "broke off"),
    ("too large", dg.sends(b"\x81\x7f" + (1 << 24).to_bytes(8)), "broke off"),
    ("drip", dg.sends(b"\x81\x7e\x70\x00", then_drip=b"{ "), "left speech unanswered"),
]
ODD_HANDSHAKES: list[tuple[str, Callable[[Wire], bool], str]] = [
    ("reset", dg.reset, ""),
    ("half-close", dg.half_close, ""),
    ("hang", dg.hang_handshake, "deepgram.connect_seconds"),
    ("no HTTP", dg.sends(b"\x00\xffSSH-2.0\r\n\r\n"), "does not speak WebSocket"),
    ("drip", dg.sends(b"HTTP/1.1 101 X\r\na: ", then_drip=b"b"), "deepgram.connect_seconds"),
]
REFUSALS: list[tuple[str, Callable[[Wire], bool], str]] = [
    ("400", dg.status(400, dg_error="no such model"), "no such model"),
    ("401", dg.status(401), "DEEPGRAM_API_KEY"),
    ("402", dg.status(402), "top it up"),
    ("403", dg.status(403), "DEEPGRAM_API_KEY"),
    ("404", dg.status(404), "correct deepgram.url"),
    ("429", dg.status(429), "server.max_calls"),
    ("500", dg.status(500), "try again later"),
    ("503", dg.status(503), "try again later"),
    (
        "page",
        dg.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhey!"),
        "rejected the request (200",
    ),
    (
        "wrong accept",
        dg.sends(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: nonsense\r\n\r\n"
        ),
        "does not speak WebSocket",
    ),
]
FAULTS = [
    *[pytest.param("accept", *fault[1:], id=f"accept-{fault[0]}") for fault in ODD_HANDSHAKES],
    *[
        pytest.param("request", *fault[1:], id=f"request-{fault[0]}")
        for fault in [*ODD_HANDSHAKES, *REFUSALS]
    ],
    *[
        pytest.param(phase, *fault[1:], id=f"{phase}-{fault[0]}")
        for phase in ("audio", "finalize")
        for fault in ODD_STREAMS
    ],
]


@pytest.mark.parametrize(("phase", "fault", "reason"), FAULTS)
def test_fault(
    server: DeepgramServer, phase: dg.Phase, fault: Callable[[Wire], bool], reason: str
) -> None:
    """The utterance that meets the fault fails, once and in time; the next one is heard."""
    server.plans.append(Plan(phase, fault, after=0.1 if phase == "audio" else 0.0))

    async def scenario(desk: Desk) -> None:
        desk.open()
        if phase in ("audio", "finalize"):
            await desk.connected()
        desk.say(1, speak(1, 2, ms=400))
        desk.ask(1)
        assert reason in await desk.reason_of(1)
        await desk.connected_again()
        desk.say(1, speak(3))  # asr may not know yet
        desk.ask(1)
        desk.say(2, speak(4, 5))
        desk.ask(2)
        assert await desk.text_of(2) == "w4 w5"
        assert len(desk.endings(1)) == 1
        assert len(server.wires) == 2

    slow = "connect_seconds" in reason
    desk = play(
        server,
        scenario,
        final_seconds=0.5 if "unanswered" in reason else PATIENCE,
        connect_seconds=0.3 if slow else PATIENCE,
    )
    assert desk.ears.failed == 1
    assert desk.ears.answered == 1


@pytest.mark.parametrize("phase", ["audio", "finalize"])
def test_garbage_among_the_results_is_counted_and_changes_nothing(
    server: DeepgramServer, phase: dg.Phase
) -> None:
    server.plans.append(Plan(phase, dg.says(*dg.GARBAGE)))

    async def scenario(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(1, 2))
        desk.ask(1)
        assert await desk.text_of(1) == "w1 w2"
        assert desk.ears.garbage == len(dg.GARBAGE)

    play(server, scenario)
    assert len(server.wires) == 1


def test_a_server_that_answers_with_garbage_only_is_given_up(server: DeepgramServer) -> None:
    server.plans.append(Plan("audio", dg.says(*dg.GARBAGE, go_on=False)))

    async def scenario(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(1, 2, ms=400))
        desk.ask(1)
        assert "left speech unanswered" in await desk.reason_of(1)

    play(server, scenario, final_seconds=0.3)


def test_no_answer_to_finalize_is_replaced_by_what_is_known(
    server: DeepgramServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deepgram owes none when it finds nothing to do."""
    server.plans.append(Plan("finalize", dg.skips))
    server.interim_ms = 100

    async def scenario(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(1, 2, 3))
        await desk.until(lambda: desk.events and desk.events[-1].text == "w1 w2 w3", "a guess")  # type: ignore[union-attr]  # Heard
        monkeypatch.setattr(deepgram_stream, "QUIET_SECONDS", 0.1)
        desk.ask(1)
        assert await desk.text_of(1) == "w1 w2 w3"
        assert desk.ears.late == 1
        monkeypatch.setattr(deepgram_stream, "QUIET_SECONDS", 5 * PATIENCE)
        desk.say(2, speak(4))
        desk.ask(2)
        assert await desk.text_of(2) == "w4"
        assert desk.ears.late == 1
        assert len(server.wires) == 1

    play(server, scenario)


def test_an_answer_that_comes_twice_is_published_once(server: DeepgramServer) -> None:
    server.final_ms = 0
    again = dg.results(0.0, 0.1, [("w1", 0.0, 0.1)], True, True)

    async def scenario(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(1))
        desk.ask(1)
        assert await desk.text_of(1) == "w1"
        server.wires[0].plan = Plan("audio", dg.says(again))
        desk.say(2, speak(2, 3, ms=500))
        desk.ask(2)
        assert await desk.text_of(2) == "w2 w3"
        assert len(desk.endings(1)) == 1
        assert not [e for e in desk.events if e.utterance == 2 and "w1" in e.text]  # type: ignore[union-attr]  # Heard

    play(server, scenario)


def test_a_silent_question_before_an_answer_does_not_confuse(server: DeepgramServer) -> None:
    """Asked twice at one place: the server answers once, both are answered."""

    async def scenario(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(1))
        desk.ask(1, 3)
        desk.ask(1, 4)
        await desk.end_of(1, count=2)
        assert [(e.windows, e.text) for e in desk.endings(1)] == [(3, "w1"), (4, "w1")]  # type: ignore[union-attr]  # Heard

    play(server, scenario)


# -- bounds ----------------------------------------------------------------------------------------


def test_audio_that_waits_for_a_connection_is_bounded(server: DeepgramServer) -> None:
    server.plans.append(Plan("request", dg.hang_handshake))

    async def scenario(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(1, ms=30_000))
        assert desk.events == []
        desk.say(1, speak(1, ms=100))
        assert "stopped following" in await desk.reason_of(1)
        assert desk.ears._sessions[0]._queue == []
        desk.say(1, speak(1, ms=30_000))
        assert desk.ears._sessions[0]._queue == []

    play(server, scenario)


def test_a_server_that_stops_reading_is_given_up(server: DeepgramServer) -> None:
    server.plans.append(Plan("audio", dg.stall))

    async def scenario(desk: Desk) -> None:
        desk.open()
        await desk.connected()
        desk.say(1, speak(1, ms=31_000))
        assert "stopped following" in await desk.reason_of(1)
        desk.say(2, speak(2))
        desk.ask(2)
        assert await desk.text_of(2) == "w2"

    play(server, scenario)


def test_questions_that_wait_are_bounded(server: DeepgramServer) -> None:
    server.plans.append(Plan("audio", dg.hang))

    async def scenario(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(1))
        for windows in range(100):
            desk.ask(1, windows)
        assert isinstance(await desk.end_of(1), HearFailed)

    play(server, scenario)


# -- breakers --------------------------------------------------------------------------------------


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as sock:
        return sock.getsockname()[1]  # type: ignore[no-any-return]  # an int


def test_a_server_that_is_not_there_is_left_alone_and_tried_again() -> None:
    port = free_port()

    async def scenario(desk: Desk) -> None:
        desk.ears.connecting = Breaker(rest_seconds=0.2)
        desk.open()
        desk.say(1, speak(1))
        desk.ask(1)
        assert "cannot be reached" in await desk.reason_of(1)
        await desk.until(lambda: desk.ears.connecting.open, "three failures")
        desk.say(2, speak(2))
        assert [type(event) for event in desk.endings(2)] == [HearFailed]  # at once
        assert "is not asked" in desk.endings(2)[0].reason  # type: ignore[union-attr]  # HearFailed
        desk.ask(2)
        assert desk.ears.refused == 1
        with DeepgramServer(port=port):
            await desk.connected()
            assert not desk.ears.connecting.open
            desk.say(3, speak(3))
            desk.ask(3)
            assert await desk.text_of(3) == "w3"
        assert len(desk.endings(2)) == 1

    play(f"ws://127.0.0.1:{port}", scenario)


def test_a_server_that_takes_connections_and_never_answers_is_left_alone_too(
    server: DeepgramServer,
) -> None:
    server.plans.extend([Plan("audio", dg.hang)] * 3)

    async def scenario(desk: Desk) -> None:
        desk.ears.hearing = Breaker(rest_seconds=0.5)
        desk.open()
        session = desk.ears._sessions[0]
        await desk.until(lambda: session._ws is not None, "a connection")
        for utterance in (1, 2, 3):
            desk.say(utterance, speak(1, 2, ms=400))
            desk.ask(utterance)
            assert "left speech unanswered" in await desk.reason_of(utterance)
            await desk.until(lambda: session._ws is not None, "a new connection")
        desk.say(4, speak(4))
        assert [type(event) for event in desk.endings(4)] == [HearFailed]
        utterance = 4
        while not (desk.endings(utterance) and isinstance(desk.endings(utterance)[-1], Heard)):
            utterance += 1
            desk.say(utterance, speak(5))
            desk.ask(utterance)
            await desk.end_of(utterance)
        assert await desk.text_of(utterance) == "w5"
        assert not desk.ears.hearing.open

    play(server, scenario, final_seconds=0.2)


def test_a_server_that_wants_a_rest_gets_it(server: DeepgramServer) -> None:
    server.plans.append(Plan("request", dg.status(429, Retry_After="60")))

    async def scenario(desk: Desk) -> None:
        desk.open()
        desk.say(1, speak(1))
        assert "429" in await desk.reason_of(1)
        assert desk.ears.connecting.open
        assert not desk.ears.connecting.allows(time.monotonic() + 50)

    play(server, scenario)
