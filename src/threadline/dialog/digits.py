"""Keys that the caller presses, as numbers: collected until the terminator or a pause."""

from __future__ import annotations

MAX_DIGITS = 32  # a longer number is given in parts
_KEYS = frozenset("0123456789*#ABCD")


class Digits:
    """The keys of one call. Times are seconds of one clock; one thread's.

    Args:
        terminator: the key that completes a number and is no part of it; "": only a pause does.
        seconds: after the last key, a number is complete.
    """

    __slots__ = ("_due", "_keys", "_seconds", "_terminator")

    def __init__(self, terminator: str, seconds: float) -> None:
        self._terminator = terminator.upper()
        self._seconds = seconds
        self._keys = ""
        self._due = 0.0

    def press(self, key: str, now: float) -> str | None:
        """One key: the number that is complete with it, mostly None.

        The terminator alone is given as itself: the caller did press something. What is no key
        of a telephone is ignored.
        """
        key = key.upper()
        if key not in _KEYS:
            return None
        if key == self._terminator:
            return self._take() or key
        late = self.tick(now)
        self._keys += key
        self._due = now + self._seconds
        return late or (self._take() if len(self._keys) >= MAX_DIGITS else None)

    def tick(self, now: float) -> str | None:
        """The number that a pause has completed by `now`."""
        return self._take() if self._keys and now >= self._due else None

    def next_due(self) -> float | None:
        """When `tick` should be called next; None: no key is waiting."""
        return self._due if self._keys else None

    def _take(self) -> str:
        keys, self._keys = self._keys, ""
        return keys
