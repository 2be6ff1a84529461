"""An OpenAI-compatible server on 127.0.0.1 that streams answers, and breaks in every way we know.

What it sends was modelled on the protocol: HTTP/1.1 with keep-alive and chunked transfer, one
SSE `data:` line per chunk; first a role without text, then text, then a `finish_reason`, then a
chunk with `usage` and no choices, then `[DONE]`. Each request takes the next of `plans`; when
there is none left, it answers normally.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

Plan = Callable[["Exchange"], None]


def chunk(delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> bytes:
    """One SSE event. `delta` None: no choices at all."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "test-model",
        "choices": choices,
        **more,
    }
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def answer(texts: Iterable[str]) -> bytes:
    """A whole stream, as it would be sent."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return b"".join(
        [
            chunk({"role": "assistant", "content": ""}),
            *(chunk({"content": text}) for text in texts),
            chunk({}, "stop"),
            chunk(None, usage=usage),
            b"data: [DONE]\n\n",
        ]
    )


@dataclass
class Exchange:
    """One request, and the means to answer or to spoil it."""

    sock: socket.socket
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    stopping: threading.Event
    left: threading.Event = field(default_factory=threading.Event)  # the client did, in `hang`
    hang_up: bool = False  # do not wait for another request on this connection

    def status(self, code: int, error: dict[str, Any] | None = None, **headers: str) -> None:
        body = json.dumps({"error": error} if error else {"object": "list", "data": []}).encode()
        self.whole(f"{code} X", body, "application/json", **headers)

    def whole(self, status: str, body: bytes, kind: str, **headers: str) -> None:
        extra = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        self.sock.sendall(f"{head}{extra}\r\n".encode() + body)

    def begin(self) -> None:
        self.sock.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )

    def send(self, data: bytes) -> None:
        """One HTTP chunk, in one segment."""
        self.sock.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def end(self) -> None:
        self.sock.sendall(b"0\r\n\r\n")

    def stream(self, texts: Iterable[str]) -> None:
        self.begin()
        self.send(answer(texts))
        self.end()

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        self.hang_up = True

    def hang(self) -> None:
        """Say nothing until the server stops or the client leaves."""
        self.hang_up = True
        self.sock.settimeout(0.05)
        while not self.stopping.is_set():
            try:
                if not self.sock.recv(1024):
                    self.left.set()
                    return
            except TimeoutError:
                continue


def normal(exchange: Exchange) -> None:
    exchange.stream(["Hello", ", ", "caller", "."])


@dataclass
class LlmServer:
    """Use as a context manager; `url` goes into `Llm.base_url`."""

    plans: deque[Plan] = field(default_factory=deque)
    requests: list[Exchange] = field(default_factory=list)  # chats, in the order received
    warmed: int = 0  # requests for the list of models
    connections: int = 0

    def __enter__(self) -> LlmServer:
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a connection of the test server did not end"
        if self._errors:
            raise self._errors[0]

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock:
                while (exchange := self._read(sock)) is not None:
                    if exchange.path.endswith("/models"):
                        self.warmed += 1
                        exchange.status(200)
                        continue
                    self.requests.append(exchange)
                    (self.plans.popleft() if self.plans else normal)(exchange)
                    if exchange.hang_up:
                        return
        except OSError:
            return  # the client left: it may
        except BaseException as error:  # noqa: BLE001  # raised again by the test's own thread
            self._errors.append(error)

    def _read(self, sock: socket.socket) -> Exchange | None:
        """The next request, or None when the client closed or the server stops."""
        sock.settimeout(0.05)
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := self._receive(sock)):
                return None
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            if not (more := self._receive(sock)):
                return None
            body += more
        sock.settimeout(10)
        path = first.split(" ")[1]
        return Exchange(sock, path, headers, json.loads(body or b"{}"), self._stopping)

    def _receive(self, sock: socket.socket) -> bytes:
        while not self._stopping.is_set():
            try:
                return sock.recv(65536)
            except TimeoutError:
                continue
        return b""
