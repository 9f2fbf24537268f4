"""Any chat model by its own chat template, as its tokenizer files hold it.

Control tokens that a person, a tool or a file spells are hidden from the template behind random
letters and come back as plain text after the template's own ones have become ids. So the ids are
the official ones, and spelled tokens stay text. Not covered: a template that builds a control
token out of a content (`'<|' + content + '|>'`) or cuts one out of it, and pictures. Answers are
read by tagged.py. A turn is not sent again by its ids, since templates rewrite earlier turns.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from glm.dialects.base import Piece, RoleToken
from glm.dialects.blocks import THINK
from glm.dialects.marks import Mark, encode
from glm.dialects.offered import bytes_known
from glm.dialects.tagged import TagForm, TaggedParser
from glm.dialects.tagged_grammar import TagGrammar
from glm.dialects.vocabulary import Vocabulary
from glm.errors import BadRequest, CheckpointError
from glm.messages import Conversation, Message, Sampling, ToolCall, ToolSpec


class TemplateVocabulary(Vocabulary, Protocol):
    """A tokenizer that comes with a template (glm/tokenizers/hub.py)."""

    stops: tuple[int, ...]
    swallows: dict[str, tuple[bool, bool]]
    begin: tuple[int, ...]

    @property
    def template(self) -> str: ...

    def apply(self, messages: list[dict[str, Any]], tools: list[Any], prompt: bool) -> str: ...


class Template:
    """The dialect bound to a tokenizer. Raises CheckpointError when that has no template."""

    name = "template"
    defaults = Sampling(temperature=0.7, top_p=0.9)

    def __init__(self, tokenizer: TemplateVocabulary) -> None:
        if not tokenizer.template:
            raise CheckpointError("this model has no chat template; open its chat version")
        self.tokenizer = tokenizer
        self.stop, self.end = tokenizer.stops, tokenizer.eos
        self.takes_tools = "tools" in tokenizer.template
        opened = self._text(Conversation((Message("user", "x"),)), Hidden(()), True)
        self.thinking = opened.rstrip().endswith(THINK)
        names = sorted(tokenizer.special, key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, names)) if names else r"(?!)")

    def prompt(self, conversation: Conversation) -> tuple[int, ...]:
        """The ids to continue. Raises BadRequest when the template refuses the conversation."""
        hidden = Hidden(self.tokenizer.special)
        return self._ids(self._text(conversation, hidden, True), hidden)

    def render(self, conversation: Conversation) -> Iterator[Piece]:
        """The finished conversation; what the assistant writes and its end are learnt."""
        hidden = Hidden(self.tokenizer.special)
        text, at = self._text(conversation, hidden, False), 0
        for start, end, learn in self._answers(conversation, hidden, text):
            yield Piece(self._ids(text[at:start], hidden), False)
            yield Piece(self._ids(text[start:end], hidden), learn)
            at = end
        if at < len(text):
            yield Piece(self._ids(text[at:], hidden), False)

    def raw(self, text: str) -> tuple[int, ...]:
        """The ids of a text without the template, to be continued."""
        return (*self.tokenizer.begin, *self.tokenizer.encode(text))

    def parser(self, tools: Sequence[ToolSpec] = ()) -> TaggedParser:
        """A parser for one answer; bare JSON is a call only where `tools` were offered."""
        return TaggedParser(
            self.tokenizer, TagForm(self.stop, thinking=self.thinking, bare=True), tools
        )

    def grammar(self, tools: Sequence[ToolSpec]) -> str | None:
        """What an answer with these tools may be: calls in tags, or bare JSON. None for anything,
        where the tokenizer cannot tell the bytes of its tokens, or the model has no end token.
        Raises BadRequest, naming the tool at fault.
        """
        if not bytes_known(self.tokenizer):
            return None
        return TagGrammar(self.stop, self.thinking, bare=True).answer(self.tokenizer, tools)

    def xray(self, ids: Iterable[int]) -> list[RoleToken]:
        """Templates name their roles as they like, so only control tokens stand out."""
        return [RoleToken(p.id, p.text, None, p.special) for p in self.tokenizer.pieces(ids)]

    def _text(self, conversation: Conversation, hidden: Hidden, prompt: bool) -> str:
        if conversation.tools and not self.takes_tools:
            raise BadRequest("this model's chat template knows no tools; turn them off")
        messages = [hidden.hide(_message(m)) for m in conversation.messages]
        tools = [hidden.hide(_tool(tool)) for tool in conversation.tools]
        return self.tokenizer.apply(messages, tools, prompt)

    def _ids(self, text: str, hidden: Hidden) -> tuple[int, ...]:
        parts: list[str] = []
        at, eats = 0, False
        for match in self._names.finditer(text):
            left, right = self.tokenizer.swallows.get(match.group(), (False, False))
            between = text[at : match.start()]
            between = between.lstrip() if eats else between
            parts += [hidden.show(between.rstrip() if left else between), Mark(match.group())]
            at, eats = match.end(), right
        rest = text[at:].lstrip() if eats else text[at:]
        return encode(self.tokenizer, [*parts, hidden.show(rest)])

    def _answers(
        self, conversation: Conversation, hidden: Hidden, text: str
    ) -> Iterator[tuple[int, int, bool]]:
        """Where each answer stands in the text: after the prompt before it, up to its end.

        Where a template rewrites earlier turns, what both texts begin with counts.
        """
        at = 0
        for number, message in enumerate(conversation.messages):
            if message.role != "assistant":
                continue
            before = Conversation(conversation.messages[:number], conversation.tools)
            after = Conversation(conversation.messages[: number + 1], conversation.tools)
            start = max(at, _shared(self._text(before, hidden, True), text))
            end = max(start, _shared(self._text(after, hidden, False), text))
            yield start, end, message.learn is not False
            at = end


class Hidden:
    """Control tokens in contents, each behind letters that nobody can know beforehand."""

    def __init__(self, names: Iterable[str]) -> None:
        known = sorted((n for n in names if n), key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, known)) if known else r"(?!)")
        self._key = f"hidden{secrets.token_hex(8)}"
        self._marks = re.compile(self._key + r"n(\d+)e")
        self._found: list[str] = []

    def hide(self, value: Any) -> Any:
        """The value with the control tokens in all its strings, keys too, hidden."""
        if isinstance(value, str):
            return self._names.sub(self._hide, value)
        if isinstance(value, Mapping):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(item) for item in value]
        return value

    def show(self, text: str) -> str:
        """The text with what was hidden."""
        return self._marks.sub(lambda match: self._found[int(match.group(1))], text)

    def _hide(self, match: re.Match[str]) -> str:
        if match.group() not in self._found:
            self._found.append(match.group())
        return f"{self._key}n{self._found.index(match.group())}e"


def _message(message: Message) -> dict[str, Any]:
    """A turn in the form templates expect, that of the OpenAI API."""
    out: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.thinking:
        out["reasoning_content"] = message.thinking
    if message.calls:
        out["tool_calls"] = [_call(call) for call in message.calls]
    if message.role == "tool":
        out |= {"name": message.name, "tool_call_id": message.call_id}
    return out


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": dict(call.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def _tool(tool: ToolSpec) -> Any:
    described = tool.to_json()
    if isinstance(described, Mapping) and "function" in described:
        return dict(described)
    if not isinstance(described, Mapping):
        described = {"name": tool.name, "description": str(described), "parameters": {}}
    return {"type": "function", "function": dict(described)}


def _shared(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    for at, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return at
    return min(len(one), len(other))
