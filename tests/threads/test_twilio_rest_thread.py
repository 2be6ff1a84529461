"""A call is ended and transferred at a server that answers as Twilio does, or does not."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from urllib.parse import parse_qs

import pytest
from helpers import Worker

from threadline.errors import AddressError, ConfigError, ThreadlineError
from threadline.threads.twilio_rest import Account, hang_up, transfer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def asked(
    answer: Callable[[socket.socket], object], seconds: float = 5.0
) -> tuple[Account, Worker]:
    """An account at a server that takes one request and then does `answer`; the request."""
    listener = socket.create_server(("127.0.0.1", 0))

    def once() -> bytes:
        with listener, listener.accept()[0] as sock:
            request = b""
            while b"\r\n\r\n" not in request:
                request += sock.recv(65_536)
            head, _, body = request.partition(b"\r\n\r\n")
            (length,) = (int(line.split(b":")[1]) for line in head.split(b"\r\n")
                         if line.lower().startswith(b"content-length"))  # fmt: skip
            while len(body) < length:
                body += sock.recv(65_536)
            answer(sock)
        return head + b"\r\n\r\n" + body

    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    return Account("AC1", "token", url, seconds), Worker(once)


def test_the_request_is_sent_and_its_answer_believed() -> None:
    account, server = asked(lambda sock: sock.sendall(OK))
    transfer("CA7", "+15551230000", account)
    request = server.join()
    assert isinstance(request, bytes)
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /2010-04-01/Accounts/AC1/Calls/CA7.json HTTP/1.1\r\n")
    assert b"Authorization: Basic " in head
    assert parse_qs(body.decode()) == {"Twiml": ["<Response><Dial>+15551230000</Dial></Response>"]}


def test_an_error_is_one_sentence() -> None:
    refused = b'HTTP/1.1 400 X\r\nContent-Length: 24\r\n\r\n{"message": "not a call"}'
    account, server = asked(lambda sock: sock.sendall(refused))
    with pytest.raises(ThreadlineError, match=r"^Twilio would not do it \(400: .*\)\.$"):
        hang_up("CA7", account)
    server.join()


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0\r\n"])
def test_what_is_no_answer_is_one_sentence(answer: bytes) -> None:
    account, server = asked(lambda sock: sock.sendall(answer))
    with pytest.raises(AddressError, match=r"^Twilio at 127\.0\.0\.1:\d+ cannot be asked"):
        hang_up("CA7", account)
    server.join()


def test_a_server_that_is_not_there_or_a_number_that_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    account = Account("AC1", "token", f"http://127.0.0.1:{port}")
    with pytest.raises(AddressError, match="refused"):
        hang_up("CA7", account)
    with pytest.raises(ConfigError, match="no number"):
        transfer("CA7", "my colleague", account)


def test_a_server_that_says_nothing_or_drips_is_given_up() -> None:
    def drip(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
        try:
            while True:
                sock.sendall(b" ")
                time.sleep(0.01)
        except OSError:
            return  # the client has left

    for answer in (lambda sock: sock.recv(1), drip):
        account, server = asked(answer, seconds=0.2)
        with pytest.raises(AddressError, match=r"within 0\.2 s"):
            hang_up("CA7", account)
        server.join()
