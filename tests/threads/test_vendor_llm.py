"""Every way a model server can answer or fail, over real sockets, ends in one event in time."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("openai")
pytest.importorskip("uvloop")
sys.path.insert(0, str(Path(__file__).parents[1] / "vendors"))
import uvloop
from helpers import DEADLINE, Worker, until
from llm_server import (
    AFTER_HEADERS,
    BEFORE_HEADERS,
    MIDWAY,
    Exchange,
    LlmServer,
    Plan,
    answer,
    chunk,
    fragment,
    normal,
    tail,
)

from threadline.config import Llm
from threadline.dialog.history import Message
from threadline.dialog.tools import ToolCall, ToolSpec
from threadline.observe.prometheus import render
from threadline.threads import vendor_llm
from threadline.threads.messages import (
    AskModel,
    CancelModel,
    Event,
    ModelDelta,
    ModelDone,
    ModelFailed,
    ModelTools,
)
from threadline.threads.vendor_llm import Models

TALK = (Message("system", "Be brief."), Message("user", "Grüß Gott, wer ist da?"))
FAR = 3 * DEADLINE  # a deadline that no healthy exchange meets, so that only the tested one passes


class Desk:
    """The other side of `Models`: asks from this thread, and collects what comes back."""

    def __init__(self, llm: Llm, max_requests: int = 4) -> None:
        self.events: list[Event] = []
        self._loop = uvloop.new_event_loop()
        self._llm = llm
        self._max_requests = max_requests
        self._made = threading.Event()
        self._thread = Worker(self._run, "io-vendors")
        assert self._made.wait(DEADLINE)

    def _run(self) -> None:
        self._loop.call_soon(self._make)
        self._loop.run_forever()
        self._loop.run_until_complete(self.models.close())
        left = asyncio.all_tasks(self._loop)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
        assert not left, "closed is closed"

    def _make(self) -> None:
        self.models = Models(self._llm, self.events.append, self._max_requests)
        self.models.warm()
        self._made.set()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def handle(self, *events: Event) -> None:
        """All in one turn of the loop."""
        self._loop.call_soon_threadsafe(lambda: [self.models.handle(event) for event in events])

    def ask(self, ask: int, slot: int = 0, tools: tuple[ToolSpec, ...] = ()) -> None:
        self.handle(AskModel(slot, 1, 7, ask, TALK, tools))

    def warmed(self) -> None:
        """Wait until no connection is being opened ahead of need."""
        until(lambda: self.models._warming is not None and self.models._warming.done(), "warm")

    def ends(self, ask: int) -> list[ModelDone | ModelFailed]:
        found = [e for e in self.events if isinstance(e, ModelDone | ModelFailed)]
        return [e for e in found if e.ask == ask]

    def end_of(self, ask: int) -> ModelDone | ModelFailed:
        until(lambda: self.ends(ask), f"the end of request {ask}")
        return self.ends(ask)[0]

    def reason(self, ask: int) -> str:
        end = self.end_of(ask)
        assert isinstance(end, ModelFailed), (end, self.text(ask))
        return end.reason

    def done(self, ask: int) -> str:
        """The text of an answer that has ended well."""
        end = self.end_of(ask)
        assert isinstance(end, ModelDone), end
        return self.text(ask)

    def deltas(self, ask: int) -> list[ModelDelta]:
        return [e for e in list(self.events) if isinstance(e, ModelDelta) and e.ask == ask]

    def text(self, ask: int) -> str:
        return "".join(delta.text for delta in self.deltas(ask))


@contextmanager
def desk(llm: Llm, max_requests: int = 4) -> Iterator[Desk]:
    at = Desk(llm, max_requests)
    try:
        yield at
    finally:
        at.close()
        ended = Counter(e.ask for e in at.events if isinstance(e, ModelDone | ModelFailed))
        assert all(count == 1 for count in ended.values()), ended


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with LlmServer() as server:
        yield server


def settings(server: LlmServer, *models: str) -> Llm:
    return Llm(
        chain=tuple(f"openai:{model}" for model in models or ("a",)),
        base_url=server.url,
        connect_seconds=FAR,
        first_token_seconds=FAR,
        token_seconds=FAR,
        total_seconds=FAR,
        queue_seconds=FAR,
    )


def models_asked(server: LlmServer) -> list[str]:
    return [request.body["model"] for request in server.requests]


# -- an answer --------------------------------------------------------------------------------


def test_answer_request_and_identity(server: LlmServer) -> None:
    with desk(settings(server)) as at:
        began = time.monotonic_ns()
        at.ask(3)
        assert at.end_of(3) == ModelDone(slot=0, generation=1, epoch=7, ask=3)
        assert at.text(3) == "Hello, caller."
        delta = at.deltas(3)[0]
        assert (delta.slot, delta.generation, delta.epoch) == (0, 1, 7)
        assert began < delta.first_at < time.monotonic_ns()
        body = server.requests[0].body
        assert (body["model"], body["stream"]) == ("a", True)
        assert body["messages"][1] == {"role": "user", "content": "Grüß Gott, wer ist da?"}
        assert "tools" not in body


def test_the_key_goes_with_every_request(server: LlmServer) -> None:
    with desk(replace(settings(server), api_key="s3cret")) as at:
        at.ask(1)
        at.done(1)
    assert server.requests[0].headers["authorization"] == "Bearer s3cret"


def test_tokens_of_one_read_leave_as_one_event(server: LlmServer) -> None:
    words = [f"w{i} " for i in range(300)]  # more than a ring holds
    server.plans.append(lambda exchange: exchange.stream(words))
    with desk(settings(server)) as at:
        at.ask(1)
        assert at.done(1) == "".join(words)
        assert len(at.deltas(1)) < 60


def test_tokens_after_the_first_clause_are_read_together(
    server: LlmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor_llm, "FIRST_PAUSE_SECONDS", 0.5)
    monkeypatch.setattr(vendor_llm, "LAST_PAUSE_SECONDS", 0.5)
    opening, later = ["Two ", "of ", "them, "], [f"w{i} " for i in range(20)]
    seen = [threading.Event() for _ in opening]

    def plan(exchange: Exchange) -> None:
        exchange.begin()
        for word, event in zip(opening, seen, strict=True):
            exchange.send(chunk({"content": word}))
            event.wait(DEADLINE)
        for word in later:
            exchange.send(chunk({"content": word}))
            time.sleep(0.005)
        exchange.send(tail())
        exchange.end()

    server.plans.append(plan)
    with desk(settings(server)) as at:
        at.ask(1)
        for words, event in enumerate(seen, 1):
            until(lambda words=words: len(at.deltas(1)) == words, "a word of the first clause")
            event.set()
        assert at.done(1) == "".join(opening + later)
        assert len(at.deltas(1)) < len(opening) + 4


def test_every_event_says_when_the_first_token_came(server: LlmServer) -> None:
    read = threading.Event()

    def plan(exchange: Exchange) -> None:
        exchange.partial()
        read.wait(DEADLINE)
        exchange.send(chunk({"content": "hello."}) + tail())
        exchange.end()

    server.plans.append(plan)
    with desk(settings(server)) as at:
        at.ask(1)
        until(lambda: at.text(1) == "Well, ", "the first words")
        seen = time.monotonic_ns()
        read.set()
        at.done(1)
        first, second = at.deltas(1)
        assert first.first_at == second.first_at < seen


def test_bytes_may_be_cut_anywhere(server: LlmServer) -> None:
    texts = ["Grüße, ", "naïve ", "日本 ", "🙂."]

    def plan(exchange: Exchange) -> None:
        exchange.begin()
        exchange.byte_by_byte(answer(texts))
        exchange.end()

    server.plans.append(plan)
    with desk(settings(server)) as at:
        at.ask(1)
        assert at.done(1) == "".join(texts)


def test_an_answer_is_over_when_it_says_so(server: LlmServer) -> None:
    """Not when the server has closed its stream; and the connection is not used again."""

    def plan(exchange: Exchange) -> None:
        exchange.begin()
        exchange.send(answer(["Hello."]))
        exchange.hang()

    server.plans.append(plan)
    with desk(replace(settings(server), token_seconds=0.1)) as at:
        at.ask(1)
        assert at.done(1) == "Hello."
        at.ask(2)
        assert at.done(2) == "Hello, caller."
        assert server.requests[0].left.wait(DEADLINE)
        assert at.models._entries[0].failed == 0


def test_done_twice_is_done_once(server: LlmServer) -> None:
    def plan(exchange: Exchange) -> None:
        exchange.begin()
        exchange.send(answer(["Hello."]) + b"data: [DONE]\n\n" + answer(["Again."]))
        exchange.end()

    server.plans.append(plan)
    with desk(settings(server)) as at:
        at.ask(1)
        at.done(1)
        at.ask(2)
        at.done(2)
        assert at.text(1) == "Hello."


TOOL = ToolSpec("book", "Book a table.", {"type": "object", "properties": {}})


def test_tool_calls_come_whole_and_before_the_end(server: LlmServer) -> None:
    def plan(exchange: Exchange) -> None:
        exchange.begin()
        exchange.send(chunk({"content": "One moment."}))
        exchange.byte_by_byte(fragment(0, "c1", "book") + fragment(0, more='{"day": "Mö'))
        exchange.send(fragment(1, "c2", "ring", "{}") + fragment(0, more='ntag"}'))
        exchange.send(tail("tool_calls"))
        exchange.end()

    server.plans.append(plan)
    with desk(settings(server)) as at:
        at.ask(1, tools=(TOOL,))
        assert at.done(1) == "One moment."
        calls = (ToolCall("c1", "book", '{"day": "Möntag"}'), ToolCall("c2", "ring", "{}"))
        assert at.events[-2:] == [ModelTools(0, 1, 7, 1, calls), ModelDone(0, 1, 7, 1)]
        assert server.requests[0].body["tools"][0]["function"]["name"] == "book"


def test_tool_calls_without_a_word_are_an_answer(server: LlmServer) -> None:
    server.plans.append(_tools_only)
    with desk(settings(server)) as at:
        at.ask(1, tools=(TOOL,))
        assert at.done(1) == ""
        assert at.events[0] == ModelTools(0, 1, 7, 1, (ToolCall("c1", "book", "{}"),))


def _tools_only(exchange: Exchange) -> None:
    exchange.begin()
    exchange.send(fragment(0, "c1", "book", "{}") + tail("tool_calls"))
    exchange.end()


# -- faults -----------------------------------------------------------------------------------

HANGS = {"hang", "hang after headers", "slow drip", "keep-alives"}
STALE = {"close", "reset"}  # so a connection looks that was closed while it was idle
EARLY: dict[str, Plan] = BEFORE_HEADERS | AFTER_HEADERS


def told(server: LlmServer, fault: str, *models: str) -> Llm:
    """Deadlines far off, but for the one that ends this fault."""
    seconds = 0.6 if fault in HANGS else FAR
    return replace(settings(server, *models), first_token_seconds=seconds)


REASONS = {
    "401": "OPENAI_API_KEY",
    "404": "'a'",
    "429": "(429)",
    "500": "(500)",
    "close": "broke off",
    "reset": "broke off",
    "not http": "broke off",
    "error event": "out of memory",
    "no content": "empty answer",
    "no event": "no chat completion",
    "broken json": "no chat completion",
    "flood": "more than an answer",
    "hang": "llm.first_token_seconds",
    "keep-alives": "llm.first_token_seconds",
}


@pytest.mark.parametrize("fault", EARLY)
def test_fault_before_the_first_word(server: LlmServer, fault: str) -> None:
    with desk(told(server, fault)) as at:
        at.warmed()
        tries = 2 if fault in STALE else 1
        server.plans.extend([EARLY[fault]] * tries)
        at.ask(1)
        reason = at.reason(1)
        assert len(server.requests) == tries
        assert REASONS.get(fault, "") in reason
        assert server.url in reason
        assert at.text(1) == ""
        at.handle(CancelModel(0, 1, 1))  # too late: it changes nothing
        at.ask(2)
        assert at.done(2) == "Hello, caller.", "the next one is as good as new"


@pytest.mark.parametrize("fault", EARLY)
def test_fault_before_the_first_word_and_the_next_model_answers(
    server: LlmServer, fault: str
) -> None:
    with desk(told(server, fault, "a", "b")) as at:
        at.warmed()
        tries = 2 if fault in STALE else 1
        server.plans.extend([EARLY[fault]] * tries)
        at.ask(1)
        assert at.done(1) == "Hello, caller."
        assert models_asked(server) == ["a"] * tries + ["b"]


@pytest.mark.parametrize("models", [("a",), ("a", "b")], ids=["one", "two"])
@pytest.mark.parametrize("fault", MIDWAY)
def test_fault_in_mid_answer(server: LlmServer, fault: str, models: tuple[str, ...]) -> None:
    """What has been said is not said again by another model: the answer ends there."""
    read = threading.Event()  # a reset throws away what the client's kernel still holds

    def plan(exchange: Exchange) -> None:
        exchange.partial()
        read.wait(DEADLINE)
        MIDWAY[fault](exchange)

    server.plans.append(plan)
    seconds = 0.6 if fault in HANGS else FAR
    with desk(replace(settings(server, *models), token_seconds=seconds)) as at:
        at.ask(1)
        until(lambda: at.text(1), "the first words")
        read.set()
        reason = at.reason(1)
        assert (
            "llm.token_seconds" in reason
            if fault == "hang"
            else "llm." not in reason or ("no chat completion" in reason)
        )
        assert at.text(1) == "Well, "
        assert models_asked(server) == ["a"]
        at.ask(2)
        assert at.done(2) == "Hello, caller."


@pytest.mark.parametrize("models", [("a",), ("a", "b")], ids=["one", "two"])
def test_refused(server: LlmServer, models: tuple[str, ...]) -> None:
    server.refuse()
    with desk(settings(server, *models)) as at:  # the failed warm-up is no obstacle either
        at.ask(1)
        assert f"{server.url} cannot be reached: start it" in at.reason(1)
        server.listen()
        at.ask(2)
        assert at.done(2) == "Hello, caller."


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
        llm = Llm(chain=("openai:a",), base_url=url, connect_seconds=0.3, first_token_seconds=FAR)
        with desk(llm) as at:
            at.ask(1)
            assert "llm.connect_seconds" in at.reason(1)
        for filler in waiting:
            filler.close()


def trickle(exchange: Exchange) -> None:
    exchange.partial()
    while not exchange.stopping.wait(0.02):
        exchange.send(chunk({"content": "and "}))


@pytest.mark.parametrize(("plan", "heard"), [(Exchange.hang, ""), (trickle, "Well, and")])
def test_the_whole_has_a_deadline(server: LlmServer, plan: Plan, heard: str) -> None:
    server.plans.append(plan)
    with desk(replace(settings(server, "a", "b"), total_seconds=0.4)) as at:
        at.ask(1)
        assert "llm.total_seconds" in at.reason(1)
        assert at.text(1).startswith(heard)
        assert models_asked(server) == ["a"]


def test_the_token_deadline_counts_from_the_last_token(server: LlmServer) -> None:
    def plan(exchange: Exchange) -> None:
        exchange.begin()
        for _ in range(30):
            exchange.send(chunk({"content": "and "}))
            exchange.stopping.wait(0.05)
        exchange.send(chunk({}, "stop"))
        exchange.end()

    server.plans.append(plan)
    with desk(replace(settings(server), token_seconds=1.0, first_token_seconds=1.0)) as at:
        at.ask(1)
        assert at.done(1) == "and " * 30


def test_words_of_a_failed_model_that_nobody_saw_are_dropped(server: LlmServer) -> None:
    """They came in one read with its failure: the next model says all of it."""

    def plan(exchange: Exchange) -> None:
        exchange.begin()
        exchange.send(chunk({"content": "Well, "}) + b'data: {"error": "oom"}\n\n')
        exchange.end()

    server.plans.extend([plan, normal, plan, plan])
    with desk(settings(server, "a", "b")) as at:
        at.ask(1)
        assert at.done(1) == "Hello, caller."
        at.ask(2)
        assert "oom" in at.reason(2)
        assert at.text(2) == ""


# -- breakers ---------------------------------------------------------------------------------


def test_a_model_that_keeps_failing_is_left_alone(server: LlmServer) -> None:
    with desk(settings(server, "a", "b")) as at:
        for ask in range(1, 4):
            server.plans.append(EARLY["500"])
            at.ask(ask)
            at.done(ask)
        at.ask(4)
        at.done(4)
        assert models_asked(server) == ["a", "b"] * 3 + ["b"]
        page = render(at.models.samples()).decode()
        assert 'threadline_model_breaker_open{model="a"} 1.0' in page
        assert 'threadline_model_breaker_open{model="b"} 0.0' in page
        assert 'threadline_model_attempts_failed_total{model="a"} 3.0' in page


def test_a_model_with_nobody_behind_it_is_asked_however_often_it_failed(server: LlmServer) -> None:
    with desk(settings(server)) as at:
        for ask in range(1, 7):
            server.plans.append(EARLY["500"])
            at.ask(ask)
            assert "(500)" in at.reason(ask)
        at.ask(7)
        assert at.done(7) == "Hello, caller."


def test_a_model_that_fails_now_and_then_is_asked_again(server: LlmServer) -> None:
    with desk(settings(server)) as at:
        for ask, fails in enumerate([1, 1, 0, 1, 1, 0], start=1):
            server.plans.append(EARLY["500"] if fails else normal)
            at.ask(ask)
            assert isinstance(at.end_of(ask), ModelFailed if fails else ModelDone)


def test_a_model_that_asks_for_rest_gets_it_at_once(server: LlmServer) -> None:
    limited: Plan = lambda exchange: exchange.status(429, {"message": "x"}, retry_after="60")  # noqa: E731  # a plan in a word
    server.plans.append(limited)
    with desk(settings(server, "a", "b")) as at:
        for ask in (1, 2):
            at.ask(ask)
            at.done(ask)
        assert models_asked(server) == ["a", "b", "b"]


def test_when_all_rest_the_request_fails_at_once(server: LlmServer) -> None:
    limited: Plan = lambda exchange: exchange.status(429, {"message": "x"}, retry_after="60")  # noqa: E731  # a plan in a word
    server.plans.append(limited)
    with desk(settings(server)) as at:
        at.ask(1)
        assert "(429)" in at.reason(1)
        at.ask(2)
        assert "left alone" in at.reason(2)
        assert len(server.requests) == 1


def test_requests_that_are_wrong_themselves_do_not_count(server: LlmServer) -> None:
    with desk(settings(server)) as at:
        for ask in range(1, 5):
            server.plans.append(lambda exchange: exchange.status(400, {"message": "too long"}))
            at.ask(ask)
            assert "too long" in at.reason(ask)
        at.ask(5)
        at.done(5)


# -- cancels ----------------------------------------------------------------------------------


def test_after_a_cancel_nothing_of_it_is_published(server: LlmServer) -> None:
    goes_on = threading.Event()

    def plan(exchange: Exchange) -> None:
        exchange.partial()
        goes_on.wait(DEADLINE)
        exchange.send(chunk({"content": "LATE"}) + tail())
        exchange.end()

    server.plans.append(plan)
    with desk(settings(server, "a", "b")) as at:
        at.ask(1)
        until(lambda: at.text(1) == "Well, ", "the first words")
        at.handle(CancelModel(0, 1, 1))
        at.ask(2)  # handled after the cancel, on the same loop
        at.done(2)
        goes_on.set()
        at.ask(3)
        at.done(3)
        assert at.text(1) == "Well, "
        assert not at.ends(1)
        assert at.models.cancelled == 1


@pytest.mark.parametrize("fault", ["hang", "hang after headers"])
def test_a_cancel_before_the_first_word(server: LlmServer, fault: str) -> None:
    server.plans.append(EARLY[fault])
    with desk(settings(server, "a", "b")) as at:
        at.ask(1)
        until(lambda: server.requests, "the request")
        at.handle(CancelModel(0, 1, 1))
        assert server.requests[0].left.wait(DEADLINE)
        at.ask(2)
        at.done(2)
        assert not at.ends(1)
        assert models_asked(server) == ["a", "a"], "a cancelled request is no failure of its model"


def test_an_ask_cancelled_in_the_same_breath_is_never_sent(server: LlmServer) -> None:
    with desk(settings(server)) as at:
        at.handle(AskModel(0, 1, 7, 1, TALK), CancelModel(0, 1, 1), AskModel(0, 1, 7, 2, TALK))
        at.done(2)
        assert not at.ends(1)
        assert len(server.requests) == 1


def test_a_cancel_leaves_the_server_and_warms_another_connection(server: LlmServer) -> None:
    def plan(exchange: Exchange) -> None:
        exchange.partial()
        exchange.hang()

    server.plans.append(plan)
    with desk(settings(server)) as at:
        at.warmed()
        at.ask(1)
        until(lambda: at.text(1) == "Well, ", "the first words")
        at.handle(CancelModel(0, 1, 1))
        assert server.requests[0].left.wait(DEADLINE)
        until(lambda: server.warmed == 2, "the second warm-up")
        at.warmed()
        before = server.connections
        at.ask(2)
        at.done(2)
        assert server.connections == before


def test_a_token_received_just_before_its_cancel_is_not_published(server: LlmServer) -> None:
    """Tokens wait for the end of the loop's turn; the cancel is handled within that turn."""
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


