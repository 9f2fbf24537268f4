"""`chatglm1`: ChatGLM-6B's context and target: text `[gMASK] <sop>` target `<eop>`.

Learnt are target and `<eop>`; a history is part of the context, in rounds, as in chat. Context and
target are cut by limits of their own. Source: THUDM/ChatGLM-6B, ptuning/main.py.
"""

from __future__ import annotations

from finetune.layouts.pair import PairLayout
from glm.dialects.base import Dialect
from glm.messages import Conversation


def question(conversation: Conversation, dialect: Dialect) -> tuple[int, ...]:
    """The prompt of the chat; one question alone is its text as it is."""
    return dialect.prompt(conversation)


LAYOUT = PairLayout("chatglm1", question, ("chatglm",))
