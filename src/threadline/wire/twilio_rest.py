"""Requests to Twilio's REST interface about a call under way: end it, or hand it to a person.

Built here, sent by ``threads/twilio_rest.py``. Resource and parameters: Twilio's documentation of
``Calls``, "update a call". Twilio closes the media stream of a call that is transferred.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from ..errors import ConfigError

_NUMBER = re.compile(r"\+[1-9][0-9]{3,14}")  # E.164


@dataclass(frozen=True, slots=True)
class Account:
    """Whose calls they are, and where to ask."""

    sid: str
    token: str = field(repr=False)
    url: str = "https://api.twilio.com"
    seconds: float = 5.0  # for the whole exchange


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, ready to be sent."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes


def account(environ: Mapping[str, str]) -> Account:
    """The account that the environment names. ConfigError for what is not set."""
    for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"):
        if not environ.get(name):
            raise ConfigError(f"Calls cannot be transferred or ended by Twilio: set {name}.")
    return Account(environ["TWILIO_ACCOUNT_SID"], environ["TWILIO_AUTH_TOKEN"])


def hang_up(account: Account, call_id: str) -> Request:
    """End the call."""
    return _update(account, call_id, {"Status": "completed"})


def transfer(account: Account, call_id: str, to: str) -> Request:
    """Connect the caller with another number, like "+15551230000"; the agent leaves the call.

    Raises ConfigError for what is no such number.
    """
    number = re.sub(r"[ ().-]", "", to)
    if not _NUMBER.fullmatch(number):
        raise ConfigError(f"{to!r} is no number to transfer to: write it like +15551230000.")
    return _update(account, call_id, {"Twiml": f"<Response><Dial>{number}</Dial></Response>"})


def problem(status: int, body: bytes) -> str:
    """Why the answer to a request is no good, in one sentence; "" when it is."""
    if 200 <= status < 300:
        return ""
    if status in (401, 403):
        return f"Twilio refused the account ({status}): correct TWILIO_AUTH_TOKEN."
    if status == 404:
        return "Twilio knows no such call any more (404): it may be over."
    return f"Twilio would not do it ({status}: {_told(body)})."


def _update(account: Account, call_id: str, form: Mapping[str, str]) -> Request:
    path = f"/2010-04-01/Accounts/{quote(account.sid, '')}/Calls/{quote(call_id, '')}.json"
    credentials = b64encode(f"{account.sid}:{account.token}".encode()).decode()
    headers = {
        "Authorization": f"Basic {credentials}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    return Request("POST", account.url + path, headers, urlencode(form).encode())


def _told(body: bytes) -> str:
    """What the error says of itself."""
    try:
        answer = json.loads(body)
    except ValueError, RecursionError:  # no JSON, or nothing one could read
        return "without a reason"
    said = answer.get("message") if isinstance(answer, dict) else None
    text = " ".join(said.split()).rstrip(".") if isinstance(said, str) else ""
    return (text if len(text) <= 160 else f"{text[:157]}...") or "without a reason"
