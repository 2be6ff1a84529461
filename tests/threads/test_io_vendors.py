"""The shell: who is made, who is told what, and what happens when one of them fails."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

pytest.importorskip("openai")
pytest.importorskip("uvloop")
sys.path.insert(0, str(Path(__file__).parents[1] / "vendors"))
from helpers import Worker, until
from llm_server import LlmServer

from threadline.config import Cartesia, Config, Deepgram, Llm, Stt, Tts
from threadline.dialog.history import Message
from threadline.errors import ConfigError
from threadline.observe.prometheus import Sample, counter, render
from threadline.threads import io_vendors
from threadline.threads.calls import Call
from threadline.threads.io_vendors import IoVendors
from threadline.threads.messages import (
    AskModel,
    CallClosed,
    CallOpened,
    CancelModel,
    CancelSpeech,
    EndOfSpeech,
    Event,
    FloorTaken,
    HearChunk,
    Heard,
    HearFailed,
    HearFinal,
    HearForget,
    ModelDelta,
    ModelDone,
    ModelFailed,
    Speak,
    Spoken,
)
from threadline.threads.wake import Inbox, Outbox
from threadline.vendors.breaker import FAILURES, NEVER

ASK = AskModel(0, 1, 7, 1, (Message("user", "Hi."),))
ORDERS: dict[str, list[Event]] = {
    "llm": [ASK, CancelModel(0, 1, 1)],
    "stt": [
        CallOpened(0, 1, "CA1", {}),
        HearChunk(0, 1, 5, b"\xff"),
        HearFinal(0, 1, 5, 9),
        HearForget(0, 1, 5),
        CallClosed(0, 1, "over"),
    ],
    "tts": [Speak(0, 1, 7, 3, "Hi."), EndOfSpeech(0, 1, 7, 3), CancelSpeech(0, 1, 7)],
}
CLASSES = {"llm": "Models", "stt": "Ears", "tts": "Voices"}
CHAINS = {"llm": "openai:a", "stt": "deepgram", "tts": "cartesia"}


class Fake:
    """A vendor's client that keeps what it is told, and fails when asked to."""

    made: dict[str, Fake] = {}

    def __init__(self, kind: str, arguments: tuple[Any, ...]) -> None:
        self.kind = kind
        self.publish: Callable[[Event], None] = arguments[2 if kind == "stt" else 1]
        self.arguments = arguments
        self.told: list[Event] = []
        self.warmed = 0
        self.closed = 0
        self.fails = False
        self.close_seconds = 0.0
        self.made[kind] = self

    def handle(self, event: Event) -> None:
        asyncio.get_running_loop()  # it is on the loop's thread, with a loop that runs
        self.told.append(event)
        if self.fails:
            raise RuntimeError("a defect")

    def warm(self) -> None:
        self.warmed += 1

    async def close(self) -> None:
        await asyncio.sleep(self.close_seconds)
        self.closed += 1
        if self.fails:
            raise RuntimeError("another defect")

    def samples(self) -> Iterator[Sample]:
        yield counter(f"threadline_{self.kind}_told_total", "What it was told.", len(self.told))


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Fake]:
    """In place of the clients; a module that no chain names must not be imported."""
    Fake.made = {}
    for kind, name in CLASSES.items():
        module = ModuleType(f"threadline.threads.vendor_{kind}")
        setattr(module, name, lambda *arguments, kind=kind: Fake(kind, arguments))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.delattr(f"threadline.threads.vendor_{kind}", raising=False)
    return Fake.made


def config(*kinds: str) -> Config:
    chains = {kind: (CHAINS[kind],) if kind in kinds else () for kind in CHAINS}
    return Config(
        llm=Llm(chain=(*chains["llm"], "scripted"), api_key="k"),
        stt=Stt(chain=(*chains["stt"], "whisper"), final_seconds=0.7),
        tts=Tts(chain=(*chains["tts"], "piper")),
        deepgram=Deepgram(api_key="k"),
        cartesia=Cartesia(api_key="k"),
    )


class Desk:
    """The other threads' side of the stage."""

    def __init__(self, config: Config, calls: int = 3) -> None:
        self.inbox = Inbox("io-vendors")
        self.reply, self.asr = Inbox("reply"), Inbox("asr")
        self.orders: Outbox[object] = self.inbox.port("reply")
        self.stage = IoVendors(
            config,
            [Call(slot) for slot in range(calls)],
            self.inbox,
            self.reply.port("io-vendors"),
            self.asr.port("io-vendors"),
        )
        self.begun = False
        self.thread = Worker(self._run, "io-vendors")

    def _run(self) -> None:
        self.stage.begin()
        self.begun = True
        self.stage.step()
        self.stage.finish()

    def close(self) -> None:
        self.stage.stop()
        self.thread.join()
        for inbox in (self.inbox, self.reply, self.asr):
            inbox.close()

    def tell(self, *events: Event) -> None:
        for event in events:
            self.orders.put(event)

    def publish(self, client: Fake, *events: Event) -> None:
        """As a client does: on the loop's thread."""
        for event in events:
            self.stage._loop.call_soon_threadsafe(client.publish, event)


