"""The whole server: what is made, and who is joined to whom. Read it beside the thread map.

Nothing runs here after the start; `Server` is the wiring and the few decisions that concern
several threads at once: readiness, and what the return of the GIL means.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Config
from ..dialog.brain import LocalBrain, RemoteBrain
from ..errors import Exit
from ..listening.silero import Silero
from ..observe.prometheus import Sample, gauge
from ..talking.clauses import ClauseCutter
from . import logs
from .asr import AsrStage
from .asr_process import Recogniser
from .calls import Call
from .gil import Flip, GilWatch, Verdict
from .io_calls import IoCalls
from .io_vendors import IoVendors, ModelRequests
from .pacer import Pacer
from .realtime import lock_memory
from .reply import ReplyStage
from .supervisor import Running, Stage, Supervisor
from .tts import TtsStage, Voice
from .vad import VadStage
from .wake import Inbox, Outbox
from .watch import Collector, Watch

log = logs.logger("server")

FRAME_SECONDS = 0.02
FALLBACK_SHARE = 4  # with the GIL on, one call in so many is admitted
FALLBACK_PREBUFFER = 3  # and so many times the prebuffer


@dataclass(frozen=True, slots=True)
class Parts:
    """The models and the brain: real ones in production, quick ones in tests."""

    silero: Path
    load_voice: Callable[[], Voice]
    decoder: str  # "module:callable", made in the recogniser's worker
    decoder_options: Mapping[str, object]
    brain: LocalBrain[Any] | RemoteBrain


class Server:
    """One process's worth of calls. `start`, then `run` until it is told to stop."""

    def __init__(
        self, config: Config, verdict: Verdict, parts: Parts, listener: socket.socket
    ) -> None:
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self.calls = [Call(slot) for slot in range(config.server.max_calls)]
        self._config = config
        self._gil = GilWatch(verdict)
        self._refused = False  # the GIL came on late, and the policy is `refuse`
        self.inboxes = {
            name: Inbox(name) for name in ("io-calls", "vad", "asr", "reply", "tts", "io-vendors")
        }
        self._make_stages(config, verdict, parts, listener)
        if verdict.fallback:
            self._fall_back()
        running = self._running()
        collector = Collector(lambda: self.io.live)
        self.watch = Watch(
            stages=[one.watched() for one in running],
            sources=[*(one.stage.samples for one in running), self._samples],
            collector=collector,
            gil_sample=self._gil.sample,
            gil_changed=self._gil_changed,
        )
        drains: Outbox[object] = self.inboxes["io-calls"].port("supervisor")
        self.supervisor = Supervisor(
            stages=running,
            watch=self.watch,
            collector=collector,
            drain=drains.put,
            live=lambda: self.io.live,
            drain_seconds=config.server.drain_seconds,
        )

    def _make_stages(
        self, config: Config, verdict: Verdict, parts: Parts, listener: socket.socket
    ) -> None:
        """Every port is made here: one ring for each pair of threads that talk."""
        inboxes, calls = self.inboxes, self.calls
        io, asr, reply, tts = (inboxes[name] for name in ("io-calls", "asr", "reply", "tts"))
        brain = parts.brain
        self.tts = TtsStage(
            calls,
            config.tts.cache_bytes,
            parts.load_voice,
            _clauses(brain.greeting),
            tts,
            reply.port("tts"),
        )
        self.asr = AsrStage(
            calls,
            config.asr,
            Recogniser(
                parts.decoder_options,
                logs.logger("asr"),
                decoder=parts.decoder,
                workers=config.asr.workers,
                placement=verdict.placement,
                deadline_seconds=config.asr.deadline_seconds,
            ),
            asr,
            reply.port("asr"),
        )
        vendors = inboxes["io-vendors"]
        self.vendors: IoVendors | None = None
        requests: ModelRequests | None = None
        if isinstance(brain, RemoteBrain):
            self.vendors = IoVendors(config.llm, vendors, reply.port("io-vendors"), len(calls))
            requests = ModelRequests(vendors.port("reply"))
        self.reply = ReplyStage(
            calls,
            brain,
            reply,
            tts.port("reply"),
            io.port("reply"),
            requests,
            lambda: self.tts.apology,
        )
        self.vad = VadStage(
            calls,
            config.vad,
            Silero(parts.silero, len(calls)),
            inboxes["vad"],
            asr.port("vad"),
            reply.port("vad"),
            io.wake,
        )
        self.pacer = Pacer(calls, config.pacer, io.wake)
        self.io = IoCalls(
            calls,
            config.server,
            listener,
            io,
            reply.port("io-calls"),
            inboxes["vad"].wake,
            self._readiness,
            lambda: self.watch.page,
        )

    def _running(self) -> list[Running]:
        """In the order of their start: those that are asked before those that ask."""
        inboxes, reply = self.inboxes, self.inboxes["reply"]

        def on_thread(stage: Stage, wake: Callable[[], None]) -> Running:
            return Running(stage, wake, reply.port(f"{stage.name}'s defects"))

        running = [
            on_thread(self.tts, inboxes["tts"].wake),
            on_thread(self.asr, inboxes["asr"].wake),
            on_thread(self.reply, reply.wake),
            on_thread(self.vad, inboxes["vad"].wake),
            on_thread(self.pacer, lambda: None),  # its timer wakes it
        ]
        if self.vendors is not None:
            running.insert(2, on_thread(self.vendors, self.vendors.stop))
        io = on_thread(self.io, self.io.stop)
        self.io.defect = io.blame
        return [*running, io]

    def start(self) -> None:
        """Start every thread. Raises the reason, in one sentence, when one cannot."""
        self.supervisor.start()
        host, port = self.address
        log.info("listening", host=host, port=port, calls=self.io.limit)
        verdict = self._gil.verdict
        log.info("gil", policy=verdict.policy, verdict=verdict.sentence, remedy=verdict.remedy)
        if self.pacer.rights is not None:
            log.info("pacer", rights=self.pacer.rights.sentence, memory=lock_memory().detail)

    def run(self) -> Exit:
        """Serve until a signal ends it, or the GIL under `refuse`."""
        ended = self.supervisor.run()
        return Exit.GIL if self._refused and ended is not Exit.CRASH else ended

    def close(self) -> bool:
        """Stop everything at once (tests). False when a thread had to be left behind."""
        ended = self.supervisor.end()
        for inbox in self.inboxes.values():
            inbox.close()
        self.watch.close()
        self.supervisor.close()
        return ended

    # -- what concerns several threads ----------------------------------------------------------

    def _readiness(self) -> tuple[str, dict[str, object]]:
        """Why no call should be sent here, or nothing; and the facts of /readyz."""
        problem = ""
        if not self.asr.ready:
            problem = self.asr.recogniser.failed or "the recogniser is loading its model"
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
        self.io.limit = max(1, self._config.server.max_calls // FALLBACK_SHARE)
        self.pacer.prebuffer *= FALLBACK_PREBUFFER
        self.asr.recogniser.placement = "process"

    def _samples(self) -> Iterable[Sample]:
        """For the metrics page: what the return of the GIL changes."""
        fallback = float(self._gil.verdict.fallback)
        yield gauge("threadline_fallback", "1 in fallback mode: the GIL is on.", fallback)
        held = self.pacer.prebuffer * FRAME_SECONDS
        yield gauge("threadline_prebuffer_seconds", "Audio held before an answer begins.", held)


def _clauses(text: str) -> list[str]:
    cutter = ClauseCutter()
    return [*cutter.feed(text), *cutter.finish()]
