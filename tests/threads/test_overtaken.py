"""Two threads that overtake each other between two lines: each case was first met under stress.

A cursor that acts when it is loaded stands for the other thread: it does, at that very moment,
what the other one may do.
"""

from contextvars import ContextVar

from reply_rig import LIVE, Brain, Rig
from serving import Alone, alone, payload
from test_pacer import call, pacer, say, take

from threadline.threads.calls import FRAME
from threadline.threads.messages import CallClosed, CallOpened, FloorTaken, Transcript
from threadline.threads.ring import Cursor


class Overtaken(Cursor):
    """Gives the value it had, and lets `meanwhile` happen right after it was looked up."""

    __slots__ = ("_cell", "meanwhile")

    def __init__(self, at):
        self._cell = at
        self.meanwhile = None

    @property
    def at(self):
        seen, act, self.meanwhile = self._cell, self.meanwhile, None
        if act is not None:
            act()
        return seen

    @at.setter
    def at(self, value):
        self._cell = value


def test_the_pacer_keeps_frames_of_an_epoch_that_rose_after_it_had_looked():
    line = call()
    stage = pacer(line)
    line.epoch = Overtaken(0)
    say(line, [0])
    stage.advance(1)
    assert take(line) == [0]

    def floor_taken_and_answered():
        line.epoch.at = 1
        say(line, [1, 2], epoch=1)

    line.epoch.meanwhile = floor_taken_and_answered
    stage.advance(1)
    assert take(line) == []
    for number in (1, 2):
        stage.advance(1)
        assert take(line) == [number]
    assert stage.stale == 0


def test_the_pacer_keeps_frames_of_a_caller_who_came_after_it_had_looked():
    line = call()
    stage = pacer(line)
    line.generation = Overtaken(7)

    def hung_up_and_answered_again():
        line.generation.at = 9
        say(line, [1], generation=9)

    line.generation.meanwhile = hung_up_and_answered_again
    stage.advance(1)
    assert take(line) == []
    stage.advance(1)
    assert take(line) == [1]
    assert stage.stale == 0


def one(io: Alone):
    """A call that has heard a frame, and its leg."""
    line = io.line(echo=False)
    call = io.slot_of(line)
    io.due(call, 1, b"\x01" * FRAME)
    line.until(lambda: line.count("media") == 1, "the first frame")
    (leg,) = io.io.legs
    return line, call, leg


def test_io_calls_sends_a_frame_of_an_epoch_that_rose_after_it_had_looked(tmp_path):
    with alone(tmp_path, calls=1) as io:
        io.calls[0].epoch = Overtaken(0)
        line, call, _ = one(io)
        generation = call.generation.at
        assert call.due.push(generation, 0, 1, 0, 0, b"\x01" * FRAME)
        call.due._producer.release()  # the pacer's part, on this thread

        def floor_taken_and_answered():
            call.epoch.at = 1
            assert call.due.push(generation, 1, 2, 0, 0, b"\x02" * FRAME)

        call.epoch.meanwhile = floor_taken_and_answered
        io.inbox.wake()
        line.until(lambda: line.count("media") == 3, "the frame of the new epoch")
        events = [message["event"] for message in line.messages]
        assert events == ["media", "media", "clear", "media"]
        assert payload(line.messages[-1]) == b"\x02" * FRAME
        assert io.io.stale == 0
        line.hang_up()
        io.free()


def test_a_frame_that_is_due_when_the_peer_has_closed_its_side_is_no_defect(tmp_path):
    with alone(tmp_path, calls=1) as io:
        line, call, leg = one(io)
        generation = call.generation.at
        assert call.due.push(generation, 0, 1, 0, 0, b"\x02" * FRAME)

        def closed_and_due():
            leg.eof_received()
            leg.pump()

        io.io.loop.call_soon_threadsafe(closed_and_due)
        line.until(lambda: line.gone, "the server closes")
        line.close()
        io.free()
        assert io.defects == []


def test_words_that_are_read_before_the_news_of_their_call_are_answered():
    """vad and asr tell by ports of their own, which may be drained before that of io-calls."""
    rig = Rig(Brain(greeting=""))
    io_calls = rig.inbox.port("io-calls")  # drained after the one that the rig tells by
    rig.call.epoch.at = 1
    rig.to_reply.put(FloorTaken(0, LIVE, 1, rig.clock.now))
    rig.to_reply.put(Transcript(0, LIVE, 1, "yes", *[rig.clock.now] * 5))
    io_calls.put(CallOpened(0, LIVE, "CA1", {}))
    rig.step()
    assert rig.texts() == ["You said yes."]
    rig.close()


def test_words_for_a_call_that_is_over_stay_unanswered():
    rig = Rig(Brain(greeting=""))
    rig.open()
    rig.tell(CallClosed, "the caller hung up")
    rig.tell(Transcript, 1, "yes", *[rig.clock.now] * 5)
    rig.tell(CallOpened, "CA2", {}, generation=LIVE + 2)
    assert rig.texts() == []
    assert rig.stage._early == []
    rig.close()


def test_what_a_brain_sets_in_a_context_variable_is_of_its_call():
    whose = ContextVar("whose", default=None)
    seen = []

    class Marking(Brain):
        def begin(self):
            seen.append(whose.get())
            whose.set(len(seen))
            return len(seen)

        def answer(self, state, words):
            seen.append((state, whose.get()))
            return super().answer(state, words)

    rig = Rig(Marking(greeting=""))
    rig.open()
    rig.tell(CallClosed, "the caller hung up")
    rig.call.generation.at = LIVE + 2
    rig.tell(CallOpened, "CA2", {}, generation=LIVE + 2)
    rig.call.epoch.at = 1
    rig.tell(Transcript, 1, "yes", *[rig.clock.now] * 5, generation=LIVE + 2)
    assert seen == [None, None, (2, 2)]
    assert whose.get() is None
    rig.close()
