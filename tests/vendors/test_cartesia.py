"""The codec: what we say is what the protocol wants; whatever a server says is read."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("websockets")
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.exceptions import (
    ConnectionClosedError,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
)
from websockets.frames import Close
from websockets.http11 import Response

from threadline.config import Cartesia
from threadline.errors import ConfigError, ProtocolError
from threadline.vendors import cartesia as codec
from threadline.vendors.cartesia import Answer, read
from threadline.vendors.cartesia_speech import Piece, Speech

FRAME = 160
HERE = Cartesia(url="ws://127.0.0.1:1234", api_key="k")

# -- configuration ----------------------------------------------------------------------------


def test_key() -> None:
    assert codec.check(Cartesia(api_key="k")) == "k"
    assert codec.check(replace(HERE, api_key="")) == "", "a server of one's own"
    with pytest.raises(ConfigError, match="CARTESIA_API_KEY"):
        codec.check(Cartesia())


@pytest.mark.parametrize(
    ("url", "http", "ws"),
    [
        ("wss://api.cartesia.ai", "https://api.cartesia.ai", "wss://api.cartesia.ai"),
        ("wss://api.cartesia.ai/", "https://api.cartesia.ai", "wss://api.cartesia.ai"),
        ("ws://127.0.0.1:99", "http://127.0.0.1:99", "ws://127.0.0.1:99"),
        ("ws://[::1]:99/a/", "http://[::1]:99/a", "ws://[::1]:99/a"),
        ("wss://h/a/tts/websocket", "https://h/a", "wss://h/a"),
    ],
)
def test_base_urls(url: str, http: str, ws: str) -> None:
    assert codec.base_urls(Cartesia(url=url)) == (http, ws)


@pytest.mark.parametrize(
    "url", ["", "api.cartesia.ai", "https://h", "ws://", "ws:///x", "ws://h/?a"]
)
def test_addresses_that_cannot_be_used(url: str) -> None:
    with pytest.raises(ConfigError, match=r"cartesia\.url"):
        codec.base_urls(Cartesia(url=url))


# -- requests ---------------------------------------------------------------------------------


@given(st.text(), st.text(min_size=1))
def test_requests_of_a_context_differ_in_text_and_flags_alone(context: str, text: str) -> None:
    requests = codec.Requests(replace(HERE, model="m", voice="v", language="de"))
    clause = json.loads(requests.clause(context, text))
    flush = json.loads(requests.flush(context))
    end = json.loads(requests.end(context))
    assert (clause["transcript"].strip(), flush["transcript"], end["transcript"]) == (
        text.strip(),
        "",
        "",
    )
    assert clause["transcript"].endswith(" "), "texts are joined as they are"
    assert (clause["continue"], flush["continue"], end["continue"]) == (True, True, False)
    assert (flush.pop("flush"), "flush" in clause, "flush" in end) == (True, False, False)
    for message in (clause, flush, end):
        del message["transcript"], message["continue"]
    assert clause == flush == end
    assert clause == {
        "model_id": "m",
        "voice": {"mode": "id", "id": "v"},
        "language": "de",
        "output_format": {"container": "raw", "encoding": "pcm_mulaw", "sample_rate": 8000},
        "add_timestamps": True,
        "use_normalized_timestamps": False,
        "max_buffer_delay_ms": 0,
        "context_id": context,
    }
    assert json.loads(requests.cancel(context)) == {"cancel": True, "context_id": context}


# -- answers ----------------------------------------------------------------------------------


def message(kind: str, **fields: Any) -> bytes:
    return json.dumps({"type": kind, "context_id": "c", "status_code": 206, **fields}).encode()


def test_read() -> None:
    data = base64.b64encode(b"\x00\xffab").decode()
    assert read(message("chunk", data=data, flush_id=2)) == Answer("audio", "c", 2, b"\x00\xffab")
    assert read(message("chunk", data="")) == Answer("audio", "c")
    assert read(message("flush_done", flush_id=1)) == Answer("flushed", "c", 1)
    assert read(message("done")) == Answer("done", "c")
    stamps = {"words": ["One", "two"], "start": [1.5, 2], "end": [1.9, 2.25]}
    assert read(message("timestamps", word_timestamps=stamps, flush_id=1)) == Answer(
        "words", "c", 1, words=(("One", 1900), ("two", 2250)), began_ms=1500
    )
    error = message("error", status_code=429, title="Too many", message="Of them.")
    assert read(error) == Answer("error", "c", reason="Too many: Of them.", status=429)
    assert read(b'{"type":"error","error":"Old form"}') == Answer("error", reason="Old form")
    assert read(message("phoneme_timestamps")) == Answer("other", "c")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"7", b"\xff\xfe\xfd", b"[" * 100_000, b"9" * 5000]
)
def test_garbage(text: bytes) -> None:
    assert read(text).kind == "garbage"


@pytest.mark.parametrize("data", [None, 7, "????", "YQ", "YQ==\n", "\u00e9\u00e9==", ["YQ=="]])
def test_rubbish(data: object) -> None:
    assert read(message("chunk", data=data)) == Answer("rubbish", "c")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
KINDS = ["chunk", "timestamps", "flush_done", "done", "error", "sun"]
stamps = st.fixed_dictionaries(
    {"words": st.lists(st.text() | anything), "start": st.lists(st.floats()), "end": anything}
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(KINDS) | anything,
            "context_id": st.text() | anything,
            "flush_id": st.integers() | anything,
            "data": st.text() | anything,
            "word_timestamps": stamps | anything,
            "status_code": anything,
            "title": anything,
        },
    )
)
def test_read_never_raises(fields: dict[str, Any]) -> None:
    answer = read(json.dumps(fields).encode())
    assert isinstance(answer.context, str)
    assert answer.flush >= 0
    assert all(ms >= 0 for _, ms in answer.words)
    assert answer.kind != "garbage"


@given(st.binary())
def test_read_never_raises_on_bytes(data: bytes) -> None:
    assert isinstance(read(data), Answer)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0, 1e9, True, "1", None])
def test_a_word_without_a_time_is_left_out(bad: object) -> None:
    columns = {"words": ["a", "b"], "start": [bad, 0.5], "end": [0.2, 0.75]}
    answer = read(message("timestamps", word_timestamps=columns))
    assert (answer.words, answer.began_ms) == ((("b", 750),), 500)


# -- one reply --------------------------------------------------------------------------------


def audio(data: bytes, flush: int = 0) -> Answer:
    return Answer("audio", "c", flush, data)


def flushed(flush: int = 0) -> Answer:
    return Answer("flushed", "c", flush)


def speech(*clauses: str) -> Speech:
    made = Speech()
    for number, text in enumerate(clauses, 1):
        made.ask(number, text, 0.0)
    made.ask_for(0.0)
    return made


@given(st.data(), st.sampled_from(["ids", "no ids", "no flush_done", "other ids"]))
def test_no_byte_is_lost_or_goes_to_another_clause(data: st.DataObject, style: str) -> None:
    """However the audio is chopped, and in whatever way the server says where a clause ends."""
    chunks = st.lists(st.binary(min_size=1, max_size=500), min_size=1, max_size=6)
    clauses = data.draw(st.lists(chunks, min_size=1, max_size=4))
    reply = speech(*["some text"] * len(clauses))
    got: list[Piece] = []
    for number, parts in enumerate(clauses, 1):
        flush = 0 if style == "no ids" else number
        for part in parts:
            got += reply.take(audio(part, flush), 1.0)
        if style == "no flush_done":
            continue
        done = flushed(flush + 1 if style == "other ids" else flush)
        got += reply.take(done, 1.0)
        if flush:
            assert not reply.take(done, 1.0), "said twice"
    got += reply.over(2.0)
    assert not reply.open
    lengths = [sum(map(len, parts)) for parts in clauses]
    sound = b"".join(b"".join(parts) for parts in clauses)
    tail = reply.tail()
    assert b"".join(piece.audio for piece in got) + tail == sound + b"\xff" * (-len(sound) % FRAME)
    assert len(tail) in (0, FRAME)
    assert all(len(piece.audio) % FRAME == 0 for piece in got)
    ends = [piece for piece in got if piece.done]
    assert [(piece.clause, piece.duration_ms) for piece in ends] == [
        (number, length // 8) for number, length in enumerate(lengths, 1)
    ]
    at = 0
    for number, length in enumerate(lengths, 1):  # a frame is of the clause that completes it
        frames = (at + length) // FRAME - at // FRAME
        mine = sum(len(piece.audio) for piece in got if piece.clause == number)
        assert mine == frames * FRAME
        at += length


def test_words_are_told_while_their_clause_goes_on() -> None:
    """A caller who cuts in then has heard those that had ended by then."""
    reply = speech("One two three.", "Four.")
    said = (("One", 300), ("two", 700))
    assert reply.take(audio(b"x" * FRAME, 1), 1.0) == [Piece(1, b"x" * FRAME)]
    words = Answer("words", "c", 1, b"", said, 0)
    assert reply.take(words, 1.0) == [Piece(1, b"", words=said)]
    more = Answer("words", "c", 1, b"", (("three.", 1100),), 800)
    assert reply.take(more, 1.0) == [Piece(1, b"", words=(*said, ("three.", 1100)))]


answers = st.builds(
    Answer,
    st.sampled_from(["audio", "words", "flushed", "other"]),
    st.just("c"),
    st.integers(0, 5),
    st.binary(max_size=400),
    st.lists(st.tuples(st.text(), st.integers(0, 10_000)), max_size=3).map(tuple),
    st.integers(0, 10_000),
)


@given(st.lists(answers), st.booleans())
def test_whatever_is_said_each_clause_ends_once(said: list[Answer], over: bool) -> None:
    reply = speech("One.", "Two.", "Three.")
    got: list[Piece] = []
    for answer in said:
        got += reply.take(answer, 1.0)
    got += reply.over(1.0) if over else []
    got += reply.fail("Because.")
    assert [piece.clause for piece in got if piece.done] == [1, 2, 3]
    for number in (1, 2, 3):
        mine = [piece for piece in got if piece.clause == number]
        assert all(not piece.done for piece in mine[:-1])
        assert all(len(piece.audio) % FRAME == 0 for piece in mine)
        times = [ms for _, ms in mine[-1].words]
        assert times == sorted(times)
        assert all(0 <= ms <= mine[-1].duration_ms for ms in times)
    assert sorted(got, key=lambda piece: piece.clause) == got
    assert reply.tail() == b""


def test_a_clause_of_which_no_frame_was_given_fails_without_audio() -> None:
    reply = speech("One.", "Two.")
    assert reply.take(audio(b"a" * 100), 1.0) == []
    assert reply.fail("Why.") == [
        Piece(1, b"", True, 0, (), "Why."),
        Piece(2, b"", True, 0, (), "Why."),
    ]
    assert reply.tail() == b""


def test_a_clause_that_fails_gives_all_it_has() -> None:
    reply = speech("One.")
    assert reply.take(audio(b"a" * 200), 1.0) == [Piece(1, b"a" * 160)]
    assert reply.fail("Why.") == [Piece(1, b"a" * 40 + b"\xff" * 120, True, 25, (), "Why.")]


def test_silence_is_a_failure_but_only_when_it_is_known_whose() -> None:
    reply = speech("One.", "Two.")
    assert reply.take(flushed(), 1.0) == []
    (end,) = reply.take(flushed(1), 1.0)
    assert (end.clause, end.done, end.duration_ms) == (1, True, 0)
    assert "no audio" in end.reason
    assert reply.take(flushed(1), 1.0) == []


@pytest.mark.parametrize("kind", ["rubbish", "audio"])
def test_what_cannot_be_completed(kind: Any) -> None:
    """Base64 that is none; more audio than any voice makes of so few characters."""
    reply = speech("One.")
    bad = Answer(kind, "c", 1, b"a" * 60_000)
    with pytest.raises(ProtocolError, match="Cartesia sent"):
        reply.take(bad, 1.0)


def test_no_voice_is_too_slow_for_its_limit() -> None:
    reply = speech("4294967296")  # eleven words
    reply.take(audio(b"a" * 8000 * 8), 1.0)
    (end,) = reply.take(flushed(1), 1.0)
    assert (end.duration_ms, end.reason) == (8000, "")


@pytest.mark.parametrize("from_start", [True, False])
def test_words_count_from_their_clause(from_start: bool) -> None:
    """Whether the server counts from the begin of the context or of the clause."""
    reply = speech("Well then.", "Good night.")
    reply.take(audio(b"a" * 8000), 1.0)
    reply.take(Answer("words", "c", words=(("Well", 400), ("then.", 980))), 1.0)
    (one,) = reply.take(flushed(1), 1.0)
    base = 1000 if from_start else 0
    reply.take(audio(b"a" * 4000), 1.0)
    reply.take(Answer("words", "c", words=(("Good", base + 200),), began_ms=base + 20), 1.0)
    reply.take(Answer("words", "c", words=(("night.", base + 501),), began_ms=base + 210), 1.0)
    (two,) = reply.take(flushed(2), 1.0)
    assert one.words == (("Well", 400), ("then.", 980))
    assert two.words == (("Good", 200), ("night.", 500)), "never after the end"


def test_more_words_than_characters_are_not_kept() -> None:
    reply = speech("No.")
    for _ in range(100):
        reply.take(Answer("words", "c", words=(("word", 1),)), 1.0)
    reply.take(audio(b"a" * 800), 1.0)
    (end,) = reply.take(flushed(1), 1.0)
    assert len(end.words) == 3


def test_a_new_context_begins_anew() -> None:
    reply = speech("One.", "Two.")
    reply.take(audio(b"a" * 1610, 1), 1.0)
    reply.take(flushed(1), 1.0)
    assert [clause.continued for clause in reply.open] == [True]
    reply.new_context()
    (clause,) = reply.ask_for(5.0)
    assert (clause.number, clause.continued, clause.since) == (2, False, 5.0)
    (piece,) = reply.take(audio(b"b" * 150, 1), 6.0)  # its ids begin at 1 again
    assert piece == Piece(2, b"a" * 10 + b"b" * 150)
    (end,) = reply.take(flushed(1), 6.0)
    assert (end.clause, end.duration_ms) == (2, 18)


# -- errors -----------------------------------------------------------------------------------


def status(code: int, **headers: str) -> InvalidStatus:
    given = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return InvalidStatus(Response(code, "X", given, b"it said\nso"))


def ended() -> InvalidMessage:
    error = InvalidMessage("no")
    error.__cause__ = EOFError()
    return error


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (status(401), "CARTESIA_API_KEY"),
        (status(402), "CARTESIA_API_KEY"),
        (status(404), "cartesia.voice"),
        (status(429), "cartesia.max_contexts"),
        (status(500), "'it said so'"),
        (status(418), "'it said so'"),
        (TimeoutError(), "cartesia.connect_seconds"),
        (ConnectionRefusedError(), "correct cartesia.url"),
        (ConnectionClosedError(Close(1011, "no power"), None), "'no power'"),
        (ConnectionClosedError(None, None), "closed the connection:"),
        (InvalidHandshake("odd"), "correct cartesia.url"),
        (InvalidMessage("odd"), "correct cartesia.url"),
        (ended(), "broke off the handshake"),
        (KeyError("x"), "KeyError"),
    ],
)
def test_explain_is_one_sentence_with_a_remedy(error: Exception, remedy: str) -> None:
    said = codec.explain(error, HERE)
    assert remedy in said
    assert HERE.url in said
    assert said.endswith(".")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (status(429, Retry_After="7"), 7.0),
        (status(429), 0.0),
        (status(429, Retry_After="Fri, 31 Dec 1999 23:59:59 GMT"), 0.0),
        (status(429, Retry_After="-1"), 0.0),
        (status(429, Retry_After="99999"), 0.0),
        (TimeoutError(), 0.0),
    ],
)
def test_rest(error: Exception, seconds: float) -> None:
    assert codec.rest(error) == seconds


def test_deadlines_name_the_setting_to_change() -> None:
    assert "cartesia.audio_seconds" in codec.too_slow(HERE, begun=True)
    assert "cartesia.first_audio_seconds" in codec.too_slow(HERE, begun=False)
    assert "cartesia.max_contexts" in codec.too_many(HERE, 3)
