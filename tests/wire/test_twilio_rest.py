"""What is asked of Twilio about a call under way."""

from __future__ import annotations

from base64 import b64decode
from urllib.parse import parse_qs
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.errors import ConfigError
from threadline.wire.twilio_rest import Account, account, hang_up, problem, transfer

OURS = Account("AC1", "secret-token")


def test_a_call_is_ended() -> None:
    request = hang_up(OURS, "CA7")
    assert request.method == "POST"
    assert request.url == "https://api.twilio.com/2010-04-01/Accounts/AC1/Calls/CA7.json"
    assert parse_qs(request.body.decode()) == {"Status": ["completed"]}
    scheme, _, credentials = request.headers["Authorization"].partition(" ")
    assert (scheme, b64decode(credentials)) == ("Basic", b"AC1:secret-token")


@pytest.mark.parametrize("to", ["+15551230000", "+1 (555) 123-0000", "+1.555.123.0000"])
def test_a_call_is_transferred(to: str) -> None:
    (twiml,) = parse_qs(transfer(OURS, "CA7", to).body.decode())["Twiml"]
    root = ElementTree.fromstring(twiml)
    assert [(verb.tag, verb.text) for verb in root] == [("Dial", "+15551230000")]


@given(st.text(max_size=20))
def test_only_a_number_is_dialled(to: str) -> None:
    try:
        request = transfer(OURS, "CA7", to)
    except ConfigError:
        return
    (twiml,) = parse_qs(request.body.decode())["Twiml"]
    assert set(twiml.removeprefix("<Response><Dial>").removesuffix("</Dial></Response>")) <= (
        set("+0123456789")
    )


def test_what_is_no_number_is_told_how_to_be_one() -> None:
    with pytest.raises(ConfigError, match=r"^'<Sip>' is no number .* like \+15551230000\.$"):
        transfer(OURS, "CA7", "<Sip>")


@given(st.text(max_size=20))
def test_a_call_id_stays_within_its_part_of_the_path(call_id: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in call_id):
        return
    path = hang_up(OURS, call_id).url.removeprefix("https://api.twilio.com")
    assert path.count("/") == 5
    assert "?" not in path


def test_the_account_comes_from_the_environment() -> None:
    environ = {"TWILIO_ACCOUNT_SID": "AC1", "TWILIO_AUTH_TOKEN": "secret-token"}
    assert account(environ) == OURS
    for name in environ:
        with pytest.raises(ConfigError, match=f"set {name}"):
            account({key: value for key, value in environ.items() if key != name})


def test_no_secret_is_shown() -> None:
    request = hang_up(OURS, "CA7")
    assert "secret-token" not in repr(OURS) + repr(request)
    assert request.headers["Authorization"] not in repr(request)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"", "correct TWILIO_AUTH_TOKEN"),
        (404, b"{}", "no such call"),
        (400, b'{"message": "Invalid  number."}', "(400: Invalid number)."),
        (500, b"<html>", "(500: without a reason)."),
        (500, b'"text"', "(500: without a reason)."),
    ],
)
def test_an_answer_that_is_no_good_is_one_sentence(status: int, body: bytes, said: str) -> None:
    assert said in problem(status, body)
    assert problem(201, body) == ""
