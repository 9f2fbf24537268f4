"""`auto`: a dialect's own render with its own marks, for the families without a named layout.

GLM-4 and later: what the assistant writes and the token after it; ChatGLM2: the last answer and
eos; a chat template: each answer up to its end.
"""

from __future__ import annotations

from collections.abc import Iterable

from finetune.layouts.turns import TurnLayout
from glm.dialects.base import Dialect, Piece
from glm.messages import Conversation


def render(conversation: Conversation, dialect: Dialect) -> Iterable[Piece]:
    return dialect.render(conversation)


LAYOUT = TurnLayout("auto", render)
