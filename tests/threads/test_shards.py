"""Several threads for one stage: who is woken and told, and whole calls through two of each."""

from __future__ import annotations

import asyncio
import json
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import DEADLINE, Worker, until
from prometheus_client.parser import text_string_to_metric_families
from serving import SILENCE, House, Line, apology, get, house, quick, recorded, spoken
from websockets.frames import Frame, Opcode

from threadline.config import Server, Vad
from threadline.dialog.brain import Answer
from threadline.models.store import ModelStore
from threadline.threads.io_calls import IoCalls
from threadline.threads.messages import Handed, HangUp
from threadline.threads.shards import numbered, ports, waking
from threadline.threads.wake import Inbox, Outbox

TWO = quick(server=Server(max_calls=6, io_threads=2), vad=Vad(threads=2))
GREETING = "Hello there."


@dataclass(frozen=True)
class Echo:
    """Says what it has heard, so that each caller's answer is his own."""

    greeting: str = GREETING

    def begin(self) -> int:
        return 0

    def answer(self, state: int, words: str) -> tuple[int, Answer]:
        return state + 1, Answer(f"You said {words}.")


@pytest.fixture(scope="module")
def speech(models: ModelStore) -> list[bytes]:
    """What four people say: no two of one length."""
    texts = "Hello.", "I would like a table.", "Until when are you open today?", "A table for two."
    return [recorded(models, text) + SILENCE * 5 * number for number, text in enumerate(texts)]


@contextmanager
def inboxes(*names: str) -> Iterator[list[Inbox]]:
    made = [Inbox(name) for name in names]
    yield made
    for inbox in made:
        inbox.close()


# -- who has which slot ----------------------------------------------------------------------------


def test_one_thread_keeps_its_name_and_several_are_numbered() -> None:
    assert numbered("vad", 1) == ["vad"]
    assert numbered("vad", 3) == ["vad-1", "vad-2", "vad-3"]


def test_an_event_goes_to_the_thread_that_has_its_slot_and_wakes_that_one() -> None:
    with inboxes("vad-1", "vad-2", "vad-3") as made:
        port = ports(made, "asr")
        for slot in (4, 1, 8):
            port.put(HangUp(slot, 1, "told"))
        assert [inbox.wait(0) for inbox in made] == [False, True, True]
        told = [[event.slot for event in inbox.events()] for inbox in made]  # type: ignore[attr-defined]  # of an event about a call
        assert told == [[], [4, 1], [8]]
        waking(made)([3, 2, 0])
        assert [inbox.wait(0) for inbox in made] == [True, False, True]


def test_what_one_thread_has_no_room_for_waits_and_what_is_for_the_others_does_not() -> None:
    with inboxes("vad-1", "vad-2") as made:
        port = ports(made, "asr")
        for number in range(200):
            port.put(HangUp(0, number, ""))
        port.put(HangUp(1, 7, ""))
        assert not port.flush()
        assert port.depth() == 201
        assert len(list(made[1].events())) == 1
        taken = list(made[0].events())
        assert port.flush()
        taken += made[0].events()
        assert [event.generation for event in taken] == list(range(200))  # type: ignore[attr-defined]  # as above


# -- whole calls -----------------------------------------------------------------------------------


def greeted(this: House) -> Line:
    line = this.line()
    line.until(lambda: line.replies() == 1, "the greeting")
    return line


