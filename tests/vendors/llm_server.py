"""An OpenAI-compatible server on 127.0.0.1 that streams answers, and breaks in every way we know.

What it sends was modelled on the protocol: HTTP/1.1 with keep-alive and chunked transfer, one
SSE `data:` line per chunk; first a role without text, then text, then a `finish_reason`, then a
chunk with `usage` and no choices, then `[DONE]`. Each request takes the next of `plans`; when
there is none left, it answers normally.

By itself it is a process for benchmarks, without faults and cheap for hundreds of streams:
`python llm_server.py --port 0 --first-ms 150 --token-ms 10 --text "..."` prints its port as one
line of JSON and serves until its parent has gone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

Plan = Callable[["Exchange"], None]

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
DONE = b"data: [DONE]\n\n"


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


def tail(finish: str = "stop") -> bytes:
    """What follows the last token."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return chunk({}, finish) + chunk(None, usage=usage) + DONE


def answer(texts: Iterable[str]) -> bytes:
    """A whole stream, as it would be sent."""
    tokens = (chunk({"content": text}) for text in texts)
    return chunk({"role": "assistant", "content": ""}) + b"".join(tokens) + tail()


def fragment(
    index: int, ident: str | None = None, name: str | None = None, more: str = ""
) -> bytes:
    """Some of a tool call: the first one of an index has `ident` and `name`."""
    call: dict[str, Any] = {"index": index, "function": {"arguments": more}}
    if ident is not None:
        call |= {"id": ident, "type": "function"}
        call["function"]["name"] = name
    return chunk({"tool_calls": [call]})


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
        extra = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        self.sock.sendall(f"{head}{extra}\r\n".encode() + body)

    def begin(self) -> None:
        self.sock.sendall(HEAD)

    def send(self, data: bytes) -> None:
        """One HTTP chunk, in one segment."""
        self.sock.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def end(self) -> None:
        self.sock.sendall(b"0\r\n\r\n")

    def stream(self, texts: Iterable[str]) -> None:
        self.begin()
        self.send(answer(texts))
        self.end()

    def partial(self) -> None:
        """The head of an answer, and its first words."""
        self.begin()
        self.send(chunk({"role": "assistant", "content": ""}) + chunk({"content": "Well, "}))

    def byte_by_byte(self, data: bytes, seconds: float = 0.0) -> None:
        """Each byte an HTTP chunk of its own: inside UTF-8, inside JSON, inside a line end."""
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in data:
            if seconds and self.stopping.wait(seconds):
                return
            self.send(bytes([byte]))

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        self.hang_up = True

    def close(self) -> None:
        """Close with FIN."""
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


def _begun(then: Plan) -> Plan:
    def plan(exchange: Exchange) -> None:
        exchange.begin()
        then(exchange)

    return plan


def _sends(*parts: bytes) -> Plan:
    """Head, these chunks, a proper end."""

    def plan(exchange: Exchange) -> None:
        exchange.begin()
        for part in parts:
            exchange.send(part)
        exchange.end()

    return plan


def _no_http(exchange: Exchange) -> None:
    exchange.sock.sendall(b"\x00\xffSSH-2.0\r\n\r\n")
    exchange.hang_up = True


def _drip(exchange: Exchange) -> None:
    exchange.begin()
    exchange.byte_by_byte(answer(["Too late."]), 0.02)


def _keep_alives(exchange: Exchange) -> None:
    exchange.begin()
    while not exchange.stopping.wait(0.02):
        exchange.send(b": still thinking\n\n")


def _flood(exchange: Exchange) -> None:
    exchange.begin()
    exchange.send(b"data: " + b"x" * 2_000_000)
    exchange.hang()


def _failing(code: int, **headers: str) -> Plan:
    return lambda exchange: exchange.status(code, {"message": "no"}, **headers)


BEFORE_HEADERS: dict[str, Plan] = {
    "hang": Exchange.hang,
    "close": Exchange.close,
    "reset": Exchange.reset,
    "not http": _no_http,
    "401": _failing(401),
    "404": _failing(404),
    "429": _failing(429),
    "500": _failing(500),
    "503": _failing(503),
}
AFTER_HEADERS: dict[str, Plan] = {
    "hang after headers": _begun(Exchange.hang),
    "close after headers": _begun(Exchange.close),
    "reset after headers": _begun(Exchange.reset),
    "no event": _sends(b"<html>Welcome</html>"),
    "broken json": _sends(b'data: {"choices": [{"del\n\n'),
    "odd json": _sends(b'data: 5\n\ndata: []\n\ndata: {"choices": "x"}\n\ndata: "s"\n\n'),
    "broken utf-8": _sends(b'data: {"choices": [{"delta": {"content": "\xff\xfe"}}]}\n\n'),
    "error event": _sends(b'data: {"error": {"message": "out of memory"}}\n\n'),
    "no content": _sends(chunk({"role": "assistant", "content": ""}) + tail()),
    "done only": _sends(DONE),
    "nameless tool": _sends(fragment(0, "c1", "", "{}") + tail("tool_calls")),
    "slow drip": _drip,
    "keep-alives": _keep_alives,
    "flood": _flood,
}
"""By name: what can go wrong before a word of the answer is out."""

