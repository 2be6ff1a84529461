"""A call with nothing local but the ears' gate: three vendors, and only the threads they need."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import Worker, until
from metrics_page import families
from serving import House, Line, apology, get, house, quick, recorded

sys.path.insert(0, str(Path(__file__).parents[1] / "vendors"))
from cartesia_server import CartesiaServer, tone
from deepgram_server import DeepgramServer, Texts
from llm_server import LlmServer

from threadline.agent import Agent
from threadline.audio.tones import reorder
from threadline.config import Cartesia, Config, Deepgram, Endpoint, Llm, Stt, Tts
from threadline.models.store import ModelStore
from threadline.threads.door import REFUSALS
from threadline.threads.server import Server

AGENT = Agent(instructions="Be brief.", greeting="Good evening.")
WORDS = "I would like a table for two."
ANSWER = "Certainly. For which day would you like it?"


@contextmanager
def speaking() -> Iterator[CartesiaServer]:
    """The voice's server, on a loop and thread of its own."""
    server, ready = CartesiaServer(), threading.Event()
    over: asyncio.Event
    loop: asyncio.AbstractEventLoop

    async def run() -> None:
        nonlocal over, loop
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        async with server:
            ready.set()
            await over.wait()

    worker = Worker(lambda: asyncio.run(run()), "cartesia")
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(over.set)
        worker.join()


@dataclass
class Vendors:
    deepgram: DeepgramServer
    llm: LlmServer
    cartesia: CartesiaServer

    def config(self, **more: object) -> Config:
        chains: dict[str, object] = {
            "stt": Stt(chain=("deepgram",)),
            "deepgram": Deepgram(api_key="key", url=self.deepgram.url),
            "llm": Llm(chain=("openai",), base_url=self.llm.url),
            "tts": Tts(chain=("cartesia",)),
            "cartesia": Cartesia(api_key=self.cartesia.key, url=self.cartesia.url),
        }
        return quick(**chains | more)


@pytest.fixture
def vendors() -> Iterator[Vendors]:
    with (
        DeepgramServer(voice=lambda: Texts([WORDS])) as deepgram,
        LlmServer() as llm,
        speaking() as cartesia,
    ):
        llm.plans += [lambda exchange: exchange.stream(ANSWER.split(" ")[:1] + [
            f" {word}" for word in ANSWER.split(" ")[1:]])] * 20  # fmt: skip
        yield Vendors(deepgram, llm, cartesia)


def greeted(this: House) -> Line:
    line = this.line()
    line.until(lambda: line.replies() == 1, "the greeting")
    return line


def test_a_call_is_held_by_three_vendors(
    models: ModelStore, tmp_path: Path, vendors: Vendors
) -> None:
    smart = models.path("smart-turn", "smart-turn-v3.2-cpu.onnx")
    config = vendors.config()
    with house(models, tmp_path, config=config, agent=AGENT, smart_turn=smart) as this:
        stages = [one.stage.name for one in this.server.supervisor.stages]
        assert stages == ["asr", "endpoint", "io-vendors", "reply", "vad", "pacer", "io-calls"]
        assert "asr-decode" not in {thread.name for thread in threading.enumerate()}
        assert get(this.address, "/readyz")[0] == 200
        line = greeted(this)
        assert line.heard.startswith(tone(AGENT.greeting)[:1000])
        line.say(recorded(models, WORDS), this.slot_of(line))
        line.until(lambda: line.replies() == 2, "an answer")
        line.hang_up()
        turn = this.logged("turn", turn=1)
        assert turn["heard"].startswith(WORDS)  # again for each pause he makes, says this server
        assert turn["said"] == ANSWER
        assert turn["source"] == "deepgram"
        assert turn["played"] == ANSWER
        assert {"asked", "first_token", "voice_asked", "first_frame"} <= set(turn["at_ms"])
        assert tone("Certainly.")[:1000] in line.heard
        spoken = " ".join(vendors.cartesia.texts)
        assert ANSWER in " ".join(spoken.split())


