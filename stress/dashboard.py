"""Writes deploy/grafana.json: the dashboard, one panel a line of the table below.

    python -m stress.dashboard

A dashboard in Grafana's own JSON is a thousand lines that nobody reviews; this table can be. A
test holds that every metric named here is one that a server shows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

TARGET = Path(__file__).parents[1] / "deploy" / "grafana.json"
_WIDTH, _HEIGHT, _A_ROW = 8, 7, 3


@dataclass(frozen=True, slots=True)
class Panel:
    """A title, its unit in Grafana's names, and its curves: legend and PromQL."""

    title: str
    unit: str
    curves: tuple[tuple[str, str], ...]


def quantiles(metric: str, *shares: float, by: str = "") -> tuple[tuple[str, str], ...]:
    """Curves of a histogram."""
    labels = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return tuple(
        (
            f"p{share * 100:g}{legend}",
            f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket[1m])))",
        )
        for share in shares
    )


def named(legend: str, curves: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    """The only one of these curves, under another name."""
    ((_, query),) = curves
    return legend, query


def rate(metric: str, legend: str = "", by: str = "") -> tuple[str, str]:
    """Curve of a counter, a second."""
    return legend or metric, f"sum{f' by ({by})' if by else ''} (rate({metric}[1m]))"


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Calls",
        (
            Panel(
                "Calls on the line",
                "short",
                (
                    ("calls", "sum(threadline_calls)"),
                    ("limit", "sum(threadline_calls_limit)"),
                ),
            ),
            Panel(
                "Opened and refused",
                "cps",
                (
                    rate("threadline_calls_opened_total", "opened"),
                    rate("threadline_calls_refused_total", "{{reason}}", by="reason"),
                ),
            ),
            Panel(
                "Response: end of speech to first frame",
                "s",
                quantiles("threadline_turn_response_seconds", 0.5, 0.95, 0.99),
            ),
        ),
    ),
    (
        "Turns",
        (
            Panel(
                "Response by stage, median",
                "s",
                quantiles("threadline_turn_stage_seconds", 0.5, by="stage"),
            ),
            Panel(
                "Turns and interruptions",
                "cps",
                (
                    rate("threadline_reply_turns_total", "turns"),
                    rate("threadline_reply_interrupted_total", "interrupted"),
                    rate("threadline_vad_pauses_total", "agent paused"),
                    rate("threadline_vad_resumes_total", "and went on"),
                ),
            ),
            Panel(
                "Fillers",
                "s",
                quantiles("threadline_turn_filler_seconds", 0.5, 0.95),
            ),
        ),
    ),
    (
        "Media",
        (
            Panel(
                "Frame lateness at the socket",
                "s",
                quantiles("threadline_frame_lateness_seconds", 0.5, 0.99, 0.999),
            ),
            Panel(
                "Frame lateness at the clock",
                "s",
                quantiles("threadline_pacer_lateness_seconds", 0.5, 0.99, 0.999),
            ),
            Panel(
                "What went wrong on the media path",
                "cps",
                (
                    rate("threadline_pacer_underruns_total", "underruns"),
                    rate("threadline_pacer_gaps_total", "lost ticks"),
                    rate("threadline_pacer_blocked_ticks_total", "blocked ticks"),
                    rate("threadline_vad_skipped_frames_total", "skipped caller frames"),
                ),
            ),
        ),
    ),
    (
        "Hops",
        (
            Panel(
                "How old a caller's audio is",
                "s",
                quantiles("threadline_frame_age_seconds", 0.5, 0.99, by="hop"),
            ),
            Panel(
                "Audio records in one call's rings, p99",
                "short",
                quantiles("threadline_ring_depth_records", 0.99, by="ring"),
            ),
            Panel(
                "Events that wait for a thread, p99",
                "short",
                quantiles("threadline_inbox_depth_events", 0.99, by="stage"),
            ),
        ),
    ),
    (
        "Reaching the vendors",
        (
            Panel(
                "To a connection, p95",
                "s",
                (
                    named("model", quantiles("threadline_model_acquire_seconds", 0.95)),
                    named("recogniser", quantiles("threadline_stt_connect_seconds", 0.95)),
                    named("voice", quantiles("threadline_tts_vendor_acquire_seconds", 0.95)),
                ),
            ),
            Panel(
                "To the first byte, p95",
                "s",
                (
                    named("model", quantiles("threadline_model_first_token_seconds", 0.95)),
                    named("recogniser", quantiles("threadline_stt_final_seconds", 0.95)),
                    named("voice", quantiles("threadline_tts_vendor_first_audio_seconds", 0.95)),
                ),
            ),
            Panel(
                "Left alone",
                "short",
                (
                    ("model {{model}}", "max by (model) (threadline_model_breaker_open)"),
                    ("recogniser {{kind}}", "max by (kind) (threadline_stt_breaker_open)"),
                    ("voice", "max(threadline_tts_vendor_breaker_open)"),
                ),
            ),
        ),
    ),
    (
        "Vendors",
        (
            Panel(
                "Model: first token and whole answer",
                "s",
                (
                    *quantiles("threadline_model_first_token_seconds", 0.5, 0.95),
                    *quantiles("threadline_model_total_seconds", 0.95),
                ),
            ),
            Panel(
                "Requests and failures",
                "cps",
                (
                    rate("threadline_model_asked_total", "asked"),
                    rate("threadline_model_failed_total", "failed"),
                    rate("threadline_model_cancelled_total", "cancelled"),
                    rate("threadline_stt_failed_total", "recogniser failed"),
                    rate("threadline_tts_vendor_failed_total", "voice failed"),
                ),
            ),
            Panel(
                "Local recognition",
                "s",
                quantiles("threadline_asr_decode_seconds", 0.5, 0.95),
            ),
        ),
    ),
    (
        "Machine",
        (
            Panel(
                "Cores by thread",
                "short",
                (rate("threadline_stage_cpu_seconds_total", "{{stage}}", by="stage"),),
            ),
            Panel(
                "Resident memory",
                "bytes",
                (("resident", "sum(threadline_process_resident_bytes)"),),
            ),
            Panel(
                "Threads and descriptors",
                "short",
                (
                    ("threads", "sum(threadline_process_threads)"),
                    ("descriptors", "sum(threadline_process_fds)"),
                ),
            ),
        ),
    ),
    (
        "Process",
        (
            Panel(
                "The GIL and fallback mode",
                "short",
                (
                    ("GIL on", "max(threadline_gil_enabled)"),
                    ("fallback", "max(threadline_fallback)"),
                ),
            ),
            Panel(
                "Stalls by thread",
                "cps",
                (
                    rate("threadline_stage_slow_total", "{{stage}} busy", by="stage"),
                    rate("threadline_stage_starved_total", "{{stage}} no core", by="stage"),
                ),
            ),
            Panel(
                "Garbage collection and log",
                "short",
                (
                    *quantiles("threadline_gc_pause_seconds", 0.99),
                    rate("threadline_log_dropped_total", "log records lost"),
                ),
            ),
        ),
    ),
)


def dashboard() -> dict[str, object]:
    """The whole of it."""
    panels: list[dict[str, object]] = []
    top = 0
    for title, row in ROWS:
        panels.append({
            "type": "row",
            "title": title,
            "id": len(panels) + 1,
            "gridPos": {"x": 0, "y": top, "w": _WIDTH * _A_ROW, "h": 1},
            "collapsed": False,
            "panels": [],
        })  # fmt: skip
        for place, panel in enumerate(row):
            panels.append(_panel(panel, len(panels) + 1, place * _WIDTH, top + 1))
        top += _HEIGHT + 1
    return {
        "title": "Threadline",
        "uid": "threadline",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
        "panels": panels,
    }


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, object]:
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "type": "timeseries",
        "title": panel.title,
        "id": number,
        "datasource": source,
        "gridPos": {"x": x, "y": y, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(65 + n), "legendFormat": legend, "expr": query, "datasource": source}
            for n, (legend, query) in enumerate(panel.curves)
        ],
    }


def text() -> str:
    """As the file has it."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), "utf-8")
