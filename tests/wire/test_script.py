"""The script against a real Phone, in the time of the samples."""

from __future__ import annotations

from collections.abc import Callable

from threadline.audio.mulaw import FRAME, RATE
from threadline.wire.phone import Phone
from threadline.wire.script import Barge, Clip, Script

LOUD = b"\x10"
QUIET = b"\xff"
SPEECH = 40 * FRAME
CLIP = QUIET * 800 + LOUD * SPEECH + QUIET * 800


def clips(count: int) -> list[Clip]:
    return [Clip(f"c{n}", CLIP, (800, 800 + SPEECH)) for n in range(1, count + 1)]


def talk(script: Script, agent: Callable[[int, Phone], None], limit: float = 60) -> Phone:
    """Run to the hang-up; the agent acts once for every frame, at its end."""
    phone, at = Phone(), 0
    while True:
        now = (at + FRAME) / RATE
        phone.play(now)
        frame = script.frame(at, phone)
        if frame is None:
            return phone
        assert len(frame) == FRAME
        agent(at + FRAME, phone)
        at += FRAME
        assert now < limit, "the call does not end"


def answering(script: list[Script], seconds: float) -> Callable[[int, Phone], None]:
    """An agent that answers 0.5 s after each end of speech, all audio in one burst."""
    answered = [0]

    def agent(at: int, phone: Phone) -> None:
        said = script[0].said
        if len(said) > answered[0] and at >= said[-1].speech_end + RATE // 2:
            answered[0] += 1
            phone.media(LOUD * round(seconds * RATE), at / RATE)
            phone.mark("end", at / RATE)

    return agent


def test_each_clip_waits_for_the_end_of_the_reply_before_it() -> None:
    script = Script(clips(3), note=lambda at, text: None, greeting=False, quiet_ms=300)
    phone = talk(script, answering([script], 1.0))
    assert [said.turn for said in script.said] == [1, 2, 3]
    assert script.said[0].start == 0
    for said, reply in zip(script.said[1:], phone.utterances, strict=False):
        assert 0 <= said.start - reply.end - 0.3 * RATE < FRAME
    for said in script.said:
        assert said.speech_end - said.onset == SPEECH
        assert said.end - said.start == len(CLIP)


def test_the_greeting_is_heard_out_first() -> None:
    script = Script(clips(1), note=lambda at, text: None)
    replies = answering([script], 0.4)

    def agent(at: int, phone: Phone) -> None:
        if at == 10 * FRAME:
            phone.media(LOUD * RATE, at / RATE)
        replies(at, phone)

    phone = talk(script, agent)
    assert script.said[0].start >= phone.utterances[0].end + 0.3 * RATE


def test_an_agent_that_never_greets_is_spoken_to_all_the_same() -> None:
    notes: list[str] = []
    script = Script(clips(1), note=lambda at, text: notes.append(text), answer_within=2)
    talk(script, answering([script], 0.4))
    assert script.said[0].start == 2 * RATE
    assert "no answer to greeting" in notes


def test_an_interruption_starts_at_its_second_of_the_reply() -> None:
    script = Script(clips(3), note=lambda at, text: None, greeting=False, barge=Barge(0.7, 2))
    phone = talk(script, answering([script], 3.0))
    first, second, third = script.said
    assert second.start >= phone.utterances[0].end
    assert 0 <= third.start - phone.utterances[1].first_loud - 0.7 * RATE < 2 * FRAME
    assert third.start < phone.utterances[1].end
    assert first.speaks


def test_a_reply_too_short_to_interrupt_is_not_waited_for() -> None:
    script = Script(clips(2), note=lambda at, text: None, greeting=False, barge=Barge(5.0))
    phone = talk(script, answering([script], 0.5))
    assert 0 <= script.said[1].start - phone.utterances[0].end - 0.3 * RATE < FRAME


def test_the_greeting_can_be_interrupted() -> None:
    script = Script(clips(1), note=lambda at, text: None, barge=Barge(0.5, 0))

    def agent(at: int, phone: Phone) -> None:
        if at == FRAME:
            phone.media(LOUD * 4 * RATE, at / RATE)

    phone = talk(script, agent)
    assert 0 <= script.said[0].start - phone.utterances[0].first_loud - 0.5 * RATE < 2 * FRAME


def test_the_old_reply_is_no_answer_to_the_clip_that_interrupts_it() -> None:
    """The agent does not stop: its first reply lasts past the second clip's end of speech."""
    notes: list[str] = []
    script = Script(
        clips(2),
        note=lambda at, text: notes.append(text),
        greeting=False,
        barge=Barge(0.2),
        answer_within=3,
    )

    def agent(at: int, phone: Phone) -> None:
        if at == 60 * FRAME:
            phone.media(LOUD * 4 * RATE, at / RATE)

    talk(script, agent)
    assert "no answer to c2" in notes


def test_what_the_agent_began_before_the_caller_spoke_is_no_answer() -> None:
    notes: list[str] = []
    late = Clip("late", QUIET * RATE + LOUD * RATE, (RATE, 2 * RATE))
    script = Script(
        [late], note=lambda at, text: notes.append(text), greeting=False, answer_within=2
    )

    def agent(at: int, phone: Phone) -> None:
        if at == RATE // 2:
            phone.media(LOUD * 3 * RATE, at / RATE)

    talk(script, agent)
    assert "no answer to late" in notes


def test_a_clip_without_speech_waits_for_no_answer() -> None:
    silence = Clip("silence", QUIET * RATE, None)
    script = Script([silence, *clips(1)], note=lambda at, text: None, greeting=False)
    talk(script, answering([script], 0.2), limit=20)
    assert script.said[1].start == RATE
    assert [said.speaks for said in script.said] == [False, True]


def test_between_the_clips_there_is_line_noise() -> None:
    noise = bytes(range(100, 100 + 2 * FRAME // 4)) * 4
    script = Script(clips(1), note=lambda at, text: None, noise=noise)
    phone = Phone()
    frames = b"".join(script.frame(n * FRAME, phone) or b"" for n in range(6))
    assert frames == (noise * 3)[: 6 * FRAME]
