"""Waiting for another thread or process, always with an end."""

from __future__ import annotations

import time
from collections.abc import Callable

from threadline.errors import ThreadlineError


def until(condition: Callable[[], object], what: str, seconds: float) -> None:
    """Ask twenty times a second. ThreadlineError when it takes longer."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise ThreadlineError(f"Not within {seconds:g} s: {what}.")
        time.sleep(0.05)
