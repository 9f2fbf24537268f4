"""Schemas and descriptors from visitors and servers: taken, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from glm.errors import BadRequest
from glm.messages import ToolCall, ToolSpec
from tools import builtin, descriptors, schema
from tools.registry import Cancel, Context, Registry, Tool


def deep(levels: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        made = {"type": "object", "properties": {"a": made}}
    return made


def of(**field: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": field}}


EVIL = "http://evil.example/schema"
DRAFT7 = "http://json-schema.org/draft-07/schema#"
CIRCLE: dict[str, Any] = {"type": "object", "properties": {}}
CIRCLE["properties"]["again"] = CIRCLE
DOUBLING = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)}


@pytest.mark.parametrize(
    "parameters,says",
    [
        (of(type="strin"), "properties.x.type"),
        (of(type=["string", "strin"]), "properties.x.type"),
        (of(type="string", pattern="("), "no regular expression"),
        (of(type="string", pattern="((a{1000}){1000}){1000}"), "counts of the pattern"),
        (of(type="string", pattern="a" * 2000), "longer than 1000"),
        (of(type="integer", minimum="a"), "properties.x.minimum"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "in a circle"),
        (of(**{"$ref": "#"}), "in a circle"),
        (of(**{"$ref": "http://evil.example/schema"}), "evil.example"),
        (of(**{"$ref": "file:///etc/passwd"}), "only '#/...'"),
        (of(**{"$ref": "#/$defs/gone"}), "'#/$defs/gone'"),
        ({**of(**{"$ref": "#/$defs/a0"}), "$defs": {**DOUBLING, "a40": {}}}, "when written out"),
        ({"patternProperties": {"(a+)+$": {}}}, "'patternProperties' is not supported"),
        ({"$schema": DRAFT7, "dependencies": {"x": {"$ref": EVIL}}}, "'dependencies'"),
        ({**of(**{"$ref": "#/x/y"}), "x": {"y": {"$dynamicRef": EVIL}}}, "'$dynamicRef'"),
        ({**of(**{"$ref": "#/x/y"}), "x": {"y": {"pattern": "a" * 2000}}}, "longer than 1000"),
        ({**of(**{"$ref": "#/x//y"}), "x": {"y": {}, "": {"y": {"$ref": EVIL}}}}, "evil.example"),
        (deep(1000), "nested deeper"),
        (CIRCLE, "nested deeper"),
        ({"type": "object", "description": "x" * 10_000_000}, "too large"),
        ({"type": "object", "enum": list(range(1_000_000))}, "too large"),
        ({"type": "string"}, "'object'"),
        ({"type": "object", "properties": {"x": "string"}}, "properties.x"),
        ({"type": "object", "required": "x"}, "'required'"),
        ({"type": "object", 5: 1}, "key that is not a string"),
        ({"type": "object", "default": {1, 2}}, "no JSON value"),
        ([], "not a JSON object"),
    ],
)
def test_bad_schemas_are_refused_in_one_sentence(parameters, says):
    with pytest.raises(BadRequest) as told:
        Tool(ToolSpec("bad", "", parameters), lambda *_: None)
    assert says in str(told.value) and "'bad'" in str(told.value)
    assert len(str(told.value)) < 400 and "\n" not in str(told.value)


def test_the_builtin_specifications_can_be_used():
    for spec in builtin.SPECS:
        schema.check_spec(spec)


@pytest.mark.parametrize("name", ["a b;rm", "", "x" * 200, "a\n", "../x y", None, 5, "$(id)"])
def test_bad_names_are_refused(name):
    with pytest.raises(BadRequest, match="no name for a tool"):
        Tool(ToolSpec(name), lambda *_: None)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        of(type="string", pattern=r"^\d{4}-\d{2}-\d{2}$"),
        {"properties": {"$ref": {"type": "string"}, "pattern": {}, "a": True}},
        {**of(**{"$ref": "#/$defs/y"}), "$defs": {"y": {"type": "string"}}},
        {**of(type="string"), "$schema": "http://json-schema.org/draft-07/schema#"},
        deep(10),
    ],
)
def test_good_schemas_are_taken(parameters):
    assert schema.schema_problem(parameters) == ""


# ---- pasted descriptors --------------------------------------------------------------------


@pytest.mark.parametrize(
    "text,name,required",
    [
        ('{"name": "f", "parameters": {"type": "object", "required": ["x"]}}', "f", ["x"]),
        ('{"type": "function", "function": {"name": "f", "parameters": {"required": ["x"]}}}',
         "f", None),
        ("name: f\ndescription: d\nparameters:\n  type: object\n  required: [x]\n", "f", ["x"]),
        ('{"name": "f", "params": [{"name": "x", "description": "d", "type": "tuple[int, int]",'
         ' "required": true}]}', "f", ["x"]),
        ('{"name": "f", "parameters": {"city": "a city"}}', "f", None),
        ("getWeather: Tell the weather. Parameters: {...}", "getWeather", None),
        ('["getA: first", "getB: second"]', "getA", None),
    ],
)  # fmt: skip
def test_descriptors_of_any_shape_become_tools_a_person_answers(text, name, required):
    made = descriptors.pasted(text)[0]
    assert (made.name, made.origin, made.manual) == (name, "schema", True)
    assert (made.spec.parameters or {}).get("required") == required
    context = Context("ann", "c1", Path("nowhere"))
    toolbox = Registry().toolbox([], context, {name: "allow"}, own=[made])
    assert toolbox.policy(name) == "ask" and toolbox.specs() == (made.spec,)
    result = toolbox.call(ToolCall(name, {"x": [1, 2]} if required else {}), Cancel())
    assert result.error and "answered by a person" in result.text


def test_a_descriptor_is_shown_exactly():
    text = "getWeather: Tell the weather. \\u00e9 {x}"
    assert descriptors.pasted(text)[0].spec.to_json() == text
    value = {"function": {"name": "f", "odd": [1, None]}, "type": "function"}
    assert descriptors.spec_of(value).to_json() is value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"description": "no name"}',
        "description: no name\ntype: object",
        '{"name": "a b;rm"}',
        '{"name": "f", "name": "g"}',
        '[{"name": "f"}, {"name": "f"}]',
        "[]",
        "5",
        "a: &a [x, x]\nb: [*a, *a]\nname: f",
        "name: !!python/object/apply:os.system ['true']",
        "name: f\n  bad: [",
        "name: f\nparameters: " + "[" * 20_000,
        '{"name": "f", "x": ' + "[" * 100_000,
        "[" * 5000 + "]" * 5000,
        "x" * 10_000_000,
        '{"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "strin"}}}}',
    ],
)
def test_bad_pasted_text_is_refused_in_one_sentence(text):
    with pytest.raises(BadRequest) as told:
        descriptors.pasted(text)
    assert len(str(told.value)) < 400 and "\n" not in str(told.value)
