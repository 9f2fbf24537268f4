"""GLM-4's prompt language (glm-4-9b-chat), and that of GLM-Z1, which thinks first.

`[gMASK]<sop>` then per message `<|role|>metadata\\ncontent`. A call is an assistant block whose
metadata is the tool's name and whose content is the arguments as JSON. Sources: THUDM/glm-4-9b-chat
tokenization_chatglm.py (metadata and content are encoded apart); the chat template of
THUDM/GLM-Z1-9B-0414 (system texts first, thoughts of earlier turns left out, texts stripped).
Not covered: the All Tools forms (python, simple_browser, cogview).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from glm.dialects import calls
from glm.dialects.base import Parser, taught
from glm.dialects.block_grammar import BlockGrammar
from glm.dialects.blocks import THINK, BlockForm, BlockParser
from glm.dialects.marks import BREAK, Mark
from glm.dialects.roles import Form, RoleDialect, Turn
from glm.dialects.vocabulary import Vocabulary
from glm.messages import Conversation, Message, Sampling, ToolCall, ToolSpec

TOOL_SYSTEM = (
    "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型开发的，"
    "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具"
)
Z1_TOOL_SYSTEM = (
    "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱 AI 公司训练的语言模型 GLM-4 模型开发的，"
    "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具"
)
ASSISTANT = Mark("<|assistant|>")
TOOL_END = "在调用上述函数时，请使用 Json 格式表示调用的参数。"


def GLM4(tokenizer: Vocabulary) -> RoleDialect:
    """glm-4-9b-chat. `tokenizer` holds its control tokens."""
    grammar = BlockGrammar().answer
    form = Form("glm4", Sampling(), _turns, (), partial(_parser, False), grammar)
    return RoleDialect(tokenizer, form)


def GLMZ1(tokenizer: Vocabulary) -> RoleDialect:
    """GLM-Z1 (0414): the prompt ends with an open thought."""
    defaults = Sampling(temperature=0.6, top_p=0.95)
    grammar = BlockGrammar(thinking=True).answer
    opening, parser = ("\n", THINK), partial(_parser, True)
    return RoleDialect(tokenizer, Form("glm_z1", defaults, _z1_turns, opening, parser, grammar))


def tools_text(tools: Sequence[ToolSpec]) -> str:
    """The system text that offers tools."""
    return TOOL_SYSTEM + "".join(f"\n\n{_tool_text(tool)}" for tool in tools)


def call_text(call: ToolCall) -> str:
    """The body of a call: as it was written, else its arguments as JSON."""
    if call.text is not None:
        return call.text
    return json.dumps(dict(call.arguments), ensure_ascii=False)


def _tool_text(tool: ToolSpec) -> str:
    described = tool.to_json()
    if isinstance(described, dict) and isinstance(described.get("function"), dict):
        described = described["function"]
    name = described.get("name", tool.name) if isinstance(described, dict) else tool.name
    shown = json.dumps(described, indent=4, ensure_ascii=False)
    return f"## {name}\n\n{shown}\n{TOOL_END}"


def _turns(conversation: Conversation) -> Iterator[Turn]:
    if conversation.tools:
        yield Turn("system", ("\n", BREAK, tools_text(conversation.tools)))
    for message in conversation.messages:
        if message.role != "assistant":
            if message.content or message.role == "tool":
                yield Turn(message.role, ("\n", BREAK, message.content), taught(message))
            continue
        parts: list[str] = []
        for name, content in _blocks(message):
            parts += [*([ASSISTANT] if parts else []), f"{name}\n", BREAK, content]
        if parts or message.ids:
            yield Turn("assistant", tuple(parts), taught(message), sent=message)


def _z1_turns(conversation: Conversation) -> Iterator[Turn]:
    if conversation.tools:
        offered = "".join(f"\n{_tool_text(tool)}" for tool in conversation.tools)
        yield Turn("system", (f"\n{Z1_TOOL_SYSTEM}{offered}",))
    for message in conversation.messages:
        if message.role == "system":
            yield Turn("system", (f"\n{message.content}",), taught(message))
    for message in conversation.messages:
        if message.role in ("user", "tool"):
            yield Turn(message.role, (f"\n{message.content.strip()}",), taught(message))
        elif message.role == "assistant":
            for name, content in _blocks(message):
                text = f"{name}\n{content.strip()}"
                yield Turn("assistant", (text,), taught(message))


def _blocks(message: Message) -> Iterator[tuple[str, str]]:
    """(metadata, content) of each block of an assistant's turn."""
    if message.content:
        yield "", message.content
    for call in message.calls:
        yield call.name, call_text(call)


def _parser(thinking: bool, tokenizer: Vocabulary, tools: Sequence[ToolSpec]) -> Parser:
    return BlockParser(tokenizer, BlockForm(_read, thinking=thinking))


def _read(name: str, body: str, cut: bool) -> Mapping[str, Any]:
    return calls.arguments(body)
