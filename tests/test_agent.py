"""What a user writes: schemas from annotations, arguments from JSON, guards, and loading."""

import asyncio
import json
import sys
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.agent import Agent, CallInfo, Stop, ToolError, load
from threadline.dialog.tools import HANG_UP
from threadline.errors import ConfigError


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Guest:
    name: str
    age: int = 0


@dataclass
class Family:
    guests: list[Guest]
    mother: Family | None = None


def run(agent, name, /, call=None, **arguments):
    return agent.call_tool(name, json.dumps(arguments), call or CallInfo(), asyncio.run)


def schema(function):
    agent = Agent(hang_up=False)
    agent.tool(function)
    return agent.tools[0].parameters


# -- what a model is told --------------------------------------------------------------------------


def test_a_tool_is_described_by_its_name_its_docstring_and_its_annotations():
    agent = Agent(hang_up=False)

    @agent.tool
    def book_table(day: str, people: int = 2) -> str:
        """Book a table.

        It is held for an hour.

        Args:
            day: a weekday,
                or a date like May 5th
            people: how many are coming
        """
        return f"{day}: {people}"

    (spec,) = agent.tools
    assert (spec.name, spec.description) == (
        "book_table",
        "Book a table.\n\nIt is held for an hour.",
    )
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "day": {"type": "string", "description": "a weekday, or a date like May 5th"},
            "people": {"type": "integer", "description": "how many are coming"},
        },
        "required": ["day"],
        "additionalProperties": False,
    }
    assert book_table("Friday") == "Friday: 2"  # a plain function still
    assert json.loads(json.dumps(spec.parameters)) == spec.parameters


@pytest.mark.parametrize(
    ("annotation", "told"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal[1, 2], {"type": "integer", "enum": [1, 2]}),
        (Size, {"type": "string", "enum": ["small", "large"]}),
        (str | None, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        (
            Guest,
            {
                "type": "object",
                "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
                "required": ["name"],
                "additionalProperties": False,
            },
        ),
    ],
)
def test_types(annotation, told):
    def tool(it):
        return it

    tool.__annotations__ = {"it": annotation}
    assert schema(tool)["properties"]["it"] == told


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        (dict, "is a dict"),
        (Any, "which no model can be told"),
        (list, "is a list"),
        (list[dict[str, int]], "which no model can be told"),
        (int | str, "which no model can be told"),
        (Literal[1, "a"], "all texts, or all integers"),
        (Literal[True], "all texts, or all integers"),
        (Family, "'mother' that is a dataclass that holds itself"),
    ],
)
def test_a_type_that_no_model_can_be_told_is_named_with_its_function_and_parameter(annotation, why):
    def order(it):
        return it

    order.__annotations__ = {"it": annotation}
    with pytest.raises(ConfigError, match="'it' of the tool order") as caught:
        Agent().tool(order)
    assert why in str(caught.value)


