import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.observe.histogram import LATENCY_MS, LATENESS_MS, Histogram, joined, log_spaced

values = st.lists(st.floats(0.0, 300.0), min_size=1, max_size=200)


def filled(xs, bounds=LATENESS_MS):
    histogram = Histogram(bounds)
    for x in xs:
        histogram.observe(x)
    return histogram


def test_an_empty_histogram_says_zero():
    histogram = Histogram((1.0, 2.0))
    assert (histogram.count, histogram.sum, histogram.max, histogram.quantile(0.5)) == (0, 0, 0, 0)


def test_a_value_is_counted_at_or_below_its_bound():
    seen = filled([0.5, 1.0, 1.5, 2.0, 2.5, 9.0], (1.0, 2.0)).snapshot()
    assert seen.counts == (2, 2, 2)
    assert seen.cumulative() == (2, 4, 6)
    assert (seen.count, seen.sum, seen.max) == (6, 16.5, 9.0)


def test_a_quantile_is_linear_inside_its_bucket():
    histogram = filled([15.0] * 10, (10.0, 20.0))
    histogram.observe(20.0)  # so that the largest value does not cut the bucket short
    assert histogram.quantile(5.5 / 11) == pytest.approx(15.0)
    assert histogram.quantile(1.0) == 20.0


def test_above_the_last_bound_a_quantile_is_the_largest_value():
    assert filled([1.0, 50.0, 70.0], (10.0,)).quantile(0.9) == 70.0


def test_one_slow_tick_in_a_thousand_is_what_p99_9_shows():
    histogram = filled([0.1] * 998 + [5.0] * 2)
    assert histogram.quantile(0.5) == pytest.approx(0.1, rel=0.2)
    assert histogram.quantile(0.999) == pytest.approx(5.0, rel=0.2)


@given(values, st.floats(0.0, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(xs, q):
    true = sorted(xs)[max(0, math.ceil(q * len(xs)) - 1)]
    low = max((b for b in LATENESS_MS if b < true), default=0.0)
    high = min((b for b in LATENESS_MS if b >= true), default=max(xs))
    assert low <= filled(xs).quantile(q) <= high


@given(values)
def test_quantiles_ascend_and_stop_at_the_largest(xs):
    histogram = filled(xs)
    quantiles = [histogram.quantile(i / 20) for i in range(21)]
    assert quantiles == sorted(quantiles)
    assert quantiles[-1] <= max(xs) == histogram.max
    assert histogram.count == len(xs)
    assert histogram.sum == pytest.approx(sum(xs))


@given(st.lists(values, min_size=1, max_size=4))
def test_what_several_threads_observed_is_what_one_would_have(parts):
    whole, one = joined([filled(xs) for xs in parts]), filled([x for xs in parts for x in xs])
    assert whole.snapshot().counts == one.snapshot().counts
    assert whole.sum == pytest.approx(one.sum)
    assert whole.max == one.max


def test_a_snapshot_does_not_move():
    histogram = filled([1.0])
    seen = histogram.snapshot()
    histogram.observe(2.0)
    assert (seen.count, seen.max) == (1, 1.0)
    assert histogram.count == 2


@pytest.mark.parametrize("bounds", [(), (1.0, 1.0), (2.0, 1.0)])
def test_bounds_must_ascend(bounds):
    with pytest.raises(ValueError, match="must ascend"):
        Histogram(bounds)


@pytest.mark.parametrize(
    ("bounds", "low", "high"), [(LATENESS_MS, 0.05, 100.0), (LATENCY_MS, 5.0, 10_000.0)]
)
def test_the_ready_made_bounds_are_fine_enough_for_a_tail(bounds, low, high):
    assert (bounds[0], bounds[-1]) == (low, high)
    assert max(b / a for a, b in pairwise(bounds)) < 1.25


def test_log_spaced_bounds_are_rounded_for_the_eye():
    assert log_spaced(1.0, 100.0, 5) == (1.0, 3.16, 10.0, 31.6, 100.0)
