"""What a user writes: an agent, the tools its model may call, the guards on what it says.

::

    from threadline.agent import Agent, CallInfo, Stop

    agent = Agent(
        instructions="You take bookings for the Harbour Bistro. One or two sentences a turn.",
        greeting="Harbour Bistro, good evening.",
    )

    @agent.tool
    def book_table(call: CallInfo, day: str, people: int = 2) -> str:
        '''Book a table.

        day: a weekday, or a date like May 5th.
        people: how many are coming.
        '''
        return tables.book(call.caller, day, people)

    @agent.guard
    def no_card_numbers(clause: str) -> str | None:
        return re.sub(r"(?:\\d[ -]?){13,16}", "a card number", clause)

Tools and guards run on threads of their own, several at once, those of one call too: they may
compute for as long as they like and no caller hears it, but what they share among themselves is
theirs to protect. Nothing here has a thread or a clock.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType, ModuleType
from typing import Any

from .arguments import Parameters, as_json
from .dialog.tools import HANG_UP, ToolSpec
from .errors import ConfigError, ThreadlineError

_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")  # what models take as the name of a function
_SPEC = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")


class ToolError(ThreadlineError):
    """Raise it in a tool to tell the model, in one sentence, why it did not work."""


@dataclass(frozen=True, slots=True)
class CallInfo:
    """The phone call that a tool works for; numbers are "" when the carrier does not tell."""

    call_id: str = ""
    caller: str = ""  # the number that calls, as "+15551230000"
    called: str = ""
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Stop:
    """A guard returns it to end the answer: ``text`` is heard in the place of the clause and of
    all that would have followed; "" for nothing."""

    text: str = ""


current_call: ContextVar[CallInfo] = ContextVar("current_call")
"""The call in whose context code runs. Set before any tool or guard of that call."""

type Wait = Callable[[Coroutine[Any, Any, object]], object]
"""Runs an async function's coroutine to its end and gives its result."""


@dataclass(frozen=True, slots=True)
class _Tool:
    spec: ToolSpec
    function: Callable[..., object]
    parameters: Parameters
    wants_call: bool


class Agent:
    """Who answers the phone.

    Args:
        instructions: what the model is told about its task.
        greeting: said when the call begins; "": the caller speaks first.
        protect_greeting: the greeting cannot be interrupted.
        hang_up: the model may end the call.
    """

    def __init__(
        self,
        instructions: str = "",
        greeting: str = "",
        protect_greeting: bool = False,
        hang_up: bool = True,
    ) -> None:
        self.instructions = inspect.cleandoc(instructions)
        self.greeting = greeting.strip()
        self.protect_greeting = protect_greeting
        self.hang_up = hang_up
        self._tools: dict[str, _Tool] = {}
        self._guards: list[Callable[[str], object]] = []

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        """What the model is told of the tools, in the order they were written; last, when it may
        end the call, of that."""
        own = tuple(tool.spec for tool in self._tools.values())
        return (*own, HANG_UP) if self.hang_up else own

    @property
    def guarded(self) -> bool:
        """There are guards: no clause is heard before they have passed it."""
        return bool(self._guards)

    def tool[**P, R](self, function: Callable[P, R]) -> Callable[P, R]:
        """Let the model call this function, sync or async. Returns it unchanged.

        Its name, its docstring and its annotations are what the model is told. A docstring line
        like ``day: a weekday`` describes the parameter ``day``. Parameters may be str, int,
        float, bool, list[...], Literal, Enum, dataclasses of these, each also with ``| None``;
        those with a default may be left out by the model. A first parameter annotated
        ``CallInfo`` is filled in with the call. What it returns goes to the model: a str as it
        is, anything else as JSON. Raises ConfigError for a function that cannot be described.

        ::

            @agent.tool
            async def weather(town: str) -> dict[str, float]:
                '''The weather in a town, right now.'''
                return await forecast(town)
        """
        name = _name_of(function, "tool")
        if not _NAME.fullmatch(name):
            raise ConfigError(f"The tool {name!r} needs a name of at most 64 plain letters.")
        if name in self._tools or name == HANG_UP.name:
            raise ConfigError(f"There is another tool named {name}: rename this one.")
        parameters = Parameters.of(function, skip=CallInfo)
        spec = ToolSpec(name, parameters.description, parameters.schema)
        self._tools[name] = _Tool(spec, function, parameters, parameters.skipped)
        return function

    def guard[**P, R](self, function: Callable[P, R]) -> Callable[P, R]:
        """Let this function, sync or async, see each clause before the caller hears it.

        It gets the clause's text. None lets it pass, a str is said in its place ("": nothing),
        ``Stop("text")`` ends the answer there. Guards run one after the other, each on what the
        one before it left. When one raises or takes too long, the clause is not heard.

        ::

            @agent.guard
            def no_promises(clause: str) -> Stop | None:
                return Stop("I cannot promise that.") if "guarantee" in clause else None
        """
        name = _name_of(function, "guard")
        try:
            inspect.signature(function).bind("a clause")
        except TypeError:
            raise ConfigError(f"The guard {name} must take one argument, the clause.") from None
        self._guards.append(function)  # type: ignore[arg-type]  # bound just now, to one str
        return function

    def call_tool(self, name: str, arguments: str, call: CallInfo, wait: Wait) -> str:
        """Run a tool and give its result as text.

        Args:
            name: as the model wrote it.
            arguments: a JSON object, as the model wrote it.
            call: for a tool that asks for it.
            wait: runs the coroutine of an async tool.

        Raises ToolError with a sentence that the model can act on; whatever else the tool
        raises passes through.
        """
        tool = self._tools.get(name)
        if tool is None:
            there = ", ".join(self._tools) or "none at all"
            raise ToolError(f"There is no tool {name!r}. There are: {there}.")
        try:
            given = tool.parameters.read(arguments)
        except ValueError as error:
            raise ToolError(f"{name} was not run: {error}") from None
        result = tool.function(call, **given) if tool.wants_call else tool.function(**given)
        if inspect.iscoroutine(result):
            result = wait(result)
        return result if isinstance(result, str) else as_json(result)

    def check(self, clause: str, wait: Wait) -> tuple[str, bool]:
        """What may be heard in the place of ``clause``, and whether the answer ends with it.

        Whatever a guard raises passes through; TypeError when it returns what no guard may.
        """
        for guard in self._guards:
            verdict = guard(clause)
            if inspect.iscoroutine(verdict):
                verdict = wait(verdict)
            match verdict:
                case None:
                    continue
                case Stop(text):
                    return text, True
                case str():
                    clause = verdict
                case _:
                    raise TypeError(
                        f"the guard {_name_of(guard, 'guard')} returned {verdict!r}: it may "
                        "return None, a str, or Stop"
                    )
        return clause, False


