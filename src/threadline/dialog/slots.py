"""What a caller says about a booking, read from a transcript: day, time, people, name.

Written for what Whisper writes: "7 p.m.", "seven thirty", "7:30", "July 5th", "a table for 2".
Patterns are tried from the surest to the vaguest, each takes its words away from the next, and
the last mention wins, because that is how people correct themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Slot = Literal["day", "time", "people", "name"]


@dataclass(frozen=True, slots=True)
class Mentions:
    """What one utterance says; None where it says nothing."""

    day: str | None = None  # as it is spoken: "Friday", "tomorrow", "the 5th", "July 5th"
    minutes: int | None = None  # since midnight
    people: int | None = None
    name: str | None = None


_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
_TEENS = "fifteen sixteen seventeen eighteen nineteen"
_WORDS = f"{_UNITS} {_TEENS}".split()
_ONES = {word: n for n, word in enumerate(_WORDS)}
_TENS = dict(
    zip(
        ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"),
        range(20, 100, 10),
        strict=True,
    )
)
_NTH = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth"
)
_NTEENTH = "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
_ORDINALS = {word: n for n, word in enumerate(f"{_NTH} {_NTEENTH}".split(), 1)} | {"thirtieth": 30}
_DAYS = "monday|tuesday|wednesday|thursday|friday|saturday|sunday"
_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_ONE = "|".join(word for word in _ONES if word != "zero")
_N = rf"(\d{{1,2}}|(?:twenty|thirty|forty|fifty)[ -](?:{_ONE})|twenty|thirty|forty|fifty|{_ONE})"
_ORD = (
    rf"(\d{{1,2}}(?:st|nd|rd|th)|(?:twenty|thirty)[ -](?:{'|'.join(_ORDINALS)})"
    rf"|{'|'.join(sorted(_ORDINALS, key=len, reverse=True))})"
)
_HALF = r"(?:\s*(am|pm|in the (?:morning|afternoon|evening)|at night))?"
_FOLK = r"(?:people|persons?|guests|adults|of us|diners|friends|seats|pax)"

_SPOKEN = (
    re.compile(rf"\b(half|quarter) (past) {_N}\b{_HALF}"),
    re.compile(rf"\b(quarter) (to) {_N}\b{_HALF}"),
    re.compile(rf"\b(ten|twenty|five|\d{{1,2}}) (past|to) {_N}\b{_HALF}"),
    re.compile(rf"\b(half) (){_N}\b{_HALF}"),
)
_NOON = re.compile(r"\b(noon|midday)\b")
_TIMES = (
    *_SPOKEN,
    _NOON,
    # Each captures hour, minute and half of the day.
    re.compile(rf"\b(\d{{1,2}})[:.](\d\d)\b{_HALF}"),
    re.compile(rf"\b{_N}[ -](00|15|30|45|fifteen|thirty|forty[ -]?five)\b{_HALF}"),
    re.compile(rf"\b{_N}()\s*(?:o'?clock)\b{_HALF}"),
    re.compile(rf"\b{_N}()\s*(am|pm)\b"),
    re.compile(rf"\b{_N}() (in the (?:morning|afternoon|evening)|at night)\b"),
    re.compile(rf"\b(?:at|around|about|by|until|to) {_N}()()\b(?! {_FOLK})"),
)
_DENIED = re.compile(rf"\bnot (?:on |at |for )?(?:{_N}(?: {_FOLK})?|(?:{_DAYS})|tomorrow|today)\b")
_DATES = (
    re.compile(rf"\b({_MONTHS})(?: the)? {_ORD}\b"),
    re.compile(rf"\b({_MONTHS}) {_N}\b"),
    re.compile(rf"\b(?:the )?{_ORD} (?:of )?({_MONTHS})\b"),
    re.compile(rf"\bthe {_ORD}\b"),
    re.compile(r"\b(\d{1,2}(?:st|nd|rd|th))\b"),
    re.compile(rf"\b(?:twenty|thirty)[ -](?:{'|'.join(_ORDINALS)})\b"),
    re.compile(rf"\b(?:(next|this) )?({_DAYS})(?:'s|s)?\b"),
    re.compile(r"\b(the day after tomorrow|day after tomorrow|tomorrow|tonight|today)\b"),
)
_ALONE = re.compile(r"\b(?:just me|only me|myself|on my own)\b")
_PAIR = re.compile(r"\b(?:a couple|the pair of us|both of us)\b")
_PEOPLE = (
    _ALONE,
    _PAIR,
    re.compile(rf"\b{_N} adults?,? (?:and|plus) {_N} (?:children|kids|babies|child|kid|baby)\b"),
    re.compile(rf"\bme (?:and|plus) {_N}(?: others| more| friends)?\b"),
    re.compile(rf"\b{_N}(?: \w+)? {_FOLK}\b"),
    re.compile(
        rf"\b(?:party|group|table|family|we'?re|we are|we'?ll be|will be) (?:of |for )?{_N}\b"
    ),
    re.compile(rf"\bfor {_N}\b"),
    re.compile(rf"\b(?:make (?:it|that)|be|no|not?|it's|actually|sorry|rather) {_N}\b"),
)
_NAME = re.compile(
    r"\b(?:my name is|my name's|the name is|the name's|name is|name's|under the name(?: of)?"
    r"|in the name of|the name of|call me|under|i am|i'm|it's|it is|this is|that's|for|name)\s+"
    r"((?:mr|mrs|ms|miss|dr)\.? )?([^\W\d_][\w'-]*(?: [^\W\d_][\w'-]*)?)",
    re.IGNORECASE,
)
_SURE = re.compile(r"name|call me", re.IGNORECASE)
_COMMON = (
    "yes yeah yep no nope not okay ok please thanks thank hello hi hey bye goodbye sorry "
    "today tonight tomorrow noon midday evening morning a an the i i'm it it's is we you me "
    "my he she they that this there what when where why how who which and or but for of on at "
    "in to with just only well um uh hmm er oh so actually right correct sure fine great good "
    "perfect looking calling booking table people person half past quarter o'clock do does "
    "did can could would will are am want need like have has book reserve name names day time "
    "number all one's think know don't didn't still here make change wait let sounds wrong "
    "again repeat pardon next that's nothing something everything anything don maybe perhaps "
    "afraid going ready done interested about under up twenty thirty forty fifty pm us our "
    "your their nice lovely never forget cancel excuse huh hang once come say see course "
    "shall tell give hold mind nah yup cheers any ask"
)
_NOT_NAMES = frozenset([*_COMMON.split(), *_ONES, *_TENS, *_DAYS.split("|"), *_MONTHS.split("|")])


def plain(text: str) -> str:
    """Lower case, one space, no punctuation but in ``7:30``, ``7.30``, ``o'clock``, ``-``."""
    text = text.lower().replace("\u2019", "'")
    text = re.sub(r"\b([ap])\.?\s?m\b\.?", r"\1m", text)
    text = re.sub(r"(?<=\d)(?=[ap]m\b)", " ", text)
    text = re.sub(r"(?<!\d)[:.]|[:.](?!\d)|[^\w\s:.'-]|_", " ", text)
    return " ".join(text.split())


