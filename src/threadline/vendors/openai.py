"""OpenAI-compatible chat completions, without their socket.

History to request, the bytes of a streamed answer to text and tool calls, error to one sentence
with its remedy. Works for any server that speaks this protocol behind `base_url` (vLLM,
llama.cpp, Ollama).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

from ..config import Llm
from ..dialog.history import Message
from ..dialog.tools import ToolCall, ToolSpec
from ..errors import ConfigError

# The client takes 0.4 s to import. Whoever has an error of its to explain has done so.
if TYPE_CHECKING:
    import openai

NO_KEY = "no-key-needed"  # what servers of one's own are sent: the client insists on some key

# A server that floods us is cut off here; an answer on the phone has a hundredth of it.
MAX_TEXT = 32_768  # characters of one answer
MAX_ARGUMENTS = 65_536  # characters of all its calls' arguments
MAX_CALLS = 32
MAX_EVENT = 131_072  # bytes of one event of the stream


def models(llm: Llm) -> tuple[str, ...]:
    """The models of the chain, in order; empty when it names no server."""
    entries = (entry.partition(":") for entry in llm.chain)
    return tuple(model or llm.model for kind, _, model in entries if kind == "openai")


def check(llm: Llm, environment_key: str | None) -> str:
    """The key to send. ConfigError when a vendor's server is to be asked without one.

    `environment_key` is what OPENAI_API_KEY holds, for those who have it set already.
    """
    key = llm.api_key or environment_key or (NO_KEY if llm.base_url else "")
    if not key:
        raise ConfigError(
            "llm.chain names openai and there is no key: set OPENAI_API_KEY, or name a server of"
            " your own with OPENAI_BASE_URL."
        )
    return key


def request(
    model: str, messages: Iterable[Message], tools: Iterable[ToolSpec] = ()
) -> dict[str, Any]:
    """The body of a request for a streamed answer."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in messages],
        "stream": True,
    }
    if offered := [_tool(tool) for tool in tools]:
        body["tools"] = offered
    return body


def _message(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.answers, "content": message.text}
    if message.calls:
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.calls
        ]
        return {"role": message.role, "content": message.text or None, "tool_calls": calls}
    return {"role": message.role, "content": message.text}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    return {"type": "function", "function": function}


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Answer:
    """One streamed answer. Feed it the bytes of the body as they come, cut anywhere.

    Args:
        where: who sends it, as the subject of a sentence.

    It never raises. What ends it is `complete` or `problem`; what follows is ignored.
    """

    __slots__ = (
        "_calls",
        "_data",
        "_held",
        "_rest",
        "_seen",
        "_text",
        "_where",
        "complete",
        "problem",
        "size",
    )

    def __init__(self, where: str) -> None:
        self.complete = False  # it has said so
        self.problem = ""  # why it is no good, as a sentence
        self.size = 0  # characters of text and arguments so far: it rises with every token
        self._where = where
        self._rest = b""  # the line that is not complete yet
        self._data: list[bytes] = []  # of the event that is not complete yet
        self._held = 0  # bytes of it, line ends included
        self._seen = 0  # events
        self._text = 0  # characters
        self._calls: dict[int, _Call] = {}  # by the server's index

    def feed(self, data: bytes) -> str:
        """Take more of the body; return the text that is complete with it, maybe none.

        White space before the first word is dropped.
        """
        lines = (self._rest + data).splitlines(keepends=True)
        self._rest = b""
        if lines and (lines[-1].endswith(b"\r") or not lines[-1].endswith(b"\n")):
            self._rest = lines.pop()  # after a CR, an LF of the same line end may follow
        text = ""
        for line in lines:
            if self.complete or self.problem:
                break
            line = line.rstrip(b"\r\n")
            if line.startswith(b"data:"):
                self._data.append(line[5:])
                self._held += len(line)
            elif not line and self._data:
                event = b"\n".join(self._data)
                self._data.clear()
                self._held = 0
                text += self._event(event)
        if self._held + len(self._rest) > MAX_EVENT:
            self._flood()
        return text

    def finish(self) -> str:
        """The body is over. As `feed`; then the answer is `complete`, or there is a `problem`."""
        text = self.feed(b"\n\n")
        if self.complete or self.problem:
            return text
        self.problem = (
            f"{self._where} stopped before its answer was complete: see its log."
            if self._seen
            else _no_completion(self._where, "no event")
        )
        return text

    def calls(self) -> tuple[ToolCall, ...]:
        """What the model asks for, once the answer is complete."""
        return tuple(
            ToolCall(call.id or f"call_{index}", call.name, "".join(call.arguments) or "{}")
            for index, call in sorted(self._calls.items())
        )

    def _event(self, data: bytes) -> str:
        """Take one event; return its text."""
        self._seen += 1
        data = data.strip()
        if data == b"[DONE]":
            self._end("")
            return ""
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError) as error:
            self.problem = _no_completion(self._where, type(error).__name__)
            return ""
        if not isinstance(chunk, dict):
            return ""
        if wrong := chunk.get("error"):
            said = wrong.get("message") if isinstance(wrong, dict) else wrong
            self.problem = (
                f"{self._where} ended its answer with an error ({_brief(said)}): see its log."
            )
            return ""
        choices = chunk.get("choices")  # none: usage, or a keep-alive
        if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
            return ""
        if choices[0].get("index"):
            return ""  # another answer than the one that was asked for
        delta, finish = choices[0].get("delta"), choices[0].get("finish_reason")
        text = ""
        if isinstance(delta, dict):
            text = self._spoken(delta.get("content"))
            self._asked(delta.get("tool_calls"))
        if finish and isinstance(finish, str):
            self._end(finish)
        return text

    def _spoken(self, content: object) -> str:
        text = _text(content)
        if not self._text:
            text = text.lstrip()
        self._text += len(text)
        self.size += len(text)
        if self._text > MAX_TEXT:
            self._flood()
            return ""
        return text

    def _asked(self, fragments: object) -> None:
        """Add fragments of tool calls, each of which says which call it belongs to."""
        for fragment in fragments if isinstance(fragments, list) else ():
            index = fragment.get("index", 0) if isinstance(fragment, dict) else None
            if not isinstance(index, int) or not 0 <= index < MAX_CALLS:
                self._flood()
                return
            call = self._calls.setdefault(index, _Call())
            call.id = call.id or _text(fragment.get("id"))
            function = fragment.get("function")
            if isinstance(function, dict):
                call.name = call.name or _text(function.get("name"))
                more = _text(function.get("arguments"))
                call.arguments.append(more)
                self.size += len(more) + 1  # a name without arguments is a token, too
            if self.size - self._text > MAX_ARGUMENTS:
                self._flood()

    def _end(self, finish: str) -> None:
        if self.problem:
            return
        if not self._text and not self._calls:
            why = f" ({_brief(finish)})" if finish else ""
            self.problem = f"{self._where} gave an empty answer{why}: see its log."
        elif not all(call.name for call in self._calls.values()):
            self.problem = f"{self._where} asked for a function without its name: see its log."
        else:
            self.complete = True

    def _flood(self) -> None:
        self.problem = self.problem or (
            f"{self._where} sent more than an answer on the phone can be: limit its answers, or"
            " use another model."
        )


