"""An agent that is watched: nothing is heard before the guards have passed it.

    threadline serve examples.guarded:agent
    threadline demo --app examples.guarded:agent

A guard sees each clause before the caller hears it, and may pass it, change it or end the answer.
Guards run on threads of their own while the voice speaks already; a slow one delays its clause,
and nobody else's.
"""

from __future__ import annotations

import re

from threadline.agent import Agent, Stop

CARD = re.compile(r"\b(?:\d[ -]?){12,18}\d\b")
PROMISES = re.compile(r"\b(?:guarantee|promise|refund|discount)", re.IGNORECASE)

agent = Agent(
    instructions="You help customers of the Harbour Bistro. One or two short sentences a turn.",
    greeting="Harbour Bistro. This call is with an automated assistant. What can I do for you?",
    protect_greeting=True,
)


@agent.guard
def no_card_numbers(clause: str) -> str:
    """Nobody's card number is ever read aloud."""
    return CARD.sub(_ending, clause)


@agent.guard
def no_promises(clause: str) -> Stop | None:
    """Money is for a human to talk about."""
    if PROMISES.search(clause):
        return Stop("A colleague will call you back about that.")
    return None


def _ending(card: re.Match[str]) -> str:
    digits = re.sub(r"\D", "", card[0])
    return f"one ending in {' '.join(digits[-4:])}"
