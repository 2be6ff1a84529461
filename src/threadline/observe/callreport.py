"""What a call was like, from the phone's side: measurements in, turns and one report out.

Every figure is taken where the caller sits. ``response_ms``: true end of the caller's speech to
the first audible agent sample. ``barge_ms``: true onset of the caller's speech, while the agent
is audible, to the last audible sample of the old reply. ``lateness_ms``: arrival of each media
message after its place on the 20 ms grid of its utterance. The phone's own buffer is inside the
first two: a person waits for it too.

A filler ("one moment") is no answer: ``filler_ms`` is measured to it, and ``response_ms`` to the
answer after it, which only the server's log can tell apart: so much later as it was there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio.mulaw import RATE
from ..errors import ConfigError, ThreadlineError
from ..wire.phone import PAUSE_SAMPLES, RESUMES, STARTS, Arrivals, Gap, Utterance
from ..wire.script import Said

_HELD_LATE = 0.02  # a frame this late (s) under the caller's voice: the agent held its tongue


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call as the phone knew it. Positions are samples of the call, 8 kHz."""

    call_sid: str
    said: tuple[Said, ...]
    unsaid: int  # clips the call ended before
    utterances: tuple[Utterance, ...]
    clears: tuple[int, ...]
    gaps: tuple[Gap, ...]
    marks: int  # the agent asked for
    arrivals: Arrivals
    caller: NDArray[np.uint8]  # (samples,) mu-law, what the caller's side sent
    agent: NDArray[np.uint8]  # (samples,) mu-law, what the phone played
    answer_within: float
    ended: str  # one sentence
    fault: ThreadlineError | None  # why the call is a dropped one

    @property
    def seconds(self) -> float:
        """Length of the call."""
        return len(self.agent) / RATE