@contextmanager
def desk(config: Config) -> Iterator[Desk]:
    at = Desk(config)
    try:
        until(lambda: at.begun or not at.thread.thread.is_alive(), "it began")
        yield at
    finally:
        at.close()


@pytest.mark.parametrize("kinds", [(), ("llm",), ("stt",), ("tts",), ("llm", "stt", "tts")])
def test_whom_the_chains_name_is_made_and_warmed(
    fakes: dict[str, Fake], kinds: tuple[str, ...]
) -> None:
    with desk(config(*kinds)):
        assert set(fakes) == set(kinds)
        assert all(fake.warmed == 1 for fake in fakes.values())
    assert all(fake.closed == 1 for fake in fakes.values())


def test_the_others_are_not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in CLASSES:
        monkeypatch.setitem(sys.modules, f"threadline.threads.vendor_{kind}", cast("Any", None))
    with desk(config()):
        pass
    with pytest.raises(ImportError):
        Desk(config("llm"))


def test_the_imports_are_over_before_the_thread_starts(fakes: dict[str, Fake]) -> None:
    IoVendors(config("llm"), [Call(0)], Inbox("x"), Inbox("reply").port("io-vendors"), None)
    assert fakes == {}, "it is made on its own thread"


def test_what_they_are_made_with(fakes: dict[str, Fake]) -> None:
    settings = config("llm", "stt", "tts")
    with desk(settings):
        llm, _, requests = fakes["llm"].arguments
        assert (llm, requests) == (settings.llm, 3), "as many as there are calls"
        assert fakes["stt"].arguments[:2] == (settings.deepgram, 0.7)
        cartesia, _, contexts, failures = fakes["tts"].arguments
        assert (cartesia, contexts) == (settings.cartesia, 3)
        assert fakes["stt"].arguments[3] == failures == FAILURES
    alone = replace(
        settings,
        stt=replace(settings.stt, chain=("deepgram",)),
        tts=replace(settings.tts, chain=("cartesia",)),
    )
    with desk(alone):  # with nobody behind them, they are never left alone
        assert fakes["stt"].arguments[3] == fakes["tts"].arguments[3] == NEVER
    bounded = replace(
        settings,
        llm=replace(settings.llm, max_requests=7),
        cartesia=replace(settings.cartesia, max_contexts=9),
    )
    with desk(bounded):
        assert fakes["llm"].arguments[2] == 7
        assert fakes["tts"].arguments[2] == 9


@pytest.mark.parametrize("kinds", [("llm",), ("stt",), ("tts",), ("llm", "stt", "tts")])
def test_each_is_told_what_is_its_own(fakes: dict[str, Fake], kinds: tuple[str, ...]) -> None:
    with desk(config(*kinds)) as at:
        for orders in ORDERS.values():
            at.tell(*orders)
        for kind in kinds:
            until(lambda kind=kind: fakes[kind].told == ORDERS[kind], f"the orders of {kind}")


def test_transcripts_go_to_asr_and_all_else_to_reply(fakes: dict[str, Fake]) -> None:
    text = [Heard(0, 1, 5, 9, "hello", True), HearFailed(0, 1, 5, "It broke.")]
    rest = [
        ModelDelta(0, 1, 7, 1, "Hi"),
        ModelDone(0, 1, 7, 1),
        Spoken(0, 1, 7, 3, b"", 0, True, 0),
    ]
    with desk(config("stt", "llm")) as at:
        at.publish(fakes["llm"], *rest)
        at.publish(fakes["stt"], *text)
        asr: list[object] = []
        reply: list[object] = []

        def all_there() -> bool:
            asr.extend(at.asr.events())
            reply.extend(at.reply.events())
            return len(asr) + len(reply) >= 5

        until(all_there, "five events")
        assert (asr, reply) == (text, rest)


def answers(at: Desk, inbox: Inbox, count: int) -> list[object]:
    found: list[object] = []

    def enough() -> bool:
        inbox.wait(0.02)
        found.extend(inbox.events())
        return len(found) >= count

    until(enough, f"{count} events")
    return found


