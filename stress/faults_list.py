"""All that can be wrong with a vendor, and in which phases of a turn each of it is tried."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .faults_texts import ANSWERS, FIRST
from .faults_vendors import Illness, Vendors, cartesia, deepgram, llm


@dataclass(frozen=True)
class Fault:
    """One thing that can be wrong with a vendor, and the phases in which it is tried."""

    vendor: str
    name: str
    illness: Callable[[], Illness] = field(repr=False)
    phases: tuple[str, ...]


CONNECT, REQUEST, MIDDLE, CUT_IN = "connect", "request", "middle", "cut-in"
ALWAYS = (CONNECT, REQUEST, CUT_IN)
AT_FIRST = (CONNECT, REQUEST)
AFTER_CANCEL = {
    *("refuses", "resets", "resets at once", "resets in the handshake", "hangs in the handshake"),
    *("says nothing more", "text too late", "leaves the end unanswered", "401"),
    *("hangs before the headers", "drips its answer", "500", "an error, 500", "ends too early"),
    *("audio of stray contexts", "drips its audio"),
}
"""What is tried right after an interruption as well."""


def _phases(name: str, *phases: str) -> tuple[str, ...]:
    return (*phases, CUT_IN) if name in AFTER_CANCEL else phases


def _cutting(vendor: str, **more: Any) -> Illness:
    """New connections meet it, and the one there is breaks."""
    return Illness(begin=lambda v: v.gates[vendor].cut(), **more)


def _refusing(vendor: str) -> Illness:
    return Illness(begin=lambda v: v.gates[vendor].shut(), end=lambda v: v.gates[vendor].open())


def _on_wires(phase: str, fault: Any, seconds: float = 0.0) -> Illness:
    """Connections that are open already meet it, and new ones too."""

    def begin(v: Vendors) -> None:
        for wire in list(v.deepgram.wires):
            at = wire._position / deepgram.RATE + seconds
            wire.plan = deepgram.Plan(phase, again(phase, fault, v), at)

    def again(phase: str, fault: Any, v: Vendors) -> Any:
        def strike(wire: Any) -> bool:
            if v.ill is None:
                return True
            wire.plan = deepgram.Plan(phase, strike, wire._position / deepgram.RATE)
            return bool(fault(wire))

        return strike

    return Illness(begin=begin, ears=deepgram.Plan(phase, fault, seconds))


def _late(ms: float) -> Illness:
    def begin(v: Vendors) -> None:
        v.deepgram.final_ms = ms

    def end(v: Vendors) -> None:
        v.deepgram.final_ms = 60.0

    return Illness(begin=begin, end=end)


def _again(wire: Any) -> bool:
    """Say the final text twice, and the guess again after it."""
    start, end = wire._stretch()
    words = wire.voice.words(bytes(wire._segment), "all")
    if words:
        final = deepgram.results(start, end, words, True, True)
        wire._cut(flushed=True)
        for message in (final, final, deepgram.results(start, end, words)):
            wire.say(message)
    return False


def _stray(wire: Any) -> bool:
    """Texts of another time: long ago, and yet to come."""
    now = wire._position / deepgram.RATE
    for at in (-50.0, now + 50.0):
        words = [("stray", 0.1, 0.4), ("words", 0.5, 0.9)]
        wire.say(deepgram.results(at, at + 1.0, words, True, True))
    return True


def _ears() -> Iterator[Fault]:
    plan = deepgram.Plan
    yield Fault("deepgram", "refuses", partial(_refusing, "deepgram"), ALWAYS)
    for name, made in (
        ("hangs before the handshake", plan("accept", deepgram.hang)),
        ("hangs in the handshake", plan("request", deepgram.hang_handshake)),
        ("resets at once", plan("accept", deepgram.reset)),
        ("401", plan("request", deepgram.status(401))),
        ("429, Retry-After", plan("request", deepgram.status(429, Retry_After="1"))),
        ("500", plan("request", deepgram.status(500))),
        ("answers no HTTP", plan("accept", deepgram.sends(b"220 mail\r\n"))),
        (
            "drips its handshake",
            plan("request", deepgram.sends(b"HTTP/1.1 ", then_drip=b"101 Switching")),
        ),
    ):
        yield Fault(
            "deepgram",
            name,
            partial(_cutting, "deepgram", ears=made),
            _phases(name, *AT_FIRST),
        )
    hard = (
        ("says nothing more", deepgram.hang),
        ("reads nothing more", deepgram.stall),
        ("resets", deepgram.reset),
        ("ends without a goodbye", deepgram.half_close),
        ("closes with 1011", deepgram.closes(1011, "NET-0001")),
        ("garbage, then nothing", deepgram.says(*deepgram.GARBAGE, go_on=False)),
    )
    soft = (
        ("garbage, and goes on", deepgram.says(*deepgram.GARBAGE)),
        ("texts of another time", _stray),
    )
    for name, fault in (*hard, *soft):
        yield Fault("deepgram", name, partial(_on_wires, "audio", fault, 0.4), (MIDDLE,))
    for name, fault in (
        *hard,
        ("leaves the end unanswered", deepgram.skips),
        ("says everything twice", _again),
    ):
        yield Fault(
            "deepgram",
            name,
            partial(_on_wires, "finalize", fault),
            _phases(name, REQUEST),
        )
    yield Fault("deepgram", "text too late", partial(_late, 2500.0), (REQUEST, CUT_IN))


def _after(texts: str, then: Callable[[Any], None]) -> Callable[[Any], None]:
    def plan(exchange: Any) -> None:
        exchange.begin()
        for word in texts.split():
            exchange.send(llm.chunk({"content": f"{word} "}))
        exchange.stopping.wait(0.3)  # so that it is a moment of its own
        then(exchange)

    return plan


def _drip(exchange: Any) -> None:
    exchange.begin()
    exchange.byte_by_byte(llm.answer(["Too late."]), 0.05)


def _done_twice(exchange: Any) -> None:
    texts = [f"{word} " for word in ANSWERS[2, FIRST].split()]
    exchange.begin()
    exchange.send(llm.answer(texts) + llm.answer(texts))
    exchange.end()


def _stray_choice(exchange: Any) -> None:
    """Words of a second choice that nobody asked for, among those of the first."""
    exchange.begin()
    for word in ANSWERS[2, FIRST].split():
        exchange.send(llm.chunk({"content": f"{word} "}))
        other = {"index": 1, "delta": {"content": "stray "}, "finish_reason": None}
        exchange.send(llm.chunk(None).replace(b'"choices": []', b'"choices": [%s]' % _json(other)))
    exchange.send(llm.tail())
    exchange.end()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _brain() -> Iterator[Fault]:
    yield Fault("openai", "refuses", partial(_refusing, "openai"), ALWAYS)
    wrong: dict[str, Callable[[Any], None]] = {
        "hangs before the headers": llm.BEFORE_HEADERS["hang"],
        "hangs after the headers": llm.AFTER_HEADERS["hang after headers"],
        "resets": llm.BEFORE_HEADERS["reset"],
        "resets after the headers": llm.AFTER_HEADERS["reset after headers"],
        "401": llm.BEFORE_HEADERS["401"],
        "429, Retry-After": lambda exchange: exchange.status(
            429, {"message": "slow down"}, retry_after="1"
        ),
        "500": llm.BEFORE_HEADERS["500"],
        "answers no HTTP": llm.BEFORE_HEADERS["not http"],
        "broken JSON": llm.AFTER_HEADERS["broken json"],
        "an error event": llm.AFTER_HEADERS["error event"],
        "an empty answer": llm.AFTER_HEADERS["no content"],
        "drips its answer": _drip,
        "keeps alive, says nothing": llm.AFTER_HEADERS["keep-alives"],
        "a line without end": llm.AFTER_HEADERS["flood"],
    }
    at_connect = ("hangs before the headers", "401", "500", "answers no HTTP")
    for name, plan in wrong.items():
        phases = _phases(name, *(AT_FIRST if name in at_connect else (REQUEST,)))
        yield Fault("openai", name, partial(_cutting, "openai", request=plan), phases)
    for name in ("hangs before the headers", "500"):
        yield Fault(
            "openai",
            f"{name}, its first model only",
            partial(Illness, request=wrong[name], only=FIRST),
            (REQUEST,),
        )
    for name, plan in (("says everything twice", _done_twice), ("stray choices", _stray_choice)):
        yield Fault("openai", name, partial(Illness, request=plan), (REQUEST,))
    for name, then in llm.MIDWAY.items():
        plan = _after("Two it is. And so", then)
        yield Fault("openai", f"{name}, half-way", partial(Illness, request=plan), (MIDDLE,))
    plan = _after("Two it is. And so", llm.MIDWAY["reset"])
    yield Fault("openai", "reset, half-way", partial(Illness, request=plan), (CUT_IN,))


def _voice() -> Iterator[Fault]:
    yield Fault("cartesia", "refuses", partial(_refusing, "cartesia"), ALWAYS)
    for name, plan in (
        ("hangs in the handshake", "hang"),
        ("resets in the handshake", "reset"),
        ("answers no HTTP", "garbage"),
        ("401", 401),
        ("500", 500),
    ):
        yield Fault(
            "cartesia",
            name,
            partial(_cutting, "cartesia", handshake=plan),
            _phases(name, *AT_FIRST),
        )
    yield Fault("cartesia", "429, Retry-After", _busy_door, ALWAYS)
    words = {
        "hang": "says nothing more", "stall": "forgets a context", "reset": "resets",
        "close": "closes with 1011", "error": "an error, 500", "busy": "an error, 429",
        "error-all": "an error for all", "garbage-burst": "garbage", "huge": "a huge message",
        "rubbish": "audio that is none", "missing": "a chunk without audio",
        "done": "ends too early", "strange": "audio of stray contexts",
    }  # fmt: skip
    for what, name in words.items():
        for when, phases in (("before", _phases(name, REQUEST)), ("middle", (MIDDLE,))):
            yield Fault("cartesia", name, _speaks_ill(what, when), phases)
    yield Fault("cartesia", "drips its audio", _speaks_ill("drip", "before"), (REQUEST, CUT_IN))
    for what, name in (("twice", "says done twice"), ("no-flush", "does not say done")):
        yield Fault("cartesia", name, _speaks_ill(what, "after"), (REQUEST,))
    yield Fault("cartesia", "audio after the cancel", Illness, (CUT_IN,))


def _speaks_ill(what: str, when: str) -> Callable[[], Illness]:
    return lambda: Illness(clause=cartesia.Fault(what, when))


def _busy_door() -> Illness:
    def begin(v: Vendors) -> None:
        v.cartesia.retry_after = "1"
        v.gates["cartesia"].cut()

    return Illness(begin=begin, handshake=429)


def faults() -> list[Fault]:
    """All of them."""
    return [*_ears(), *_brain(), *_voice()]
