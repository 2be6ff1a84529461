"""Who gets a slot, and what plain HTTP is told."""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from helpers import until
from serving import SILENCE, Alone, Line, alone, get, http

from threadline.config import Server
from threadline.errors import AddressError, Exit
from threadline.threads import io_calls
from threadline.threads.door import REFUSALS
from threadline.threads.io_calls import listen
from threadline.threads.messages import CallClosed, CallOpened, Drain, HangUp
from threadline.threads.siblings import Siblings
from threadline.wire.signature import sign

TOKEN = "12345"
LIMIT = 4


@pytest.fixture
def io(tmp_path: Path) -> Iterator[Alone]:
    with alone(tmp_path, calls=LIMIT) as this:
        yield this
        assert not this.defects


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[Alone]:
    with alone(tmp_path, Server(twilio_auth_token=TOKEN)) as this:
        yield this
        assert not this.defects


def post(io: Alone, form: dict[str, str], **headers: str) -> tuple[int, str, bytes]:
    body = urlencode(form)
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"POST /twiml HTTP/1.1\r\nHost: example.org\r\nContent-Length: {len(body)}\r\n{lines}"
    return http(io.address, f"{head}\r\n{body}".encode())


def ready(io: Alone) -> tuple[int, dict[str, object]]:
    status, _, body = get(io.address, "/readyz")
    return status, json.loads(body)


# -- admission -----------------------------------------------------------------------------------


def test_of_many_at_once_exactly_the_limit_is_admitted(io: Alone) -> None:
    """Every connection is open before the first asks, and all of them ask before one listens."""
    for _ in range(5):
        lines = [Line(io.address, connect=False) for _ in range(4 * LIMIT)]
        for line in lines:
            line.connect()
        waiting = list(lines)
        while waiting:
            select.select([line.sock for line in waiting], [], [], 1.0)
            for line in waiting:
                line.read(0)
            waiting = [line for line in waiting if line.ws.state.name == "CONNECTING" and not
                       line.gone]  # fmt: skip
        admitted = [line for line in lines if line.handshake() == 101]
        refused = [line for line in lines if line.handshake() != 101]
        assert len(admitted) == LIMIT == io.door.live
        assert {line.handshake() for line in refused} == {503}
        assert {line.refusal for line in refused} == {f"all {LIMIT} lines are in use\n"}
        for line in lines:
            line.close()
        io.free()
    assert io.door.opened == 5 * LIMIT
    assert io.door.refusals == dict.fromkeys(REFUSALS, 0) | {"full": 15 * LIMIT}
    until(lambda: len(io.records("call refused")) == 15 * LIMIT, "the log has every refusal")


def test_a_slot_is_admitted_again_once_it_is_back(io: Alone) -> None:
    lines = [io.line() for _ in range(LIMIT)]
    assert Line(io.address).handshake() == 503
    lines[2].hang_up()
    until(lambda: io.door.live == LIMIT - 1, "the slot is back")
    lines[2] = io.line()
    assert Line(io.address).handshake() == 503
    for line in lines:
        line.hang_up()
    io.free()


def test_a_freed_slot_waits_behind_all_others(io: Alone) -> None:
    """So that what is late for the last caller finds an empty slot, not the next caller."""
    slots = []
    for _ in range(LIMIT + 1):
        line = io.line()
        slots.append(io.slot_of(line).slot)
        line.hang_up()
        io.free()
    assert slots == [0, 1, 2, 3, 0]


def test_the_limit_can_be_lowered_while_calls_are_on(io: Alone) -> None:
    lines = [io.line() for _ in range(3)]
    io.door.limit = 1
    late = Line(io.address)
    assert late.handshake() == 503
    assert late.refusal == "all 1 lines are in use\n"
    for line in lines[1:]:
        line.hang_up()
    late = Line(io.address)
    assert late.handshake() == 503
    lines[0].hang_up()
    io.line().hang_up()


def test_a_call_is_told_open_and_closed_under_one_generation(io: Alone) -> None:
    line = io.line()
    call = io.slot_of(line)
    assert call.live
    line.hang_up()
    until(lambda: io.told(CallClosed), "the end is told")
    (opened,), (closed,) = io.told(CallOpened), io.told(CallClosed)
    assert (opened.slot, opened.generation) == (closed.slot, closed.generation)
    assert opened.call_id == line.call_id
    assert call.generation.at == opened.generation + 1
    assert not call.live


