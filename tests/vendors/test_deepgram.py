"""The codec: configuration in, address out; whatever a server sends is read without raising."""

import json
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
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

from threadline.config import Deepgram
from threadline.errors import ConfigError
from threadline.vendors import deepgram as codec
from threadline.vendors.deepgram import Metadata, Results, Trouble, Word

OWN = Deepgram(url="ws://127.0.0.1:1", model="nova-test")
VENDOR = Deepgram(api_key="k")


def refused(status: int, body: bytes = b"", **headers: str) -> InvalidStatus:
    named = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return InvalidStatus(Response(status, "X", named, body))


def closed(code: int, reason: str) -> ConnectionClosedError:
    return ConnectionClosedError(Close(code, reason), None)


def test_the_key_is_asked_for_by_name() -> None:
    assert codec.check(VENDOR) == "k"
    with pytest.raises(ConfigError, match="DEEPGRAM_API_KEY"):
        codec.check(Deepgram())
    with pytest.raises(ConfigError, match="DEEPGRAM_API_KEY"):
        codec.check(Deepgram(url="wss://api.deepgram.com/v1/listen?tier=x"))


@pytest.mark.parametrize("key", ["k\n", "k k", "ключ"])
def test_a_key_that_is_none_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigError, match="DEEPGRAM_API_KEY") as refusal:
        codec.check(Deepgram(api_key=key))
    assert key not in str(refusal.value)


def test_a_server_of_ones_own_needs_no_key_and_may_have_one() -> None:
    assert codec.check(OWN) == ""
    assert codec.headers(codec.check(OWN)) == {}
    assert codec.headers(codec.check(replace(OWN, api_key="own"))) == {"Authorization": "Token own"}


