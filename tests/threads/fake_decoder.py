"""A decoder that does as it is told, by files, so that a child process can be told too.

Each file `<n>-<deed>` in the folder is one order; the lowest is taken and removed. With none
left it "hears" what it was given: the number of samples and the loudest frequency.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from threadline.listening.agreement import Word
from threadline.threads.asr_worker import Decoder

RELEASE = threading.Event()  # ends a "hold" in a decoder that is a thread of the test


class Fake(Decoder):
    together = 1

    def __init__(self, folder):
        self.folder = Path(folder)
        if (self.folder / "refuse").exists():
            raise ValueError("the model is made of cheese")
        if (self.folder / "die").exists():
            print("last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if (self.folder / "sleep").exists():
            time.sleep(1000)

    def _order(self):
        for name in sorted(path.name for path in self.folder.glob("*-*")):
            try:
                (self.folder / name).unlink()
            except FileNotFoundError:
                continue  # another worker took it
            return name.partition("-")[2]
        return ""

    def decode(self, audio):
        match self._order():
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                (self.folder / "hanging").touch()
                time.sleep(1000)
            case "deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                (self.folder / "hanging").touch()
                time.sleep(1000)
            case "hold":
                RELEASE.wait(60)
            case "garbage":
                os.write(json.loads(sys.argv[1])["sock"], b"\xff\xfe not a message")
            case "stale":
                os.write(json.loads(sys.argv[1])["sock"], b'{"job": 999, "text": "old"}')
            case "raise":
                raise RuntimeError("no words for this")
            case "noise":
                print("x" * 1_000_000)
            case "outcry":
                print("x" * 1_000_000 + "the end", flush=True)
                raise RuntimeError
            case order if order.startswith("say "):
                return SimpleNamespace(text=order.removeprefix("say "))
            case "count":
                (self.folder / "together").write_text(str(self.together))
            case "mute":
                os.close(1)
                os.close(2)
        spectrum = np.abs(np.fft.rfft(audio))
        loudest = int(spectrum.argmax()) * 16_000 / max(1, len(audio))
        return SimpleNamespace(text=f"{len(audio)} {loudest:.0f}")

    def decode_many(self, audios):
        self.together = len(audios)
        return super().decode_many(audios)

    def decode_words(self, audio):
        """A word a second, each said in half of it."""
        text = self.decode(audio).text
        words = [Word(word, float(at), at + 0.5) for at, word in enumerate(text.split())]
        return SimpleNamespace(text=text, words=words)
