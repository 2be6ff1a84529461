"""Where the time of one turn went, from the caller's last sound to our first.

All times are monotonic nanoseconds, 0 while not known. The stages follow one another without
gap or overlap, so that they add up to the response time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

STAGES = ("endpoint", "recognise", "think", "speak", "pace")
"""endpoint: silence until we believed it. recognise: what the decode still needed after that.
think: to the first clause. speak: its synthesis. pace: to the socket, prebuffer included."""


@dataclass(slots=True)
class Turn:
    """One answer: what was heard, what was said, and when each step was reached."""

    number: int
    heard: str | None = None
    said: list[str] = field(default_factory=list)
    interrupted: bool = False
    clause: int = 0  # the first one of the answer
    spoke_until: int = 0
    turn_over: int = 0
    decode_began: int = 0
    decode_ended: int = 0
    transcript: int = 0
    first_clause: int = 0
    first_audio: int = 0
    first_frame: int = 0

    def marks(self) -> tuple[int, ...]:
        """The six instants that bound the stages."""
        return (
            self.spoke_until,
            self.turn_over,
            self.transcript,
            self.first_clause,
            self.first_audio,
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
