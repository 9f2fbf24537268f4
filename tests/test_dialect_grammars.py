"""One table through all dialects: under a constraint every call parses and follows its schema."""

from __future__ import annotations

import random

import jsonschema
import pytest

from glm.constrain import Constrainer
from glm.dialects import DIALECTS
from glm.errors import BadRequest
from glm.messages import Call, Malformed, Message, Text, ToolCall, ToolSpec
from tests.dialect_desk import CHATML, LLAMA, TAGS, Desk, desk, hub, joined, ranks
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
    """What a call begins with, where that is no name of a tool."""
    if name.startswith(("chatglm3", "glm4 ", "glm_z1")) or name == "glm4":
        return []
    return ['{"name": "'] if name == "llama" else ["<tool_call>"]


def outcome(where, ids, tools):
    events = parsed(where, ids, tools)
    calls = [event.call for event in events if isinstance(event, Call)]
    return calls, [event for event in events if isinstance(event, Malformed)]


@pytest.mark.parametrize("name", CALLING)
def test_whatever_a_model_wants_its_calls_parse_and_validate(name):
    where, called, finished = dialect(name), 0, 0
    for seed in range(30):
        source = random.Random(seed)
        tools = (ToolSpec("f.x", "", random_object(source)), ToolSpec("g", "", random_object(source)))
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
    assert finished >= 25 and called >= 12, (finished, called)