def number(text: str) -> int | None:
    """0 to 99 from digits or words ("12", "twenty one"); None for anything else."""
    text = text.strip().replace("-", " ")
    if text.isascii() and text.isdigit() and len(text) <= 2:
        return int(text)
    tens, _, unit = text.partition(" ")
    if tens in _TENS and (not unit or 0 < _ONES.get(unit, 0) < 10):
        return _TENS[tens] + _ONES.get(unit, 0)
    return _ONES.get(text)


def spoken_number(n: int) -> str:
    """0 to 99 in words; the inverse of `number`."""
    if n < 20:
        return _WORDS[n]
    tens = next(word for word, value in _TENS.items() if value == min(n // 10 * 10, 90))
    return f"{tens}-{_WORDS[n % 10]}" if n % 10 else tens


def clock(hour: int, minute: int, half: str) -> int | None:
    """Minutes since midnight. Without a hint, hours below 12 are those of the evening."""
    if hour > 23 or minute > 59:
        return None
    if half in ("am", "in the morning"):
        return (hour % 12) * 60 + minute if hour <= 12 else None
    if hour < 12:
        hour += 12
    return hour * 60 + minute


def mentions(text: str, asked: str = "") -> Mentions:
    """Read one utterance.

    Args:
        text: the transcript as it came; its capitals help with names.
        asked: the slot that the agent asked for, whose bare value ("Seven.") is then enough.
    """
    day, rest = _latest(_DATES, _DENIED.sub(",", plain(text)), _say_day)
    minutes, rest = _latest(_TIMES, rest, _time)
    people, rest = _latest(_PEOPLE, rest, _count)
    bare = re.search(rf"\b{_N}\b", rest)
    value = number(bare[1]) if bare else None
    if value is not None and asked == "people" and people is None:
        people = value
    elif value is not None and asked == "time" and minutes is None:
        minutes = clock(value, 0, "")
    elif value is not None and asked == "day" and day is None and 1 <= value <= 31:
        day = f"the {ordinal(value)}"
    return Mentions(day, minutes, people, _name(text, asked == "name"))


def ordinal(n: int) -> str:
    """5 -> "5th"."""
    return f"{n}{'th' if 10 < n % 100 < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def _latest[Value](
    patterns: Iterable[re.Pattern[str]], text: str, read: Callable[[re.Match[str]], Value | None]
) -> tuple[Value | None, str]:
    """The value mentioned last, and the text with every mention blanked out, lengths kept."""
    best: tuple[int, Value] | None = None
    for pattern in patterns:
        for found in pattern.finditer(text):
            value = read(found)
            if value is not None and (best is None or found.start() > best[0]):
                best = (found.start(), value)
        text = pattern.sub(lambda match: "," * len(match[0]), text)
    return (best[1] if best else None), text


def _nth(text: str) -> int | None:
    text = text.strip().replace("-", " ")
    if text[:1].isdigit():
        return number(text[:-2])
    tens, _, unit = text.rpartition(" ")
    value = _ORDINALS.get(unit)
    return None if value is None else _TENS.get(tens, 0) + value


def _say_day(found: re.Match[str]) -> str | None:
    words = [word for word in found.groups() if word] or [found[0]]
    month = next((word for word in words if word in _MONTHS.split("|")), "")
    for word in words:
        value = _nth(word)
        if value is None and month and word != month:
            value = number(word)
        if value is not None:
            if not 1 <= value <= 31:
                return None
            return f"{month.title()} {ordinal(value)}" if month else f"the {ordinal(value)}"
    if words[-1] in _DAYS.split("|"):
        return " ".join([*words[:-1], words[-1].title()])
    return words[0] if words[0].startswith("the ") or " " not in words[0] else f"the {words[0]}"


def _spoken(found: re.Match[str]) -> int | None:
    share = {"half": 30, "quarter": 15}.get(found[1]) or number(found[1])
    hour = number(found[3])
    if share is None or hour is None:
        return None
    if found[2] != "to":
        return clock(hour, share, found[4] or "")
    full = clock(hour, 0, found[4] or "")
    return None if full is None else (full - share) % 1440


def _digits(found: re.Match[str]) -> int | None:
    hour = number(found[1])
    minute = number(found[2]) if found[2] else 0
    return None if hour is None or minute is None else clock(hour, minute, found[3] or "")


def _time(found: re.Match[str]) -> int | None:
    if found.re is _NOON:
        return 12 * 60
    return _spoken(found) if found.re in _SPOKEN else _digits(found)


def _count(found: re.Match[str]) -> int | None:
    if found.re is _ALONE:
        return 1
    if found.re is _PAIR:
        return 2
    numbers = [number(group) or 0 for group in found.groups() if group]
    return sum(numbers) + (1 if found[0].startswith("me ") else 0)


def _name(text: str, asked: bool) -> str | None:
    """A name that is introduced, or stands alone in answer to the question for it."""
    text = text.replace("\u2019", "'")
    best = None
    for found in _NAME.finditer(text):
        sure = asked or _SURE.search(found[0][: found.start(2) - found.start()]) is not None
        best = _proper(found[2].split(), sure) or best
    if best or not asked:
        return best
    first = re.split(r"[,.!?;]", text.strip(), maxsplit=1)[0].split()
    if 1 <= len(first) <= 3 and all(re.fullmatch(r"[^\W\d_][\w'-]*", word) for word in first):
        return _proper(first, True)
    return None


def _proper(words: list[str], sure: bool) -> str | None:
    """The leading words that can be a name; unless it is `sure`, they must be capitalised."""
    kept: list[str] = []
    for word in words:
        if word.lower() in _NOT_NAMES or not (sure or word[0].isupper()):
            break
        kept.append(word if word[0].isupper() else word.capitalize())
    return " ".join(kept) or None