def test_a_cancel_names_its_request(server: LlmServer) -> None:
    """An older ask, or another caller's generation, cancels nothing."""
    goes_on = threading.Event()

    def plan(exchange: Exchange) -> None:
        exchange.partial()
        goes_on.wait(DEADLINE)
        exchange.send(chunk({}, "stop"))
        exchange.end()

    server.plans.append(plan)
    with desk(settings(server)) as at:
        at.ask(5)
        until(lambda: at.text(5) == "Well, ", "the first words")
        at.handle(CancelModel(0, 1, 4), CancelModel(0, 3, 5), CancelModel(1, 1, 5))
        goes_on.set()
        at.done(5)


def test_a_new_ask_replaces_the_old_one_of_its_slot_only(server: LlmServer) -> None:
    goes_on = threading.Event()

    def plan(exchange: Exchange) -> None:
        exchange.partial()
        goes_on.wait(DEADLINE)
        exchange.send(chunk({}, "stop"))
        exchange.end()

    server.plans.extend([plan, plan])
    with desk(settings(server)) as at:
        at.ask(1, slot=0)
        at.ask(2, slot=1)
        until(lambda: at.text(1) == at.text(2) == "Well, ", "both begun")
        at.ask(3, slot=0)
        at.done(3)
        goes_on.set()
        at.done(2)
        assert not at.ends(1)


