"""Calls against a real WebSocket server that plays the agent, on a loop in another thread."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from threadline.audio import mulaw
from threadline.errors import AddressError, ConfigError, ProtocolError, ThreadlineError
from threadline.observe.callreport import judge, summary
from threadline.threads.caller import place_calls
from threadline.threads.phone_line import CallPlan
from threadline.wire.phone import Gap
from threadline.wire.script import Barge, Clip
from threadline.wire.signature import valid

FRAME = 160


def tone(seconds: float) -> bytes:
    """Loud enough for anybody's idea of speech."""
    at = np.arange(int(seconds * mulaw.RATE))
    return mulaw.encode((9000 * np.sign(np.sin(at + 0.5))).astype(np.int16))


def clip(name: str = "clip", seconds: float = 0.3, margin: float = 0.1) -> Clip:
    edge = b"\xff" * int(margin * mulaw.RATE)
    speech = tone(seconds)
    return Clip(name, edge + speech + edge, (len(edge), len(edge) + len(speech)))


def loud(payload: bytes) -> bool:
    return int(np.abs(mulaw.decode(payload)).max()) > 4000


class Agent:
    """The server's side of one call, for the test's script to use."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.messages: list[dict[str, Any]] = []
        self.sid = ""

    async def send(self, event: str, **body: Any) -> None:
        await self.socket.send(json.dumps({"event": event, "streamSid": self.sid, **body}))

    async def say(self, audio: bytes, *, pace: float = 0.02, mark: str = "") -> None:
        start = asyncio.get_running_loop().time()
        for index, at in enumerate(range(0, len(audio), FRAME)):
            payload = b64encode(audio[at : at + FRAME]).decode()
            await self.send("media", media={"payload": payload})
            if pace:
                due = start + (index + 1) * pace
                await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        if mark:
            await self.send("mark", mark={"name": mark})

    async def next(self, *events: str) -> dict[str, Any]:
        """The next message of one of these kinds."""
        async for text in self.socket:
            message = json.loads(text)
            self.messages.append(message)
            if message["event"] in events:
                return message
        raise ConnectionError("the call ended")

    async def starts(self) -> None:
        self.sid = (await self.next("start"))["streamSid"]

    async def hears(self, *, speech: bool, frames: int = 4) -> None:
        """Wait for so many frames in a row with or without speech."""
        run = 0
        while run < frames:
            media = await self.next("media")
            run = run + 1 if loud(b64decode(media["media"]["payload"])) is speech else 0

    async def utterance(self) -> None:
        await self.hears(speech=True)
        await self.hears(speech=False)

    async def until_closed(self) -> None:
        async for text in self.socket:
            self.messages.append(json.loads(text))

    def marks(self) -> list[str]:
        return [m["mark"]["name"] for m in self.messages if m["event"] == "mark"]


type Behaviour = Callable[[Agent], Awaitable[None]]


class Server:
    """What `serving` gives: where it listens, whom it served, what went wrong in a script."""

    def __init__(self) -> None:
        self.url = ""
        self.agents: list[Agent] = []
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []


@contextmanager
def serving(behaviour: Behaviour, refuse: tuple[HTTPStatus, str] | None = None) -> Iterator[Server]:
    server, ready = Server(), threading.Event()
    stop: list[Callable[[], None]] = []

    async def handle(connection: ServerConnection) -> None:
        agent = Agent(connection)
        server.agents.append(agent)
        try:
            await behaviour(agent)
        except ConnectionClosed, ConnectionError:
            pass
        except BaseException as error:  # noqa: BLE001  # a failed script must fail the test
            server.errors.append(error)

    def process(connection: ServerConnection, request: Request) -> Response | None:
        server.requests.append(request)
        return connection.respond(*refuse) if refuse else None

    async def main() -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(over.set))
        async with serve(handle, "127.0.0.1", 0, process_request=process) as listener:
            port = next(iter(listener.sockets)).getsockname()[1]
            server.url = f"ws://127.0.0.1:{port}/twilio"
            ready.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield server
    finally:
        stop[0]()
        thread.join(10)
    assert not thread.is_alive()
    assert not server.errors, server.errors


class Notes:
    def __init__(self) -> None:
        self.texts: list[tuple[int, str]] = []
        self.frames = 0

    def note(self, call: int, seconds: float, text: str) -> None:
        self.texts.append((call, text))

    def sound(self, caller: bytes, agent: bytes) -> None:
        assert len(caller) == FRAME
        self.frames += 1


async def receptionist(agent: Agent) -> None:
    """Greets, answers every utterance, one mark at each end."""
    await agent.starts()
    await agent.say(tone(0.2), mark="0")
    for turn in range(1, 10):
        await agent.utterance()
        await agent.say(tone(0.3), mark=str(turn))


def test_a_conversation() -> None:
    with serving(receptionist) as server:
        notes = Notes()
        placed = place_calls(CallPlan(server.url, (clip("one"), clip("two"))), notes)
    agent = server.agents[0]  # only now: leaving the block waits for the scripts to end
    (record,) = placed.calls
    report = judge(record)
    result = summary([report], placed.client_lateness_ms)
    assert (result["calls"], result["turns"], result["unanswered"], result["dropped"]) == (
        (1, 2, 0, 0)
    )
    assert [m["event"] for m in agent.messages[:2]] == ["connected", "start"]
    assert agent.messages[-1]["event"] == "stop"
    assert agent.marks() == ["0", "1", "2"]
    assert record.fault is None
    assert record.unsaid == 0
    # The agent waits for 4 quiet frames; the phone holds 40 ms; so no answer can be faster.
    assert all(t.response_ms is not None and t.response_ms >= 120 for t in report.turns[1:])
    # What went out is what the recording has, to the sample.
    sent = b"".join(
        b64decode(m["media"]["payload"]) for m in agent.messages if m["event"] == "media"
    )
    assert record.caller.tobytes()[: len(sent)] == sent
    for said in record.said:
        piece = record.caller[said.onset : said.speech_end].tobytes()
        assert piece == tone(0.3)
    # All agent audio was heard, none of it twice.
    assert int(np.count_nonzero(np.abs(mulaw.decode(record.agent.tobytes())) > 4000)) == (
        int(0.8 * mulaw.RATE)
    )
    assert notes.frames == len(record.caller) // FRAME == len(placed.client_lateness_ms)
    assert (0, "caller says one") in notes.texts


def test_caller_frames_are_counted_as_twilio_counts_them() -> None:
    with serving(receptionist) as server:
        place_calls(CallPlan(server.url, (clip(),)))
    media = [m for m in server.agents[0].messages if m["event"] == "media"]
    assert [m["media"]["chunk"] for m in media] == [str(n) for n in range(1, len(media) + 1)]
    assert [m["media"]["timestamp"] for m in media] == [str(20 * n) for n in range(len(media))]


def test_a_mark_comes_back_only_when_the_audio_before_it_has_played() -> None:
    heard_before: list[int] = []

    async def burst(agent: Agent) -> None:
        await agent.starts()
        await agent.say(tone(0.5), pace=0, mark="half")
        await agent.say(tone(0.3), pace=0, mark="all")
        for _ in range(2):
            await agent.next("mark")
            heard_before.append(sum(m["event"] == "media" for m in agent.messages))
        await agent.until_closed()

    with serving(burst) as server:
        place_calls(CallPlan(server.url, (clip(),), answer_within=0.5))
    assert server.agents[0].marks() == ["half", "all"]
    # Counted in the caller's own frames, which are the phone's clock: 500 and 800 ms.
    assert heard_before[0] >= 25
    assert heard_before[1] - heard_before[0] >= 14


def test_clear_stops_the_audio_and_returns_the_marks_at_once() -> None:
    async def cut(agent: Agent) -> None:
        await agent.starts()
        await agent.say(tone(5.0), pace=0, mark="a")
        await agent.send("mark", mark={"name": "b"})
        for _ in range(20):
            await agent.next("media")
        await agent.send("clear")
        await agent.next("mark")
        await agent.next("mark")
        await agent.until_closed()

    with serving(cut) as server:
        placed = place_calls(CallPlan(server.url, (clip(),), answer_within=0.3))
    assert server.agents[0].marks() == ["a", "b"]
    record = placed.calls[0]
    (utterance,) = record.utterances
    assert len(record.clears) == 1
    assert abs(utterance.end - record.clears[0]) <= 1
    assert utterance.end - utterance.start < 3 * mulaw.RATE
    assert not record.gaps


def test_an_interruption_is_timed_from_the_onset_to_the_last_sample_heard() -> None:
    cleared: list[bool] = []

    async def talkative(agent: Agent) -> None:
        await agent.starts()
        await agent.say(tone(0.2), mark="0")
        await agent.utterance()
        talk = asyncio.create_task(agent.say(tone(8.0), mark="1"))
        await agent.hears(speech=True, frames=3)
        talk.cancel()
        await agent.send("clear")
        cleared.append(True)
        await agent.hears(speech=False)
        await agent.say(tone(0.2), mark="2")
        await agent.until_closed()

    with serving(talkative) as server:
        plan = CallPlan(server.url, (clip("one"), clip("two")), barge=Barge(0.4))
        placed = place_calls(plan)
    record = placed.calls[0]
    turns = judge(record).turns
    assert cleared == [True]
    old = next(u for u in record.utterances if u.first_loud <= record.said[1].onset <= u.last_loud)
    # The clip starts 0.4 s after the reply became audible, to a frame.
    assert 0 <= record.said[1].start - old.first_loud - 0.4 * mulaw.RATE <= 2 * FRAME
    assert turns[1].barge_ms is None
    assert turns[2].barge_ms == (old.last_loud + 1 - record.said[1].onset) / 8
    assert 40 <= turns[2].barge_ms < 2000
    assert turns[2].response_ms is not None


def test_audio_that_stops_within_an_utterance_is_an_underrun() -> None:
    async def stutter(agent: Agent) -> None:
        await agent.starts()
        await agent.say(tone(0.3), pace=0.0)  # at once: nobody can pace it badly
        await asyncio.sleep(0.5)
        await agent.say(tone(0.3), pace=0.0, mark="0")
        await agent.until_closed()

    with serving(stutter) as server:
        placed = place_calls(CallPlan(server.url, (clip(),), answer_within=0.3))
    report = judge(placed.calls[0])
    (gap,) = report.underruns
    assert isinstance(gap, Gap)
    assert gap.end - gap.start > 0.1 * mulaw.RATE
    assert report.lateness_ms.max() > 100
    (utterance,) = placed.calls[0].utterances
    assert utterance.end - utterance.start > 0.7 * mulaw.RATE


def test_many_calls_each_keep_their_own_audio() -> None:
    async def echo_sid(agent: Agent) -> None:
        await agent.starts()
        code = int(agent.sid[2:6], 16) % 100 + 1  # a mu-law code of its own for every call
        await agent.utterance()
        await agent.say(bytes([code]) * FRAME * 10, mark="1")
        await agent.until_closed()

    with serving(echo_sid) as server:
        plan = CallPlan(server.url, (clip(),), calls=8, stagger_ms=15, greeting=False)
        placed = place_calls(plan)
    codes = {
        next(m["start"]["callSid"] for m in a.messages if m["event"] == "start"): int(
            a.sid[2:6], 16
        )
        % 100
        + 1
        for a in server.agents
    }
    assert len({call.call_sid for call in placed.calls}) == 8
    for call in placed.calls:
        heard = set(call.agent.tobytes()) - {mulaw.SILENCE}
        assert heard == {codes[call.call_sid]}
        assert call.fault is None
        assert not judge(call).turns[1].unanswered
    assert summary([judge(c) for c in placed.calls], placed.client_lateness_ms)["frames"] == 80


def test_silence_is_an_unanswered_turn_and_the_caller_goes_on() -> None:
    async def deaf(agent: Agent) -> None:
        await agent.starts()
        await agent.until_closed()

    with serving(deaf) as server:
        plan = CallPlan(server.url, (clip("a"), clip("b")), greeting=False, answer_within=0.3)
        placed = place_calls(plan)
    record = placed.calls[0]
    assert [turn.unanswered for turn in judge(record).turns[1:]] == [True, True]
    assert record.said[1].start - record.said[0].speech_end >= 0.3 * mulaw.RATE
    assert record.fault is None


def test_the_server_may_hang_up() -> None:
    async def goodbye(agent: Agent) -> None:
        await agent.starts()
        await agent.say(tone(0.1), mark="0")
        await agent.next("mark")
        await agent.socket.close()

    with serving(goodbye) as server:
        placed = place_calls(CallPlan(server.url, (clip(), clip())))
    record = placed.calls[0]
    assert record.fault is None
    assert record.ended == "the server hung up"
    assert record.unsaid == 2


async def vanish(agent: Agent) -> None:
    await agent.starts()
    await agent.say(tone(0.1))
    agent.socket.transport.abort()


async def break_off(agent: Agent) -> None:
    await agent.starts()
    await agent.socket.close(1011, "out of order")


@pytest.mark.parametrize(
    ("behaviour", "error", "words"),
    [(vanish, AddressError, "vanished"), (break_off, ProtocolError, "1011 out of order")],
)
def test_a_server_that_dies_in_mid_call_drops_it(
    behaviour: Behaviour, error: type[ThreadlineError], words: str
) -> None:
    with serving(behaviour) as server:
        placed = place_calls(CallPlan(server.url, (clip(),)))
    record = placed.calls[0]
    assert isinstance(record.fault, error)
    assert words in str(record.fault)
    assert summary([judge(record)], placed.client_lateness_ms)["dropped"] == 1


@pytest.mark.parametrize(
    "garbage",
    [
        "not json",
        "[]",
        '{"event":"media"}',
        '{"event":"media","streamSid":"MZother","media":{"payload":"/////w=="}}',
        '{"event":"wave","streamSid":"SID"}',
        '{"event":"media","streamSid":"SID","media":{"payload":"***"}}',
        '{"event":"media","streamSid":"SID","media":{"payload":"////"},"extra":1}',
        b"\x00\x01",
    ],
)
def test_garbage_from_the_server_ends_the_call_as_twilio_would(garbage: str | bytes) -> None:
    async def babble(agent: Agent) -> None:
        await agent.starts()
        mine = garbage.replace("SID", agent.sid) if isinstance(garbage, str) else garbage
        await agent.socket.send(mine)
        await agent.until_closed()

    with serving(babble) as server:
        placed = place_calls(CallPlan(server.url, (clip(),)))
    assert server.agents[0].messages[-1]["event"] == "stop"
    fault = placed.calls[0].fault
    assert isinstance(fault, ProtocolError)
    assert "319" in str(fault)


def test_a_message_in_fragments_is_one_message() -> None:
    async def fragments(agent: Agent) -> None:
        await agent.starts()
        text = json.dumps({"event": "mark", "streamSid": agent.sid, "mark": {"name": "pieces"}})
        await agent.socket.send([text[:10], text[10:30], text[30:]])
        await agent.next("mark")
        await agent.socket.close()

    with serving(fragments) as server:
        place_calls(CallPlan(server.url, (clip(),)))
    assert server.agents[0].marks() == ["pieces"]


def test_a_message_beyond_all_bounds_breaks_the_call() -> None:
    async def flood(agent: Agent) -> None:
        await agent.starts()
        await agent.socket.send("x" * (3 << 20))
        await agent.until_closed()

    with serving(flood) as server:
        placed = place_calls(CallPlan(server.url, (clip(),)))
    assert isinstance(placed.calls[0].fault, ProtocolError)


def test_ctrl_c_hangs_up_in_good_order_and_still_reports() -> None:
    async def patient(agent: Agent) -> None:
        await agent.starts()
        await agent.say(tone(0.2), mark="0")
        await agent.next("mark")
        os.kill(os.getpid(), signal.SIGINT)
        await agent.until_closed()

    with serving(patient) as server:
        placed = place_calls(CallPlan(server.url, (clip(seconds=5),)))
    (record,) = placed.calls
    assert server.agents[0].messages[-1]["event"] == "stop"
    assert record.ended == "interrupted here"
    assert judge(record).turns[0].reply_start is not None


def test_the_whole_call_is_bounded() -> None:
    async def endless(agent: Agent) -> None:
        await agent.starts()
        talk = asyncio.create_task(agent.say(tone(60)))
        await agent.until_closed()
        talk.cancel()

    with serving(endless) as server:
        placed = place_calls(CallPlan(server.url, (clip(),), timeout=0.5))
    assert "--timeout" in str(placed.calls[0].fault)
    assert placed.calls[0].seconds == 0.5


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (HTTPStatus.NOT_FOUND, "/twilio"),
        (HTTPStatus.SERVICE_UNAVAILABLE, "no more calls"),
        (HTTPStatus.FORBIDDEN, "--auth-token"),
        (HTTPStatus.IM_A_TEAPOT, "418"),
    ],
)
def test_a_refused_upgrade_is_one_sentence(status: HTTPStatus, words: str) -> None:
    with (
        serving(receptionist, (status, "because of this\n")) as server,
        pytest.raises(AddressError, match=words) as caught,
    ):
        place_calls(CallPlan(server.url, (clip(),), calls=2))
    assert "because of this" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(AddressError, match="threadline serve"):
        place_calls(CallPlan(f"ws://127.0.0.1:{port}/twilio", (clip(),)))


def test_what_listens_is_no_web_server() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"220 mail ready\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(AddressError, match="right port"):
            place_calls(CallPlan(f"ws://127.0.0.1:{listener.getsockname()[1]}", (clip(),)))
        thread.join(10)


@pytest.mark.parametrize("url", ["http://host/x", "host:80", "ws://", "ws://h:99999/", "ws://u@h/"])
def test_a_bad_url_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match="ws://HOST:PORT/twilio"):
        place_calls(CallPlan(url, (clip(),)))


def test_the_upgrade_can_be_signed() -> None:
    with serving(receptionist) as server:
        place_calls(CallPlan(server.url, (clip(),), auth_token="12345"))
        header = server.requests[0].headers["X-Twilio-Signature"]
        assert valid("12345", server.url, (), header)
