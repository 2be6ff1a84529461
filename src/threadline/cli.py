"""The command line. Each sub-command lives in its own ``cli_*.py``; this file joins them.

Whatever a user can cause ends in one sentence on stderr and an exit code of `errors.Exit`.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from . import cli_call, cli_demo, cli_doctor, cli_models, cli_serve
from .errors import Exit, ThreadlineError

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_EXAMPLES = """\
examples:
  threadline demo                                   hear a call, with no key and no network
  threadline serve --port 8080                      answer calls at ws://127.0.0.1:8080/twilio
  threadline call ws://127.0.0.1:8080/twilio --wav hello.wav
  threadline doctor                                 what this machine can and cannot do
  threadline models fetch                           get the local models
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="threadline",
        description="A voice-agent server for phone calls on free-threaded Python.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (cli_serve, cli_call, cli_demo, cli_models, cli_doctor):
        command.add_parser(commands)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except ThreadlineError as error:
        print(f"threadline: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone; Python must not try to flush to it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except Exception:  # noqa: BLE001  # a defect of ours: shown in full, under a code of its own
        traceback.print_exc()
        return Exit.CRASH
