"""The codec: history in, request out; whatever a server sends is read without raising."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

openai = pytest.importorskip("openai")  # the bare GIL build runs the dialog tests without it
import httpx2  # noqa: E402  # comes with openai

from threadline.config import Llm  # noqa: E402  # after the skip
from threadline.dialog.history import Message  # noqa: E402  # after the skip
from threadline.dialog.tools import ToolCall, ToolSpec  # noqa: E402  # after the skip
from threadline.errors import ConfigError  # noqa: E402  # after the skip
from threadline.vendors import openai as codec  # noqa: E402  # after the skip

sys.path.insert(0, str(Path(__file__).parent))
from llm_server import DONE, answer, chunk, fragment, tail  # noqa: E402  # after the path

LLM = Llm(chain=("openai:m-1",), base_url="http://127.0.0.1:1/v1")
REQUEST = httpx2.Request("POST", LLM.base_url)


# -- the request ------------------------------------------------------------------------------


def test_request_carries_the_talk_in_order() -> None:
    talk = (Message("system", "Be brief."), Message("user", "Hi."), Message("assistant", "Hello."))
    assert codec.request("m-1", talk) == {
        "model": "m-1",
        "stream": True,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi."},
            {"role": "assistant", "content": "Hello."},
        ],
    }


def test_request_carries_tools_their_calls_and_their_answers() -> None:
    schema = {"type": "object", "properties": {"day": {"type": "string"}}}
    talk = (
        Message("assistant", "", calls=(ToolCall("c1", "book", '{"day": "Monday"}'),)),
        Message("tool", "booked", answers="c1"),
    )
    body = codec.request("m-1", talk, [ToolSpec("book", "Book a table.", schema)])
    assert body["tools"] == [
        {
            "type": "function",
            "function": {"name": "book", "description": "Book a table.", "parameters": schema},
        }
    ]
    call = {"name": "book", "arguments": '{"day": "Monday"}'}
    assert body["messages"] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "booked"},
    ]
    json.dumps(body)


def test_models_of_the_chain() -> None:
    chain = ("openai:a", "openai", "openai:ft:b", "scripted")
    assert codec.models(Llm(chain=chain, model="m")) == ("a", "m", "ft:b")
    assert codec.models(Llm()) == ()


def test_key() -> None:
    assert codec.check(Llm(api_key="k"), "other") == "k"
    assert codec.check(Llm(), "from-environment") == "from-environment"
    assert codec.check(LLM, None) == codec.NO_KEY
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        codec.check(Llm(), None)


# -- the answer -------------------------------------------------------------------------------


def read(parts: Iterable[bytes]) -> tuple[str, codec.Answer]:
    """All the text, and the answer at its end."""
    said = codec.Answer("The server")
    text = "".join(said.feed(part) for part in parts)
    return text + ("" if said.complete or said.problem else said.finish()), said


def outcome(parts: Iterable[bytes]) -> tuple[Any, ...]:
    text, said = read(parts)
    return text, said.complete, said.problem, said.size, said.calls()


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def test_an_answer() -> None:
    text, said = read([answer(["Grüße", ", ", "日本 🙂."])])
    assert text == "Grüße, 日本 🙂."
    assert said.complete
    assert said.size == len(text)


LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
PLACES = st.lists(st.integers(0, 10_000), max_size=60)


@given(st.lists(st.text(max_size=8), min_size=1, max_size=8), LINE_ENDS, PLACES)
def test_cut_anywhere_it_reads_the_same(texts: list[str], end: bytes, places: list[int]) -> None:
    data = (
        answer(texts[:-1])[: -len(tail())]
        + fragment(0, "c1", "book", '{"day": ')
        + b": a comment\n\nevent: x\nid: 7\n"
        + chunk({"content": texts[-1]})
        + fragment(0, more='"Mönday"}')
        + tail("tool_calls")
    ).replace(b"\n", end)
    whole = outcome(cut(data, places))
    text, complete, problem, _, calls = whole
    assert text == "".join(texts).encode("utf-8", "ignore").decode().lstrip()
    assert (complete, problem) == (True, "")
    assert calls == (ToolCall("c1", "book", '{"day": "Mönday"}'),)
    assert outcome(data[at : at + 1] for at in range(len(data))) == whole


JSON = st.recursive(
    st.none() | st.text() | st.integers() | st.booleans() | st.floats(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(max_size=5), inner)
        | st.builds(lambda v: {"choices": [v]}, inner)
        | st.builds(lambda v, w: {"choices": [{"delta": v, "finish_reason": w}]}, inner, inner)
        | st.builds(lambda v, w: {"content": v, "tool_calls": w}, inner, inner)
        | st.builds(lambda v, w: [{"index": v, "id": w, "function": w}], inner, inner)
        | st.builds(lambda v, w: {"name": v, "arguments": w}, inner, inner)
        | st.builds(lambda v: {"error": v}, inner)
    ),
)
NOISE = st.binary(max_size=40) | JSON.map(lambda v: b"data: " + json.dumps(v).encode() + b"\n\n")


@given(st.lists(NOISE, max_size=12), PLACES)
def test_garbage_never_raises_and_is_the_same_however_cut(
    parts: list[bytes], places: list[int]
) -> None:
    data = b"".join(parts)
    whole = outcome([data])
    text, complete, problem, _, calls = whole
    assert complete != bool(problem), "in the end it is one or the other"
    text.encode()
    "".join(call.arguments + call.name + call.id for call in calls).encode()
    assert outcome(cut(data, places)) == whole


@given(JSON)
def test_no_event_raises(value: object) -> None:
    said = codec.Answer("The server")
    said.feed(b"data: " + json.dumps(value).encode() + b"\n\n")
    assert said.finish() == ""
    assert said.complete != bool(said.problem)


def test_tool_calls_are_put_together_by_index() -> None:
    text, said = read(
        [
            chunk({"content": "One moment. "}),
            fragment(0, "c1", "book"),
            fragment(1, "c2", "cancel", '{"id"'),
            fragment(0, more='{"day": '),
            fragment(1, more=": 7}"),
            fragment(0, more='"Monday"}'),
            tail("tool_calls"),
        ]
    )
    assert text == "One moment. "
    assert said.calls() == (
        ToolCall("c1", "book", '{"day": "Monday"}'),
        ToolCall("c2", "cancel", '{"id": 7}'),
    )


def test_a_call_without_arguments_or_id_is_one() -> None:
    _, said = read([fragment(3, "", "now") + tail("tool_calls")])
    assert said.calls() == (ToolCall("call_3", "now", "{}"),)
    assert said.complete


def test_what_follows_the_end_is_ignored() -> None:
    data = answer(["Hello."]) + DONE + chunk({"content": "again"}) + b"data: {broken\n\n" + DONE
    text, said = read([data])
    assert (text, said.complete, said.problem) == ("Hello.", True, "")


def test_done_is_an_end_even_without_a_reason() -> None:
    text, said = read([chunk({"content": "Hello."}) + DONE])
    assert (text, said.complete) == ("Hello.", True)


def test_text_comes_with_the_event_that_completes_it() -> None:
    said = codec.Answer("The server")
    event = chunk({"content": "Hello."})
    assert said.feed(event[:-1]) == ""
    assert said.feed(event[-1:]) == "Hello."


def test_space_before_the_first_word_is_dropped() -> None:
    text, _ = read([answer(["\n", "  ", " Hello", " you"])])
    assert text == "Hello you"


def test_half_characters_are_dropped() -> None:
    text, said = read([b'data: {"choices": [{"delta": {"content": "a\\ud83d b"}}]}\n\n' + DONE])
    assert text == "a b"
    assert said.complete


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no chat completion (no event)"),
        (b"<html>Welcome</html>", "no chat completion (no event)"),
        (b'data: {"choices": [{"del\n\n', "no chat completion (JSONDecodeError)"),
        (b'data: "\xff"\n\n', "no chat completion (UnicodeDecodeError)"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "no chat completion (RecursionError)"),
        (chunk({"content": "Well, "}), "stopped before its answer was complete"),
        (b'data: {"error": {"message": "out of\\nmemory"}}\n\n', "an error (out of memory)"),
        (b'data: {"error": "oom"}\n\n', "an error (oom)"),
        (tail(), "an empty answer (stop)"),
        (tail("content_filter"), "an empty answer (content_filter)"),
        (chunk({"content": " \n"}) + tail(), "an empty answer (stop)"),
        (DONE, "an empty answer:"),
        (fragment(0, "c1", "", "{}") + tail(), "without its name"),
        (fragment(-1, "c1", "f"), "more than an answer"),
        (fragment(codec.MAX_CALLS, "c1", "f"), "more than an answer"),
        (b"data:" + b"x" * codec.MAX_EVENT, "more than an answer"),
        (b"data:\n" * codec.MAX_EVENT, "more than an answer"),
    ],
)
def test_problem(data: bytes, problem: str) -> None:
    _, said = read([data])
    assert problem in said.problem
    assert said.problem.startswith("The server ")
    assert said.problem.endswith(".")
    assert not said.complete


@pytest.mark.parametrize(
    "event",
    [
        chunk({"content": "word " * 100}),
        fragment(0, "c1", "f", "x" * 500),
        fragment(0, "c1", "f"),
        b"data: 1\n",
    ],
    ids=["text", "arguments", "empty arguments", "one event without end"],
)
def test_a_flood_is_cut_off(event: bytes) -> None:
    said = codec.Answer("The server")
    text = 0
    for _ in range(codec.MAX_EVENT):
        text += len(said.feed(event))
        if said.problem:
            break
    assert "more than an answer" in said.problem
    assert text <= codec.MAX_TEXT
    assert said.feed(chunk({"content": "more"})) == ""


# -- errors -----------------------------------------------------------------------------------


def status_error(
    code: int, body: dict[str, str] | None = None, headers: dict[str, str] | None = None
) -> Exception:
    response = httpx2.Response(code, request=REQUEST, headers=headers)
    return openai.APIStatusError("it said so", response=response, body=body)


def caused(cause: Exception) -> Exception:
    error = openai.APIConnectionError(request=REQUEST)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (status_error(401), "OPENAI_API_KEY"),
        (status_error(403), "OPENAI_API_KEY"),
        (status_error(404), "'m-1'"),
        (status_error(429), "max_requests"),
        (status_error(429, {"code": "insufficient_quota"}), "top it up"),
        (status_error(500), "try again later"),
        (status_error(503), "try again later"),
        (status_error(400), "it said so"),
        (openai.APITimeoutError(request=REQUEST), "llm.connect_seconds"),
        (caused(httpx2.ConnectError("no")), "cannot be reached: start it"),
        (caused(httpx2.ReadError("no")), "broke off"),
        (openai.APIConnectionError(request=REQUEST), "see its log"),
        (httpx2.RemoteProtocolError("no"), "broke off"),
        (ValueError("Expecting value"), "llm.base_url ends in /v1"),
    ],
)
def test_explain_is_one_sentence_with_a_remedy(error: Exception, remedy: str) -> None:
    said = codec.explain(error, LLM, "m-1")
    assert remedy in said
    assert LLM.base_url in said
    assert said.endswith(".")
    assert "\n" not in said


@pytest.mark.parametrize(
    "seconds", ["total_seconds", "token_seconds", "first_token_seconds", "queue_seconds"]
)
def test_deadlines_name_the_setting_to_change(seconds: str) -> None:
    said = codec.too_slow(LLM, seconds)
    assert f"{getattr(LLM, seconds):g} s" in said
    assert f"llm.{'max_requests' if seconds == 'queue_seconds' else seconds}" in said


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": "20", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.0),
        ({"retry-after": "nan"}, 0.0),
        ({"retry-after": "inf"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float) -> None:
    assert codec.retry_after(status_error(429, headers=headers)) == seconds
    assert codec.retry_after(ValueError()) == 0.0


def test_whose_fault() -> None:
    assert codec.is_our_fault(status_error(400))
    assert not codec.is_our_fault(status_error(500))
    assert not codec.is_our_fault(openai.APIConnectionError(request=REQUEST))
