"""Does a metrics page keep to Prometheus' conventions? Read strictly, as a scraper would not."""

from __future__ import annotations

import math
import re

from prometheus_client.parser import text_string_to_metric_families

NAME = re.compile(r"threadline(_[a-z0-9]+)+")
NO_BASE_UNIT = {"ms", "us", "ns", "milliseconds", "minutes", "kb", "mb", "kilobytes", "percent"}
UNITS = ("_seconds", "_bytes", "_records", "_events")
MOST_SERIES = 40  # of one metric, buckets apart: labels are threads, stages, vendors, reasons


def families(page: str) -> dict[str, object]:
    """By name, every rule being kept."""
    _headed_once(page)
    found = {}
    for family in text_string_to_metric_families(page):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = family
        _named_well(name, family)
        if family.type == "histogram":
            _a_histogram(name, family)
        series = {
            tuple(sorted((key, text) for key, text in one.labels.items() if key != "le"))
            for one in family.samples
            if not one.name.endswith("_created")
        }
        assert 0 < len(series) <= MOST_SERIES, f"{name} has {len(series)} series"
        keys = {tuple(key for key, _ in one) for one in series}
        assert len(keys) == 1, f"{name} is labelled in different ways: {keys}"
    return found


def _headed_once(page: str) -> None:
    """HELP and TYPE stand together, once, before all samples of their metric."""
    lines = page.splitlines()
    heads = [line.split(" ", 3) for line in lines if line.startswith("#")]
    for kind in ("HELP", "TYPE"):
        names = [head[2] for head in heads if head[1] == kind]
        assert len(names) == len(set(names)), f"a second {kind}"
    current, seen = "", set()
    for line in lines:
        if line.startswith("# HELP"):
            current = line.split(" ", 3)[2]
            assert len(line.split(" ", 3)) == 4, f"{current} has no help"
        elif line.startswith("# TYPE"):
            assert line.split(" ", 3)[2] == current, f"not below its HELP: {line}"
        else:
            name = re.split(r"[ {]", line, maxsplit=1)[0]
            assert re.fullmatch(rf"{current}(_bucket|_sum|_count)?", name), f"{name} is misplaced"
            sample = line.rpartition(" ")[0]
            assert sample not in seen, f"twice: {sample}"
            seen.add(sample)


def _named_well(name: str, family: object) -> None:
    assert NAME.fullmatch(name), name
    words = set(name.split("_"))
    assert not words & NO_BASE_UNIT, f"{name} is not in base units"
    assert family.documentation.endswith("."), f"{name}: {family.documentation}"
    assert family.type in ("counter", "gauge", "histogram"), family.type
    assert name.endswith("_total") == (family.type == "counter"), name
    assert not name.endswith(("_count", "_sum", "_bucket")), name
    if family.type == "histogram":
        assert name.endswith(UNITS), f"{name} has no unit"
    if name.endswith("_info"):
        assert [one.value for one in family.samples] == [1.0], name
    for one in family.samples:
        assert math.isfinite(one.value), one
        assert one.value >= 0, one


def _a_histogram(name: str, family: object) -> None:
    by_labels: dict[tuple[tuple[str, str], ...], dict[str, object]] = {}
    for one in family.samples:
        labels = tuple(sorted((key, text) for key, text in one.labels.items() if key != "le"))
        mine = by_labels.setdefault(labels, {"le": []})
        if one.name.endswith("_bucket"):
            mine["le"].append((float(one.labels["le"]), one.value))
        else:
            mine[one.name.removeprefix(name)] = one.value
    for labels, mine in by_labels.items():
        bounds, counts = zip(*mine["le"], strict=True)
        assert list(bounds) == sorted(set(bounds)), f"{name}{labels}: bounds {bounds}"
        assert bounds[-1] == math.inf
        assert 5 <= len(bounds) <= 42, f"{name} has {len(bounds)} buckets"
        assert list(counts) == sorted(counts), f"{name}{labels}: {counts}"
        assert counts[-1] == mine["_count"]
        if name.endswith("_seconds"):
            assert bounds[0] <= 0.005, f"{name} cannot tell 5 ms"
            assert 0.1 <= bounds[-2] <= 60, f"{name} ends at {bounds[-2]} s"
