"""The stand-in carrier: it speaks as Twilio does, in order, and takes only the documented form."""

from __future__ import annotations

import contextlib
import json
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.errors import ProtocolError
from threadline.wire.events import LocalError
from threadline.wire.twilio_carrier import ClearRequest, TwilioCarrier

FRAME = bytes(range(160))
SID = "MZ0123"
CLEAR = '{"event":"clear","streamSid":"MZ0123"}'
words = st.sampled_from(["event", "streamSid", "media", "payload", "mark", "name", "clear", SID])
odd = st.none() | st.integers() | st.lists(st.text()) | words
near_json = st.dictionaries(words, odd | st.dictionaries(words, odd)).map(json.dumps)


def live_carrier() -> TwilioCarrier:
    carrier = TwilioCarrier(SID, "CA1", "AC1", {})
    carrier.connected()
    carrier.start()
    return carrier


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\xff", "31950"),
        ("{", "31951"),
        ("[]", "31951"),
        ('{"event":"clear"}', "31951"),
        ('{"event":"clear","streamSid":"MZother"}', "31951"),
        ('{"event":"clear","streamSid":"MZ0123","x":1}', "31951"),
        ('{"event":"stop","streamSid":"MZ0123"}', "31951"),
        ('{"event":["clear"],"streamSid":"MZ0123"}', "31951"),
        ('{"event":"mark","streamSid":"MZ0123"}', "31951"),
        ('{"event":"mark","streamSid":"MZ0123","mark":{"name":7}}', "31951"),
        ('{"event":"mark","streamSid":"MZ0123","mark":"m"}', "31951"),
        ('{"event":"media","streamSid":"MZ0123","media":{"payload":""}}', "31951"),
        ('{"event":"media","streamSid":"MZ0123","media":{"payload":"*"}}', "31951"),
        ('{"event":"media","streamSid":"MZ0123","media":{"payload":"//8=","track":"o"}}', "31951"),
    ],
)
def test_the_carrier_is_strict_with_us(message: str | bytes, code: str) -> None:
    with pytest.raises(ProtocolError, match=f"^{code}: "):
        live_carrier().receive(message)


def test_the_carrier_takes_the_documented_form() -> None:
    assert live_carrier().receive(CLEAR) == ClearRequest()


def test_the_carrier_takes_nothing_before_its_stream_has_started() -> None:
    carrier = TwilioCarrier(SID, "CA1", "AC1", {})
    carrier.connected()
    with pytest.raises(ProtocolError, match=r"^31924: "):
        carrier.receive(CLEAR)


def test_the_carrier_cannot_be_made_to_speak_out_of_order() -> None:
    with pytest.raises(LocalError):
        TwilioCarrier(SID, "CA1", "AC1", {}).start()
    carrier = live_carrier()
    with pytest.raises(LocalError):
        carrier.connected()
    carrier.stop()
    with pytest.raises(LocalError):
        carrier.media(FRAME)


@given(st.text() | st.binary() | near_json)
def test_the_carrier_is_orderly_whatever_it_hears(message: str | bytes) -> None:
    with contextlib.suppress(ProtocolError):
        live_carrier().receive(message)


def test_the_carrier_numbers_its_messages_as_twilio_does() -> None:
    carrier = TwilioCarrier(SID, "CA1", "AC1", {})
    assert json.loads(carrier.connected()) == {
        "event": "connected",
        "protocol": "Call",
        "version": "1.0.0",
    }
    assert json.loads(carrier.start()) == {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": SID,
        "start": {
            "accountSid": "AC1",
            "callSid": "CA1",
            "streamSid": SID,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {},
        },
    }
    carrier.media(FRAME)
    carrier.mark("m")
    assert json.loads(carrier.media(FRAME)) == {
        "event": "media",
        "sequenceNumber": "4",
        "streamSid": SID,
        "media": {
            "track": "inbound",
            "chunk": "2",
            "timestamp": "20",
            "payload": b64encode(FRAME).decode(),
        },
    }
    assert json.loads(carrier.dtmf("1"))["dtmf"] == {"track": "inbound_track", "digit": "1"}
    assert json.loads(carrier.stop()) == {
        "event": "stop",
        "sequenceNumber": "6",
        "streamSid": SID,
        "stop": {"accountSid": "AC1", "callSid": "CA1"},
    }
