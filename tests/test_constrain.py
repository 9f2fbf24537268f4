"""Constrained calls: whatever the model wants, its calls parse and follow their schemas."""

from __future__ import annotations

import ast
import random
import time

import jsonschema
import numpy as np
import pytest

from glm.chat import Options, chat
from glm.checkpoint.recognise import EMBEDDED
from glm.constrain import Constrainer
from glm.dialects.chatglm2 import ChatGLM2
from glm.dialects.chatglm3 import ChatGLM3
from glm.dialects.code_arguments import is_keyword
from glm.dialects.literals import literal
from glm.dialects.regular import regular
from glm.dialects.schema import plain
from glm.engines.fake import FakeEngine
from glm.errors import BadRequest
from glm.messages import Call, Conversation, Malformed, Message, Sampling, Text, ToolSpec
from glm.tokenizer import Tokenizer
from tests.grammar_walk import Walk, parsed, random_object
from tests.shared_files import CHATGLM3_TOKENIZER

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
CODE = ToolSpec("interpreter")


@pytest.fixture(scope="module")
def made():
    return Constrainer()


@pytest.fixture(scope="module")
def dialect():
    return ChatGLM3(Tokenizer.open(EMBEDDED))


def test_whatever_a_model_wants_its_calls_parse_and_validate(made, dialect):
    finished = 0
    for seed in range(40):
        schema = random_object(random.Random(seed))
        ids = Walk(made, dialect, (ToolSpec("f.x", "", schema),)).random(seed)
        if ids is None:
            continue
        finished += 1
        events = parsed(dialect, ids)
        calls = [event.call for event in events if isinstance(event, Call)]
        wrong = [event for event in events if isinstance(event, Malformed)]
        if wrong and wrong[0].reason.endswith("stands twice"):
            continue  # a key that the schema does not name: no grammar counts those
        assert calls and not wrong, events
        for call in calls:
            assert call.name == "f.x"
            jsonschema.validate(dict(call.arguments), schema)
    assert finished > 35


def test_what_models_write_is_allowed(made, dialect):
    thought = ("\n", "I look. 我看看 ```python\nx\n```", "<|assistant|>")
    head = "get_weather\n"
    calls = [
        "```python\ntool_call(city='北京', days=3, unit='c')\n```",
        '```python\ntool_call(city="it\'s", unit="f")\n```',
        "```python\ntool_call(city='a\\n\\'\\u00e9')\n```",
    ]
    for call in calls:
        assert Walk(made, dialect, (WEATHER,)).takes(head, call, "<|observation|>"), call
        assert Walk(made, dialect, (WEATHER,)).takes(*thought, head, call, "<|observation|>")
    two = (head, calls[0], "<|assistant|>", head, calls[1], "<|observation|>")
    assert Walk(made, dialect, (WEATHER,)).takes(*two)


@pytest.mark.parametrize(
    "parts",
    [
        ("rm_rf\n",),
        ("get_weather\n", "```python\ntool_call()"),
        ("get_weather\n", "```python\ntool_call(town="),
        ("get_weather\n", "```python\ntool_call(city=3"),
        ("get_weather\n", "```python\ntool_call(city='a', days=8"),
        ("get_weather\n", "```python\ntool_call(city='a', unit='k'"),
        ("get_weather\n", "```python\ntool_call(city='\\ud83d'"),
        ("get_weather\n", "```python\ntool_call(city='a')\n```", "</s>"),
        ("\n", "I look", "<|observation|>"),
        ("\n", "I look", "<|system|>"),
    ],
)
def test_what_would_be_no_valid_call_is_not(made, dialect, parts):
    assert not Walk(made, dialect, (WEATHER,)).takes(*parts)


