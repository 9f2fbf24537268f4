"""Prompts of the GLM-4 family: `[gMASK]<sop>`, then blocks that a role token opens.

Role tokens and the other control tokens are put in by id, everything else is encoded as text.
What the models of the family write inside a block is the business of glm4.py and glm45.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from glm.dialects.base import Parser, Piece, RoleToken
from glm.dialects.blocks import THINK
from glm.dialects.marks import encode
from glm.dialects.offered import bytes_known
from glm.dialects.vocabulary import Vocabulary
from glm.messages import Conversation, Message, Role, Sampling, ToolSpec

ROLE_TOKEN: dict[Role, str] = {
    "system": "<|system|>",
    "user": "<|user|>",
    "assistant": "<|assistant|>",
    "tool": "<|observation|>",
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One block. `sent` is the message whose produced ids may be sent again in its place;
    `joined` goes on in the block before it.
    """

    role: Role
    parts: tuple[str, ...]
    learn: bool = False
    sent: Message | None = None
    joined: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """What differs between the models: their blocks, what a prompt adds after `<|assistant|>`,
    how an answer is read, and what it may be with tools (None: anything).
    """

    name: str
    defaults: Sampling
    turns: Callable[[Conversation], Iterable[Turn]]
    opening: tuple[str, ...]
    parser: Callable[[Vocabulary, Sequence[ToolSpec]], Parser]
    grammar: Callable[[Vocabulary, Sequence[ToolSpec]], str | None]


class RoleDialect:
    """A form bound to a tokenizer; all ids come from it."""

    def __init__(self, tokenizer: Vocabulary, form: Form) -> None:
        self.tokenizer, self.form = tokenizer, form
        self.name, self.defaults = form.name, form.defaults
        self.thinking = form.opening[-1:] == (THINK,)  # a prompt ends inside a thought
        self.role = {role: tokenizer.id(token) for role, token in ROLE_TOKEN.items()}
        self.start = (tokenizer.id("[gMASK]"), tokenizer.id("<sop>"))
        self.end = tokenizer.eos
        self.stop = (self.end, self.role["user"], self.role["tool"])

    def prompt(self, conversation: Conversation) -> tuple[int, ...]:
        """The ids of the conversation and the mark where the model begins."""
        ids = [i for piece in self._pieces(conversation) for i in piece.ids]
        return (*ids, self.role["assistant"], *encode(self.tokenizer, self.form.opening))

    def render(self, conversation: Conversation) -> Iterator[Piece]:
        """The pieces of a finished conversation, eos at its end.

        Learnt: what the assistant writes and the token after it (the next role, or eos), as the
        official fine-tuning of GLM-4 does. `message.learn` False silences a turn, True teaches one
        of the user or the system, too; what a tool answered is never learnt.
        """
        learn = False
        for piece in self._pieces(conversation):
            learn = piece.learn
            yield piece
        yield Piece((self.end,), learn)

    def raw(self, text: str) -> tuple[int, ...]:
        """The ids of a text without roles, to be continued."""
        return (*self.start, *self.tokenizer.encode(text))

    def parser(self, tools: Sequence[ToolSpec] = ()) -> Parser:
        """A parser for one answer; `tools` tell it which arguments are strings."""
        return self.form.parser(self.tokenizer, tools)

    def grammar(self, tools: Sequence[ToolSpec]) -> str | None:
        """What an answer with these tools may be; None for anything, where the bytes of the
        vocabulary are not known. Raises BadRequest, naming the tool at fault.
        """
        return self.form.grammar(self.tokenizer, tools) if bytes_known(self.tokenizer) else None

    def xray(self, ids: Iterable[int]) -> list[RoleToken]:
        """Every token with the role of the block it stands in."""
        roles = {token: role for role, token in self.role.items()}
        role: Role | None = None
        out = []
        for piece in self.tokenizer.pieces(ids):
            role = roles.get(piece.id, role)
            out.append(RoleToken(piece.id, piece.text, role, piece.special))
        return out

    def _pieces(self, conversation: Conversation) -> Iterator[Piece]:
        yield Piece(self.start, False)
        after = False  # does the token after the last block belong to what is learnt?
        for turn in self.form.turns(conversation):
            if not turn.joined:
                yield Piece((self.role[turn.role],), after)
            yield Piece(self._ids(turn), turn.learn)
            after = turn.learn

    def _ids(self, turn: Turn) -> tuple[int, ...]:
        sent = turn.sent
        if sent and sent.ids is not None and sent.vocabulary == self.tokenizer.fingerprint:
            return sent.ids
        return encode(self.tokenizer, turn.parts)
