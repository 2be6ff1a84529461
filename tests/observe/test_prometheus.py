import gc

import pytest
from prometheus_client.parser import text_string_to_metric_families

from threadline.observe.histogram import LATENESS_MS, Histogram
from threadline.observe.prometheus import (
    CONTENT_TYPE,
    Sample,
    added,
    counter,
    milliseconds,
    render,
)


def parse(page):
    """{(name, labels): value} of every line, by Prometheus's own parser."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def calls(leg="twilio", value=3.0):
    return Sample("threadline_calls_total", "Calls.", "counter", {"leg": leg}, value)


def test_counters_and_gauges():
    page = render([calls(), Sample("threadline_rss_bytes", "Memory.", "gauge", {}, 1.5)])
    assert parse(page) == {
        ("threadline_calls_total", (("leg", "twilio"),)): 3.0,
        ("threadline_rss_bytes", ()): 1.5,
    }
    assert b"# TYPE threadline_calls_total counter\n" in page
    assert b"# HELP threadline_rss_bytes Memory.\n" in page


def test_samples_of_one_name_stand_together_under_one_heading():
    gauge = Sample("threadline_depth", "Depth.", "gauge", {}, 1.0)
    page = render([calls("twilio"), gauge, calls("browser", 4.0)])
    assert page.count(b"# TYPE threadline_calls_total") == 1
    lines = [line for line in page.decode().splitlines() if not line.startswith("#")]
    assert [line.partition("{")[0].partition(" ")[0] for line in lines] == [
        "threadline_calls_total",
        "threadline_calls_total",
        "threadline_depth",
    ]


def test_what_a_peer_sent_cannot_forge_a_line():
    label = 'a"b\\c\nthreadline_calls_total 9'
    assert parse(render([calls(label)])) == {("threadline_calls_total", (("leg", label),)): 3.0}


def test_a_histogram_in_ms_is_sent_in_seconds_cumulative_and_whole():
    histogram = Histogram((1.0, 60.8))
    for ms in (0.5, 1.0, 50.0, 2000.0):
        histogram.observe(ms)
    labels = {"thread": "pacer"}
    name = "threadline_late_seconds"
    found = parse(render([Sample(name, "Late.", "histogram", labels, histogram, 1e-3)]))
    thread = ("thread", "pacer")
    assert found == {
        (f"{name}_bucket", (("le", "0.001"), thread)): 2.0,
        (f"{name}_bucket", (("le", "0.0608"), thread)): 3.0,
        (f"{name}_bucket", (("le", "+Inf"), thread)): 4.0,
        (f"{name}_count", (thread,)): 4.0,
        (f"{name}_sum", (thread,)): pytest.approx(2.0515),
    }


def test_samples_of_several_threads_are_added_up_where_their_labels_are_the_same():
    late = [Histogram((1.0, 2.0)) for _ in range(2)]
    late[0].observe(0.5)
    late[1].observe(1.5)
    samples = [
        sample
        for frames, histogram in zip((2, 40), late, strict=True)
        for sample in (
            counter("threadline_frames_total", "Frames.", frames),
            counter("threadline_asks_total", "Asks.", 1, thread=str(frames)),
            milliseconds("threadline_late_seconds", "Late.", histogram),
        )
    ]
    found = parse(render(added(samples)))
    assert found["threadline_frames_total", ()] == 42
    assert found["threadline_asks_total", (("thread", "2"),)] == 1
    assert found["threadline_asks_total", (("thread", "40"),)] == 1
    assert found["threadline_late_seconds_bucket", (("le", "0.001"),)] == 1
    assert found["threadline_late_seconds_count", ()] == 2
    assert found["threadline_late_seconds_sum", ()] == pytest.approx(0.002)


def test_bounds_are_sent_without_a_floating_point_tail():
    sample = Sample("threadline_a_seconds", "A.", "histogram", {}, Histogram(LATENESS_MS), 1e-3)
    bounds = [dict(labels)["le"] for (name, labels) in parse(render([sample])) if "_bucket" in name]
    assert len(bounds) == len(LATENESS_MS) + 1
    assert max(len(bound) for bound in bounds) <= len("0.0000608")


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        ([Sample("calls_total", "", "counter", {}, 1)], "begins with threadline_"),
        ([Sample("threadline_calls", "", "counter", {}, 1)], "ends in _total"),
        ([Sample("threadline_calls_total", "", "gauge", {}, 1)], "ends in _total"),
        ([Sample("threadline_x", "", "histogram", {}, 1)], "value is a Histogram"),
        ([Sample("threadline_x", "", "gauge", {}, Histogram((1.0,)))], "cannot be sent as a gauge"),
        ([calls(), Sample("threadline_calls_total", "", "counter", {}, 1)], "labelled"),
    ],
)
def test_a_sample_that_breaks_the_conventions_is_a_defect(samples, why):
    with pytest.raises(ValueError, match=why):
        render(samples)


def test_no_samples_are_an_empty_page():
    assert render([]) == b""


def test_the_header_names_the_text_format():
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_a_page_leaves_no_cycles_behind():
    """The collector is off while calls run: what renders once a second must not need it."""
    sample = Sample("threadline_a_seconds", "A.", "histogram", {}, Histogram(LATENESS_MS), 1e-3)
    render([sample])
    gc.collect()
    gc.disable()
    try:
        for _ in range(50):
            render([sample, calls()])
        assert gc.collect() < 50  # a page's cycle would be at least as many; others may leave one
    finally:
        gc.enable()
