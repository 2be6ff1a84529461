"""Who has the floor: vad, pacer and io-calls on one call. ACCEPTABLE and FORBIDDEN as said."""

from __future__ import annotations

from functools import partial

from .beside import Code
from .scene import Scene, heard, judge_wire
from .search import Check, model
from .world import World, demand

# -- pause, commit, resume ---------------------------------------------------------------------


def pause(code: Code, world: World, *, end: str, ticks: int) -> Check:
    """vad pauses the agent; then the caller takes the floor, or it was nothing.

    ACCEPTABLE  a tick that began before the pause was visible still releases its frame. After a
                lapse the rest follows, in order; after a floor change it is dropped.
    FORBIDDEN   a tick that began after the pause was visible releases a frame that the floor
                change voids; a frame lost, repeated or out of order after a lapse.
    """
    scene = Scene(code, world)
    call = scene.call
    scene.say(0, range(4))
    scene.hand_over()
    stage, pacer = scene.vad(lambda: None), scene.pacer(lambda: None)
    speech = code.stage("vad")

    def hear() -> None:
        scene.hear(stage, speech.Onset())
        scene.hear(stage, speech.Taken() if end == "taken" else speech.Lapsed())

    def pace() -> None:
        for _ in range(ticks):
            world.turn("the timer")
            paused = world.observe(lambda: call.hold.at or call.epoch.at)
            before = call.due.tail.at
            pacer.advance(1)
            released = (call.due.tail.at - before) & 255
            if end == "taken":
                demand(
                    not (paused and released),
                    "a frame is released by a tick that began after the pause; it is void",
                )

    world.spawn("vad", hear)
    world.spawn("pacer", pace)

    def check() -> None:
        scene.hand_over()
        demand(not call.hold.at, "the agent stays paused")
        out = []
        for _ in range(5):
            while (record := call.due.pop()) is not None:
                out.append(record[5][2])
            pacer.advance(1)
        wanted = list(range(4)) if end == "lapsed" else list(range(len(out)))
        demand(out == wanted, f"the caller hears frames {out}, not {wanted}")

    return check


def commit(code: Code, world: World, *, ticks: int) -> Check:
    """The caller takes the floor; reply, told so, answers at once; the pacer runs beside them.

    ACCEPTABLE  frames of the old epoch are released until the pause is visible, then dropped.
    FORBIDDEN   a frame of the answer is dropped; one of the old epoch follows one of the new.
    """
    scene = Scene(code, world, answers=True)
    call = scene.call
    scene.say(0, range(1))
    scene.hand_over()
    stage, pacer = scene.vad(lambda: None), scene.pacer(lambda: None)
    speech = code.stage("vad")

    def hear() -> None:
        scene.hear(stage, speech.Onset())
        scene.hear(stage, speech.Taken())

    def reply() -> None:
        scene.reply_box.wait(1.0)
        for event in scene.reply_box.events():
            scene.say(event.epoch, range(2))

    def pace() -> None:
        for _ in range(ticks):
            world.turn("the timer")
            pacer.advance(1)

    world.spawn("vad", hear)
    world.spawn("pacer", pace)
    world.spawn("reply", reply)

    def check() -> None:
        scene.hand_over()
        out = []
        for _ in range(5):
            while (record := call.due.pop()) is not None:
                out.append((record[5][1], record[5][2]))
            pacer.advance(1)
        answer = [one for one in out if one[0] == 1]
        demand(answer == [(1, 0), (1, 1)], f"of the answer's two frames {answer} are released")
        demand(out == sorted(out), f"{out} is out of order")

    return check


# -- clear ---------------------------------------------------------------------------------------


def clear(code: Code, world: World, *, ticks: int, answer: bool, floors: int = 1) -> Check:
    """The caller takes the floor while frames are on their way to the socket.

    ACCEPTABLE  frames of the old epoch reach the socket before its clear, or never.
    FORBIDDEN   one after the clear; one of the new epoch before it, which the clear would empty
                out of the carrier; one of the new epoch lost; no clear although the carrier
                holds audio; io-calls asleep with a frame or a floor change to look at.
    """
    scene = Scene(code, world, answers=answer)
    call = scene.call
    io = scene.io()
    leg = scene.leg(io, generation=1)
    call.due.push(1, 0, 1, 0, 0, bytes((1, 0, 0)))
    leg.pump()  # the carrier holds this one
    scene.say(0, range(1, 3))
    scene.hand_over()
    stage, pacer = scene.vad(io.inbox.wake), scene.pacer(io.inbox.wake)
    speech = code.stage("vad")

    def hear() -> None:
        for _ in range(floors):
            scene.hear(stage, speech.Taken())

    def pace() -> None:
        for _ in range(ticks):
            world.turn("the timer")
            pacer.advance(1)

    def reply() -> None:
        while True:
            scene.reply_box.wait(1.0)
            for event in scene.reply_box.events():
                if type(event).__name__ == "FloorTaken":
                    scene.say(event.epoch, range(2))

    world.spawn("vad", hear)
    world.spawn("pacer", pace)
    world.spawn("io-calls", partial(scene.serve, io), daemon=True)
    if answer:
        world.spawn("reply", reply, daemon=True)

    def check() -> None:
        sent = leg._transport.sent
        demand(call.due.depth() == 0, "io-calls sleeps, and a frame is due")
        demand(leg.epoch == call.epoch.at, "io-calls sleeps, and the floor has changed")
        demand(("clear",) in sent, "the carrier plays on: it was never cleared")
        scene.hand_over()
        for _ in range(6):
            pacer.advance(1)
            leg.pump()
        judge_wire(sent, 1)
        if answer:
            mine = [one[2] for one in heard(sent) if one[1] == floors]
            demand(mine == [0, 1], f"of the answer's two frames {mine} reach the socket")

    return check


MODELS = [
    model("pause/taken", pause, end="taken", ticks=2),
    model("pause/lapsed", pause, end="lapsed", ticks=2),
    model("commit/answer", commit, ticks=2, weak=False),
    model("commit/weak", commit, ticks=3, samples=500),
    model("clear/frames", clear, ticks=2, answer=False, weak=False),
    model("clear/weak", clear, ticks=1, answer=False),
    model("clear/answer", clear, ticks=2, answer=True, bound=1, weak=False),
    model("clear/twice", clear, ticks=1, answer=False, floors=2, weak=False),
    model("clear/long", clear, ticks=4, answer=True, samples=500),
]