@pytest.mark.parametrize("url", ["", "ws://", "ws://[", "http://host", "ws://h:99999", "ws://h:x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"ws://HOST:PORT"):
        codec.check(Deepgram(url=url, api_key="k"))


def query(config: Deepgram) -> dict[str, str]:
    asked = parse_qs(urlsplit(codec.address(config)).query, strict_parsing=True)
    return {name: value for name, [value] in asked.items()}


def test_address() -> None:
    assert codec.address(Deepgram()).startswith("wss://api.deepgram.com/v1/listen?model=nova-3&")
    assert codec.address(OWN).startswith("ws://127.0.0.1:1/v1/listen?")
    assert codec.address(replace(OWN, url="ws://h:1/")).startswith("ws://h:1/v1/listen?")
    assert codec.address(replace(OWN, url="ws://h:1/own/path")).startswith("ws://h:1/own/path?")


def test_the_audio_is_named_as_what_it_is_and_the_end_of_the_turn_is_ours() -> None:
    asked = query(OWN)
    assert (asked["encoding"], asked["sample_rate"], asked["channels"]) == ("mulaw", "8000", "1")
    assert (asked["endpointing"], asked["interim_results"]) == ("false", "true")
    assert (asked["model"], asked["language"]) == ("nova-test", "en")


def test_a_query_of_the_users_own_wins() -> None:
    asked = query(replace(OWN, url="ws://h:1?endpointing=300&keyterm=Linguine%20al%20limone"))
    assert asked["endpointing"] == "300"
    assert asked["keyterm"] == "Linguine al limone"
    assert asked["encoding"] == "mulaw"


def test_control_messages() -> None:
    said = [codec.KEEP_ALIVE, codec.FINALIZE, codec.CLOSE_STREAM]
    assert [json.loads(text) for text in said] == [
        {"type": "KeepAlive"},
        {"type": "Finalize"},
        {"type": "CloseStream"},
    ]


def message(**changes: object) -> str:
    fields: dict[str, object] = {
        "type": "Results",
        "start": 1.5,
        "duration": 0.5,
        "is_final": True,
        "speech_final": True,
        "from_finalize": True,
        "channel": {
            "alternatives": [
                {
                    "transcript": "Two  people.",
                    "words": [
                        {"word": "two", "punctuated_word": "Two", "start": 1.6, "end": 1.7},
                        {"word": "people", "start": 1.75, "end": 2},
                        {"word": "no time"},
                        None,
                    ],
                },
                {"transcript": "Too people."},
            ]
        },
    }
    return json.dumps(fields | changes)


def test_results() -> None:
    words = (Word("Two", 1.6, 1.7), Word("people", 1.75, 2.0))
    assert codec.read(message()) == Results(1.5, 2.0, "Two people.", True, True, words)
    assert codec.read(message().encode()) == codec.read(message())
    guess = codec.read(message(is_final=False, from_finalize=False))
    assert guess == Results(1.5, 2.0, "Two people.", False, False, words)


@pytest.mark.parametrize(
    "changes",
    [
        {"start": None},
        {"start": -1},
        {"start": True},
        {"duration": "1"},
        {"duration": 10**400},
        {"duration": float("nan")},
        {"duration": float("inf")},
        {"channel": None},
        {"channel": {"alternatives": []}},
        {"channel": {"alternatives": [{"transcript": 5}]}},
    ],
)
def test_results_without_a_place_or_a_text_are_none(changes: dict[str, object]) -> None:
    assert codec.read(message(**changes)) is None


def test_other_messages() -> None:
    assert codec.read('{"type": "Metadata", "duration": 2.5, "sha256": "x"}') == Metadata(2.5)
    assert codec.read('{"type": "SpeechStarted", "timestamp": 9.5}') == codec.SpeechStarted(9.5)
    assert codec.read('{"type": "UtteranceEnd", "last_word_end": 2}') == codec.UtteranceEnd(2.0)
    assert codec.read('{"type": "Error", "description": "out\\nof luck"}') == Trouble("out of luck")
    assert codec.read('{"type": "Error"}') == Trouble("no reason given")


@pytest.mark.parametrize("text", ["", "no json", b"\xff\xfe\xfd", "[]", "1", "{}", '{"type": []}'])
def test_garbage_is_none(text: str | bytes) -> None:
    assert codec.read(text) is None
    assert codec.read("[" * 200_000) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
)
KINDS = st.sampled_from(["Results", "Metadata", "SpeechStarted", "UtteranceEnd", "Error", "?"])
TIMES = JSON | st.floats(0, 10)
ALTERNATIVES = st.fixed_dictionaries(
    {"transcript": JSON | st.text(), "words": JSON | st.lists(JSON | st.just({"word": "a"}))}
)
MESSAGES = st.fixed_dictionaries(
    {"type": KINDS},
    optional={
        "start": TIMES,
        "duration": TIMES,
        "timestamp": TIMES,
        "last_word_end": TIMES,
        "description": JSON,
        "is_final": JSON,
        "from_finalize": JSON,
        "channel": JSON | st.fixed_dictionaries({"alternatives": JSON | st.lists(ALTERNATIVES)}),
    },
)


@given(MESSAGES | JSON)
def test_any_json_is_read_without_raising(fields: object) -> None:
    said = codec.read(json.dumps(fields))
    if isinstance(said, Results):
        assert 0 <= said.start <= said.end < float("inf")
        assert isinstance(said.text, str)
        assert all(isinstance(word.text, str) and word.start >= 0 for word in said.words)


@given(st.binary() | st.text())
def test_any_bytes_are_read_without_raising(data: bytes | str) -> None:
    codec.read(data)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (refused(401), "DEEPGRAM_API_KEY"),
        (refused(403), "DEEPGRAM_API_KEY"),
        (refused(402), "top it up"),
        (refused(404), "'nova-test'"),
        (refused(429), "server.max_calls"),
        (refused(500), "try again later"),
        (refused(400, dg_error="Bad Request: no such language"), "no such language"),
        (refused(400, b'{"err_msg":\n "no such tier"}'), "no such tier"),
        (closed(1011, "NET-0001: no audio"), "heard nothing of us"),
        (closed(1008, "DATA-0000: unreadable"), "mu-law"),
        (closed(1011, "overload"), "1011 overload"),
        (closed(1000, ""), "1000"),
        (ConnectionClosedError(None, None), "broke off"),
        (TimeoutError(), "deepgram.connect_seconds"),
        (ConnectionRefusedError(111, "Connect call failed"), "Connect call failed"),
        (InvalidMessage("did not receive a valid HTTP response"), "does not speak WebSocket"),
        (InvalidHandshake("odd"), "does not speak WebSocket"),
        (ValueError("odd"), "ValueError"),
    ],
)
def test_explain_is_one_sentence_with_a_remedy(error: Exception, remedy: str) -> None:
    said = codec.explain(error, OWN)
    assert remedy in said
    assert said.startswith("The recogniser at ws://127.0.0.1:1 ")
    assert said.endswith(".")
    assert "\n" not in said


def test_a_sentence_shows_no_secret() -> None:
    hidden = Deepgram(url="ws://user:secret@h:1/?key=secret2", api_key="secret3")
    for said in (codec.explain(TimeoutError(), hidden), codec.silent(hidden)):
        assert "secret" not in said
        assert "ws://h:1 " in said
    assert codec.explain(TimeoutError(), VENDOR).startswith("Deepgram ")


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (refused(429, Retry_After="7"), 7.0),
        (refused(429, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"), 0.0),
        (refused(429, Retry_After="9" * 400), 0.0),
        (refused(429), 0.0),
        (TimeoutError(), 0.0),
    ],
)
def test_rest(error: Exception, seconds: float) -> None:
    assert codec.rest(error) == seconds
