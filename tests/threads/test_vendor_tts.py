"""Cartesia over real sockets: whatever its server does, each clause ends once, and in time."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cartesia")
pytest.importorskip("uvloop")
sys.path.insert(0, str(Path(__file__).parents[1] / "vendors"))
import uvloop
from cartesia_server import MUTE, CartesiaServer, Fault, What, tone, word_times

from threadline.audio.mulaw import FRAME, SILENCE_BYTE
from threadline.config import Cartesia
from threadline.errors import ConfigError
from threadline.observe.prometheus import render
from threadline.threads import vendor_tts, vendor_tts_socket
from threadline.threads.messages import CancelSpeech, EndOfSpeech, Event, Speak, Spoken
from threadline.threads.vendor_tts import Voices

ONE = "Good evening, this is the bistro."
TWO = "We have a table for four at seven, or one for six at half past eight."
THREE = "Which of the two may I book for you?"
PATIENCE = 20.0


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work(), loop_factory=uvloop.new_event_loop)


class Desk:
    """The reply thread's side: asks, and collects what comes back."""

    def __init__(self, config: Cartesia, max_contexts: int = 8) -> None:
        self.events: list[Spoken] = []
        self.number = 90
        self.voices = Voices(config, self._take, max_contexts)

    def _take(self, event: Event) -> None:
        assert isinstance(event, Spoken)
        assert len(event.audio) % FRAME == 0
        self.events.append(event)

    def speak(self, clause: int, text: str, *, slot: int = 0, epoch: int = 7) -> None:
        self.voices.handle(Speak(slot, 1, epoch, clause, text))

    def end(self, clause: int, *, slot: int = 0, epoch: int = 7) -> None:
        self.voices.handle(EndOfSpeech(slot, 1, epoch, clause))

    def cancel(self, *, slot: int = 0, epoch: int = 7) -> None:
        self.voices.handle(CancelSpeech(slot, 1, epoch))

    def of(self, clause: int, *, slot: int = 0) -> list[Spoken]:
        mine = [event for event in self.events if event.slot == slot and not event.ended]
        return [event for event in mine if event.clause == clause]

    def audio(self, slot: int = 0) -> bytes:
        return b"".join(event.audio for event in self.events if event.slot == slot)

    async def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"never: {what}; got {self.events}"
            await asyncio.sleep(0.001)

    async def done(self, clause: int, *, slot: int = 0) -> Spoken:
        def ends() -> list[Spoken]:
            return [event for event in self.of(clause, slot=slot) if event.done]

        await self.until(ends, f"the end of clause {clause}")
        assert len(ends()) == 1
        assert self.of(clause, slot=slot)[-1].done
        return ends()[0]

    async def ended(self, clause: int, *, slot: int = 0) -> Spoken:
        def ends() -> list[Spoken]:
            mine = [event for event in self.events if event.slot == slot and event.ended]
            return [event for event in mine if event.clause == clause]

        await self.until(ends, f"the end of the reply with clause {clause}")
        assert len(ends()) == 1
        return ends()[0]

    async def works(self, *, slot: int = 0) -> None:
        """One whole reply, from now, however busy this machine is."""
        lifted = replace(self.voices._config, first_audio_seconds=PATIENCE, audio_seconds=PATIENCE)
        self.voices._config = lifted
        clause = epoch = self.number = self.number + 1
        before = len(self.audio(slot))
        self.speak(clause, THREE, slot=slot, epoch=epoch)
        self.end(clause, slot=slot, epoch=epoch)
        assert (await self.done(clause, slot=slot)).reason == ""
        await self.ended(clause, slot=slot)
        assert self.audio(slot)[before:].rstrip(SILENCE_BYTE) == tone(THREE).rstrip(SILENCE_BYTE)

    def rest_is_over(self) -> None:
        """As if the breaker's rest were over."""
        self.voices._breaker.succeeded()


@asynccontextmanager
async def desk(
    server: CartesiaServer, max_contexts: int = 8, **settings: float
) -> AsyncIterator[Desk]:
    """Deadlines that no healthy exchange meets, so that only the tested one can pass."""
    patient = Cartesia(
        api_key=server.key,
        url=server.url,
        connect_seconds=3 * PATIENCE,
        first_audio_seconds=3 * PATIENCE,
        audio_seconds=3 * PATIENCE,
        queue_seconds=3 * PATIENCE,
    )
    at = Desk(replace(patient, **settings), max_contexts)  # type: ignore[arg-type]  # floats
    at.voices.warm()
    try:
        yield at
    finally:
        await at.voices.close()
        count = len(at.events)
        await asyncio.sleep(0)
        assert len(at.events) == count
    assert not server.complaints


