"""The recogniser, kept out of this process or not: starts, feeds, watches and replaces workers.

Used by one thread, `asr`, which alone owns everything here: no locks. It polls `filenos`, calls
`start` once, `tick` when `next_deadline` is due and `collect` when something is readable. `now` is
`time.monotonic()`, in seconds. The system ends a worker process together with the thread that
started it.

A worker runs `asr_worker.recognise_forever`, in a child process or in a thread called
`asr-decode`; the loop and the messages are the same. Native code that crashes or hangs in a child
costs one attempt: the child is replaced, and its utterance is tried once more while its deadline
allows. A thread cannot be killed; one that hangs gets no further job until it answers.

A worker takes up to `TOGETHER` jobs in one run. When that run ends badly each of them is tried
again alone, so that nobody pays twice for another's utterance.

Audio travels in a memfd that parent and children map. It has `TOGETHER` rooms per worker, of which
a job keeps its own until it is answered, through a retry on another worker too. It has no name, so
nothing is left behind however the processes end.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Buffer, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from ..audio import mulaw
from ..listening.agreement import Word
from .asr_lives import BACKOFF_SECONDS, Job, Worker, Workplace
from .gil import Placement

WHISPER = "threadline.models.whisper:WhisperDecoder"
ROOM = 30 * mulaw.RATE  # bytes of one job's audio; longer utterances are cut here
TOGETHER = 2  # jobs in one run: more hardly cost less, and each waits for all
ATTEMPTS = 2  # of one job: the first and one retry
START_SECONDS = 60.0  # for a worker to load its model


class Log(Protocol):
    """What is needed of a logger."""

    def info(self, event: str, /, **fields: object) -> object:
        """A thing that happened."""

    def error(self, event: str, /, **fields: object) -> object:
        """A thing somebody should look at."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one job ended."""

    job: int
    text: str | None  # None: not recognised, and `reason` says why
    reason: str = ""
    seconds: float = 0.0  # spent decoding, in the attempt that answered
    attempts: int = 1
    cut: bool = False  # the audio was longer than `ROOM`
    words: Sequence[Word] = ()  # with their times, if they were asked for