def test_what_is_no_tool_is_said_at_once():
    agent = Agent()

    def bare(day):
        return day

    def many(*days: str):
        return days

    def hang_up():
        return "gone"

    def twice():
        return 1

    def future(day: Nowhere):  # noqa: F821  # that is the mistake
        return day

    agent.tool(twice)
    for wrong, sentence in (
        (bare, "'day' of the tool bare has no annotation"),
        (many, r"many takes \*days"),
        (hang_up, "another tool named hang_up"),
        (twice, "another tool named twice"),
        (future, "'Nowhere' is not defined"),
        (Guest, "is no function"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            agent.tool(wrong)
    assert [spec.name for spec in agent.tools] == ["twice", "hang_up"]


def test_the_model_may_end_the_call_unless_it_may_not():
    assert Agent().tools == (HANG_UP,)
    assert Agent(hang_up=False).tools == ()


# -- what a model asks for -------------------------------------------------------------------------


@pytest.fixture
def agent():
    made = Agent()

    @made.tool
    def echo(
        text: str = "",
        size: Size = Size.SMALL,
        guests: list[Guest] = [],  # noqa: B006  # as users write it; it is not changed
        share: float = 0.5,
        when: str | None = "now",
    ):
        return repr((text, size, guests, share, when))

    @made.tool
    def book(day: str, people: int):
        return {"day": day, "people": people}

    return made


def test_arguments_become_what_the_annotations_say(agent):
    told = run(agent, "echo", text="é", size="large", guests=[{"name": "Anna"}], share=1, when=None)
    assert told == repr(("é", Size.LARGE, [Guest("Anna", 0)], 1.0, None))
    assert run(agent, "echo") == repr(("", Size.SMALL, [], 0.5, "now"))
    assert run(agent, "echo", text=None) == run(agent, "echo")  # a null leaves it at its default
    assert agent.call_tool("echo", "", CallInfo(), asyncio.run) == run(agent, "echo")
    assert json.loads(run(agent, "book", day="Friday", people=4.0)) == {
        "day": "Friday",
        "people": 4,
    }


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("nothing", "{}", "There is no tool 'nothing'. There are: echo, book."),
        ("book", "{", "book was not run: its arguments are no JSON"),
        ("book", "[1]", "its arguments must be a JSON object."),
        ("book", '{"day": "Friday"}', "the argument 'people' is missing."),
        ("book", '{"day": 5, "people": 2}', "'day' must be a string, not 5."),
        ("book", '{"day": "x", "people": "two"}', "'people' must be an integer, not \"two\"."),
        ("book", '{"day": "x", "people": true}', "'people' must be an integer, not true."),
        ("book", '{"day": "x", "people": 2.5}', "'people' must be an integer, not 2.5."),
        ("book", '{"day": "x", "people": 2, "time": 7}', 'there is no argument "time"'),
        ("echo", '{"size": "huge"}', '\'size\' must be one of "small", "large", not "huge".'),
        ("echo", '{"guests": {}}', "'guests' must be a list, not {}."),
        ("echo", '{"guests": [{"age": 1}]}', "the argument 'name' is missing."),
        ("echo", '{"share": NaN}', "'share' must be a finite number"),
        ("echo", '{"share": 1' + "0" * 400 + "}", "'share' must be a finite number"),
        ("echo", "[" * 100_000, "its arguments are no JSON"),
    ],
)
def test_what_a_model_gets_wrong_is_one_sentence_that_it_can_act_on(
    agent, name, arguments, sentence
):
    with pytest.raises(ToolError) as caught:
        agent.call_tool(name, arguments, CallInfo(), asyncio.run)
    assert sentence in str(caught.value)
    assert str(caught.value).count("\n") == 0


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_whatever_a_model_sends_is_an_answer_or_a_sentence(given_value):
    agent = Agent()

    @agent.tool
    def take(it: list[Guest], size: Size | None = None, count: int = 1, share: float = 1.0) -> str:
        return "taken"

    for arguments in (given_value, {"it": given_value}, {"it": [], "count": given_value},
                      {"it": [], "size": given_value, "share": given_value}):  # fmt: skip
        try:
            said = agent.call_tool("take", json.dumps(arguments), CallInfo(), asyncio.run)
        except ToolError as error:
            said = str(error)
        assert said == "taken" or said.startswith("take was not run: ")


def test_results_are_text():
    agent = Agent()

    @agent.tool
    def give(kind: int):
        things = [
            "as it is",
            {"guest": Guest("Zoë"), "size": Size.LARGE, "odd": {3}, "at": ValueError("x")},
            None,
        ]
        return things[kind]

    assert run(agent, "give", kind=0) == "as it is"
    told = run(agent, "give", kind=1)
    assert "Zoë" in told
    assert json.loads(told) == {
        "guest": {"name": "Zoë", "age": 0},
        "size": "large",
        "odd": [3],
        "at": "x",
    }
    assert run(agent, "give", kind=2) == "null"


def test_a_tool_that_wants_the_call_gets_it_and_the_model_is_not_told():
    agent = Agent(hang_up=False)

    @agent.tool
    def who(call: CallInfo, greeting: str) -> str:
        return f"{greeting} {call.caller}"

    assert list(agent.tools[0].parameters["properties"]) == ["greeting"]
    assert run(agent, "who", CallInfo("CA1", "+1555"), greeting="Hi") == "Hi +1555"
    with pytest.raises(ToolError, match="no argument"):
        agent.call_tool("who", '{"greeting": "Hi", "call": 1}', CallInfo(), asyncio.run)


