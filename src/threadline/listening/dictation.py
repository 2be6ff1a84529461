"""Is the caller dictating? A number, a date, a spelling or an e-mail address that is not whole.

People pause between the groups of a telephone number for longer than between two sentences, and
each group sounds finished. So the text decides: as it stands in the middle of a turn, from a
recogniser that may write digits as words or numerals, with or without hyphens.
"""

from __future__ import annotations

import re
from enum import Enum, auto


class Dictated(Enum):
    """What a text ends in."""

    NOTHING = auto()  # something else
    HALF = auto()  # more must follow
    OPEN = auto()  # a spelling, a number of no fixed length: may be all of it, or not
    WHOLE = auto()  # a number as long as such numbers are


_ONES = "zero one two three four five six seven eight nine"
_DIGITS = {word: str(value) for value, word in enumerate(_ONES.split())} | {"oh": "0", "o": "0"}
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TIES = "twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = {word: str(value) for value, word in enumerate(_TEENS.split(), 10)}
_TENS |= {word: f"{value}0" for value, word in enumerate(_TIES.split(), 2)}
_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"

_LENGTHS = {  # digits of a whole one; none: any
    r"(?:phone|mobile|cell|telephone|callback|contact|fax)(?: number)?": (7, 10, 11, 12),
    r"(?:call|reach|text) me (?:at|on)|my number": (7, 10, 11, 12),
    r"(?:credit|debit|visa|gift) ?card|card (?:number|is)": (15, 16),
    r"social security": (9,),
    r"(?:zip|postal|post) ?code|zip": (5, 9),
    r"(?:account|order|reference|confirmation|booking|reservation|policy|member(?:ship)?|tracking"
    r"|serial|passport|licen[cs]e|customer|case|ticket|invoice|routing) (?:number|code|id|is)": (),
}
_CONTEXTS = [
    # what it is said to be stands right before it, but for a few words
    (re.compile(rf"\b(?:{words})(?:[ ,.:]|\b(?:number|is|it's|that's|um|uh|at|the)\b)*$"), lengths)
    for words, lengths in _LENGTHS.items()
]
_BIRTH = re.compile(r"\b(?:born|birthday|birth ?date|date of birth|d ?o ?b|expir\w+)\b(.*)")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b|\b(?:nineteen|twenty|two thousand)\b.*\w|\d[/-]\d+[/-]\d")

_FAR = 300  # characters from the end that are looked at
_LONE_HALVES = (3, 6, 8, 12)  # of a number that nothing was said about: where people pause
_LONE_WHOLES = (10, 11, 15, 16)  # a telephone or card number
_QUANTITY = re.compile(
    r"\b(?:at|by|around|about|until|till|from|before|after|room|extension|suite|apartment|flight"
    r"|unit|press|option|table for|party of|page|gate|bus|line|version|the|a) $"
)
_GROUP = re.compile(r"\d+(?:[.:,/]\d+)*|[a-z']+")
_LEAD = re.compile(
    r"^(?:(?:it's|it is|that's|that is|that would be|this is|is|yes|yeah|yep|sure|okay|ok|um|uh|so"
    r"|well|the number|number|and|then)\b[ ,.]*)*"
)

_LETTERS = re.compile(r"(?:^|[\s,.-])((?:[a-z][\s,.-]+){1,30}[a-z])$")
_ALIKE = re.compile(r"(?:^| )[a-z](?: is|,)? (?:as in|like in|for) (\w+)$")
_AS_IN = re.compile(r"(?:^| )[a-z](?:,| is)? (?:as in|like in|is for)$")
_NAMES_OF_TWO = ("am", "pm", "us", "uk", "eu", "id", "tv", "pc", "ok", "dc", "ny", "la", "dj")

_ADDRESS = re.compile(
    r"\be ?-?mail(?: address)? (?:is|it's|would be) "
    r"(?!fine|ok|good|best|better|great|on|the|not)(.*)"
    r"|(\S+ ?@.*|\S+ at (?:gmail|yahoo|hotmail|outlook|icloud)\b.*)"
)
_DOMAIN = re.compile(r"(?:@|\bat ).*(?:\.|\bdot )(?:[a-z]{2,4})\b")

_ENDS_IN_MONTH = re.compile(rf"\bon (?:{_MONTHS})$")