class Recogniser:
    """`workers` decoders behind one small interface. One owner thread; nothing here blocks.

    `decoder` is `package.module:callable`, called in the worker with `options` (JSON values) as
    keywords. `deadline_seconds` is what a job gets when `submit` names no deadline.
    """

    def __init__(
        self,
        options: Mapping[str, object],
        log: Log,
        *,
        decoder: str = WHISPER,
        workers: int = 1,
        placement: Placement = "process",
        deadline_seconds: float = 8.0,
    ) -> None:
        self.failed = ""  # why no worker could start; empty once one is ready
        self.restarts = 0
        self.placement = placement  # any thread may store "process": threads are then replaced
        self._deadline_seconds = deadline_seconds
        self._log = log
        self._jobs: list[Job] = []  # in flight; at most `TOGETHER` per worker
        self._again: deque[Job] = deque()  # those of them that wait for another worker
        self._results: list[Result] = []
        self._unreaped: list[subprocess.Popen[bytes]] = []
        self._poll = select.epoll()
        self._fd = os.memfd_create("threadline-asr", os.MFD_CLOEXEC)
        self._rooms = workers * TOGETHER
        os.ftruncate(self._fd, self._rooms * ROOM)
        self._arena = mmap.mmap(self._fd, self._rooms * ROOM)
        place = Workplace(decoder, dict(options), self._fd, self._poll)
        self._workers = [Worker(place) for _ in range(workers)]

    # -- what the asr thread calls -----------------------------------------------------------

    def start(self) -> None:
        """Start the workers. They load their model meanwhile; `ready` tells when one has."""
        self.tick(time.monotonic())

    def submit(
        self,
        job: int,
        audio: Buffer,
        now: float,
        deadline: float | None = None,
        *,
        words: bool = False,
    ) -> bool:
        """Decode this mu-law audio, to be answered by `deadline`. False: no worker is free.

        The audio is copied before this returns. `job` must not be in flight already. `words`: the
        times of each word are wanted, too.
        """
        if deadline is None:
            deadline = now + self._deadline_seconds
        return self.submit_together([(job, audio, deadline)], now, words=words)

    def submit_together(
        self, orders: Sequence[tuple[int, Buffer, float]], now: float, *, words: bool = False
    ) -> bool:
        """The same of up to `TOGETHER` jobs, each with its audio and its deadline, in one run."""
        self._dispatch(now)
        worker = self._idle()
        if worker is None:
            return False
        jobs = [self._house(*order, words) for order in orders]
        self._send(worker, jobs, now)
        return True

    def collect(self, now: float) -> list[Result]:
        """Whatever has ended since the last call. Never blocks."""
        for worker in self._workers:
            self._hear(worker, now)
        self._dispatch(now)
        results, self._results = self._results, []
        return results

    def tick(self, now: float) -> None:
        """Start the workers that are due, end what is past its deadline; `collect` then tells."""
        self._unreaped = [process for process in self._unreaped if process.poll() is None]
        for job in [job for job in self._jobs if job.deadline <= now]:
            self._finish(job, None, "not recognised before its deadline")
        for worker in self._workers:
            if any(job not in self._jobs for job in worker.jobs):
                self._give_up(worker, now)
            elif worker.state == "starting" and worker.due <= now:
                self._end(worker, now, f"it was not ready after {START_SECONDS:g} s")
            elif worker.state == "down" and worker.due <= now:
                self._start(worker, now)
            elif self._leaves(worker) and worker.state in ("idle", "stuck"):
                self._log.info("recogniser moves to a process of its own")
                worker.forget()  # which ends the thread, unless it hangs
                self._start(worker, now)

    def next_deadline(self) -> float | None:
        """When `tick` has something to do. None: not before something is readable."""
        times = [job.deadline for job in self._jobs]
        times += [worker.due for worker in self._workers if worker.state in ("down", "starting")]
        return min(times, default=None)

    def filenos(self) -> tuple[int, ...]:
        """What to poll for reading: the same for as long as this recogniser lives."""
        return (self._poll.fileno(),)

    @property
    def ready(self) -> bool:
        """Some worker has its model loaded."""
        return any(worker.state in ("idle", "busy") for worker in self._workers)

    @property
    def idle(self) -> int:
        """Workers that would take a job now."""
        return sum(worker.state == "idle" and not self._leaves(worker) for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers; none for those that are threads."""
        return [worker.process.pid for worker in self._workers if worker.process]

    def close(self, timeout: float) -> None:
        """End the workers within about `timeout` seconds: politely, then SIGTERM, then SIGKILL.

        Blocks. A thread that hangs is left behind; it is a daemon. Call it once, last.
        """
        began = time.monotonic()
        for worker in self._workers:
            if worker.sock:
                with suppress(OSError):
                    worker.sock.shutdown(socket.SHUT_RDWR)
            if worker.process and worker.state == "starting":  # deaf until its model is loaded
                worker.process.terminate()
        for share, number in ((0.5, signal.SIGTERM), (0.8, signal.SIGKILL), (1.0, None)):
            until = began + share * timeout
            for process in (*self._unreaped, *(w.process for w in self._workers if w.process)):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.01, until - time.monotonic()))
                if process.returncode is None and number is not None:
                    process.send_signal(number)
        for worker in self._workers:
            if worker.thread:
                worker.thread.join(max(0.0, began + timeout - time.monotonic()))
            worker.forget()
        self._poll.close()
        self._arena.close()
        os.close(self._fd)

    # -- jobs --------------------------------------------------------------------------------

    def _idle(self) -> Worker | None:
        idle = (worker for worker in self._workers if worker.state == "idle")
        return next((worker for worker in idle if not self._leaves(worker)), None)

    def _leaves(self, worker: Worker) -> bool:
        """A thread that is to become a process: it takes no further job."""
        return worker.thread is not None and self.placement == "process"

    def _house(self, number: int, audio: Buffer, deadline: float, words: bool) -> Job:
        """Put a job's audio into a room. There is one: whoever is idle has left its own."""
        assert all(number != job.job for job in self._jobs), f"job {number} is in flight already"
        taken = {job.room for job in self._jobs}
        room = next(room for room in range(self._rooms) if room not in taken)
        with memoryview(audio).cast("B") as codes:
            length = min(len(codes), ROOM)
            self._arena[room * ROOM : room * ROOM + length] = codes[:length]
            job = Job(number, room, length, len(codes) > length, deadline, words)
        self._jobs.append(job)
        return job

    def _dispatch(self, now: float) -> None:
        """Retries go first, and alone."""
        while self._again and (worker := self._idle()):
            self._send(worker, [self._again.popleft()], now)

    def _send(self, worker: Worker, jobs: list[Job], now: float) -> None:
        worker.state, worker.jobs, worker.owed = "busy", jobs, len(jobs)
        for job in jobs:
            job.attempts += 1
        places = [(job.job, job.room * ROOM, job.length) for job in jobs]
        try:
            worker.send({"jobs": places, "words": jobs[0].words})
        except OSError as error:  # it died idle, and nobody has looked yet
            self._end(worker, now, f"it took no job ({error.strerror})")

    def _finish(
        self,
        job: Job,
        text: str | None,
        reason: str = "",
        seconds: float = 0.0,
        words: Sequence[Word] = (),
    ) -> None:
        self._jobs.remove(job)
        if job in self._again:
            self._again.remove(job)
        self._results.append(Result(job.job, text, reason, seconds, job.attempts, job.cut, words))

    def _give_up(self, worker: Worker, now: float) -> None:
        """A job of it is past the deadline and it is still at it."""
        if worker.process:
            self._end(worker, now, "it did not answer before the deadline")
        else:
            worker.state = "stuck"
            self._try_again(worker)

    # -- workers -----------------------------------------------------------------------------

    def _start(self, worker: Worker, now: float) -> None:
        worker.state, worker.due = "starting", now + START_SECONDS
        try:
            worker.start(self.placement)
        except (OSError, RuntimeError) as error:  # out of processes, threads or descriptors
            self._end(worker, now, f"it could not be started ({error})")

    def _hear(self, worker: Worker, now: float) -> None:
        """Take a worker's messages, and what it printed, for as long as it lives."""
        while worker.sock:
            message = worker.receive()
            if message is None:
                return
            if not message:
                self._end(worker, now, "it ended")
            elif not self._take(worker, message):
                self._end(worker, now, "it sent a message that makes no sense")

    def _take(self, worker: Worker, message: bytes) -> bool:
        """One message. False when a sound worker would not have sent it."""
        try:
            match json.loads(message):
                case {"ready": float(seconds)} if worker.state == "starting":
                    worker.state, self.failed = "idle", ""
                    self._log.info("recogniser ready", pid=worker.pid, seconds=seconds)
                case {"failed": str(sentence)} if worker.state == "starting":
                    self.failed = sentence
                case {"job": _} if worker.state == "stuck":  # late, but alive
                    worker.owed -= 1
                    worker.state = "stuck" if worker.owed else "idle"
                case {
                    "job": int(job),
                    "text": str() | None as text,
                    "words": list(words),
                    "error": str(error),
                    "seconds": float(seconds),
                } if found := [one for one in worker.jobs if one.job == job]:
                    timed = [_word(word) for word in words]
                    self._answered(worker, found[0], text, error, seconds, timed)
                case _:
                    return False
        except ValueError, RecursionError:  # not UTF-8, not JSON, or nested without end
            return False
        return True

    def _answered(
        self,
        worker: Worker,
        job: Job,
        text: str | None,
        error: str,
        seconds: float,
        words: Sequence[Word],
    ) -> None:
        worker.jobs.remove(job)
        worker.owed -= 1
        worker.state, worker.backoff = "busy" if worker.jobs else "idle", BACKOFF_SECONDS[0]
        if text is None:
            self._log.error("utterance not decoded", reason=error, said=worker.said)
        worker.tail.clear()
        self._finish(job, text, error, seconds, words)

    def _end(self, worker: Worker, now: float, why: str) -> None:
        """A worker is dead or as good as: bury it, say so once, replace it after a pause."""
        if not worker.kill() and worker.process:
            self._unreaped.append(worker.process)
        worker.read_output()
        self._log.error(
            "recogniser worker ended",
            why=why,
            pid=worker.pid,
            status=worker.process and worker.process.returncode,
            again_in=worker.backoff,
            said=worker.said,
        )
        if worker.state == "starting":
            self.failed = self.failed or f"The recogniser cannot start: {why}."
        self._try_again(worker)
        worker.forget()
        self.restarts += 1
        worker.due = now + worker.backoff
        worker.backoff = min(2 * worker.backoff, BACKOFF_SECONDS[1])

    def _try_again(self, worker: Worker) -> None:
        """What it was at, as far as there is time: once more, by whoever is free."""
        jobs, worker.jobs = worker.jobs, []
        for job in jobs:
            if job in self._jobs and job.attempts < ATTEMPTS:
                self._again.append(job)
            elif job in self._jobs:
                self._finish(job, None, "the recogniser crashed on it twice")


def _word(message: object) -> Word:
    """One word of a worker's answer. Raises ValueError when it is none."""
    match message:
        case [str(text), float(start), float(end)]:
            return Word(text, start, end)
    raise ValueError("not a word with its times")
