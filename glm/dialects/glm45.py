"""The prompt languages of GLM-4.5 / 4.6 and of GLM-4.7, which differ in white space and thoughts.

`[gMASK]<sop>`, role blocks, a thought before each answer, calls as
`<tool_call>name<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>`, results in
`<tool_response>`. Source: chat_template.jinja of zai-org/GLM-4.5 and zai-org/GLM-4.7. As there,
thoughts before the last question are left out. Not covered: pictures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glm.dialects import calls
from glm.dialects.base import taught
from glm.dialects.blocks import THINK, THOUGHT
from glm.dialects.marks import Mark, encode
from glm.dialects.roles import Form, RoleDialect, Turn
from glm.dialects.tagged import (
    CALL,
    CALLED,
    KEY,
    KEYED,
    VALUE,
    VALUED,
    TagForm,
    TaggedParser,
    pairs,
)
from glm.dialects.tagged_grammar import TagGrammar
from glm.dialects.vocabulary import Vocabulary
from glm.messages import Conversation, Message, Sampling, ToolCall, ToolSpec

RESPONSE, RESPONDED = Mark("<tool_response>"), Mark("</tool_response>")
NO_THINK = Mark("/nothink")
_HEAD = (
    "\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
)
_FOOT = (
    "</tools>\n\nFor each function call, output the function name and arguments "
    "within the following XML format:\n"
)


@dataclass(frozen=True, slots=True)
class Layout:
    """`line` is what stands between two marks: a newline in GLM-4.5, nothing in GLM-4.7."""

    name: str
    line: str
    thinking: bool


def GLM45(tokenizer: Vocabulary, thinking: bool = True) -> RoleDialect:
    """GLM-4.5, 4.5-Air and 4.6. `thinking` False asks for an answer without a thought."""
    return _dialect(tokenizer, Layout("glm45", "\n", thinking))


def GLM47(tokenizer: Vocabulary, thinking: bool = True) -> RoleDialect:
    """GLM-4.7 and 4.7-Flash."""
    return _dialect(tokenizer, Layout("glm47", "", thinking))


def _dialect(tokenizer: Vocabulary, layout: Layout) -> RoleDialect:
    newline = bool(layout.line)
    opening: tuple[str, ...]
    if newline:
        opening = () if layout.thinking else (layout.line, THINK, THOUGHT)
    else:
        opening = (THINK,) if layout.thinking else (THOUGHT,)
    form = Form(
        name=layout.name,
        defaults=Sampling(temperature=0.6 if newline else 1.0, top_p=0.95),
        turns=lambda conversation: _turns(conversation, layout),
        opening=opening,
        parser=lambda vocabulary, tools: _parser(vocabulary, tools, opening),
        grammar=TagGrammar(_ends(tokenizer), opening[-1:] == (THINK,), tagged=True).answer,
    )
    return RoleDialect(tokenizer, form)


def _ends(tokenizer: Vocabulary) -> tuple[int, ...]:
    return tokenizer.eos, tokenizer.id("<|user|>"), tokenizer.id("<|observation|>")


def _parser(
    tokenizer: Vocabulary, tools: Sequence[ToolSpec], opening: tuple[str, ...]
) -> TaggedParser:
    thinking = opening[-1:] == (THINK,)
    lead = encode(tokenizer, opening)
    return TaggedParser(tokenizer, TagForm(_ends(tokenizer), thinking=thinking, lead=lead), tools)


def _turns(conversation: Conversation, layout: Layout) -> Iterator[Turn]:
    line, messages = layout.line, conversation.messages
    asked = max((i for i, m in enumerate(messages) if m.role == "user"), default=-1)
    if conversation.tools:
        yield Turn("system", tuple(_tools(conversation.tools, line)))
    for number, message in enumerate(messages):
        if message.role == "tool":
            parts = (line, RESPONSE, line, message.content, line, RESPONDED)
            after_tool = number > 0 and messages[number - 1].role == "tool"
            yield Turn("tool", parts, joined=after_tool)
        elif message.role == "assistant":
            keep = number > asked
            sent = message if keep or not message.thinking else None
            parts = tuple(_answer(message, line, keep))
            yield Turn("assistant", parts, taught(message), sent=sent)
        else:
            quiet = message.role == "user" and line and not layout.thinking
            quiet = quiet and not message.content.endswith(NO_THINK)
            parts = (line, message.content, *([NO_THINK] if quiet else []))
            yield Turn(message.role, parts, taught(message))


def _tools(tools: Sequence[ToolSpec], line: str) -> Iterator[str]:
    """The system block that offers tools; its example holds the real marks, as in the template."""
    yield _HEAD
    for tool in tools:
        described = tool.to_json()
        if not (isinstance(described, Mapping) and "function" in described):
            described = {"type": "function", "function": described}
        yield json.dumps(described, ensure_ascii=False) + "\n"
    yield _FOOT
    yield from (CALL, "{function-name}", line)
    for number in (1, 2):
        yield from (KEY, f"{{arg-key-{number}}}", KEYED, line)
        yield from (VALUE, f"{{arg-value-{number}}}", VALUED, line)
    yield from ("...", line, CALLED)


def _answer(message: Message, line: str, keep: bool) -> Iterator[str]:
    thought = message.thinking.strip() if keep else ""
    if thought or line:
        yield from (line, THINK, thought)
    yield THOUGHT
    if message.content.strip():
        yield from (line, message.content.strip())
    for call in message.calls:
        yield from (line, CALL, *_call(call, line), CALLED)


def _call(call: ToolCall, line: str) -> Iterator[str]:
    if call.text is not None:
        yield from written(call.text)
        return
    yield from (call.name, line)
    for key, value in call.arguments.items():
        yield from (KEY, key, KEYED, line, VALUE, _shown(value), VALUED, line)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def written(text: str) -> list[str]:
    """A call as it was written, with its argument marks as marks; else one plain text.

    The first `</arg_value>` ends a value, so any other mark inside it stays text.
    """
    out: list[str] = []
    at = 0
    while not text.startswith("{") and (start := text.find(KEY, at)) >= 0:
        for mark in (KEY, KEYED, VALUE, VALUED):
            start = text.find(mark, at)
            if start < 0:
                return [text]
            out += [text[at:start], mark]
            at = start + len(mark)
    parts = [part for part in [*out, text[at:]] if part]
    try:
        pairs(parts[1:])
    except calls.NotACall:
        return [text]
    return parts
