"""The comparison of the two builds: records, page, saboteurs, and one short run."""

from __future__ import annotations

import gc
import json
import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from stress.bench.tone_server import ToneVoice
from stress.compare import figures, page, saboteurs
from stress.compare.__main__ import main
from stress.compare.measure import BASELINE, Bench, Run
from stress.compare.record import (
    Build,
    Lateness,
    Record,
    Setting,
    interpreter,
    load,
    load_setting,
    machine,
    merged,
    save,
    save_setting,
)
from stress.compare.scenarios import PLACEMENTS, SABOTAGE, broken
from threadline.audio import mulaw
from threadline.errors import ConfigError, Exit
from threadline.models.store import ModelStore
from threadline.observe.histogram import LATENESS_MS, Histogram
from threadline.observe.prometheus import milliseconds, render
from threadline.wire.script import Clip

QUICK = Lateness.of_values([0.2] * 999 + [0.9], LATENESS_MS)
LATE = Lateness.of_values([0.2] * 900 + [40.0] * 90 + [400.0] * 10, LATENESS_MS)
CONTROL = Lateness.of_values([0.04] * 1_000, LATENESS_MS)


def a_record(
    scenario: str, case: str, build: Build, late: Lateness = QUICK, calls: int = 20, **more: float
) -> Record:
    numbers = {"wanted": 3_000.0, "response_p50": 480.0, "response_p95": 500.0,
               "cpu_percent_per_call": 0.5, "phone_silence_ms": 0.0} | more  # fmt: skip
    lateness = {"frame": late, "phone": late, "control": CONTROL}
    on = build == "gil"
    return Record(scenario, case, build, 0, calls, lateness, numbers, (on, on), (0.5, 1.5), 12.0)


def all_records() -> list[Record]:
    """Every case once: with the GIL, only the guard is bad; without, the sum of all is."""
    made = []
    for build in ("free", "gil"):
        for case in SABOTAGE:
            bad = (build, case) in {("gil", "guard"), ("free", "all")}
            silent = 700.0 if bad else 0.0
            late = LATE if bad else QUICK
            made.append(a_record("sabotage", case, build, late, phone_silence_ms=silent))
        for calls in (1, 20, 60):
            late = LATE if build == "gil" and calls == 60 else QUICK
            made.append(a_record("calm", str(calls), build, late, calls))
        for style in ("tutorial", "careful"):
            made.append(a_record("asyncio", f"{style}, none", build, LATE))
        on = build == "gil"
        slow = 1.25 if build == "free" else 1.0
        work = dict.fromkeys(figures.WORK, 100.0 * slow)
        made.append(Record("work", "alone", build, 0, figures=work, gil=(on, on)))
        ring = {f"EventRing.{name}": 400.0 for name in figures.RING}
        made.append(Record("ring", "alone", build, 0, figures=ring, gil=(on, on)))
    for case, (build, *_) in PLACEMENTS.items():
        record = a_record("asr", case, build)
        back = "turned on" in case
        made.append(replace(record, gil=(back, back)) if back else record)
    return made


def a_setting() -> Setting:
    told = interpreter()
    return Setting("quick", "2026-01-31", "abc123", machine(), {"free": told, "gil": told})


# -- records -----------------------------------------------------------------------------------


def test_the_buckets_of_a_metrics_page_give_the_server_s_own_quantiles() -> None:
    histogram = Histogram(LATENESS_MS)
    for value in [0.03] * 50 + [0.7] * 900 + [8.0] * 49 + [150.0]:
        histogram.observe(value)
    text = render([milliseconds("threadline_x_seconds", "Help.", histogram)]).decode()
    late = Lateness.of_page(text, "threadline_x_seconds")
    assert late.counts == histogram.snapshot().counts
    for q in (0.01, 0.5, 0.95, 0.99):
        assert late.quantile(q) == pytest.approx(histogram.quantile(q))
    assert late.quantile(1.0) == math.inf
    assert late.above()[-1] == pytest.approx(1 / 1_000)


def test_values_at_a_bound_belong_below_it_and_infinity_above_all() -> None:
    late = Lateness.of_values([1.0, 1.5, math.inf], (1.0, 2.0))
    assert late.counts == (1, 1, 1)
    assert (late + late).counts == (2, 2, 2)
    assert math.isnan(Lateness((1.0,), (0, 0)).quantile(0.5))
    with pytest.raises(ValueError, match="other buckets"):
        late + QUICK


