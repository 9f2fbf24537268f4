"""ChatGLM3's prompt language, exactly as the official build_chat_input and process_response.

`[gMASK] sop` then per message `<|role|>` + encode(metadata + "\\n") + encode(content). Role
tokens are put in by id. An answer is plain text, or a thought and then calls: `name`, newline,
a python block with `tool_call(k=v)`; `interpreter` turns hold code. Source: THUDM/ChatGLM3
PROMPT.md and modeling_chatglm.py; the learnt marks follow finetune_demo/preprocess_utils.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from glm.dialects import calls
from glm.dialects.base import Parser, Piece, RoleToken, taught
from glm.dialects.block_grammar import BlockGrammar
from glm.dialects.blocks import BlockForm, BlockParser
from glm.dialects.code_arguments import INTERPRETER, CodeArguments
from glm.messages import Conversation, Message, Role, Sampling, ToolCall, ToolSpec
from glm.tokenizer import Tokenizer

TOOL_SYSTEM = (
    "Answer the following questions as best as you can. You have access to the following tools:"
)
DEFAULT_SYSTEM = (
    "You are ChatGLM3, a large language model trained by Zhipu.AI. "
    "Follow the user's instructions carefully. Respond using markdown."
)
ROLE_TOKEN: dict[Role, str] = {
    "system": "<|system|>",
    "user": "<|user|>",
    "assistant": "<|assistant|>",
    "tool": "<|observation|>",
}


def tools_block(tools: Sequence[ToolSpec]) -> str:
    """The system text that offers tools."""
    described = json.dumps([tool.to_json() for tool in tools], indent=4, ensure_ascii=False)
    return f"{TOOL_SYSTEM}\n{described}"


def call_text(call: ToolCall) -> str:
    """The body of a call: as it was written, else in the official form."""
    if call.text is not None:
        return call.text
    if call.name == INTERPRETER:
        return f"```python\n{call.arguments.get('code', '')}\n```"
    arguments = ", ".join(f"{key}={value!r}" for key, value in call.arguments.items())
    return f"```python\ntool_call({arguments})\n```"


class ChatGLM3:
    """The dialect bound to a tokenizer; all ids come from it."""

    name = "chatglm3"
    defaults = Sampling(temperature=0.8, top_p=0.8)

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.role = {role: tokenizer.id(token) for role, token in ROLE_TOKEN.items()}
        self.start = (tokenizer.id("[gMASK]"), tokenizer.id("sop"))
        self.end = tokenizer.eos
        self.stop = (self.end, self.role["user"], self.role["tool"])

    def prompt(self, conversation: Conversation) -> tuple[int, ...]:
        """The ids of the conversation and the bare `<|assistant|>` after it."""
        ids = [i for piece in self._turns(conversation) for i in piece.ids]
        return (*ids, self.role["assistant"])

    def render(self, conversation: Conversation) -> Iterator[Piece]:
        """The pieces of a finished conversation, eos at its end.

        Learnt: what the assistant writes and the token after it (the next role, or eos), as in
        the official multi-turn preprocessing. `message.learn` False silences a turn, True
        teaches one of the user or the system, too; what a tool answered is never learnt.
        """
        learn = False
        for piece in self._turns(conversation):
            learn = piece.learn
            yield piece
        yield Piece((self.end,), learn)

    def raw(self, text: str) -> tuple[int, ...]:
        """The ids of a text without roles, to be continued."""
        return (*self.start, *self.tokenizer.encode(text))

    def parser(self, tools: Sequence[ToolSpec] = ()) -> Parser:
        """A parser for one answer."""
        return BlockParser(self.tokenizer, _FORM)

    def grammar(self, tools: Sequence[ToolSpec]) -> str:
        """What an answer with these tools may be. Raises BadRequest, naming the tool at fault."""
        return _GRAMMAR.answer(self.tokenizer, tools)

    def xray(self, ids: Iterable[int]) -> list[RoleToken]:
        """Every token with the role of the block it stands in."""
        roles = {token: role for role, token in self.role.items()}
        role: Role | None = None
        out = []
        for piece in self.tokenizer.pieces(ids):
            role = roles.get(piece.id, role)
            out.append(RoleToken(piece.id, piece.text, role, piece.special))
        return out

    def _turns(self, conversation: Conversation) -> Iterator[Piece]:
        yield Piece(self.start, False)
        after = False  # does the token after the last block belong to what is learnt?
        blocks = [self._block("system", "", tools_block(conversation.tools))]
        for message in (None, *conversation.messages):
            if message is not None:
                blocks = self._message(message)
            elif not conversation.tools:
                continue
            for role, body, learn in blocks:
                yield Piece((self.role[role],), after)
                yield Piece(body, learn)
                after = learn

    def _message(self, message: Message) -> list[tuple[Role, tuple[int, ...], bool]]:
        learn = taught(message)
        if message.role != "assistant":
            return [self._block(message.role, "", message.content, learn)]
        if message.ids is not None and message.vocabulary == self.tokenizer.fingerprint:
            return [("assistant", message.ids, learn)]
        blocks = []
        if message.content or not message.calls:
            blocks.append(self._block("assistant", "", message.content, learn))
        for call in message.calls:
            blocks.append(self._block("assistant", call.name, call_text(call), learn))
        return blocks

    def _block(
        self, role: Role, metadata: str, content: str, learn: bool = False
    ) -> tuple[Role, tuple[int, ...], bool]:
        encode = self.tokenizer.encode
        return role, (*encode(f"{metadata}\n"), *encode(content)), learn


def _read(name: str, body: str, cut: bool) -> Mapping[str, Any]:
    if name != INTERPRETER:
        return calls.arguments(body)
    if cut and not calls.is_closed(body):
        raise calls.NotACall("cut off before its end")
    return {"code": calls.unfence(body)}


_FORM = BlockForm(_read, starts=("```", "tool_call(", "{"), dummy_space=True)
_GRAMMAR = BlockGrammar(CodeArguments, dummy_space=True)
