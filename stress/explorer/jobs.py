"""Searches, side by side: each in a process with an instrumented copy of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from .beside import Change, Code, beside
from .models_floor import MODELS as FLOOR
from .models_rings import MODELS as RINGS
from .models_slots import MODELS as SLOTS
from .search import Found, Model, search

MODELS: Sequence[Model] = (*RINGS, *FLOOR, *SLOTS)


def named(only: str) -> list[Model]:
    """The models of this name or family; all for an empty one. LookupError when there is none."""
    found = [model for model in MODELS if only in ("", model.name, model.name.partition("/")[0])]
    if not found:
        families = ", ".join(dict.fromkeys(model.name.partition("/")[0] for model in MODELS))
        raise LookupError(f"No model is called {only}; there are the families {families}.")
    return found


def explore(name: str, changes: Sequence[Change], limit: float, plain: bool) -> Found:
    """Search one model in this process, with these changes to the source."""
    (model,) = [model for model in MODELS if model.name == name]
    with beside(changes) as module:
        return search(model, Code(module), limit, plain=plain)


def side_by_side[T](jobs: Sequence[Callable[[], T]]) -> Iterator[tuple[int, T]]:
    """Run all, as many at once as there are cores; (which, result) as they come."""
    workers = min(len(jobs), os.process_cpu_count() or 1)
    # Not forked: this process may have threads, and each worker loads copies of modules.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures: dict[Future[T], int] = {pool.submit(job): i for i, job in enumerate(jobs)}
        for future in as_completed(futures):
            yield futures[future], future.result()
