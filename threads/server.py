"""The whole server: what is made, and who is joined to whom. Read it beside the thread map.

Nothing runs here after the start; `Server` is the wiring and the few decisions that concern
several threads at once: readiness, and what the return of the GIL means.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..agent import Agent
from ..audio.tones import reorder
from ..chains import names
from ..config import Config
from ..dialog.brain import LocalBrain, RemoteBrain
from ..dialog.tools import HANG_UP
from ..errors import Exit
from ..listening.silero import Silero
from ..listening.smart_turn import SmartTurn
from ..observe.headroom import Headroom
from ..observe.histogram import LATENESS_MS, joined
from ..observe.prometheus import Sample, added, gauge, merge
from ..talking.clauses import ClauseCutter
from . import logs
from .asr import AsrStage
from .asr_process import Recogniser
from .awake import Awake, Pulse
from .calls import Call
from .depths import Depths
from .door import Door
from .endpoint import EndpointStage
from .gil import Flip, GilWatch, Verdict
from .io_calls import io_threads
from .io_vendors import IoVendors
from .messages import Drain
from .pacer import Pacer
from .realtime import lock_memory
from .reply import ReplyStage
from .shards import numbered, ports, waking
from .siblings import Siblings
from .stalls import Stage as Watched
from .supervisor import Running, Stage, Supervisor
from .traces import Traces
from .tts import TtsStage, Voice
from .vad import VadStage
from .wake import Inbox, Outbox
from .watch import Collector, Watch
from .workers import Crew, WorkerStage

log = logs.logger("server")

FRAME_SECONDS = 0.02
TRACES_SECONDS = 4.0  # at the end, for the last of the traces
FALLBACK_SHARE = 4  # with the GIL on, one call in so many is admitted
FALLBACK_PREBUFFER = 3  # and so many times the prebuffer


@dataclass(frozen=True, slots=True)
class Parts:
    """The models and the brain: real ones in production, quick ones in tests."""

    silero: Path
    brain: LocalBrain[Any] | RemoteBrain
    load_voice: Callable[[], Voice] | None = None  # when the tts chain names piper
    decoder: str = ""  # when the stt chain names whisper: "module:callable", made in its worker
    decoder_options: Mapping[str, object] = field(default_factory=dict)
    smart_turn: Path | None = None  # the end-of-turn model; None: silence alone ends a turn
    agent: Agent | None = None  # the user's, whose tools and guards run on threads of their own


class Server:
    """One process's worth of calls. `start`, then `run` until it is told to stop."""

    def __init__(
        self,
        config: Config,
        verdict: Verdict,
        parts: Parts,
        listener: socket.socket,
        siblings: Siblings | None = None,
    ) -> None:
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self.calls = [Call(slot) for slot in range(config.server.max_calls)]
        self._config = config
        self._gil = GilWatch(verdict)
        self._refused = False  # the GIL came on late, and the policy is `refuse`
        self.inboxes: dict[str, Inbox] = {}
        self._siblings = siblings
        self.door = Door(
            self.calls,
            config.server,
            listener,
            self._readiness,
            lambda: self.watch.page,
            siblings,
            config.server.io_threads,
        )
        self._make_stages(config, verdict, parts)
        self._headroom = Headroom(LATENESS_MS, config.asr.queue * config.asr.workers)
        if verdict.fallback:
            self._fall_back()
        self.traces = Traces(config.observe.otlp) if config.observe.otlp else None
        traced = [] if self.traces is None else [self.traces.samples]
        if self.traces is not None:
            self.reply.stats.traces = self.traces.ring
        running = self._running()
        self._depths = Depths(self.calls, self.inboxes)
        collector = Collector(lambda: self.door.live)
        self.watch = Watch(
            stages=[one.watched() for one in running],
            sources=[
                lambda: added(self._stage_samples()),
                self.door.samples,
                self._depths.samples,
                self._samples,
                *traced,
            ],
            collector=collector,
            gil_sample=self._gil.sample,
            gil_changed=self._gil_changed,
            state=self._depths.state,
            each_second=self._look,
            publish=self._publish,
        )
        drains: list[Outbox[object]] = [io.inbox.port("supervisor") for io in self.ios]

        def drain(event: Drain) -> None:
            for port in drains:
                port.put(event)

        self.supervisor = Supervisor(
            stages=running,
            watch=self.watch,
            collector=collector,
            drain=drain,
            live=lambda: self.door.live,
            drain_seconds=config.server.drain_seconds,
        )

    def _make_stages(self, config: Config, verdict: Verdict, parts: Parts) -> None:
        """Every port is made here: one ring for each pair of threads that talk."""
        calls = self.calls
        vads = [self._inbox(name) for name in numbered("vad", config.vad.threads)]
        asr, reply = self._inbox("asr"), self._inbox("reply")
        ios = [self._inbox(name) for name in numbered("io-calls", config.server.io_threads)]
        self.endpoint = self._make_endpoint(config, parts, vads)
        self.vendors = self._make_vendors(config, parts)
        self.tts = self._make_voice(config, parts)
        self.workers, crew = self._make_workers(config, parts)
        to_vendors = self.vendors.inbox if self.vendors else None
        hears = "deepgram" in names(config.stt.chain)
        self.asr = AsrStage(
            calls,
            config,
            self._make_recogniser(config, verdict, parts),
            asr,
            reply.port("asr"),
            ports(vads, "asr"),
            self.endpoint.inbox.port("asr") if self.endpoint else None,
            to_vendors.port("asr") if to_vendors and hears else None,
        )
        agent = parts.agent
        protected = config.talk.protect_greeting or bool(agent and agent.protect_greeting)
        self.reply = ReplyStage(
            calls,
            parts.brain,
            replace(config.talk, protect_greeting=protected),
            reply,
            ports(ios, "reply"),
            self._voices(config),
            to_vendors.port("reply") if to_vendors else None,
            crew,
            lambda: self.tts.apology if self.tts else reorder(),
        )
        self.vads = [
            VadStage(
                calls[number :: len(vads)],
                config.vad,
                config.endpoint,
                Silero(parts.silero, len(calls)),
                vad,
                asr.port(vad.name),
                reply.port(vad.name),
                waking(ios),
                self.endpoint is not None,
            )
            for number, vad in enumerate(vads)
        ]
        self.pacer = Pacer(calls, config.pacer, [io.wake for io in ios])
        self.ios = io_threads(config.server, ios, reply, waking(vads), self.door)

    def _inbox(self, name: str) -> Inbox:
        made = self.inboxes[name] = Inbox(name)
        return made

    def _make_recogniser(self, config: Config, verdict: Verdict, parts: Parts) -> Recogniser | None:
        if "whisper" not in names(config.stt.chain):
            return None
        return Recogniser(
            parts.decoder_options,
            logs.logger("asr"),
            decoder=parts.decoder,
            workers=config.asr.workers,
            placement=verdict.placement,
            deadline_seconds=config.asr.deadline_seconds,
        )

    def _make_endpoint(
        self, config: Config, parts: Parts, vads: Sequence[Inbox]
    ) -> EndpointStage | None:
        model, settings = parts.smart_turn, config.endpoint
        if model is None or settings.mode == "silence":
            return None
        return EndpointStage(
            settings,
            lambda: SmartTurn(model, threads=settings.threads),
            self._inbox("endpoint"),
            ports(vads, "endpoint"),
        )

    def _make_vendors(self, config: Config, parts: Parts) -> IoVendors | None:
        hears = "deepgram" in names(config.stt.chain)
        speaks = "cartesia" in names(config.tts.chain)
        if not (hears or speaks or isinstance(parts.brain, RemoteBrain)):
            return None
        return IoVendors(
            config,
            self.calls,
            self._inbox("io-vendors"),
            self.inboxes["reply"].port("io-vendors"),
            self.inboxes["asr"].port("io-vendors") if hears else None,
        )

    def _make_voice(self, config: Config, parts: Parts) -> TtsStage | None:
        if "piper" not in names(config.tts.chain):
            return None
        assert parts.load_voice is not None, "a chain with piper comes with its voice"
        return TtsStage(
            self.calls,
            config.tts.cache_bytes,
            parts.load_voice,
            _clauses(parts.brain.greeting),
            self._inbox("tts"),
            self.inboxes["reply"].port("tts"),
        )

    def _voices(self, config: Config) -> list[tuple[str, Outbox[object]]]:
        """Where the clauses go, in the order of the chain."""
        stages = {"piper": self.tts, "cartesia": self.vendors}
        ports: dict[str, Outbox[object]] = {}
        found = []
        for name in names(config.tts.chain):
            stage = stages[name]
            assert stage is not None, "each of the chain was made"
            ports[name] = stage.inbox.port(f"reply's {name}")
            found.append((name, ports[name]))
        return found

    def _make_workers(self, config: Config, parts: Parts) -> tuple[list[WorkerStage], Crew | None]:
        """Threads for users' functions, if there are any."""
        agent, reply = parts.agent, self.inboxes["reply"]
        if agent is None or not (agent.guarded or any(one != HANG_UP for one in agent.tools)):
            return [], None
        workers = [
            WorkerStage(
                number, agent, self._inbox(f"worker-{number}"), reply.port(f"worker-{number}")
            )
            for number in range(1, config.talk.workers + 1)
        ]
        return workers, Crew([one.inbox.port("reply") for one in workers], agent.guarded)

    def _running(self) -> list[Running]:
        """In the order of their start: those that are asked before those that ask."""
        reply = self.inboxes["reply"]

        def made(stage: Stage, wake: Callable[[], None], awake: Awake | Pulse) -> Running:
            failed: Outbox[object] = reply.port(f"{stage.name}'s defects")
            return Running(stage, wake, failed, awake)

        def with_inbox(stage: Any) -> Running:
            return made(stage, stage.inbox.wake, stage.inbox.awake)

        running = [with_inbox(worker) for worker in self.workers]
        running.append(with_inbox(self.asr))  # its child loads a model while the others begin
        running += [with_inbox(one) for one in (self.tts, self.endpoint) if one is not None]
        if self.vendors is not None:
            running.append(made(self.vendors, self.vendors.stop, self.vendors.pulse))
        running += [with_inbox(self.reply), *(with_inbox(vad) for vad in self.vads)]
        running.append(made(self.pacer, lambda: None, self.pacer.awake))  # a timer wakes it
        for io in reversed(self.ios):  # the one with the door last
            running.append(made(io, io.stop, io.pulse))
            io.defect = running[-1].blame
        return running

    def start(self) -> None:
        """Start every thread. Raises the reason, in one sentence, when one cannot."""
        if self.traces is not None:
            self.traces.start()
        writer = logs.writer()
        if writer is not None:
            box = writer.inbox
            self.watch.add(Watched("log", writer.thread, lambda: writer.beat, box.wake, box.awake))
        self.supervisor.start()
        host, port = self.address
        log.info("listening", host=host, port=port, calls=self.door.limit)
        verdict = self._gil.verdict
        log.info("gil", policy=verdict.policy, verdict=verdict.sentence, remedy=verdict.remedy)
        if self.pacer.rights is not None:
            log.info("pacer", rights=self.pacer.rights.sentence, memory=lock_memory().detail)

    def run(self) -> Exit:
        """Serve until a signal ends it, or the GIL under `refuse`."""
        ended = self.supervisor.run()
        self._end_traces()
        return Exit.GIL if self._refused and ended is not Exit.CRASH else ended

    def close(self) -> bool:
        """Stop everything at once (tests). False when a thread had to be left behind."""
        ended = self.supervisor.end()
        ended = self._end_traces() and ended
        for inbox in self.inboxes.values():
            inbox.close()
        self.watch.close()
        self.supervisor.close()
        for io in self.ios:
            io.pulse.close()
        if self.vendors is not None:
            self.vendors.pulse.close()
        return ended

    def _end_traces(self) -> bool:
        """Once reply has ended. False when the collector would not let go."""
        return self.traces is None or self.traces.stop(TRACES_SECONDS)

    # -- what concerns several threads ----------------------------------------------------------

    def _readiness(self) -> tuple[str, dict[str, object]]:
        """Why no call should be sent here, or nothing; and the facts of /readyz."""
        problem = "" if self.watch.page else "nobody has looked at its threads yet"
        recogniser = self.asr.recogniser
        if recogniser is not None and not self.asr.ready:
            problem = recogniser.failed or "the recogniser is loading its model"
        verdict = self._gil.verdict
        return problem, {
            "gil_enabled": sys._is_gil_enabled(),
            "gil_policy": verdict.policy,
            "fallback": verdict.fallback,
            "gil": verdict.sentence,
            "gil_remedy": verdict.remedy,
            "stages": [running.stage.name for running in self.supervisor.stages],
        }

    def _gil_changed(self, change: object) -> None:
        """On the watch thread: the GIL has come back. Calls go on; fewer of them, less exactly."""
        assert isinstance(change, Flip), change
        now = change.verdict
        log.error("gil", policy=now.policy, verdict=now.sentence, remedy=now.remedy)
        self._fall_back()
        if change.drain:
            self._refused = True
            self.supervisor.retire()

    def _fall_back(self) -> None:
        """Each of these is one store that its thread reads on its next turn."""
        self.door.limit = max(1, self._config.server.max_calls // FALLBACK_SHARE)
        self.pacer.prebuffer *= FALLBACK_PREBUFFER
        if self.asr.recogniser is not None:
            self.asr.recogniser.placement = "process"

    def _look(self, now: float) -> None:
        """Once a second, on the watch thread: how full are the rings, and is there room for
        further calls?"""
        self._depths.look()
        before = self._headroom.reason
        waited = max(0.0, now - self.asr.oldest) if self.asr.oldest else 0.0
        counts = joined([io.lateness for io in self.ios]).snapshot().counts
        reason = self.door.strained = self._headroom.look(now, counts, waited, self.asr.queued)
        if bool(reason) != bool(before):
            log.warning("admission", closed=bool(reason), reason=reason or before)

    def _publish(self, page: bytes) -> bytes:
        """The metrics page, of all processes when there are several."""
        if self._siblings is None:
            return page
        self._siblings.publish(page)
        pages = enumerate(self._siblings.pages())
        return merge({str(row): one for row, one in pages if one}, "process")

    def _stage_samples(self) -> Iterable[Sample]:
        for running in self.supervisor.stages:
            yield from running.stage.samples()

    def _samples(self) -> Iterable[Sample]:
        """For the metrics page: what the return of the GIL changes."""
        fallback = float(self._gil.verdict.fallback)
        yield gauge("threadline_fallback", "1 in fallback mode: the GIL is on.", fallback)
        held = self.pacer.prebuffer * FRAME_SECONDS
        yield gauge("threadline_prebuffer_seconds", "Audio held before an answer begins.", held)
        strained = float(bool(self.door.strained))
        yield gauge("threadline_strained", "1 while no call is taken for want of room.", strained)


def _clauses(text: str) -> list[str]:
    cutter = ClauseCutter()
    return [*cutter.feed(text), *cutter.finish()]
