"""The tone server, writing down when each frame was due and when it was sent. Run by `spread.py`.

    python -m stress.bench.spread_server FILE FLAGS...

Its greeting is the answer: every call hears twenty seconds of tone from its begin. FILE gets pairs
of int64 once it has ended: a frame's deadline and when its write had returned, monotonic ns.
"""

from __future__ import annotations

import sys
import time
from array import array
from pathlib import Path

from threadline.threads.calls import Call
from threadline.threads.connection import Leg

from .tone_server import SECONDS, Humming, serve

GREETING = " ".join(f"Tone 0 part {part}." for part in range(SECONDS // 5))


def main() -> int:
    times = array("q")  # io-calls' alone
    send = Leg._send

    def timed(leg: Leg, call: Call, clause: int, flags: int, stamp: int, payload: bytes) -> None:
        send(leg, call, clause, flags, stamp, payload)
        leg._flush()  # as `pump` does a moment later
        if payload:
            times.extend((stamp, time.monotonic_ns()))

    setattr(Leg, send.__name__, timed)  # the product counts, it does not remember
    ended = serve(sys.argv[2:], Humming(GREETING))
    Path(sys.argv[1]).write_bytes(times.tobytes())
    return ended


if __name__ == "__main__":
    sys.exit(main())
