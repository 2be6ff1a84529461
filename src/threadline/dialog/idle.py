"""When a call has gone quiet: time to ask whether somebody is still there, or to say goodbye.

The clock runs only while nobody has anything to do: it starts when the agent's speech has been
played out, and stands while he speaks or works on what to say, and from the caller's floor, words
or keys until the agent's answer to them has been played out. Noise is no activity.
"""

from __future__ import annotations

from .events import Quiet


class Idle:
    """The clock of one call. All times are seconds of one clock; one thread's.

    Args:
        nudge_seconds: of quiet, until a nudge; and again until the next. 0 or less: never.
        nudges: so many, then goodbye. 0: goodbye at once.
    """

    __slots__ = ("_active", "_limit", "_nudges", "_since", "_times")

    def __init__(self, nudge_seconds: float, nudges: int) -> None:
        self._limit = nudge_seconds
        self._nudges = nudges
        self._times = 0  # quiet was noticed, since the caller was last active
        self._since: float | None = None  # the clock runs since then; None: it stands
        self._active = float("-inf")  # when the caller was, last

    def agent_speaking(self) -> None:
        """The agent speaks, or works on it (a request or a tool is under way): the clock stands."""
        self._since = None

    def caller_active(self, now: float, *, words: bool = True) -> None:
        """The caller took the floor, or spoke words, or pressed a key: the clock stands.

        Call with ``words`` False for a floor that is only taken: there may be nothing but noise
        in it, and then the nudges already given still count.
        """
        self._since = None
        self._active = max(self._active, now)
        if words:
            self._times = 0

    def played_out(self, now: float) -> None:
        """The agent's speech has been played to its end, and nothing more is on its way.

        Ignored when the caller was active after `now`: two threads tell of these.
        """
        if now >= self._active:
            self._since = now

    def tick(self, now: float) -> Quiet | None:
        """The quiet that is noticed now, for the conversation. After the last one: never again
        but for a caller who becomes active."""
        due = self.next_due()
        if due is None or now < due:
            return None
        self._times += 1
        self._since = None  # until the nudge has been played out
        return Quiet(self._times, last=self._times > self._nudges)

    def next_due(self) -> float | None:
        """When `tick` should be called next; None: not before something else happens."""
        if self._since is None or self._limit <= 0 or self._times > self._nudges:
            return None
        return self._since + self._limit
