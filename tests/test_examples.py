"""The examples: what they are made of, and a call with each through a whole server."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "threads"))
sys.path.insert(0, str(Path(__file__).parent / "vendors"))
from llm_server import Exchange, LlmServer, chunk, fragment, tail
from serving import House, Line, house, quick, recorded, spoken

from threadline.agent import Agent, CallInfo, ToolError, load
from threadline.config import Llm, Talk
from threadline.dialog.tools import HANG_UP
from threadline.models.store import ModelStore

ROOT = Path(__file__).parents[1]
NAMES = ("bare", "booking", "guarded")
WORDS = "I would like a table for two."


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples are named as in their own texts: from the repository's root."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))


def example(name: str) -> Agent:
    return load(f"examples.{name}:agent")


@pytest.fixture
def booking() -> Iterator[ModuleType]:
    """The module, with no booking in its book before and after."""
    example("booking")
    module = sys.modules["examples.booking"]
    module._booked.clear()
    yield module
    module._booked.clear()


def run(agent: Agent, tool: str, caller: str = "", **arguments: object) -> str:
    def wait(work: Coroutine[Any, Any, object]) -> object:
        return asyncio.run(work)

    return agent.call_tool(tool, json.dumps(arguments), CallInfo(caller=caller), wait)


# -- what they are made of -------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_each_can_be_loaded_and_says_how_it_is_run(name: str) -> None:
    agent = example(name)
    assert agent.instructions
    assert agent.greeting
    text = sys.modules[f"examples.{name}"].__doc__
    assert text is not None
    assert f"threadline serve examples.{name}:agent" in text
    assert f"threadline demo --app examples.{name}:agent" in text


def test_every_example_is_tested_and_can_be_found() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(NAMES)
    readme = (ROOT / "README.md").read_text()
    source = (ROOT / "examples" / "bare.py").read_text()
    body = source[source.index("from threadline") :]
    assert body.strip() in readme, "the README's agent is the bare one"


def test_the_bare_one_has_nothing_but_words() -> None:
    agent = example("bare")
    assert agent.tools == (HANG_UP,)
    assert not agent.guarded


def test_the_model_is_told_what_each_tool_does() -> None:
    tools = {tool.name: tool for tool in example("booking").tools if tool != HANG_UP}
    assert set(tools) == {"free_tables", "book_table", "cancel_booking"}
    for tool in tools.values():
        assert tool.description
        json.dumps(tool.parameters)
    asked = tools["book_table"].parameters["properties"]
    assert isinstance(asked, dict)
    assert set(asked) == {"day", "hour", "table", "name"}, "the call is not the model's business"


def test_a_table_is_looked_for_booked_and_given_up(booking: ModuleType) -> None:
    agent = booking.agent
    when = {"day": "Friday", "hour": 19}
    free = json.loads(run(agent, "free_tables", **when, people=4))
    assert free == ["corner", "garden", "long"]
    done = run(agent, "book_table", "+15551230000", **when, table="corner", name="Anna")
    assert "Anna" in done
    assert "+15551230000" in done
    assert json.loads(run(agent, "free_tables", **when, people=4)) == ["garden", "long"]
    assert json.loads(run(agent, "free_tables", day="Friday", hour=20, people=4)) == free
    assert "corner" in run(agent, "cancel_booking", **when, name="Anna")
    assert "no booking" in run(agent, "cancel_booking", **when, name="Anna")
    assert json.loads(run(agent, "free_tables", **when, people=4)) == free


def test_what_cannot_be_booked_is_a_sentence_for_the_model(booking: ModuleType) -> None:
    agent = booking.agent
    friday = {"day": "Friday", "hour": 19}
    run(agent, "book_table", **friday, table="bar", name="Anna")
    for arguments, said in (
        ({**friday, "table": "bar", "name": "Ben"}, "Somebody else"),
        ({**friday, "table": "roof", "name": "Ben"}, "There is no table roof"),
        ({"day": "Friday", "hour": 3, "table": "bar", "name": "Ben"}, "from 12 to 21"),
        ({"day": "Monday", "hour": 19, "table": "bar", "name": "Ben"}, "was not run"),
    ):
        with pytest.raises(ToolError, match=said):
            run(agent, "book_table", **arguments)


@pytest.mark.parametrize(
    ("clause", "heard", "stopped"),
    [
        ("We open at noon.", "We open at noon.", False),
        ("It is 4111 1111 1111 1234, right?", "It is one ending in 1 2 3 4, right?", False),
        ("It is 4111-1111-1111-1234.", "It is one ending in 1 2 3 4.", False),
        ("Call 555 0142.", "Call 555 0142.", False),
        ("I guarantee it.", "A colleague will call you back about that.", True),
    ],
)
def test_the_guards_let_pass_what_they_may(clause: str, heard: str, stopped: bool) -> None:
    agent = example("guarded")
    assert agent.guarded
    assert agent.protect_greeting
    assert agent.check(clause, lambda work: None) == (heard, stopped)


# -- a call with each ----------------------------------------------------------------------------


def calls(name: str, arguments: dict[str, object]) -> Any:
    """A model that wants a tool."""

    def plan(exchange: Exchange) -> None:
        exchange.begin()
        exchange.send(fragment(0, "call-1", name, json.dumps(arguments)) + tail("tool_calls"))
        exchange.end()

    return plan


def says(*texts: str) -> Any:
    """A model that talks."""

    def plan(exchange: Exchange) -> None:
        exchange.begin()
        exchange.send(b"".join(chunk({"content": text}) for text in texts) + tail())
        exchange.end()

    return plan


def ask(this: House, models: ModelStore) -> Line:
    """A call in which something is asked; returns once it is answered."""
    line = this.line()
    line.until(lambda: line.replies() == 1, "the greeting")
    line.say(recorded(models, WORDS), this.slot_of(line))
    line.until(lambda: line.replies() == 2, "an answer")
    return line


def served(models: ModelStore, folder: Path, server: LlmServer, agent: Agent) -> Any:
    """A house whose model is the server. The tone voice says each clause as exactly these bytes."""
    llm = Llm(chain=("openai",), base_url=server.url, speculate=False)
    talk = Talk(workers=2, filler_seconds=5.0, guard_seconds=10.0)
    return house(models, folder, config=quick(llm=llm, talk=talk), agent=agent)


def test_a_call_with_the_bare_one(models: ModelStore, tmp_path: Path) -> None:
    agent = example("bare")
    with LlmServer() as server, served(models, tmp_path, server, agent) as this:
        server.plans.append(says("Of course.", " For which day?"))
        line = ask(this, models)
        assert line.heard == spoken(agent.greeting) + spoken("Of course. For which day?")
        line.hang_up()
        (request,) = server.requests
        system, *_, user = request.body["messages"]
        assert agent.instructions in system["content"]
        assert user["role"] == "user"
        assert "worker-1" not in {one.stage.name for one in this.server.supervisor.stages}


def test_a_call_with_the_one_that_books(
    models: ModelStore, tmp_path: Path, booking: ModuleType
) -> None:
    agent = booking.agent
    order = {"day": "Friday", "hour": 19, "table": "bar", "name": "Anna"}
    with LlmServer() as server, served(models, tmp_path, server, agent) as this:
        server.plans += [calls("book_table", order), says("It is booked.")]
        line = ask(this, models)
        assert line.heard == spoken(agent.greeting) + spoken("It is booked.")
        line.hang_up()
        assert booking._booked == {("Friday", 19, "bar"): "Anna"}
        first, second = (request.body for request in server.requests)
        offered = {tool["function"]["name"] for tool in first["tools"]}
        assert {tool.name for tool in agent.tools} <= offered
        *_, asked, answered = second["messages"]
        assert asked["tool_calls"][0]["function"]["name"] == "book_table"
        assert answered["role"] == "tool"
        assert "Booked for Anna" in answered["content"]
        stages = {one.stage.name for one in this.server.supervisor.stages}
        assert {"worker-1", "worker-2", "io-vendors"} <= stages


def test_a_call_with_the_guarded_one(models: ModelStore, tmp_path: Path) -> None:
    agent = example("guarded")
    with LlmServer() as server, served(models, tmp_path, server, agent) as this:
        server.plans.append(
            says("Your card is 4111 1111 1111 1234.", " We promise a discount.", " And more.")
        )
        line = ask(this, models)
        line.hang_up()
        said = this.logged("turn", turn=1)
        assert line.heard.startswith(spoken(agent.greeting))
        assert "4111" not in json.dumps(this.records())
        assert said["said"] == (
            "Your card is one ending in 1 2 3 4. A colleague will call you back about that."
        )
