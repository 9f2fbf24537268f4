"""Arguments of a call: converted where that is plain, else one sentence that names the field."""

from __future__ import annotations

import math

import pytest

from glm.errors import ToolError
from glm.messages import ToolSpec
from tools import arguments

SPEC = ToolSpec(
    "t",
    "",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 100},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
            "unit": {"enum": ["c", "f"]},
            "rain": {"type": "boolean"},
            "height": {"type": "number"},
            "codes": {"type": "array", "items": {"type": "integer"}},
            "either": {"anyOf": [{"type": "integer"}, {"type": "array"}]},
            "inner": {"$ref": "#/$defs/inner"},
            "bad": {"type": "string", "pattern": r"^(\w|\d|_)*$"},
        },
        "required": ["city"],
        "$defs": {
            "inner": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
        },
    },
)


@pytest.mark.parametrize(
    "given,expected",
    [
        ({"days": "3"}, {"days": 3}),
        ({"days": 3.0}, {"days": 3}),
        ({"height": " 1e3 "}, {"height": 1000.0}),
        ({"rain": "True"}, {"rain": True}),
        ({"city": 75001}, {"city": "75001"}),
        ({"codes": '[1, "2"]'}, {"codes": [1, 2]}),
        ({"either": "3"}, {"either": 3}),
        ({"inner": {"x": "1"}}, {"inner": {"x": 1}}),
        ({"days": None}, {}),
    ],
)
def test_arguments_are_converted_where_the_meaning_is_plain(given, expected):
    assert arguments.check(SPEC, {"city": "Oslo", **given}) == {"city": "Oslo", **expected}


@pytest.mark.parametrize(
    "given,says",
    [
        ({}, "the argument 'city' is missing"),
        ({"city": None}, "the argument 'city' must be a text, not null"),
        ({"city": ["x"]}, "the argument 'city' must be a text"),
        ({"city": "x", "days": "soon"}, "the argument 'days' must be a whole number, not soon"),
        ({"city": "x", "days": True}, "the argument 'days' must be a whole number, not true"),
        ({"city": "x", "days": 8}, "the argument 'days' must be at most 7, not 8"),
        ({"city": "x", "unit": "k"}, "the argument 'unit' must be one of c, f, not k"),
        ({"city": "x", "inner": {}}, "the argument 'inner.x' is missing"),
        ({"city": "x", "codes": [1, "b"]}, "the argument 'codes.1' must be a whole number"),
        ({"city": "x", "dayz": 1}, "'dayz' is not an argument; there are: city, days"),
        ({"city": "x", "height": math.nan}, "the argument 'height' is not a finite number"),
        ({"city": "x", "height": -math.inf}, "the argument 'height' is not a finite number"),
        ({"city": "x", "height": 10**400}, "the argument 'height' is too large a number"),
        ({"city": "x", "height": "1e999"}, "the argument 'height' must be a number"),
        ({"city": "x", "days": [10**400]}, "the argument 'days' is too large a number"),
        ({"city": "x" * 1000}, "the argument 'city' may have at most 100 characters"),
        ({"city": b"x"}, "the argument 'city' is a bytes"),
        ({"city": "x", "\x1b[31m": 1}, "is not an argument"),
        ({"city": "x", "bad": "a" * 40 + "!"}, "the argument 'bad'"),
    ],
)
def test_wrong_arguments_are_named_in_one_sentence(given, says):
    with pytest.raises(ToolError) as told:
        arguments.check(SPEC, given)
    sentence = str(told.value)
    assert says in sentence and len(sentence) < 400
    assert sentence.isprintable()


def test_a_pattern_that_runs_for_ever_ends():
    spec = ToolSpec("t", "", {"properties": {"p": {"type": "string", "pattern": "(a|a)*$"}}})
    with pytest.raises(ToolError, match="the argument 'p' takes too long"):
        arguments.check(spec, {"p": "a" * 5000 + "!"})


@pytest.mark.parametrize(
    "text,says",
    [
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"a": {"b": 1, "b": 2}}', "'b' stands twice"),
        ("[1]", "not a JSON object"),
        ("{", "not JSON"),
        ("", "not JSON"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_arguments_written_as_json_are_read_strictly(text, says):
    with pytest.raises(ToolError, match=says):
        arguments.from_json(text)


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e400", "9" * 400, "9" * 5000])
def test_numbers_of_json_that_no_tool_can_hold_are_named(value):
    given = arguments.from_json(f'{{"height": {value}}}')
    for spec in (SPEC, ToolSpec("free")):
        with pytest.raises(ToolError, match="'height' is"):
            arguments.check(spec, {"city": "x", **given})


def test_nothing_is_fetched_whatever_a_schema_refers_to(monkeypatch):
    opened = []
    monkeypatch.setattr("urllib.request.urlopen", lambda request, *_: opened.append(request))
    for reference in ("http://127.0.0.1:9/x", "file:///etc/hostname"):
        spec = ToolSpec("t", "", {"properties": {"a": {"$ref": reference}}})
        with pytest.raises(Exception, match="Unresolvable"):
            arguments.check(spec, {"a": 1})
    assert not opened


def test_without_a_schema_only_the_syntax_counts():
    given = {"anything": [1, {"x": None}]}
    assert arguments.check(ToolSpec("t", raw="t: does something"), given) == given
    assert arguments.check(ToolSpec("t", "", {"type": "object"}), given) == given


def test_further_arguments_are_taken_where_the_schema_says_so():
    spec = ToolSpec("t", "", {"properties": {}, "additionalProperties": {"type": "integer"}})
    assert arguments.check(spec, {"x": "1", "y": 2}) == {"x": 1, "y": 2}
    with pytest.raises(ToolError, match="'z' is not an argument"):
        arguments.check(ToolSpec("t", "", {"properties": {}}), {"z": 1})


class Counted(str):
    """A text that counts how often it is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)


UNIQUE = ToolSpec(
    "set", "", {"properties": {"x": {"type": "array", "uniqueItems": True, "items": {}}}}
)


def test_unique_items_cost_no_more_than_there_are():
    Counted.compared = 0
    items = [{"a": Counted(number)} for number in range(2000)]
    assert len(arguments.check(UNIQUE, {"x": items})["x"]) == 2000
    assert Counted.compared < 10_000


@pytest.mark.parametrize(
    ("items", "unique"),
    [
        ([1, True, "1", [1], {"a": 1}, 0, False, None, ""], True),
        ([1, 1.0], False),
        ([{"a": 1, "b": [2.0]}, {"b": [2], "a": 1}], False),
        ([[1], [True]], True),
        ([2**62, float(2**62)], False),
    ],
)
def test_items_are_unique_as_json_schema_says(items, unique):
    if unique:
        assert arguments.check(UNIQUE, {"x": items})["x"] == items
    else:
        with pytest.raises(ToolError, match="'x' holds an item twice"):
            arguments.check(UNIQUE, {"x": items})


@pytest.mark.parametrize("words", [("prefixItems", "items"), ("items", "additionalItems")])
def test_the_first_items_of_a_list_have_their_own_schemas(words):
    first, rest = words
    draft = {"$schema": "http://json-schema.org/draft-07/schema#"} if first == "items" else {}
    pair = {"type": "array", first: [{"type": "integer"}], rest: {"type": "string"}}
    spec = ToolSpec("pair", "", {**draft, "properties": {"x": pair}})
    assert arguments.check(spec, {"x": [1, "a", 2]})["x"] == [1, "a", "2"]
