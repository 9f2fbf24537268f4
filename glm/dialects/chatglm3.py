"""ChatGLM3's prompt language, exactly as the official build_chat_input and process_response.

`[gMASK] sop` then per message `<|role|>` + encode(metadata + "\\n") + encode(content). Role
tokens are put in by id. An answer is plain text, or a thought and then calls: `name`, newline,
a python block with `tool_call(k=v)`; `interpreter` turns hold code. Source: THUDM/ChatGLM3
PROMPT.md and modeling_chatglm.py; the learnt marks follow finetune_demo/preprocess_utils.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence

from glm.dialects import calls, chatglm3_grammar
from glm.dialects.base import Piece, RoleToken, taught
from glm.messages import (
    Call,
    CallText,
    Conversation,
    Event,
    Malformed,
    Message,
    Role,
    Sampling,
    Text,
    ToolCall,
    ToolSpec,
)
from glm.tokenizer import Tokenizer

TOOL_SYSTEM = (
    "Answer the following questions as best as you can. You have access to the following tools:"
)
DEFAULT_SYSTEM = (
    "You are ChatGLM3, a large language model trained by Zhipu.AI. "
    "Follow the user's instructions carefully. Respond using markdown."
)
INTERPRETER = "interpreter"
ROLE_TOKEN: dict[Role, str] = {
    "system": "<|system|>",
    "user": "<|user|>",
    "assistant": "<|assistant|>",
    "tool": "<|observation|>",
}
_NAME = re.compile(r" ?[\w.\-/:]{1,64}\Z")
_BODY_STARTS = ("```", "tool_call(", "{")


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

    def parser(self, tools: Sequence[ToolSpec] = ()) -> ChatGLM3Parser:
        """A parser for one answer."""
        return ChatGLM3Parser(self.tokenizer)

    def grammar(self, tools: Sequence[ToolSpec]) -> str:
        """What an answer with these tools may be. Raises BadRequest, naming the tool at fault."""
        assistant = self.role["assistant"]
        return chatglm3_grammar.answer(tools, assistant, self.stop)

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


class ChatGLM3Parser:
    """Ids of one answer to events.

    A block starts with its first line: empty for text, a tool's name for a call. What looks
    like neither is text, so nothing the model writes is lost.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._assistant = tokenizer.id("<|assistant|>")
        self._observation = tokenizer.id("<|observation|>")
        self._ends = {tokenizer.eos, tokenizer.id("<|user|>"), self._observation}
        self._ids: list[int] = []
        self._texts: list[str] = []
        self._calls: list[ToolCall] = []
        self._ended = False
        self._open_block()

    def feed(self, ids: Sequence[int]) -> list[Event]:
        """Events of these ids; ids after the end of the turn are ignored."""
        events: list[Event] = []
        for token in ids:
            if self._ended:
                break
            if token in self._ends:
                events += self._close(wants_call=token == self._observation)
                self._ended = True
            elif token == self._assistant:
                self._ids.append(token)
                events += self._close(wants_call=False)
                self._open_block()
            else:
                self._ids.append(token)
                events += self._take(self._decoder.push(token))
        return events

    def finish(self) -> list[Event]:
        """The events held back, when the stream ended without an end token."""
        if self._ended:
            return []
        self._ended = True
        return self._close(wants_call=False, cut=True)

    def message(self) -> Message:
        """The turn: its text, its calls, and the produced ids without the end token."""
        content = "".join(self._texts)
        return Message(
            "assistant",
            content,
            calls=tuple(self._calls),
            ids=tuple(self._ids),
            vocabulary=self._tokenizer.fingerprint,
        )

    def _open_block(self) -> None:
        self._decoder = self._tokenizer.decoder()
        self._state = "head"  # head -> text | peek -> call | text
        self._held = ""
        self._name = ""
        self._body: list[str] = []
        self._fresh = False  # the next text starts a content and may lead with its dummy space
        self._block_start = len(self._texts)

    def _take(self, text: str) -> list[Event]:
        if not text:
            return []
        if self._state == "text":
            return self._text(text)
        if self._state == "call":
            return self._call(text)
        self._held += text
        return self._head() if self._state == "head" else self._peek()

    def _head(self) -> list[Event]:
        line, newline, rest = self._held.partition("\n")
        if not newline:
            if not line.strip() or _NAME.match(line):
                return []
            return self._become_text(self._held)
        if not line.strip():
            self._fresh = True
            return self._become_text(rest)
        if not _NAME.match(line):
            return self._become_text(self._held)
        self._state, self._name, self._held = "peek", line.strip(), rest
        return self._peek()

    def _peek(self) -> list[Event]:
        """After a name: is this a call, or did a plain answer start with one word and a newline?"""
        body = self._held.lstrip(" \n")
        if any(body.startswith(start) for start in _BODY_STARTS):
            self._state, self._fresh = "call", True
            return self._call(self._held)
        if any(start.startswith(body) for start in _BODY_STARTS):
            return []
        return self._become_text(f"{self._name}\n{self._held}")

    def _become_text(self, text: str) -> list[Event]:
        self._state, self._held = "text", ""
        return self._text(text)

    def _strip_dummy(self, text: str) -> str:
        """A content is encoded apart, so it starts with one space that is not its own."""
        if self._fresh and text:
            self._fresh = False
            return text.removeprefix(" ")
        return text

    def _text(self, text: str) -> list[Event]:
        text = self._strip_dummy(text)
        if not text:
            return []
        self._texts.append(text)
        return [Text(text)]

    def _call(self, text: str) -> list[Event]:
        text = self._strip_dummy(text)
        if not text:
            return []
        self._body.append(text)
        return [CallText(text)]

    def _close(self, wants_call: bool, cut: bool = False) -> list[Event]:
        events = self._take(self._decoder.flush())
        if self._state == "call":
            return events + self._read_call(cut)
        if self._state == "peek" and wants_call:
            self._texts.append(f"{self._name}\n{self._held}")
            return [*events, Malformed(self._name, self._held, "a name without a call")]
        held = f"{self._name}\n{self._held}" if self._state == "peek" else self._held
        if held.strip():
            events += self._become_text(held)
        if wants_call:
            raw = "".join(self._texts[self._block_start :])
            events.append(Malformed("", raw, "expected a tool's name, a newline and a call"))
        return events

    def _read_call(self, cut: bool) -> list[Event]:
        body = "".join(self._body)
        try:
            if self._name == INTERPRETER:
                if cut and not calls.is_closed(body):
                    raise calls.NotACall("cut off before its end")
                arguments = {"code": calls.unfence(body)}
            else:
                arguments = calls.arguments(body)
        except calls.NotACall as error:
            self._texts.append(f"{self._name}\n{body}")
            reason = "cut off before its end" if cut else str(error)
            return [Malformed(self._name, body, reason)]
        call = ToolCall(self._name, arguments, id=f"call_{len(self._calls)}", text=body)
        self._calls.append(call)
        return [Call(call)]