def page(this: House) -> dict[str, float]:
    """Every sample of the metrics page by its name and labels, none of them twice."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(get(this.address, "/metrics")[2].decode()):
        for sample in family.samples:
            name = f"{sample.name}{sorted(sample.labels.items())}"
            assert name not in found, name
            found[name] = sample.value
    return found


def test_each_of_four_callers_is_heard_and_answered_and_the_metrics_add_up(
    models: ModelStore, tmp_path: Path, speech: list[bytes]
) -> None:
    with house(models, tmp_path, config=TWO, brain=Echo()) as this:
        lines = [greeted(this) for _ in speech]
        assert [this.slot_of(line).slot for line in lines] == [0, 1, 2, 3]
        assert [len(io.legs) for io in this.server.ios] == [2, 2]
        said = [
            Worker(partial(line.say, words, this.slot_of(line)))
            for line, words in zip(lines, speech, strict=True)
        ]
        for worker in said:
            worker.join()
        for line in lines:
            line.until(lambda line=line: line.replies() == 2, "an answer")
            line.hang_up()
            this.call_of(line)
        this.free()
        answers = [this.logged("turn", call_id=line.call_id, turn=1)["said"] for line in lines]
        assert len(set(answers)) == 4, "each of them said something else"
        for line, answer in zip(lines, answers, strict=True):
            assert line.heard == spoken(GREETING) + spoken(answer)

        ios, vads = this.server.ios, this.server.vads
        assert all(io.frames for io in ios)
        assert all(vad.windows and vad.floors for vad in vads)
        frames, windows = sum(io.frames for io in ios), sum(vad.windows for vad in vads)
        until(lambda: page(this)["threadline_io_frames_total[]"] == frames, "the page is new")
        found = page(this)
        assert found["threadline_vad_windows_total[]"] == windows
        assert found["threadline_frame_lateness_seconds_count[]"] == frames
        assert found["threadline_vad_floors_total[]"] == 4
        assert found["threadline_calls_opened_total[]"] == 4
        for name in ("io-calls-1", "io-calls-2", "vad-1", "vad-2"):
            assert found[f"threadline_stage_stalled[('stage', '{name}')]"] == 0
        facts = json.loads(get(this.address, "/readyz")[2])
        assert (facts["ready"], facts["calls"], facts["limit"]) == (True, 0, 6)
        assert facts["stages"][-2:] == ["io-calls-2", "io-calls-1"]


def test_of_many_at_once_exactly_the_limit_is_admitted(models: ModelStore, tmp_path: Path) -> None:
    """Every connection is open before the first asks; the lines of both threads are given away."""
    config = quick(server=Server(max_calls=5, io_threads=2))
    with house(models, tmp_path, config=config, ready=False) as this:
        for _ in range(3):
            lines = [Line(this.address, connect=False) for _ in range(20)]
            for line in lines:
                line.connect()
            waiting = list(lines)
            while waiting:
                assert select.select([line.sock for line in waiting], [], [], DEADLINE)[0]
                for line in waiting:
                    line.read(0)
                waiting = [
                    line for line in waiting if line.ws.state.name == "CONNECTING" and not line.gone
                ]
            answers = [line.handshake() for line in lines]
            assert (answers.count(101), answers.count(503)) == (5, 15)
            assert this.door.live == 5
            until(lambda: [len(io._by_slot) for io in this.server.ios] == [3, 2], "all are seated")
            for line in lines:
                line.close()
            this.free()
        assert (this.door.opened, this.door.refusals["full"]) == (15, 45)


def test_what_comes_with_the_request_is_not_lost_on_the_way_to_another_thread(
    models: ModelStore, tmp_path: Path
) -> None:
    """No carrier sends a word before it is answered; one that does is served all the same."""
    with house(models, tmp_path, config=TWO, ready=False) as this:
        for slot in (0, 1):
            line = Line(this.address, connect=False)
            line.ws.send_request(line.ws.connect())
            texts = line.carrier.connected(), line.carrier.start()
            early = [Frame(Opcode.TEXT, text.encode()).serialize(mask=True) for text in texts]
            line.sock.sendall(b"".join((*line.ws.data_to_send(), *early)))
            assert line.handshake() == 101
            line.until(lambda line=line: line.replies() == 1, "the greeting")
            assert this.slot_of(line).slot == slot
        assert [len(io.legs) for io in this.server.ios] == [1, 1]


def test_draining_reaches_the_calls_of_every_thread(models: ModelStore, tmp_path: Path) -> None:
    config = quick(server=Server(max_calls=6, io_threads=2, drain_seconds=0.1))
    with house(models, tmp_path, config=config, ready=False) as this:
        lines = [greeted(this), greeted(this)]
        assert this.server.supervisor.drain() == 2, "two were cut off"
        assert this.door.live == 0
        late = Line(this.address)
        assert (late.handshake(), late.refusal) == (503, "this server is being stopped\n")
        for line in lines:
            line.until(lambda line=line: line.closing is not None, "a close frame")
            assert line.closing is not None
            assert (line.closing.code, line.closing.reason) == (1000, "the server is stopping")


class InjectedError(Exception):
    """Stands for any defect of ours."""


def broken_for(slot: int, work: Callable[..., Any]) -> Callable[..., Any]:
    def raising(ear: Any, *more: Any) -> Any:
        if ear.call.slot == slot:
            raise InjectedError
        return work(ear, *more)

    return raising


def test_a_defect_in_one_vad_ends_its_call_with_an_apology_and_no_other(
    models: ModelStore, tmp_path: Path, speech: list[bytes]
) -> None:
    with house(models, tmp_path, config=TWO, brain=Echo()) as this:
        this.expected = True
        lines = [greeted(this) for _ in range(4)]
        vad = this.server.vads[1]
        vad._hear = broken_for(1, vad._hear)  # type: ignore[method-assign]
        victim, *others = lines[1], lines[0], lines[3]  # of another thread, and of this one
        victim.say(speech[1])  # all at once: nobody hears it out
        victim.until(lambda: victim.gone, "the call is ended")
        assert victim.closing is not None
        assert victim.closing.reason == "a defect in vad-2"
        assert victim.heard == spoken(GREETING) + apology()
        for line in others:
            line.say(speech[0], this.slot_of(line))
            line.until(lambda line=line: line.replies() == 2, "an answer")
        assert all(running.thread.is_alive() for running in this.server.supervisor.stages)


def test_a_defect_in_one_io_calls_ends_its_call_and_no_other(
    models: ModelStore, tmp_path: Path, speech: list[bytes]
) -> None:
    with house(models, tmp_path, config=TWO, brain=Echo()) as this:
        this.expected = True
        other, victim = greeted(this), greeted(this)
        (leg,) = this.server.ios[1].legs

        def broken(*_: object) -> None:
            raise InjectedError

        leg._listen = broken  # type: ignore[method-assign]
        victim.say(speech[1])
        victim.until(lambda: victim.gone, "the call is ended")
        assert this.call_of(victim)["reason"] == "a defect in io-calls-2"
        this.logged("defect in a stage", stage="io-calls-2", slot=1)
        other.say(speech[0], this.slot_of(other))
        other.until(lambda: other.replies() == 2, "an answer")
        late = [greeted(this), greeted(this)]
        assert {this.slot_of(line).slot % 2 for line in late} == {0, 1}, "both threads go on"


def test_a_socket_on_its_way_to_a_thread_that_ends_is_closed() -> None:
    with inboxes("io-calls-2", "io-calls-1", "reply") as (inbox, first, reply):
        io = IoCalls(
            Server(), inbox, reply.port("io"), lambda slots: None, None, [first.port("io")]
        )
        io.begin()
        handed: Outbox[object] = inbox.port("io-calls-1")
        ours, theirs = socket.socketpair()
        handed.put(Handed(SimpleNamespace(), ours))  # type: ignore[arg-type]  # never looked at
        io.finish()
        io.pulse.close()
        asyncio.set_event_loop(None)
        theirs.settimeout(DEADLINE)
        assert theirs.recv(1) == b""
        theirs.close()
