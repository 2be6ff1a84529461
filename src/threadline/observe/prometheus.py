"""The metrics page: samples in, Prometheus text out.

Names follow Prometheus's conventions: ``threadline_`` first, base units (seconds, bytes), a
counter ends in ``_total``. Histograms are kept in ms here, so their samples say
``scale=1e-3`` and a name in ``_seconds``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from .histogram import Histogram, joined

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""What `render` returns, for the HTTP header."""

Kind = Literal["counter", "gauge", "histogram"]

_FAMILIES = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one metric. Samples of one name need not stand together.

    `name` is the full name as it will be read. Samples of one name have the same kind, help and
    label names. What is sent is `value` times `scale`.
    """

    name: str
    help: str
    kind: Kind
    labels: Mapping[str, str]
    value: float | Histogram
    scale: float = 1.0


def counter(name: str, help_text: str, value: float, **labels: str) -> Sample:
    """A count that only rises; `name` ends in ``_total``."""
    return Sample(name, help_text, "counter", labels, value)


def gauge(name: str, help_text: str, value: float, **labels: str) -> Sample:
    """A value that goes up and down."""
    return Sample(name, help_text, "gauge", labels, value)


def milliseconds(name: str, help_text: str, value: Histogram, **labels: str) -> Sample:
    """A histogram kept in ms, sent in s; `name` ends in ``_seconds``."""
    return Sample(name, help_text, "histogram", labels, value, 1e-3)


def added(samples: Iterable[Sample]) -> Iterable[Sample]:
    """Samples of several threads that do the same work, as of one: the values of those with one
    name and the same labels are added up."""
    same: dict[tuple[str, tuple[str, ...]], list[Sample]] = {}
    for sample in samples:
        same.setdefault((sample.name, tuple(sample.labels.values())), []).append(sample)
    for first, *others in same.values():
        yield replace(first, value=_sum([first, *others])) if others else first


def _sum(samples: Sequence[Sample]) -> float | Histogram:
    values = [sample.value for sample in samples]
    if histograms := [value for value in values if isinstance(value, Histogram)]:
        return joined(histograms)
    return sum(value for value in values if not isinstance(value, Histogram))


def render(samples: Iterable[Sample]) -> bytes:
    """The page, metrics in the order in which their names first appear.

    Raises:
        ValueError: a name or a kind that breaks the conventions, or that disagrees with an
            earlier sample of that name: a defect of whoever made the sample.
    """
    page = _Page()
    for sample in samples:
        page.add(sample)
    return generate_latest(page)


def merge(pages: Mapping[str, bytes], label: str) -> bytes:
    """The pages of several processes as one: every sample says in `label` whose it is.

    Pages are as `render` makes them; metrics stand in the order of the first that has them.
    """
    heads: dict[str, list[str]] = {}
    bodies: dict[str, list[str]] = {}
    for whose, page in pages.items():
        own, name = f'{label}="{whose}"', ""
        for line in page.decode("utf-8").splitlines():
            if line.startswith("# "):
                name = line.split(" ", 3)[2]
                head = heads.setdefault(name, [])
                if line not in head:
                    head.append(line)
            elif line:
                bodies.setdefault(name, []).append(_labelled(line, own))
    lines = (line for name, head in heads.items() for line in (*head, *bodies.get(name, ())))
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


def _labelled(line: str, own: str) -> str:
    """A sample's line, with one more label in front of its others."""
    name, brace, rest = line.partition("{")
    if brace:
        return f"{name}{{{own},{rest}"
    name, _, number = line.partition(" ")
    return f"{name}{{{own}}} {number}"


class _Page:
    """Metric families by name, in the shape of a prometheus_client collector."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[Kind, tuple[str, ...], Metric]] = {}

    def collect(self) -> Iterable[Metric]:
        return [metric for _, _, metric in self._families.values()]

    def add(self, sample: Sample) -> None:
        labels = tuple(sample.labels)
        known = self._families.get(sample.name)
        if known is None:
            _check_name(sample)
            metric = _FAMILIES[sample.kind](sample.name, sample.help, labels=labels)
            self._families[sample.name] = sample.kind, labels, metric
        else:
            kind, names, metric = known
            if (kind, names) != (sample.kind, labels):
                raise ValueError(f"{sample.name} is a {kind} labelled {names}, not as in {sample}")
        values = list(sample.labels.values())
        if isinstance(metric, HistogramMetricFamily):
            metric.add_metric(values, *_buckets(sample))
        elif isinstance(sample.value, Histogram):
            raise ValueError(f"{sample.name}: a histogram cannot be sent as a {sample.kind}")
        elif isinstance(metric, CounterMetricFamily | GaugeMetricFamily):
            metric.add_metric(values, sample.value * sample.scale)


def _check_name(sample: Sample) -> None:
    if not sample.name.startswith("threadline_"):
        raise ValueError(f"a metric's name begins with threadline_: {sample.name}")
    if (sample.kind == "counter") != sample.name.endswith("_total"):
        raise ValueError(f"a counter ends in _total, and nothing else does: {sample.name}")


def _buckets(sample: Sample) -> tuple[list[tuple[str, float]], float]:
    """Cumulative counts by upper bound, and the sum."""
    if not isinstance(sample.value, Histogram):
        raise ValueError(f"{sample.name}: a histogram's value is a Histogram, not {sample.value}")
    seen = sample.value.snapshot()
    bounds = [f"{bound * sample.scale:.6g}" for bound in seen.bounds]  # 0.0608 * 1e-3 has a tail
    return list(zip([*bounds, "+Inf"], seen.cumulative(), strict=True)), seen.sum * sample.scale
