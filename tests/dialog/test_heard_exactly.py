"""A thousand interruptions of a conversation, on a wire that is exact: the model is told the very
words that were played, whatever guards took out and wherever the caller broke in."""

from __future__ import annotations

from collections import deque
from random import Random

from one_call import TOOLED, Call, greeted

from threadline.dialog.events import (
    Ask,
    AskDone,
    ClauseHeard,
    ClauseSpoken,
    Cut,
    Delta,
    Drop,
    Guarded,
    Say,
    TookFloor,
    TurnEnded,
)
from threadline.dialog.history import Message

FRAME = 20


def words_of(text: str, random: Random) -> tuple[tuple[tuple[str, int], ...], int]:
    """The words as a voice speaks them, and how long the clause is, in whole frames."""
    at, words = random.randrange(100), []
    for token in text.split():
        at += random.randint(20, 500)
        words.append((token.strip('.,"').lower(), at))
    return tuple(words), -(-(at + random.randrange(100)) // FRAME) * FRAME


def play(call: Call, random: Random, queue: deque[Say]) -> tuple[list[str], int, int]:
    """Play until the caller breaks in: what he heard, and the clause on the wire, so far."""
    left = random.randrange(0, 6000) // FRAME * FRAME
    heard: list[str] = []
    on_wire = played = 0
    while queue:
        say = queue.popleft()
        if say.guard and random.random() < 0.15:
            stop = random.random() < 0.3
            out = call.tell(Guarded(say.clause, random.choice(["", "Not that."]), stop))
            assert Drop(say.epoch, say.clause) in out
            queue = deque(order for order in out if isinstance(order, Say))
            continue
        words, duration = words_of(say.text, random)
        known = tuple(word for word in words if word[1] <= left + 500)
        whole = duration <= left + 500
        call.tell(ClauseSpoken(say.clause, duration if whole else 0, words if whole else known))
        if left == 0:
            break
        on_wire, played = say.clause, min(left, duration)
        left -= played
        ended = [token for token, (_, end) in zip(say.text.split(), words, strict=True)
                 if end <= played]  # fmt: skip
        heard += ended
        if played < duration:
            break
        if random.random() < 0.7:  # the others' marks are still on the way, and flushed
            call.tell(ClauseHeard(say.epoch, say.clause))
    return heard, on_wire, played


def interruptions(seed: int, count: int) -> int:
    """How often something was cut in the middle; each time the prompt is checked."""
    random = Random(seed)
    call = greeted(TOOLED)
    ask = call.asks(TookFloor(1), TurnEnded(1, "Go on.")).ask
    middles = 0
    for epoch in range(1, count + 1):
        text = "".join(
            f"{' '.join(random.choices(['one', 'two', 'three'], k=random.randint(1, 6)))}. "
            for _ in range(random.randint(1, 5))
        )
        out = call.tell(Delta(ask, text), *([AskDone(ask)] if random.random() < 0.7 else []))
        queue = deque(order for order in out if isinstance(order, Say))
        said = sum(len(order.text.split()) for order in queue)
        heard, on_wire, played = play(call, random, queue)
        middles += 0 < len(heard) < said
        facts = [TookFloor(epoch + 1), Cut(epoch, on_wire, played)]
        random.shuffle(facts)
        out = call.tell(*facts, TurnEnded(epoch + 1, "Go on."))
        (request,) = [order for order in out if isinstance(order, Ask)]
        ask = request.ask
        told = request.messages[-2:] if heard else request.messages[-1:]
        if heard:
            assert told[0] == Message("assistant", " ".join(heard)), (seed, epoch)
        assert told[-1].role == "user"
        assert told[-1].text.endswith("Go on.")
    return middles


def test_a_thousand_interruptions() -> None:
    assert sum(interruptions(seed, 10) for seed in range(100)) > 300
