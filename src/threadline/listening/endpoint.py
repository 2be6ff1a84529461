"""How much silence ends the turn: what the sound says, unless the words say better.

The sound is `SmartTurn`'s probability. The words are those of the turn so far, as a recogniser
writes them, when it was quick enough. They overrule the sound in both directions: nobody has
finished who stops at "and" or in the middle of a telephone number, however it sounds, and
"no, thank you" is an answer even when it sounds as if more were to come. Where the words say
nothing, the sound decides; where neither is known, the silence must be long. The silences and the
threshold are `config.Endpoint`'s, chosen by measurement: docs/endpointing.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..config import Endpoint
from .dictation import Dictated, dictated


@dataclass(frozen=True, slots=True)
class Decision:
    """The turn is over after this silence, unless speech comes first. `why` is for the record."""

    silence_ms: int
    why: str


def decide(config: Endpoint, probability: float | None, text: str | None) -> Decision:
    """What this pause is worth.

    Args:
        config: the silences, and the threshold.
        probability: that the turn is complete, by its sound; None: not known.
        text: of the turn so far, by a recogniser; None or empty: not known.

    Of `why`: "complete" and "sounds unfinished" are the sound's; "silence" says that nothing was
    known, or that silence alone is to decide; every other one is the words'.
    """
    if config.mode == "silence":
        return Decision(config.complete_ms, "silence")
    complete = probability is not None and probability >= config.threshold
    match dictated(text or ""):
        case Dictated.HALF:
            return Decision(config.dictation_ms, "dictating")
        case Dictated.OPEN if not complete:
            return Decision(config.dictation_ms, "dictating")
    if why := unfinished(text or ""):
        return Decision(config.patient_ms, why)
    if answers(text or ""):
        return Decision(config.complete_ms, "answer")
    if probability is None:
        return Decision(config.patient_ms, "silence")
    if complete:
        return Decision(config.complete_ms, "complete")
    return Decision(config.patient_ms, "sounds unfinished")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILLERS = _words("um uh erm er uhm umm uhh hmm hm mmm ah eh")
_CONJUNCTIONS = _words("and but or nor because cause 'cause if unless whether although plus except")
_ARTICLES = _words("a an the my your our their every very")
_PREPOSITIONS = _words(
    "of to for from with at by into onto between per than via without during towards toward"
)
_SUBJECTS = _words(
    "i i'm i'll i'd i've we're we'll we'd we've you're you've you'll they're they've it's that's "
    "there's here's what's where's who's how's let's he's she's he'll she'll name's"
)
_VERBS = frozenset(("is", "are", "was", "were"))  # "my number is", but not "I know where it is"
_PRONOUNS = _words("it that this he she they we you i there those these here everything all")
_BEGINNINGS = ("that is", "this is", "there is", "there are", "here is", "these are", "those are")
_WISHES = re.compile(
    r"\b(?:let me (?:see|think|check|look|find out|get it|get that)|(?:hold|hang) on|bear with me"
    r"|(?:one|a|just a|just one) (?:second|sec|moment|minute)(?: please)?)$"
)
_OPENINGS = re.compile(
    r"^(?:(?:and|so|but|okay|ok|yes|yeah|well|um|uh|hi|hello|actually|no) )*"
    r"(?:(?:can|could|would|will|do|does|did|is|are|was|were|should|may|have) (?:you|i|we|they|it"
    r"|there|he|she)|i (?:want|need|think|mean|wonder|was wondering|just)"
    r"|(?:i would|i'd|we'd|we would) like|you know|i mean|and then|well|so|actually|like)$"
)
_SO = re.compile(
    r"\b(?:think|hope|guess|suppose|say|believe|do|or|not|afraid|said|if|even|just) so$"
)
_ASKS = re.compile(r"\b(?:what|who|whom|which|where|how|when|why|whose)(?:'s|'re)?\b")
_MARKS = re.compile(r"(?<=[.?!])\s+")
_TOKEN = re.compile(r"'?[a-z0-9]+(?:'[a-z]+)?")


def unfinished(text: str) -> str:
    """Why nobody stops here, in a word or two; "" when one might."""
    plain = text.lower().replace("\u2019", "'").strip()
    if plain.endswith(("...", "\u2026", "-", "\u2013", "\u2014", ",")):
        return "trails off"
    sentence = _MARKS.split(plain)[-1]
    words = _TOKEN.findall(sentence)
    if not words:
        return ""
    last, said = words[-1], " ".join(words)
    before = words[-2] if len(words) > 1 else ""
    if last in _FILLERS and said not in ("uh huh", "mm hmm", "mm hm"):
        return "filler"
    if _WISHES.search(said):
        return "asks to wait"
    if last in _CONJUNCTIONS or (last == "so" and not _SO.search(said)):
        return "conjunction"
    if last in _ARTICLES:
        return "article"
    if last in _PREPOSITIONS and not _ASKS.search(said):  # "Who is it for?"
        return "preposition"
    if last in _SUBJECTS or (last in _VERBS and (before not in _PRONOUNS or said in _BEGINNINGS)):
        return "verb missing"
    return "opening" if _OPENINGS.search(said) else ""


_ANSWERS = re.compile(
    r"(?:(?:oh|um|uh|well|okay|ok|and|great|so) )*"
    r"(?:(?:(?:yes|yeah|yep|yup|no|nope|nah)(?: (?:i|it|he|she|they|we|that) (?:do|am|did|have"
    r"|would|can|will|is|does|are|was|don't|didn't|haven't|can't|isn't|doesn't)| please)?"
    r"|sure|okay|ok|right|correct|exactly|absolutely|definitely|certainly|of course|all right"
    r"|alright|that's right|that's correct|that is correct|that's it|that's all|that is all"
    r"|that's everything|that will be all|that'll be all|nothing else|nothing|not really|not yet"
    r"|i think so|i guess so|i don't know|i'm not sure|please do|thank you(?: very much| so much)?"
    r"|thanks(?: a lot| so much)?|sounds good|that works|perfect|great|fine|that's fine"
    r"|goodbye|good bye|bye|bye bye|never mind)(?: |$)){1,4}"
    r"(?:(?:sir|ma'am|then|for now|actually)(?: |$))?"
)


def answers(text: str) -> bool:
    """Whether the whole text is a short answer that needs nothing after it."""
    words = _TOKEN.findall(text.lower().replace("\u2019", "'"))
    return _ANSWERS.fullmatch(" ".join(words)) is not None
