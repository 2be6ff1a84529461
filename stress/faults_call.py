"""One call of stress/faults.py: a whole server, three vendors, one of them ill; and the verdict.

The caller says three lines. The vendor is ill from the beginning to the second line (`connect`),
or for the second line: from its beginning (`request`), in the middle of it or of its answer
(`middle`), or from the moment at which it has cut off the answer to the first (`cut-in`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from threadline.audio.mulaw import RATE
from threadline.config import Cartesia, Config, Deepgram, Endpoint, Llm, Stt, Tts
from threadline.config import Server as ServerConfig
from threadline.dialog import phrases
from threadline.dialog.brain import RemoteBrain
from threadline.models.store import ModelStore
from threadline.observe.callreport import CallRecord, ServerTurn, judge, server_turns
from threadline.threads.caller import place_calls
from threadline.threads.gil import Facts
from threadline.threads.gil import judge as judge_gil
from threadline.threads.io_calls import listen
from threadline.threads.phone_line import CallPlan
from threadline.threads.server import Parts, Server
from threadline.wire.script import Barge, Clip

from . import faults_texts as texts
from .faults_list import CONNECT, CUT_IN, MIDDLE, Fault
from .faults_vendors import Vendors, vendors
from .until import until

NAMES = ("one", "two", "three")
ANSWER_SECONDS = 8.0
CALL_SECONDS = 90.0
SILENT_SECONDS = 1.2  # from the onset of what interrupts to the end of the old answer

CONFIG = Config(
    server=ServerConfig(max_calls=2, drain_seconds=0.1),
    endpoint=Endpoint(mode="silence", complete_ms=400),
    stt=Stt(final_seconds=1.2),
    deepgram=Deepgram(api_key="local", connect_seconds=0.8),
    llm=Llm(
        api_key="local",
        greeting=texts.GREETING,
        connect_seconds=0.8,
        first_token_seconds=1.0,
        token_seconds=1.2,
        total_seconds=6.0,
    ),
    cartesia=Cartesia(
        api_key="local", connect_seconds=0.8, first_audio_seconds=1.0, audio_seconds=1.2
    ),
)
CHAINS: Mapping[str, tuple[str, ...]] = {
    "deepgram": ("deepgram", "whisper"),
    "openai": (f"openai:{texts.FIRST}", f"openai:{texts.SECOND}", "scripted"),
    "cartesia": ("cartesia", "piper"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One row to be. `alone`: the vendor has nobody behind it."""

    fault: Fault
    phase: str
    alone: bool = False

    @property
    def name(self) -> str:
        return f"{self.fault.vendor}, {self.fault.name}, {self.phase}" + (
            ", alone" if self.alone else ""
        )


@dataclass(slots=True)
class Line:
    """What became of one line of the caller."""

    heard: str = ""  # what he heard, in one word
    words: str = ""  # the clauses
    wait_ms: float | None = None
    ears: str = ""
    brain: str = ""
    voice: str = ""

    @property
    def who(self) -> str:
        return ", ".join(filter(None, (self.ears, self.brain, self.voice)))


@dataclass(slots=True)
class Row:
    """What came of a case; `problems`: in what it was not as it must be."""

    vendor: str
    fault: str
    phase: str
    alone: bool
    lines: list[Line] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def faulted(self) -> Line:
        """The line that met the fault."""
        at = 0 if self.phase == CONNECT else 1
        return self.lines[at] if at < len(self.lines) else Line()

    @property
    def after(self) -> Line:
        """The line after the fault had gone."""
        return self.lines[-1] if self.lines else Line()


def row_of(case: Case) -> Row:
    return Row(case.fault.vendor, case.fault.name, case.phase, case.alone)


def config_of(case: Case) -> Config:
    """Chains: the ill vendor's has its followers, unless it is `alone`."""
    first = {vendor: chain[:1] for vendor, chain in CHAINS.items()}
    if not case.alone:
        first[case.fault.vendor] = CHAINS[case.fault.vendor]
    return replace(
        CONFIG,
        stt=replace(CONFIG.stt, chain=first["deepgram"]),
        llm=replace(CONFIG.llm, chain=first["openai"]),
        tts=Tts(chain=first["cartesia"]),
    )


