"""Every way a model server can answer or fail, over real sockets, ends in one event in time."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("openai")
pytest.importorskip("uvloop")
sys.path.insert(0, str(Path(__file__).parents[1] / "vendors"))
from llm_server import Exchange, LlmServer, answer, chunk

from threadline.config import Llm
from threadline.dialog.history import Message
from threadline.threads.io_vendors import (
    AskModel,
    CancelModel,
    IoVendors,
    ModelDelta,
    ModelDone,
    ModelFailed,
    ModelRequests,
    Models,
)
from threadline.threads.wake import Inbox

TALK = (Message("system", "Be brief."), Message("user", "Grüß Gott, wer ist da?"))
PATIENCE = 20.0


class Desk:
    """The reply thread's side: asks, and collects what comes back."""

    def __init__(self, llm: Llm, max_requests: int = 4, limit: int = 4096) -> None:
        inbox = Inbox("io-vendors")
        self.inbox = Inbox("reply")
        self.requests = ModelRequests(inbox.port("reply"))
        self.stage = IoVendors(llm, inbox, self.inbox.port("io-vendors"), max_requests)
        self.events: list[object] = []
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="io-vendors")

    def _run(self) -> None:
        try:
            self.stage.begin()
            self.stage.step()
            self.stage.finish()
        except BaseException as error:  # noqa: BLE001  # raised again by the test's own thread
            self.error = error

    def ask(self, ask: int, slot: int = 0) -> None:
        self.requests.ask(slot, 1, 7, ask, TALK)

    def collect(self) -> None:
        self.inbox.wait(0.02)
        self.events += self.inbox.events()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"never: {what}; got {self.events}"
            assert self.error is None, self.error
            self.collect()

    def end_of(self, ask: int) -> ModelDone | ModelFailed:
        def ends() -> list[ModelDone | ModelFailed]:
            found = [e for e in self.events if isinstance(e, ModelDone | ModelFailed)]
            return [e for e in found if e.ask == ask]

        self.until(lambda: bool(ends()), f"the end of request {ask}")
        assert len(ends()) == 1
        return ends()[0]

    def text(self, ask: int) -> str:
        deltas = [e for e in self.events if isinstance(e, ModelDelta)]
        return "".join(delta.text for delta in deltas if delta.ask == ask)

    def reason(self, ask: int) -> str:
        end = self.end_of(ask)
        assert isinstance(end, ModelFailed), end
        return end.reason


@contextmanager
def desk(llm: Llm, max_requests: int = 4) -> Iterator[Desk]:
    at = Desk(llm, max_requests)
    at.thread.start()
    try:
        yield at
    finally:
        at.stage.stop()
        at.thread.join(PATIENCE)
        assert not at.thread.is_alive(), "io-vendors did not stop"
        if at.error is not None:
            raise at.error


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with LlmServer() as server:
        yield server


def settings(server: LlmServer) -> Llm:
    """Deadlines that no healthy exchange meets, so that only the tested one can pass."""
    return Llm(
        brain="openai",
        model="test-model",
        base_url=server.url,
        connect_seconds=3 * PATIENCE,
        token_seconds=3 * PATIENCE,
        total_seconds=3 * PATIENCE,
    )


def test_answer_request_and_identity(server: LlmServer) -> None:
    with desk(settings(server)) as at:
        at.ask(3)
        assert at.end_of(3) == ModelDone(slot=0, generation=1, epoch=7, ask=3)
        assert at.text(3) == "Hello, caller."
        delta = next(event for event in at.events if isinstance(event, ModelDelta))
        assert (delta.slot, delta.generation, delta.epoch) == (0, 1, 7)
        body = server.requests[0].body
        assert body["model"] == "test-model"
        assert body["stream"] is True
        assert body["messages"][1] == {"role": "user", "content": "Grüß Gott, wer ist da?"}


def test_tokens_of_one_read_leave_as_one_event(server: LlmServer) -> None:
    words = [f"w{i} " for i in range(300)]  # more than a ring holds
    server.plans.append(lambda exchange: exchange.stream(words))
    with desk(settings(server)) as at:
        at.ask(1)
        at.end_of(1)
        assert at.text(1) == "".join(words)
        assert sum(isinstance(event, ModelDelta) for event in at.events) < 100


