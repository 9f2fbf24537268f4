"""`chatglm3`: the official multi-turn layout of ChatGLM3.

Learnt: what the assistant writes and the token that ends its turn, which is the role token of
the next; one eos at the very end. Source: THUDM/ChatGLM3, finetune_demo/preprocess_utils.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from finetune.layouts.turns import TurnLayout
from glm.dialects.base import Dialect, Piece
from glm.messages import Conversation


def render(conversation: Conversation, dialect: Dialect) -> Iterable[Piece]:
    """The dialect's own render is the official one."""
    return dialect.render(conversation)


LAYOUT = TurnLayout("chatglm3", render, ("chatglm3",))
