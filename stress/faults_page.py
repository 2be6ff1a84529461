"""docs/vendors.md, written anew from the rows of stress/faults.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from .faults_call import ANSWER_SECONDS, CHAINS, CONFIG, Row
from .faults_texts import APOLOGIES

COLUMNS = ("what is wrong", "from when on", "the caller heard", "after ms", "by", "next turn by")


def cells(row: Row) -> tuple[str, ...]:
    """One row, in words."""
    line, later = row.faulted, row.after
    wait = "" if line.wait_ms is None else f"{line.wait_ms:.0f}"
    alone = ", nobody behind it" if row.alone else ""
    after = later.who if later.heard == "an answer" else f"{later.heard} ({later.who})"
    heard = line.heard or "nothing"
    for apology in APOLOGIES:
        if apology in line.words:
            heard += f": {apology}"
    return (f"{row.fault}{alone}", row.phase, heard, wait, line.who, after)


def table(rows: Sequence[Row]) -> Table:
    """For the terminal."""
    made = Table("vendor", *COLUMNS, "verdict", box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        made.add_row(row.vendor, *cells(row), "[red]wrong[/]" if row.problems else "good")
    return made


def write(path: Path, rows: Sequence[Row]) -> None:
    """The page."""
    path.write_text(_page(rows), "utf-8")


def _page(rows: Sequence[Row]) -> str:
    vendors = dict.fromkeys(row.vendor for row in rows)
    wrong = sum(bool(row.problems) for row in rows)
    waits = sorted(row.faulted.wait_ms for row in rows if row.faulted.wait_ms is not None)
    usual, longest = (waits[len(waits) // 2], waits[-1]) if waits else (0.0, 0.0)
    verdict = f"All {len(rows)} rows are as they must be." if not wrong else (
        f"**{wrong} of the {len(rows)} rows are not as they must be.** They are marked."
    )  # fmt: skip
    parts = [_TEXT.format(
        rows=len(rows), verdict=verdict, usual=usual, longest=longest, patience=ANSWER_SECONDS,
        settings=_settings(), chains=_chains(),
    )]  # fmt: skip
    for vendor in vendors:
        parts.append(_section(vendor, [row for row in rows if row.vendor == vendor]))
    return "\n".join(parts)


def _section(vendor: str, rows: Sequence[Row]) -> str:
    lines = [f"## {_NAMES[vendor]}", "", "| " + " | ".join(COLUMNS) + " |"]
    lines.append("| --- | --- | --- | ---: | --- | --- |")
    for row in rows:
        shown = list(cells(row))
        if row.problems:
            shown[2] += f" **wrong: {'; '.join(row.problems)[:200]}**".replace("|", "/")
        lines.append("| " + " | ".join(cell.replace("\n", " ") for cell in shown) + " |")
    return "\n".join([*lines, ""])


def _chains() -> str:
    flags = {"deepgram": "--stt", "openai": "--llm", "cartesia": "--tts"}
    return "\n".join(f"    {flags[name]} {','.join(chain)}" for name, chain in CHAINS.items())


def _settings() -> str:
    llm, deepgram, cartesia, stt = CONFIG.llm, CONFIG.deepgram, CONFIG.cartesia, CONFIG.stt
    found = {
        "stt.final_seconds": stt.final_seconds,
        "deepgram.connect_seconds": deepgram.connect_seconds,
        "llm.connect_seconds": llm.connect_seconds,
        "llm.first_token_seconds": llm.first_token_seconds,
        "llm.token_seconds": llm.token_seconds,
        "llm.total_seconds": llm.total_seconds,
        "cartesia.connect_seconds": cartesia.connect_seconds,
        "cartesia.first_audio_seconds": cartesia.first_audio_seconds,
        "cartesia.audio_seconds": cartesia.audio_seconds,
    }
    return "\n".join(f"    {name} = {value:g}" for name, value in found.items())


_NAMES = {
    "deepgram": "Deepgram: who hears",
    "openai": "The model: who decides what to say",
    "cartesia": "Cartesia: who speaks",
}

_TEXT = """\
# When a vendor fails

Written by `./justw faults`. Vendors refuse, hang, break off and talk nonsense; a call goes on. This
page is the proof: {rows} calls, each through a whole server over real sockets, with one vendor
failing in one way at one moment. {verdict}

## How a call survives

Each of the three is a chain, and the first of it that can do the work does it:

{chains}

- **Hearing.** The audio of an utterance is kept until its text is out. When Deepgram says it has
  failed, or `stt.final_seconds` after the end of the turn have passed, the same audio goes to the
  next of the chain. With nobody left the caller is asked to say it again.
- **Deciding.** Within one turn the models are asked in order, as long as no word of an answer is
  out. `scripted` at the end of the chain answers when none of them does. An answer that breaks off
  after its first words is not begun anew by somebody else: the caller hears what came, and then an
  apology.
- **Speaking.** A clause of which no sound came goes to the next voice, and the rest of the answer
  with it: the voice changes at most once in an answer. A clause that broke off is not said again,
  and no clause is heard twice.
- **Deadlines.** Nothing is waited for without an end: connecting, the first token, the next token,
  the first audio, more of it, the final text.
- **Breaker.** After three failures in a row, or when a vendor says `Retry-After`, it is left alone
  for five seconds, then one request is let through; a failure of that one doubles the rest, up to a
  minute. Meanwhile the next of the chain is asked at once, so that callers do not wait for a
  deadline in every turn.
- **Cancel.** Whatever still arrives for a request that was cut off is dropped.

## What was measured

The caller says three lines. *connect*: the vendor fails from before the call until the second
line; the row is about the first. Else the row is about the second line: *request*: it fails from
the beginning of that line on (a connection that is open breaks when the fault is one of
connections); *middle*: in the middle of the line, or of its answer; *cut-in*: from the moment at
which that line has cut off the answer to the first. The third line comes when the vendor works
again; until its breaker lets it through, that may be somebody else's turn.

Of each call it is required that it lasts to its end; that every line is answered within
{patience:g} s, by the vendor, by the next of the chain, or by an apology that tells the truth; that
the other lines are answered normally; that no clause is heard more than once, nothing of an answer
is heard after it was cut off, and no line gets the answer of another. All of it is judged by what
the phone played: each clause is a tone of its own in each voice.

The vendors are played by local servers with their true protocols; Silero, the VAD, sockets, threads
and phone are real. The local recogniser, voice and receptionist behind them are quick stand-ins
(named *whisper*, *piper* and *scripted* here), so the figures in their rows are without the time
that these take. *after ms* is from the end of the caller's speech to the first sound: half of the
rows took no longer than {usual:.0f} ms, and none more than {longest:.0f} ms. Several calls ran at a
time, and deadlines were shorter than their defaults:

{settings}
"""