def test_closing_with_requests_under_way(server: LlmServer) -> None:
    server.plans.extend([Exchange.hang, Exchange.hang])
    with desk(settings(server)) as at:
        at.ask(1, slot=0)
        at.ask(2, slot=1)
        until(lambda: len(server.requests) == 2, "both on the wire")
    assert not at.events


# -- how many at once, and over which connections ------------------------------------------------


def test_requests_beyond_the_bound_wait_for_room(server: LlmServer) -> None:
    gate, busy, most = threading.Event(), list[Exchange](), list[int]()

    def plan(exchange: Exchange) -> None:
        busy.append(exchange)
        most.append(len(busy))
        gate.wait(DEADLINE)
        busy.remove(exchange)
        exchange.stream(["ok."])

    server.plans.extend([plan] * 5)
    with desk(settings(server), max_requests=2) as at:
        for ask in range(1, 6):
            at.ask(ask, slot=ask)
        until(lambda: len(busy) == 2, "two on the wire")
        gate.set()
        for ask in range(1, 6):
            at.done(ask)
        assert max(most) <= 2


def test_the_wait_for_room_has_a_deadline_and_a_place_is_given_back(server: LlmServer) -> None:
    server.plans.append(Exchange.hang)
    with desk(replace(settings(server), queue_seconds=0.6), max_requests=1) as at:
        at.ask(1, slot=1)
        until(lambda: server.requests, "the first one on the wire")
        at.ask(2, slot=2)
        assert "llm.max_requests" in at.reason(2)
        at.handle(CancelModel(1, 1, 1))
        at.ask(3, slot=3)
        at.done(3)


