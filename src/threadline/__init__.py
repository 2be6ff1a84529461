"""Threadline: a voice-agent server for phone calls on free-threaded CPython."""

import os

# From 1.29 on onnxruntime reports on its use to its maker unless told not to. A server that
# handles people's calls sends nothing of the kind; whoever wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# numpy's products of matrices would otherwise wake a thread on every core for microseconds of
# work each; who runs where is decided in threads/.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
