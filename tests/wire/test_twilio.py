"""Both ends of Twilio's protocol: joined in memory, driven by a model, and fed rubbish."""

from __future__ import annotations

import copy
import json
from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threadline.errors import ProtocolError
from threadline.wire.events import Audio, Digit, Ended, LocalError, MarkEchoed, Started
from threadline.wire.twilio import DIGITS, OTHER, TRANSITIONS, State, TwilioLeg
from threadline.wire.twilio_carrier import (
    CarrierEvent,
    ClearRequest,
    MarkRequest,
    Media,
    TwilioCarrier,
)

FRAME = bytes(range(160))
SID = "MZ0123"


class Pair:
    """A carrier and a leg joined in memory: what one says, the other hears at once."""

    def __init__(self, parameters: dict[str, str] | None = None) -> None:
        self.carrier = TwilioCarrier(SID, "CA1", "AC1", parameters or {})
        self.leg = TwilioLeg()
        assert self.leg.receive(self.carrier.connected()) is None
        self.started = self.leg.receive(self.carrier.start())

    def to_carrier(self, message: str) -> CarrierEvent | None:
        return self.carrier.receive(message)


def valid_messages() -> dict[str, str]:
    carrier = TwilioCarrier(SID, "CA1", "AC1", {"token": "t"})
    return {
        "connected": carrier.connected(),
        "start": carrier.start(),
        "media": carrier.media(FRAME),
        "mark": carrier.mark("7"),
        "dtmf": carrier.dtmf("5"),
        OTHER: '{"event":"weather","streamSid":"MZ0123"}',
        "stop": carrier.stop(),
    }


MESSAGES = valid_messages()
PATH = {  # how a fresh leg gets into each state
    State.AWAIT_CONNECTED: [],
    State.AWAIT_START: ["connected"],
    State.LIVE: ["connected", "start"],
    State.ENDED: ["connected", "start", "stop"],
}


def leg_in(state: State, max_payload_bytes: int = 16_384) -> TwilioLeg:
    leg = TwilioLeg(max_payload_bytes)
    for name in PATH[state]:
        leg.receive(MESSAGES[name])
    assert leg.state is state
    return leg


# The two machines together


def test_a_whole_call_between_the_two_machines() -> None:
    pair = Pair({"caller": "Zoë", "n": ""})
    assert pair.started == Started(SID, "CA1", {"caller": "Zoë", "n": ""})
    assert pair.leg.receive(pair.carrier.media(FRAME)) == Audio(FRAME)
    assert pair.leg.receive(pair.carrier.dtmf("#")) == Digit("#")
    assert pair.to_carrier(pair.leg.media(FRAME)) == Media(FRAME)
    assert pair.to_carrier(pair.leg.mark("3:greeting")) == MarkRequest("3:greeting")
    assert pair.to_carrier(pair.leg.clear()) == ClearRequest()
    assert pair.leg.receive(pair.carrier.mark("3:greeting")) == MarkEchoed("3:greeting")
    late = pair.leg.media(FRAME)
    assert pair.leg.receive(pair.carrier.stop()) == Ended("stop")
    assert pair.to_carrier(late) is None  # it was in flight when the carrier left
    assert pair.leg.state is pair.carrier.state is State.ENDED


@given(st.binary(max_size=16_384))
def test_audio_of_any_length_survives_both_ways(payload: bytes) -> None:
    pair = Pair()
    assert pair.leg.receive(pair.carrier.media(payload)) == Audio(payload)
    if payload:
        assert pair.to_carrier(pair.leg.media(memoryview(payload))) == Media(payload)


@given(st.text(st.characters(exclude_categories=["C"]), min_size=1).filter(str.isprintable))
def test_any_name_of_a_mark_comes_back_as_it_was(name: str) -> None:
    pair = Pair()
    request = pair.to_carrier(pair.leg.mark(name))
    assert request == MarkRequest(name)
    assert pair.leg.receive(pair.carrier.mark(name)) == MarkEchoed(name)


def test_our_messages_have_the_documented_form() -> None:
    leg = leg_in(State.LIVE)
    audio = b64encode(FRAME).decode()
    assert leg.media(FRAME) == (
        '{"event":"media","streamSid":"MZ0123","media":{"payload":"' + audio + '"}}'
    )
    assert leg.mark('a"b') == '{"event":"mark","streamSid":"MZ0123","mark":{"name":"a\\"b"}}'
    assert leg.clear() == '{"event":"clear","streamSid":"MZ0123"}'


def test_a_stream_name_with_quotes_cannot_break_out_of_our_messages() -> None:
    carrier, leg = TwilioCarrier('MZ","x":"', "CA1", "AC1", {}), TwilioLeg()
    leg.receive(carrier.connected())
    leg.receive(carrier.start())
    assert carrier.receive(leg.media(FRAME)) == Media(FRAME)
    assert carrier.receive(leg.mark("m")) == MarkRequest("m")
    assert carrier.receive(leg.clear()) == ClearRequest()


# The table


