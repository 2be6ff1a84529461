"""The webhook's answers, read back by a real XML parser."""

from __future__ import annotations

import contextlib
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.errors import ConfigError
from threadline.wire.twiml import busy, check_stream_url, connect_stream

URL = "wss://voice.example.com/twilio"
# XML's own set of characters: no controls but these three, no surrogates, no U+FFFE and U+FFFF
xml_text = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
    | st.sampled_from("\t\n\r\x7f\x85")
)


def test_the_exact_form() -> None:
    assert connect_stream(URL, {"token": "a&b", "n": "<1>"}) == (
        '<Response><Connect><Stream url="wss://voice.example.com/twilio">'
        '<Parameter name="token" value="a&amp;b"/><Parameter name="n" value="&lt;1&gt;"/>'
        "</Stream></Connect></Response>"
    )
    assert busy() == '<Response><Reject reason="busy"/></Response>'


@given(st.dictionaries(xml_text, xml_text))
def test_parameters_survive_a_parser(parameters: dict[str, str]) -> None:
    root = ElementTree.fromstring(connect_stream(URL, parameters))
    stream = root.find("./Connect/Stream")
    assert stream is not None
    assert stream.get("url") == URL
    found = {p.get("name"): p.get("value") for p in stream.findall("Parameter")}
    assert found == parameters


@given(st.text(), st.text())
def test_any_text_gives_well_formed_xml_or_one_sentence(name: str, value: str) -> None:
    with contextlib.suppress(ConfigError):
        ElementTree.fromstring(connect_stream(URL, {name: value}))


@pytest.mark.parametrize("bad", ["\x00", "\x1f", "\ud800", "\uffff"])
def test_text_that_xml_cannot_carry(bad: str) -> None:
    with pytest.raises(ConfigError, match="XML cannot carry"):
        connect_stream(URL, {"a": f"x{bad}"})
    with pytest.raises(ConfigError, match="XML cannot carry"):
        connect_stream(URL, {f"x{bad}": "a"})


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "wss://voice.example.com:8443/a/b",
        "wss://[2001:db8::1]/a",
        "ws://127.0.0.1:8080/twilio",
        "ws://127.9.9.9/twilio",
        "ws://localhost:1/twilio",
        "ws://[::1]:8080/twilio",
    ],
)
def test_addresses_a_stream_may_have(url: str) -> None:
    check_stream_url(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "give wss://"),
        ("wss://", "give wss://"),
        ("voice.example.com/twilio", "give wss://"),
        ("https://voice.example.com/twilio", "give wss://"),
        ("ws://voice.example.com/twilio", "only toward this machine"),
        ("ws://10.0.0.1/twilio", "only toward this machine"),
        ("ws://localhost.example.com/twilio", "only toward this machine"),
        ("ws://127.0.0.1.example.com/twilio", "only toward this machine"),
        ("wss://host:port/twilio", "not a URL"),
        ("wss://host:99999/twilio", "not a URL"),
        ("wss://[::1/twilio", "not a URL"),
        (URL + "?a=1", "parameters"),
        (URL + "?", "parameters"),
        (URL + "#a", "parameters"),
    ],
)
def test_addresses_the_carrier_would_refuse(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        connect_stream(url, {})
