"""All the concurrency there is. Whether two threads can touch a thing is decided in this folder.

                      caller sockets                           vendor sockets
                           |  ^                                     ^
    +----------------------v--|---------+                +---------|-----------+
    | io-calls   one event loop         |                | io-vendors          |
    +--|--------------------^-------|---+                +---^----------|------+
       | heard              | due   |                        |          |
       v                    |       | opened, marks,         | asks     | tokens
    +------+           +----|----+  | cuts                   |          |
    | vad  |--hold---->| pacer   |  |                        |          |
    +--|---+  epoch    +----^----+  |      +-------+     +---|----------v------+
       | speech             |       +----->| reply |<====| (same inbox)        |
       v                    | outgoing     |       |     +---------------------+
    +------+                +--------------|       |---- clauses ---> +-------+
    | asr  |-------- transcripts --------->|       |<--- audio ------ |  tts  |
    +--|---+                               +-------+                  +-------+
       | jobs
    recogniser (a process of its own, or a thread)

    watch: heartbeats, the GIL, garbage collection, metrics.    log: writes what the others say.

One file a thread; each says at its top what wakes it, what it alone owns, what it reads and what
it writes. What they share is small and in three places: the call table (calls.py), the rings and
inboxes (ring.py, wake.py), the events (messages.py). The supervisor makes all of it before the
first call, because making threads and importing modules while calls run stops the world.
"""
