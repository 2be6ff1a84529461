"""Text a model wrote, as text a voice can say.

``speakable`` takes out what is meant for eyes. It looks at no more than a token, or a line's
beginning, so a text gives the same words whether it is cleaned whole or clause by clause.
``spell_out`` is for a voice that reads numbers badly; vendors' voices do it themselves.
"""

from __future__ import annotations

import re

# Pictographs, dingbats, arrows, box drawing, and the joiners and selectors between them.
EMOJI = (
    "\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2190-\u21ff\u2300-\u25ff"
    "\u203c\u2049\u2139\u2934\u2935\u3030\u303d\u3297\u3299"
    "\ufe0e\ufe0f\u200b-\u200d\u2060\u20e3\U000e0000-\U000e007f"
)
_RULE = re.compile(r"^[^\S\n]*(?:[-*_=|:][-*_=|: ]{2,}|`{3,}\w*)[^\S\n]*$", re.M)
_LINE_MARK = re.compile(r"^[^\S\n]*(?:(?:[-*+•‣◦]|#{1,6}|>+)[^\S\n]+)+(?:\[[ xX]\][^\S\n]+)?", re.M)
_LINK_TARGET = re.compile(
    r"\]\((?:[^\s()]|\([^\s()]*\))*\)"
)  # of [shown](target), only `shown` is said
_SCHEME = re.compile(r"\bhttps?://(?:www\.)?")
_BRACKETED = re.compile(r"<(?:mailto:)?([^\s<>]+[.@][^\s<>]+)>")  # a bare address
_TAG = re.compile(r"</?[a-zA-Z]\w*/?>")
_MARK = re.compile(r"!(?=\[)|[*`~|\\\[\]]+|(?<![^\W_])_+|_+(?![^\W_])")
_EMOJI = re.compile(f"[{EMOJI}]+")
_RANGE = re.compile(r"(?<=\d)–(?=\d)")  # noqa: RUF001  # an en dash: 9 to 5
_DASH = re.compile(r"\s*(?:—|--+)\s*|\s+[-–](?=\s|$)")  # noqa: RUF001  # the en dash is meant
_SPACED_MARK = re.compile(r"\s+(?=[.,;:!?…]+(?:\s|$))")
_COMMAS = re.compile(r"([.!?…;:,]),+")  # a dash after a mark
_LEADING = re.compile(r"^(?:[ ,;:!?…)]|\.(?!\d))+")


def speakable(text: str) -> str:
    """One line without Markdown, tags, link targets, emoji; dashes are commas. May be empty.

    Empty means that there is nothing to say: no letter and no digit is left.
    """
    text = _RULE.sub("", text)
    text = _LINE_MARK.sub("", text)
    text = _LINK_TARGET.sub("", text)
    text = _BRACKETED.sub(r"\1", text)
    text = _SCHEME.sub("", text)
    text = _TAG.sub(" ", text)
    text = _MARK.sub("", text)
    text = _EMOJI.sub(" ", text)
    text = _RANGE.sub(" to ", text)
    text = _DASH.sub(", ", text)
    text = _SPACED_MARK.sub("", " ".join(text.split()))
    text = _LEADING.sub("", _COMMAS.sub(r"\1", text), count=1)
    return text if any(map(str.isalnum, text)) else ""


# What a full stop may follow without ending the sentence. After those in _TITLES it never does;
# after the others it does when no small letter and no digit follows.
_TITLES = re.compile(
    r"dr|mr|mrs|ms|mx|prof|st|mt|gen|rev|hon|sgt|capt|lt|col|gov|sen|rep|pres"
    r"|e\.g|i\.e|vs|approx|fig|cf|ph\.d|m\.sc|b\.sc|al",
    re.I,
)
_SHORTENED = re.compile(
    r"a\.m|p\.m|etc|inc|ltd|co|corp|jr|sr|ave|blvd|rd|apt|dept|ext|tel|est|nos?|vol|max"
    r"|mi|km|ft|lbs?|oz|hrs?|mins?|secs?|pp?|sq|hwy|esq"
    r"|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tues?|weds?|thu(?:rs?)?|fri|sat|sun",
    re.I,
)
_INITIALS = re.compile(r"(?!I$)[A-Za-z](?:\.[A-Za-z])*")  # J. as in J. Smith, U.S.; not "I."
_OPENING = "\"'([{*_`~“‘"  # noqa: RUF001  # curly quotes are meant


def stop_ends(before: str, after: str) -> bool | None:
    """Whether one full stop between ``before`` and ``after`` ends a sentence.

    ``after`` is what follows the stop and its closing quotes. None: only the next visible
    character can tell, and ``after`` does not have it yet.
    """
    word = re.split(r"[\s-]", before.rstrip())[-1].lstrip(_OPENING)
    if _SHORTENED.fullmatch(word):
        visible = after.lstrip(" \t\r").lstrip(_OPENING)[:1]
        return not (visible.islower() or visible.isdigit()) if visible else None
    return not (_TITLES.fullmatch(word) or _INITIALS.fullmatch(word))


_PHONE = re.compile(r"(?:\(\d{3}\) ?|\b\d{3}[-. ])?\b\d{3}[-.]\d{4}\b")
_CODE = re.compile(r"(?<![\d.,$])\d{5,}(?![,.]?\d)")
_MONEY = re.compile(r"\$(\d[\d,]*)(?:\.(\d+))?(?: (thousand|million|billion)\b)?")
_CLOCK = re.compile(r"(?<![\d:])(\d{1,2}):(\d\d)(?![\d:])(?=( ?[ap]\.?m\b)?)", re.I)
_SPAN = re.compile(r"(?<![\d-])(\d{1,2})-(\d{1,2})(?![\d-])")


def _digits(match: re.Match[str]) -> str:
    return ", ".join(" ".join(group) for group in re.findall(r"\d+", match[0]))


def _money(match: re.Match[str]) -> str:
    whole, part, scale = match.groups()
    if scale or (part and len(part) != 2):
        return " ".join(filter(None, [f"{whole}.{part}" if part else whole, scale, "dollars"]))
    said = f"{whole} dollar" if whole == "1" else f"{whole} dollars"
    return f"{said} and {int(part)} cents" if part and int(part) else said


def _clock(match: re.Match[str]) -> str:
    hour, minute, half = match.groups()
    if minute == "00":
        return hour if half else f"{hour} o'clock"
    return f"{hour} oh {minute[1]}" if minute[0] == "0" else f"{hour} {minute}"


def spell_out(text: str) -> str:
    """English text with money, clock times, phone numbers, long codes and ranges as spoken."""
    text = _PHONE.sub(_digits, text)
    text = _CODE.sub(_digits, text)
    text = _MONEY.sub(_money, text)
    text = _CLOCK.sub(_clock, text)
    text = _SPAN.sub(r"\1 to \2", text)
    return re.sub(r"#(?=\d)", "number ", text)
