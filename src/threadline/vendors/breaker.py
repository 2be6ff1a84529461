"""When to leave a failing vendor alone."""

from __future__ import annotations

FAILURES = 3
NEVER = 1 << 60
"""Failures of a vendor with nobody behind it: not to ask it again would only be silence. It is
left alone all the same for as long as it has asked for."""


class Breaker:
    """Opens after some failures in a row, and then lets one request through per rest.

    Args:
        failures: so many in a row open it.
        rest_seconds: the first rest; it doubles whenever the request after it fails too.
        longest_seconds: the longest rest.

    `now` is any clock in seconds that does not go back. Used by one thread.
    """

    __slots__ = ("_base", "_failures", "_in_a_row", "_longest", "_rest", "_trial", "_until", "open")

    def __init__(
        self, failures: int = FAILURES, rest_seconds: float = 5.0, longest_seconds: float = 60.0
    ) -> None:
        self.open = False
        self._failures = failures
        self._base = rest_seconds
        self._longest = longest_seconds
        self._in_a_row = 0
        self._rest = 0.0
        self._until = 0.0  # the end of the rest
        self._trial = False  # the request after the rest is under way

    def allows(self, now: float) -> bool:
        """Whether to send a request; the caller sends it, and reports how it went.

        A request let through after a rest that is never reported (it was cancelled) costs one
        more rest, no more.
        """
        if not self.open:
            return True
        if now < self._until:
            return False
        self._trial = True
        self._until = now + self._rest
        return True

    def succeeded(self) -> None:
        """The vendor works: forget all failures."""
        self.open = self._trial = False
        self._in_a_row = 0

    def failed(self, now: float, at_least: float = 0.0) -> None:
        """A request failed. `at_least`: for so many seconds the vendor wants none, at most
        `longest_seconds` of which it gets."""
        self._in_a_row += 1
        if self.open and self._trial:
            self._trial = False
            self._rest = min(2 * self._rest, self._longest)
            self._until = now + self._rest
        elif not self.open and (at_least > 0 or self._in_a_row >= self._failures):
            self.open = True
            self._rest = min(self._base, self._longest)
            self._until = now + self._rest
        # What fails while it is open, having begun before, says nothing new.
        self._until = max(self._until, now + min(at_least, self._longest))
