"""When finished turns queue for the recogniser, further callers are turned away."""

import os
import re
import signal
from pathlib import Path

from helpers import until
from serving import House, Line, get, house, quick, recorded

from threadline.config import Asr, Stt
from threadline.models.store import ModelStore

CONFIG = quick(asr=Asr(deadline_seconds=60.0, queue=1), stt=Stt(partials=False))


def greeted(this: House) -> Line:
    line = this.line()
    line.until(lambda: line.replies() == 1, "the greeting")
    return line


def test_a_queue_for_the_recogniser_is_no_room_for_further_calls(
    models: ModelStore, tmp_path: Path
) -> None:
    speech = recorded(models, "I would like a table for two.")
    orders = tmp_path / "orders"
    with house(models, tmp_path, config=CONFIG) as this:
        this.expected = True  # its worker is killed
        lines = [greeted(this) for _ in range(3)]
        (orders / "1-hang").touch()
        for line in lines:
            line.say(speech, this.slot_of(line))
        until((orders / "hanging").exists, "the first decode is under way")
        until(lambda: this.server.asr.queued >= 2, "the others wait")
        until(lambda: "at once" in this.door.strained, "admission notices")
        late = Line(this.address)
        assert late.handshake() == 503
        assert "finished turns wait for the recogniser at once" in late.refusal
        page = re.compile(rb"^threadline_asr_queue [23]", re.MULTILINE)
        until(lambda: page.search(get(this.address, "/metrics")[2]), "the page says so")
        (pid,) = this.server.asr.recogniser.pids
        os.kill(pid, signal.SIGKILL)
        for line in lines:
            line.until(lambda line=line: line.replies() == 2, "an answer")
            line.hang_up()
        until(lambda: this.server.asr.queued == 0, "nobody waits any more")
        page = re.compile(rb"^threadline_asr_shared_total 2", re.MULTILINE)
        until(lambda: page.search(get(this.address, "/metrics")[2]), "two were decoded together")
