"""How full the rings are, as the metrics page and a stall's report say it."""

from threadline.threads.calls import FRAME, WINDOW, Call
from threadline.threads.depths import DEPTHS, RINGS, Depths
from threadline.threads.wake import Inbox


def depths():
    calls, inbox = [Call(slot) for slot in range(3)], Inbox("vad")
    return calls, inbox, inbox.port("asr"), Depths(calls, {"vad": inbox})


def test_the_state_has_what_waits_for_a_thread_and_the_fullest_ring_of_all_calls():
    calls, inbox, port, made = depths()
    for call, frames in zip(calls, (2, 5, 9), strict=True):
        call.generation.at = 1
        for _ in range(frames):
            call.heard.push(1, 0, 0, 0, 0, bytes(FRAME))
    calls[0].speech.push(1, 0, 0, 0, 0, bytes(WINDOW))
    calls[2].generation.at = 2  # nobody is on the line: what is left there does not count
    for event in range(4):
        port.put(event)
    assert made.state() == {
        "depths": {"vad": 4},
        "audio_depths": {"heard": 5, "speech": 1, "outgoing": 0, "due": 0},
        "calls": 2,
    }
    inbox.close()


def test_each_look_is_one_observation_for_each_live_call_and_inbox():
    calls, inbox, port, made = depths()
    made.look()
    calls[0].generation.at = calls[1].generation.at = 1
    for _ in range(3):
        calls[0].outgoing.push(1, 0, 0, 0, 0, bytes(FRAME))
    port.put("event")
    made.look()
    found = {(one.name, *one.labels.values()): one.value.snapshot() for one in made.samples()}
    ring = {name: found["threadline_ring_depth_records", name] for name in RINGS}
    assert [seen.count for seen in ring.values()] == [2, 2, 2, 2]
    assert (ring["outgoing"].sum, ring["heard"].sum) == (3, 0)
    events = found["threadline_inbox_depth_events", "vad"]
    assert (events.count, events.sum) == (2, 1)
    inbox.close()


def test_the_last_bucket_is_a_full_ring():
    call = Call(0)
    capacities = {ring(call).capacity for ring in RINGS.values()}
    assert max(capacities) == DEPTHS[-1]
    assert DEPTHS[-2] == max(capacities) - 1