def where(llm: Llm) -> str:
    """The server, as the subject of a sentence."""
    return f"The model server at {llm.base_url}" if llm.base_url else "The model server of OpenAI"


def explain(error: BaseException, llm: Llm, model: str) -> str:
    """One sentence on why a request for `model` failed, and what to do about it."""
    import httpx2
    import openai

    server = where(llm)
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
    if isinstance(error, openai.APIStatusError):
        return f"{server} {_status(error, model)}"
    if isinstance(error, openai.APITimeoutError):
        return (
            f"{server} took no connection within {llm.connect_seconds:g} s:"
            " check the network, or raise llm.connect_seconds."
        )
    if isinstance(cause, httpx2.ConnectError):
        return f"{server} cannot be reached: start it, or correct llm.base_url."
    if isinstance(error, openai.APIConnectionError | httpx2.RequestError):
        return f"{server} broke off the connection: see its log."
    return _no_completion(server, type(error).__name__)


def retry_after(error: BaseException) -> float:
    """For how many seconds the server wants no further request; 0 when it did not say so."""
    import openai

    if not isinstance(error, openai.APIStatusError):
        return 0.0
    said = error.response.headers
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(said.get(name, "")) * unit
        except ValueError:  # absent, or a date: nobody sends dates for the seconds of a rate limit
            continue
        if 0 <= seconds < inf:
            return seconds
    return 0.0


def is_our_fault(error: BaseException) -> bool:
    """Whether the server refused this one request and would take another."""
    import openai

    return isinstance(error, openai.APIStatusError) and error.status_code in (400, 413, 422)


def too_slow(llm: Llm, seconds: str) -> str:
    """The sentence for a deadline that passed; `seconds` is the setting's name."""
    server, limit = where(llm), getattr(llm, seconds)
    match seconds:
        case "total_seconds":
            return (
                f"{server} was not done after {limit:g} s: ask for briefer answers in"
                " llm.instructions, or raise llm.total_seconds."
            )
        case "queue_seconds":
            return (
                f"{server} is sent no more requests at once and none ended within {limit:g} s:"
                " raise llm.max_requests, or lower server.max_calls."
            )
        case _:
            return (
                f"{server} sent nothing for {limit:g} s: it is overloaded, or llm.{seconds} is too"
                " low for it."
            )


def resting(llm: Llm, model: str) -> str:
    """The sentence for a model that is left alone for now."""
    return f"{where(llm)} has failed too often with '{model}' and is left alone for some seconds."


def _no_completion(server: str, what: str) -> str:
    return (
        f"{server} sent what is no chat completion ({what}):"
        " check that llm.base_url ends in /v1 and names an OpenAI-compatible server."
    )


def _status(error: openai.APIStatusError, model: str) -> str:
    status = error.status_code
    if status in (401, 403):
        return f"refused the key ({status}): set OPENAI_API_KEY to one that is valid for it."
    if status == 404:
        return (
            f"does not know the model '{model}' (404): correct llm.chain, llm.model or"
            " llm.base_url."
        )
    if status == 429 and error.code == "insufficient_quota":
        return "says that the account's quota is used up (429): top it up, or use another key."
    if status == 429:
        return "limits our requests (429): lower llm.max_requests, or ask for a higher limit."
    if status >= 500:
        return f"failed ({status}): its own log says why; try again later, or use another server."
    return f"rejected the request ({status}: {_brief(error.message)}): correct the llm settings."


def _text(value: object) -> str:
    """`value` if it is a text, without the half characters that JSON can smuggle in; else ""."""
    if not isinstance(value, str):
        return ""
    return value if value.isascii() else value.encode("utf-8", "ignore").decode()


def _brief(said: object) -> str:
    text = " ".join(str(said).split())
    return text if len(text) <= 160 else f"{text[:157]}..."