@pytest.mark.parametrize(
    "text", ["", "你好 👋\n\n\n", "get_weather\n```python\ntool_call(x=1)\n```"]
)
@pytest.mark.parametrize("end", ["</s>", "<|user|>"])
def test_plain_answers_stay_free(made, dialect, text, end):
    assert Walk(made, dialect, (WEATHER, CODE)).takes("\n", text, end)
    free = Walk(made, dialect, (WEATHER, CODE))
    assert free.takes("\n", text)
    raw = [dialect.tokenizer.raw(i) for i in range(dialect.tokenizer.size)]
    never = {*range(0x80, 0xC2), *range(0xF5, 0x100)}  # no character starts with these bytes
    starts = np.array([data is not None and data[0] not in never for data in raw])
    assert free.allowed()[starts].all()


def test_the_interpreter_takes_code(made, dialect):
    code = "```python\nfor i in range(3):\n    print('```', i)\n```"
    walk = Walk(made, dialect, (WEATHER, CODE))
    assert walk.takes("\n", "I compute.", "<|assistant|>", "interpreter\n", code, "<|observation|>")
    assert not Walk(made, dialect, (CODE,)).takes(
        "interpreter\n", "```python\nx", "<|observation|>"
    )


def test_without_a_schema_only_the_syntax_is_bound(made, dialect):
    tools = (ToolSpec("f"), ToolSpec("", raw="toolalpaca: any text"))
    body = "```python\ntool_call(a-b={'k': [1, None]}, c=\"x\")\n```"
    assert Walk(made, dialect, tools).takes("f\n", body, "<|observation|>")
    assert Walk(made, dialect, tools).takes("getNews\n", body, "<|observation|>")
    assert not Walk(made, dialect, tools).takes("f\n", "```python\ntool_call(a=b")
    both = (WEATHER, ToolSpec("", raw="any"))
    assert not Walk(made, dialect, both).takes("get_weather\n", "```python\ntool_call(x=1")


def test_the_official_vocabulary_follows_too(made):
    if not CHATGLM3_TOKENIZER.is_file():
        return
    dialect = ChatGLM3(Tokenizer(CHATGLM3_TOKENIZER))
    call = "```python\ntool_call(city='Lisbon 北京', days=3)\n```"
    assert Walk(made, dialect, (WEATHER,)).takes("get_weather\n", call, "<|observation|>")
    assert Walk(made, dialect, (WEATHER,)).takes("\n", "Hello 𠀀", "</s>")


DEEP: dict = {}
for _ in range(1000):
    DEEP = {"type": "object", "properties": {"x": DEEP}, "required": ["x"]}
