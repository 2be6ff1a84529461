"""OpenAI-compatible chat completions, without their socket.

History to request, streamed chunk to text, error to one sentence with its remedy. Works for any
server that speaks this protocol behind `base_url` (vLLM, llama.cpp, Ollama).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx2
import openai

from ..config import Llm
from ..dialog.history import Message
from ..errors import ConfigError

NO_KEY = "no-key-needed"  # what servers of one's own are sent: the client insists on some key


def check(llm: Llm, environment_key: str | None) -> str:
    """The key to send. ConfigError when a vendor's server is to be asked without one.

    `environment_key` is what OPENAI_API_KEY holds, for those who have it set already.
    """
    key = llm.api_key or environment_key or (NO_KEY if llm.base_url else "")
    if not key:
        raise ConfigError(
            "The brain is `openai` and there is no key: set THREADLINE_LLM_API_KEY, or name a"
            " server of your own with THREADLINE_LLM_BASE_URL."
        )
    return key


def request(model: str, messages: Iterable[Message]) -> dict[str, Any]:
    """Arguments of ``client.chat.completions.create`` for a streamed answer."""
    talk = [{"role": message.role, "content": message.text} for message in messages]
    return {"model": model, "messages": talk, "stream": True}


@dataclass(frozen=True, slots=True)
class Piece:
    """What one chunk adds: text, maybe empty; on the last one, why the answer ends."""

    text: str
    finish: str | None


def read_chunk(chunk: object) -> Piece:
    """Read one chunk, which the client has parsed but not validated. Never raises.

    Chunks without choices are usual (usage, keep-alives); what has another shape than a chat
    completion adds nothing, so an answer made of it is found to have no end.
    """
    choices = getattr(chunk, "choices", None)
    if not isinstance(choices, list) or not choices:
        return Piece("", None)
    text = getattr(getattr(choices[0], "delta", None), "content", None)
    finish = getattr(choices[0], "finish_reason", None)
    return Piece(
        text if isinstance(text, str) else "",
        finish if isinstance(finish, str) and finish else None,
    )


def explain(error: BaseException, llm: Llm) -> str:
    """One sentence on why a request failed, and what to do about it."""
    where = f"The model server at {llm.base_url}" if llm.base_url else "The model server of OpenAI"
    if isinstance(error, openai.APIStatusError):
        return f"{where} {_status(error, llm)}"
    if isinstance(error, openai.APITimeoutError):
        return (
            f"{where} took no connection within {llm.connect_seconds:g} s:"
            " check the network, or raise llm.connect_seconds."
        )
    if isinstance(error, openai.APIConnectionError):
        if isinstance(error.__cause__, httpx2.ConnectError):
            return f"{where} cannot be reached: start it, or correct llm.base_url."
        return f"{where} broke off the connection: see its log."
    if isinstance(error, openai.APIError):
        return f"{where} ended its answer with an error ({_brief(error.message)}): see its log."
    return (
        f"{where} sent what is no chat completion ({type(error).__name__}):"
        " check that llm.base_url ends in /v1 and names an OpenAI-compatible server."
    )


def unfinished(llm: Llm) -> str:
    """The sentence for an answer that ended without saying so."""
    where = llm.base_url or "OpenAI"
    return f"The model server at {where} stopped before its answer was complete: see its log."


def too_slow(llm: Llm, *, in_all: bool) -> str:
    """The sentence for a deadline that passed: of the whole answer, or of its next token."""
    where = llm.base_url or "OpenAI"
    if in_all:
        return (
            f"The model server at {where} was not done after {llm.total_seconds:g} s: ask for"
            " briefer answers in llm.instructions, or raise llm.total_seconds."
        )
    return (
        f"The model server at {where} sent nothing for {llm.token_seconds:g} s: it is overloaded,"
        " or llm.token_seconds is too low for it."
    )


def _status(error: openai.APIStatusError, llm: Llm) -> str:
    status = error.status_code
    if status in (401, 403):
        return (
            f"refused the key ({status}): set THREADLINE_LLM_API_KEY to one that is valid for it."
        )
    if status == 404:
        return f"does not know the model '{llm.model}' (404): correct llm.model or llm.base_url."
    if status == 429 and error.code == "insufficient_quota":
        return "says that the account's quota is used up (429): top it up, or use another key."
    if status == 429:
        return "limits our requests (429): lower server.max_calls, or ask for a higher limit."
    if status >= 500:
        return f"failed ({status}): its own log says why; try again later, or use another server."
    return f"rejected the request ({status}: {_brief(error.message)}): correct the llm settings."


def _brief(text: str) -> str:
    text = " ".join(str(text).split())
    return text if len(text) <= 160 else f"{text[:157]}..."
