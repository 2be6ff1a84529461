"""What the pacer and io-calls ask of the operating system for their own threads.

Each favour is asked for separately and each answer is kept in words, because a container may
grant any subset; nothing here raises. They act on the calling thread (memory: on the process).

A runaway SCHED_FIFO thread starves everything of lower priority. Three things bound ours: it
sleeps in a timerfd read every tick; the kernel keeps 5 % of each second from all such threads
(`kernel.sched_rt_runtime_us`, reported when someone has switched that off); and the priority is
not inherited (SCHED_RESET_ON_FORK), so neither a recogniser nor a thread started later gets it.
RLIMIT_RTTIME is left as it is: it would end the whole process, and with it every call.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

FIFO_PRIORITY = 5  # the pacer's: above every ordinary thread, below the kernel's own
MEDIA_PRIORITY = 4  # of the threads a frame passes on its way, below the clock that drives them
SLACK_NS = 1

_PR_SET_TIMERSLACK = 29
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_RT_RUNTIME = Path("/proc/sys/kernel/sched_rt_runtime_us")


@dataclass(frozen=True, slots=True)
class Favour:
    """One thing asked for, and the answer in words."""

    granted: bool
    detail: str


@dataclass(frozen=True, slots=True)
class RealtimeRights:
    """What the calling thread has from now on."""

    slack: Favour  # timers fire when they are due, not up to 50 us later
    fifo: Favour  # no ordinary thread runs before this one

    @property
    def sentence(self) -> str:
        """Both, for the log."""
        return f"timer slack: {self.slack.detail}; scheduling: {self.fifo.detail}"


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late a thread woke for its ticks, in milliseconds."""

    rights: RealtimeRights
    ticks: int
    missed: int  # ticks that were over before it woke
    p50: float
    p90: float
    max: float


def prepare_thread(fifo: bool = True, priority: int = FIFO_PRIORITY) -> RealtimeRights:
    """Ask for both for the calling thread. Never raises.

    `fifo=False` leaves the scheduling class, to measure what that brings.
    """
    return RealtimeRights(
        slack=_timer_slack(),
        fifo=_sched_fifo(priority) if fifo else Favour(False, "not asked for"),
    )


def lock_memory() -> Favour:
    """Ask that no page of this process is ever swapped out. Never raises.

    For the whole process, once everything is loaded. A page is locked when it is first touched,
    so reservations that are never used cost nothing.
    """
    error = libc_call("mlockall", _MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)
    return Favour(not error, error or "locked")


def measure_lateness(fifo: bool, ticks: int = 50, period_ns: int = 20_000_000) -> Lateness:
    """Tick as the pacer does, in a throwaway thread, for `ticks` times `period_ns`."""
    with ThreadPoolExecutor(1, thread_name_prefix="lateness") as pool:
        return pool.submit(_tick, fifo, ticks, period_ns).result()


def _tick(fifo: bool, ticks: int, period_ns: int) -> Lateness:
    rights = prepare_thread(fifo)
    timer = os.timerfd_create(time.CLOCK_MONOTONIC)
    try:
        start = time.monotonic_ns() + period_ns
        os.timerfd_settime_ns(timer, flags=os.TFD_TIMER_ABSTIME, initial=start, interval=period_ns)
        late, due = [], -1
        while due < ticks - 1:
            due += int.from_bytes(os.read(timer, 8), sys.byteorder)
            late.append((time.monotonic_ns() - start - due * period_ns) / 1e6)
    finally:
        os.close(timer)
    missed = due + 1 - len(late)
    late.sort()
    p50, p90 = late[len(late) // 2], late[len(late) * 9 // 10]
    return Lateness(rights, due + 1, missed, p50, p90, late[-1])


def _timer_slack() -> Favour:
    error = libc_call("prctl", _PR_SET_TIMERSLACK, SLACK_NS, 0, 0, 0)
    return Favour(not error, error or f"{SLACK_NS} ns")


def _sched_fifo(priority: int) -> Favour:
    if not hasattr(os, "sched_setscheduler"):
        return Favour(False, "this system has no SCHED_FIFO")
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError as error:
        return Favour(False, f"SCHED_FIFO refused ({error.strerror})")
    return Favour(True, f"SCHED_FIFO priority {priority}{_unbounded()}")


def _unbounded() -> str:
    """A warning when nothing would stop a runaway thread of this class."""
    try:
        throttled = int(_RT_RUNTIME.read_text()) >= 0
    except OSError, ValueError:
        return ""  # a container that hides it; the host's default throttles
    limited = resource.getrlimit(resource.RLIMIT_RTTIME)[0] != resource.RLIM_INFINITY
    return "" if throttled or limited else ", and kernel.sched_rt_runtime_us=-1 leaves it unbounded"


def libc_call(name: str, *args: int) -> str:
    """Call into libc. Empty when it returned 0, else what went wrong."""
    try:
        call = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError) as error:
        return f"{name} is not available ({error})"
    if call(*(ctypes.c_ulong(arg) for arg in args)) == 0:
        return ""
    return f"{name} refused ({os.strerror(ctypes.get_errno())})"