# -- when all goes well -----------------------------------------------------------------------


def test_a_reply_byte_for_byte() -> None:
    async def work() -> None:
        async with CartesiaServer() as server, desk(server) as at:
            at.speak(3, ONE)
            at.speak(4, TWO)
            at.end(4)
            one, two, end = await at.done(3), await at.done(4), await at.ended(4)
            sound = tone(ONE) + tone(TWO)
            assert len(tone(ONE)) % FRAME, "the joint of the clauses is to be within a frame"
            assert at.audio() == sound + SILENCE_BYTE * (-len(sound) % FRAME)
            assert [event.clause for event in at.events if not event.ended] == sorted(
                event.clause for event in at.events if not event.ended
            )
            assert (one.slot, one.generation, one.epoch, one.reason) == (0, 1, 7, "")
            assert one.duration_ms == len(tone(ONE)) // 8
            assert two.duration_ms == len(tone(TWO)) // 8
            assert (end.clause, end.duration_ms, len(end.audio)) == (4, 0, FRAME)
            assert server.texts == [f"{ONE} ", f"{TWO} "]
            assert len(server.contexts) == 1
            assert server.cancels == []
            await at.until(lambda: server.live == 0, "the context is ended")

    run(work)


@pytest.mark.parametrize("relative", [False, True])
def test_words_end_where_they_end_within_their_clause(relative: bool) -> None:
    async def work() -> None:
        async with CartesiaServer(relative=relative) as server, desk(server) as at:
            for clause, text in ((1, ONE), (2, TWO)):
                at.speak(clause, text)
            for clause, text in ((1, ONE), (2, TWO)):
                words = (await at.done(clause)).words
                assert [word for word, _ in words] == text.split()
                for (_, ms), (_, _, end) in zip(words, word_times(text), strict=True):
                    assert ms == pytest.approx(end * 1000, abs=2)

    run(work)


def test_pieces_come_while_the_clause_is_spoken() -> None:
    async def work() -> None:
        server = CartesiaServer()
        server.clauses.append(Fault("stall", "middle"))
        async with server, desk(server) as at:
            at.speak(1, TWO)
            await at.until(lambda: len(at.audio()) > 5000, "the first half")
            assert all(not event.done and event.duration_ms == 0 for event in at.events)
            assert tone(TWO).startswith(at.audio())

    run(work)


def test_replies_of_one_call_follow_each_other_in_contexts_of_their_own() -> None:
    async def work() -> None:
        async with CartesiaServer(speed=100) as server, desk(server) as at:
            await at.until(lambda: at.voices._socket.up, "a connection")
            at.speak(1, TWO)
            at.end(1)
            at.speak(2, ONE)  # would be there sooner
            at.speak(3, THREE)
            at.end(3)
            await at.ended(3)
            order = [(event.clause, event.ended) for event in at.events if event.done]
            assert order == [(1, False), (1, True), (2, False), (3, False), (3, True)]
            assert len(server.contexts) == 2

    run(work)


def test_many_calls_share_a_connection_and_never_their_audio() -> None:
    async def work() -> None:
        texts = {slot: f"{TWO} You are caller number {slot}." for slot in range(40)}
        async with CartesiaServer(speed=50) as server, desk(server, max_contexts=40) as at:
            for slot, text in texts.items():
                at.speak(1, text, slot=slot)
                at.end(1, slot=slot)
            for slot, text in texts.items():
                await at.ended(1, slot=slot)
                sound = tone(text)
                assert at.audio(slot) == sound + SILENCE_BYTE * (-len(sound) % FRAME)
            assert server.connections == 1
            assert server.most > 20

    run(work)


def test_an_end_without_a_clause_is_answered() -> None:
    async def work() -> None:
        async with CartesiaServer() as server, desk(server) as at:
            at.end(1)
            assert (await at.ended(1)).audio == b""
            assert server.contexts == []

    run(work)