def test_a_record_comes_back_from_its_file_and_a_repetition_replaces_it(tmp_path: Path) -> None:
    first = a_record("sabotage", "all but stops", "gil", LATE)
    other = a_record("sabotage", "all but stops", "free")
    save(tmp_path, first)
    save(tmp_path, other)
    save(tmp_path, first)
    save_setting(tmp_path, a_setting())
    assert sorted(load(tmp_path), key=lambda record: record.build) == [other, first]
    assert load_setting(tmp_path) == a_setting()
    total = merged([first, other], "frame")
    assert total is not None
    assert total.count == LATE.count + QUICK.count


def test_a_folder_without_runs_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="just compare"):
        load(tmp_path)


def test_the_command_wants_both_builds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "calm"]) == 2
    assert "./justw compare" in capsys.readouterr().err


# -- judgement ---------------------------------------------------------------------------------


def test_each_part_of_the_service_level_can_break_it() -> None:
    single = a_record("calm", "1", "free", calls=1)
    assert broken(a_record("calm", "60", "free"), single) == []
    assert broken(a_record("calm", "60", "free", LATE), single) == ["late frames"]
    for figure, value, word in (
        ("pacer_underruns", 1.0, "underruns"),
        ("response_p95", 601.0, "slow responses"),
        ("dropped", 1.0, "lost calls"),
    ):
        record = a_record("calm", "60", "free")
        record.figures[figure] = value
        assert broken(record, single) == [word]


def test_the_winner_is_named_by_what_callers_missed_and_noise_names_none() -> None:
    duels = {duel.what: duel.winner for duel in figures.duels(all_records())}
    assert duels["frame lateness beside PII guard in pure Python"] == "free"
    assert duels["frame lateness beside all of them"] == "gil"
    assert duels["frame lateness beside log flood"] is None
    assert duels["PII guard, one chunk (pure Python)"] == "gil"
    assert duels["EventRing: push + pop, one thread"] is None


def test_a_bare_timer_that_was_as_late_excuses_its_server() -> None:
    records = [a_record("sabotage", "none", "free", LATE), a_record("sabotage", "none", "gil")]
    (duel,) = figures.duels(records)[:1]
    assert duel.winner == "gil"
    records[0].lateness["control"] = Lateness.of_values([90.0] * 1_000, LATENESS_MS)
    records[0].lateness["frame"] = Lateness.of_values([80.0] * 1_000, LATENESS_MS)
    (duel,) = figures.duels(records)[:1]
    assert duel.winner is None


def test_the_most_calls_are_those_before_the_step_that_broke() -> None:
    assert figures.most_calls(all_records(), "free") == (60, 0)
    assert figures.most_calls(all_records(), "gil") == (20, 60)


# -- the page ----------------------------------------------------------------------------------


def test_the_page_is_made_of_the_records_alone(tmp_path: Path) -> None:
    page.write(tmp_path, all_records(), a_setting())
    text = (tmp_path / "compare.md").read_text()
    parts = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    assert "PII guard in pure Python: p99.9 > 100 ms" not in parts["Where free-threading loses"]
    assert "beside PII guard in pure Python" in parts["Where free-threading wins"]
    assert "beside all of them" in parts["Where free-threading loses"]
    assert "125.0 ms against 100.0 ms" in parts["Where free-threading loses"]
    assert "3.14t kept the service level with 60 calls and did not break" in text
    assert "3.14 GIL kept the service level with 20 calls and broke at 60" in text
    assert len(re.findall(r"^\| log flood \|", parts["Sabotage"], re.M)) == 2
    assert "but for: 3.14t, thread, GIL turned on by the recogniser." in parts["Noise"]
    assert "abc123" in parts["On what"]
    pictures = re.findall(r"\]\((.*?\.png)\)", text)
    assert len(pictures) == 4
    for name in pictures:
        assert 10_000 < (tmp_path / name).stat().st_size < 200_000


def test_a_page_of_some_runs_has_only_their_sections(tmp_path: Path) -> None:
    some = [record for record in all_records() if record.scenario == "asr"]
    page.write(tmp_path, some, a_setting())
    text = (tmp_path / "compare.md").read_text()
    assert "## The recogniser" in text
    assert "## Sabotage" not in text
    assert [file.name for file in tmp_path.glob("*.png")] == ["compare-asr.png"]


def test_every_table_has_a_cell_for_each_heading() -> None:
    for section in figures.sections(all_records()):
        assert section.rows
        assert {len(row) for row in section.rows} == {len(section.headings)}, section.key


# -- saboteurs ---------------------------------------------------------------------------------