def test_bytes_may_be_cut_anywhere(server: LlmServer) -> None:
    """Each byte is an HTTP chunk of its own: inside UTF-8, inside JSON, inside a line end."""
    texts = ["Grüße, ", "naïve ", "日本 ", "🙂."]

    def byte_by_byte(exchange: Exchange) -> None:
        exchange.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        exchange.begin()
        for byte in answer(texts):
            exchange.send(bytes([byte]))
        exchange.end()

    server.plans.append(byte_by_byte)
    with desk(settings(server)) as at:
        at.ask(1)
        assert isinstance(at.end_of(1), ModelDone)
        assert at.text(1) == "".join(texts)


def test_chunks_without_choices_are_skipped(server: LlmServer) -> None:
    def plan(exchange: Exchange) -> None:
        exchange.begin()
        exchange.send(b": keep-alive\n\n" + chunk(None) + chunk({"content": "Yes."}) + chunk(None))
        exchange.send(chunk({}, "stop") + b"data: [DONE]\n\n")
        exchange.end()

    server.plans.append(plan)
    with desk(settings(server)) as at:
        at.ask(1)
        assert isinstance(at.end_of(1), ModelDone)
        assert at.text(1) == "Yes."


def partial(exchange: Exchange) -> None:
    exchange.begin()
    exchange.send(chunk({"role": "assistant", "content": ""}) + chunk({"content": "Well, "}))


def hang_midway(exchange: Exchange) -> None:
    partial(exchange)
    exchange.hang()


def stop_midway(exchange: Exchange) -> None:
    partial(exchange)
    exchange.end()


def trickle(exchange: Exchange) -> None:
    partial(exchange)
    while not exchange.stopping.wait(0.02):
        exchange.send(chunk({"content": "and "}))


def error_midway(exchange: Exchange) -> None:
    partial(exchange)
    exchange.send(b'data: {"error": {"message": "out of memory"}}\n\n')
    exchange.end()


def broken_json(exchange: Exchange) -> None:
    partial(exchange)
    exchange.send(b'data: {"choices": [{"del\n\n')
    exchange.end()


def odd_json(exchange: Exchange) -> None:
    exchange.begin()
    exchange.send(b'data: 5\n\ndata: []\n\ndata: {"choices": "x"}\n\ndata: "s"\n\n')
    exchange.end()


def page(exchange: Exchange) -> None:
    exchange.whole("200 OK", b"<html>Welcome</html>", "text/html")


def no_http(exchange: Exchange) -> None:
    exchange.sock.sendall(b"\x00\xffSSH-2.0\r\n\r\n")
    exchange.hang_up = True


@pytest.mark.parametrize(
    ("plan", "reason", "heard"),
    [
        (lambda e: e.status(401, {"message": "bad key"}), "THREADLINE_LLM_API_KEY", ""),
        (lambda e: e.status(404, {"message": "no model"}), "'test-model'", ""),
        (lambda e: e.status(429, {"message": "slow down"}), "(429)", ""),
        (lambda e: e.status(429, {"message": "x"}, **{"retry-after": "60"}), "(429)", ""),
        (lambda e: e.status(500, {"message": "oops"}), "(500)", ""),
        (Exchange.reset, "broke off", ""),
        (stop_midway, "before its answer was complete", "Well, "),
        (error_midway, "out of memory", "Well, "),
        (broken_json, "no chat completion", "Well, "),
        (odd_json, "model server", ""),
        (page, "before its answer was complete", ""),
        (no_http, "broke off", ""),
    ],
)
def test_fault(
    server: LlmServer, plan: Callable[[Exchange], None], reason: str, heard: str
) -> None:
    server.plans.append(plan)
    with desk(settings(server)) as at:
        at.ask(1)
        assert reason in at.reason(1)
        assert at.text(1) == heard
        assert len(server.requests) == 1, "a failed request is not repeated"
        at.ask(2)  # and the next one is as good as new
        assert isinstance(at.end_of(2), ModelDone)
        assert at.text(2) == "Hello, caller."


