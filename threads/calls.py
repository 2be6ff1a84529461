"""The call table: everything two threads may share about a call, and who alone writes it.

A call is a slot of this table, made before the first call and reused, plus a generation: odd
while somebody is on the line, raised at both ends of a call. An epoch is one stretch between
two starts of caller speech; it never falls, not even between callers. What is queued anywhere
carries both, and whoever takes it off a queue compares.
"""

from __future__ import annotations

from .ring import AudioRing, Cursor

FRAME = 160
"""Bytes and samples of 20 ms of mu-law at 8 kHz."""

WINDOW = 256
"""Bytes and samples of one 32 ms VAD window."""

FRAME_AGE = "threadline_frame_age_seconds"
"""The metric of how old a caller's audio is where it arrives."""

# Flags of outgoing records.
END_OF_CLAUSE = 1
"""The clause's last sample is in this frame: a mark follows it on the wire."""
END_OF_REPLY = 2
"""No audio in this record: after it, an empty ring is silence and no underrun."""


class Call:
    """One slot. A ring's comment says producer -> consumer and its policy when full."""

    __slots__ = (
        "busy",
        "due",
        "epoch",
        "generation",
        "heard",
        "hold",
        "outgoing",
        "playing",
        "slot",
        "speech",
    )

    def __init__(self, slot: int) -> None:
        self.slot = slot
        # Written by io-calls. Odd: live.
        self.generation = Cursor()
        # Written by vad. epoch is stored before hold is lifted; the pacer loads hold first, so
        # that it can never see the floor free and yet the old epoch.
        self.epoch = Cursor()
        self.hold = Cursor()
        # Written by reply: 1 from the end of the caller's turn to the end of the answer.
        self.busy = Cursor()
        # Written by pacer: 1 while an answer is on its way out, paused or not.
        self.playing = Cursor()

        # io-calls -> vad; prefers fresh: vad skips what is more than a second old.
        self.heard = AudioRing(128, FRAME)
        # vad -> asr; 4 s of windows; asr only copies, so a full ring means that it is stuck:
        # the newest window is lost and counted.
        self.speech = AudioRing(128, WINDOW)
        # reply -> pacer; withheld: reply keeps the rest and refills.
        self.outgoing = AudioRing(128, FRAME)
        # pacer -> io-calls; a frame or two. When it is full the pacer leaves the frame where it
        # is and counts the tick as late.
        self.due = AudioRing(8, FRAME)

    @property
    def live(self) -> bool:
        """Is somebody on the line? A momentary answer, from any thread."""
        return self.generation.at & 1 == 1
