"""Takes reference counts out of the picture, because they hide races from ThreadSanitizer.

Whoever loads `ring.tail` raises the reference count of the cursor that it gets, and lowers it
again. When two threads do so, the count is a shared atomic that each of them reads and writes:
to ThreadSanitizer (and to the processor) each of these operations orders all that the one thread
did before against all that the other does next. So two threads that merely look at one object
seem well ordered, and a cell seems published by a cursor that publishes nothing. Measured with the
memoryview cursor of controls.py, 1500 records: its cells were never reported in six runs without
this, and in each of six with it.

Our order must not rest on that: it is no part of the algorithm, and objects with deferred counts
do not have it. So the objects that threads share are given deferred counts here, as functions
and modules have them: then a load counts nothing, and what is left to order the cells is what
ring.py says does it, the store and the load of a cursor's slot.
"""

from __future__ import annotations

import ctypes
import gc
from types import FunctionType, ModuleType

_defer = ctypes.pythonapi.PyUnstable_Object_EnableDeferredRefcount
_defer.argtypes = [ctypes.py_object]
_defer.restype = ctypes.c_int

_OURS = ("threadline", "stress", "planted_ring", "__main__")


def unshare(*roots: object) -> int:
    """Defer the counts of all that can be reached from these; how many objects that were.

    Functions are followed into what they close over and into the globals that they name, classes
    of this project into their methods. To be called before any other thread has the objects.
    """
    seen: set[int] = set()
    left = list(roots)
    deferred = 0
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, ModuleType):
            continue
        seen.add(id(one))
        if isinstance(one, type):  # classes and functions have deferred counts already
            if one.__module__.partition(".")[0] in _OURS:
                left += [*one.__mro__, *vars(one).values()]
        elif isinstance(one, FunctionType):
            named = set(one.__code__.co_names) & set(one.__globals__)
            left += [*(one.__closure__ or ()), *(one.__globals__[name] for name in named)]
        else:
            deferred += _defer(one)
            left += [type(one), *gc.get_referents(one)]
    return deferred
