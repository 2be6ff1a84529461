"""Twilio's signature: its published vector, and every way in which a forgery must fail."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.wire.signature import request_url, sign, valid

TOKEN = "12345"
URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
PARAMS = [
    ("CallSid", "CA1234567890ABCDE"),
    ("Caller", "+14158675309"),
    ("Digits", "1234"),
    ("From", "+14158675309"),
    ("To", "+18005551212"),
]
HEADER = "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def test_the_published_vector() -> None:
    assert sign(TOKEN, URL, PARAMS) == HEADER
    assert valid(TOKEN, URL, PARAMS, HEADER)


def test_the_order_of_the_parameters_does_not_matter() -> None:
    assert sign(TOKEN, URL, PARAMS[::-1]) == HEADER
    assert valid(TOKEN, URL, iter(PARAMS), HEADER)


def test_names_sort_by_code_point_and_a_repeated_pair_counts_once() -> None:
    pairs = [("b", "2"), ("a", "y"), ("B", "1"), ("a", "x"), ("a", "x")]
    mac = hmac.new(b"k", b"https://h/" + b"B1" + b"ax" + b"ay" + b"b2", hashlib.sha1).digest()
    assert sign("k", "https://h/", pairs) == base64.b64encode(mac).decode()


@pytest.mark.parametrize(
    ("token", "url", "params", "header"),
    [
        ("12346", URL, PARAMS, HEADER),
        ("", URL, PARAMS, sign("", URL, PARAMS)),
        (TOKEN, URL + "&x=1", PARAMS, HEADER),
        (TOKEN, URL.replace("https", "http"), PARAMS, HEADER),
        (TOKEN, URL.replace(".com", ".com:8443").replace("my", "your", 1), PARAMS, HEADER),
        (TOKEN, URL, PARAMS[:-1], HEADER),
        (TOKEN, URL, [*PARAMS, ("x", "")], HEADER),
        (TOKEN, URL, PARAMS, HEADER[:-1]),
        (TOKEN, URL, PARAMS, HEADER.lower()),
        (TOKEN, URL, PARAMS, "é" + HEADER),
        (TOKEN, URL, PARAMS, "\ud800"),
        (TOKEN, URL, PARAMS, ""),
        (TOKEN, URL, PARAMS, None),
    ],
)
def test_a_forgery_fails(
    token: str, url: str, params: list[tuple[str, str]], header: str | None
) -> None:
    assert not valid(token, url, params, header)


@pytest.mark.parametrize(
    ("called", "signed"),
    [
        ("wss://host/twilio", "wss://host/twilio"),
        ("wss://host/twilio", "wss://host:443/twilio"),
        ("wss://host:443/twilio", "wss://host/twilio"),
        ("wss://host:8443/twilio", "wss://host/twilio"),
        ("https://host:8443/a?b=1", "https://host:8443/a?b=1"),
        ("http://[::1]:8080/a", "http://[::1]/a"),
        ("http://[::1]/a", "http://[::1]:80/a"),
    ],
)
def test_the_port_may_be_signed_or_not(called: str, signed: str) -> None:
    assert valid(TOKEN, called, [], sign(TOKEN, signed, []))


def test_a_port_of_another_service_is_not_ours() -> None:
    assert not valid(TOKEN, "wss://host/twilio", [], sign(TOKEN, "wss://host:8443/twilio", []))


@given(st.text(), st.text(), st.lists(st.tuples(st.text(), st.text())), st.text())
def test_nothing_a_request_holds_makes_us_raise(
    host: str, target: str, params: list[tuple[str, str]], header: str
) -> None:
    url = request_url(target, {"host": host}, websocket=True)
    assert not valid(TOKEN, url, params, header)
    assert valid(TOKEN, url, params, sign(TOKEN, url, params))


@pytest.mark.parametrize(
    ("headers", "websocket", "options", "url"),
    [
        ({"host": "h:8080"}, False, {}, "http://h:8080/p?q"),
        ({"host": "h:8080"}, True, {}, "ws://h:8080/p?q"),
        ({"host": "h"}, True, {"secure": True}, "wss://h/p?q"),
        ({"host": "h", "x-forwarded-proto": "https"}, False, {}, "https://h/p?q"),
        ({"host": "h", "x-forwarded-proto": "https"}, True, {}, "wss://h/p?q"),
        ({"host": "h", "x-forwarded-proto": "WSS"}, True, {}, "wss://h/p?q"),
        ({"host": "h", "x-forwarded-proto": "http"}, True, {"secure": True}, "ws://h/p?q"),
        (
            {
                "host": "10.0.0.7:8080",
                "x-forwarded-proto": "https, http",
                "x-forwarded-host": "voice.example.com , inner",
            },
            True,
            {},
            "wss://voice.example.com/p?q",
        ),
        (
            {"host": "10.0.0.7", "x-forwarded-proto": "http", "x-forwarded-host": "evil"},
            False,
            {"public_url": "wss://voice.example.com/"},
            "https://voice.example.com/p?q",
        ),
        ({}, True, {"public_url": "ws://127.0.0.1:9"}, "ws://127.0.0.1:9/p?q"),
        ({}, False, {}, "http:///p?q"),
    ],
)
def test_the_url_by_which_the_carrier_called(
    headers: dict[str, str], websocket: bool, options: dict[str, str], url: str
) -> None:
    assert request_url("/p?q", headers, websocket=websocket, **options) == url
