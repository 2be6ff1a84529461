"""Which schedules are tried: all, those with few preemptions, or seeded random ones."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .beside import Code
from .memory import here
from .world import STEP, Choice, Forbidden, Key, World

type Check = Callable[[], None]
"""What must hold when all is over: raises Forbidden."""


@dataclass(frozen=True, slots=True)
class Model:
    """A small composition of production code.

    Args:
        name: family/variant; ``--only`` takes either.
        build: makes the shared memory and spawns the threads; returns the check at the end.
        weak: with store buffers.
        bound: preemptions and delayed stores per schedule; None: no bound, all schedules.
        samples: instead of a search, so many random schedules, each of its own seed.
    """

    name: str
    build: Callable[[Code, World], Check]
    weak: bool = True
    bound: int | None = None
    samples: int = 0

    @property
    def how(self) -> str:
        """In a word."""
        if self.samples:
            return "priorities"
        return "exhausted" if self.bound is None else f"{self.bound} preemptions"


def model(name: str, build: Callable[..., Check], **options: Any) -> Model:
    """A model whose `build` takes options; those that concern the search are `Model`'s."""
    search = {key: options.pop(key) for key in ("bound", "samples", "weak") if key in options}
    return Model(name, partial(build, **options), **search)


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a search."""

    model: str
    how: str
    states: int
    schedules: int
    seconds: float
    complete: bool
    failure: str = ""
    schedule: str = ""


class Unplayable(ValueError):  # noqa: N818  # "Error" would say less
    """A schedule that is not one of this model's."""


def encode(log: Sequence[Choice]) -> str:
    """A letter per action: small, that thread goes on; capital, a store of it becomes visible."""
    return "".join(
        chr(97 + thread) if entry == STEP else chr(65 + thread) + (str(entry) if entry else "")
        for thread, entry in log
    )


def decode(schedule: str) -> list[Choice]:
    """The opposite. Raises Unplayable for what `encode` would never say."""
    log: list[Choice] = []
    for letter in schedule:
        if letter.isdecimal() and log and log[-1][1] != STEP:
            thread, entry = log[-1]
            log[-1] = thread, entry * 10 + int(letter)
        elif letter.isascii() and letter.isalpha():
            log.append((ord(letter.lower()) - 97, STEP if letter.islower() else 0))
        else:
            raise Unplayable(f"{letter!r} is no step of a schedule: a letter per step, please")
    return log


def execute(
    model: Model, code: Code, world: World, choose: Callable[[list[Choice]], Choice | None]
) -> BaseException | None:
    """One schedule, to its end or until `choose` says None. What went wrong, or None."""
    here.world = world
    code.fresh()
    try:
        check = model.build(code, world)
        while world.failure is None and (options := world.choices()):
            choice = choose(options)
            if choice is None:
                return None
            world.act(choice)
        if world.failure is None:
            stuck = world.stuck()
            if stuck:
                names = " and ".join(thread.name for thread in stuck)
                raise Forbidden(f"{names} sleeps for ever")
            check()
    except Exception as error:  # noqa: BLE001  # it is the finding
        return error
    else:
        return world.failure
    finally:
        world.end()


def search(model: Model, code: Code, limit: float, *, plain: bool = True) -> Found:
    """As the model asks for. Stops at the first failure, or after `limit` seconds.

    With `plain`, a failure's schedule is one with as few preemptions as can be had.
    """
    if model.samples:
        return _sample(model, code, limit, plain=plain)
    writers: dict[Key, int] = {}
    schedules = 0
    began = time.monotonic()
    while True:
        one = _Exhaust(model, code, writers, model.bound, began + limit)
        outcome = one.run()
        schedules += one.schedules
        if outcome is not _AGAIN:
            break
    seconds = time.monotonic() - began
    if isinstance(outcome, BaseException):
        error, log = (plain and _plainest(model, code)) or (outcome, one.log)
        return Found(
            model.name, model.how, len(one.seen), schedules, seconds, False, _say(error),
            encode(log),
        )  # fmt: skip
    return Found(model.name, model.how, len(one.seen), schedules, seconds, complete=outcome is None)


_AGAIN = "a place has another writer than was thought"
_LATE = "out of time"


