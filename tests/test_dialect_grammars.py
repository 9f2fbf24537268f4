"""One table through all dialects: under a constraint every call parses and follows its schema."""

from __future__ import annotations

import copy
import itertools
import random
import re

import jsonschema
import pytest

from glm.constrain import Constrainer
from glm.dialects import DIALECTS
from glm.errors import BadRequest
from glm.messages import Call, Malformed, Message, Text, ToolCall, ToolSpec
from tests.dialect_desk import CHATML, TAGS, desk, hub, joined, ranks
from tests.grammar_walk import Walk, parsed, random_object
from tools.arguments import check

OPENED = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
MORE = {
    "glm47 without thoughts": lambda: DIALECTS["glm47"](ranks(TAGS), thinking=False),
    "template that thinks": lambda: DIALECTS["template"](hub(OPENED)),
    "template with spelled tags": lambda: DIALECTS["template"](hub(CHATML, ())),
    "template with a spelled end": lambda: DIALECTS["template"](hub(OPENED, TAGS[2:3])),
    "glm_z1 with marks": lambda: DIALECTS["glm_z1"](ranks(TAGS)),
}
CALLING = ["chatglm3", "glm4", "glm_z1", "glm45", "glm47", "template", "llama", *MORE]
THINKING = ["glm_z1", "glm_z1 with marks", "glm47", "template that thinks"]
THINKING += ["template with a spelled end"]
MADE = Constrainer()
WEATHER = ToolSpec(
    "get_weather",
    "",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
            "unit": {"enum": ["c", "f"]},
        },
        "required": ["city"],
    },
)


def dialect(name):
    return MORE[name]() if name in MORE else desk(name).dialect


def end(name):
    return "<|user|>" if name.startswith(("chatglm", "glm")) else "<|im_end|>"


def begun(name, *parts):
    """After a thought, where the prompt has opened one."""
    return ["hm", "</think>", *parts] if name in THINKING else [*parts]


def opening(name):
    """What a call begins with, so that a random answer has one."""
    if name.startswith(("chatglm3", "glm4 ", "glm_z1")) or name == "glm4":
        return []
    return ['{"name": "f.x", "parameters": '] if name == "llama" else ["<tool_call>"]


def outcome(where, ids, tools):
    events = parsed(where, ids, tools)
    calls = [event.call for event in events if isinstance(event, Call)]
    return calls, [event for event in events if isinstance(event, Malformed)]


@pytest.mark.parametrize("name", CALLING)
def test_whatever_a_model_wants_its_calls_parse_and_validate(name):
    where, called, finished = dialect(name), 0, 0
    for seed in range(20):
        source = random.Random(seed)
        schemas = random_object(source), random_object(source)
        tools = ToolSpec("f.x", "", schemas[0]), ToolSpec("g", "", schemas[1])
        lead = begun(name, *(opening(name) if seed % 4 else []))
        ids = Walk(MADE, where, tools).random(seed, lead)
        if ids is None:
            continue
        finished += 1
        calls, wrong = outcome(where, ids, tools)
        if wrong and wrong[0].reason.endswith("stands twice"):
            continue  # a key that the schema does not name: no grammar counts those
        assert not wrong, (seed, wrong)
        called += bool(calls)
        for call in calls:
            spec = next(tool for tool in tools if tool.name == call.name)
            jsonschema.validate(dict(call.arguments), spec.parameters)
            check(spec, call.arguments)
    assert finished > 15 and called > 10, (finished, called)


def call(name, **arguments):
    return ToolCall(name, arguments)


WRITTEN = {
    "a call": Message("assistant", calls=(call("get_weather", city="北京", days=3),)),
    "hard text": Message("assistant", calls=(call("f", text='it\'s "q" \\\n </b> {[ 👩‍👧'),)),
    "text that reads as JSON": Message("assistant", calls=(call("f", text="true"),)),
    "no arguments": Message("assistant", calls=(call("now"),)),
    "every type": Message("assistant", calls=(call("every", n=-3, x=2.5, y=True, a=[1], o={}),)),
    "several": Message(
        "assistant", calls=(call("get_weather", city="Oslo", unit="c"), call("f", text="x"))
    ),
    "text before": Message("assistant", "I look.\nNow.", calls=(call("f", text="x"),)),
    "thought": Message("assistant", "Six.", thinking="2 * 3\nis 6"),
    "plain": Message("assistant", "你好 **hi**\n\n```\nx < {y}\n```"),
}


