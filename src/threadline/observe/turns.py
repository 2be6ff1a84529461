"""Where the time of one turn went, from the caller's last sound to our first.

All times are monotonic nanoseconds, 0 while not known. The stages follow one another without
gap or overlap, so that they add up to the response time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

STAGES = ("endpoint", "recognise", "think", "phrase", "speak", "pace")
"""endpoint: silence until we believed it. recognise: what the words still needed after that.
think: to the first token. phrase: to the first clause. speak: its synthesis. pace: to the
socket, prebuffer included."""

INSTANTS = (
    "turn_over",
    "transcript",
    "asked",
    "first_token",
    "first_clause",
    "voice_asked",
    "first_audio",
    "first_frame",
)
"""What a turn's record tells the time of, in the order in which a local brain gets there."""


@dataclass(slots=True)
class Turn:
    """One answer: what was heard, what was said, and when each step was reached.

    A filler ("one moment") is no answer: it has fields of its own and counts in no stage.
    """

    number: int
    heard: str | None = None
    said: list[str] = field(default_factory=list)
    interrupted: bool = False
    clause: int = 0  # the first one of the answer
    why: str = ""  # which rule ended the caller's turn
    source: str = ""  # who recognised it
    early: bool = False  # the answer was asked for before the turn was known to be over
    spoke_until: int = 0
    turn_over: int = 0
    decode_began: int = 0
    decode_ended: int = 0
    transcript: int = 0
    asked: int = 0  # of the model, for the answer that was used
    first_token: int = 0
    first_clause: int = 0
    voice_asked: int = 0  # for the first clause
    first_audio: int = 0
    first_frame: int = 0
    pauses: int = 0  # times the caller's voice held the answer up without ending it
    fillers: list[str] = field(default_factory=list)
    filler_frame: int = 0  # the first frame of the first one
    played: str = ""  # of what was said, as far as the caller heard it
    unplayed: str = ""  # and the rest
    ended: int = 0  # played out, spoken over, or cut short by the next turn or the call's end

    def marks(self) -> tuple[int, ...]:
        """The seven instants that bound the stages; what an early answer had ready before the
        words were final counts as ready then."""
        known = self.transcript
        return (
            self.spoke_until,
            self.turn_over,
            known,
            *(
                at and max(at, known)
                for at in (self.first_token or self.first_clause, self.first_clause)
            ),
            self.first_audio and max(self.first_audio, known),
            self.first_frame,
        )

    def stages_ms(self) -> dict[str, float]:
        """Milliseconds of each stage; empty when not all are known."""
        marks = self.marks()
        if not all(marks):
            return {}
        return {
            name: round((after - before) / 1e6, 1)
            for name, before, after in zip(STAGES, marks, marks[1:], strict=False)
        }

    def at_ms(self) -> dict[str, float]:
        """When each of `INSTANTS` was reached, in ms after the caller's last sound, as far as
        known. An early answer has instants before `turn_over`, even before that sound."""
        if not self.spoke_until:
            return {}
        instants = ((name, getattr(self, name)) for name in INSTANTS)
        return {name: round((at - self.spoke_until) / 1e6, 1) for name, at in instants if at}

    def filler_ms(self) -> float | None:
        """From the caller's last sound to the first filler; None when there was none."""
        if not self.filler_frame or not self.spoke_until:
            return None
        return round((self.filler_frame - self.spoke_until) / 1e6, 1)

    def record(self) -> dict[str, object]:
        """The turn as one log record."""
        return {
            "turn": self.number,
            "heard": self.heard,
            "said": " ".join(self.said),
            "played": self.played,
            "unplayed": self.unplayed,
            "interrupted": self.interrupted,
            "pauses": self.pauses,
            "why": self.why,
            "source": self.source,
            "early": self.early,
            "fillers": list(self.fillers),
            "filler_ms": self.filler_ms(),
            "stages_ms": self.stages_ms(),
            "at_ms": self.at_ms(),
            "decode_ms": round((self.decode_ended - self.decode_began) / 1e6, 1),
        }
