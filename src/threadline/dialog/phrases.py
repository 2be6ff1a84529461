"""What the agent says of its own accord, without a brain. Each thing in more than one wording, so
that no caller hears a loop."""

from __future__ import annotations

NOT_CAUGHT = (
    "Sorry, I didn't catch that. Could you say it again?",
    "I'm sorry, I missed that. Could you repeat it?",
)
GO_ON = ("Sorry, go on.", "Yes, I'm listening.", "Please, go ahead.")
NO_ANSWER = (
    "Sorry, I don't have an answer to that. Could you put it another way?",
    "I'm afraid I don't know. Could you ask me differently?",
)
FAILED = (
    "Sorry, something went wrong on my side. Could you say that again?",
    "I'm sorry, I still have a technical problem. Could you try once more?",
)
UNSPOKEN = ("Sorry, something went wrong. Could you say that again?",)
FILLERS = (
    "One moment, please.",
    "Let me see.",
    "Just a second.",
    "Bear with me, I'm on it.",
    "I'm looking that up.",
)
NUDGES = ("Are you still there?", "Hello, can you hear me?", "I'm still here. How can I help?")
PARTING = (
    "It seems you are no longer there, so I'll hang up now. Goodbye!",
    "I can't hear you any more, so I'll end the call here. Goodbye!",
)
GOODBYE = ("Goodbye!", "Thank you for calling. Goodbye!")


class Variety:
    """The next of several wordings, each time another one."""

    __slots__ = ("_used",)

    def __init__(self) -> None:
        self._used: dict[tuple[str, ...], int] = {}

    def next(self, choices: tuple[str, ...]) -> str:
        """One of ``choices``; all of them in turn."""
        used = self._used.get(choices, 0)
        self._used[choices] = used + 1
        return choices[used % len(choices)]
