"""store/exchange.py: conversations as OpenAI messages, there and back, and bad files refused."""

from __future__ import annotations

import json

import pytest

from glm.errors import BadRequest
from glm.messages import Conversation, Message, ToolCall, ToolSpec
from glm.store.exchange import (
    EXTRA,
    Transcript,
    file_name,
    from_openai,
    read_json,
    to_openai,
    write_json,
)

WEATHER = ToolSpec("get_weather", "现在的天气", {"type": "object", "properties": {"city": {}}})
ODD = {"a": [1, -0.5, 10**400, True, None, {"": "ü", "中": ["\u2028", "\0"]}], "b-c d": {}}

CONVERSATIONS = {
    "plain": Conversation(
        (Message("system", "Be brief."), Message("user", "你好"), Message("assistant"))
    ),
    "call": Conversation(
        (
            Message("user", "Rain in Paris?"),
            Message("assistant", calls=(ToolCall("get_weather", {"city": "Paris"}, "call-1"),)),
            Message("tool", '{"rain": true}', call_id="call-1", name="get_weather"),
            Message("assistant", "Yes.", thinking="It said true."),
        ),
        (WEATHER, ToolSpec("now")),
    ),
    "chatglm3": Conversation(
        (
            Message("user", "x", learn=False),
            Message("assistant", "I look.\n", (ToolCall("f", ODD, text="```python\nf()\n```"),)),
            Message("tool", "one"),
            Message("assistant", calls=(ToolCall("f"), ToolCall("", {"x": 1}, "", "")), learn=True),
            Message("tool", "two", call_id="elsewhere"),
            Message("tool", "three", name="f"),
            Message("user", "ok", name="Ann", call_id="strange"),
            Message("assistant", "ok"),
        )
    ),
    "tools of other forms": Conversation(
        (Message("user", ""),),
        (
            ToolSpec("a", raw={"name": "a", "description": "d", "parameters": {}}),
            ToolSpec("b", "d", {}, raw={"name": "b", "strict": True}),
            ToolSpec("c", "d", raw="c(x): a plain string"),
            ToolSpec("d", "d", {"type": "object"}, raw=["any", {"json": 1}]),
            ToolSpec("e", raw={"type": "function", "function": {"name": "e"}}),
        ),
    ),
    "strange text": Conversation(
        (Message("user", "\0 \ud83d \r\n <|assistant|> \u2028 </script> 😀"), Message("tool", ""))
    ),
    "empty list of tools, one message": Conversation((Message("assistant", "hi"),)),
}


@pytest.mark.parametrize("conversation", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_a_conversation_comes_back_as_it_was(conversation):
    transcript = Transcript(conversation, 'Title "中" \ud800')
    text = write_json(transcript)
    assert read_json(text) == transcript
    assert read_json(text.encode()) == transcript
    assert write_json(read_json(text)) == text


OPENAI = {
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "Rain?", "name": "ann"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
                {"id": "2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "content": "2", "tool_call_id": "2"},
        {"role": "tool", "content": "1", "tool_call_id": "1"},
        {"role": "assistant", "content": "No.", "weight": 0},
    ],
    "tools": [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}},
        {"type": "function", "function": {"name": "g", "description": "", "strict": True}},
    ],
}


def test_openai_messages_come_back_as_they_were():
    assert to_openai(from_openai(OPENAI)) == OPENAI


def test_a_plain_conversation_has_nothing_but_openai_fields():
    assert set(to_openai(Transcript(CONVERSATIONS["call"]))) == {"messages", "tools"}


def test_calls_without_ids_get_ids_that_their_results_carry():
    rows = to_openai(Transcript(CONVERSATIONS["chatglm3"]))["messages"]
    assert rows[1]["tool_calls"][0]["id"] == rows[2]["tool_call_id"] != ""
    ids = [call["id"] for call in rows[3]["tool_calls"]]
    assert len(set(ids)) == 2 and rows[5]["tool_call_id"] == ids[0]


def test_an_entry_edited_by_hand_counts_as_it_stands():
    value = to_openai(Transcript(CONVERSATIONS["chatglm3"]))
    value["messages"][1]["tool_calls"][0]["function"]["arguments"] = '{"x": 2}'
    call = from_openai(value).conversation.messages[1].calls[0]
    assert call.arguments == {"x": 2} and call.text is None


