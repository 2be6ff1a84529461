"""Traces of real calls, as a collector gets them; and collectors on their worst day."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers import DEADLINE, Worker, until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families
from serving import House, Line, Parrot, Records, get, house, quick, recorded

from threadline.config import Config, Observe
from threadline.errors import ConfigError, Exit
from threadline.models.store import ModelStore
from threadline.observe.spans import CallEnd, CallStart
from threadline.observe.turns import STAGES
from threadline.threads import traces
from threadline.threads.gil import TRACE_MODULES, audit
from threadline.threads.traces import Traces, check

WORDS = "I would like a table for two."
LONG = "This is a very long sentence that is said by somebody who likes to hear himself talk."
RECORD = (CallStart("CA1", 1), CallEnd(2, 1, "the caller hung up", failed=False))


class Collector:
    """Takes OTLP over HTTP, or does what `manner` says instead."""

    def __init__(self) -> None:
        self.manner = "take"
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.asked = 0
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked += 1
                outer.answer(self, body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._worker = Worker(lambda: self._server.serve_forever(0.01), "collector")

    def answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        if self.manner == "hang":
            self.over.wait(DEADLINE)
            return
        if self.manner == "take":
            assert request.path == "/v1/traces"
            self.take(body, dict(request.headers))
        code = int(self.manner) if self.manner.isdigit() else 200
        request.send_response(code)
        request.send_header("Content-Length", "0" if self.manner != "trickle" else "1000000")
        request.end_headers()
        while self.manner == "trickle" and not self.over.wait(0.02):
            request.wfile.write(b" ")

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        self.bodies.append(body)
        self.headers.append(headers)
        for of_one in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(values(of_one.resource.attributes))
            for scope in of_one.scope_spans:
                self.spans += scope.spans

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._worker.join()
        self._server.server_close()


def values(attributes: Any) -> dict[str, Any]:
    """Attributes as they were before they were sent."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def speech(models: ModelStore) -> bytes:
    return recorded(models, WORDS)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch has little time, and the next is not long in coming."""
    monkeypatch.setattr(traces, "BATCH_SECONDS", 0.3)
    monkeypatch.setattr(traces, "LONGEST_PAUSE", 0.3)


def tracing(url: str) -> Config:
    return quick(observe=Observe(otlp=url))


def metric(this: House, name: str) -> float:
    """Off the page, as of the last second."""
    page = get(this.address, "/metrics")[2].decode()
    (family,) = (one for one in text_string_to_metric_families(page) if f"{one.name}_total" == name)
    return float(family.samples[0].value)


def interrupted_call(this: House, speech: bytes) -> Line:
    """Its greeting is spoken over, its question is answered, and it is over."""
    line = this.line()
    line.until(lambda: line.count("media") >= 10, "the greeting plays")
    line.say(speech, this.slot_of(line))
    line.until(lambda: line.replies() == 1, "an answer")
    line.hang_up()
    this.call_of(line)
    return line


# -- what arrives ------------------------------------------------------------------------------


def test_a_call_is_one_trace_with_its_turns_and_their_stages(
    models: ModelStore, tmp_path: Path, speech: bytes, collector: Collector
) -> None:
    began = time.time_ns()
    brain = Parrot(greeting=LONG)
    with house(models, tmp_path, config=tracing(collector.url), brain=brain) as this:
        line = interrupted_call(this, speech)
        until(lambda: collector.named("call"), "the call's own span")
        sent = "threadline_trace_records_sent_total"
        until(lambda: metric(this, sent) == 3, "a greeting, an answer and a call are counted")
        assert metric(this, "threadline_trace_records_dropped_total") == 0
        logged = this.records("turn", call_id=line.call_id)
    (call,) = collector.named("call")
    assert {span.trace_id for span in collector.spans} == {call.trace_id}
    assert call.parent_span_id == b""
    assert values(call.attributes) == {
        "threadline.call_id": line.call_id,
        "threadline.turns": 1,
        "threadline.end": "the caller hung up",
    }
    assert (call.kind, call.status.code) == (2, 0)  # a server's span; nothing said of its success
    turns = {values(span.attributes)["threadline.turn"]: span for span in collector.named("turn")}
    assert sorted(turns) == [turn["turn"] for turn in logged] == [0, 1]
    for record in logged:
        span, told = turns[record["turn"]], values(turns[record["turn"]].attributes)
        assert span.parent_span_id == call.span_id
        assert told["threadline.call_id"] == line.call_id
        assert told["threadline.interrupted"] is record["interrupted"] is (record["turn"] == 0)
        assert told["threadline.early"] is record["early"]
        for what in ("heard", "said", "played"):
            assert told[f"threadline.words.{what}"] == len((record[what] or "").split())
        # What he says is sent faster than it was spoken: its end may lie before the call.
        assert record["turn"] or call.start_time_unix_nano <= span.start_time_unix_nano
        assert began < call.start_time_unix_nano < span.end_time_unix_nano
        assert span.end_time_unix_nano <= call.end_time_unix_nano < time.time_ns()
        below = [one for one in collector.spans if one.parent_span_id == span.span_id]
        assert below[0].start_time_unix_nano == span.start_time_unix_nano
        assert below[-1].end_time_unix_nano <= span.end_time_unix_nano
        lasted = {one.name: length_ms(one) for one in below}
        if record["stages_ms"]:
            assert tuple(lasted) == STAGES
            assert lasted == pytest.approx(record["stages_ms"], abs=0.051)
            response = sum(lasted.values())
            assert response == pytest.approx(record["at_ms"]["first_frame"], abs=0.051)
    assert turns[1].end_time_unix_nano > turns[1].start_time_unix_nano
    assert logged[1]["stages_ms"], "the answer's stages were compared"
    ids = [span.span_id for span in collector.spans]
    assert len(set(ids)) == len(ids)
    texts = {text for one in logged for text in (one["heard"], one["said"], one["played"]) if text}
    assert len(texts) >= 3
    assert not any(text.encode() in body for text in texts for body in collector.bodies)


def length_ms(span: Any) -> float:
    return float(span.end_time_unix_nano - span.start_time_unix_nano) / 1e6


def test_a_server_that_is_told_to_leave_sends_what_it_has(
    models: ModelStore, tmp_path: Path, collector: Collector
) -> None:
    """The real process: and its GIL stays off with all that it had to import."""
    command = [sys.executable, "-m", "threadline", "serve", "--port", "0", "--log-format", "json"]
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        child = subprocess.Popen([*command, "--otlp", collector.url], stderr=stderr)
    try:
        records = Records(log)
        address = ("127.0.0.1", records.logged("listening")["port"])
        line = Line(address)
        line.start()
        line.until(lambda: line.replies() == 1, "the greeting")
        line.hang_up()
        until(lambda: get(address, "/metrics")[2], "the first look")
        assert b"\nthreadline_gil_enabled 0.0\n" in get(address, "/metrics")[2]
        child.send_signal(signal.SIGTERM)
        assert child.wait(DEADLINE) == Exit.OK
    finally:
        child.kill()
        child.wait(DEADLINE)
    (call,) = collector.named("call")
    assert values(call.attributes)["threadline.call_id"] == line.call_id
    assert [one.parent_span_id for one in collector.named("turn")] == [call.span_id]
    (resource, *_) = collector.resources
    assert resource["service.name"] == "threadline"
    assert resource["process.pid"] == child.pid


def test_what_was_pushed_is_sent_at_the_end_and_what_did_not_fit_is_counted(
    collector: Collector,
) -> None:
    made = Traces(collector.url)
    pushed = [made.ring.push(RECORD) for _ in range(130)]
    assert pushed == [True] * 128 + [False] * 2
    made.start()
    assert made.stop(DEADLINE)
    assert (made.sent, made.lost()) == (128, 2)
    assert len(collector.named("call")) == 128


def test_the_variables_of_opentelemetry_are_obeyed(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "bistro")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=harbour")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")  # ours is given
    made = Traces(f"{collector.url}/")
    made.ring.push(RECORD)
    made.start()
    assert made.stop(DEADLINE)
    (resource,) = collector.resources
    assert resource["service.name"] == "bistro"
    assert resource["deployment.environment.name"] == "test"
    assert collector.headers[0]["x-team"] == "harbour"


# -- collectors on their worst day -------------------------------------------------------------


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("manner", ["500", "hang", "dead"])
def test_calls_do_not_notice_what_a_collector_does(
    models: ModelStore, tmp_path: Path, speech: bytes, collector: Collector, manner: str
) -> None:
    collector.manner = manner
    url = nobody() if manner == "dead" else collector.url
    with house(models, tmp_path, config=tracing(url), brain=Parrot(greeting=LONG)) as this:
        interrupted_call(this, speech)
        dropped = "threadline_trace_records_dropped_total"
        until(lambda: metric(this, dropped) == 3, "all three records are counted")
        interrupted_call(this, speech)
        until(lambda: metric(this, dropped) == 6, "and so are these")
        assert metric(this, "threadline_trace_records_sent_total") == 0
        assert this.logged("turn", turn=1)["stages_ms"]
        (complaint,) = this.records("the collector does not take traces")
        assert complaint["reason"]
        assert not this.records(logger="opentelemetry.exporter.otlp.proto.http.trace_exporter")
    assert (collector.asked > 0) == (manner != "dead")


def nobody() -> str:
    """An address at which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"


