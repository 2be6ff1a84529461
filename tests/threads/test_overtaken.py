"""Two threads that overtake each other between two lines: each case was first met under stress.

A cursor that acts when it is loaded stands for the other thread: it does, at that very moment,
what the other one may do.
"""

from serving import Alone, alone, payload
from test_pacer import call, pacer, say, take

from threadline.threads.calls import FRAME
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

        def floor_taken_and_answered():
            call.epoch.at = 1
            call.due._producer.release()  # the pacer's part, on this thread
            assert call.due.push(generation, 1, 2, 0, 0, b"\x02" * FRAME)

        call.epoch.meanwhile = floor_taken_and_answered
        io.inbox.wake()
        line.until(lambda: line.count("media") == 2, "the frame of the new epoch")
        assert [message["event"] for message in line.messages] == ["media", "clear", "media"]
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
