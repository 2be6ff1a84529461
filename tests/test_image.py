"""`Dockerfile.nogil` and the rest of the repository agree. `just image` shows that it builds."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile.nogil").read_text()


def test_the_image_has_the_python_that_is_tested() -> None:
    justw = (ROOT / "justw").read_text()
    for argument, variable in (("PYTHON_VERSION", "version"), ("PYTHON_SHA256", "source_sha256")):
        (ours,) = re.findall(rf"^ARG {argument}=(\S+)$", DOCKERFILE, re.MULTILINE)
        assert re.search(rf"^{variable}={ours}$", justw, re.MULTILINE), argument


def test_all_that_is_copied_is_sent_to_the_build() -> None:
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY ([^-]\S*) \S+$", DOCKERFILE, re.MULTILINE)
    assert {f"!{path}" for path in copied} == {line for line in sent if line.startswith("!")}
    assert sent[1] == "*"
    assert all((ROOT / path).exists() for path in copied)


def test_the_server_is_not_root_and_may_not_start_with_the_gil() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER \d+:\d+$", last, re.MULTILINE)
    assert "THREADLINE_START_WITH_GIL=false" in last
