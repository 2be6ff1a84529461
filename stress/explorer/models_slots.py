"""A slot's next caller, while things of the last one are still about."""

from __future__ import annotations

from typing import Any

from .beside import Code
from .scene import Scene, heard, judge_wire
from .search import Check, model
from .world import World, demand


def slot_reuse(code: Code, world: World, *, ticks: int, late: int, answer: bool) -> Check:
    """One caller hangs up; the next one gets the slot while the first one's frames are about.

    ACCEPTABLE  the first caller's frames reach his own socket, or nobody.
    FORBIDDEN   the second caller hears one; a frame made for the second caller is lost.
    """
    scene = Scene(code, world, answers=answer)
    call = scene.call
    io = scene.io()
    first = scene.leg(io, generation=1)
    second: list[Any] = []
    call.due.push(1, 0, 1, 0, 0, bytes((1, 0, 0)))
    scene.say(0, range(1, 2))
    scene.hand_over()
    pacer = scene.pacer(io.inbox.wake)

    def sockets() -> None:
        first.end("hung up")
        second.append(scene.leg(io))
        second[0].call_id = "second"
        second[0]._start("second", ())
        scene.serve(io)

    def reply() -> None:
        scene.say(0, range(2, 2 + late))  # it has not heard of the end
        opened = False
        while answer and not opened:
            scene.reply_box.wait(1.0)
            for event in scene.reply_box.events():
                if type(event).__name__ == "CallOpened":
                    opened = True
                    scene.say(0, range(2), event.generation)

    def pace() -> None:
        for _ in range(ticks):
            world.turn("the timer")
            pacer.advance(1)

    world.spawn("io-calls", sockets, daemon=True)
    world.spawn("pacer", pace)
    world.spawn("reply", reply)

    def check() -> None:
        demand(second, "the second caller was never served")
        scene.hand_over()
        for _ in range(6):
            pacer.advance(1)
            second[0].pump()
        judge_wire(first._transport.sent, 1)
        judge_wire(second[0]._transport.sent, 3)
        if answer:
            mine = [one[2] for one in heard(second[0]._transport.sent)]
            demand(mine == [0, 1], f"of the greeting's two frames {mine} reach the socket")

    return check


def first_words(code: Code, world: World, *, frames: int) -> Check:
    """vad drains what callers say while one hangs up and the next one begins to speak.

    ACCEPTABLE  what the first caller said last is judged as his, or by nobody.
    FORBIDDEN   it is judged as the second caller's; a frame of the second caller is lost; vad
                sleeps with frames to judge.
    """
    scene = Scene(code, world)
    call = scene.call
    io = scene.io()
    first = scene.leg(io, generation=1)
    call.heard.push(1, 0, 0, 0, 0, b"\x01")
    io.wake_vad([0])
    scene.hand_over()
    stage = scene.vad(lambda: None)
    ear = stage._ears[0]

    def sockets() -> None:
        first.end("hung up")
        leg = scene.leg(io)
        leg._start("second", ())
        for _ in range(frames):
            call.heard.push(leg.generation, 0, 0, 0, 0, b"\x03")
            io.wake_vad([0])

    def listen() -> None:
        while True:
            stage.inbox.wait(1.0)
            stage._collect(ear)

    world.spawn("io-calls", sockets)
    world.spawn("vad", listen, daemon=True)

    def check() -> None:
        demand(bytes(ear.pending) == b"\x03" * frames, f"the second caller is {ear.pending!r}")

    return check


def late_floor(code: Code, world: World) -> Check:
    """vad gives the floor to a caller who hangs up; the next one is being greeted.

    ACCEPTABLE  the greeting is said, or is begun, cleared and said again.
    FORBIDDEN   the second caller hears no greeting.
    """
    scene = Scene(code, world, answers=True)
    io = scene.io()
    first = scene.leg(io, generation=1)
    second: list[Any] = []
    stage, pacer = scene.vad(io.inbox.wake), scene.pacer(io.inbox.wake)
    reply = scene.reply()
    taken = code.stage("vad").Taken()
    scene.hand_over()

    def sockets() -> None:
        first.end("hung up")
        second.append(scene.leg(io))
        second[0]._start("second", ())
        scene.serve(io)

    def converse() -> None:
        while True:
            reply.step()

    world.spawn("io-calls", sockets, daemon=True)
    world.spawn("vad", lambda: scene.hear(stage, taken))
    world.spawn("reply", converse, daemon=True)

    def check() -> None:
        scene.hand_over()
        for _ in range(3):
            pacer.advance(1)
            second[0].pump()
        said = second[0]._transport.sent
        after = said[said.index(("clear",)) :] if ("clear",) in said else said
        demand(heard(after), "the second caller is not greeted")

    return check


MODELS = [
    model("slot-reuse/late", slot_reuse, ticks=2, late=1, answer=False, weak=False),
    model("slot-reuse/greeting", slot_reuse, ticks=1, late=0, answer=True, weak=False),
    model("slot-reuse/long", slot_reuse, ticks=5, late=1, answer=True, samples=500),
    model("first-words/vad", first_words, frames=2),
    model("late-floor/greeting", late_floor, bound=2, weak=False),
]