def test_a_client_that_raises_costs_its_own_request_only(fakes: dict[str, Fake]) -> None:
    """Whoever waits for an end gets one, and the loop goes on."""
    with desk(config("llm", "stt", "tts")) as at:
        for fake in fakes.values():
            fake.fails = True
        at.tell(*ORDERS["llm"], *ORDERS["tts"])
        failed, clause, end = answers(at, at.reply, 3)
        assert isinstance(failed, ModelFailed)
        assert (failed.slot, failed.generation, failed.epoch, failed.ask) == (0, 1, 7, 1)
        assert isinstance(clause, Spoken)
        assert isinstance(end, Spoken)
        assert (clause.clause, clause.ended, clause.done) == (3, False, True)
        assert clause.reason
        assert (end.clause, end.ended, bool(end.reason)) == (3, True, True)
        at.tell(ORDERS["stt"][2])
        (deaf,) = answers(at, at.asr, 1)
        assert isinstance(deaf, HearFailed)
        assert (deaf.slot, deaf.utterance) == (0, 5)
        for fake in fakes.values():
            fake.fails = False
        at.tell(ASK)
        until(lambda: len(fakes["llm"].told) == 3, "the next order")
        assert at.stage.defects == 6
        page = render(at.stage.samples()).decode()
        assert "threadline_vendor_defects_total 6.0" in page
        assert "threadline_llm_told_total 3.0" in page


def test_events_of_no_vendor_are_passed_over(fakes: dict[str, Fake]) -> None:
    with desk(config("llm")) as at:
        at.tell(FloorTaken(0, 1, 7, 0), *ORDERS["stt"], ASK)
        until(lambda: fakes["llm"].told == [ASK], "the ask")
        assert at.stage.defects == 0


def test_a_full_ring_keeps_events_in_order(fakes: dict[str, Fake]) -> None:
    """Nobody drains for a while: what does not fit waits, and nothing is lost."""
    sent = [ModelDelta(0, 1, 7, 1, f"{i} ") for i in range(300)]  # a ring holds 128
    with desk(config("llm")) as at:
        at.publish(fakes["llm"], *sent)
        until(lambda: at.stage._to_reply._out.stalls > 0, "a stall")
        assert answers(at, at.reply, 300) == sent


def test_a_reader_that_is_stuck_costs_events_but_not_the_loop(fakes: dict[str, Fake]) -> None:
    sent = [ModelDelta(0, 1, 7, 1, f"{i} ") for i in range(128 + 4096 + 10)]
    with desk(config("llm")) as at:
        at.publish(fakes["llm"], *sent)
        until(lambda: at.stage._to_reply.lost == 10, "the loss")
        assert answers(at, at.reply, len(sent) - 10) == sent[:-10]
        assert "threadline_vendor_events_lost_total 10.0" in render(at.stage.samples()).decode()
        at.publish(fakes["llm"], sent[-1])
        assert answers(at, at.reply, 1) == sent[-1:]


def test_asr_is_not_kept_waiting_by_reply(fakes: dict[str, Fake]) -> None:
    text = Heard(0, 1, 5, 9, "hello", True)
    with desk(config("llm", "stt")) as at:
        at.publish(fakes["llm"], *(ModelDelta(0, 1, 7, 1, "x") for _ in range(200)))
        until(lambda: at.stage._to_reply._out.stalls > 0, "reply's ring is full")
        at.publish(fakes["stt"], text)
        assert answers(at, at.asr, 1) == [text]


def test_a_client_that_does_not_close_is_left(
    fakes: dict[str, Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io_vendors, "STOP_SECONDS", 0.1)
    with desk(config("llm", "stt", "tts")):
        fakes["llm"].close_seconds = 3600.0
        fakes["stt"].fails = True
    assert (fakes["llm"].closed, fakes["tts"].closed) == (0, 1)


def test_the_beat_goes_on_without_events() -> None:
    with desk(config()) as at:
        before = at.stage.beat
        until(lambda: at.stage.beat > before, "a beat")


def test_no_key_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delitem(sys.modules, "threadline.threads.vendor_llm")  # the real one
    stage = IoVendors(
        Config(llm=Llm(chain=("openai",))),
        [Call(0)],
        Inbox("x"),
        Inbox("reply").port("io-vendors"),
        None,
    )
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        stage.begin()
    stage._loop.close()


def test_a_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell, the client and a server, over a socket."""
    monkeypatch.delitem(sys.modules, "threadline.threads.vendor_llm")
    with (
        LlmServer() as server,
        desk(Config(llm=Llm(chain=("openai:a",), base_url=server.url))) as at,
    ):
        began = time.monotonic_ns()
        at.tell(ASK)
        found: list[object] = []
        until(
            lambda: found.extend(answers(at, at.reply, 1)) or isinstance(found[-1], ModelDone),
            "the answer",
        )
        deltas = [event for event in found if isinstance(event, ModelDelta)]
        assert "".join(delta.text for delta in deltas) == "Hello, caller."
        assert deltas[0].first_at > began