def _name_of(function: object, kind: str) -> str:
    if not inspect.isroutine(function):
        raise ConfigError(f"{function!r} is no function: @agent.{kind} goes above a def.")
    return function.__name__


def load(spec: str) -> Agent:
    """The agent that ``module:attribute`` names; the current folder is on the path.

    Raises ConfigError with one sentence on what is wrong: the name, the module, what happened
    while it was imported (with file and line), the attribute, or what it is.
    """
    match = _SPEC.fullmatch(spec)
    if match is None or match[1].endswith(".py"):
        guess = re.sub(r"\.py(?=:|$)", "", spec).replace("/", ".").strip(".:")
        guess = guess if _SPEC.fullmatch(guess) else f"{guess.partition(':')[0] or 'app'}:agent"
        raise ConfigError(f"{spec!r} names no agent: write MODULE:NAME, such as {guess}.")
    module = _import(match[1])
    name = match[2]
    agents = [key for key, value in vars(module).items() if isinstance(value, Agent)]
    hint = f"; it has the agent {agents[0]!r}" if agents else ""
    if not hasattr(module, name):
        raise ConfigError(f"The module {match[1]!r} has no {name!r}{hint}.")
    agent = getattr(module, name)
    if not isinstance(agent, Agent):
        kind = type(agent).__name__
        raise ConfigError(f"{spec} is of type {kind}, not an Agent{hint}.")
    return agent


def _import(name: str) -> ModuleType:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"There is no module {error.name!r} in {folder} or among what is installed."
            ) from None
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> ConfigError:
    """Where a module failed while it was imported, and with what."""
    if isinstance(error, SyntaxError) and error.filename:
        where, line = error.filename, error.lineno or 0
        what = f"{type(error).__name__}: {error.msg}"
    else:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith("<") and not _ours(frame.filename)
        ]
        where, line = (frames[-1].filename, frames[-1].lineno or 0) if frames else (name, 0)
        what = str(error) if isinstance(error, ThreadlineError) else _one_line(error)
    what = what.rstrip(".")
    return ConfigError(f"{name} cannot be imported: {where}, line {line}: {what}.")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _ours(path: str) -> bool:
    """A line of Threadline or of the import machinery says nothing about a user's mistake."""
    here = os.path.dirname(os.path.abspath(__file__))
    return path.startswith(here + os.sep) or os.path.dirname(path) == os.path.dirname(
        importlib.__file__
    )
