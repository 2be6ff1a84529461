"""Thread `log`: writes what the others have to say, so that no stage ever waits for stderr.

A thread that logs pushes (time, level, logger, event, fields) onto a ring of its own and goes
on: it formats nothing, writes nothing and takes no lock. When its ring is full the record is
dropped and counted.

    wakes on     every 50 ms; at once for a warning or worse
    alone owns   the structlog processors and stderr
    reads        one event ring per thread that has logged; a ring ends with its thread
    writes       one write to stderr per batch; how many records each thread had to drop

A stderr that blocks blocks this thread and nobody else. Records come out in the order of their
times within a batch. Values of fields are rendered later and elsewhere: pass numbers and text,
nothing that is changed afterwards.

Before `start` and after `stop` there is no such thread: the caller's own thread formats and
writes, which is what a command line wants of its first and last words. A record logged at the
very moment of `stop` may be lost.

Python's own ``logging`` and ``warnings`` are routed here between the two, from WARNING up and
whatever our own level is: libraries print requests at INFO and whole frames at DEBUG.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from operator import itemgetter
from threading import Lock, Thread, current_thread, local
from typing import override

import structlog
from structlog.typing import EventDict, Processor

from ..config import Log
from .ring import EventRing
from .wake import Inbox

PERIOD = 0.05
"""Seconds between batches: 128 records per thread in that time, or they are dropped."""

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_NAMES = {number: name for name, number in _LEVELS.items()}

type Record = tuple[int, int, str, str, Mapping[str, object]]
"""(time.time_ns, level, logger, event, fields)."""


class Logger:
    """Says things under one name, from any thread. Never blocks and never raises, once started."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def debug(self, event: str, /, **fields: object) -> None:
        """For whoever works on Threadline."""
        _log(10, self.name, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        """Normal life."""
        _log(20, self.name, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Calls go on, but somebody should look."""
        _log(30, self.name, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        """Something failed. Pass ``exc_info=error`` for its traceback."""
        _log(40, self.name, event, fields)


def logger(name: str) -> Logger:
    """A logger. The name is that of the thread or of the part of the program."""
    return Logger(name)


def start(config: Log, *, fd: int = 2) -> None:
    """Start the thread. What is logged from here on goes to descriptor `fd` through it."""
    global _writer, _threshold, _direct
    if _writer is not None:
        raise RuntimeError("logs.start: the log thread already runs")
    _threshold = _LEVELS[config.level]
    _direct = _Sink(config, fd)
    _writer = _Writer(_Sink(config, fd), dropped())
    _writer.thread.start()
    root = logging.getLogger()
    root.addHandler(_bridge)
    root.setLevel(max(_threshold, logging.WARNING))
    logging.captureWarnings(True)


def stop(timeout: float) -> bool:
    """Write what is left and end the thread; False when stderr blocked for `timeout` seconds."""
    global _writer, _last
    if _writer is None:
        return True
    logging.captureWarnings(False)
    root = logging.getLogger()
    root.removeHandler(_bridge)
    root.setLevel(logging.WARNING)  # as Python starts
    _last, _writer = _writer, None
    return _last.stop(timeout)


def writer() -> _Writer | None:
    """The thread that writes, while there is one."""
    return _writer


def dropped() -> int:
    """Records lost since the process began, on all threads. Any thread."""
    writer = _writer or _last
    return writer.dropped() if writer else 0


# -- the thread that logs ----------------------------------------------------------------------


class _Source:
    """One thread's ring into one writer."""

    __slots__ = ("ended", "reported", "ring", "thread", "writer")

    def __init__(self, writer: _Writer) -> None:
        self.writer = writer
        self.ring: EventRing[Record] = EventRing()
        self.thread = current_thread().name
        self.ended = False  # stored by the logging thread, after its last push
        self.reported = 0  # the writer's: drops it has told of


class _Lease:
    """Lives in a thread's locals and dies with the thread, which ends its source."""

    __slots__ = ("source",)

    def __init__(self, source: _Source) -> None:
        self.source = source

    def __del__(self) -> None:
        self.source.ended = True


class _Mine(local):
    lease: _Lease | None = None


_mine = _Mine()


def _log(level: int, name: str, event: str, fields: Mapping[str, object]) -> None:
    if level < _threshold:
        return
    record = (time.time_ns(), level, name, event, fields)
    writer = _writer
    if writer is None:
        _direct.write([record])
        return
    lease = _mine.lease
    if lease is None or lease.source.writer is not writer:
        lease = _mine.lease = _Lease(writer.register())
    lease.source.ring.push(record)
    if level >= logging.WARNING:
        writer.inbox.wake()


class _Bridge(logging.Handler):
    """Where records of Python's own logging cross over."""

    @override
    def handle(self, record: logging.LogRecord) -> bool:
        # Not the inherited one: that serialises all threads on the handler's lock.
        self.emit(record)
        return True

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            event = record.getMessage()
        except TypeError, ValueError:
            event = f"{record.msg!r} % {record.args!r}"  # a library's defect: show it as it is
        fields: dict[str, object] = {}
        if record.exc_info and record.exc_info[1] is not None:
            fields["exc_info"] = record.exc_info[1]
        _log(record.levelno, record.name, event, fields)


_bridge = _Bridge()


# -- the thread that writes --------------------------------------------------------------------


@cache
def _bell() -> Inbox:
    """One for all writers and never closed: a late `wake` must not hit a reused descriptor."""
    return Inbox("log")


class _Writer:
    def __init__(self, sink: _Sink, lost: int) -> None:
        self.inbox = _bell()
        self.beat = 0  # turns of its loop
        self.thread = Thread(target=self._run, name="log", daemon=True)  # it may block for good
        self._sink = sink
        self._stopping = False
        self._lock = Lock()  # serialises threads that come and go, never one that logs
        self._sources: list[_Source] = []
        self._lost = lost  # dropped by threads that have ended, and before this writer

    def register(self) -> _Source:
        """A ring for the calling thread, once in its life."""
        source = _Source(self)
        with self._lock:
            self._sources.append(source)
        return source

    def dropped(self) -> int:
        with self._lock:
            refused = sum(source.ring.refused for source in self._sources)
            return self._lost + refused + self._sink.lost

    def stop(self, timeout: float) -> bool:
        self._stopping = True
        self.inbox.wake()
        self.thread.join(timeout)
        return not self.thread.is_alive()

    def _run(self) -> None:
        while not self._stopping:
            self.beat += 1
            self.inbox.wait(PERIOD)
            self._sink.write(self._drain())
        self._sink.write(self._drain())

    def _drain(self) -> list[Record]:
        """Everything that was pushed until now, oldest first."""
        batch: list[Record] = []
        with self._lock:
            sources = list(self._sources)
        for source in sources:
            ended = source.ended  # looked at before draining: what was pushed before it is taken
            for _ in range(source.ring.capacity):  # no longer, however fast that thread logs
                record = source.ring.pop()
                if record is None:
                    break
                batch.append(record)
            self._report_drops(source, batch)
            if ended:
                with self._lock:
                    self._sources.remove(source)
                    self._lost += source.ring.refused
        batch.sort(key=itemgetter(0))
        return batch

    def _report_drops(self, source: _Source, batch: list[Record]) -> None:
        refused = source.ring.refused
        if refused == source.reported:
            return
        fields = {"count": refused - source.reported, "thread": source.thread}
        source.reported = refused
        batch.append((time.time_ns(), 30, "log", "log records dropped", fields))


class _Sink:
    """Renders records and writes them to one descriptor; used by one thread at a time."""

    def __init__(self, config: Log, fd: int) -> None:
        self._fd = fd
        self._processors = _processors(config, fd)
        self.lost = 0  # could not be written: the other end is gone

    def write(self, records: list[Record]) -> None:
        """One write for all of them, or as few as the descriptor takes."""
        if not records:
            return
        text = "".join(f"{self._render(record)}\n" for record in records)
        left = memoryview(text.encode("utf-8", "backslashreplace"))
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:  # somebody made stderr non-blocking
                waiting = select.poll()
                waiting.register(self._fd, select.POLLOUT)
                waiting.poll()
            except OSError:  # closed, or the reader has gone: there is nobody to tell
                self.lost += len(records)
                return

    def _render(self, record: Record) -> str:
        at, level, name, event, fields = record
        when = datetime.fromtimestamp(at / 1e9, UTC).isoformat(timespec="milliseconds")
        line: EventDict = {
            **fields,
            "timestamp": when,
            "level": _NAMES.get(level // 10 * 10, "error"),
            "logger": name,
            "event": event,
        }
        result: object = line
        try:
            for processor in self._processors:
                # Each takes what the one before returned; only the last returns text.
                result = processor(None, "", result)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001  # a value's own __repr__ may raise anything
            failure = {"failure": type(error).__name__}
            return self._render((at, 40, name, "a log record could not be rendered", failure))
        return str(result)


def _processors(config: Log, fd: int) -> tuple[Processor, ...]:
    if config.format == "json":
        return structlog.processors.format_exc_info, structlog.processors.JSONRenderer()
    console = structlog.dev.ConsoleRenderer(
        colors=os.isatty(fd),
        exception_formatter=structlog.dev.plain_traceback,  # the default prints local variables
    )
    return _escape, console


def _escape(_: object, __: str, line: EventDict) -> EventDict:
    """What a peer sent must not move the cursor or forge a line on somebody's terminal."""
    for key, value in line.items():
        if isinstance(value, str) and key != "stack" and not value.isprintable():
            line[key] = value.encode("unicode_escape").decode("ascii")
    return line


_writer: _Writer | None = None
_last: _Writer | None = None
_threshold = _LEVELS["info"]
_direct = _Sink(Log(), 2)