def test_a_context_that_the_server_would_forget_is_not_continued() -> None:
    """We end it ourselves, which frees its room, and the next clause opens another."""

    async def work() -> None:
        async with CartesiaServer(expire_seconds=PATIENCE) as server, desk(server, 1) as at:
            at.speak(1, ONE)
            await at.done(1)
            at.speak(5, TWO, slot=1)  # waits for the only context
            at.end(5, slot=1)
            await at.ended(5, slot=1)
            at.speak(2, TWO)
            at.end(2)
            assert (await at.done(2)).reason == ""
            await at.ended(2)
            sound = tone(ONE) + tone(TWO)
            assert at.audio() == sound + SILENCE_BYTE * (-len(sound) % FRAME)
            assert len(server.contexts) == 3

    run(work)


def test_a_context_that_the_server_has_forgotten_is_not_continued() -> None:
    async def work() -> None:
        async with CartesiaServer(expire_seconds=0.02) as server, desk(server, 1) as at:
            at.speak(1, ONE)
            await at.done(1)
            await at.until(lambda: at.voices._free, "the server has told us")
            at.speak(2, TWO)
            at.end(2)
            assert (await at.done(2)).reason == ""
            await at.ended(2)
            sound = tone(ONE) + tone(TWO)
            assert at.audio() == sound + SILENCE_BYTE * (-len(sound) % FRAME)
            assert len(server.contexts) == 2

    run(work)


# -- cancels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("newer", [False, True], ids=["cancel", "newer epoch"])
def test_nothing_of_a_cancelled_reply_comes_after_the_cancel(newer: bool) -> None:
    async def work() -> None:
        async with CartesiaServer(speed=20) as server, desk(server) as at:
            at.speak(1, TWO)
            at.speak(2, TWO)
            await at.until(lambda: at.of(1), "the first audio")
            before = len(at.events)
            if newer:
                at.speak(3, THREE, epoch=8)
                at.end(3, epoch=8)
            else:
                at.cancel()
            assert len(at.events) == before
            await at.until(lambda: at.voices.late > 3, "the server goes on with what has begun")
            if newer:
                await at.ended(3)
            assert all(event.epoch == 8 for event in at.events[before:])
            assert server.cancels == server.contexts[:1]
            assert server.texts[:2] in ([f"{TWO} "], [f"{TWO} ", f"{THREE} "])
            await at.works()
            assert at.voices._free == 8

    run(work)


def test_a_cancelled_epoch_may_speak_again() -> None:
    async def work() -> None:
        async with CartesiaServer(speed=20) as server, desk(server) as at:
            at.speak(1, TWO)
            await at.until(lambda: at.of(1), "the first audio")
            at.cancel()
            before = len(at.audio())
            at.speak(2, THREE)
            at.end(2)
            await at.ended(2)
            assert at.audio()[before:].startswith(tone(THREE)[:-FRAME])
            assert len(server.contexts) == 2

    run(work)


def test_what_is_older_than_the_call_s_epoch_is_void() -> None:
    async def work() -> None:
        async with CartesiaServer() as server, desk(server) as at:
            at.speak(2, THREE, epoch=8)
            at.speak(1, ONE, epoch=7)
            at.end(1, epoch=7)
            at.cancel(epoch=7)
            at.end(2, epoch=8)
            await at.ended(2)
            assert {event.epoch for event in at.events} == {8}
            assert server.texts == [f"{THREE} "]

    run(work)


def test_a_cancel_before_there_is_a_connection_asks_for_nothing() -> None:
    async def work() -> None:
        server = CartesiaServer()
        server.handshakes.append("hang")
        async with server, desk(server, connect_seconds=1.0) as at:
            at.speak(1, ONE)
            at.cancel()
            await at.until(lambda: server.connections == 2, "the next attempt")
            await at.works()
            assert at.of(1) == []
            assert server.texts == [f"{THREE} "]

    run(work)


# -- limits -----------------------------------------------------------------------------------


def test_replies_beyond_the_limit_wait_in_order() -> None:
    async def work() -> None:
        async with CartesiaServer(speed=200, limit=2) as server, desk(server, 2) as at:
            for slot in range(6):
                at.speak(1, f"{ONE} {slot}", slot=slot)
                at.end(1, slot=slot)
            for slot in range(6):
                await at.ended(1, slot=slot)
                assert (await at.done(1, slot=slot)).reason == ""
            assert server.texts == [f"{ONE} {slot} " for slot in range(6)]
            assert server.most == 2
            assert at.voices._free == 2

    run(work)