class _Exhaust:
    """Depth first; each schedule is run from its beginning. See the package's theory."""

    def __init__(
        self,
        model: Model,
        code: Code,
        writers: dict[Key, int] | None,
        bound: int | None,
        deadline: float,
    ) -> None:
        self.seen: set[int] = set()
        self.schedules = 0
        self.log: list[Choice] = []
        self._model = model
        self._code = code
        self._writers = writers
        self._bound = bound
        self._deadline = deadline
        self._path: list[Choice] = []
        self._untried: list[list[Choice]] = []

    def run(self) -> BaseException | str | None:
        """The first failure; None: there is none; _AGAIN; _LATE."""
        while True:
            world = World(weak=self._model.weak, writers=self._writers)
            failure = execute(self._model, self._code, world, self._choice(world))
            self.schedules += 1
            if failure is not None:
                self.log = world.log
                return failure
            if world.learned:
                return _AGAIN
            while self._untried and not self._untried[-1]:
                self._untried.pop()
                self._path.pop()
            if not self._untried:
                return None
            self._path[-1] = self._untried[-1].pop()
            if time.monotonic() > self._deadline:
                return _LATE

    def _choice(self, world: World) -> Callable[[list[Choice]], Choice | None]:
        path, untried, seen, bound = self._path, self._untried, self.seen, self._bound
        at = 0
        last = -1
        spent = 0

        def choose(options: list[Choice]) -> Choice | None:
            nonlocal at, last, spent
            if at < len(path):
                choice = path[at]
            else:
                state = world.state() if bound is None else hash((world.state(), last, spent))
                if state in seen:
                    return None
                seen.add(state)
                if len(options) > 1:
                    costs = {one: _cost(one, last, options, world) for one in options}
                    options.sort(key=lambda one: (costs[one], one[0] != last, one[1] == STEP))
                    if bound is not None:
                        options = [one for one in options if spent + costs[one] <= bound]
                choice = options[0]
                untried.append(options[:0:-1])
                path.append(choice)
            if bound is not None:
                spent += _cost(choice, last, options, world)
            if choice[1] == STEP:
                last = choice[0]
            at += 1
            return choice

        return choose


def _cost(choice: Choice, last: int, options: list[Choice], world: World) -> int:
    """1 for what a quiet machine would not do here."""
    thread, entry = choice
    if entry != STEP:
        return int(entry > 0)
    preempts = thread != last and (last, STEP) in options and not world.threads[last].idle
    return int(preempts or any(one.buffer for one in world.threads))


def _plainest(model: Model, code: Code) -> tuple[BaseException, list[Choice]] | None:
    """The same failure with as few preemptions as possible: easier to read."""
    for bound in range(5):
        one = _Exhaust(model, code, None, bound, time.monotonic() + 2)
        outcome = one.run()
        if isinstance(outcome, BaseException):
            return outcome, one.log
    return None


def _sample(model: Model, code: Code, limit: float, *, plain: bool) -> Found:
    """Random priorities, changed at a few random points (Burckhardt et al., ASPLOS 2010).

    Buffers are actors with priorities of their own, so a store may stay unseen for long.
    """
    began = time.monotonic()
    states: set[int] = set()
    length = 100
    seed = 0
    for seed in range(model.samples):
        dice = random.Random(seed)
        world = World(weak=model.weak)
        drops = {dice.randrange(length) for _ in range(dice.randrange(6))}
        failure = execute(model, code, world, _priorities(world, dice, drops, states))
        length = max(length, len(world.log))
        if failure is not None:
            error, log = (plain and _plainest(model, code)) or (failure, world.log)
            return Found(
                model.name, model.how, len(states), seed + 1, time.monotonic() - began, False,
                f"{_say(error)} (seed {seed})", encode(log),
            )  # fmt: skip
        if time.monotonic() - began > limit:
            break
    return Found(
        model.name, model.how, len(states), seed + 1, time.monotonic() - began,
        complete=seed + 1 == model.samples,
    )  # fmt: skip


def _priorities(
    world: World, dice: random.Random, drops: set[int], states: set[int]
) -> Callable[[list[Choice]], Choice]:
    ranks: dict[tuple[int, bool], float] = {}
    steps = 0

    def rank(choice: Choice) -> float:
        actor = choice[0], choice[1] == STEP
        if actor not in ranks:
            ranks[actor] = dice.random()
        return ranks[actor]

    def choose(options: list[Choice]) -> Choice:
        nonlocal steps
        states.add(world.state())
        highest = max(map(rank, options))
        choice = dice.choice([one for one in options if rank(one) == highest])
        if steps in drops:
            ranks[choice[0], choice[1] == STEP] = -dice.random()
        steps += 1
        return choice

    return choose


def _say(error: BaseException) -> str:
    if isinstance(error, Forbidden):
        return f"FORBIDDEN: {error}"
    return f"{type(error).__name__}: {error}"


def replay(model: Model, code: Code, schedule: str) -> tuple[World, str]:
    """Run one schedule and keep its lines. Returns also what went wrong, or nothing.

    Raises Unplayable when the schedule asks for what cannot happen.
    """
    world = World(weak=model.weak, record=True)
    wanted = decode(schedule)

    def choose(options: list[Choice]) -> Choice:
        at = len(world.log)
        if at >= len(wanted):
            return options[0]
        if wanted[at] not in options:
            raise Unplayable(
                f"step {at + 1} of this schedule, {encode(wanted[at : at + 1])}, cannot happen "
                "there: it belongs to another model, or to other source"
            )
        return wanted[at]

    failure = execute(model, code, world, choose)
    if isinstance(failure, Unplayable):
        raise failure
    return world, "" if failure is None else _say(failure)
