"""Counts of a measured quantity in fixed buckets: cheap to write, readable from any thread.

One thread writes a histogram; any thread may read it for a report. A reader takes no lock, so
what it sees of one observation may be half there (counted, not yet summed). That skews a report
by one observation and is gone in the next one; nothing is lost, because nobody else writes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise


def log_spaced(low: float, high: float, count: int) -> tuple[float, ...]:
    """`count` bucket bounds from `low` to `high`, both included, each a constant ratio apart.

    Rounded to three significant digits, so that they read well as Prometheus labels.
    """
    ratio = (high / low) ** (1 / (count - 1))
    return tuple(float(f"{low * ratio**i:.3g}") for i in range(count))


LATENESS_MS = log_spaced(0.05, 100.0, 40)
"""Bounds for how late a clock is. Neighbours are 21 % apart: a p99.9 of 5 ms means 4.4 to 5.4."""

LATENCY_MS = log_spaced(5.0, 10_000.0, 40)
"""Bounds for the stages of a turn, the same ratio apart."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A histogram as a reader saw it. The count is the sum of `counts`, always."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]  # one for each bound, and one for what is above the last
    sum: float
    max: float

    @property
    def count(self) -> int:
        """How many were observed."""
        return sum(self.counts)

    def cumulative(self) -> tuple[int, ...]:
        """How many were at or below each bound; the last item counts all of them."""
        return tuple(accumulate(self.counts))

    def quantile(self, q: float) -> float:
        """The value that a share `q` (0 to 1) of the observations did not exceed; 0 when empty.

        Linear inside the bucket; in the last, open one, the largest value observed. Never above
        that value in any bucket.
        """
        wanted = q * self.count
        below = 0
        for i, here in enumerate(self.counts):
            if here and below + here >= wanted:
                if i == len(self.bounds):
                    return self.max
                low = self.bounds[i - 1] if i else 0.0
                inside = low + (self.bounds[i] - low) * (wanted - below) / here
                return min(inside, self.bounds[i], self.max)  # rounding may pass the bound
            below += here
        return 0.0


class Histogram:
    """Written by one thread, read by any.

    Args:
        bounds: upper bounds of the buckets, ascending; one more bucket takes what is above.

    Values are expected at or above zero: the first bucket is read as reaching down to it.
    """

    __slots__ = ("_counts", "bounds", "max", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        if not bounds or any(a >= b for a, b in pairwise(bounds)):
            raise ValueError(f"bucket bounds must ascend: {bounds}")
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.max = 0.0

    def observe(self, x: float) -> None:
        """The writing thread only. A value equal to a bound is counted below it."""
        self._counts[bisect_left(self.bounds, x)] += 1
        self.sum += x
        if x > self.max:
            self.max = x

    @property
    def count(self) -> int:
        """How many were observed."""
        return sum(self._counts)

    def quantile(self, q: float) -> float:
        """See `Snapshot.quantile`."""
        return self.snapshot().quantile(q)

    def snapshot(self) -> Snapshot:
        """What was observed until now, frozen."""
        return Snapshot(self.bounds, tuple(self._counts), self.sum, self.max)


def joined(parts: Sequence[Histogram]) -> Histogram:
    """What several threads observed, one histogram each, as one. They have the same bounds."""
    seen = [part.snapshot() for part in parts]
    whole = Histogram(parts[0].bounds)
    whole._counts = [sum(bucket) for bucket in zip(*(one.counts for one in seen), strict=True)]
    whole.sum = sum(one.sum for one in seen)
    whole.max = max(one.max for one in seen)
    return whole
