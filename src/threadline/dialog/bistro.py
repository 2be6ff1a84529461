"""The words of the Harbour Bistro: what its receptionist asks and tells.

Each thing has more than one wording, so that a caller who is asked twice hears no machine.
"""

from __future__ import annotations

import re

GREETING = "Hello! This is the Harbour Bistro. How can I help you?"

ASK: dict[str, tuple[str, ...]] = {
    "start": ("Would you like to book a table?", "Shall I book a table for you?"),
    "day": ("What day would you like to come?", "Which day suits you?"),
    "time": ("At what time?", "What time would you like the table?"),
    "people": ("How many people will you be?", "For how many people is the table?"),
    "name": ("What name shall I put it under?", "And your name, please?"),
    "change": (
        "What should I change: the day, the time, the number of people, or the name?",
        "Which part is wrong, the day, the time, the number of people, or the name?",
    ),
    "else": ("Can I help you with anything else?", "Is there anything else I can do?"),
}
AGAIN: dict[str, tuple[str, ...]] = {
    "start": (
        "Sorry, I didn't quite get that. Would you like to book a table?",
        "I can take a booking, or tell you about the house. Would you like a table?",
    ),
    "day": (
        "Sorry, I didn't get the day. You can say Friday, or tomorrow.",
        "Which day would that be? For example Saturday, or the fifth.",
    ),
    "time": (
        "Sorry, I didn't get the time. You can say half past seven.",
        "What time would you like to come? For example, eight o'clock.",
    ),
    "people": (
        "Sorry, how many people? A number is enough.",
        "I didn't get the number. How many of you are coming?",
    ),
    "name": (
        "Sorry, I didn't get your name. You can say: my name is Anna.",
        "What name should I write down? The first name is enough.",
    ),
    "confirm": (
        "Sorry, is the booking right as I said it? Please say yes or no.",
        "Shall I book it like that? You can say yes, or tell me what to change.",
    ),
    "change": (
        "You can say, for example: five people, or: eight o'clock.",
        "Sorry, just tell me the new day, time, number of people, or name.",
    ),
    "else": (
        "Sorry, I can only take bookings. Can I help you with anything else?",
        "I didn't quite get that. Is there anything else I can do?",
    ),
}
ANSWERS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"\b(?:opening (?:hours|times?)|hours|when (?:are|do) you (?:open|close)"
            r"|how late|are you open|what time do you (?:open|close))\b"
        ),
        "We are open every day from noon until ten in the evening. The kitchen takes its last"
        " orders at half past nine, and on warm days you can sit outside by the water.",
    ),
    (
        re.compile(r"\b(?:vegetarians?|vegan|menu|gluten|allerg\w+|dishes|food|eat meat|serve)\b"),
        "Yes, there is something for everyone. Besides fresh fish, we always have four"
        " vegetarian dishes and two vegan ones, and the kitchen is happy to cook without gluten.",
    ),
    (
        re.compile(
            r"\b(?:where are you|address|location|located|find you|how do i get|parking"
            r"|park)\b"
        ),
        "We are right at the old harbour, next to the lighthouse. There is a car park behind the"
        " house, and the tram stops just across the street.",
    ),
    (
        re.compile(r"\bcancel (?:a|my|our|the) (?:booking|reservation|table)\b"),
        "I'm sorry, I can only take new bookings on the phone. To cancel one, please answer the"
        " message we sent you when you booked.",
    ),
)
