"""Every interleaving of the production rings, wake-ups and floor changes, one access at a time.

Theory of operation
    `beside.py` loads a second copy of threads/ from its own source, unchanged, and lets its names
    for shared memory (the slot of `Cursor`, `bytearray`, `memoryview`, the list of an event ring,
    `os.eventfd`, `select.poll`) mean the instrumented ones of `memory.py`. Each access of a
    model's thread to such memory hands control to the scheduler (`world.py`), which decides
    whose access is next. `search.py` makes those decisions: all of them, or as many as differ by
    a few preemptions, or seeded ones. `models_*.py` say what runs and what must never come of it;
    `trace.py` prints a schedule that led there.

The memory model
    A store enters its thread's own buffer and becomes visible to others later, as an action of
    its own: a plain store at any time, even before an older one to another place; a releasing
    store only after all that is older. The thread itself reads its newest store at once, so a
    later load may overtake a store, a releasing one too (on hardware that is what breaks "set a
    flag, then look"). Loads take place in program order: every index here is loaded with
    acquire, and no plain load may rise above one. What is not modelled: plain loads overtaking
    each other, and tearing inside of one payload or header. Writing an eventfd is an atomic
    read-modify-write that makes the writer's earlier stores visible; a timeout never comes, so
    that a wake-up which only a timeout would repair is a deadlock here.

What makes it exhaustive
    A Python frame cannot be copied, so a state is reached again by running its schedule again.
    A state is known by the memory, the buffers, and for each thread the history of all it has
    loaded: a thread is a function of what it has seen, so nothing it could do is overlooked. A
    state that was met before is not entered twice. A load of what no other thread stores takes
    no turn (who stores where is found out on the way; a surprise starts the search anew);
    stores take none either, they only fill the buffer.
"""
