"""Twilio's signature: proof that a webhook or a WebSocket upgrade comes from our account.

``X-Twilio-Signature`` is base64(HMAC-SHA1(auth token, text)), where the text is the URL as Twilio
called it, followed by every POST parameter as name and value, without separators, sorted by name
(Twilio's documentation, "Webhooks security"). For an upgrade the URL begins with ``wss://`` and
there are no parameters.
"""

from __future__ import annotations

import hmac
from binascii import b2a_base64
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}

type Pairs = Iterable[tuple[str, str]]


def sign(token: str, url: str, params: Pairs) -> str:
    """Return the header for a request to ``url``.

    ``params`` are the POST parameters as (name, value) pairs, as ``urllib.parse.parse_qsl`` with
    ``keep_blank_values=True`` gives them, in any order; a pair that is repeated counts once.
    """
    text = url + "".join(name + value for name, value in sorted(set(params)))
    # surrogatepass: what a header or a form held must not make us raise, nor collide
    mac = hmac.digest(token.encode(), text.encode("utf-8", "surrogatepass"), "sha1")
    return b2a_base64(mac, newline=False).decode("ascii")


def valid(token: str, url: str, params: Pairs, header: str | None) -> bool:
    """Whether ``header`` signs this request, compared in constant time.

    Twilio is not consistent about the port, so the URL counts with its port, without it, and
    with the scheme's default one. An empty token signs nothing: it never validates.
    """
    if not token or not header:
        return False
    given = header.strip().encode("utf-8", "surrogatepass")
    pairs = list(params)
    matches = [
        hmac.compare_digest(sign(token, form, pairs).encode(), given) for form in _port_forms(url)
    ]
    return any(matches)


def request_url(
    target: str,
    headers: Mapping[str, str],
    *,
    websocket: bool,
    public_url: str = "",
    secure: bool = False,
) -> str:
    """Return the URL by which the carrier called us, as far as the request tells.

    ``target`` is the request's path and query, ``headers`` have lower-case names. The address is
    ``public_url`` (``wss://host``) when that is configured; else the proxy's ``X-Forwarded-Proto``
    and ``X-Forwarded-Host``; else ``Host``, with TLS if ``secure``. Forged headers gain nothing:
    the signature must still fit the URL that they make.
    """
    if public_url:
        scheme, _, host = public_url.rstrip("/").partition("://")
    else:
        scheme = _first(headers, "x-forwarded-proto") or ("https" if secure else "http")
        host = _first(headers, "x-forwarded-host") or headers.get("host", "")
    encrypted = scheme.lower() in ("https", "wss")
    protocol = ("wss" if encrypted else "ws") if websocket else ("https" if encrypted else "http")
    return f"{protocol}://{host}{target}"


def _first(headers: Mapping[str, str], name: str) -> str:
    """Each proxy on the way appends to the list: the first entry is what the carrier used."""
    return headers.get(name, "").partition(",")[0].strip()


def _port_forms(url: str) -> tuple[str, ...]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a host that is none: only the literal text can be compared
        return (url,)
    default = DEFAULT_PORTS.get(parts.scheme)
    if default is None or parts.hostname is None:
        return (url,)
    bare = parts.netloc if port is None else parts.netloc.rpartition(":")[0]
    head = f"{parts.scheme}://"
    rest = url[len(head) + len(parts.netloc) :]
    return tuple({url, f"{head}{bare}{rest}", f"{head}{bare}:{default}{rest}"})
