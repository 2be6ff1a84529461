"""Every failure a user can cause or cure, as one sentence that says what to do.

The command line prints the message alone and leaves with ``exit_code``; nothing else in
Threadline is meant to end the process. The codes are part of the interface: init systems and
containers decide by them whether a restart can help.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What the process says when it leaves."""

    OK = 0
    FAILED = 1  # the job ran and its result is bad: a call unanswered, a check failed
    USAGE = 2  # a flag, a file or a configuration key is wrong: a restart cannot help
    MODEL = 3  # a model is absent or damaged: `threadline models fetch`
    GIL = 4  # the policy is `refuse` and the GIL is on
    ADDRESS = 5  # the port is taken or the peer cannot be reached
    DRAIN = 6  # told to stop, and some calls had to be cut off
    CRASH = 70  # our own defect


class ThreadlineError(Exception):
    """Base of every error meant for a person. ``str(error)`` is one sentence with its remedy."""

    exit_code: Exit = Exit.FAILED


class ConfigError(ThreadlineError):
    """A flag, an environment variable, a file or a key that cannot be used."""

    exit_code = Exit.USAGE


class ModelError(ThreadlineError):
    """A model file is absent, damaged, or of another version than the one pinned."""

    exit_code = Exit.MODEL


class GilError(ThreadlineError):
    """The GIL is on and the policy says that this server must not run with it."""

    exit_code = Exit.GIL


class AddressError(ThreadlineError):
    """A port is taken, or a server cannot be reached."""

    exit_code = Exit.ADDRESS


class ProtocolError(ThreadlineError):
    """The peer broke the wire protocol: its call ends, with this sentence as the reason."""
