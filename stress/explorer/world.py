"""One execution: cooperative threads, one shared access at a time, and who may go next.

A thread of a model is a greenlet that runs production code. Before each access that others could
notice it goes back to the scheduler; when it is chosen it makes that access and runs on to the
next one. All of it is one thread of the machine, so nothing but the choices decides what happens.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import greenlet  # type: ignore[import-untyped]  # it ships no types

PATIENCE = 50_000
"""Loads of one execution. What needs more will not end."""

STEP = -1
"""In place of a buffer's entry: the thread itself goes on."""

type Choice = tuple[int, int]
"""(thread, STEP), or (thread, which of its buffered stores becomes visible)."""

type Key = tuple[object, ...]


class Forbidden(AssertionError):  # noqa: N818  # "Error" would say less
    """An outcome that a model forbids."""


def demand(truth: object, forbidden: str) -> None:
    """Raises Forbidden unless true."""
    if not truth:
        raise Forbidden(forbidden)


class Location:
    """One place of shared memory. `key` is the same in every execution."""

    __slots__ = ("key", "value")

    def __init__(self, key: Key, value: object) -> None:
        self.key = key
        self.value = value


@dataclass(slots=True)
class Store:
    """A store that others do not see yet."""

    place: Location
    value: object
    release: bool


@dataclass(slots=True)
class Thread:
    """One thread of a model."""

    index: int
    name: str
    daemon: bool
    """May sleep for ever when all others have ended."""
    glet: greenlet.greenlet
    history: int = 0
    buffer: list[Store] = field(default_factory=list)
    ready: Callable[[], bool] | None = None
    """What it waits for; None: nothing."""
    fence: bool = False
    """Its next access wants its buffer empty."""
    idle: bool = False
    """It sleeps for a while: to run another thread now is no preemption."""
    done: bool = False


@dataclass(slots=True)
class Line:
    """One line of a trace."""

    thread: int
    what: str
    where: str