@dataclass(frozen=True, slots=True)
class ServerTurn:
    """One turn as the server's log has it."""

    heard: str
    said: str
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    at_ms: Mapping[str, float] = field(default_factory=dict)  # see turns.INSTANTS
    why: str = ""  # which rule ended the caller's turn
    source: str = ""  # who recognised it
    early: bool = False  # the model was asked before the turn was known to be over
    played: str = ""  # of what was said, as far as the caller heard it
    unplayed: str = ""
    interrupted: bool = False
    pauses: int = 0  # times the agent was held up and went on
    fillers: tuple[str, ...] = ()
    filler_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One clip and what the agent made of it; times in seconds of the call.

    Turn 0 is the greeting: no clip, no figures.
    """

    number: int
    clip: str
    onset: float
    speech_end: float
    speaks: bool
    reply_start: float | None = None  # first and last audible agent sample
    reply_end: float | None = None
    response_ms: float | None = None
    filler_ms: float | None = None  # a filler came first, and was audible so soon
    barge_ms: float | None = None  # None: the agent was not talking
    silenced: float | None = None  # when the interrupted reply was last audible
    early: bool = False  # the agent began to talk into the caller's speech
    server: ServerTurn | None = None

    @property
    def unanswered(self) -> bool:
        """The caller spoke and no agent speech followed in time."""
        return self.number > 0 and self.speaks and self.reply_start is None


@dataclass(frozen=True, slots=True)
class CallReport:
    """One call, judged."""

    record: CallRecord
    turns: tuple[Turn, ...]  # the greeting first
    underruns: tuple[Gap, ...]
    pauses: tuple[Gap, ...]  # dry while the caller spoke: the agent held its tongue
    lateness_ms: NDArray[np.float64]  # (messages,), those that end a pause left out


def server_turns(path: Path) -> dict[str, list[ServerTurn]]:
    """The ``turn`` records of a server's JSON log, by call id, in the order written.

    Raises ConfigError when the file cannot be read. Lines that are no turn record are passed
    over, since a log may hold anything.
    """
    found: dict[str, list[ServerTurn]] = {}
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read the server log {path}: {error.strerror}") from error
    for line in lines:
        try:
            item = json.loads(line)
        except ValueError:
            continue
        if not isinstance(item, dict) or item.get("event") != "turn":
            continue
        found.setdefault(str(item.get("call_id", "")), []).append(_server_turn(item))
    return found


def _server_turn(item: Mapping[str, Any]) -> ServerTurn:
    """One record; what is absent or of another kind than we write counts as not known."""
    texts = {name: str(item.get(name) or "") for name in ("heard", "said", "why", "source")}
    filler_ms, pauses, fillers = (item.get(name) for name in ("filler_ms", "pauses", "fillers"))
    return ServerTurn(
        **texts,
        stages_ms=_numbers(item.get("stages_ms")),
        at_ms=_numbers(item.get("at_ms")),
        early=item.get("early") is True,
        played=str(item.get("played") or ""),
        unplayed=str(item.get("unplayed") or ""),
        interrupted=item.get("interrupted") is True,
        pauses=pauses if isinstance(pauses, int) else 0,
        fillers=tuple(map(str, fillers)) if isinstance(fillers, list) else (),
        filler_ms=float(filler_ms) if isinstance(filler_ms, int | float) else None,
    )


def _numbers(found: object) -> dict[str, float]:
    if not isinstance(found, dict):
        return {}
    return {str(k): float(v) for k, v in found.items() if isinstance(v, int | float)}


def judge(record: CallRecord, log: Sequence[ServerTurn] = ()) -> CallReport:
    """Measure one call; ``log`` holds the server's turns of it, a greeting first (no words heard).

    The k-th turn of the caller in the log belongs to the k-th clip that speaks.
    """
    greetings = [turn for turn in log if not _is_callers(turn)][:1]
    words = iter([turn for turn in log if _is_callers(turn)])
    turns = [_greeting(record, greetings[0] if greetings else None)]
    turns += [
        _turn(record, index, next(words, None) if said.speaks else None)
        for index, said in enumerate(record.said)
    ]
    real = [gap for gap in record.gaps if record.marks or gap.end - gap.start <= PAUSE_SAMPLES]
    pauses = tuple(gap for gap in real if _caller_talks(record, gap.start))
    underruns = tuple(gap for gap in real if gap not in pauses)
    return CallReport(record, tuple(turns), underruns, pauses, _lateness(record, underruns))


def _is_callers(turn: ServerTurn) -> bool:
    """He was understood; or he was not, and was told so. A cough comes to neither."""
    return bool(turn.heard or (turn.why and turn.said))


def summary(
    reports: Sequence[CallReport], client_lateness_ms: NDArray[np.float64]
) -> dict[str, Any]:
    """The one JSON object of any number of calls. A figure nobody measured is null."""
    turns = [turn for report in reports for turn in report.turns if turn.number]
    lateness = [report.lateness_ms for report in reports] or [np.zeros(0)]
    return {
        "calls": len(reports),
        "turns": sum(turn.speaks for turn in turns),
        "unanswered": sum(turn.unanswered for turn in turns),
        "dropped": sum(report.record.fault is not None for report in reports),
        "early": sum(turn.early for turn in turns),
        "unsaid": sum(report.record.unsaid for report in reports),
        "response_ms": _centiles((turn.response_ms for turn in turns), (50, 95, 99)),
        "filler_ms": _centiles((turn.filler_ms for turn in turns), (50, 95, 99)),
        "barge_ms": _centiles((turn.barge_ms for turn in turns), (50, 95, 100)),
        "lateness_ms": _centiles(np.concatenate(lateness), (50, 99, 99.9, 100)),
        "client_lateness_ms": _centiles(client_lateness_ms, (50, 99, 99.9, 100)),
        "underruns": sum(len(report.underruns) for report in reports),
        "pauses": sum(len(report.pauses) for report in reports),
        "frames": sum(len(report.record.arrivals.at) for report in reports),
        "transcript": [entry for report in reports for entry in transcript(report)],
    }


def transcript(report: CallReport) -> list[dict[str, Any]]:
    """The call turn by turn, ready for JSON; words and stages where the server's log has them."""
    return [
        {
            "call": report.record.call_sid,
            "turn": turn.number,
            "clip": turn.clip or None,
            "caller": [turn.onset, turn.speech_end] if turn.number else None,
            "agent": None if turn.reply_start is None else [turn.reply_start, turn.reply_end],
            "response_ms": turn.response_ms,
            **_told(turn.server),
            "filler_ms": turn.filler_ms,
            "barge_ms": turn.barge_ms,
        }
        for turn in report.turns
    ]


def _told(server: ServerTurn | None) -> dict[str, Any]:
    """The server's side of a turn, ready for JSON; each value null without its log."""
    if server is None:
        return dict.fromkeys(field.name for field in fields(ServerTurn))
    return {
        **{field.name: getattr(server, field.name) for field in fields(ServerTurn)},
        "stages_ms": dict(server.stages_ms),
        "at_ms": dict(server.at_ms),
        "fillers": list(server.fillers),
    }


