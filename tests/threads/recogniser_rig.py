"""A recogniser as the asr thread uses it, with a decoder that does as it is told."""

import errno
import os
import select
import time
from pathlib import Path

import fake_decoder
import numpy as np

from threadline.audio import mulaw
from threadline.threads.asr_process import Recogniser, Result

PATIENCE = 60.0  # seconds, for a machine with other things to do


class Log:
    def __init__(self):
        self.records = []

    def info(self, event, /, **fields):
        self.records.append((event, fields))

    error = info

    def of(self, event):
        return [fields for name, fields in self.records if name == event]


class Owner:
    """What the asr thread does, with a clock that a test can put forward."""

    def __init__(self, options, **keywords):
        self.log = Log()
        self.recogniser = Recogniser(options, self.log, **keywords)
        self.results: list[Result] = []
        self.ahead = 0.0
        self.recogniser.start()

    @property
    def now(self):
        return time.monotonic() + self.ahead

    def turn(self, wait=0.05):
        select.select(self.recogniser.filenos(), [], [], wait)
        self.recogniser.tick(self.now)
        self.results += self.recogniser.collect(self.now)

    def until(self, condition):
        give_up = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < give_up, self.log.records
            self.turn()

    def decode(self, job, audio=b"\xff" * 800, **keywords):
        """Submit as soon as a worker is free, and wait for what becomes of it."""
        self.submit(job, audio, **keywords)
        self.until(lambda: any(result.job == job for result in self.results))
        return next(result for result in self.results if result.job == job)

    def submit(self, job, audio=b"\xff" * 800, **keywords):
        self.until(lambda: self.recogniser.submit(job, audio, self.now, **keywords))


def owning(tmp_path, monkeypatch):
    """Body of a fixture: makes owners of a recogniser with the fake decoder, told what to do by
    deeds."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    fake_decoder.RELEASE.clear()
    owners = []

    def make(*deeds, **keywords):
        for number, deed in enumerate(deeds):
            (tmp_path / f"{number:02}-{deed}").touch()
        keywords = {"decoder": "fake_decoder:Fake", **keywords}
        owners.append(Owner({"folder": str(tmp_path)}, **keywords))
        return owners[-1]

    yield make
    fake_decoder.RELEASE.set()
    for one in owners:
        one.recogniser.close(10)


def gone(pid):
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.ESRCH
    return False  # a zombie counts as there


def tone(hertz, seconds):
    time_axis = np.arange(int(seconds * mulaw.RATE)) / mulaw.RATE
    return mulaw.encode_float(np.sin(2 * np.pi * hertz * time_axis).astype(np.float32) / 2)
