"""The tone that stands in for a voice."""

from __future__ import annotations

import numpy as np
import pytest

from threadline.audio import mulaw
from threadline.audio.levels import audible
from threadline.audio.tones import reorder


def test_the_reorder_tone_has_its_two_frequencies_and_its_cadence() -> None:
    codes = reorder(3)
    samples = mulaw.decode(codes).astype(np.float64)
    assert len(samples) == 3 * mulaw.RATE // 2
    for beep in range(3):
        on = samples[beep * 4000 : beep * 4000 + 2000]
        off = samples[beep * 4000 + 2000 : beep * 4000 + 4000]
        spectrum = np.abs(np.fft.rfft(on * np.hanning(len(on)), mulaw.RATE))  # bins of 1 Hz
        spectrum[:300] = 0  # no peak belongs there
        found = []
        for _ in range(2):
            at = int(spectrum.argmax())
            found.append(at)
            spectrum[at - 40 : at + 40] = 0
        assert sorted(found) == pytest.approx([480, 620], abs=2)
        assert not off.any()


def test_each_frequency_is_at_its_level() -> None:
    on = mulaw.decode(reorder(1))[:2000].astype(np.float64) / 32_124
    power = np.mean(on**2)  # of both; a full-scale sine has 0.5
    assert 10 * np.log10(power / 2 / 0.5) + 3.17 == pytest.approx(-24.0, abs=0.3)


@pytest.mark.parametrize("beeps", [1, 2, 4])
def test_it_is_whole_frames_that_a_person_hears(beeps: int) -> None:
    codes = reorder(beeps)
    assert len(codes) % mulaw.FRAME == 0
    assert audible(codes[: mulaw.FRAME])
