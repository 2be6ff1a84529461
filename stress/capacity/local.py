"""``threadline serve`` with everything local but a brain that gives every caller the same answer.

    python -m stress.capacity.local ANSWER FLAGS...    serve's flags

Silero, Whisper and Piper are the real ones. Nobody is greeted: the callers speak first.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from threadline import cli, cli_serve
from threadline.dialog.brain import Answer


@dataclass(frozen=True, slots=True)
class Steady:
    """Says the same whatever it hears."""

    text: str
    greeting: str = ""

    def begin(self) -> int:
        return 0

    def answer(self, state: int, words: str) -> tuple[int, Answer]:
        return state, Answer(self.text)


if __name__ == "__main__":
    cli_serve.make_brain = lambda config, agent=None: Steady(sys.argv[1])
    sys.exit(cli.main(["serve", *sys.argv[2:]]))