class _Director:
    """Makes the vendor ill and well again, by what happens in the call. A `Watcher`."""

    def __init__(self, case: Case, made: Vendors) -> None:
        self._case = case
        self._vendors = made
        self._due = case.phase != CONNECT

    def note(self, call: int, seconds: float, text: str) -> None:
        for number, name in enumerate(NAMES, 1):
            if text == f"caller says {name}":
                self._line(number)
        cut = self._case.phase == CUT_IN and text.startswith("agent cleared its audio")
        if cut and self._vendors.line == 2:
            self._strike()

    def _line(self, number: int) -> None:
        self._vendors.line = number
        if number == 3 or (number == 2 and self._case.phase == CONNECT):
            self._vendors.recover()
        if number == 2 and self._case.phase not in (CONNECT, CUT_IN):
            self._strike()

    def _strike(self) -> None:
        if self._due:
            self._due = False
            self._vendors.fall_ill(self._case.fault.illness())

    def sound(self, caller: bytes, agent: bytes) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Stage:
    """What every call needs: the models, what the caller says, and the server's log."""

    models: ModelStore
    speech: bytes  # mu-law
    bounds: tuple[int, int]
    log: Path

    def run(self, case: Case) -> Row:
        """Hold one call, about 15 s."""
        with vendors(long=case.phase == CUT_IN) as made:
            if case.phase == CONNECT:
                made.fall_ill(case.fault.illness())
            server = self._server(case, made)
            server.start()
            try:
                self._until_ready(server)
                record = self._call(case, made, server)
            finally:
                made.recover()
                ended = server.close()
        row = row_of(case)
        _judge(case, row, record, self._turns(record))
        if not ended:
            row.problems.append("a thread of the server was left behind")
        assert server.vendors is not None
        if server.vendors.defects or server.reply.apologies:
            row.problems.append("a defect in the server: see its log")
        return row

    def _server(self, case: Case, made: Vendors) -> Server:
        config, gates = config_of(case), made.gates
        at = "127.0.0.1:{}".format
        config = replace(
            config,
            deepgram=replace(config.deepgram, url=f"ws://{at(gates['deepgram'].port)}/v1/listen"),
            llm=replace(config.llm, base_url=f"http://{at(gates['openai'].port)}/v1"),
            cartesia=replace(config.cartesia, url=f"ws://{at(gates['cartesia'].port)}"),
        )
        local = "scripted" in config.llm.chain
        brain = RemoteBrain(
            texts.GREETING,
            config.llm.instructions,
            fallback=texts.LocalBrain() if local else None,
            speculate=True,
        )
        parts = Parts(
            silero=self.models.path("silero-vad", "silero_vad.onnx"),
            brain=brain,
            load_voice=texts.LocalVoice,
            decoder="stress.faults_texts:LocalEars",
        )
        verdict = judge_gil(Facts("free-threaded", gil_on=False), "isolate")
        return Server(config, verdict, parts, listen("127.0.0.1", 0))

    def _until_ready(self, server: Server) -> None:
        until(lambda: server.asr.ready, "the local recogniser starts", 30.0)

    def _call(self, case: Case, made: Vendors, server: Server) -> CallRecord:
        clips = tuple(Clip(name, self.speech, self.bounds) for name in NAMES)
        plan = CallPlan(
            f"ws://127.0.0.1:{server.address[1]}/twilio",
            clips,
            barge=Barge(1.2, 1) if case.phase == CUT_IN else None,
            answer_within=ANSWER_SECONDS,
            timeout=CALL_SECONDS,
        )
        (record,) = place_calls(plan, _Director(case, made)).calls
        return record

    def _turns(self, record: CallRecord) -> Sequence[ServerTurn]:
        return server_turns(self.log).get(record.call_sid, [])