def of(**kinds):
    return {"type": "object", "properties": {key: {"type": kind} for key, kind in kinds.items()}}


TOOLS = (
    WEATHER,
    ToolSpec("f", "", of(text="string")),
    ToolSpec("now", "", of()),
    ToolSpec("every", "", of(n="integer", x="number", y="boolean", a="array", o="object")),
)


def ids_of(where, message):
    """What a model writes that has learnt this answer."""
    stop = where.dialect.stop
    ids = itertools.takewhile(lambda i: i not in stop, where.answer(message, TOOLS))
    return [*ids, stop[-1] if message.calls else stop[0]]


@pytest.mark.parametrize("name", [name for name in CALLING if name not in MORE])
@pytest.mark.parametrize("case", WRITTEN)
def test_what_training_teaches_is_allowed(name, case):
    where, message = desk(name), WRITTEN[case]
    if (message.thinking and not where.thinks) or (case == "text before" and name == "llama"):
        return
    assert Walk(MADE, where.dialect, TOOLS).follows(ids_of(where, message))


BODIES = {
    "an unknown tool": ("rm_rf", {}),
    "the beginning of a name": ("get_weathe", {"city": "x"}),
    "a name that goes on": ("get_weather2", {"city": "x"}),
    "a name in other letters": ("Get_weather", {"city": "x"}),
    "a missing argument": ("get_weather", {}),
    "another argument": ("get_weather", {"city": "x", "town": "y"}),
    "another type": ("get_weather", {"city": 3}),
    "out of its bounds": ("get_weather", {"city": "x", "days": 8}),
    "not in its list": ("get_weather", {"city": "x", "unit": "k"}),
    "not asked for": ("now", {"x": 1}),
}


@pytest.mark.parametrize("name", [name for name in CALLING if name not in MORE])
@pytest.mark.parametrize("case", BODIES)
def test_what_would_be_no_valid_call_cannot_be_written(name, case):
    if case == "another type" and name.startswith(("glm45", "glm47")):
        return  # there a string is written without quotes
    where, (tool, arguments) = desk(name), BODIES[case]
    ids = ids_of(where, Message("assistant", calls=(call(tool, **arguments),)))
    assert not Walk(MADE, where.dialect, TOOLS).follows(ids)


PLAIN = ["", "你好 👋\n\n\n", "a < b <tool", "```json\n{}\n```", "get_weather\n", "x" * 3000]


@pytest.mark.parametrize("name", CALLING)
@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_remains_possible(name, text):
    blocks = name.startswith(("chatglm3", "glm4", "glm_z1")) and "glm45" not in name
    text = f"\n{text}" if blocks and "glm47" not in name else text
    where = dialect(name)
    parts = begun(name, text, end(name))
    walk = Walk(MADE, where, TOOLS)
    assert walk.takes(*parts)
    events = joined(parsed(where, [i for part in parts for i in walk.ids(part)], TOOLS))
    shown = "".join(event.text for event in events if isinstance(event, Text))
    assert shown.strip() == text.strip()


@pytest.mark.parametrize("name", ["template", "llama", "template with spelled tags"])
@pytest.mark.parametrize(
    "text",
    [
        '{"answer": 42}',
        '{"name": "Al", "age": 3, "parameter": null}',
        '  {"type": "a", "name": "' + "x" * 80 + '"}',
        "{x} and {y}",
        '{"id": 1, "name": "rm_rf", "arguments": {}}',
        '{"n\\u0061me": "rm_rf", "arguments": {}}',
    ],
)
def test_json_that_is_no_call_is_an_answer(name, text):
    where = dialect(name)
    walk = Walk(MADE, where, TOOLS)
    assert walk.takes(text, "<|im_end|>")
    ids = [i for part in (text, "<|im_end|>") for i in walk.ids(part)]
    assert joined(parsed(where, ids, TOOLS)) == [Text(text.strip())]


