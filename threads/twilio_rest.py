"""Ends and transfers calls through Twilio's REST interface. No thread of its own.

Blocks the thread that asks, for a few seconds at most: for tools, which run on a worker's, and
never for a stage. See wire/twilio_rest.py for what is sent.

    @agent.tool
    def call_a_human(call: CallInfo) -> str:
        '''Connect the caller with a colleague.'''
        transfer(call.call_id, "+15551230000", account(os.environ))
        return "The colleague's phone is ringing."
"""

from __future__ import annotations

import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from ..errors import AddressError, ThreadlineError
from ..wire import twilio_rest as rest
from ..wire.twilio_rest import Account, Request, account

__all__ = ["Account", "account", "hang_up", "transfer"]

MAX_ANSWER = 65_536  # bytes


def hang_up(call_id: str, account: Account) -> None:
    """End the call. Raises ThreadlineError with the reason when Twilio does not."""
    _send(rest.hang_up(account, call_id), account.seconds)


def transfer(call_id: str, to: str, account: Account) -> None:
    """Connect the caller with the number `to`, like "+15551230000"; the agent leaves the call.

    Raises ThreadlineError with the reason: a number that is none, or Twilio's own.
    """
    _send(rest.transfer(account, call_id, to), account.seconds)


def _send(request: Request, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    parts = urlsplit(request.url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=seconds)
    try:
        connection.request(request.method, parts.path, request.body, dict(request.headers))
        answer = connection.getresponse()
        body = b""
        while len(body) < MAX_ANSWER and (more := answer.read1(MAX_ANSWER)):
            body += more
            if time.monotonic() > deadline:  # a slow drip: each byte is within the timeout
                raise TimeoutError
    except TimeoutError:
        raise AddressError(f"Twilio did not answer within {seconds:g} s: try again.") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise AddressError(f"Twilio at {parts.netloc} cannot be asked ({reason}).") from None
    finally:
        connection.close()
    if problem := rest.problem(answer.status, body):
        raise ThreadlineError(problem)
