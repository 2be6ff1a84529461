"""How full the rings are: for the metrics page, and for the report of a stall.

Read by the `watch` thread; a ring's depth may be asked from any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ..observe.histogram import Histogram
from ..observe.prometheus import Sample
from .calls import Call
from .ring import AudioRing
from .wake import Inbox

DEPTHS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 127.0, 128.0)
RINGS: Mapping[str, Callable[[Call], AudioRing]] = {
    "heard": lambda call: call.heard,
    "speech": lambda call: call.speech,
    "outgoing": lambda call: call.outgoing,
    "due": lambda call: call.due,
}


class Depths:
    """Of every inbox, and of the audio rings of every live call."""

    def __init__(self, calls: Sequence[Call], inboxes: Mapping[str, Inbox]) -> None:
        self._calls = calls
        self._inboxes = inboxes
        self.rings = {name: Histogram(DEPTHS) for name in RINGS}
        self.events = {name: Histogram(DEPTHS) for name in inboxes}

    def look(self) -> None:
        """Once a second: one observation for each ring and inbox."""
        live = [call for call in self._calls if call.live]
        for name, ring in RINGS.items():
            observe = self.rings[name].observe
            for call in live:
                observe(ring(call).depth())
        for name, inbox in self._inboxes.items():
            self.events[name].observe(inbox.depth())

    def state(self) -> Mapping[str, object]:
        """At this moment: events by the thread they wait for, and the most audio records that
        wait in one call's rings."""
        live = [call for call in self._calls if call.live]
        return {
            "depths": {name: inbox.depth() for name, inbox in self._inboxes.items()},
            "audio_depths": {
                name: max((ring(call).depth() for call in live), default=0)
                for name, ring in RINGS.items()
            },
            "calls": len(live),
        }

    def samples(self) -> Iterable[Sample]:
        """For the metrics page."""
        for name, histogram in self.rings.items():
            text = "Audio records in one call's ring, looked at once a second."
            label = {"ring": name}
            yield Sample("threadline_ring_depth_records", text, "histogram", label, histogram)
        for name, histogram in self.events.items():
            text = "Events that wait for a thread, looked at once a second."
            label = {"stage": name}
            yield Sample("threadline_inbox_depth_events", text, "histogram", label, histogram)