def test_vad_is_woken_once_for_all_that_is_read_in_a_turn(
    io: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[list[int]] = []
    monkeypatch.setattr(io.io, "wake_vad", lambda slots: woken.append(list(slots)))
    io.io.loop.call_soon_threadsafe(lambda: [io.io.audio_came(slot) for slot in (0, 1, 0)])
    until(lambda: woken, "a wake-up")
    assert woken == [[0, 1, 0]]
    io.io.loop.call_soon_threadsafe(io.io.audio_came, 2)
    until(lambda: woken[1:] == [[2]], "the next turn's")


def test_among_many_calls_audio_is_waited_for_until_a_frame_is_due(
    io: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, naps = io.io._wanted, []

    def poll(ms: int) -> None:
        naps.append(ms)
        wanted.poll(60_000)  # nothing but the frame ends it in time

    monkeypatch.setattr(io.io, "_wanted", SimpleNamespace(poll=poll))
    monkeypatch.setattr(io_calls, "MANY_LEGS", 2)
    alone = io.line()
    alone.say(SILENCE * 2)
    until(lambda: io.slot_of(alone).heard.depth() == 2, "its audio")
    assert not naps
    other = io.line()
    other.say(SILENCE)
    until(lambda: naps == [io_calls.NAP_MS], "a nap")
    io.due(io.slot_of(alone), 1, SILENCE)
    alone.until(lambda: alone.heard == SILENCE, "the frame")
    for line in (alone, other):
        line.hang_up()


def test_draining_takes_no_new_calls_and_leaves_the_live_ones(io: Alone) -> None:
    line = io.line()
    io.orders.put(Drain(now=False))
    until(lambda: io.door.draining, "it drains")
    late = Line(io.address)
    assert late.handshake() == 503
    assert late.refusal == "this server is being stopped\n"
    assert io.door.refusals["draining"] == 1
    io.due(io.slot_of(line), 1, SILENCE)
    line.until(lambda: line.heard == SILENCE, "audio of the live call")
    io.orders.put(Drain(now=True))
    line.until(lambda: line.closing is not None, "a close frame")
    assert line.closing is not None
    assert (line.closing.code, line.closing.reason) == (1000, "the server is stopping")
    line.hang_up()
    io.free()


def test_for_want_of_room_no_call_is_taken_before_or_after_it_is_answered(io: Alone) -> None:
    line = io.line()
    io.door.strained = "7 % of the frames leave late"
    late = Line(io.address)
    assert late.handshake() == 503
    assert late.refusal == "7 % of the frames leave late\n"
    assert post(io, {})[2] == b'<Response><Reject reason="busy"/></Response>'
    assert ready(io)[1]["reason"] == "7 % of the frames leave late"
    assert io.door.refusals == dict.fromkeys(REFUSALS, 0) | {"strained": 2}
    io.due(io.slot_of(line), 1, SILENCE)
    line.until(lambda: line.heard == SILENCE, "audio of the live call")
    io.door.strained = ""
    io.line().hang_up()
    line.hang_up()


# -- several processes at one door -----------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Alone, Siblings]]:
    """io-calls with two lines, and the row of a sibling whom the test plays."""
    fd = Siblings.make(2)
    ours, theirs = Siblings(fd, 2, 0), Siblings(fd, 2, 1)
    os.close(fd)
    with alone(tmp_path, calls=2, siblings=ours) as io:
        yield io, theirs
    ours.close()
    theirs.close()


def test_a_sibling_is_told_how_many_lines_are_free(pair: tuple[Alone, Siblings]) -> None:
    io, sibling = pair
    until(sibling.another_is_free, "its lines are known")
    lines = [io.line(), io.line()]
    assert not sibling.another_is_free()
    assert sibling.live() == 2
    lines[0].hang_up()
    until(sibling.another_is_free, "a line is free again")
    lines[1].hang_up()
    io.free()


def test_a_full_process_leaves_the_door_to_a_sibling_with_a_line_free(
    pair: tuple[Alone, Siblings],
) -> None:
    io, sibling = pair
    lines = [io.line(), io.line()]
    sibling.tell(1, 0, ready=True)
    waiting = Line(io.address)  # the kernel keeps him at the door
    waiting.read(0.2)
    assert waiting.ws.state.name == "CONNECTING"
    assert sum(io.door.refusals.values()) == 0
    lines[0].hang_up()  # a line is free here: he is let in after all
    waiting.start()
    for line in (waiting, lines[1]):
        line.hang_up()
    io.free()


def test_when_all_are_full_the_caller_is_told_so(pair: tuple[Alone, Siblings]) -> None:
    io, sibling = pair
    lines = [io.line(), io.line()]
    sibling.tell(0, 2, ready=True)
    late = Line(io.address)
    assert late.handshake() == 503
    assert late.refusal == "all 2 lines are in use\n"
    for line in lines:
        line.hang_up()
    io.free()


def test_a_full_process_is_ready_while_a_sibling_has_a_line_free(
    pair: tuple[Alone, Siblings],
) -> None:
    io, sibling = pair
    assert ready(io)[1]["calls_in_all"] == 0
    lines = [io.line()]
    io.door.limit = 1
    sibling.tell(0, 2, ready=True)
    assert ready(io)[0] == 503
    sibling.tell(1, 1, ready=True)
    io.door.limit = 2  # or we would leave the question to the sibling
    status, body = ready(io)
    assert (status, body["processes"], body["calls_in_all"]) == (200, 2, 2)
    lines[0].hang_up()
    io.free()


def test_a_hang_up_is_for_one_caller_of_the_slot(tmp_path: Path) -> None:
    with alone(tmp_path, calls=1) as io:
        first = io.line()
        old = io.calls[0].generation.at
        first.hang_up()
        io.free()
        second = io.line()
        io.orders.put(HangUp(0, old, "too late"))
        io.due(io.calls[0], 1, SILENCE)
        second.until(lambda: second.heard == SILENCE, "the order was taken, and the call is on")
        io.orders.put(HangUp(0, old + 2, "goodbye"))
        second.until(lambda: second.closing is not None, "a close frame")
        assert second.closing is not None
        assert second.closing.reason == "goodbye"
        second.hang_up()


# -- signatures ------------------------------------------------------------------------------------


def url_of(io: Alone, scheme: str, path: str) -> str:
    return f"{scheme}://127.0.0.1:{io.address[1]}{path}"


def test_an_upgrade_must_be_signed_when_there_is_a_token(signed: Alone) -> None:
    url = url_of(signed, "ws", "/twilio")
    for headers in (
        {},
        {"X-Twilio-Signature": ""},
        {"X-Twilio-Signature": "rubbish"},
        {"X-Twilio-Signature": sign("another token", url, ())},
        {"X-Twilio-Signature": sign(TOKEN, url + "x", ())},
    ):
        line = Line(signed.address, headers=headers)
        assert line.handshake() == 403
        assert line.refusal == "the request is not signed by the carrier\n"
        line.close()
    assert signed.door.opened == 0
    assert signed.door.refusals["unsigned"] == 5
    line = signed.line(headers={"X-Twilio-Signature": sign(TOKEN, url, ())})
    line.hang_up()
    signed.free()


def test_the_signature_is_of_the_public_url(tmp_path: Path) -> None:
    config = Server(twilio_auth_token=TOKEN, public_url="wss://calls.example.org")
    with alone(tmp_path, config) as io:
        own = sign(TOKEN, url_of(io, "ws", "/twilio"), ())
        line = Line(io.address, headers={"X-Twilio-Signature": own})
        assert line.handshake() == 403
        line.close()
        public = sign(TOKEN, "wss://calls.example.org/twilio", ())
        io.line(headers={"X-Twilio-Signature": public}).hang_up()


def test_a_webhook_must_be_signed_when_there_is_a_token(signed: Alone) -> None:
    form = {"From": "+15551234", "CallSid": "CA1"}
    url = "https://example.org/twiml"
    right = sign(TOKEN, url, form.items())
    for wrong in ("", sign(TOKEN, url, ()), sign("x", url, form.items())):
        status, _, body = post(signed, form, X_Forwarded_Proto="https", X_Twilio_Signature=wrong)
        assert (status, body) == (403, b"The request is not signed by the carrier.\n")
    status, _, body = post(signed, form, X_Forwarded_Proto="https", X_Twilio_Signature=right)
    assert status == 200
    assert b'url="wss://example.org/twilio"' in body
    changed = {**form, "From": "+15556666"}
    answer = post(signed, changed, X_Forwarded_Proto="https", X_Twilio_Signature=right)
    assert answer[0] == 403


def test_a_webhook_by_get_is_signed_with_its_query(signed: Alone) -> None:
    right = sign(TOKEN, url_of(signed, "http", "/twiml?a=b").replace(f":{signed.address[1]}", ""),
                 ())  # fmt: skip
    assert get(signed.address, "/twiml?a=b", X_Twilio_Signature=right)[0] == 200
    assert get(signed.address, "/twiml?a=c", X_Twilio_Signature=right)[0] == 403


# -- plain HTTP ------------------------------------------------------------------------------------


def test_twiml_joins_the_call_to_our_stream(io: Alone) -> None:
    form = {"From": "+15551234", "To": '<"&>', "Secret": "not passed on"}
    status, head, body = post(io, form, X_Forwarded_Proto="https")
    assert status == 200
    assert "Content-Type: text/xml" in head
    stream = ElementTree.fromstring(body).find("Connect/Stream")  # made by ourselves
    assert stream is not None
    assert stream.get("url") == "wss://example.org/twilio"
    passed = {one.get("name"): one.get("value") for one in stream}
    assert passed == {"From": "+15551234", "To": '<"&>'}


def test_twiml_passes_on_no_text_that_xml_cannot_carry(io: Alone) -> None:
    status, _, body = post(io, {"From": "a\0b", "To": "+1"}, X_Forwarded_Proto="https")
    assert status == 200
    assert b"From" not in body
    assert b'name="To"' in body


def test_twiml_says_what_to_set_when_the_carrier_cannot_reach_us(io: Alone) -> None:
    status, _, body = post(io, {})
    assert status == 500
    assert b"ws://example.org/twilio" in body
    assert b"Set server.public_url" in body


def test_twiml_is_busy_when_every_line_is(io: Alone) -> None:
    lines = [io.line() for _ in range(LIMIT)]
    status, _, body = post(io, {}, X_Forwarded_Proto="https")
    assert (status, body) == (200, b'<Response><Reject reason="busy"/></Response>')
    assert io.door.refusals["full"] == 1
    lines[0].hang_up()
    until(lambda: io.door.live < LIMIT, "a line is free")
    assert b"<Stream" in post(io, {}, X_Forwarded_Proto="https")[2]
    for line in lines[1:]:
        line.hang_up()


def test_ready_says_why_not(io: Alone) -> None:
    assert ready(io) == (
        200,
        {"ready": True, "reason": "", "calls": 0, "limit": LIMIT, "more": "facts"},
    )
    io.problem = "the recogniser is loading its model"
    status, body = ready(io)
    assert (status, body["ready"], body["reason"]) == (503, False, io.problem)
    lines = [io.line() for _ in range(LIMIT)]
    status, body = ready(io)
    assert (status, body["calls"]) == (503, LIMIT)
    assert body["reason"] == f"all {LIMIT} lines are in use"
    for line in lines:
        line.hang_up()
    io.problem = ""
    until(lambda: ready(io)[0] == 200, "ready again")
    io.orders.put(Drain(now=False))
    until(lambda: io.door.draining, "it drains")
    status, body = ready(io)
    assert (status, body["reason"]) == (503, "this server is being stopped")


def test_paths(io: Alone) -> None:
    io.page = b"threadline_calls 1\n"
    assert get(io.address, "/healthz") [::2] == (200, b"ok\n")  # fmt: skip
    status, head, body = get(io.address, "/metrics?x=y")
    assert (status, body) == (200, io.page)
    assert "Content-Type: text/plain; version=0.0.4" in head
    assert get(io.address, "/twilio")[0] == 426
    status, _, body = get(io.address, "/nowhere")
    assert status == 404
    assert b"/twiml" in body


# -- listening -------------------------------------------------------------------------------------


def test_a_taken_port_is_one_sentence() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match=rf"Cannot listen on 127\.0\.0\.1:{port} .*--port"):
            listen("127.0.0.1", port)
    assert AddressError.exit_code == Exit.ADDRESS


@pytest.mark.parametrize("host", ["no.such.host.invalid", "x" * 64, "a\0b", "192.0.2.1", "::zz"])
def test_a_host_that_is_none_is_one_sentence(host: str) -> None:
    with pytest.raises(AddressError, match="Cannot listen on"):
        listen(host, 0)


def test_listening_on_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listen("::1", 0) as sock:
        assert sock.family == socket.AF_INET6
