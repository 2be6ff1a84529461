"""What a peer may do to us on one socket, and what it may not take."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers import DEADLINE, until
from serving import SILENCE, Alone, Line, alone, get, http, payload
from websockets.frames import CloseCode, Frame, Opcode

from threadline.config import Server
from threadline.threads.calls import END_OF_CLAUSE
from threadline.threads.door import MAX_BODY_BYTES, MAX_HEAD_BYTES
from threadline.threads.messages import (
    CallClosed,
    CallOpened,
    DigitPressed,
    MarkReturned,
    PlaybackCut,
)
from threadline.wire.twilio import MAX_PAYLOAD_BYTES

LIMIT = Server().max_message_bytes
UNMASKED = Frame(Opcode.TEXT, b"{}").serialize(mask=False)


@pytest.fixture
def io(tmp_path: Path) -> Iterator[Alone]:
    with alone(tmp_path) as this:
        yield this
        assert not this.defects


def media(line: Line, **changes: object) -> str:
    body = json.loads(line.carrier.media(SILENCE))
    body.update(changes)
    return json.dumps(body)


def raw(*frames: Frame) -> bytes:
    return b"".join(frame.serialize(mask=True) for frame in frames)


# -- bad input on a live call --------------------------------------------------------------------

TEXTS: dict[str, tuple[Callable[[Line], str], str]] = {
    "no JSON": (lambda line: "{", "not JSON"),
    "JSON without end": (lambda line: "[" * 50_000, "The peer sent"),
    "no object": (lambda line: "[]", "JSON that is no object"),
    "no event": (lambda line: "{}", "no 'event'"),
    "another stream": (lambda line: media(line, streamSid="MZ0"), "the 'streamSid' 'MZ0'"),
    "no payload": (lambda line: media(line, media={"track": "inbound"}), "no 'payload'"),
    "no base64": (
        lambda line: media(line, media={"track": "inbound", "payload": "?"}),
        "not base64",
    ),
    "our own track": (
        lambda line: media(line, media={"track": "outbound", "payload": ""}),
        "the 'track' 'outbound'",
    ),
    "oversized payload": (
        lambda line: line.carrier.media(bytes(MAX_PAYLOAD_BYTES + 1)),
        f"{MAX_PAYLOAD_BYTES + 1} bytes of audio",
    ),
    "second start": (
        lambda line: json.dumps({"event": "start", "streamSid": line.carrier.stream_sid}),
        "'start' in the middle",
    ),
    "bad digit": (lambda line: line.carrier.dtmf("7").replace('"7"', '"77"'), "the 'digit' '77'"),
}
FRAMES: dict[str, tuple[bytes, int, str]] = {
    "binary": (raw(Frame(Opcode.BINARY, b"\0")), 1008, "binary"),
    "fragmented binary": (raw(Frame(Opcode.BINARY, b"\0", fin=False)), 1008, "binary"),
    "not UTF-8": (raw(Frame(Opcode.TEXT, b"\xff\xfe")), 1008, "not UTF-8"),
    "half a character": (
        raw(Frame(Opcode.TEXT, "é".encode()[:1], fin=False), Frame(Opcode.CONT, b"x")),
        1008,
        "not UTF-8",
    ),
    "too long": (raw(Frame(Opcode.TEXT, b" " * (LIMIT + 1))), 1009, "WebSocket protocol"),
    "far too long": (raw(Frame(Opcode.TEXT, b" " * 2**20)), 1009, "WebSocket protocol"),
    "too long in pieces": (
        raw(
            Frame(Opcode.TEXT, b" " * LIMIT, fin=False),
            Frame(Opcode.CONT, b" ", fin=False),
        ),
        1009,
        "WebSocket protocol",
    ),
    "unmasked": (UNMASKED, 1002, "WebSocket protocol"),
    "reserved bit": (b"\xc1\x80\0\0\0\0", 1002, "WebSocket protocol"),
    "reserved opcode": (b"\x83\x80\0\0\0\0", 1002, "WebSocket protocol"),
    "continues nothing": (raw(Frame(Opcode.CONT, b"x")), 1002, "WebSocket protocol"),
    "long ping": (b"\x89\xfe\x00\x7e\0\0\0\0" + bytes(126), 1002, "WebSocket protocol"),
}


def ends_this_call_alone(io: Alone, bad: Callable[[Line], None], code: int, why: str) -> None:
    """`bad` is done on one of two calls: that one is closed with this code, the other goes on."""
    good, broken = io.line(), io.line()
    bad(broken)
    broken.until(lambda: broken.closing is not None, "a close frame")
    assert broken.closing is not None
    assert broken.closing.code == code
    until(lambda: io.told(CallClosed), "reply is told")
    (closed,) = io.told(CallClosed)
    assert closed.slot == io.slot_of(broken).slot
    assert why in closed.reason
    broken.until(lambda: broken.gone, "the end of the stream")
    assert not broken.reset, "which may cost a peer the close frame"
    broken.close()
    io.due(io.slot_of(good), 1, SILENCE)
    good.until(lambda: good.heard == SILENCE, "the other call's audio")
    good.send(good.carrier.dtmf("5"))
    until(lambda: io.told(DigitPressed), "the other call's digit")
    good.hang_up()
    io.free()


@pytest.mark.parametrize("case", TEXTS)
def test_a_bad_message_ends_its_call_and_no_other(io: Alone, case: str) -> None:
    make, why = TEXTS[case]
    ends_this_call_alone(io, lambda line: line.send(make(line)), CloseCode.POLICY_VIOLATION, why)


@pytest.mark.parametrize("case", FRAMES)
def test_a_bad_frame_ends_its_call_and_no_other(io: Alone, case: str) -> None:
    data, code, why = FRAMES[case]

    def send(line: Line) -> None:
        try:
            line.sock.sendall(data)
        except ConnectionError:
            pytest.fail("the connection was reset before the close frame")

    ends_this_call_alone(io, send, code, why)


def test_the_close_frame_says_why(io: Alone) -> None:
    line = io.line()
    line.send("{")
    line.until(lambda: line.closing is not None, "a close frame")
    assert line.closing is not None
    assert "not JSON" in line.closing.reason
    line.close()


BEFORE_START: dict[str, tuple[Callable[[Line], list[str]], str]] = {
    "media first": (
        lambda line: ['{"event":"media","streamSid":"MZ0","media":{}}'],
        "'media' before 'connected'",
    ),
    "media before start": (
        lambda line: [line.carrier.connected(), '{"event":"media","streamSid":"MZ0","media":{}}'],
        "'media' before 'start'",
    ),
    "start first": (lambda line: ['{"event":"start"}'], "'start' before 'connected'"),
    "two streams": (
        lambda line: [line.carrier.connected(), line.carrier.start().replace("MZ", "XX", 1)],
        "names two streams",
    ),
    "another codec": (
        lambda line: [line.carrier.connected(), line.carrier.start().replace("8000", "16000")],
        "set its stream to audio/x-mulaw",
    ),
    "no Twilio": (lambda line: ["hello"], "not JSON"),
}


@pytest.mark.parametrize("case", BEFORE_START)
def test_bad_input_before_the_call_began_returns_the_slot(io: Alone, case: str) -> None:
    make, why = BEFORE_START[case]
    line = Line(io.address)
    assert line.handshake() == 101
    assert io.door.live == 1
    line.send(*make(line))
    line.until(lambda: line.gone, "the connection is closed")
    assert line.closing is not None
    assert line.closing.code == CloseCode.POLICY_VIOLATION
    assert why in io.logged("stream ended before its call began")["reason"]
    line.close()
    io.free()
    assert not io.told(CallOpened)
    assert not io.told(CallClosed)


# -- what is allowed -----------------------------------------------------------------------------


def test_pings_are_answered(io: Alone) -> None:
    line = io.line()
    line.ws.send_ping(b"are you there")
    line.flush()
    line.until(lambda: line.pongs == [b"are you there"], "a pong")
    line.hang_up()


def test_messages_may_come_in_fragments_with_pings_between(io: Alone) -> None:
    line = io.line()
    text = line.carrier.dtmf("5").encode()
    pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
    line.sock.sendall(
        raw(
            Frame(Opcode.TEXT, b"", fin=False),
            *(Frame(Opcode.CONT, piece, fin=False) for piece in pieces[:3]),
            Frame(Opcode.PING, b"between"),
            *(Frame(Opcode.CONT, piece, fin=False) for piece in pieces[3:]),
            Frame(Opcode.CONT, b""),
        )
    )
    line.until(lambda: line.pongs == [b"between"], "a pong")
    line.send(line.carrier.dtmf("6"))
    until(lambda: len(io.told(DigitPressed)) == 2, "both digits")
    assert [event.digit for event in io.told(DigitPressed)] == ["5", "6"]
    line.hang_up()


def test_bytes_may_come_one_by_one(io: Alone) -> None:
    """The upgrade and the call are the same however TCP cuts them."""
    sock = socket.create_connection(io.address, DEADLINE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = "AAAAAAAAAAAAAAAAAAAAAA=="
    head = (
        f"GET /twilio HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    ).encode()
    sid = '"streamSid":"MZ1"'
    start = (
        '{"event":"start",' + sid + ',"start":{"callSid":"CA1",' + sid + ',"mediaFormat":'
        '{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}'
    )
    texts = ['{"event":"connected"}', start, '{"event":"stop",' + sid + "}"]
    data = head + raw(*(Frame(Opcode.TEXT, text.encode()) for text in texts))
    for byte in data:
        sock.sendall(bytes([byte]))
    until(lambda: len(io.told(CallClosed)) == 1, "the call is over")
    assert [event.call_id for event in io.told(CallOpened)] == ["CA1"]
    assert io.told(CallClosed)[0].reason == "the caller hung up"
    sock.close()


def test_a_whole_call_may_come_in_one_piece(io: Alone) -> None:
    """Upgrade, messages, stop and close frame in one segment: every answer comes, in order."""
    line = Line(io.address)
    line.handshake()
    line.ws.send_text(line.carrier.connected().encode())
    line.ws.send_text(line.carrier.start().encode())
    line.ws.send_text(line.carrier.stop().encode())
    line.ws.send_close(1000)
    line.flush()
    line.until(lambda: line.gone, "the connection is closed")
    assert line.closing is not None
    assert line.closing.code == 1000
    until(lambda: io.told(CallClosed), "the call is over")
    assert io.told(CallClosed)[0].reason == "the caller hung up"
    line.close()
    io.free()


def test_audio_of_any_length_is_cut_into_frames(io: Alone) -> None:
    line = io.line()
    call = io.slot_of(line)
    audio = random.Random(1).randbytes(160 * 9 + 100)
    cuts = [0, 1, 160, 161, 700, 701, len(audio)]
    for start, end in pairwise(cuts):
        line.send(line.carrier.media(audio[start:end]))
    got = []
    until(lambda: call.heard.depth() == 9, "nine frames")
    while (record := call.heard.pop()) is not None:
        assert record[0] == call.generation.at
        got.append(record[5])
    assert b"".join(got) == audio[: 160 * 9]
    line.hang_up()


# -- epochs: the last check before a frame leaves -------------------------------------------------


def frame_of(epoch: int, clause: int) -> bytes:
    return bytes([epoch, clause]) * 80


def test_no_frame_of_an_older_epoch_follows_a_clear(io: Alone) -> None:
    """The test is pacer and vad at once: frames of any age, epochs that rise between any two."""
    dice = random.Random(7)
    line = io.line(echo=False)
    call = io.slot_of(line)
    generation = call.generation.at
    pushed = clause = 0
    for _ in range(600):
        deed = dice.random()
        if deed < 0.12:
            call.epoch.at += 1  # as vad: no frame of the old one may leave from here on
            if dice.random() < 0.5:
                io.inbox.wake()
        else:
            clause += dice.random() < 0.15
            epoch = max(0, call.epoch.at - (dice.random() < 0.2))
            flags = END_OF_CLAUSE if dice.random() < 0.1 else 0
            record = (generation, epoch, clause & 0xFF, flags, 0, frame_of(epoch, clause & 0xFF))
            until(lambda record=record: call.due.push(*record), "room in `due`")
            io.inbox.wake()
            pushed += 1
            if dice.random() < 0.3:
                until(lambda: call.due.depth() == 0, "io-calls has looked")
                io.told(PlaybackCut)
        if pushed % 16 == 0:
            line.read(0)
    until(lambda: call.due.depth() == 0, "io-calls has looked")
    line.hang_up()
    io.free()

    epochs: list[int] = []
    sent: dict[tuple[int, int], int] = {}
    cleared = True
    for message in line.messages:
        if message["event"] == "clear":
            cleared = True
        elif message["event"] == "media":
            epoch, number = payload_of(message)
            if epochs and epoch != epochs[-1]:
                assert epoch > epochs[-1]
                assert cleared, "frames of two epochs with no clear between"
            epochs.append(epoch)
            cleared = False
            sent[epoch, number] = sent.get((epoch, number), 0) + 1
    assert len(set(epochs)) > 20
    assert io.io.frames == len(epochs)
    assert io.io.frames + io.io.stale == pushed
    cuts = io.told(PlaybackCut)
    assert len(cuts) >= line.count("clear") > 20
    for cut in cuts:
        assert cut.played_ms == 20 * sent.get((cut.epoch, cut.clause), 0)
        later = [number for epoch, number in sent if epoch == cut.epoch and number > cut.clause]
        assert not later, "the clause that was cut is the last that was sent"
    assert io.io.clears == line.count("clear")


def payload_of(message: dict[str, Any]) -> tuple[int, int]:
    data = payload(message)
    assert data == data[:2] * 80
    return data[0], data[1]


def test_a_frame_that_is_due_when_the_epoch_rises_is_held_back(io: Alone) -> None:
    """Both at once, before io-calls looks: the clear leaves, the frame does not."""
    line = io.line(echo=False)
    call = io.slot_of(line)
    io.due(call, 1, frame_of(0, 1))
    line.until(lambda: line.count("media") == 1, "a frame")
    record = (call.generation.at, 0, 1, 0, 0, frame_of(0, 1))
    assert call.due.push(*record)
    call.epoch.at += 1
    io.inbox.wake()
    line.until(lambda: line.count("clear") == 1, "a clear")
    io.due(call, 2, frame_of(1, 2))
    line.until(lambda: line.count("media") == 2, "the next answer")
    assert [m["event"] for m in line.messages] == ["media", "clear", "media"]
    assert payload_of(line.messages[2]) == (1, 2)
    assert io.io.stale == 1
    assert io.told(PlaybackCut) == [PlaybackCut(call.slot, call.generation.at, 0, 1, 20)]
    line.hang_up()


def test_no_clear_is_sent_when_there_is_nothing_to_clear(io: Alone) -> None:
    line = io.line()
    call = io.slot_of(line)
    call.epoch.at += 1
    io.inbox.wake()
    until(lambda: io.told(PlaybackCut), "the cut is told")
    assert io.told(PlaybackCut)[0].clause == 0
    line.hang_up()
    assert not line.count("clear")


def test_marks_that_a_clear_echoes_are_not_taken_for_played(io: Alone) -> None:
    line = io.line(echo=False)
    call = io.slot_of(line)
    io.due(call, 1, frame_of(0, 1), END_OF_CLAUSE)
    line.until(lambda: line.count("mark") == 1, "a mark")
    assert line.messages[-1]["mark"]["name"] == "0.1"
    call.epoch.at += 1
    io.inbox.wake()
    line.until(lambda: line.count("clear") == 1, "a clear")
    io.due(call, 2, frame_of(1, 2), END_OF_CLAUSE)
    line.until(lambda: line.count("mark") == 2, "the next mark")
    line.send(line.carrier.mark("0.1"), line.carrier.mark("1.2"), line.carrier.mark("hello"))
    until(lambda: io.told(MarkReturned), "a mark is passed on")
    line.hang_up()
    until(lambda: io.told(CallClosed), "the call is over")
    assert [event.name for event in io.told(MarkReturned)] == ["1.2"]


def test_the_next_caller_of_a_slot_gets_nothing_of_the_last(tmp_path: Path) -> None:
    with alone(tmp_path, calls=1) as io:
        first = io.line()
        (call,) = io.calls
        old = call.generation.at
        first.hang_up()
        io.free()
        second = io.line()
        assert call.generation.at == old + 2
        assert call.due.push(old, 0, 1, 0, 0, frame_of(0, 9))
        io.due(call, 1, frame_of(0, 1))
        second.until(lambda: second.count("media") == 1, "a frame")
        assert payload_of(second.messages[0]) == (0, 1)
        assert io.io.stale == 1
        second.hang_up()


# -- bounds --------------------------------------------------------------------------------------


def test_a_peer_that_stops_reading_is_dropped(tmp_path: Path) -> None:
    with alone(tmp_path, Server(max_write_bytes=4096)) as io:
        reader, stuck = io.line(), io.line(receive_buffer=4096)
        call = io.slot_of(stuck)

        def send() -> bool:
            io.due(call, 1, SILENCE)
            return not call.live

        until(send, "the peer is dropped")
        until(lambda: io.told(CallClosed), "reply is told")
        assert io.told(CallClosed)[0].reason == "the peer stopped reading, 4096 bytes are unsent"
        assert io.io.frames * 300 < 200_000, "the kernel holds far more than was allowed"
        io.due(io.slot_of(reader), 1, SILENCE)
        reader.until(lambda: reader.count("media") == 1, "the other call's audio")
        reader.hang_up()
        stuck.close()
        io.free()


def test_a_peer_that_never_starts_is_dropped(tmp_path: Path) -> None:
    with alone(tmp_path, Server(start_seconds=0.2)) as io:
        line = Line(io.address)
        assert line.handshake() == 101
        line.send(line.carrier.connected())
        line.until(lambda: line.gone, "it is dropped")
        assert line.closing is not None
        assert line.closing.reason == "no start within 0.2 s"
        line.close()
        io.free()


def test_a_peer_that_falls_silent_is_dropped(tmp_path: Path) -> None:
    with alone(tmp_path, Server(silent_peer_seconds=0.3)) as io:
        line = io.line()
        line.until(lambda: line.gone, "it is dropped")
        assert line.closing is not None
        assert line.closing.reason == "no audio for 0.3 s"
        until(lambda: io.told(CallClosed), "reply is told")
        line.close()
        io.free()


def test_a_peer_that_does_not_answer_our_close_is_cut_off(io: Alone) -> None:
    line = io.line()
    line.send("{")
    until(lambda: io.told(CallClosed), "the call is over")
    assert io.door.live == 0, "its slot is free before its socket is"
    line.sock.settimeout(DEADLINE)
    try:
        while line.sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    line.close()
    io.free()


def test_a_vanished_peer_returns_its_slot(io: Alone) -> None:
    line = io.line()
    line.cut()
    until(lambda: io.told(CallClosed), "the call is over")
    assert io.told(CallClosed)[0].reason == "the caller's connection was lost"
    io.free()


# -- the doorway -----------------------------------------------------------------------------------


def test_a_slow_head_is_cut_off(tmp_path: Path) -> None:
    with alone(tmp_path, Server(handshake_seconds=0.3)) as io:
        status, _, _ = http(io.address, b"GET /healthz HTTP/1.1\r\nHost:")
        assert status == 0
        assert io.logged("no request in time")["limit_s"] == 0.3
        status, _, _ = http(io.address, b"")
        assert status == 0
        status, _, _ = http(
            io.address, b"POST /twiml HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nFro"
        )
        assert status == 0
        io.free()
        assert get(io.address, "/healthz")[0] == 200


BAD_HTTP: dict[str, tuple[bytes, int]] = {
    "long head": (b"GET / HTTP/1.1\r\nX: " + b"x" * 2 * MAX_HEAD_BYTES, 431),
    "very long head": (b"GET / HTTP/1.1\r\nX: " + b"x" * 2**20, 431),
    "long body": (
        b"POST /twiml HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n" + b"x" * 999_999,
        413,
    ),
    "long chunked body": (
        b"POST /twiml HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 8,
        413,
    ),
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    "two lengths": (
        b"POST /twiml HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        400,
    ),
    "bad chunk": (
        b"POST /twiml HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        400,
    ),
    "CONNECT": (b"CONNECT /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "DELETE": (b"DELETE /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "an upgrade elsewhere": (
        b"GET /other HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        404,
    ),
}


@pytest.mark.parametrize("case", BAD_HTTP)
def test_bad_http_is_answered_and_forgotten(io: Alone, case: str) -> None:
    request, status = BAD_HTTP[case]
    assert http(io.address, request)[0] == status
    assert get(io.address, "/healthz")[0] == 200
    io.free()


def test_the_longest_body_is_taken(io: Alone) -> None:
    head = f"POST /twiml HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MAX_BODY_BYTES}\r\n\r\n"
    status, _, body = http(io.address, head.encode() + b"x" * MAX_BODY_BYTES)
    assert (status, body[:10]) == (200, b"<Response>")


def test_one_request_a_connection_is_answered(io: Alone) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    status, head, body = http(io.address, one * 3)
    assert (status, body) == (200, b"ok\n")
    assert "Connection: close" in head


def test_head_is_answered_without_a_body(io: Alone) -> None:
    status, head, body = http(io.address, b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, body) == (200, b"")
    assert "Content-Length: 3" in head


BAD_UPGRADES: dict[str, tuple[bytes, int]] = {
    "no key": (b"GET /twilio HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
               b"Sec-WebSocket-Version: 13\r\n\r\n", 400),
    "another protocol": (b"GET /twilio HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n"
                         b"Upgrade: h2c\r\n\r\n", 426),
    "a long line": (b"GET /twilio HTTP/1.1\r\nUpgrade: websocket\r\nX: " + b"x" * 9000
                    + b"\r\n\r\n", 431),
    "a long path": (b"GET /twilio?" + b"x" * 9000 + b" HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
                    414),
    "with a body": (b"POST /twilio HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                    b"Content-Length: 3\r\n\r\nabc", 0),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_UPGRADES)
def test_an_upgrade_that_cannot_be_takes_no_slot(io: Alone, case: str) -> None:
    request, status = BAD_UPGRADES[case]
    assert http(io.address, request)[0] == status
    io.free()
    assert io.door.opened == 0


def test_a_defect_in_an_answer_ends_no_call(io: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call that was heard last has nothing to do with it."""
    line = io.line()
    line.send(line.carrier.dtmf("1"))
    until(lambda: io.told(DigitPressed), "a digit")

    def broken() -> bytes:
        raise RuntimeError("injected")

    monkeypatch.setattr(io.door, "_metrics", broken)
    assert get(io.address, "/metrics")[0] == 0
    assert [str(error) for error in io.defects] == ["injected"]
    io.defects.clear()
    line.send(line.carrier.dtmf("2"))
    until(lambda: len(io.told(DigitPressed)) == 2, "the call goes on")
    assert not io.told(CallClosed)
    line.hang_up()