def test_an_async_tool_is_waited_for_and_any_error_passes_through():
    agent = Agent()

    @agent.tool
    async def slow(text: str) -> str:
        await asyncio.sleep(0)
        return text.upper()

    @agent.tool
    def refuse() -> str:
        raise ToolError("There is no table at eight.")

    @agent.tool
    def breaks() -> str:
        raise KeyError("x")

    assert run(agent, "slow", text="a") == "A"
    with pytest.raises(ToolError, match=r"^There is no table at eight\.$"):
        run(agent, "refuse")
    with pytest.raises(KeyError):
        run(agent, "breaks")


# -- guards ----------------------------------------------------------------------------------------


def test_guards_pass_replace_and_stop_in_order():
    agent = Agent()
    assert not agent.guarded
    seen = []

    @agent.guard
    async def polite(clause: str) -> str | None:
        await asyncio.sleep(0)
        return clause.replace("damn", "very") if "damn" in clause else None

    @agent.guard
    def honest(clause: str) -> Stop | None:
        seen.append(clause)
        return Stop("I cannot say.") if "secret" in clause else None

    @agent.guard
    def last(clause: str) -> str | None:
        return "" if clause == "nothing" else None

    assert agent.guarded
    assert agent.check("Good.", asyncio.run) == ("Good.", False)
    assert agent.check("damn good", asyncio.run) == ("very good", False)
    assert agent.check("damn secret", asyncio.run) == ("I cannot say.", True)
    assert agent.check("nothing", asyncio.run) == ("", False)
    assert seen == ["Good.", "very good", "very secret", "nothing"]


def test_a_guard_that_is_none_is_said_so():
    agent = Agent()

    @agent.guard
    def wrong(clause: str) -> bool:
        return True

    with pytest.raises(TypeError, match="the guard wrong returned True"):
        agent.check("Good.", asyncio.run)

    def greedy(clause: str, more: str) -> None: ...

    with pytest.raises(ConfigError, match="guard greedy must take one argument"):
        agent.guard(greedy)


# -- loading ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


GOOD = "from threadline.agent import Agent\nagent = Agent('Be brief.')\nother = 5\n"


def test_an_agent_is_loaded_from_the_current_folder(folder):
    (folder / "my_app.py").write_text(GOOD)
    (folder / "pack").mkdir()
    (folder / "pack" / "inner.py").write_text(GOOD)
    assert load("my_app:agent").instructions == "Be brief."
    assert load("pack.inner:agent") is sys.modules["pack.inner"].agent


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("my_app", "'my_app' names no agent: write MODULE:NAME, such as my_app:agent."),
        ("my_app.py:agent", "names no agent: write MODULE:NAME, such as my_app:agent."),
        ("", "names no agent: write MODULE:NAME, such as app:agent."),
        ("nowhere_at_all:agent", "There is no module 'nowhere_at_all' in "),
        ("my_app:agnt", "The module 'my_app' has no 'agnt'; it has the agent 'agent'."),
        ("my_app:other", "my_app:other is of type int, not an Agent; it has the agent 'agent'."),
        ("raises:agent", "raises.py, line 3: ZeroDivisionError: division by zero."),
        ("deep:agent", "raises.py, line 3: ZeroDivisionError"),
        ("typo:agent", "typo.py, line 2: SyntaxError: "),
        ("needs:agent", "needs.py, line 1: ModuleNotFoundError: No module named 'nowhere_at_all'."),
        ("leaves:agent", "leaves.py, line 2: SystemExit: 3."),
        ("untyped:agent", "untyped.py, line 3: The parameter 'day' of the tool book has no anno"),
    ],
)
def test_each_mistake_is_one_sentence(folder, spec, sentence):
    (folder / "my_app.py").write_text(GOOD)
    (folder / "raises.py").write_text("def f():\n    # divides\n    return 1 / 0\n\nf()\n")
    (folder / "deep.py").write_text("import raises\n")
    (folder / "typo.py").write_text("x = 1\nif x\n")
    (folder / "needs.py").write_text("import nowhere_at_all\n")
    (folder / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    (folder / "untyped.py").write_text(
        "from threadline.agent import Agent\nagent = Agent()\n@agent.tool\ndef book(day): ...\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(spec)
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