def test_who_waits_too_long_for_a_context_is_told_so() -> None:
    async def work() -> None:
        server = CartesiaServer()
        server.clauses.append(Fault("stall"))
        async with server, desk(server, 1, queue_seconds=0.1) as at:
            at.speak(1, ONE)
            at.speak(1, TWO, slot=1)
            end = await at.done(1, slot=1)
            assert "cartesia.max_contexts" in end.reason
            assert end.audio == b""
            assert at.of(1) == []
            assert not at.voices._breaker.open
            at.cancel()
            await at.works(slot=1)

    run(work)


def test_a_server_that_takes_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor_tts_socket, "MAX_WAITING", 8)

    async def work() -> None:
        async with CartesiaServer() as server, desk(server, 100) as at:
            await at.works()
            for slot in range(10):  # without a pause in which they could be sent
                at.speak(1, TWO, slot=slot)
            assert "takes no requests" in (await at.done(1, slot=9)).reason
            await at.works()
            assert server.connections == 2

    run(work)


# -- everything that can go wrong -------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "remedy"),
    [
        ("hang", "cartesia.connect_seconds"),
        ("reset", "status page"),
        ("garbage", "cartesia.url"),
        (401, "CARTESIA_API_KEY"),
        (402, "CARTESIA_API_KEY"),
        (403, "CARTESIA_API_KEY"),
        (404, "cartesia.url"),
        (429, "cartesia.max_contexts"),
        (500, "status page"),
        (503, "status page"),
    ],
)
def test_a_handshake_that_fails(plan: Any, remedy: str) -> None:
    async def work() -> None:
        server = CartesiaServer()
        server.handshakes.append(plan)
        async with server, desk(server, connect_seconds=1.0 if plan == "hang" else PATIENCE) as at:
            at.speak(1, ONE)
            at.speak(2, TWO)
            at.end(2)
            for clause in (1, 2):
                end = await at.done(clause)
                assert remedy in end.reason
                assert server.url in end.reason
                assert end.reason.endswith(".")
                assert end.audio == b""
            assert (await at.ended(2)).audio == b""
            await at.works()

    run(work)


def test_nobody_listens_and_then_somebody_does() -> None:
    async def work() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        server = CartesiaServer(port=port)
        server.url = f"ws://127.0.0.1:{port}"
        async with desk(server) as at:
            for clause in range(1, 4):
                at.speak(clause, ONE)
                assert "cannot be reached" in (await at.done(clause)).reason
            at.speak(4, ONE)
            assert "left alone" in at.of(4)[0].reason, "at once"
            async with server:
                await at.until(lambda: at.voices._socket.up, "it connects by itself")
                at.rest_is_over()
                await at.works()

    run(work)


def test_a_busy_server_is_left_alone_for_as_long_as_it_says() -> None:
    async def work() -> None:
        server = CartesiaServer(retry_after="30")
        server.handshakes.append(429)
        async with server, desk(server) as at:
            await at.until(lambda: at.voices._breaker.open, "the refusal")
            at.speak(1, ONE)
            assert "left alone" in at.of(1)[0].reason
            at.rest_is_over()
            await at.works()
            assert server.connections == 2

    run(work)


BROKEN = "what", "seconds", "remedy"
LOST = [
    ("reset", {}, "status page"),
    ("close", {}, "'internal error'"),
    ("error-all", {}, "All models fell over."),
    ("garbage-burst", {}, "cartesia.url"),
    ("huge", {}, "beyond all bounds"),
]
REFUSED = [
    ("error", {}, "A model fell over."),
    ("busy", {}, "cartesia.max_contexts"),
    ("done", {}, "ended before"),
]
SPOILT = [
    ("rubbish", {}, "base64"),
    ("missing", {}, "base64"),
]
LATE = [
    ("hang", {"first_audio_seconds": 0.4, "audio_seconds": 0.4}, "_seconds is too low"),
    ("stall", {"first_audio_seconds": 0.4, "audio_seconds": 0.4}, "_seconds is too low"),
]


@pytest.mark.parametrize(BROKEN, LOST + REFUSED + SPOILT + LATE)
def test_nothing_was_heard_yet(what: What, seconds: dict[str, float], remedy: str) -> None:
    """The clause, and the one behind it, end without audio: another voice can take them."""

    async def work() -> None:
        server = CartesiaServer()
        server.clauses.append(Fault(what, "before"))
        async with server, desk(server, **seconds) as at:
            at.speak(1, ONE)
            at.speak(2, TWO)
            at.end(2)
            for clause in (1, 2):
                end = await at.done(clause)
                assert remedy in end.reason
                assert end.reason.count(".") >= 1
                assert "\n" not in end.reason
                assert end.duration_ms == 0
            assert (await at.ended(2)).audio == b""
            assert at.audio() == b""
            await at.works()
            assert at.voices._free == 8

    run(work)


