"""Is it an interruption? What the words of speech over a talking agent say about it."""

from __future__ import annotations

import re
from enum import Enum, auto


class Barge(Enum):
    """What speech over a talking agent is."""

    NOTHING = auto()  # no words: a cough, a door
    BACKCHANNEL = auto()  # "uh-huh": go on talking
    WORDS = auto()  # the caller wants the floor
    STOP = auto()  # "stop", "wait", "no": at once


EARLY = 6
"""Words within which a stop word counts. Later ones are part of what is being said."""

_ASIDE = re.compile(r"\[[^\]]*\]|\([^)]*\)|\*[^*]*\*|♪")  # "[BLANK_AUDIO]", "(coughs)", "*sighs*"
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")

# What Whisper makes of a click or a breath, from the subtitles that it was trained on.
_INVENTED = """
you; thank you for watching; thanks for watching; thank you so much for watching;
please subscribe; subtitles by the amara org community
"""

_BACKCHANNELS = """
uh huh; uhhuh; uh hu; uh hum; um hum; um hmm; unh hunh; mm hmm; mm hm; mm mm; mhm; mhmm; mmhmm;
mmhm; mm; mmm; mmmm; m hm; m hmm; hm; hmm; hmmm; huh; uh; um; uhm; umm; er; ah; ahh; aha; ah ha;
oh; ooh; oho; wow; whoa;
yes; yeah; yea; yah; ya; yep; yup; ok; okay; k; okey dokey; mkay; m'kay; alright; all right; right;
sure; fine; good; great; nice; cool; perfect; lovely; wonderful; awesome; amazing; excellent;
brilliant; fantastic; exactly; absolutely; definitely; totally; certainly; indeed; correct; true;
really; interesting; of course; for sure; sure thing; you bet; fair enough; very good; very nice;
i see; i know; i get it; i got it; i got you; i hear you; i understand; understood; got it; gotcha;
got you; makes sense; that makes sense; it makes sense; sounds good; that sounds good; sounds great;
that's right; that's true; that's fine; that's good; that's great; that's nice; that's okay;
that's correct; it's fine; it's okay; no problem; no worries; no kidding; thanks; thank you;
thank you very much; thank you so much; go on; go ahead; keep going; continue; please continue;
please go on; please go ahead; don't stop; carry on
"""

_STOPS = """
stop; wait; hold on; hold up; hold it; hang on; pause; excuse me; pardon me; sorry to interrupt;
let me stop you; let me interrupt; shut up; be quiet; quiet; hush; silence; enough; never mind;
nevermind; cancel; cut it out; forget it; one second; one sec; one moment; one minute;
just a second; just a sec; just a moment; just a minute; a second please; a moment please;
time out; listen
"""

_NO = frozenset(("no", "nope", "nah"))  # only as what is said first: "there is no hurry"

_NOT_STOPS = "don't wait; can't wait; cannot wait; couldn't wait; won't stop; can't stop"


def _phrases(lines: str) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(phrase.split()) for phrase in lines.split(";") if phrase.split())


_BACK = _phrases(_BACKCHANNELS)
_STOP = _phrases(_STOPS)
_HARMLESS = _phrases(_NOT_STOPS)
_NO_WORDS = _phrases(_INVENTED)
_LONGEST = max(len(phrase) for phrase in _BACK | _STOP | _HARMLESS)


def classify(text: str) -> Barge:
    """What these words over a talking agent are, as far as they are known. Case, punctuation and
    hyphens do not matter; "[noise]" and "(coughs)" are not words."""
    words = _WORD.findall(_ASIDE.sub(" ", text).lower().replace("\u2019", "'"))
    if not words or tuple(words) in _NO_WORDS:
        return Barge.NOTHING
    opening = True  # nothing but backchannels so far
    at = 0
    while at < len(words):
        size, harmless = _match(words, at)
        if harmless:
            opening = opening and tuple(words[at : at + size]) in _BACK
            at += size
            continue
        if at < EARLY and (size or (opening and words[at] in _NO)):
            return Barge.STOP
        opening = False
        at += max(size, 1)
    return Barge.BACKCHANNEL if opening else Barge.WORDS


def _match(words: list[str], at: int) -> tuple[int, bool]:
    """The longest listed phrase that begins here: its words, and whether it stops nothing."""
    for size in range(min(_LONGEST, len(words) - at), 0, -1):
        phrase = tuple(words[at : at + size])
        if phrase in _BACK or phrase in _HARMLESS:
            return size, True
        if phrase in _STOP:
            return size, False
    return 0, False