LAUGHS = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 9} for i in range(20)}
BAD = {
    "bad type": {"type": "object", "properties": {"x": {"type": "strin"}}},
    "types that are no texts": {"type": [["object"]]},
    "bad pattern": {"properties": {"x": {"type": "string", "pattern": "(["}}},
    "a pattern that runs for ever": {
        "properties": {"x": {"enum": ["a" * 5000 + "!"], "pattern": "^(a|aa)+$"}}
    },
    "a reference to itself": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    "a cycle": {"properties": {"x": {"$ref": "#"}}, "required": ["x"]},
    "a broad cycle": {"properties": {k: {"$ref": "#"} for k in "abcdefgh"}},
    "references that multiply": {"$ref": "#/$defs/d0", "$defs": {**LAUGHS, "d20": {}}},
    "a reference elsewhere": {"properties": {"x": {"$ref": "https://example.com/x.json"}}},
    "a reference to nothing": {"properties": {"x": {"$ref": "#/$defs/none"}}},
    "depth 1000": DEEP,
    "10 MB": {"type": "object", "description": "x" * 10_000_000},
    "a million values": {"type": "object", "enum": [*range(1_000_000)]},
    "not an object": {"type": "string"},
    "nothing fits": {"properties": {"x": {"enum": []}}, "required": ["x"]},
    "nothing fits between": {
        "properties": {"x": {"type": "integer", "minimum": 3, "maximum": 2}},
        "required": ["x"],
    },
    "properties are a list": {"type": "object", "properties": ["x"]},
    "required is a number": {"type": "object", "required": 3},
    "a bound is a text": {"properties": {"x": {"type": "integer", "minimum": "3"}}},
    "anyOf is a text": {"anyOf": "x"},
    "alternatives without end": {"allOf": [{"anyOf": [{"type": "integer"}] * 60}] * 5},
    "enums without end": {"allOf": [{"enum": [*range(5000)]}, {"enum": [*range(5000, 10_000)]}]},
    "a slow pattern many times": {
        "properties": {
            "x": {
                "type": "string",
                "pattern": "^(a|a)*$",
                "enum": ["a" * 13 + f"b{i}" for i in range(5000)],
            }
        },
        "required": ["x"],
    },
    "a schema is a number": {"properties": {"x": 3}},
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_schema_is_one_sentence_soon(made, dialect, case):
    start = time.process_time()
    with pytest.raises(BadRequest) as caught:
        made.calls(dialect, (WEATHER, ToolSpec("broken", "", BAD[case])))
    assert "broken" in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert time.process_time() - start < 5


@pytest.mark.parametrize("name", ["a b;rm", "x\ny", "é" * 65, "<|user|>", "a'b"])
def test_a_bad_name_is_refused(made, dialect, name):
    with pytest.raises(BadRequest, match="is no name for a tool"):
        made.calls(dialect, (ToolSpec(name),))


def test_without_tools_or_in_a_dialect_without_calls_nothing_is_bound(made, dialect):
    assert made.calls(dialect, ()) is None
    assert made.calls(ChatGLM2(dialect.tokenizer), (WEATHER,)) is None


def test_each_answer_has_its_own_state(made, dialect):
    one, other = (Walk(made, dialect, (WEATHER,)) for _ in range(2))
    assert one.takes("\n", "text")
    assert other.takes("get_weather\n")
    assert one.takes("</s>")


def test_chat_asks_for_the_constraint_only_when_told(dialect):
    ids = [*dialect.tokenizer.encode("\nHi"), dialect.tokenizer.eos]
    engine = FakeEngine([ids, ids])
    conversation = Conversation((Message("user", "Hi"),), (WEATHER,))
    for constrain in (False, True):
        options = Options(constrain=constrain)
        events = list(chat(engine, dialect, conversation, Sampling(), options))
        assert Text("Hi") in events
        assert (engine.seen[-1].constraint is not None) == constrain


def test_literals_are_read_back():
    for value in (
        "it's",
        '"q"',
        "\\",
        "\\'",
        "a\nb\t\x00",
        "北京 \u2028",
        "\\\"'",
        [1, {"k": None}],
    ):
        for quote in "'\"":
            assert ast.literal_eval(literal(value, quote)) == value


def test_keys_that_no_call_can_hold_are_known():
    assert all(map(is_keyword, ("a", "start-date", "class", "名", "x y")))
    assert not any(map(is_keyword, ("", "it's", "a=b", "a,b", " a", "ﬁ", "a\nb", "(")))


def test_patterns_match_the_whole_string():
    assert regular("^a+$") == "(a+)"
    assert regular("a|b") == "(?s:.*)(a|b)(?s:.*)"
    assert regular("^(a|b)") == "((a|b))(?s:.*)"
    for pattern in ("^a|b$", "(?=a)b", "\\bx", "a^b", "(a)\\1", "a*?b"):
        assert regular(pattern) is None


def test_all_of_and_references_are_one_schema():
    schema = {
        "$defs": {"p": {"properties": {"b": {"type": "integer"}}, "required": ["b"]}},
        "allOf": [{"$ref": "#/$defs/p"}, {"properties": {"b": {"type": "number", "minimum": 2}}}],
        "properties": {"a": {"const": 1}},
    }
    assert plain(schema) == {
        "type": "object",
        "properties": {"a": {"enum": [1]}, "b": {"type": "integer", "minimum": 2}},
        "required": ["b"],
        "additionalProperties": False,
    }
