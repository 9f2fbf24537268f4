"""No prompt language: text is continued as it is, for models tuned on prompts and responses.

`[gMASK] sop` + encode(prompt), then the response and eos, as the official input-output training
(THUDM/ChatGLM3 finetune_demo, train_format input-output) and its inference.py. ChatGLM-6B (v1)
needs none of this: its own language asks a first question as it is. Only the last message counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from glm.dialects.base import Dialect, Piece, RoleToken
from glm.dialects.chatglm2 import PlainParser
from glm.errors import BadRequest
from glm.messages import Conversation, Message, ToolSpec
from glm.vocabulary import Vocabulary

_START = (("[gMASK]",), ("sop", "<sop>"))


def raw(dialect: Dialect, tokenizer: Vocabulary) -> Dialect:
    """The raw way of a model that has this dialect."""
    return dialect if dialect.name == "chatglm" else Raw(dialect, tokenizer)


class Raw:
    """The raw way bound to a tokenizer."""

    name = "raw"

    def __init__(self, dialect: Dialect, tokenizer: Vocabulary) -> None:
        self.tokenizer = tokenizer
        self.defaults = dialect.defaults
        self.stop = tuple(dict.fromkeys((tokenizer.eos, *dialect.stop)))
        named = tokenizer.special
        self._start = tuple(named[name] for names in _START for name in names if name in named)

    def prompt(self, conversation: Conversation) -> tuple[int, ...]:
        """The last message's text and nothing around it. Raises BadRequest without one."""
        return (*self._start, *self.tokenizer.encode(_last(conversation, "user").content))

    def render(self, conversation: Conversation) -> Iterator[Piece]:
        """A prompt and its response; the response and eos are learnt."""
        answer = _last(conversation, "assistant")
        before = conversation.messages[: conversation.messages.index(answer)]
        yield Piece(self.prompt(Conversation(before)), False)
        ids = (*self.tokenizer.encode(answer.content), self.tokenizer.eos)
        yield Piece(ids, answer.learn is not False)

    def parser(self, tools: Sequence[ToolSpec] = ()) -> PlainParser:
        """A parser for one answer."""
        return PlainParser(self.tokenizer, self.stop)

    def xray(self, ids: Iterable[int]) -> list[RoleToken]:
        """Every token; none belongs to a role."""
        return [RoleToken(p.id, p.text, None, p.special) for p in self.tokenizer.pieces(ids)]


def _last(conversation: Conversation, role: str) -> Message:
    found = [message for message in conversation.messages if message.role == role]
    if not found:
        raise BadRequest(f"raw text needs a message of the {role}")
    return found[-1]
