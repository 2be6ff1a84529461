"""What the commands of this folder share: the numbers they take, and how they end."""

from __future__ import annotations

import functools
import sys
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable

from threadline.errors import ThreadlineError

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def command_line(name: str, doc: str | None) -> ArgumentParser:
    """The parser of a command, which is explained by its module's docstring."""
    return ArgumentParser(prog=name, description=doc, formatter_class=RawDescriptionHelpFormatter)


def told[**P](main: Callable[P, int]) -> Callable[P, int]:
    """A command's `main`, whose ThreadlineError becomes one sentence on stderr and a status."""

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except ThreadlineError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            return _INTERRUPTED

    return run


def count(text: str) -> int:
    """A flag's value: a whole number above 0. ArgumentTypeError, in words, for anything else."""
    return _whole(text, 1)


def count_or_none(text: str) -> int:
    """The same, or 0."""
    return _whole(text, 0)


def amount(text: str) -> float:
    """A flag's value: a number above 0, of seconds or minutes. Raises as `count` does."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise ArgumentTypeError(f"{text!r} is no number above 0")
    return found


def _whole(text: str, least: int) -> int:
    if not (text.isdecimal() and text.isascii() and len(text) < 10) or int(text) < least:
        raise ArgumentTypeError(f"{text!r} is no whole number from {least} on")
    return int(text)
