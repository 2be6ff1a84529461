"""The answers to Twilio's webhook: which stream takes the call, or that nobody can.

Verbs and attributes: Twilio's documentation of TwiML, `<Connect>`, `<Stream>`, `<Reject>`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from ..errors import ConfigError

_ESCAPES = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        '"': "&quot;",
        # an attribute's line ends and tabs would be read back as spaces
        "\t": "&#9;",
        "\n": "&#10;",
        "\r": "&#13;",
    }
)
# The complement of XML 1.0's production [2] Char: these are illegal even as references.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def connect_stream(url: str, parameters: Mapping[str, str]) -> str:
    """Return the TwiML that joins the call to the WebSocket at ``url``, in both directions.

    ``parameters`` come back as ``Started.parameters``. Raises ``ConfigError`` for a URL that
    Twilio would refuse, and for text that XML cannot carry.
    """
    check_stream_url(url)
    attributes = "".join(
        f'<Parameter name="{_attribute(name)}" value="{_attribute(value)}"/>'
        for name, value in parameters.items()
    )
    stream = f'<Stream url="{_attribute(url)}">{attributes}</Stream>'
    return f"<Response><Connect>{stream}</Connect></Response>"


def busy() -> str:
    """Return the TwiML that refuses the call before it is answered, with the busy tone."""
    return '<Response><Reject reason="busy"/></Response>'


def check_stream_url(url: str) -> None:
    """Raise ``ConfigError`` unless Twilio can open a stream at ``url``.

    It takes TLS only, and no query string (its error 31920). Plain ``ws://`` is allowed toward
    this machine itself, where a stand-in carrier is.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"The stream URL {url!r} is not a URL: give wss://host/path.") from None
    if not host or not (parts.scheme == "wss" or (parts.scheme == "ws" and _is_loopback(host))):
        raise ConfigError(
            f"The stream URL {url!r} cannot be reached by the carrier: give wss://host/path "
            "(plain ws:// only toward this machine)."
        )
    if "?" in url or "#" in url:
        raise ConfigError(
            f"The stream URL {url!r} has a query or a fragment, which the carrier refuses: "
            "pass such values as parameters."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _attribute(text: str) -> str:
    """Escape ``text`` for a double-quoted attribute."""
    if bad := _ILLEGAL.search(text):
        raise ConfigError(f"The text {text!r} holds {bad[0]!r}, which XML cannot carry: remove it.")
    return text.translate(_ESCAPES)