def test_reset_midway(server: LlmServer) -> None:
    read = threading.Event()  # a reset throws away what the client's kernel still holds

    def plan(exchange: Exchange) -> None:
        partial(exchange)
        read.wait(PATIENCE)
        exchange.reset()

    server.plans.append(plan)
    with desk(settings(server)) as at:
        at.ask(1)
        at.until(lambda: at.text(1) == "Well, ", "the first words")
        read.set()
        assert "broke off" in at.reason(1)


@pytest.mark.parametrize(
    ("plan", "limit", "heard"),
    [
        (Exchange.hang, "token_seconds", ""),
        (hang_midway, "token_seconds", "Well, "),
        (Exchange.hang, "total_seconds", ""),
        (trickle, "total_seconds", "Well, and"),
    ],
)
def test_deadline(
    server: LlmServer, plan: Callable[[Exchange], None], limit: str, heard: str
) -> None:
    server.plans.append(plan)
    with desk(replace(settings(server), **{limit: 0.4})) as at:
        at.ask(1)
        assert f"llm.{limit}" in at.reason(1)
        assert at.text(1).startswith(heard)
        assert bool(at.text(1)) == bool(heard)


def test_refused_connection_says_what_to_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    llm = Llm(brain="openai", base_url=url)
    with desk(llm) as at:  # the failed warm-up is no obstacle either
        at.ask(1)
        assert f"{url} cannot be reached: start it" in at.reason(1)


def test_a_listener_that_never_accepts_meets_the_connect_deadline() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        for _ in range(8):  # fill the backlog: from then on the kernel drops further SYNs
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            waiting.append(filler)
        url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        with desk(Llm(brain="openai", base_url=url, connect_seconds=0.3)) as at:
            at.ask(1)
            assert "llm.connect_seconds" in at.reason(1)
        for filler in waiting:
            filler.close()


def test_after_a_cancel_nothing_of_it_is_published(server: LlmServer) -> None:
    goes_on = threading.Event()

    def plan(exchange: Exchange) -> None:
        partial(exchange)
        goes_on.wait(PATIENCE)
        exchange.send(chunk({"content": "LATE"}) + chunk({}, "stop") + b"data: [DONE]\n\n")
        exchange.end()

    server.plans.append(plan)
    with desk(settings(server)) as at:
        at.ask(1)
        at.until(lambda: at.text(1) == "Well, ", "the first words")
        at.requests.cancel(0, 1, 1)
        at.ask(2)  # handled after the cancel, on the same loop
        assert isinstance(at.end_of(2), ModelDone)
        goes_on.set()
        at.ask(3)
        at.end_of(3)
        assert at.text(1) == "Well, "
        assert not any(isinstance(e, ModelDone | ModelFailed) and e.ask == 1 for e in at.events)
        assert at.stage._models is not None
        assert at.stage._models.cancelled == 1


def test_a_cancel_leaves_the_server_and_warms_another_connection(server: LlmServer) -> None:
    server.plans.append(hang_midway)
    with desk(settings(server)) as at:
        at.until(lambda: server.warmed == 1, "the first warm-up")
        at.ask(1)
        at.until(lambda: at.text(1) == "Well, ", "the first words")
        at.requests.cancel(0, 1, 1)
        at.until(server.requests[0].left.is_set, "the connection closed")
        at.until(lambda: server.warmed == 2, "the second warm-up")


