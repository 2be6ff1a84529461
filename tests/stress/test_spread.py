"""How frames spread over 20 ms: the figures, from times that are known."""

import numpy as np
import pytest

from stress.bench.spread import HEAD, TICK_MS, row, spread

MS = 1_000_000


def sends(instants, apart_ms, calls=100, ticks=50):
    """So many calls, each on one of the instants; `apart_ms` between two writes of an instant."""
    number = np.arange(calls)
    due = 7_000_000_123 + (number % instants) * (TICK_MS * MS // instants)
    sent = due + (number // instants * apart_ms * MS).astype(np.int64)
    tick = (np.arange(ticks) * TICK_MS * MS)[:, None]
    return (due + tick).ravel(), (sent + tick).ravel()


@pytest.mark.parametrize(("instants", "share"), [(1, 1.0), (4, 0.25), (20, 0.05)])
def test_the_fullest_ms_has_what_one_instant_has(instants, share):
    found = spread(instants, *sends(instants, 0.0), (0, 0), {})
    assert found.frames.sum() == 5000
    assert found.largest == pytest.approx(share)
    assert found.busiest == (100 * share, 100 * share)
    assert found.late == (0.0, 0.0)


def test_writing_takes_time_and_spreads_what_is_due_at_once():
    found = spread(1, *sends(1, 0.1), (0, 0), {})
    assert found.largest == pytest.approx(0.1)
    assert found.late[0] == pytest.approx(4.95)


def test_a_row_has_a_cell_for_each_heading():
    found = spread(4, *sends(4, 0.0), (3, 2), {"pacer": 7.0, "io-calls": 30.0})
    cells = row(found, 100)
    assert len(cells) == len(HEAD)
    assert cells[-4:] == ["7 %", "30 %", "3", "2"]
