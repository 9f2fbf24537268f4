"""`eos-per-turn`: Firefly's layout. Each turn of the assistant ends with eos.

Learnt: what the assistant writes and that eos; role tokens are not. Between a thought and a call
of one message the role token is learnt: the turn goes on. Source: yangjianxin1/Firefly f05cf88,
ChatGLM3SFTDataset.
"""

from __future__ import annotations

from collections.abc import Iterator

from finetune.layouts.turns import TurnLayout
from glm.dialects.base import Dialect, Piece
from glm.messages import Conversation


def render(conversation: Conversation, dialect: Dialect) -> Iterator[Piece]:
    """Turn by turn: each alone is between the start of a text and its end."""
    start, *offer, _ = dialect.render(Conversation(tools=conversation.tools))
    yield start
    yield from offer
    for message in conversation.messages:
        _, *turn, _ = dialect.render(Conversation((message.edited(),)))
        yield from turn
        if turn and message.role == "assistant":
            yield Piece((dialect.end,), message.learn is not False)


LAYOUT = TurnLayout("eos-per-turn", render, ("chatglm3", "glm4"))
