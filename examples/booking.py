"""An agent that does something: it looks for a free table, books it, and gives it up again.

    threadline serve examples.booking:agent
    threadline demo --app examples.booking:agent

The functions are plain Python. They run on threads of their own, those of several callers at
once: what they share is theirs to protect. Here that is one dictionary, and every change to it is
a single step, which no other thread can come between.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from threadline.agent import Agent, CallInfo, ToolError

Day = Literal["Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]

OPEN, LAST = 12, 21  # o'clock
TABLES = {"window": 2, "bar": 2, "corner": 4, "garden": 6, "long": 8}  # seats by table
_booked: dict[tuple[str, int, str], str] = {}  # the guest's name by day, hour and table

agent = Agent(
    instructions="""
        You take bookings for the Harbour Bistro. One or two short sentences a turn.
        Ask for the day, the hour, how many people come and a name, one thing at a time.
        Say a day and an hour back to the caller before you book them.
    """,
    greeting="Harbour Bistro, how can I help you?",
)


@agent.tool
def free_tables(day: Day, hour: int, people: int) -> list[str]:
    """Which tables are free.

    hour: when the guests come, 12 to 21.
    people: how many they are.
    """
    _check(hour)
    fitting = [table for table, seats in TABLES.items() if seats >= people]
    return [table for table in fitting if (day, hour, table) not in _booked]


@agent.tool
def book_table(call: CallInfo, day: Day, hour: int, table: str, name: str) -> str:
    """Book a table that is free.

    table: one that free_tables has named.
    name: of the guest.
    """
    _check(hour)
    if table not in TABLES:
        raise ToolError(f"There is no table {table}: there are {', '.join(TABLES)}.")
    if _booked.setdefault((day, hour, table), name) != name:
        raise ToolError("Somebody else has just taken that table: look for another one.")
    return f"Booked for {name}; the number to confirm it is {call.caller or 'not known'}."


@agent.tool
async def cancel_booking(day: Day, hour: int, name: str) -> str:
    """Give up a booking."""
    await asyncio.sleep(0)  # where your own would ask a server
    mine = [key for key, guest in _booked.items() if (*key[:2], guest) == (day, hour, name)]
    given_up = [table for *_, table in mine if _booked.pop((day, hour, table), None)]
    return f"Given up: {', '.join(given_up)}." if given_up else f"{name} has no booking then."


def _check(hour: int) -> None:
    if not OPEN <= hour <= LAST:
        raise ToolError(f"The kitchen is open from {OPEN} to {LAST} o'clock.")