@pytest.mark.parametrize(BROKEN, LOST + REFUSED[:2] + SPOILT + LATE)
def test_half_a_clause_was_heard(what: What, seconds: dict[str, float], remedy: str) -> None:
    """It ends with its reason and what there is of it; the clause behind it has no audio."""

    async def work() -> None:
        server = CartesiaServer()
        server.clauses.append(Fault(what, "middle"))
        async with server, desk(server, **seconds) as at:
            at.speak(1, TWO)
            at.speak(2, ONE)
            at.end(2)
            one, two = await at.done(1), await at.done(2)
            assert remedy in one.reason
            assert remedy in two.reason
            assert len(tone(TWO)) / 4 < len(at.audio()) < len(tone(TWO))
            assert tone(TWO).startswith(at.audio().rstrip(SILENCE_BYTE))
            assert 0 <= len(at.audio()) / 8 - one.duration_ms < 20
            assert one.words
            assert all(ms <= one.duration_ms for _, ms in one.words)
            assert (two.duration_ms, two.words) == (0, ())
            assert all(event.audio == b"" for event in at.of(2))
            assert (await at.ended(2)).audio == b""
            await at.works()
            assert at.voices._free == 8

    run(work)


@pytest.mark.parametrize(BROKEN, LOST + LATE)
def test_one_clause_was_heard(what: What, seconds: dict[str, float], remedy: str) -> None:
    """The one that is complete stays so."""

    async def work() -> None:
        server = CartesiaServer()
        server.clauses.append(Fault(what, "after"))
        async with server, desk(server, **seconds) as at:
            at.speak(1, ONE)
            at.speak(2, TWO)
            at.end(2)
            one, two = await at.done(1), await at.done(2)
            assert one.reason == ""
            assert one.duration_ms == len(tone(ONE)) // 8
            assert remedy in two.reason
            assert (two.audio, two.duration_ms) == (b"", 0)
            await at.ended(2)
            await at.works()
            assert at.voices._free == 8

    run(work)


@pytest.mark.parametrize("what", ["error", "busy", "done"])
def test_a_refused_continuation_is_tried_once_in_a_new_context(what: What) -> None:
    async def work() -> None:
        server = CartesiaServer()
        server.clauses.append(Fault(what, "after"))
        async with server, desk(server) as at:
            at.speak(1, ONE)
            at.speak(2, TWO)
            at.end(2)
            assert (await at.done(1)).reason == ""
            assert (await at.done(2)).reason == ""
            await at.ended(2)
            sound = tone(ONE) + tone(TWO)
            assert at.audio() == sound + SILENCE_BYTE * (-len(sound) % FRAME)
            assert len(server.contexts) == 2

    run(work)


def test_a_continuation_is_tried_in_no_third_context() -> None:
    async def work() -> None:
        server = CartesiaServer()
        server.clauses += [Fault("error", "after"), Fault("error", "before")]
        async with server, desk(server) as at:
            at.speak(1, ONE)
            at.speak(2, TWO)
            assert "A model fell over." in (await at.done(2)).reason
            assert len(server.contexts) == 2
            await at.works()

    run(work)


@pytest.mark.parametrize("when", ["before", "middle", "after"])
@pytest.mark.parametrize("what", ["garbage", "list", "unknown", "binary", "strange"])
def test_what_means_nothing_is_passed_over(what: What, when: Any) -> None:
    async def work() -> None:
        server = CartesiaServer()
        server.clauses.append(Fault(what, when))
        async with server, desk(server) as at:
            at.speak(1, ONE)
            at.speak(2, TWO)
            at.end(2)
            await at.ended(2)
            sound = tone(ONE) + tone(TWO)
            assert at.audio() == sound + SILENCE_BYTE * (-len(sound) % FRAME)
            assert [event.reason for event in at.events if event.done] == ["", "", ""]
            assert at.voices.garbage == (what in ("garbage", "list"))
            assert at.voices.late == (3 if what == "strange" else 0)
            assert server.connections == 1

    run(work)


