"""What the GIL costs a voice server, and what it does not: the same commit on both builds.

Run it with ``just compare``. What is run stands in ``scenarios.py``; what spoils the day of a
server in ``saboteurs.py``; what most people have today in ``asyncio_baseline.py``.
"""
