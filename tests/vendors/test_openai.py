"""The codec: history in, request out; whatever a server sends is read without raising."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

openai = pytest.importorskip("openai")  # the bare GIL build runs the dialog tests without it
import httpx2  # noqa: E402  # comes with openai

from threadline.config import Llm  # noqa: E402  # after the skip
from threadline.dialog.history import Message  # noqa: E402  # after the skip
from threadline.errors import ConfigError  # noqa: E402  # after the skip
from threadline.vendors import openai as codec  # noqa: E402  # after the skip

LLM = Llm(brain="openai", model="m-1", base_url="http://127.0.0.1:1/v1")
REQUEST = httpx2.Request("POST", LLM.base_url)


def status_error(code: int, body: dict[str, str] | None = None) -> Exception:
    response = httpx2.Response(code, request=REQUEST)
    return openai.APIStatusError("it said so", response=response, body=body)


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


def completion(content: object, finish: object = None) -> object:
    choice = SimpleNamespace(delta=SimpleNamespace(content=content), finish_reason=finish)
    return SimpleNamespace(choices=[choice])


@pytest.mark.parametrize(
    ("chunk", "piece"),
    [
        (completion("Hi"), ("Hi", None)),
        (completion(None, "stop"), ("", "stop")),
        (completion("last", "length"), ("last", "length")),
        (SimpleNamespace(choices=[]), ("", None)),
        (SimpleNamespace(choices=None), ("", None)),
        (SimpleNamespace(choices=[SimpleNamespace(delta=None)]), ("", None)),
        (completion({"no": "text"}, 7), ("", None)),
        ({"choices": [{}]}, ("", None)),
        ("text", ("", None)),
        (None, ("", None)),
    ],
)
def test_read_chunk(chunk: object, piece: tuple[str, str | None]) -> None:
    read = codec.read_chunk(chunk)
    assert (read.text, read.finish) == piece


@given(
    st.recursive(
        st.none() | st.text() | st.integers() | st.booleans(),
        lambda inner: (
            st.lists(inner)
            | st.builds(lambda v: SimpleNamespace(choices=v), inner)
            | st.builds(lambda v, w: SimpleNamespace(delta=v, finish_reason=w), inner, inner)
            | st.builds(lambda v: SimpleNamespace(content=v), inner)
        ),
    )
)
def test_read_chunk_never_raises(chunk: object) -> None:
    read = codec.read_chunk(chunk)
    assert isinstance(read.text, str)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (status_error(401), "THREADLINE_LLM_API_KEY"),
        (status_error(403), "THREADLINE_LLM_API_KEY"),
        (status_error(404), "'m-1'"),
        (status_error(429), "max_calls"),
        (status_error(429, {"code": "insufficient_quota"}), "top it up"),
        (status_error(500), "try again later"),
        (status_error(503), "try again later"),
        (status_error(400), "it said so"),
        (openai.APITimeoutError(request=REQUEST), "llm.connect_seconds"),
        (openai.APIConnectionError(request=REQUEST), "see its log"),
        (openai.APIError("over\nloaded", REQUEST, body=None), "over loaded"),
        (ValueError("Expecting value"), "llm.base_url ends in /v1"),
    ],
)
def test_explain_is_one_sentence_with_a_remedy(error: Exception, remedy: str) -> None:
    said = codec.explain(error, LLM)
    assert remedy in said
    assert LLM.base_url in said
    assert said.endswith(".")
    assert "\n" not in said


def test_explain_tells_unreachable_from_broken_off() -> None:
    error = openai.APIConnectionError(request=REQUEST)
    error.__cause__ = httpx2.ConnectError("All connection attempts failed")
    assert "cannot be reached: start it" in codec.explain(error, LLM)


def test_deadlines_name_the_setting_to_change() -> None:
    assert "llm.total_seconds" in codec.too_slow(LLM, in_all=True)
    assert "llm.token_seconds" in codec.too_slow(LLM, in_all=False)


def test_key() -> None:
    assert codec.check(Llm(api_key="k"), "other") == "k"
    assert codec.check(Llm(), "from-environment") == "from-environment"
    assert codec.check(LLM, None) == codec.NO_KEY
    with pytest.raises(ConfigError, match="THREADLINE_LLM_API_KEY"):
        codec.check(Llm(), None)
