"""What production code takes for its own memory and system calls, with a scheduler behind it."""

from __future__ import annotations

import types
from collections.abc import Callable
from struct import Struct
from typing import Any

from .world import Location, World


class Here:
    """The execution that is going on. One at a time in a process."""

    world: World


here = Here()


def instrument_slot(cls: type, name: str) -> None:
    """Each load and store of this slot goes to the scheduler; a store releases.

    A class that no longer keeps it in a slot is left alone: then what it does keep it in (a
    memoryview, in one of the mutants) is what counts.
    """
    slot = cls.__dict__.get(name)
    if not isinstance(slot, types.MemberDescriptorType):
        return

    def load(self: object) -> object:
        return here.world.load(slot.__get__(self))

    def store(self: object, value: object) -> None:
        try:
            place = slot.__get__(self)
        except AttributeError:
            slot.__set__(self, here.world.place(("slot", here.world.number()), value))
        else:
            here.world.store(place, value, release=True)

    setattr(cls, name, property(load, store))
    cls.place = property(slot.__get__)  # type: ignore[attr-defined]  # for the names in a trace


def instrument_attribute(cls: type, name: str) -> None:
    """The same for an attribute that lives in the instance's dictionary."""
    hidden = f"place of {name}"

    def load(self: Any) -> object:
        return here.world.load(self.__dict__[hidden])

    def store(self: Any, value: object) -> None:
        place = self.__dict__.get(hidden)
        if place is None:
            key = ("attribute", name, here.world.number())
            self.__dict__[hidden] = here.world.place(key, value)
        else:
            here.world.store(place, value, release=True)

    setattr(cls, name, property(load, store))


class Bytes:
    """In the place of `bytearray`: plain memory. Each header and each payload is one place."""

    def __init__(self, size: int) -> None:
        self.key = here.world.number()
        self.places: dict[tuple[str, int], Location] = {}

    def place(self, kind: str, at: int, value: object) -> Location:
        place = self.places.get((kind, at))
        if place is None:
            made = here.world.place(("bytes", self.key, kind, at), value)
            place = self.places[kind, at] = made
        return place


class View:
    """In the place of `memoryview`."""

    def __init__(self, data: Bytes) -> None:
        self.data = data

    def cast(self, code: str) -> View:
        return self

    def __getitem__(self, where: int | slice) -> Any:
        if isinstance(where, slice):
            return Part(self.data, where.start, where.stop - where.start)
        return here.world.load(self.data.place("item", where, 0))

    def __setitem__(self, where: int | slice, value: Any) -> None:
        if isinstance(where, slice):
            place = self.data.place("payload", where.start, b"")
            here.world.store(place, bytes(value), release=False)
        else:
            here.world.store(self.data.place("item", where, 0), value, release=False)


class Part:
    """A slice of a view: it reads when it is copied, not when it is made."""

    def __init__(self, data: Bytes, at: int, size: int) -> None:
        self._place = data.place("payload", at, b"")
        self._size = size

    def __bytes__(self) -> bytes:
        value = here.world.load(self._place)
        assert isinstance(value, bytes), value
        return value[: self._size]

    def __repr__(self) -> str:
        return "a slice that was not copied"


class Layout:
    """In the place of `Struct`: a header's fields, stored together, and perhaps a payload."""

    def __init__(self, layout: str) -> None:
        self._struct = Struct(layout)
        self.format = layout
        self.size = self._struct.size
        *self._none, last = self._struct.unpack(bytes(self.size))
        self._payload = last if isinstance(last, bytes) else None
        if self._payload is None:
            self._none.append(last)

    def _places(self, view: View, at: int) -> tuple[Location, Location]:
        # Where `Struct` puts the payload: behind the header, of which it is no part.
        after = at + Struct(self.format.partition("Q")[0] + "Q").size
        data = view.data
        return data.place("header", at, (0,) * 6), data.place("payload", after, b"")

    def pack_into(self, view: View, at: int, *fields: Any) -> None:
        header, payload = self._places(view, at)
        count = len(self._none)
        here.world.store(header, fields[:count], release=False)
        if self._payload is not None:
            here.world.store(payload, fields[count], release=False)

    def unpack_from(self, view: View, at: int) -> Any:
        header, payload = self._places(view, at)
        fields = here.world.load(header)
        assert isinstance(fields, tuple), fields
        return fields if self._payload is None else (*fields, here.world.load(payload))


class Cells:
    """In the place of an event ring's list: its stores release, and are seen one by one."""

    def __init__(self, size: int) -> None:
        key = here.world.number()
        self._places = [here.world.place(("cell", key, i), None) for i in range(size)]

    def __getitem__(self, i: int) -> Any:
        return here.world.load(self._places[i])

    def __setitem__(self, i: int, value: object) -> None:
        here.world.store(self._places[i], value, release=True)


class Os:
    """In the place of the module: eventfds, as the kernel's counters."""

    EFD_NONBLOCK = EFD_CLOEXEC = 0

    def __init__(self) -> None:
        self.counters: list[Location] = []

    def eventfd(self, start: int, flags: int) -> int:
        self.counters.append(here.world.place(("eventfd", here.world.number()), start))
        return len(self.counters) - 1

    def eventfd_write(self, fd: int, value: int) -> None:
        def add(before: object) -> object:
            assert isinstance(before, int), before
            return min(before + value, 2)  # who reads it asks for "none or some" only

        here.world.atomic(self.counters[fd], add, f"eventfd {fd}: write", fence=True)

    def eventfd_read(self, fd: int) -> int:
        what = f"eventfd {fd}: read"
        before = here.world.atomic(self.counters[fd], lambda _: 0, what, fence=False)
        if not before:
            raise BlockingIOError
        return 1

    def close(self, fd: int) -> None:
        """Nothing to give back."""


class Poll:
    """In the place of `select.poll()`. It never times out."""

    def __init__(self, os: Os) -> None:
        self._os = os
        self._fds: list[int] = []

    def register(self, fd: int, mask: int) -> None:
        self._fds.append(fd)

    def poll(self, timeout_ms: float) -> list[int]:
        counters = [self._os.counters[fd] for fd in self._fds]
        here.world.until(lambda: any(one.value for one in counters), "woken")
        return self._fds


class Clock:
    """In the place of `time`: it stands still."""

    def monotonic_ns(self) -> int:
        return 0

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        """Others may go first; they may at every access anyway."""


class Threading:
    """In the place of `threading`, for the supervisor: its threads are spawned by a model."""

    class Event:
        def set(self) -> None:
            """Nobody waits for it here."""

        def wait(self, timeout: float) -> bool:
            return True

    class Thread:
        def __init__(self, target: Callable[[], None], name: str, daemon: bool) -> None:
            self.target = target
            self.name = name
            self.spawned: Any = None  # set by the model

        def join(self, timeout: float) -> None:
            here.world.until(lambda: self.spawned.done, f"{self.name} has ended")

        def is_alive(self) -> bool:
            return not self.spawned.done
