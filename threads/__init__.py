"""All the concurrency there is. Whether two threads can touch a thing is decided in this folder.

              caller sockets                                   vendor sockets
                   |  ^                                             |  ^
    +--------------v--|----------+                       +----------v--|-----------+
    | io-calls    one event loop |                       | io-vendors     another  |
    +--|----------------^-----|--+                       +--^--------|--------^--|-+
       | heard          | due | opened, marks,        asks, | tokens,|        |  |
       v                |     | cuts               clauses  | audio  |        |  |
    +-----+  hold   +---|---+ |                             |        |        |  |
    | vad |-------->| pacer | |   +-------------------------|--------v----+   |  |
    +-|-^-+  epoch  +---^---+ +-->| reply                                 |   |  |
      | |               |         +-|-----^--|------^-------|-------^-----+   |  |
      | | opinions,     | outgoing  |     |  | clauses      | jobs  |         |  |
      | | patience      +-----------+     |  |      | audio |       | results |  |
      | |                                 |  |      |       |       |         |  |
      | |             transcripts,        | +v------|-+   +-v-------|-+       |  |
      | |             partials            | |   tts   |   | worker-N  |       |  |
      | |                                 | +---------+   +-----------+       |  |
    +-v-|-+                               |                                   |  |
    | asr |-------------------------------+         speech                    |  |
    |     |-------------------------------------------------------------------+  |
    |     |<---------------------------------------------------------------------+
    +--|--+                                         text
       | pauses       +----------+
       +------------->| endpoint |---- patience, to vad
       | jobs         +----------+
       v
    recogniser (a process of its own, or a thread)

    watch: heartbeats, the GIL, garbage collection, metrics.    log: writes what the others say.
    traces: tells a collector what reply writes down of each turn.

A thread runs only when something needs it: tts when the voice is a local one, the recogniser when
the ears are, io-vendors when a vendor is named, worker-1..N when an agent has tools or guards,
traces when a collector is named. Of io-calls and vad there may be several, which divide the calls
among them (shards.py).

One file a thread; each says at its top what wakes it, what it alone owns, what it reads and what
it writes. io-vendors has one file more for each kind of vendor (vendor_*.py). What the threads
share is small and in three places: the call table (calls.py), the rings and inboxes (ring.py,
wake.py), the events (messages.py). The supervisor makes all of it before the first call, because
making threads and importing modules while calls run stops the world.
"""
