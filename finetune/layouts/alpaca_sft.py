"""`alpaca-sft`: the layout of yongzhuo/ChatGLM3-SFT. Every token is learnt, there is no eos.

Each turn is a role token and encode("\\n" + text + "\\n") in one call, which gives other ids than
the official form. The instruction is the system message (`--format alpaca-sft` reads it so).
`loss: false` silences a turn. Such a model ends an answer by the role token that it has learnt
to expect; it knows no tools. Source: ft_chatglm3/train.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from finetune.layouts.turns import TurnLayout
from glm.dialects.base import Piece
from glm.dialects.chatglm3 import ChatGLM3
from glm.errors import BadRequest
from glm.messages import Conversation

NO_TOOLS = "the layout alpaca-sft knows no tools"


def render(conversation: Conversation, dialect: ChatGLM3) -> Iterator[Piece]:
    """The turns one after the other. Raises BadRequest for tools."""
    messages = conversation.messages
    if conversation.tools or any(m.role == "tool" or m.calls for m in messages):
        raise BadRequest(NO_TOOLS)
    yield Piece(dialect.start, True)
    for message in messages:
        text = dialect.tokenizer.encode(f"\n{message.content}\n")
        yield Piece((dialect.role[message.role], *text), message.learn is not False)


LAYOUT = TurnLayout("alpaca-sft", render, ("chatglm3",))
