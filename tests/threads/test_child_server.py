"""What is asked of a server from outside, when something else answers."""

from __future__ import annotations

import socket

import pytest
from helpers import Worker

from threadline.threads.child_server import ready


def answering(answer: bytes) -> tuple[str, Worker]:
    """The address of whatever says this to its first client."""
    listener = socket.create_server(("127.0.0.1", 0))

    def once() -> None:
        with listener, listener.accept()[0] as sock:
            sock.recv(65_536)
            sock.sendall(answer)

    return f"127.0.0.1:{listener.getsockname()[1]}", Worker(once)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\n<p>!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<p>!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
)
def test_another_server_has_no_facts(answer: bytes) -> None:
    address, worker = answering(answer)
    assert ready(address) == (False, {})
    worker.join()


def test_nor_has_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    assert ready(address) == (False, {})


@pytest.mark.parametrize(("status", "yes"), [(b"200 OK", True), (b"503 Busy", False)])
def test_ours_tells_in_both_states(status: bytes, yes: bool) -> None:
    address, worker = answering(
        b"HTTP/1.1 " + status + b'\r\nContent-Length: 11\r\n\r\n{"calls":3}'
    )
    assert ready(address) == (yes, {"calls": 3})
    worker.join()