def test_a_saboteur_that_fails_ends_the_server() -> None:
    """Else a calm run would be measured as a sabotaged one."""
    script = (
        "import time; from stress.compare.saboteurs import Saboteur, start;"
        "start([Saboteur(0.1, lambda: 1 / 0)]); time.sleep(60)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, timeout=30, check=False
    )
    assert done.returncode == Exit.CRASH
    assert b"ZeroDivisionError" in done.stderr


def test_the_guard_finds_what_it_looks_for() -> None:
    clean = saboteurs.redact("a\tb \uff11 " + saboteurs.PII)
    assert clean == "a b 1 My card is ***, not 4111 1111 1111 1112; write to ***. "


def test_each_saboteur_does_its_work() -> None:
    said: list[int] = []
    made = dict(
        zip(
            saboteurs.NAMES,
            saboteurs.make(saboteurs.NAMES, lambda number, _: said.append(number)),
            strict=True,
        )
    )
    assert made["guard"].work() == saboteurs.redact(saboteurs.PII * 12)
    made["logs"].work()
    made["logs"].work()
    assert said == list(range(200))
    rows = made["json"].work()
    assert len(json.dumps(rows)) >= 5_000_000
    numbers = made["sort"].work()
    assert isinstance(numbers, list)
    assert len(numbers) == 400_000
    assert all(a <= b for a, b in pairwise(numbers))
    scanned: list[str] = []

    def note(phase: str, info: dict[str, int]) -> None:
        scanned.append(phase)

    gc.callbacks.append(note)
    try:
        made["collect"].work()
    finally:
        gc.callbacks.remove(note)
    assert scanned == ["start", "stop"]
    before = sys.getrecursionlimit()
    made["stop"].work()
    assert sys.getrecursionlimit() == before + 1
    made["stop"].work()
    assert sys.getrecursionlimit() == before


@pytest.mark.parametrize("name", ["guard", "json", "sort"])
def test_a_heavy_saboteur_takes_the_processor(name: str) -> None:
    (one,) = saboteurs.make([name], lambda *_: None)
    before = time.thread_time()
    one.work()
    assert time.thread_time() - before > 0.005  # a quarter of what the fastest machine needs


def test_saboteurs_work_in_threads_of_their_own_again_and_again() -> None:
    done = threading.Semaphore(0)
    workers: set[int] = set()

    def work() -> None:
        workers.add(threading.get_ident())
        done.release()

    threads = saboteurs.start([saboteurs.Saboteur(0.001, work), saboteurs.Saboteur(60.0, work)])
    for _ in range(20):
        assert done.acquire(timeout=10)
    assert workers == {thread.ident for thread in threads}


# -- one run -----------------------------------------------------------------------------------


@pytest.fixture
def kept(models: ModelStore) -> list[Record]:
    return []


@pytest.fixture
def bench(kept: list[Record], tmp_path: Path) -> Bench:
    """Both builds are this one."""
    from stress.bench.phone import spoken, voice

    line: Clip = spoken(voice(), "A table for four, please.", "hum")
    keep: Callable[[Record], None] = kept.append
    return Bench({"free": sys.executable, "gil": sys.executable}, line, tmp_path, keep)


@pytest.mark.long
def test_a_run_measures_every_frame_of_a_sabotaged_server(bench: Bench, kept: list[Record]) -> None:
    record = bench.run(Run("sabotage", "logs", "free", 2, flags=("--sabotage", "logs,stop")))
    assert kept == [record]
    assert record.lateness["frame"].count == 500
    assert record.lateness["phone"].count == 500
    assert record.lateness["control"].count > 500
    assert record.figures["decodes"] >= 2
    assert record.figures["log_dropped"] > 0
    assert record.figures["unanswered"] == 0
    on = sys._is_gil_enabled()
    assert record.gil == (on, on)


@pytest.mark.long
@pytest.mark.parametrize("style", ["tutorial", "careful"])
def test_the_baseline_answers_the_same_calls(bench: Bench, style: str) -> None:
    run = Run("asyncio", style, "free", 2, module=BASELINE, flags=("--style", style))
    record = bench.run(run)
    assert record.figures["frames"] > 100  # the tutorial loses some where the machine is busy
    assert record.figures["unanswered"] == record.figures["dropped"] == 0
    assert record.lateness["phone"].count > 100
    assert "frame" not in record.lateness


def test_the_baseline_hums_what_the_server_hums() -> None:
    wave = ToneVoice().synthesize("Tone 3 part 0.")
    assert len(mulaw.encode_float(wave)) == 250 * 160