def test_a_connection_of_garbage_is_not_read_to_its_end() -> None:
    async def work() -> None:
        server = CartesiaServer()
        server.clauses.append(Fault("garbage-burst"))
        async with server, desk(server) as at:
            at.speak(1, ONE)
            assert (await at.done(1)).reason
            await at.works()
            assert at.voices.garbage == vendor_tts.GARBAGE

    run(work)


def test_a_clause_behind_another_does_not_wait_for_the_server_yet() -> None:
    async def work() -> None:
        server = CartesiaServer(first_ms=100, speed=4)
        async with server, desk(server, first_audio_seconds=0.8) as at:
            at.speak(1, TWO)  # more than a second
            at.speak(2, ONE)
            assert (await at.done(2)).reason == ""

    run(work)


def test_done_twice() -> None:
    async def work() -> None:
        server = CartesiaServer()
        server.clauses.append(Fault("twice", "after"))
        async with server, desk(server) as at:
            at.speak(1, ONE)
            at.speak(2, TWO)
            at.end(2)
            await at.ended(2)
            assert [event.clause for event in at.events if event.done] == [1, 2, 2]
            sound = tone(ONE) + tone(TWO)
            assert at.audio() == sound + SILENCE_BYTE * (-len(sound) % FRAME)

    run(work)


@pytest.mark.parametrize("clauses", [1, 2])
def test_the_end_of_a_flush_is_not_said(clauses: int) -> None:
    """The next flush id, or the end of the context, says it as well."""

    async def work() -> None:
        server = CartesiaServer()
        server.clauses += [Fault("no-flush", "after")] * clauses
        async with server, desk(server) as at:
            at.speak(1, ONE)
            if clauses == 2:
                at.speak(2, TWO)
            at.end(clauses)
            await at.ended(clauses)
            sound = tone(ONE) + (tone(TWO) if clauses == 2 else b"")
            assert at.audio() == sound + SILENCE_BYTE * (-len(sound) % FRAME)
            assert (await at.done(1)).duration_ms == len(tone(ONE)) // 8

    run(work)


def test_a_slow_drip_is_given_up() -> None:
    async def work() -> None:
        server = CartesiaServer()
        server.clauses.append(Fault("drip"))
        async with server, desk(server, audio_seconds=0.5) as at:
            at.speak(1, TWO)
            assert "cartesia.audio_seconds" in (await at.done(1)).reason
            assert at.voices._socket.up, "it is this context, not the connection"
            await at.until(lambda: at.voices.late > 2, "it drips on")
            await at.works()
            assert server.connections == 1

    run(work)


def test_a_flood_is_a_failure() -> None:
    async def work() -> None:
        server = CartesiaServer()
        server.clauses.append(Fault("flood", "middle"))
        async with server, desk(server) as at:
            at.speak(1, TWO)
            end = await at.done(1)
            assert "cartesia.voice" in end.reason
            assert len(at.audio()) < 60 * 8000
            await at.works()
            assert server.cancels == server.contexts[:1]

    run(work)


def test_a_clause_of_silence_is_a_failure() -> None:
    async def work() -> None:
        async with CartesiaServer() as server, desk(server) as at:
            at.speak(1, MUTE)
            assert "no audio" in (await at.done(1)).reason
            await at.works()

    run(work)


@pytest.mark.parametrize("what", ["reset", "close", "error-all", "hang"])
def test_a_lost_connection_ends_every_call_s_clause_once(what: What) -> None:
    async def work() -> None:
        server = CartesiaServer(speed=30)
        async with server, desk(server, first_audio_seconds=1.0, audio_seconds=1.0) as at:
            server.clauses += [None, None, Fault(what, "middle")]
            for slot in range(3):
                at.speak(1, TWO, slot=slot)
                at.speak(2, ONE, slot=slot)
                at.end(2, slot=slot)
            for slot in range(3):
                assert (await at.done(1, slot=slot)).reason
                assert (await at.done(2, slot=slot)).audio == b""
                await at.ended(2, slot=slot)
            assert not at.voices._breaker.open, "one failure, not three"
            for slot in range(3):
                await at.works(slot=slot)
            assert server.connections == 2

    run(work)