@pytest.mark.parametrize("event", MESSAGES)
@pytest.mark.parametrize("state", State)
def test_every_cell_of_the_table(state: State, event: str) -> None:
    leg = leg_in(state)
    successor = TRANSITIONS[state].get(event)
    if successor is None:
        with pytest.raises(ProtocolError, match=event or "weather"):
            leg.receive(MESSAGES[event])
        assert leg.state is State.ENDED
    else:
        leg.receive(MESSAGES[event])
        assert leg.state is successor


def test_the_legal_order_is_the_documented_one() -> None:
    """The table itself, spelled out once more, so that a slip in it cannot pass unseen."""
    legal = {(state.name, event) for state, row in TRANSITIONS.items() for event in row}
    assert legal == {
        ("AWAIT_CONNECTED", "connected"),
        ("AWAIT_START", "start"),
        ("AWAIT_START", OTHER),
        ("LIVE", "media"),
        ("LIVE", "mark"),
        ("LIVE", "dtmf"),
        ("LIVE", "stop"),
        ("LIVE", OTHER),
    }


@given(st.lists(st.sampled_from(sorted(MESSAGES)), max_size=12))
def test_any_sequence_of_messages_follows_the_table(events: list[str]) -> None:
    leg, state, ignored = TwilioLeg(), State.AWAIT_CONNECTED, 0
    for event in ["connected", "start", *events]:
        successor = TRANSITIONS[state].get(event)
        if successor is None:
            with pytest.raises(ProtocolError):
                leg.receive(MESSAGES[event])
        else:
            leg.receive(MESSAGES[event])
            ignored += event == OTHER
        state = successor or State.ENDED
        assert (leg.state, leg.ignored) == (state, ignored)


@pytest.mark.parametrize("name", ["", "weather", "Media", "MEDIA", "connected ", "__class__"])
def test_an_event_we_do_not_know_is_counted_and_passed_over(name: str) -> None:
    leg = leg_in(State.LIVE)
    assert leg.receive(json.dumps({"event": name, "news": [1]})) is None
    assert leg.ignored == 1
    assert leg.receive(MESSAGES["media"]) == Audio(FRAME)


@pytest.mark.parametrize("state", [s for s in State if s is not State.LIVE])
def test_we_cannot_speak_outside_the_stream(state: State) -> None:
    leg = leg_in(state)
    with pytest.raises(LocalError, match="media"):
        leg.media(FRAME)
    with pytest.raises(LocalError, match="mark"):
        leg.mark("m")
    with pytest.raises(LocalError, match="clear"):
        leg.clear()


def test_we_cannot_speak_after_the_peer_broke_the_protocol() -> None:
    leg = leg_in(State.LIVE)
    with pytest.raises(ProtocolError):
        leg.receive("{")
    with pytest.raises(LocalError):
        leg.media(FRAME)
    with pytest.raises(ProtocolError, match="after the stream had ended"):
        leg.receive(MESSAGES["media"])


# What cannot be taken


def edited(event: str, path: str, value: object) -> str:
    """A valid message with one key replaced, or removed when ``value`` is ``...``."""
    body = json.loads(MESSAGES[event])
    *way, last = path.split(".")
    at = body
    for step in way:
        at = at[step]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return json.dumps(body)


BAD_START = [
    ("streamSid", ...),
    ("streamSid", "MZother"),
    ("start", ...),
    ("start", "x"),
    ("start.streamSid", ...),
    ("start.streamSid", 5),
    ("start.streamSid", ""),
    ("start.callSid", ...),
    ("start.callSid", None),
    ("start.callSid", "CA1\nforged log line"),
    ("start.callSid", "\ud800"),
    ("start.mediaFormat", ...),
    ("start.mediaFormat.encoding", "audio/x-l16"),
    ("start.mediaFormat.sampleRate", 16000),
    ("start.mediaFormat.sampleRate", "8000"),
    ("start.mediaFormat.channels", 2),
    ("start.mediaFormat.channels", ...),
    ("start.customParameters", ["a"]),
    ("start.customParameters", {"a": 1}),
    ("start.customParameters", {"a": "\udfff"}),
    ("start.customParameters", {"\udfff": "a"}),
]


@pytest.mark.parametrize(("path", "value"), BAD_START)
def test_a_start_that_cannot_be_used(path: str, value: object) -> None:
    with pytest.raises(ProtocolError, match=path.rpartition(".")[2] + "|audio|two streams|custom"):
        leg_in(State.AWAIT_START).receive(edited("start", path, value))


BAD_LIVE = [
    ("media", "event", ...),
    ("media", "event", ["media"]),
    ("media", "event", {}),
    ("media", "streamSid", ...),
    ("media", "streamSid", "MZother"),
    ("media", "media", ...),
    ("media", "media", []),
    ("media", "media.track", ...),
    ("media", "media.track", "outbound"),
    ("media", "media.payload", ...),
    ("media", "media.payload", 5),
    ("media", "media.payload", "/w=x"),
    ("media", "media.payload", "///"),
    ("media", "media.payload", "//8=\n"),
    ("media", "media.payload", "ÿÿÿÿ"),
    ("media", "media.payload", "\ud800AAA"),
    ("mark", "streamSid", "MZother"),
    ("mark", "mark", ...),
    ("mark", "mark.name", ...),
    ("mark", "mark.name", 3),
    ("dtmf", "streamSid", ...),
    ("dtmf", "dtmf", "1"),
    ("dtmf", "dtmf.digit", 1),
    ("dtmf", "dtmf.digit", "12"),
    ("dtmf", "dtmf.digit", ""),
    ("dtmf", "dtmf.digit", "x"),
    ("dtmf", "dtmf.digit", ["1"]),
    ("stop", "streamSid", "MZother"),
]