@pytest.mark.usefixtures("hasty")
def test_a_collector_that_comes_back_is_told_of_what_follows(
    models: ModelStore, tmp_path: Path, collector: Collector
) -> None:
    collector.manner = "500"
    with house(models, tmp_path, config=tracing(collector.url)) as this:
        this.call_of(hung_up(this))
        this.logged("the collector does not take traces")
        collector.manner = "take"
        line = hung_up(this)
        this.logged("the collector takes traces again")

        def calls() -> set[str]:
            told = map(values, (span.attributes for span in collector.named("call")))
            return {attributes["threadline.call_id"] for attributes in told}

        until(lambda: line.call_id in calls(), "the second call")


def hung_up(this: House) -> Line:
    line = this.line()
    line.until(lambda: line.replies() == 1, "the greeting")
    line.hang_up()
    return line


def test_the_end_does_not_wait_for_a_collector_that_never_finishes(collector: Collector) -> None:
    """It sends a byte now and then, so that no time-out of a socket ever comes."""
    collector.manner = "trickle"
    made = Traces(collector.url)
    made.ring.push(RECORD)
    made.start()
    until(lambda: collector.asked, "the request")
    assert not made.stop(0.1)
    collector.over.set()
    collector.manner = "500"
    until(lambda: made.stop(0), "it ends once it is let go")


# -- what cannot be ----------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["http://", "https://:4318", "http://host:port", "http://h:0"])
def test_an_address_without_a_host_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="names no host: give the address of a collector, like"):
        check(address)


def test_the_extra_is_named_when_it_is_absent() -> None:
    check("http://127.0.0.1:4318")
    check("", ["nothing.is.needed"])
    for absent in ("no_such_package.part", "opentelemetry.no_such_part"):
        with pytest.raises(ConfigError, match=r"not installed: pip install 'threadline\[otel\]'"):
            check("http://127.0.0.1:4318", [*TRACE_MODULES, absent])


def test_a_variable_of_opentelemetry_that_is_wrong_is_named(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", "nobody")
    with pytest.raises(
        ConfigError, match=r"'nobody' .*look at the variables that begin with OTEL_"
    ):
        Traces(collector.url)


def test_what_it_imports_leaves_the_gil_off() -> None:
    states = {one.state for one in audit(TRACE_MODULES)}
    assert states <= {"safe", "n/a"}
