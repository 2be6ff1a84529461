"""ThreadSanitizer over the rings, the inboxes, the call table, the pacer and the logs.

    just tsan                     everything; about five minutes once the interpreter is built
    just tsan --only "call table"
    just tsan --record            also writes the result into docs/races.md

ThreadSanitizer is told of every load, store and lock of the interpreter and of its C modules. It
reports two accesses to the same bytes, one of them a write, neither atomic, that nothing orders.
A cell of an `AudioRing` is such bytes: nothing but the two cursors orders who touches it.

    __main__.py   runs each program under the watched interpreter, reads the reports, says the rest
    programs.py   the programs; each also checks its own invariant
    controls.py   the same with a planted race, which must be reported or the whole run fails
    counts.py     keeps reference counts from hiding races, see there
"""