def _judge(case: Case, row: Row, record: CallRecord, turns: Sequence[ServerTurn]) -> None:
    wrong = row.problems.append
    if record.fault is not None:
        wrong(f"the call was dropped: {record.fault}")
    if record.unsaid:
        wrong(f"the call ended before {record.unsaid} of the lines")
    heard = texts.listen(record.agent)
    for text in heard.twice():
        wrong(f"heard twice: {text!r}")
    if heard.strange > 0.3 and "drips" not in case.fault.name:
        wrong(f"{heard.strange:.1f} s of sound that nobody meant")
    report = judge(record, turns)
    for number, said in enumerate(record.said, 1):
        later = [one.onset for one in record.said[number:]][:1]
        end = later[0] / RATE if later else record.seconds
        after = heard.between(said.onset / RATE, end)
        turn = report.turns[number]
        line = Line(wait_ms=turn.response_ms, ears=turn.server.source if turn.server else "")
        row.lines.append(line)
        _fill(line, after)
        old = [one for one in after if one.known.line and one.known.line != number]
        for one in old:
            wrong(f"line {number} was answered with {one.known.text!r}")
        asked = turn.server.heard if turn.server else ""
        if line.ears == "deepgram" and asked and str(number) not in asked.split():
            wrong(f"line {number} was taken for {asked!r}")
        if line.heard == "nothing":
            wrong(f"line {number} was not answered in {ANSWER_SECONDS:g} s")
    if case.phase == CUT_IN and len(record.said) > 1:
        silent = record.said[1].onset / RATE + SILENT_SECONDS
        longs = [one for one in heard.clauses if one.known.text in texts.LONG]
        if any(one.end > silent for one in longs):
            wrong("the answer that was cut off was heard on")
        if not longs:
            wrong("there was no answer to cut off")
    _expect(case, row)


def _fill(line: Line, after: Sequence[texts.Sounded]) -> None:
    line.words = " ".join(one.known.text for one in after)
    if not after:
        line.heard = "nothing"
        return
    kinds = {
        "an apology" if one.known.text in texts.APOLOGIES else
        "a remark" if one.known.by == "ourselves" else "an answer"
        for one in after
    }  # fmt: skip
    order = ("an answer", "an apology", "a remark")
    line.heard = ", then ".join(kind for kind in order if kind in kinds)
    by = [one.known.by for one in after if one.known.by != "ourselves"]
    names = {"vendor": "first model", "second model": "second model", "local": "scripted"}
    line.brain = ", ".join(dict.fromkeys(names[one] for one in by))
    line.voice = ", ".join(dict.fromkeys(one.voice for one in after))


def _expect(case: Case, row: Row) -> None:
    """The faulted line got an answer, or an apology that is true; the others got answers."""
    wrong = row.problems.append
    true: tuple[str, ...] = ()
    if case.fault.vendor == "openai" and (case.alone or case.phase in (MIDDLE, CUT_IN)):
        true = (*phrases.FAILED, *phrases.NO_ANSWER)
    elif case.fault.vendor == "deepgram" and case.alone:
        true = phrases.NOT_CAUGHT
    for number, line in enumerate(row.lines, 1):
        if line is row.faulted:
            for text in texts.APOLOGIES:
                if text in line.words and text not in true:
                    wrong(f"line {number} was answered with {text!r}")
            if not line.words.strip() or "a remark" in line.heard:
                wrong(f"line {number} was answered with {line.words!r}")
        elif line.heard != "an answer" and not (case.alone and line.heard == "an apology"):
            wrong(f"line {number}, without the fault, was answered with {line.words!r}")


def cases(found: Sequence[Fault]) -> list[Case]:
    """The table: each fault in each of its phases, and a few with nobody behind the vendor."""
    made = [Case(fault, phase) for fault, phase in _pairs(found)]
    lonely = {
        ("deepgram", "refuses"), ("deepgram", "says nothing more"),
        ("openai", "500"), ("openai", "hangs before the headers"), ("openai", "an empty answer"),
    }  # fmt: skip
    made += [
        Case(fault, phase, alone=True)
        for fault, phase in _pairs(found)
        if (fault.vendor, fault.name) in lonely and phase not in (CONNECT, CUT_IN, MIDDLE)
    ]
    return made


def _pairs(found: Sequence[Fault]) -> list[tuple[Fault, str]]:
    return [(fault, phase) for fault in found for phase in fault.phases]
