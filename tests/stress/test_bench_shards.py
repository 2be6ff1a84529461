"""What the bench of divided threads makes of what the threads spent."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from stress.bench.shards import Run, Side, sentences, table, write

ONE = Side(
    1,
    (
        Run(1, {"io-calls": 0.2, "vad": 0.1, "io-vendors": 0.1, "log": 0.0001}, control_p999=1.5),
        Run(1, {"io-calls": 0.3, "vad": 0.1, "io-vendors": 0.14, "log": 0.0001}, control_p999=2.5),
    ),
)
TWO = Side(
    2,
    (
        Run(2, {"io-calls-1": 0.13, "io-calls-2": 0.12, "vad-1": 0.06, "vad-2": 0.06,
                "io-vendors": 0.125}),
    ),
)  # fmt: skip


def test_what_dividing_costs_and_what_is_the_next_bottleneck() -> None:
    assert sentences(ONE, TWO) == [
        "io-calls: the busiest of 2 has 52 % of the work; all together cost +0 %",
        "vad: the busiest of 2 has 50 % of the work; all together cost +20 %",
        "1 each: the busiest thread is io-calls; its core is full at 400 calls",
        "2 each: the busiest thread is io-calls-1; its core is full at 769 calls",
        "next bottleneck: io-vendors, which is not divided: full at 800 calls",
    ]


def test_the_work_is_divided_evenly_or_it_is_not() -> None:
    assert TWO.even()
    cpu = {"io-calls-1": 0.2, "io-calls-2": 0.05, "vad-1": 0.06, "vad-2": 0.06}
    assert not Side(2, (Run(2, cpu),)).even()


def test_the_table_has_every_thread_that_counts() -> None:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(table([ONE, TWO]))
    rows = [line.rstrip() for line in captured.get().splitlines()]
    assert any(row.startswith("io-calls") and row.endswith("0.130 + 0.120") for row in rows)
    assert any(row.split() == ["io-vendors", "0.120", "0.125"] for row in rows)
    assert any(row.split()[-2:] == ["2.00", "0.00"] for row in rows), "the bare timer's"
    assert not any(row.startswith("log") for row in rows)


def test_the_page_says_the_same(tmp_path: Path) -> None:
    write(tmp_path / "shards.md", [ONE, TWO], 60)
    page = (tmp_path / "shards.md").read_text()
    assert "| io-calls | 0.250 | 0.130 + 0.120 |" in page
    assert "- next bottleneck: io-vendors, which is not divided: full at 800 calls" in page