def _greeting(record: CallRecord, server: ServerTurn | None) -> Turn:
    until = record.said[0].onset if record.said else len(record.agent)
    spoken = [u for u in record.utterances if u.first_loud >= 0 and u.start < until]
    start, end = _span(spoken)
    return Turn(0, "", 0.0, 0.0, speaks=False, reply_start=start, reply_end=end, server=server)


def _turn(record: CallRecord, index: int, server: ServerTurn | None) -> Turn:
    said = record.said[index]
    later = record.said[index + 1].onset if index + 1 < len(record.said) else len(record.agent) + 1
    onset, speech_end = said.onset, said.speech_end
    audible = [u for u in record.utterances if u.first_loud >= 0]
    barge_ms = silenced = None
    after = onset
    if said.speaks and any(u.first_loud <= onset <= u.last_loud for u in audible):
        cut = next((at for at in record.clears if onset <= at < later), None)
        old = [u for u in audible if u.start <= (speech_end if cut is None else cut)]
        last = max(u.last_loud for u in old) + 1
        barge_ms, silenced = _ms(last - onset), last / RATE
        after = onset if cut is None else cut
    reply = [u for u in audible if after < u.start < later and u.last_loud >= speech_end]
    on_time = speech_end + record.answer_within * RATE
    reply = [u for u in reply if u.first_loud <= on_time] and reply
    clean = next((u for u in reply if u.first_loud >= speech_end), None)
    start, end = _span(reply)
    wait = _ms(clean.first_loud - speech_end) if clean and said.speaks else None
    filler_ms, response_ms = _apart(wait, server)
    return Turn(
        number=said.turn,
        clip=said.name,
        onset=onset / RATE,
        speech_end=speech_end / RATE,
        speaks=said.speaks,
        reply_start=start,
        reply_end=end,
        response_ms=response_ms,
        filler_ms=filler_ms,
        barge_ms=barge_ms,
        silenced=silenced,
        early=any(after < u.start and onset < u.first_loud < speech_end for u in audible),
        server=server,
    )


def _apart(wait: float | None, server: ServerTurn | None) -> tuple[float | None, float | None]:
    """The wait for a filler, if one came first, and that for the answer."""
    if wait is None or server is None or server.filler_ms is None:
        return None, wait
    answered = server.at_ms.get("first_frame")
    return wait, None if answered is None else wait + max(0.0, answered - server.filler_ms)


def _span(spoken: Sequence[Utterance]) -> tuple[float | None, float | None]:
    if not spoken:
        return None, None
    return spoken[0].first_loud / RATE, (spoken[-1].last_loud + 1) / RATE


def _ms(samples: int) -> float:
    return samples * 1000 / RATE


def _caller_talks(record: CallRecord, at: int) -> bool:
    """The caller's speech, or the silence in which a detector may still hold: half a second."""
    return any(s.speaks and s.onset <= at < s.speech_end + RATE // 2 for s in record.said)


def _lateness(record: CallRecord, underruns: Sequence[Gap]) -> NDArray[np.float64]:
    """Milliseconds after the grid, of every message that had a place on one.

    A grid starts with an utterance, and anew after a stall, so that a stall counts once. The
    message that ends a stall is measured on the grid it missed.
    """
    arrivals, stalled = record.arrivals, {gap.frame for gap in underruns}
    out: list[float] = []
    due = 0.0
    for index, (at, samples, kind) in enumerate(
        zip(arrivals.at.tolist(), arrivals.samples.tolist(), arrivals.kind.tolist(), strict=True)
    ):
        late = at - due
        if kind == STARTS:
            out.append(0.0)
            due = at
        elif kind == RESUMES:
            if index in stalled:
                out.append(late * 1000)
            due = at
        elif late > _HELD_LATE and _caller_talks(record, int(at * RATE)):
            due = at
        else:
            out.append(max(0.0, late * 1000))
        due += samples / RATE
    return np.array(out)


def _centiles(
    values: Iterable[float | None] | NDArray[np.float64], which: Sequence[float]
) -> dict[str, float | None]:
    """Percentiles that are values of the sample itself, never between two, to 0.01."""
    sample = np.array([value for value in values if value is not None], np.float64)
    names = ["max" if at == 100 else f"p{at:g}".replace(".", "") for at in which]
    if not len(sample):
        return dict.fromkeys(names)
    found = np.percentile(sample, which, method="higher")
    return {name: round(float(value), 2) for name, value in zip(names, found, strict=True)}