@pytest.mark.parametrize(("event", "path", "value"), BAD_LIVE)
def test_a_message_that_cannot_be_used(event: str, path: str, value: object) -> None:
    key = path.rpartition(".")[2]
    with pytest.raises(ProtocolError, match=f"'{key}'|base64|no '{key}'"):
        leg_in(State.LIVE).receive(edited(event, path, value))


def test_keys_we_do_not_use_may_be_missing_or_new() -> None:
    leg = leg_in(State.AWAIT_START)
    body = json.loads(edited("start", "start.customParameters", ...))
    del body["start"]["accountSid"], body["start"]["tracks"], body["sequenceNumber"]
    body["start"]["mood"] = body["mood"] = "new"
    assert leg.receive(json.dumps(body)) == Started(SID, "CA1", {})


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"\xff" * 160, "binary"),
        (b"", "binary"),
        ("", "not JSON"),
        ("{", "not JSON"),
        ("{} {}", "not JSON"),
        ("\ufeff{}", "not JSON"),
        ("5" * 5000, "not JSON"),
        ('{"event":' + "9" * 5000 + "}", "not JSON"),
        ("[" * 200_000, "nested too deeply|not JSON"),
        ('{"a":' * 200_000, "nested too deeply|not JSON"),
        ("[" * 200_000 + "]" * 200_000, "nested too deeply|no object"),
        ("[]", "no object"),
        ("null", "no object"),
        ("NaN", "no object"),
        ("-Infinity", "no object"),
        ('"media"', "no object"),
        ("{}", "no 'event'"),
        ('{"event":null}', "the 'event' None"),
        ('{"event":NaN}', "the 'event' nan"),
        ('{"event":' + "[" * 300 + "]" * 300 + "}", "the 'event'"),
    ],
)
def test_what_is_no_message_at_all(message: str | bytes, said: str) -> None:
    for state in State:
        leg = leg_in(state)
        with pytest.raises(ProtocolError, match=said) as caught:
            leg.receive(message)
        assert leg.state is State.ENDED
        assert len(str(caught.value)) < 300
        assert str(caught.value).endswith(".")


def test_the_limit_on_one_message_of_audio_is_exact() -> None:
    carrier = TwilioCarrier(SID, "CA1", "AC1", {})
    carrier.connected(), carrier.start()
    leg = leg_in(State.LIVE, max_payload_bytes=160)
    assert leg.receive(carrier.media(bytes(160))) == Audio(bytes(160))
    with pytest.raises(ProtocolError, match=r"161 bytes .* at most 160"):
        leg.receive(carrier.media(bytes(161)))


@pytest.mark.parametrize("digit", sorted(DIGITS))
def test_every_key_of_a_phone(digit: str) -> None:
    pair = Pair()
    assert pair.leg.receive(pair.carrier.dtmf(digit)) == Digit(digit)


# Rubbish: whatever arrives, it is an event or a ProtocolError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
known_words = st.sampled_from(
    ["event", "streamSid", "media", "payload", "start", "stop", "mark", "name", "inbound", SID]
)
near_json = st.dictionaries(
    known_words, json_values | known_words | st.dictionaries(known_words, known_words), max_size=5
)


def is_orderly(leg: TwilioLeg, message: str) -> None:
    try:
        leg.receive(message)
    except ProtocolError as error:
        assert leg.state is State.ENDED
        str(error).encode()


@given(st.sampled_from(State), st.text())
def test_any_text_is_orderly(state: State, text: str) -> None:
    is_orderly(leg_in(state), text)


@given(st.sampled_from(State), json_values | near_json)
def test_any_json_is_orderly(state: State, value: object) -> None:
    is_orderly(leg_in(state), json.dumps(value))


@settings(max_examples=300)
@given(st.sampled_from(State), st.sampled_from(sorted(MESSAGES)), st.data())
def test_a_valid_message_with_one_part_replaced_is_orderly(
    state: State, event: str, data: st.DataObject
) -> None:
    body = copy.deepcopy(json.loads(MESSAGES[event]))
    places = [(body, key) for key in body]
    places += [
        (body[key], inner) for key in body if isinstance(body[key], dict) for inner in body[key]
    ]
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(json_values | known_words)
    is_orderly(leg_in(state), json.dumps(body))


@given(
    st.sampled_from(sorted(MESSAGES)), st.integers(0, 400), st.integers(0, 3), st.text(max_size=3)
)
def test_a_valid_message_with_some_characters_replaced_is_orderly(
    event: str, at: int, drop: int, insert: str
) -> None:
    message = MESSAGES[event]
    for state in State:
        is_orderly(leg_in(state), message[:at] + insert + message[at + drop :])
