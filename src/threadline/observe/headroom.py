"""Is there room for one more call? Admission's view of how the live ones are doing.

A fixed bound on calls is right for one machine and one kind of call. Whatever else takes the
processor shows first in frames that leave late and in turns that wait for the recogniser, one for
long or many at once; then no further call is taken, and the live ones keep what there is.
"""

from __future__ import annotations

from collections.abc import Sequence

LATE_MS = 20.0
"""A frame later than this has used up what a phone's buffer forgives."""
LATE_SHARE = 0.02  # of the frames of one look
ENOUGH_FRAMES = 50  # a second of one call: fewer prove nothing
WAITED_SECONDS = 1.5  # a finished turn for the recogniser
REST_SECONDS = 5.0  # all must have been well for so long


class Headroom:
    """Fed once a second. `reason` is why no call should be taken, "" when one may be.

    Args:
        bounds: of the lateness histogram, ms, ascending.
        queue: so many finished turns may wait for the recogniser at once.
    """

    __slots__ = ("_counts", "_late", "_late_from", "_queue", "_until", "reason")

    def __init__(self, bounds: Sequence[float], queue: int) -> None:
        self._queue = queue
        self._late_from = sum(bound < LATE_MS for bound in bounds) + 1
        self._counts: Sequence[int] = ()
        self._late = False  # at the last look
        self._until = 0.0
        self.reason = ""

    def look(self, now: float, counts: Sequence[int], waited: float, queued: int) -> str:
        """Take one look; returns `reason`.

        Args:
            now: monotonic seconds.
            counts: of the lateness histogram, since the start.
            waited: seconds the oldest finished turn has been waiting for its text.
            queued: finished turns for which no worker of the recogniser was free yet.
        """
        before = self._counts or [0] * len(counts)
        fresh = [after - earlier for after, earlier in zip(counts, before, strict=True)]
        self._counts = counts
        frames, late = sum(fresh), sum(fresh[self._late_from :])
        again, self._late = self._late, frames >= ENOUGH_FRAMES and late > LATE_SHARE * frames
        if again and self._late:
            self._strain(now, f"{100 * late / frames:.0f} % of the frames leave late")
        elif queued > self._queue:
            self._strain(now, f"{queued} finished turns wait for the recogniser at once")
        elif waited > WAITED_SECONDS:
            self._strain(now, "finished turns wait for the recogniser")
        elif self.reason and now >= self._until:
            self.reason = ""
        return self.reason

    def _strain(self, now: float, reason: str) -> None:
        self.reason = reason
        self._until = now + REST_SECONDS
