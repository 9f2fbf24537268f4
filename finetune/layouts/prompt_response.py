"""`prompt-response`: the official input-output layout, for raw text without roles.

`[gMASK] sop` prompt, response, eos; learnt are response and eos. Prompt and response are cut by
limits of their own. Source: THUDM/ChatGLM3, finetune_demo/preprocess_utils.py.
"""

from __future__ import annotations

from finetune.layouts.pair import PairLayout
from glm.dialects.base import Dialect
from glm.errors import BadRequest
from glm.messages import Conversation

ONE_QUESTION = "the layout prompt-response holds one question and one answer, without roles"


def question(conversation: Conversation, dialect: Dialect) -> tuple[int, ...]:
    """The one question as raw text. Raises BadRequest for anything more."""
    if conversation.tools or [m.role for m in conversation.messages] != ["user"]:
        raise BadRequest(ONE_QUESTION)
    return dialect.raw(conversation.messages[0].content)


LAYOUT = PairLayout("prompt-response", question)