@pytest.mark.parametrize("what", ["reset", "strange", "twice", "garbage", "error", "error-all"])
def test_the_server_breaks_after_a_cancel(what: What) -> None:
    async def work() -> None:
        server = CartesiaServer(speed=30)
        server.clauses.append(Fault(what, "middle"))
        async with server, desk(server) as at:
            at.speak(1, TWO)
            await at.until(lambda: at.of(1), "the first audio")
            at.cancel()
            before = len(at.events)
            await at.until(lambda: server.failed, "the fault, while nothing is open")
            connections = 2 if what in ("reset", "error-all") else 1
            await at.until(lambda: at.voices._socket.connects == connections, "a connection")
            assert len(at.events) == before
            assert not at.voices._breaker.open
            await at.works()

    run(work)


def test_three_failures_rest_the_vendor_and_one_success_ends_it() -> None:
    async def work() -> None:
        server = CartesiaServer()
        server.clauses += [Fault("error")] * 3
        async with server, desk(server) as at:
            for clause in range(1, 4):
                at.speak(clause, ONE)
                assert "A model" in (await at.done(clause)).reason
            at.speak(4, ONE)
            assert "left alone" in at.of(4)[0].reason
            at.end(4)
            assert (await at.ended(4)).audio == b""
            assert b"threadline_tts_vendor_breaker_open 1.0" in render(at.voices.samples())
            at.voices._breaker._until = 0.0  # its rest is over: one may try
            at.speak(5, ONE)
            at.speak(6, TWO)
            assert "left alone" in at.of(6)[0].reason
            assert (await at.done(5)).reason == ""
            await at.works()

    run(work)


def test_an_idle_connection_is_replaced_before_the_server_closes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vendor_tts_socket, "IDLE_SECONDS", 0.05)

    async def work() -> None:
        async with CartesiaServer() as server, desk(server) as at:
            await at.until(lambda: server.connections >= 3, "it is replaced")
            await at.works()
            assert at.events[0].reason == ""

    run(work)


def test_a_server_that_breaks_at_once_is_not_hammered() -> None:
    async def work() -> None:
        async with CartesiaServer() as server, desk(server) as at:
            await at.until(lambda: at.voices._socket.up, "a connection")
            began, first = time.monotonic(), server.connections
            while time.monotonic() < began + 1.0:
                server.reset()
                await asyncio.sleep(0.005)
            assert server.connections - first <= 6

    run(work)


# -- the rest ---------------------------------------------------------------------------------


def test_samples_can_be_rendered() -> None:
    async def work() -> None:
        server = CartesiaServer()
        server.clauses.append(Fault("error"))
        async with server, desk(server) as at:
            at.speak(1, ONE)
            await at.done(1)
            await at.works()
            page = render(at.voices.samples()).decode()
            assert "threadline_tts_vendor_clauses_total 2.0" in page
            assert "threadline_tts_vendor_failed_total 1.0" in page
            assert "threadline_tts_vendor_first_audio_seconds_count 1.0" in page
            assert "threadline_tts_vendor_total_seconds_count 1.0" in page
            assert "threadline_tts_vendor_connected 1.0" in page
            assert "threadline_tts_vendor_contexts 0.0" in page

    run(work)


def test_the_server_is_a_process_of_its_own() -> None:
    """As benchmarks use it."""
    path = Path(__file__).parents[1] / "vendors" / "cartesia_server.py"
    flags = ["--port", "0", "--first-ms", "1", "--speed", "500"]
    process = subprocess.Popen(
        [sys.executable, str(path), *flags],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    async def work() -> None:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        at = Desk(Cartesia(api_key="local", url=f"ws://127.0.0.1:{port}"))
        await at.works()
        await at.voices.close()

    try:
        run(work)
    finally:
        process.kill()
        process.communicate()


def test_no_key() -> None:
    with pytest.raises(ConfigError, match="CARTESIA_API_KEY"):
        Voices(Cartesia(), lambda event: None, 1)


def test_close_before_anything_and_while_connecting() -> None:
    async def work() -> None:
        server = CartesiaServer()
        server.handshakes.append("hang")
        async with server:
            idle = Desk(Cartesia(api_key=server.key, url=server.url))
            await idle.voices.close()
            async with desk(server) as at:
                await at.until(lambda: server.connections, "an attempt")
                began = time.monotonic()
            assert time.monotonic() - began < 3 * vendor_tts_socket.STOP_SECONDS + 1

    run(work)


def test_constants_fit_the_protocol() -> None:
    assert vendor_tts.CONTEXT_SECONDS < 1.0, "the server forgets a context after one second"
    assert vendor_tts_socket.IDLE_SECONDS < 300, "and a connection after five minutes"
