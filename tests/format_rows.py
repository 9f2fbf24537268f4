"""One meaning written in every data format, for the tests of formats."""

import json

from glm.messages import Conversation, Message, ToolCall, ToolSpec

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "Weather of a city", "parameters": SCHEMA}
FUNCTION = {"type": "function", "function": TOOL}
SEEN = '{"sky": "晴"}'
CALL = {"name": "get_weather", "arguments": {"city": "北京"}}
WITH_TOOLS = Conversation(
    (
        Message("user", "北京天气？"),
        Message(
            "assistant",
            "I look.",
            calls=(ToolCall("get_weather", {"city": "北京"}, id="call_1"),),
        ),
        Message("tool", SEEN, name="get_weather", call_id="call_1"),
        Message("assistant", "晴。"),
    ),
    (ToolSpec("get_weather", "Weather of a city", SCHEMA),),
)
TALK = Conversation(
    (
        Message("user", "1+1?"),
        Message("assistant", "2"),
        Message("user", "2+2?"),
        Message("assistant", "4"),
    )
)
ONE = Conversation(TALK.messages[:2])


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def said(who, value):
    return {"from": who, "value": value}


CALLED = turn("assistant", "I look.")
TOOL_ROW = {"role": "tool", "name": "get_weather", "parameters": {"city": "北京"}}
OPENAI_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "北京"}'},
}

# format -> a row as its users write it, and what it means
ROWS = {
    "chatglm3": (
        {
            "tools": [TOOL],
            "conversations": [
                turn("user", "北京天气？"),
                CALLED,
                {**TOOL_ROW, "observation": {"sky": "晴"}},
                turn("assistant", "晴。"),
            ],
        },
        WITH_TOOLS,
    ),
    "sharegpt": (
        {
            "conversations": [
                said("human", "北京天气？"),
                said("gpt", "I look."),
                said("function_call", json.dumps(CALL)),
                said("observation", SEEN),
                said("gpt", "晴。"),
            ],
            "tools": json.dumps([TOOL]),
        },
        WITH_TOOLS,
    ),
    "openai": (
        {
            "messages": [
                turn("user", "北京天气？"),
                turn("assistant", "I look.", tool_calls=[OPENAI_CALL]),
                turn("tool", SEEN, tool_call_id="call_1"),
                turn("assistant", "晴。"),
            ],
            "tools": [FUNCTION],
        },
        WITH_TOOLS,
    ),
    "glm4": (
        {
            "messages": [
                turn("system", "", tools=[FUNCTION]),
                turn("user", "北京天气？"),
                CALLED,
                turn("assistant", json.dumps(CALL)),
                turn("observation", SEEN),
                turn("assistant", "晴。"),
            ]
        },
        WITH_TOOLS,
    ),
    "toolalpaca": (
        {
            "NLDocumentation": json.dumps(TOOL),
            "Instances": [
                {
                    "input": "北京天气？",
                    "output": "晴。",
                    "intermediate_steps": [
                        [
                            ["get_weather", '{"city": "北京"}', "I look.\nAction: get_weather"],
                            SEEN,
                        ]
                    ],
                }
            ],
        },
        Conversation(
            WITH_TOOLS.messages,
            (ToolSpec("get_weather", "Weather of a city", SCHEMA, raw=json.dumps(TOOL)),),
        ),
    ),
    "firefly": (
        {
            "conversation": [
                {"human": "1+1?", "assistant": "2\n"},
                {"human": "2+2?", "assistant": "4"},
            ]
        },
        TALK,
    ),
    "alpaca": ({"instruction": "2+2?", "input": "", "output": "4", "history": ["1+1?", "2"]}, TALK),
    "alpaca-sft": (
        {"instruction": "Add.", "input": "1+1?", "output": "2"},
        Conversation(
            (Message("system", "Add."), Message("user", "Add. 1+1?"), Message("assistant", "2"))
        ),
    ),
    "prompt-response": ({"prompt": "1+1?", "response": "2"}, ONE),
    "context-target": ({"context": "1+1?", "target": "2"}, ONE),
    "advertise-gen": ({"content": "1+1?", "summary": "2"}, ONE),
    "metalwoz": (
        {"turns": ["Hello, how may I help?", "1+1?", "2"]},
        Conversation((Message("assistant", "Hello, how may I help?"), *ONE.messages)),
    ),
    "chosen-rejected": ({"prompt": "1+1?", "chosen": "2", "rejected": "3"}, ONE),
}
