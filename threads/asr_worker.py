"""Where utterances are decoded: one loop, run as a process of its own or as a thread.

Wakes on: its end of a SOCK_SEQPACKET socket pair; one small JSON message is one job or answer.
Owns: the decoder. Reads: the arena, a memfd it maps read-only, where the owner puts mu-law
audio before it sends the job. Writes: answers to the socket, nothing else.

Owner to worker   {"jobs": [[7, 240000, 16000]], "words": false}   number, place and length;
                  several are decoded together, none of them with its words
Worker to owner   {"ready": 0.9}   seconds it took to load the decoder, sent first and once
                  {"failed": "..."}   the decoder cannot be loaded; the worker ends
                  {"job": 7, "text": "...", "words": [], "error": "", "seconds": 0.4}
                  for each job; text null on an error; words, where asked for, as
                  ["for", 0.1, 0.3], in s; seconds: its share

The end of the socket ends the loop. A process also ends with the thread that started it.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import mmap
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..audio import mulaw
from ..audio.stream import Resampler
from ..errors import ThreadlineError
from ..listening.agreement import Word
from .realtime import libc_call

MODEL_RATE = 16_000  # Hz, what the decoder takes
MAX_MESSAGE = 65_536
MAX_TEXT = 8_000  # characters; the longest utterance holds a tenth of that
MAX_WORDS = 256  # with their times; the same
MAX_WORD = 100  # characters
NICENESS = 5  # media threads win

_PR_SET_PDEATHSIG = 1


class Heard(Protocol):
    """What a decoder returns."""

    @property
    def text(self) -> str:
        """The words."""

    @property
    def words(self) -> Sequence[Word]:
        """Each with its times; empty unless they were asked for."""


class Decoder(Protocol):
    """What a decoder is."""

    def decode(self, audio: NDArray[np.float32], /) -> Heard:
        """Words in float32[n] at 16 kHz, in [-1, 1)."""

    def decode_words(self, audio: NDArray[np.float32], /) -> Heard:
        """The same with the times of each word."""
        return self.decode(audio)

    def decode_many(self, audios: Sequence[NDArray[np.float32]], /) -> Sequence[Heard]:
        """The same of several, in their order."""
        return [self.decode(audio) for audio in audios]


def find_maker(spec: str) -> Callable[..., Decoder]:
    """The callable that `package.module:name` names; called with the options, it loads."""
    module, _, name = spec.partition(":")
    maker: Callable[..., Decoder] = getattr(importlib.import_module(module), name)
    return maker


def recognise_forever(
    sock: socket.socket, arena_fd: int, spec: str, options: dict[str, object]
) -> bool:
    """Load the decoder, then answer jobs until the socket ends. Closes the socket.

    False when the decoder could not be loaded. An exception in the decoder is the answer to its
    job; a peer that is gone ends the loop.
    """
    gone = suppress(BrokenPipeError, ConnectionResetError)
    with sock, gone, mmap.mmap(arena_fd, 0, access=mmap.ACCESS_READ) as arena:
        began = time.perf_counter()
        try:
            decoder = find_maker(spec)(**options)
        except Exception as error:  # noqa: BLE001  # a library's; told to the owner as a sentence
            _send(sock, failed=_sentence(error))
            return False
        _send(sock, ready=time.perf_counter() - began)
        while message := sock.recv(MAX_MESSAGE):
            order = json.loads(message)
            codes = {job: arena[at : at + length] for job, at, length in order["jobs"]}
            together = _decode_together(decoder, codes) if len(codes) > 1 else {}
            hear = decoder.decode_words if order["words"] else decoder.decode
            for job, sound in codes.items():
                answer = together.get(job) or _decode(hear, sound, timed=order["words"])
                _send(sock, job=job, **answer)
    return True


def _decode_together(decoder: Decoder, codes: Mapping[int, bytes]) -> dict[int, dict[str, object]]:
    """The answers to several jobs. None of them when that fails: each is then tried by itself."""
    began = time.perf_counter()
    sounds = {job: _for_model(sound) for job, sound in codes.items() if sound}
    try:
        heard = decoder.decode_many(list(sounds.values()))
        texts = [one.text[:MAX_TEXT] for one in heard]
    except Exception:  # noqa: BLE001  # a library's; it is told of the one whose fault it was
        return {}
    share = (time.perf_counter() - began) / len(codes)
    return {
        job: {"text": text, "words": [], "error": "", "seconds": share}
        for job, text in zip(sounds, texts, strict=True)
    }


def _decode(
    hear: Callable[[NDArray[np.float32]], Heard], codes: bytes, *, timed: bool
) -> dict[str, object]:
    began = time.perf_counter()
    text, words, reason = None, [], ""
    try:
        heard = hear(_for_model(codes)) if codes else None
        text = heard.text[:MAX_TEXT] if heard else ""
        if heard and timed:
            words = [
                (word.text[:MAX_WORD], float(word.start), float(word.end))
                for word in heard.words[:MAX_WORDS]
            ]
    except Exception as error:  # noqa: BLE001  # one utterance is lost, not the worker
        text, reason = None, _sentence(error)
    seconds = time.perf_counter() - began
    return {"text": text, "words": words, "error": reason, "seconds": seconds}


def _for_model(codes: bytes) -> NDArray[np.float32]:
    resampler = Resampler(mulaw.RATE, MODEL_RATE)
    return np.concatenate([resampler.feed(mulaw.decode_float(codes)), resampler.finish()])


def _send(sock: socket.socket, **message: object) -> None:
    sock.sendall(json.dumps(message).encode())


def _sentence(error: Exception) -> str:
    if isinstance(error, ThreadlineError):
        return str(error)
    traceback.print_exception(error)  # a process: into the owner's one log record
    return f"{type(error).__name__}: {error}"[:500]


def main() -> int:
    """Body of the process. Its one argument is JSON: sock, arena, decoder, options, parent."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text("asr-decode")  # its name in top
    order = json.loads(sys.argv[1])
    libc_call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != order["parent"]:
        return 0  # it died before it could be heard
    faulthandler.enable()  # a crash in native code says where, on stderr
    os.nice(NICENESS)
    with socket.socket(fileno=order["sock"]) as sock:
        loaded = recognise_forever(sock, order["arena"], order["decoder"], order["options"])
    return 0 if loaded else 1


if __name__ == "__main__":
    sys.exit(main())
