import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from threadline.audio.stream import Resampler

RATES = [(22_050, 8000), (24_000, 8000), (8000, 16_000), (16_000, 8000), (44_100, 8000)]


def whole(samples: NDArray[np.float32], rate_in: int, rate_out: int) -> NDArray[np.float32]:
    resampler = Resampler(rate_in, rate_out)
    return np.concatenate([resampler.feed(samples), resampler.finish()])


def noise(n: int, seed: int = 0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(n) * 0.1).astype(np.float32)


def tone(rate: int, hertz: float) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)).astype(np.float32)


def gain_db(rate_in: int, rate_out: int, hertz: float) -> float:
    out = whole(tone(rate_in, hertz), rate_in, rate_out)
    middle = out[len(out) // 4 : -len(out) // 4]
    return 20 * float(np.log10(np.sqrt(2 * np.mean(middle**2)) / 0.5))


@given(
    rates=st.sampled_from(RATES),
    pieces=st.lists(st.integers(0, 3000), max_size=12),
    seed=st.integers(0, 9),
)
def test_pieces_do_not_matter(rates: tuple[int, int], pieces: list[int], seed: int) -> None:
    samples = noise(sum(pieces), seed)
    resampler = Resampler(*rates)
    out = [resampler.feed(part) for part in np.split(samples, np.cumsum(pieces))]
    out.append(resampler.finish())
    joined = np.concatenate(out)
    assert joined.dtype == np.float32
    assert np.array_equal(joined, whole(samples, *rates))
    assert abs(len(joined) - len(samples) * rates[1] / rates[0]) <= 1


@pytest.mark.parametrize("rates", RATES)
def test_phone_band_is_kept(rates: tuple[int, int]) -> None:
    assert all(abs(gain_db(*rates, hertz)) < 0.3 for hertz in (300, 1000, 3400))


@pytest.mark.parametrize("rate_in", [16_000, 22_050, 24_000])
def test_what_a_phone_cannot_carry_does_not_fold_back(rate_in: int) -> None:
    assert all(gain_db(rate_in, 8000, hertz) < -90 for hertz in (4400, 5000, 7000))


def test_no_mirror_image_when_going_up() -> None:
    out = whole(tone(8000, 3400), 8000, 16_000)[4000:12_000]
    spectrum = np.abs(np.fft.rfft(out * np.hanning(len(out))))
    assert spectrum[2300] < 1e-4 * spectrum[1700]  # 2 Hz a bin: 4600 Hz against 3400 Hz


def test_finish_makes_it_fresh() -> None:
    resampler = Resampler(22_050, 8000)
    resampler.feed(noise(5000, 1))
    resampler.finish()
    again = np.concatenate([resampler.feed(noise(5000, 2)), resampler.finish()])
    assert np.array_equal(again, whole(noise(5000, 2), 22_050, 8000))
    assert len(resampler.finish()) == 0