def dictated(text: str) -> Dictated:
    """What the text of an unfinished turn ends in, by what is dictated there."""
    plain = re.sub(r"\s+", " ", text.lower().replace("\u2019", "'")).strip()
    open_end = plain.endswith(("-", "\u2013"))
    plain = plain.rstrip(" .,?!-\u2013")[-_FAR:]
    if not plain:
        return Dictated.NOTHING
    for look in (_address, _date, _spelling, _number):
        found = look(plain)
        if found is not Dictated.NOTHING:
            return Dictated.HALF if open_end else found
    return Dictated.NOTHING


def _address(plain: str) -> Dictated:
    found = _ADDRESS.search(plain)
    if found is None:
        return Dictated.NOTHING
    said = (found[2] if found[1] is None else found[1]).strip()
    whole = _DOMAIN.search(said)
    if whole is None:
        return Dictated.HALF
    return Dictated.WHOLE if whole.end() == len(said) else Dictated.NOTHING


def _date(plain: str) -> Dictated:
    birth = _BIRTH.search(plain)
    if birth and any(
        word[0].isdigit() or word in _MONTHS.split("|") for word in _GROUP.findall(birth[1])
    ):
        return Dictated.WHOLE if _YEAR.search(birth[1]) else Dictated.HALF
    return Dictated.HALF if _ENDS_IN_MONTH.search(plain) else Dictated.NOTHING


def _spelling(plain: str) -> Dictated:
    if _AS_IN.search(plain):
        return Dictated.HALF
    if _ALIKE.search(plain):
        return Dictated.OPEN
    found = _LETTERS.search(plain)
    if found is None:
        return Dictated.NOTHING
    letters = re.sub(r"[^a-z]", "", found[1])
    if letters in _NAMES_OF_TWO or letters in ("a", "i"):
        return Dictated.NOTHING
    said = re.findall(r"[a-z]{2,}", plain[: found.start()])
    if letters in said:
        return Dictated.WHOLE  # "Smith, S-M-I-T-H"
    begun = any(word.startswith(letters) for word in said)
    return Dictated.HALF if begun or len(letters) == 2 else Dictated.OPEN


def _number(plain: str) -> Dictated:
    groups, start = _trailing(plain)
    if not groups:
        return Dictated.NOTHING
    before = plain[:start]
    count = sum(map(len, groups))
    for context, lengths in _CONTEXTS:
        if context.search(before):
            if before.endswith(" at ") and count < 3:
                return Dictated.NOTHING  # "call me at 5"
            if count in lengths or count > max(lengths, default=count):
                return Dictated.WHOLE
            return Dictated.HALF if lengths or count < 3 else Dictated.OPEN
    alone = _LEAD.sub("", before).strip(" ,.") == ""
    dictating = len(groups) > 2 or (len(groups) == 2 and min(map(len, groups)) > 2)
    dictating = dictating or len(groups[-1]) > 5
    if _QUANTITY.search(before) or not (dictating or (alone and count > 2 and len(groups) != 2)):
        return Dictated.NOTHING
    if dictating and count in _LONE_HALVES:
        return Dictated.HALF
    return Dictated.WHOLE if count in _LONE_WHOLES else Dictated.OPEN


def _trailing(plain: str) -> tuple[list[str], int]:
    """The groups of digits at the end of the text, and where in it the first begins."""
    groups: list[str] = []
    start = len(plain)
    for found in reversed(list(_GROUP.finditer(plain))):
        word = found[0]
        if word.isdigit():
            groups.append(word)
        elif word in _DIGITS:
            groups.append(_DIGITS[word])
        elif word in _TENS:
            unit = groups[-1] if groups else ""
            if len(unit) == 1 and unit != "0" and _TENS[word][1] == "0" and _TENS[word] != "10":
                groups[-1] = _TENS[word][0] + unit  # "twenty five"
            else:
                groups.append(_TENS[word])
        elif word in ("double", "triple") and groups:
            groups[-1] = groups[-1][0] * (1 if word == "double" else 2) + groups[-1]
        elif re.fullmatch(r"\d{3}(?:,\d{3,4})+", word):  # how some write "555, 1234"
            groups += reversed(word.split(","))
        else:
            break
        start = found.start()
    return groups[::-1], start
