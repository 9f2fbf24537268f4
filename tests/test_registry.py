"""Tools: what a function tells of itself, which calls run, and what is refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from glm.errors import BadRequest, NotFound, ToolError
from glm.messages import ToolCall, ToolResult, ToolSpec
from tools import schema
from tools.registry import Cancel, Context, Registry, Tool, register_tool, tool
from tools.time_limit import limited

HERE = Context("ann", "c1", Path("nowhere"))


@tool
def weather(city: str, days: int = 3, unit: Literal["c", "f"] | None = None) -> dict[str, Any]:
    """Tell the weather
    of a city.

    Args:
        city: The name of
            the city
        days (int): How many days

    Returns:
        What the sky does.
    """
    return {"city": city, "days": days, "unit": unit}


@register_tool
def random_number_generator(
    seed: Annotated[int, "The random seed used by the generator", True],
    range: Annotated[tuple[int, int], "The range of the generated numbers", True],
    unit: Annotated[str, "Anything", False],
) -> list[Any]:
    """
    Generates a random number x, s.t. range[0] <= x < range[1]
    """
    return [seed, type(range).__name__, unit]


@tool(network=True)
def fetch(place: str) -> str:
    """Look something up."""
    return place


def box(*tools: Tool, **policies: Any) -> Any:
    return Registry(tools).toolbox([item.name for item in tools], HERE, policies)


def called(toolbox: Any, name: str, **values: Any) -> ToolResult:
    result = toolbox.call(ToolCall(name, values), Cancel())
    assert isinstance(result, ToolResult)
    assert "\n" not in result.text or not result.error
    return result


# ---- functions as tools --------------------------------------------------------------------


def test_a_function_becomes_a_specification():
    assert weather.spec == ToolSpec(
        "weather",
        "Tell the weather of a city.",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The name of the city"},
                "days": {"type": "integer", "description": "How many days", "default": 3},
                "unit": {"type": "string", "enum": ["c", "f"]},
            },
            "required": ["city"],
        },
    )
    assert schema.schema_problem(weather.spec.parameters) == ""


def test_a_tool_is_still_a_function():
    assert weather("Oslo", days=1) == {"city": "Oslo", "days": 1, "unit": None}


@pytest.mark.parametrize(
    "hint,expected",
    [
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (list[str], {"type": "array", "items": {"type": "string"}}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (tuple[int, str], {
            "type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "minItems": 2, "maxItems": 2,
        }),
        (Any, {}),
    ],
)  # fmt: skip
def test_types_become_schemas(hint, expected):
    def f(x):
        """Anything."""

    f.__annotations__ = {"x": hint}
    made = tool(f).spec.parameters
    assert made["properties"] == {"x": expected}
    assert schema.schema_problem(made) == ""


def test_sphinx_docstrings_describe_parameters():
    @tool
    def f(x: int) -> int:
        """Double.

        :param x: The number
        :returns: twice as much
        """
        return 2 * x

    assert f.spec.description == "Double."
    assert f.spec.parameters["properties"]["x"]["description"] == "The number"


@pytest.mark.parametrize(
    "hints,says",
    [({}, "'x' needs a type"), ({"x": complex}, "'x': JSON has no complex")],
)
def test_a_function_that_cannot_be_described_is_refused(hints, says):
    def f(x):
        """Anything."""

    f.__annotations__ = hints
    with pytest.raises(TypeError, match=says):
        tool(f)


def test_the_tool_of_chatglm3_works_unchanged():
    parameters = random_number_generator.spec.parameters
    assert parameters["required"] == ["seed", "range"]
    assert parameters["properties"]["seed"] == {
        "type": "integer",
        "description": "The random seed used by the generator",
    }
    result = called(box(random_number_generator), "random_number_generator", seed=1, range=[1, 2])
    assert result.text == '[1, "tuple", null]'


def test_the_rules_of_chatglm3_are_told_in_its_words():
    def f(x): ...

    with pytest.raises(TypeError, match="Parameter `x` missing type annotation"):
        register_tool(f)
    f.__annotations__ = {"x": int}
    with pytest.raises(TypeError, match="`x` must be typing.Annotated"):
        register_tool(f)


def test_context_and_cancel_are_not_the_models_business():
    @tool
    def whoami(greeting: str, where: Context, cancel: Cancel) -> str:
        """Greet."""
        return f"{greeting} {where.owner} {cancel.is_set()}"

    assert list(whoami.spec.parameters["properties"]) == ["greeting"]
    assert called(box(whoami), "whoami", greeting="Hi").text == "Hi ann False"
    assert called(box(whoami), "whoami", greeting="Hi", where="x").error


def test_a_function_that_does_not_fit_its_specification_is_refused():
    spec = ToolSpec("f", "", {"type": "object", "properties": {"a": {"type": "string"}}})
    with pytest.raises(TypeError, match="needs \\['a'\\]"):
        tool(spec=spec)(weather_of)
    with pytest.raises(TypeError, match="names \\['a'\\]"):
        tool(spec=spec)(weather.function)
    fits = {**spec.parameters, "required": ["a"]}
    assert tool(spec=ToolSpec("f", "", fits))(weather_of).spec.name == "f"
    fits = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    with pytest.raises(TypeError, match="'a' is of type string"):
        tool(spec=ToolSpec("f", "", fits))(weather_of)


def weather_of(a: str) -> str:
    return a


def test_a_coroutine_function_is_run_to_its_end():
    @tool
    async def later(x: int) -> int:
        """Later."""
        return x + 1

    assert called(box(later), "later", x=1).text == "2"


# ---- which calls run -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Weather", "weather ", "fetch", "rm -rf", "", "w\x1b[31m\n"])
def test_a_tool_that_is_not_enabled_is_never_run(name):
    ran = []
    canary = Tool(ToolSpec("fetch"), lambda *_: ran.append(1))
    toolbox = Registry([weather, canary]).toolbox(["weather", "no_longer_here"], HERE)
    result = called(toolbox, name)
    assert result.error and result.text.endswith("available: weather")
    assert toolbox.policy(name) == "deny" and not ran
    assert not called(toolbox, "weather", city="Oslo").error  # still healthy


def test_a_denied_tool_is_never_run():
    ran = []
    canary = Tool(ToolSpec("x"), lambda *_: ran.append(1))
    assert called(box(canary, x="deny"), "x").error and not ran


def test_what_uses_the_network_asks_first():
    assert (fetch.policy, weather.policy) == ("ask", "allow")
    assert box(fetch).policy("fetch") == "ask"
    assert box(fetch, fetch="allow").policy("fetch") == "allow"


def test_names_are_unique():
    registry = Registry([weather])
    with pytest.raises(BadRequest, match="'weather' exists already"):
        registry.add(fetch, weather)
    assert registry.tools() == (weather,)  # all or none
    with pytest.raises(BadRequest, match="'weather' exists already"):
        registry.toolbox(["weather"], HERE, own=[weather])
    registry.remove("weather", "nothing")
    with pytest.raises(NotFound, match="available: none"):
        registry.get("weather")


def test_a_tool_that_is_late_or_cancelled_says_so():
    def wait(_: Any, __: Context, cancel: Cancel) -> str:
        cancel.on_set(ended.append)
        raise RuntimeError("interrupted")

    class Ended(list):
        def append(self, *_: Any) -> None:
            super().append(1)

    ended = Ended()
    order = Cancel()
    order.set()
    toolbox = box(Tool(ToolSpec("x"), wait))
    assert toolbox.call(ToolCall("x"), order).text == "x was stopped before it ran"
    order = Cancel()

    def stops_itself(_: Any, __: Context, cancel: Cancel) -> str:
        order.set()
        assert cancel.is_set()
        raise RuntimeError("interrupted")

    assert box(Tool(ToolSpec("x"), stops_itself)).call(ToolCall("x"), order).text == "x was stopped"
    with limited(1000) as stop:
        stop.on_set(ended.append)
        stop.expire()
        assert stop.late and stop.is_set() and ended == [1]


def test_every_end_of_a_tool_is_a_result():
    for error in (
        ValueError("bad\nTraceback"),
        KeyboardInterrupt(),
        SystemExit(3),
        ToolError("no"),
    ):

        def fail(*_: Any, error: BaseException = error) -> None:
            raise error

        result = called(box(Tool(ToolSpec("x"), fail)), "x")
        assert result.error and "Traceback" not in result.text
