import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from threadline.audio import levels, mulaw, wav
from threadline.errors import ConfigError


def tone(rate: int, seconds: float = 0.5, hertz: float = 440) -> NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def write(path: Path, samples: NDArray[np.float64], rate: int, width: int, channels: int) -> Path:
    scaled = np.round(samples * (1 << (8 * width - 1))).astype(np.int64)
    if width == 1:
        raw = (scaled + 128).astype(np.uint8).tobytes()
    else:
        raw = b"".join(int(x).to_bytes(width, "little", signed=True) for x in scaled.ravel())
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw)
    return path


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_reads_every_width_and_channel_count(tmp_path: Path, width: int, channels: int) -> None:
    mono = tone(11_025)
    shared = np.repeat(mono[:, None], channels, axis=1)
    samples, rate = wav.read(write(tmp_path / "a.wav", shared, 11_025, width, channels))
    assert rate == 11_025
    assert samples.dtype == np.float32
    assert np.abs(samples - mono).max() <= 1.01 * 2.0 ** (1 - 8 * width) + 1e-6


def test_channels_are_averaged(tmp_path: Path) -> None:
    sides = np.stack([tone(8000), -tone(8000) / 2], axis=1)
    samples, _ = wav.read(write(tmp_path / "a.wav", sides, 8000, 2, 2))
    assert np.abs(samples - tone(8000) / 4).max() < 1e-4


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_full_scale_stays_in_range(tmp_path: Path, width: int) -> None:
    top = 1 - 2.0 ** (1 - 8 * width)
    samples, _ = wav.read(write(tmp_path / "a.wav", np.array([-1.0, top]), 8000, width, 1))
    assert samples[0] == -1
    assert 0.99 <= samples[1] < 1


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100])
def test_read_mulaw_is_the_same_sound_at_8_khz(tmp_path: Path, rate: int) -> None:
    codes = wav.read_mulaw(write(tmp_path / "a.wav", tone(rate), rate, 2, 1))
    assert abs(len(codes) - 4000) <= 1
    heard = mulaw.decode_float(codes)
    assert levels.dbfs(heard) == pytest.approx(levels.dbfs(tone(8000).astype(np.float32)), abs=0.2)
    assert np.argmax(np.abs(np.fft.rfft(heard[:4000]))) == 220  # 2 Hz a bin


def test_stereo_round_trip_pads_the_shorter_side(tmp_path: Path) -> None:
    left, right = np.arange(100, dtype=np.int16), -np.arange(70, dtype=np.int16)
    wav.write_stereo(tmp_path / "call.wav", left, right, 8000)
    with wave.open(str(tmp_path / "call.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 8000, 100)
        frames = np.frombuffer(file.readframes(100), "<i2").reshape(-1, 2)
    assert np.array_equal(frames[:, 0], left)
    assert np.array_equal(frames[:70, 1], right)
    assert not frames[70:, 1].any()


def test_a_file_cut_off_inside_a_frame_is_still_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.repeat(tone(8000)[:, None], 2, 1), 8000, 2, 2)
    path.write_bytes(path.read_bytes()[:-3])
    samples, _ = wav.read(path)
    assert len(samples) == 3999


def header(*, tag: int = 1, channels: int = 1, rate: int = 8000, bits: int = 16) -> bytes:
    block = max(1, channels * bits // 8)
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", 4) + b"\0" * 4
    return b"RIFF" + struct.pack("<I", len(body)) + body


BAD = {
    "zero-length": b"",
    "text": b"hello, I am not sound\n",
    "no sound": header()[:-8] + struct.pack("<I", 0),
    "header cut off": header()[:20],
    "mu-law": header(tag=7, bits=8),
    "float": header(tag=3, bits=32),
    "no channels": header(channels=0),
    "no rate": header(rate=0),
    "64 bits": header(bits=64),
    "no bits": header(bits=0),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_bad_files_get_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        wav.read_mulaw(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.wav: cannot be read \(No such file"):
        wav.read(tmp_path / "nowhere.wav")
    with pytest.raises(ConfigError, match="directory"):
        wav.read(tmp_path)


def test_unwritable_target(tmp_path: Path) -> None:
    empty = np.zeros(0, np.int16)
    with pytest.raises(ConfigError, match="cannot be written"):
        wav.write_stereo(tmp_path / "no" / "such.wav", empty, empty, 8000)
