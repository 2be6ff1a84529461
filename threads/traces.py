"""Thread `traces`: tells a collector of every turn, when somebody has named one.

    wakes on     every 250 ms; less and less often while the collector does not answer
    alone owns   OpenTelemetry's exporter with its connection, and the spans it is given
    reads        one event ring, from reply
    writes       one HTTP request a batch; how many records were sent, and how many were lost

reply pushes the record that it has written anyway and goes on: spans are made, encoded and sent
here. A collector that is slow, dead or full of errors costs records, which are counted, and
nothing else. The end waits for the last batch no longer than it is told to.

The packages are optional and imported on this path only, before the first call.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from threading import Event, Thread
from typing import override
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..observe.prometheus import Sample, counter
from ..observe.spans import Span, Told, spans
from . import logs
from .gil import TRACE_MODULES
from .ring import EventRing

log = logs.logger("traces")

PERIOD = 0.25
"""Seconds between batches: 128 records in that time, or they are lost."""

LONGEST_PAUSE = 60.0  # s, between attempts: each that fails leaves hundreds of objects in cycles
BATCH_SECONDS = 3.0  # what a collector may take for one, and all further attempts
CLOCK_SET_NS = 1_000_000_000  # two clocks that part by this much: somebody has set one


def check(address: str, modules: Iterable[str] = TRACE_MODULES) -> None:
    """Raises ConfigError when traces cannot be sent to `address`: no host, no packages."""
    if not address:
        return
    try:
        parts = urlsplit(address)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        usable = False
    if not usable:
        raise ConfigError(
            f"observe.otlp is {address!r}, which names no host: give the address of a collector, "
            "like http://127.0.0.1:4318."
        )
    if not all(map(_found, modules)):
        raise ConfigError(
            "observe.otlp needs OpenTelemetry, which is not installed: "
            "pip install 'threadline[otel]', or leave the setting out."
        )


def _found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package it is in
        return False


class Traces:
    """The thread and its ring. `address`: of a collector that speaks OTLP over HTTP."""

    def __init__(self, address: str) -> None:
        self.ring: EventRing[Told] = EventRing()
        """Where reply pushes; what it refuses is counted as lost."""
        self.sent = 0
        self._lost = 0
        try:
            self._export, self._close = _exporter(address)
        except Exception as error:  # whatever it may find in its variables
            raise ConfigError(
                f"OpenTelemetry cannot send to {address} ({error}): "
                "look at the variables that begin with OTEL_."
            ) from error
        self._since_1970 = time.time_ns() - time.monotonic_ns()
        self._answers = True  # the collector, last time
        self._pause = PERIOD
        self._said = _Said()
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="traces", daemon=True)  # see `stop`

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Send what is left and end; False when the collector held the thread for `timeout`
        seconds. It is then left behind, and ends with the process."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        if not self._thread.is_alive():
            return True
        self._close()  # no further attempt
        return False

    def lost(self) -> int:
        """Records that no collector has. Any thread."""
        return self._lost + self.ring.refused

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        text = "Turns and calls of which a collector was told."
        yield counter("threadline_trace_records_sent_total", text, self.sent)
        text = "Turns and calls that are in no trace, because the collector was slow or failed."
        yield counter("threadline_trace_records_dropped_total", text, self.lost())

    def _run(self) -> None:
        with self._said:
            while not self._stopping.wait(self._pause):
                self._send()
            if self._answers:  # else the end would wait for nothing
                self._send()
            self._close()

    def _send(self) -> None:
        """Everything that was pushed until now, in one request."""
        batch = []
        for _ in range(self.ring.capacity):
            told = self.ring.pop()
            if told is None:
                break
            batch.append(told)
        if not batch:
            return
        self._said.first = ""
        try:
            since = self._offset()
            answers = self._export([span for told in batch for span in spans(told, since)])
        except Exception as error:  # noqa: BLE001  # of a library: it costs a batch, not the thread
            answers, self._said.first = False, f"{type(error).__name__}: {error}"
        if answers:
            self.sent += len(batch)
            self._pause = PERIOD
        else:
            self._lost += len(batch)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        if answers != self._answers:
            self._answers = answers
            if answers:
                log.info("the collector takes traces again", lost=self.lost())
            else:
                log.warning("the collector does not take traces", reason=self._said.first)

    def _offset(self) -> int:
        """What a monotonic time lacks to be one since 1970: the same throughout, so that spans
        agree with one another, unless the clock was set."""
        now = time.time_ns() - time.monotonic_ns()
        if abs(now - self._since_1970) > CLOCK_SET_NS:
            self._since_1970 = now
        return self._since_1970


class _Said(logging.Filter):
    """What the exporter says of its failures. It would repeat itself for as long as the collector
    is away; we say it once."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ""
        self._logger = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        self.first = self.first or record.getMessage()
        return False

    def __enter__(self) -> None:
        self._logger.addFilter(self)

    def __exit__(self, *_: object) -> None:
        self._logger.removeFilter(self)


def _exporter(address: str) -> tuple[Callable[[list[Span]], bool], Callable[[], None]]:
    """How a batch is sent, with whether it was taken, and how that is ended."""
    # Here, since they come with the optional extra `otel`.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    exporter = OTLPSpanExporter(f"{address.rstrip('/')}/v1/traces", timeout=BATCH_SECONDS)
    ours = Resource.create({"service.name": "threadline", "process.pid": os.getpid()})
    resource = ours.merge(OTELResourceDetector().detect())  # the environment has the last word
    scope = InstrumentationScope("threadline")
    sampled = TraceFlags(TraceFlags.SAMPLED)
    kinds = {"call": SpanKind.SERVER}

    def made(span: Span) -> ReadableSpan:
        parent = span.parent_id and SpanContext(span.trace_id, span.parent_id, False, sampled)
        return ReadableSpan(
            span.name,
            SpanContext(span.trace_id, span.span_id, False, sampled),
            parent or None,
            resource,
            span.attributes,
            kind=kinds.get(span.name, SpanKind.INTERNAL),
            status=Status(StatusCode.ERROR, span.problem) if span.problem else Status(),
            start_time=span.start,
            end_time=span.end,
            instrumentation_scope=scope,
        )

    def export(batch: list[Span]) -> bool:
        return exporter.export(list(map(made, batch))) is SpanExportResult.SUCCESS

    return export, exporter.shutdown