MIDWAY: dict[str, Plan] = {
    "hang": Exchange.hang,
    "close": Exchange.close,
    "reset": Exchange.reset,
    "end": Exchange.end,
    "broken json": lambda exchange: exchange.send(b'data: {"choices": [{"del\n\n'),
    "error event": lambda exchange: exchange.send(b'data: {"error": {"message": "oom"}}\n\n'),
    "garbage": lambda exchange: exchange.sock.sendall(b"\x00\xff no chunk \r\n\r\n"),
}
"""By name: what can go wrong after `Exchange.partial`."""


@dataclass
class LlmServer:
    """Use as a context manager; `url` goes into `Llm.base_url`."""

    plans: deque[Plan] = field(default_factory=deque)
    requests: list[Exchange] = field(default_factory=list)  # chats, in the order received
    warmed: int = 0  # requests for the list of models
    connections: int = 0
    warm_status: int = 200

    def __enter__(self) -> LlmServer:
        self._stopping = threading.Event()
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._port = 0
        self.listen()
        self.url = f"http://127.0.0.1:{self._port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.refuse()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a connection of the test server did not end"
        if self._errors:
            raise self._errors[0]

    def listen(self) -> None:
        """Take connections; after `refuse`, again, at the same port."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def refuse(self) -> None:
        """Take no further connection."""
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def drop(self) -> None:
        """Close every connection that waits for a request, as an idle server does."""
        for sock in list(self._open):
            sock.shutdown(socket.SHUT_RDWR)

    def _start(self, work: Callable[[socket.socket], None], sock: socket.socket) -> None:
        thread = threading.Thread(target=work, args=(sock,))
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock:
                while (exchange := self._read(sock)) is not None:
                    if exchange.path.endswith("/models"):
                        self.warmed += 1
                        exchange.status(self.warm_status)
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
        self._open.add(sock)
        try:
            data = b""
            while b"\r\n\r\n" not in data:
                if not (more := self._receive(sock)):
                    return None
                data += more
        finally:
            self._open.discard(sock)
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


# -- for benchmarks ---------------------------------------------------------------------------


class _Peer(asyncio.Protocol):
    """One connection: a request, its stream, the next request."""

    def __init__(self, parts: list[bytes], wish: list[bytes], first: float, token: float) -> None:
        self._answer = parts  # HTTP chunks, one a token; the last has the end of the stream too
        self._wish = wish  # sent first, when the model is to want a tool
        self._parts = parts
        self._first = first
        self._token = token
        self._data = b""
        self._next: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's
        self._loop = asyncio.get_running_loop()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._next is not None:
            self._next.cancel()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if not end or len(body) < (size := int(length[1]) if length else 0):
            return
        self._data = body[size:]
        last = json.loads(body[:size])["messages"][-1]["role"] if size else ""
        self._parts = self._wish if self._wish and last == "user" else self._answer
        if b"/models " in head.partition(b"\r\n")[0]:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 29\r\n\r\n"
                b'{"object": "list", "data":[]}'
            )
            return
        self._due = self._loop.time() + self._first
        self._next = self._loop.call_at(self._due, self._send, 0)

    def _send(self, index: int) -> None:
        self._transport.write(HEAD + self._parts[0] if index == 0 else self._parts[index])
        if index + 1 < len(self._parts):
            self._due += self._token
            self._next = self._loop.call_at(self._due, self._send, index + 1)


def _chunked(events: list[bytes]) -> list[bytes]:
    parts = [f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in events]
    parts[-2:] = [parts[-2] + parts[-1] + b"0\r\n\r\n"]
    return parts


async def _serve(port: int, first: float, token: float, text: str, tool: str) -> None:
    tokens = [chunk({"content": word}) for word in re.findall(r"\S+\s*", text)]
    tokens[0] = chunk({"role": "assistant", "content": ""}) + tokens[0]
    wanted = {"name": tool, "arguments": "{}"}
    calls = [{"index": 0, "id": "call_1", "type": "function", "function": wanted}]
    wish = [chunk({"role": "assistant", "tool_calls": calls}), tail("tool_calls")]
    parts, wishes = _chunked([*tokens, tail()]), _chunked(wish) if tool else []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Peer(parts, wishes, first, token), "127.0.0.1", port, backlog=1024
    )
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(1)


def main() -> None:
    """Serve at fixed latencies until the parent process has gone."""
    parser = argparse.ArgumentParser(description="An OpenAI-compatible server for benchmarks.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--first-ms", type=float, default=150.0, help="until the first token")
    parser.add_argument("--token-ms", type=float, default=10.0, help="between two tokens")
    parser.add_argument(
        "--text", default="We are open from nine to five. Would you like to book a table?"
    )
    parser.add_argument("--tool", default="", help="first want this function, at each question")
    at = parser.parse_args()
    import uvloop

    uvloop.run(_serve(at.port, at.first_ms / 1e3, at.token_ms / 1e3, at.text, at.tool))


if __name__ == "__main__":
    main()