def test_the_first_connection_is_open_before_the_first_request(server: LlmServer) -> None:
    with desk(settings(server)) as at:
        at.warmed()
        for ask in (1, 2):
            at.ask(ask)
            at.done(ask)
        assert server.connections == 1


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_without_a_list_of_models_is_warm_all_the_same(
    server: LlmServer, status: int
) -> None:
    server.warm_status = status
    with desk(settings(server)) as at:
        at.warmed()
        at.ask(1)
        at.done(1)
        assert server.connections == 1


def test_a_request_that_found_no_free_connection_has_one_more_opened(server: LlmServer) -> None:
    """So that as many are kept as are needed at once, and the next one finds its own."""
    gate = threading.Event()

    def plan(exchange: Exchange) -> None:
        exchange.partial()
        gate.wait(DEADLINE)
        exchange.send(tail())
        exchange.end()

    server.plans.extend([plan] * 3)
    with desk(settings(server)) as at:
        at.warmed()
        at.ask(1, slot=1)
        until(lambda: at.text(1), "the first answer")
        assert server.connections == 1
        at.ask(2, slot=2)
        until(lambda: server.warmed == 2, "one more")
        at.warmed()
        at.ask(3, slot=3)
        until(lambda: at.text(3), "the third answer")
        assert server.connections == 3, "the third one was there"
        gate.set()
        for ask in (1, 2, 3):
            at.done(ask)


