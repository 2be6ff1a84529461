"""Threadline: a voice-agent server for phone calls on free-threaded CPython."""
