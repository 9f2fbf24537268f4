"""How many tokens a conversation has in a model's own prompt language, and what a limit cuts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from glm.checkpoint.recognise import EMBEDDED, recognise
from glm.dialects import DIALECTS, Dialect
from glm.errors import BadRequest
from glm.messages import Conversation, Message, ToolSpec
from glm.tokenizers.opening import open_tokenizer

_PER_TURN = 32  # tokens that a dialect may put around a turn


@dataclass(frozen=True)
class Length:
    """`tokens` in all; `learnt` of them, and `kept` of these within the limit."""

    tokens: int
    learnt: int
    kept: int
    said: str


class Ruler:
    """Measures conversations for one model. Raises BadRequest for what it has no prompt for."""

    def __init__(self, dialect: Dialect, limit: int, name: str = "", chat: bool = True) -> None:
        self.dialect, self.limit, self.name, self._chat = dialect, limit, name, chat

    def fits(self, conversation: Conversation, size: int | None) -> bool:
        """Whether the bytes of the row alone tell that it fits; a token is a byte or more."""
        if size is None or conversation.tools:
            return False
        return size + _PER_TURN * (len(conversation.messages) + 1) <= self.limit

    def measure(self, conversation: Conversation) -> Length:
        pieces = list(self.dialect.render(conversation))
        ids = [token for piece in pieces for token in piece.ids]
        marks = [piece.learn for piece in pieces for _ in piece.ids]
        kept = sum(marks[: self.limit])
        return Length(len(ids), sum(marks), kept, self._said(ids, marks))

    def _said(self, ids: list[int], marks: list[bool]) -> str:
        over = len(ids) - self.limit
        if over <= 0:
            return ""
        shown = self.dialect.xray(ids)
        role = shown[self.limit].role or "text"
        after = sum(
            token.special and token.role is not None and token.id != ids[-1]
            for token in shown[self.limit + 1 :]
        )
        following = "turn" if after == 1 else f"{after} turns"
        turns = f" and the {following} after it" if after else ""
        left = f"{sum(marks[: self.limit])} of {sum(marks)} learnt tokens are left"
        return f"{len(ids)} tokens, {over} over {self.limit}: cuts a turn of {role}{turns}; {left}"

    def takes_tools(self) -> bool:
        """Whether the model can call tools: its prompt language offers them, and it can chat."""
        if not self._chat:
            return False
        asked = Conversation((Message("user", "?"),))
        try:
            offered = self.dialect.prompt(Conversation(asked.messages, (ToolSpec("f"),)))
        except BadRequest:
            return False
        return offered != self.dialect.prompt(asked)


def ruler(model: str | Path | None, tokenizer: str | Path | None, limit: int) -> Ruler:
    """For a checkpoint folder, else for the embedded model. Loads no weights."""
    info = recognise(model or EMBEDDED, tokenizer)
    if limit < 1:
        raise BadRequest(f"the length is at least 1 token, not {limit}")
    return Ruler(DIALECTS[info.dialect](open_tokenizer(info)), limit, info.name, info.chat)