SHOWN = """
calls calls_limit calls_opened_total calls_refused_total strained
frame_lateness_seconds pacer_lateness_seconds frame_age_seconds
ring_depth_records inbox_depth_events pacer_underruns_total vad_skipped_frames_total
turn_response_seconds turn_stage_seconds turn_filler_seconds reply_turns_total
model_acquire_seconds model_first_token_seconds model_failed_total model_breaker_open
stt_connect_seconds stt_first_text_seconds stt_failed_total stt_breaker_open
tts_vendor_acquire_seconds tts_vendor_first_audio_seconds tts_vendor_failed_total
tts_vendor_breaker_open
gil_enabled fallback gc_pause_seconds log_dropped_total
stage_slow_total stage_starved_total stage_stalled stage_cpu_seconds_total
process_resident_bytes build_info
"""


def test_the_page_after_a_call_keeps_to_the_conventions_and_lacks_nothing(
    models: ModelStore, tmp_path: Path, vendors: Vendors
) -> None:
    config = vendors.config(endpoint=Endpoint(mode="silence"))
    with house(models, tmp_path, config=config, agent=AGENT) as this:
        line = greeted(this)
        line.say(recorded(models, WORDS), this.slot_of(line))
        line.until(lambda: line.replies() == 2, "an answer")

        def page() -> str:
            return get(this.address, "/metrics")[2].decode()

        until(lambda: "threadline_turn_response_seconds_count 1.0" in page(), "the turn is told")
        found = families(page())
        line.hang_up()
    assert {f"threadline_{name}" for name in SHOWN.split()} <= set(found)
    assert values(found, "calls_refused_total", "reason") == dict.fromkeys(REFUSALS, 0.0)
    for name, label, present in (
        ("frame_age_seconds", "hop", {"vad", "asr"}),
        ("turn_stage_seconds", "stage", {"think", "speak"}),
        ("ring_depth_records", "ring", {"heard", "speech", "outgoing", "due"}),
        ("model_acquire_seconds", None, {""}),
        ("tts_vendor_acquire_seconds", None, {""}),
        ("stt_connect_seconds", None, {""}),
        ("stage_cpu_seconds_total", "stage", {"vad", "io-calls"}),
    ):
        observed = values(found, name, label)
        assert present <= {key for key, value in observed.items() if value > 0}, name


def values(found: dict[str, Any], name: str, label: str | None) -> dict[str, float]:
    """By that label: a counter's values, or how often a histogram was observed."""
    return {
        one.labels.get(label, ""): one.value
        for one in found[f"threadline_{name}"].samples
        if one.name.endswith(("_total", "_count"))
    }


def test_without_a_local_voice_a_defect_ends_the_call_with_a_tone(
    models: ModelStore, tmp_path: Path, vendors: Vendors, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = vendors.config(endpoint=Endpoint(mode="silence"))
    with house(models, tmp_path, config=config, agent=AGENT) as this:
        this.expected = True
        line = greeted(this)

        def broken(*_: object) -> None:
            raise ZeroDivisionError("injected")

        monkeypatch.setattr(this.server.reply, "_transcript", broken)
        before = len(line.heard)
        line.say(recorded(models, WORDS), this.slot_of(line))
        line.until(lambda: line.gone, "the call is ended")
        assert line.heard[before:] == reorder() != apology()
        line.close()


def test_smart_turn_off_means_no_such_thread(
    models: ModelStore, tmp_path: Path, vendors: Vendors
) -> None:
    config = vendors.config(endpoint=Endpoint(mode="silence"))
    smart = models.path("smart-turn", "smart-turn-v3.2-cpu.onnx")
    with house(models, tmp_path, config=config, agent=AGENT, smart_turn=smart) as this:
        server: Server = this.server
        assert server.endpoint is None
        assert server.tts is None
        assert server.asr.recogniser is None
        until(lambda: get(this.address, "/metrics")[2], "the metrics page")
        facts = json.loads(get(this.address, "/readyz")[2])
        assert "io-vendors" in facts["stages"]