def test_produced_ids_do_not_travel():
    spoken = Conversation((Message("assistant", "hi", ids=(1, 2)),))
    text = write_json(Transcript(spoken))
    assert EXTRA not in text and read_json(text).conversation.messages[0].ids is None


def test_an_extra_part_of_another_hand_is_ignored():
    value = to_openai(Transcript(CONVERSATIONS["chatglm3"]))
    wanted = from_openai({"messages": value["messages"]})
    digest = value[EXTRA]["messages"][0]["digest"]
    for strange in (
        1,
        [None, {}, {"index": 99}, {"index": "1", "digest": digest}],
        [{"index": 1, "digest": digest}, {"index": 1, "digest": digest, "calls": 3, "call_id": 0}],
        [{"index": 1, "digest": digest, "call_id": "", "calls": [{"id": 1, "text": {}}]}],
    ):
        assert from_openai({**value, EXTRA: {"title": 3, "messages": strange}}) == wanted
    assert from_openai({**value, EXTRA: "x"}) == wanted


def test_other_forms_of_openai_files_are_read():
    text = "\ufeff" + json.dumps(
        [
            {
                "role": "developer",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            {"role": "assistant", "function_call": {"name": "f", "arguments": ""}},
            {"role": "function", "name": "f", "content": "r"},
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": "g", "arguments": {"x": 1}}}],
            },
        ]
    )
    for data in (text.encode(), text[1:].encode("utf-16"), text):
        assert read_json(data).conversation.messages == (
            Message("system", "ab"),
            Message("assistant", calls=(ToolCall("f"),)),
            Message("tool", "r", name="f"),
            Message("assistant", calls=(ToolCall("g", {"x": 1}),)),
        )


CALLS = '[{"role": "assistant", "tool_calls": %s}]'
BAD_FILES = {
    "": "not JSON: line 1",
    "{\n\nx": "not JSON: line 3",
    "[" * 200_000: "nested too deeply",
    "9" * 10_000: "not JSON",
    "null": '"messages" is needed',
    '{"messages": {}}': '"messages" is needed',
    "[]": "is empty",
    "[1]": "message 1: an object is needed",
    '[{"role": "<|system|>"}]': r"message 1: unknown role .*<|system|>.*; allowed: system, user",
    '[{"role": ["user"]}]': "message 1: unknown role",
    '[{}, {"role": "user", "content": 7}]': "unknown role null.*; message 2: text is needed",
    '[{"role": "user", "content": [{"type": "image_url"}]}]': 'only text .* "image_url"',
    '[{"role": "user", "content": [{"type": "text"}]}]': "only text",
    '[{"role": "user", "content": ["x"]}]': "only text",
    '[{"role": "user", "weight": 2}]': "weight is 0 or 1",
    CALLS % "{}": "tool_calls: a list is needed",
    CALLS % "[{}]": "a function with a name",
    CALLS % '[{"function": {"name": "f", "arguments": "{"}}]': "not JSON",
    CALLS % '[{"function": {"name": "f", "arguments": "[1]"}}]': "object",
    '{"messages": [{"role": "user"}], "tools": 1}': "tool: a list is needed",
    '{"messages": [{"role": "user"}], "tools": [{"name": 1}]}': "tool 1: a function with a name",
    '{"messages": [{"role": "user"}], "tools": [{"name": "f", "parameters": []}]}': "JSON schema",
    json.dumps([{}] * 9): "and 4 more",
}


@pytest.mark.parametrize("text", BAD_FILES, ids=range(len(BAD_FILES)))
def test_a_bad_file_is_refused_with_the_place(text):
    for data in (text, text.encode()):
        with pytest.raises(BadRequest, match=BAD_FILES[text]) as caught:
            read_json(data)
        assert len(str(caught.value)) < 500


def test_bytes_that_are_no_text_are_refused():
    for data in (b"\xff\xfe\x00", b"\x89PNG\r\n\x1a\n\0\0", b'["\xe9"]'):
        with pytest.raises(BadRequest, match="not JSON"):
            read_json(data)


def test_a_file_name_is_safe_on_every_system():
    names = {
        "Weather in Paris": "Weather in Paris.json",
        "../../etc/passwd": "etc_passwd.json",
        "天气？": "天气.json",
        "CON": "conversation CON.json",
        "": "conversation.json",
        '<img onerror="x">\n\0': "img onerror_x.json",
        "\ud800": "conversation.json",
        "-rf": "rf.json",
    }
    assert {title: file_name(title, "json") for title in names} == names
    assert len(file_name("x" * 300, "json")) <= 70
