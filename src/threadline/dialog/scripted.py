"""A receptionist who needs no model: she takes table bookings for the Harbour Bistro.

Day, time, number of people and name come in any order and any number at once; a later mention
corrects an earlier one. Everything is a pure function of the state and the caller's words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, TypeGuard

from .bistro import AGAIN, ANSWERS, ASK, GREETING
from .brain import Answer
from .slots import Mentions, Slot, mentions, plain, spoken_number

Asked = Slot | Literal["start", "confirm", "change", "else"]

FIRST_MINUTES, LAST_MINUTES = 12 * 60, 21 * 60 + 30
MAX_PEOPLE = 12


@dataclass(frozen=True, slots=True)
class Booking:
    """One table. Complete when nothing is None."""

    day: str | None = None  # as it is spoken: "Friday", "tomorrow", "July 5th"
    time: str | None = None  # "19:30"
    people: int | None = None
    name: str | None = None

    def missing(self) -> Slot | None:
        """The first thing still to be asked for."""
        slots: tuple[Slot, ...] = ("day", "time", "people", "name")
        return next((slot for slot in slots if getattr(self, slot) is None), None)


@dataclass(frozen=True, slots=True)
class Reception:
    """Where a call stands."""

    booking: Booking = Booking()
    booked: bool = False  # the caller has said yes to exactly this booking
    asked: Asked = "start"  # what the agent's last sentence was about
    turn: int = 0
    last: str = ""  # what the agent said last, for who asks to hear it again


_BYE = re.compile(
    r"\b(?:goodbye|good bye|bye|that's all|that is all|that'll be all|that's it|never ?mind"
    r"|forget it|nothing else|see you|hang up|cancel that)\b"
)
_REPEAT = re.compile(
    r"\b(?:repeat|say (?:that|it) again|say again|once more|pardon|come again|what was that"
    r"|what did you say|didn't (?:hear|catch|get|understand))\b|^(?:sorry|what|huh|excuse me)$"
)
_YES = re.compile(
    r"\b(?:yes|yeah|yep|yup|sure|correct|right|exactly|perfect|absolutely|of course|please do"
    r"|okay|ok|fine|sounds good|that works|go ahead|book it|great|lovely|i do|i would)\b"
)
_NO = re.compile(r"\b(?:no|nope|nah|not (?:quite|right|correct|really)|wrong|incorrect)\b")
_TABLE = re.compile(r"\b(?:book\w*|table|reserv\w+)\b")
_HELLO = re.compile(r"(?:hello|hi|hey|good (?:morning|afternoon|evening|day))")
_THANKS = re.compile(r"\b(?:thank you|thanks|cheers)\b")
_FIELDS: tuple[tuple[Slot, re.Pattern[str]], ...] = (
    ("day", re.compile(r"\b(?:day|date)\b")),
    ("time", re.compile(r"\b(?:time|hour)\b")),
    ("people", re.compile(r"\b(?:people|number|persons?|guests)\b")),
    ("name", re.compile(r"\bname\b")),
)


class Scripted:
    """The receptionist as a `LocalBrain`. Holds nothing: all is in `Reception`."""

    greeting = GREETING

    def begin(self) -> Reception:
        """The state of a new call."""
        return Reception(last=GREETING)

    def answer(self, state: Reception, words: str) -> tuple[Reception, Answer]:
        """Answer one turn; whatever `words` are, the answer is not blank."""
        step = _step(state, words)
        text, last = step.text, step.text
        if step.again:
            text = f"{_vary(('Of course.', 'Sure.', 'Once more:'), state)} {state.last}"
            last = state.last
        after = Reception(step.booking, step.booked, step.asked, state.turn + 1, last)
        return after, Answer(text, hang_up=step.hang_up)


@dataclass(frozen=True, slots=True)
class _Step:
    """What one turn comes to."""

    text: str
    asked: Asked
    booking: Booking
    booked: bool = False
    hang_up: bool = False
    again: bool = False  # say the last thing again; `text` is not used


def _step(state: Reception, words: str) -> _Step:
    said = plain(words)
    info = _information(said)
    heard = mentions(words, state.asked)
    if info and not _TABLE.search(said):  # "Are you open on Sunday at three?" books nothing
        heard = replace(heard, day=None, minutes=None)
    if info and "name" not in said:
        heard = replace(heard, name=None)
    booking = _fill(state.booking, heard)
    if trouble := _trouble(state, heard):
        return _Step(*trouble, booking)
    changed = booking != state.booking
    if info:
        text, asked = _next_question(state, booking)
        return _Step(f"{info} {text}", asked, booking, state.booked and not changed)
    if changed:
        text, asked = _next_question(state, booking)
        if asked != "confirm":
            text = f"{_acknowledge(state.booking, booking)} {text}"
        return _Step(text, asked, booking)
    return _about_booking(state, said) or _about_talk(state, said)


def _about_booking(state: Reception, said: str) -> _Step | None:
    """Yes, no and "the time": answers to what the agent asked, with no new fact in them."""
    no = _NO.search(said) is not None
    yes = _YES.search(said) is not None and not no
    booking, asked = state.booking, state.asked
    if asked == "confirm" and yes:
        text = f"Perfect, your table is booked. We look forward to seeing you, {booking.name}."
        return _Step(f"{text} Goodbye!", "else", booking, booked=True, hang_up=True)
    field = next((slot for slot, pattern in _FIELDS if pattern.search(said)), None)
    if asked in ("confirm", "change") and field:
        return _Step(_vary(ASK[field], state), field, _without(booking, field))
    if asked == "confirm" and no and not _BYE.search(said):
        return _Step(_vary(ASK["change"], state), "change", booking)
    if asked == "start" and no and not _BYE.search(said):
        return _Step(_vary(ASK["else"], state), "else", booking)
    if asked in ("start", "else") and not state.booked and (yes or _TABLE.search(said)):
        slot = booking.missing() or "day"
        return _Step(f"Of course. {_vary(ASK[slot], state)}", slot, booking)
    return None


def _about_talk(state: Reception, said: str) -> _Step:
    """Goodbyes, "say again", greetings; and what was not understood."""
    booking, asked = state.booking, state.asked
    if _REPEAT.search(said):
        return _Step("", asked, booking, state.booked, again=True)
    done = asked == "else" and (_NO.search(said) or _THANKS.search(said))
    if done or _BYE.search(said):
        thanks = (
            "Thank you for calling."
            if state.booked or booking == Booking()
            else ("All right, I have not booked anything.")
        )
        return _Step(f"{thanks} Goodbye!", "else", booking, state.booked, hang_up=True)
    if _HELLO.fullmatch(said) and asked in ASK:
        return _Step(f"Hello! {_vary(ASK[asked], state)}", asked, booking, state.booked)
    return _Step(_vary(AGAIN[asked], state), asked, booking, state.booked)


def _information(said: str) -> str:
    """The answer to a question about the house; empty when there is none."""
    return next((answer for pattern, answer in ANSWERS if pattern.search(said)), "")


def _fill(booking: Booking, heard: Mentions) -> Booking:
    """The booking with what was heard, as far as the house can serve it."""
    return Booking(
        heard.day or booking.day,
        _clock(heard.minutes) if _open_at(heard.minutes) else booking.time,
        heard.people if _room_for(heard.people) else booking.people,
        heard.name or booking.name,
    )


def _without(booking: Booking, slot: Slot) -> Booking:
    return Booking(
        None if slot == "day" else booking.day,
        None if slot == "time" else booking.time,
        None if slot == "people" else booking.people,
        None if slot == "name" else booking.name,
    )


def _room_for(people: int | None) -> TypeGuard[int]:
    return people is not None and 1 <= people <= MAX_PEOPLE


def _open_at(minutes: int | None) -> TypeGuard[int]:
    return minutes is not None and FIRST_MINUTES <= minutes <= LAST_MINUTES


def _trouble(state: Reception, heard: Mentions) -> tuple[str, Asked] | None:
    """Why something that was heard cannot be, and what to ask for instead."""
    if heard.people is not None and not _room_for(heard.people):
        size = spoken_number(heard.people)
        why = (
            f"I can seat one to twelve people, not {size}. How many will you be?",
            f"I'm sorry, {size} is not possible, twelve at most. For how many shall I book?",
        )
        return _vary(why, state), "people"
    if heard.minutes is not None and not _open_at(heard.minutes):
        when = spoken_time(_clock(heard.minutes))
        why = (
            f"I'm sorry, not at {when}. We seat guests from noon until half past nine."
            " What time would you like?",
            f"We have no tables at {when}, only from noon until half past nine. When shall it be?",
        )
        return _vary(why, state), "time"
    return None


def _next_question(state: Reception, booking: Booking) -> tuple[str, Asked]:
    if state.booked and booking == state.booking:
        return _vary(ASK["else"], state), "else"
    if booking == Booking():
        asked: Asked = state.asked if state.asked in ASK else "start"
        return _vary(ASK[asked], state), asked
    slot = booking.missing()
    if slot:
        return _vary(ASK[slot], state), slot
    table = f"a table{_details(booking)}, under the name {booking.name}. Is that right?"
    return _vary((f"So that's {table}", f"Then I have {table}"), state), "confirm"


def _acknowledge(before: Booking, booking: Booking) -> str:
    """Say back what is new, so that a misheard word is noticed at once."""
    news = Booking(
        booking.day if booking.day != before.day else None,
        booking.time if booking.time != before.time else None,
        booking.people if booking.people != before.people else None,
    )
    details = _details(news)
    return (
        f"All right. {details[1].upper()}{details[2:]}."
        if details
        else f"Thank you, {booking.name}."
    )


def _details(booking: Booking) -> str:
    """ " for four on Friday at half past seven", or as much of it as is known."""
    people = f" for {spoken_number(booking.people)}" if booking.people else ""
    plain_days = ("to", "the day", "next ", "this ")
    day = booking.day or ""
    day = f" {day}" if day.startswith(plain_days) or not day else f" on {day}"
    return people + day.rstrip() + (f" at {spoken_time(booking.time)}" if booking.time else "")


def spoken_time(time: str) -> str:
    """ "19:30" as one says it: "half past seven"; hours before noon say so."""
    hour, minute = (int(part) for part in time.split(":"))
    if time == "12:00":
        return "noon"
    name = spoken_number(hour % 12 or 12)
    whole = name if hour < 12 else f"{name} o'clock"
    shares = {0: whole, 15: f"quarter past {name}", 30: f"half past {name}"}
    small = f"oh {spoken_number(minute)}" if minute < 10 else spoken_number(minute)
    spoken = shares.get(minute) or f"{name} {small}"
    return f"{spoken} in the morning" if hour < 12 else spoken


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _vary(options: tuple[str, ...], state: Reception) -> str:
    """One of several wordings: never the one that the caller heard last."""
    start = state.turn % len(options)
    turned = options[start:] + options[:start]
    return next((text for text in turned if not state.last.endswith(text)), turned[0])
