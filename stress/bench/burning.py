"""An agent whose first callers' tool burns a core; the other callers' answers at once.

threadline serve stress.bench.burning:agent --llm openai
"""

from __future__ import annotations

import threading
import time

from threadline.agent import Agent, CallInfo

BURNERS = 2
PIECE_SECONDS, SECONDS = 0.2, 9.0  # of pure Python, without a pause between two pieces

agent = Agent(instructions="Look it up, then answer.", greeting="")
_first: list[str] = []
_lock = threading.Lock()


@agent.tool
def look_up(call: CallInfo) -> str:
    """Look it up."""
    with _lock:
        if len(_first) < BURNERS and call.call_id not in _first:
            _first.append(call.call_id)
    if call.call_id in _first:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            burn(PIECE_SECONDS)
    return "It is there."


def burn(seconds: float) -> int:
    """Nothing but bytecode."""
    end, found = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for number in range(2_000):
            found += number * number % 7 == 3
    return found
