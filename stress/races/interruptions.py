"""After a clear, no frame of an older epoch; and what was heard before it is known exactly.

Sixty-four calls on real WebSockets, with the production io-calls and pacer threads between a fake
vad, which interrupts as soon as a few frames were heard, and a fake reply, which learns of it
late. Every message of every call is checked where it arrives. An interruption counts when its
clear came out at the far end of a socket; the quick run makes 100,000 of them.

ACCEPTABLE  frames of the old epoch before the clear; epochs without a single frame; a floor taken
            twice before io-calls looked, with one clear for both.
FORBIDDEN   a frame or mark of an older epoch after the clear; a frame of a newer one without a
            clear between them; a clear while nothing sounds; a frame lost, doubled or out of
            order within its epoch, or of another call; frames pushed != heard + dropped as stale
            + in flight; a cut that reports another clause or more or less audio than had come out
            of the socket, and a ledger that takes other words for heard than were sent.

Perturbed   one io-calls thread or two; rings of 1 to 5 cells and of 128; cursors next to the wrap;
            yields at each access and wake; bursts of the pacer's clock; anything of perturb.py.
Seed        draws all of these, the interruptions and what is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from threadline.talking.heard import heard_part

from ..bout import Bout
from ..perturb import Yields, disturbed
from ..phones import Exchange, Phone, Told
from ..switchboard import Switchboard, Talk, switchboard, text_of

WHAT = "after a clear no older frame; heard words exact"
LIMIT = 400.0

CALLS = 64
FULL = 8  # of them read by the websockets package
INTERRUPTIONS = 100_000
ROUNDS = 10
EXCHANGES = 2


def run(bout: Bout) -> None:
    wanted, rounds = bout.many(INTERRUPTIONS), max(2, bout.many(ROUNDS))
    for number in range(rounds):
        # Yields at each access are slow: every fourth round, with a tenth of the share.
        yields = Yields(bout, 0.01) if number % 4 == 3 else None
        left = wanted - bout.counts["interruptions"]
        share = -(-left // (rounds - number))
        share = share if yields is None or number == rounds - 1 else share // 10
        bout.setting = f"round {number}, {'yields' if yields else 'no yields'}"
        with disturbed(bout):
            _round(bout, share, yields)
        bout.count(rounds=1)


def _round(bout: Bout, wanted: int, yields: Yields | None) -> None:
    before = dict(bout.counts)
    threads = bout.rng.choice((1, 2))
    with switchboard(bout, CALLS, yields, threads=threads) as board:
        exchanges = [Exchange() for _ in range(EXCHANGES)]
        phones = [_phone(bout, board, number, exchanges) for number in range(CALLS)]
        for number, exchange in enumerate(exchanges):
            board.crew.loop(f"exchange-{number}", exchange.turn)
        board.crew.wait(lambda: len(board.reply.talks) == CALLS, "all calls are open")
        board.crew.loop("vad", _vad(bout, board, phones, yields))

        def cleared() -> bool:
            board.check()
            clears = sum(phone.clears for phone in phones)
            done = {"interruptions": clears, "frames": sum(phone.frames for phone in phones)}
            bout.count(**{n: before.get(n, 0) + c - bout.counts[n] for n, c in done.items()})
            return clears >= wanted

        board.crew.wait(cleared, f"{wanted} clears", timeout=LIMIT)
        board.reply.hush = True
        _settle(bout, board, phones)
        for phone in phones:
            talk = next(t for t in board.reply.talks.values() if t.number == phone.number)
            _compare(bout, phone, talk)
        full = sum(phone.clears for phone in phones if phone.full)
        stale = board.pacer.stale, board.stale
        cuts = sum(len(talk.cuts) for talk in board.reply.talks.values())
    for exchange in exchanges:
        exchange.close()
    bout.count(
        of_them_by_a_full_client=full, cuts=cuts, stale_at_pacer=stale[0], stale_at_io=stale[1]
    )


def _phone(bout: Bout, board: Switchboard, number: int, exchanges: list[Exchange]) -> Phone:
    phone = Phone(bout, number, board.address, full=number < FULL)
    phone.keeps_marks = number % 2 == 0
    bout.expect(phone.upgrade() == 101, f"phone {number} was refused")
    phone.start()
    exchanges[number % len(exchanges)].add(phone)
    return phone


def _vad(
    bout: Bout, board: Switchboard, phones: list[Phone], yields: Yields | None
) -> Callable[[], None]:
    rng = bout.draws("vad")
    patience = [rng.randrange(1, 6) for _ in phones]
    asked = [-1] * len(phones)  # clears a phone had when it was last interrupted

    def turn() -> None:
        for slot, talk in list(board.reply.talks.items()):
            if board.reply.hush:
                return
            phone = phones[talk.number]
            # Mostly when something was heard, so that there is something to clear; now and then
            # at once again, or in the silence between.
            due = phone.fresh >= patience[slot] and phone.clears != asked[slot]
            if not due and rng.random() > 0.0005:
                continue
            patience[slot] = rng.randrange(1, 5) if rng.random() < 0.95 else rng.randrange(1, 20)
            if board.interrupt(talk.call, rng, yields):
                asked[slot] = phone.clears
        time.sleep(0.0002)

    return turn


def _settle(bout: Bout, board: Switchboard, phones: list[Phone]) -> None:
    """Wait until every record has come to its end, and count them."""
    board.crew.wait(lambda: board.in_flight == 0, "what was said is heard or dropped")

    def accounted() -> bool:
        # END_OF_REPLY is a record, too, and comes out as a mark.
        return board.reply.pushed == (
            board.frames + _ends(phones) + board.pacer.stale + board.stale
        ) and board.frames == sum(phone.frames for phone in phones)

    try:
        board.crew.wait(accounted, "the books are closed", timeout=10)
    except AssertionError:
        bout.forbid(
            f"{board.reply.pushed} pushed, but {sum(p.frames for p in phones)} frames and "
            f"{_ends(phones)} ends heard, {board.frames} sent, "
            f"{board.pacer.stale} + {board.stale} stale"
        )


def _ends(phones: list[Phone]) -> int:
    return sum(phone.ends for phone in phones)


def _compare(bout: Bout, phone: Phone, talk: Talk) -> None:
    """What reply was told of each cut, and made of it, against what the phone was sent."""
    for epoch, (clause, played_ms) in talk.cuts.items():
        told = phone.epochs.get(epoch, Told())
        heard = told.clause, told.frames * 20
        same = (clause, played_ms) == heard
        bout.expect(same, f"call {phone.number}: cut {clause, played_ms} ms, but heard {heard}")
    for clause, length in talk.lengths.items():
        epoch = talk.epochs[clause]
        if epoch not in talk.cuts:
            continue  # still on, or skipped: two floors taken at once
        told = phone.epochs.get(epoch, Told())
        text, frames = text_of(clause, length), told.clauses.get(clause, 0)
        right = text if clause < told.clause else heard_part(text, frames * 20, length * 20)
        found = talk.ledger.text(clause)
        bout.expect(
            found == right,
            f"call {phone.number}, clause {clause} of epoch {epoch}: {frames} of {length} frames "
            f"were heard, so {right!r}, but the ledger has {found!r}",
        )