def test_warming_after_a_cancel_does_not_take_the_free_connection_from_the_next_ask(
    server: LlmServer,
) -> None:
    def plan(exchange: Exchange) -> None:
        exchange.partial()
        exchange.hang()

    server.plans.extend([plan, plan])
    with desk(settings(server)) as at:
        at.warmed()
        at.ask(1, slot=1)
        until(lambda: at.text(1), "an answer over the first connection")
        at.ask(2, slot=2)
        until(lambda: at.text(2) and server.warmed == 2, "and over the second; a third is open")
        at.warmed()
        before = server.connections
        at.handle(CancelModel(1, 1, 1), AskModel(1, 1, 7, 3, TALK))
        at.done(3)
        assert server.connections == before


def test_an_end_without_its_blank_line(server: LlmServer) -> None:
    def plan(exchange: Exchange) -> None:
        exchange.begin()
        exchange.send(chunk({"content": "Hello."}, "stop")[:-2])
        exchange.end()

    server.plans.append(plan)
    with desk(settings(server)) as at:
        at.ask(1)
        assert at.done(1) == "Hello."
        assert at.deltas(1)[0].first_at > 0


def test_a_server_that_closes_idle_connections_costs_nothing_but_a_new_one(
    server: LlmServer,
) -> None:
    with desk(settings(server)) as at:
        at.warmed()
        server.drop()
        at.ask(1)
        at.done(1)
        assert at.models._entries[0].failed == 0