def test_a_token_received_just_before_its_cancel_is_not_published(server: LlmServer) -> None:
    """Tokens wait for the end of the loop's turn; the cancel is handled within that turn."""
    server.plans.append(hang_midway)
    published: list[object] = []

    async def turn() -> None:
        models = Models(settings(server), published.append, 1)
        models.handle(AskModel(0, 1, 7, 1, TALK))
        models._received(models._requests[0], "a token")
        models.handle(CancelModel(0, 1, 1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await models.close()

    asyncio.run(turn())
    assert published == []


def test_the_token_deadline_counts_from_the_last_token(server: LlmServer) -> None:
    def plan(exchange: Exchange) -> None:
        exchange.begin()
        for _ in range(30):
            exchange.send(chunk({"content": "and "}))
            exchange.stopping.wait(0.05)
        exchange.send(chunk({}, "stop"))
        exchange.end()

    server.plans.append(plan)
    with desk(replace(settings(server), token_seconds=1.0)) as at:
        at.ask(1)
        assert isinstance(at.end_of(1), ModelDone)
        assert at.text(1) == "and " * 30


def test_a_cancel_names_its_request(server: LlmServer) -> None:
    """An older ask, or another caller's generation, cancels nothing."""
    goes_on = threading.Event()

    def plan(exchange: Exchange) -> None:
        partial(exchange)
        goes_on.wait(PATIENCE)
        exchange.send(chunk({}, "stop"))
        exchange.end()

    server.plans.append(plan)
    with desk(settings(server)) as at:
        at.ask(5)
        at.until(lambda: at.text(5) == "Well, ", "the first words")
        at.requests.cancel(0, 1, 4)
        at.requests.cancel(0, 3, 5)
        at.requests.cancel(1, 1, 5)
        goes_on.set()
        assert isinstance(at.end_of(5), ModelDone)


def test_a_new_ask_replaces_the_old_one_of_its_slot_only(server: LlmServer) -> None:
    server.plans.extend([hang_midway, hang_midway])
    with desk(settings(server)) as at:
        at.ask(1, slot=0)
        at.ask(2, slot=1)
        at.until(lambda: at.text(1) == at.text(2) == "Well, ", "both begun")
        at.ask(3, slot=0)
        at.end_of(3)
        ended = {e.ask for e in at.events if isinstance(e, ModelDone | ModelFailed)}
        assert ended == {3}
        assert at.stage._models is not None
        assert set(at.stage._models._requests) == {1}
        at.until(lambda: any(e.left.is_set() for e in server.requests), "the old one closed")


def test_requests_beyond_the_bound_wait_for_room(server: LlmServer) -> None:
    gate, busy, most = threading.Event(), [], []

    def plan(exchange: Exchange) -> None:
        busy.append(exchange)
        most.append(len(busy))
        gate.wait(PATIENCE)
        busy.remove(exchange)
        exchange.stream(["ok."])

    server.plans.extend([plan] * 5)
    with desk(settings(server), max_requests=2) as at:
        for ask in range(1, 6):
            at.ask(ask, slot=ask)
        at.until(lambda: len(busy) == 2, "two on the wire")
        gate.set()
        for ask in range(1, 6):
            assert isinstance(at.end_of(ask), ModelDone)
        assert max(most) <= 2


def test_the_first_connection_is_open_before_the_first_request(server: LlmServer) -> None:
    with desk(settings(server)) as at:
        at.until(lambda: server.warmed == 1, "the warm-up")
        at.ask(1)
        at.end_of(1)
        at.ask(2)
        at.end_of(2)
        assert server.connections == 1


def test_stop_with_requests_under_way_ends_the_thread(server: LlmServer) -> None:
    server.plans.extend([Exchange.hang, hang_midway])
    with desk(settings(server)) as at:
        at.ask(1, slot=0)
        at.ask(2, slot=1)
        at.until(lambda: len(server.requests) == 2, "both on the wire")
    assert not any(isinstance(event, ModelDone) for event in at.events)


def test_a_full_ring_keeps_events_in_order(server: LlmServer) -> None:
    """Nobody drains for a while: what does not fit waits, and nothing is lost."""
    count = 200

    def plan(exchange: Exchange) -> None:
        exchange.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        exchange.begin()
        for i in range(count):
            exchange.send(chunk({"content": f"{i} "}))
            while len(sent) <= i and not exchange.stopping.is_set():
                time.sleep(0.0005)
        exchange.send(chunk({}, "stop"))
        exchange.end()

    sent: list[str] = []
    server.plans.append(plan)
    at = Desk(settings(server))
    published = at.stage._publish

    def publish(event: object) -> None:  # one event per token: the server waits for each
        published(event)  # type: ignore[arg-type]  # as the stage's own
        sent.append("")

    at.stage._publish = publish  # type: ignore[method-assign]  # to watch it
    at.thread.start()
    try:
        at.ask(1)
        deadline = time.monotonic() + PATIENCE
        while len(sent) <= count and time.monotonic() < deadline:
            time.sleep(0.005)
        assert at.stage._to_reply.stalls > 0
        at.end_of(1)
        assert at.text(1) == "".join(f"{i} " for i in range(count))
    finally:
        at.stage.stop()
        at.thread.join(PATIENCE)
    assert at.error is None