class World:
    """Memory and threads of one execution.

    Args:
        weak: stores are buffered; otherwise each is visible at once, in program order.
        writers: who stores where, known from earlier executions of the same model. Loads of
            what no other thread stores take no turn. None: every load takes one.
        record: keep the lines of a trace.
    """

    def __init__(
        self, *, weak: bool, writers: dict[Key, int] | None = None, record: bool = False
    ) -> None:
        self.weak = weak
        self.writers = writers
        self.learned = False  # somebody stored where nobody was known to: `writers` has grown
        self.threads: list[Thread] = []
        self.log: list[Choice] = []  # what was done, own loads included
        self.lines: list[Line] | None = [] if record else None
        self.names: dict[Key, str] = {}
        self.failure: BaseException | None = None
        self._me: Thread | None = None
        self._main = greenlet.getcurrent()
        self._memory = 0  # hash of all values
        self._count = 0
        self._patience = PATIENCE
        self._dead = False

    # -- for models -------------------------------------------------------------------------------

    def spawn(self, name: str, work: Callable[[], object], *, daemon: bool = False) -> Thread:
        """One more thread; it runs up to its first access at once."""

        def run() -> None:
            try:
                work()
            except greenlet.GreenletExit:
                return
            except BaseException as error:  # noqa: BLE001  # it fails the execution
                self.failure = self.failure or error
            finally:
                thread.done = True

        thread = Thread(len(self.threads), name, daemon, greenlet.greenlet(run, self._main))
        self.threads.append(thread)
        self._resume(thread)
        return thread

    def number(self) -> int:
        """The same sequence in every execution, for keys."""
        self._count += 1
        return self._count

    def ident(self) -> int:
        """In the place of `threading.get_ident`."""
        return 1 if self._me is None else self._me.index + 2

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Look at what is visible to everybody; takes no turn and is no part of the history."""
        me, self._me = self._me, None
        try:
            yield
        finally:
            self._me = me

    def observe(self, read: Callable[[], object]) -> object:
        """What `read` finds `outside`, as something that this thread knows from now on."""
        me = self._me
        with self.outside():
            value = read()
        if me is not None:
            me.history = hash((me.history, value))
        return value

    def turn(self, what: str) -> None:
        """Sleep for a while: others may go first, here."""
        me = self._me
        assert me is not None, "asked by a thread of the model"
        me.idle = True
        self._visit(what)
        me.idle = False

    def until(self, ready: Callable[[], bool], what: str) -> None:
        """Sleep until `ready`, which looks at visible memory only."""
        me = self._me
        if me is None or self._dead:
            return

        me.ready = ready  # the scheduler asks, and it is nobody: it sees what all can see
        self._visit(what)
        me.ready = None

    # -- for memory.py ----------------------------------------------------------------------------

    def place(self, key: Key, value: object) -> Location:
        """New shared memory. Called while nobody else can know of it."""
        self._memory ^= hash((key, value))
        return Location(key, value)

    def load(self, place: Location) -> object:
        self._patience -= 1
        if self._patience < 0:
            raise Forbidden("it goes on for ever")
        me = self._me
        if me is None:
            return place.value
        if self.writers is not None and self.writers.get(place.key, me.index) == me.index:
            self.log.append((me.index, STEP))
            return self._newest(me, place)
        self._visit("load", place)
        value = self._newest(me, place)
        me.history = hash((me.history, place.key, value))
        if self.lines is not None:
            self.lines[-1].what = f"{self.name(place)} is {_short(value)}"
        return value

    def store(self, place: Location, value: object, *, release: bool) -> None:
        me = self._me
        if me is None:
            self._put(place, value)
            return
        self._learn(place, me.index)
        if self.weak:
            me.buffer.append(Store(place, value, release))
            return
        self._visit(f"{self.name(place)} := {_short(value)}" if self.lines is not None else "")
        self._put(place, value)

    def atomic(
        self,
        place: Location,
        change: Callable[[object], object],
        what: str,
        *,
        fence: bool,
    ) -> object:
        """One indivisible read-modify-write. Returns what was there before."""
        me = self._me
        if me is not None:
            me.fence = fence
            self._visit(what)
            me.fence = False
            me.history = hash((me.history, place.key, place.value))
        before = place.value
        self._put(place, change(before))
        return before

    def name(self, place: Location) -> str:
        """As a model called it."""
        return self.names.get(place.key) or " ".join(str(part) for part in place.key)

    # -- for search.py ----------------------------------------------------------------------------

    def choices(self) -> list[Choice]:
        """All that may happen next."""
        found: list[Choice] = []
        for thread in self.threads:
            buffer = thread.buffer
            if buffer:
                found.append((thread.index, 0))
                if len(buffer) > 1:
                    found += [(thread.index, i) for i in _overtaking(buffer)]
            if (
                not thread.done
                and not (thread.fence and buffer)
                and (thread.ready is None or thread.ready())
            ):
                found.append((thread.index, STEP))
        return found

    def act(self, choice: Choice) -> None:
        """Let it happen."""
        self.log.append(choice)
        index, entry = choice
        thread = self.threads[index]
        if entry == STEP:
            self._resume(thread)
            return
        store = thread.buffer.pop(entry)
        self._put(store.place, store.value)
        if self.lines is not None:
            what = f"  {self.name(store.place)} = {_short(store.value)} becomes visible"
            self.lines.append(Line(index, what, ""))

    def state(self) -> int:
        """Equal when nothing that can still happen differs."""
        return hash(
            (
                self._memory,
                *[
                    (
                        thread.history,
                        thread.done,
                        *[(store.place.key, store.value) for store in thread.buffer],
                    )
                    for thread in self.threads
                ],
            )
        )

    def stuck(self) -> list[Thread]:
        """Threads that should have ended, once nothing can happen any more."""
        return [thread for thread in self.threads if not thread.done and not thread.daemon]

    def end(self) -> None:
        """Unwind every thread that still sleeps."""
        self._dead = True
        hook, sys.unraisablehook = sys.unraisablehook, _unwinding
        for thread in self.threads:
            if not thread.done:
                self._me = thread
                thread.glet.throw()
        self._me = None
        sys.unraisablehook = hook

    # -- inside -----------------------------------------------------------------------------------

    def _resume(self, thread: Thread) -> None:
        self._me = thread
        thread.glet.switch()
        self._me = None

    def _visit(self, what: str, place: Location | None = None) -> None:
        """Hand control to the scheduler; comes back when this access is chosen."""
        me = self._me
        if me is None:
            return
        if self._dead:  # a `finally` that is passed while this thread is unwound
            raise greenlet.GreenletExit
        self._main.switch()
        me.history = hash((me.history, "went on"))  # where it is belongs to the state
        if self.lines is not None:
            self.lines.append(Line(me.index, what, _where()))

    def _newest(self, me: Thread, place: Location) -> object:
        for store in reversed(me.buffer):
            if store.place is place:
                return store.value
        return place.value

    def _put(self, place: Location, value: object) -> None:
        self._memory ^= hash((place.key, place.value)) ^ hash((place.key, value))
        place.value = value

    def _learn(self, place: Location, index: int) -> None:
        writers = self.writers
        if writers is not None and (known := writers.get(place.key)) != index and known != -1:
            writers[place.key] = index if known is None else -1
            self.learned = True


def _unwinding(what: sys.UnraisableHookArgs) -> None:
    """A generator that is closed while its thread is unwound may be unwound a second time."""
    if not isinstance(what.exc_value, greenlet.GreenletExit):
        sys.__unraisablehook__(what)


def _overtaking(buffer: list[Store]) -> Iterator[int]:
    """Plain stores behind the oldest one that may become visible before it."""
    for i in range(1, len(buffer)):
        store = buffer[i]
        if not store.release and all(other.place is not store.place for other in buffer[:i]):
            yield i


def _where() -> str:
    """The line of production code that is being run."""
    frame = sys._getframe(2)
    while frame is not None:
        if "/threads/" in frame.f_code.co_filename:
            return f"{frame.f_code.co_qualname}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
    return ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 30 else text[:27] + "..."