def test_a_connection_that_was_closed_under_the_request_is_tried_once_more(
    server: LlmServer,
) -> None:
    """The server's FIN crossed the request: it has not seen it."""
    with desk(settings(server)) as at:
        at.warmed()
        server.plans.append(Exchange.close)
        at.ask(1)
        assert at.done(1) == "Hello, caller."
        assert len(server.requests) == 2


def test_both_tries_share_one_deadline(server: LlmServer) -> None:
    with desk(replace(settings(server), first_token_seconds=0.6)) as at:
        at.warmed()
        server.plans.extend([Exchange.close, Exchange.hang])
        at.ask(1)
        assert "llm.first_token_seconds" in at.reason(1)
        assert len(server.requests) == 2


def test_a_new_connection_that_is_closed_is_a_failure(server: LlmServer) -> None:
    with desk(settings(server)) as at:
        at.warmed()
        server.plans.extend([Exchange.hang, Exchange.close])
        at.ask(1, slot=1)
        until(lambda: len(server.requests) == 1, "the warm connection taken")
        at.ask(2, slot=2)
        assert "broke off" in at.reason(2)
        assert len(server.requests) == 2


def test_warming_goes_on_while_the_server_is_away(
    server: LlmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor_llm, "BACKOFF_SECONDS", 0.01)
    server.refuse()
    with desk(settings(server)) as at:
        until(lambda: at.models._problem, "a warm-up that failed")
        server.listen()
        until(lambda: server.warmed >= 1, "one that did not")
        until(lambda: not at.models._problem, "all is well")


def test_samples(server: LlmServer) -> None:
    with desk(settings(server)) as at:
        at.ask(1)
        at.done(1)
        server.plans.append(EARLY["500"])
        at.ask(2)
        at.reason(2)
        page = render(at.models.samples()).decode()
    assert "threadline_model_asked_total 2.0" in page
    assert "threadline_model_failed_total 1.0" in page
    assert "threadline_model_first_token_seconds_count 1.0" in page


def test_the_server_for_benchmarks() -> None:
    """A process of its own, which ends with us."""
    script = Path(__file__).parents[1] / "vendors" / "llm_server.py"
    command = [sys.executable, str(script), "--first-ms", "5", "--token-ms", "1", "--text", "a b c"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        llm = Llm(chain=("openai:a",), base_url=f"http://127.0.0.1:{port}/v1")
        with desk(llm) as at:
            at.warmed()
            for ask in (1, 2):
                for slot in range(4):
                    at.ask(10 * slot + ask, slot)
            for slot in range(4):
                assert at.done(10 * slot + 2) == "a b c"
        process.terminate()
