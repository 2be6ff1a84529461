"""What the bench of a server's start reads and concludes."""

from __future__ import annotations

from pathlib import Path

import pytest

from stress.bench import start
from threadline.errors import ThreadlineError


def test_when_a_server_listens_is_read_from_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        '{"event": "recogniser ready", "timestamp": "2026-01-01T00:00:01.000+00:00"}\n'
        '{"event": "listening", "timestamp": "1970-01-01T00:01:00.250+00:00"}\n'
    )
    assert start.listening(log) == 60.25
    log.write_text('{"event": "draining", "timestamp": "2026-01-01T00:00:01.000+00:00"}\n')
    with pytest.raises(ThreadlineError, match="did not log"):
        start.listening(log)


@pytest.mark.parametrize(("limit", "status"), [("2", 0), ("1.5", 1)])
def test_the_median_until_ready_is_held_against_the_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], limit: str, status: int
) -> None:
    starts = iter([(0.9, 1.0), (1.0, 1.75), (1.1, 9.0)])
    monkeypatch.setattr(start, "start", lambda: next(starts))
    monkeypatch.setattr(start, "imports", lambda: 0.5)
    assert start.main(["--starts", "3", "--limit", limit]) == status
    said = capsys.readouterr().out
    assert "3.5 times" in said
    assert ("missed" in said) == bool(status)