@pytest.mark.parametrize("name", ["template", "llama", "template with spelled tags"])
@pytest.mark.parametrize(
    "text",
    [
        '{"name": "rm_rf", "arguments": {}}',
        '\u3000\x1c{"name": "rm_rf", "parameters": {}}',
        '{"arguments": {}, "name": "rm_rf"}',
        '{"function": {"name": "rm_rf", "arguments": {}}}',
        '{"type": "function", "function": {"name": "rm_rf", "parameters": {}}}',
        '{"name": "rm_rf", "argum\\u0065nts": {}}',
        '{"name": "get_weather", "arguments": {"city": "x"}}; {"name": "rm_rf", "arguments": {}}',
        '<|python_tag|>{"name": "rm_rf", "parameters": {}}',
        'Hi <|python_tag|>{"name": "rm_rf", "parameters": {}}',
        '<think>hm</think>{"name": "rm_rf", "parameters": {}}',
        '{<tool_call>{"name": "rm_rf", "arguments": {}}</tool_call>',
    ],
)
def test_no_way_of_writing_leads_to_another_tool(name, text):
    where = dialect(name)
    marks = [part for part in re.split("(<[^>]*>)", text) if part]
    assert not Walk(MADE, where, TOOLS).takes(*marks, "<|im_end|>")


BAD = {
    "a type that does not exist": {"properties": {"x": {"type": "strin"}}},
    "a cycle": {"properties": {"x": {"$ref": "#"}}, "required": ["x"]},
    "not an object": {"type": "string"},
    "nothing fits": {"properties": {"x": {"enum": []}}, "required": ["x"]},
    "10 MB": {"type": "object", "description": "x" * 10_000_000},
}


@pytest.mark.parametrize("name", CALLING)
@pytest.mark.parametrize("case", BAD)
def test_a_schema_that_cannot_be_followed_is_one_sentence_with_the_name(name, case):
    with pytest.raises(BadRequest, match="broken") as caught:
        MADE.calls(dialect(name), (WEATHER, ToolSpec("broken", "", BAD[case])))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    with pytest.raises(BadRequest, match="is no name for a tool"):
        MADE.calls(dialect(name), (ToolSpec("<|user|>"),))


@pytest.mark.parametrize(
    "parameters",
    [
        {"properties": {" x": {"type": "string"}}, "required": [" x"]},
        {"properties": {"x": {"enum": ["true", "NaN", "[1]"]}}, "required": ["x"]},
    ],
)
def test_what_cannot_stand_between_tags_is_told(parameters):
    tools = (WEATHER, ToolSpec("broken", "", parameters))
    with pytest.raises(BadRequest, match="'broken'.*cannot stand|no value of 'x'"):
        MADE.calls(dialect("glm45"), tools)
    assert MADE.calls(dialect("glm4"), tools)


def test_where_tokens_or_marks_are_not_known_nothing_is_bound():
    tokenizer = hub(CHATML)
    foreign = copy.copy(tokenizer)
    foreign.__dict__["_raw"] = None
    endless = copy.copy(tokenizer)
    endless.stops = (-1,)
    assert DIALECTS["template"](foreign).grammar((WEATHER,)) is None
    assert DIALECTS["template"](endless).grammar((WEATHER,)) is None
    assert MADE.calls(desk("glm45 without ids").dialect, (WEATHER,)) is None


def test_a_prompt_that_opens_a_thought_has_a_grammar_of_its_own():
    free, opened = (DIALECTS["template"](hub(text)) for text in (CHATML, OPENED))
    unknown = '{"name": "rm_rf", "parameters": {}}'
    assert free.tokenizer.fingerprint == opened.tokenizer.fingerprint
    assert not Walk(MADE, free, (WEATHER,)).takes(unknown, "<|im_end|>")
    assert Walk(MADE, opened, (WEATHER,)).takes(unknown, "</think>", "Hi", "<|im_end|>")
