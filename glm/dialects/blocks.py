"""Answers made of blocks, as ChatGLM3 and GLM-4 write them.

A block starts with its first line: empty for text, a tool's name for a call. What looks like
neither is text, so nothing the model writes is lost. A model that thinks does so first, up to
`</think>`; what follows is a block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glm.dialects import calls
from glm.dialects.marks import Mark, Reader
from glm.dialects.vocabulary import Vocabulary
from glm.messages import Call, CallText, Event, Malformed, Message, Text, Thinking, ToolCall

THINK, THOUGHT = Mark("<think>"), Mark("</think>")
_NAME = re.compile(r" ?[\w.\-/:]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class BlockForm:
    """What differs between the families. `read` makes arguments of (name, body, was the answer
    cut off) or raises NotACall; a body begins with one of `starts`. `dummy_space`: the tokenizer
    puts a space before each text. `thinking`: the prompt ends inside a thought.
    """

    read: Callable[[str, str, bool], Mapping[str, Any]]
    starts: tuple[str, ...] = ("{",)
    dummy_space: bool = False
    thinking: bool = False


class BlockParser:
    """Ids of one answer to events."""

    def __init__(self, tokenizer: Vocabulary, form: BlockForm) -> None:
        self._tokenizer, self._form = tokenizer, form
        self._observation = tokenizer.id("<|observation|>")
        self._ends = {tokenizer.eos, tokenizer.id("<|user|>"), self._observation}
        marks = ["<|assistant|>", *([THOUGHT] if form.thinking else [])]
        self._reader = Reader(tokenizer, marks)
        self._ids: list[int] = []
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[ToolCall] = []
        self._ended = False
        self._open_block()
        if form.thinking:
            self._state = "think"

    def feed(self, ids: Sequence[int]) -> list[Event]:
        """Events of these ids; ids after the end of the turn are ignored."""
        events: list[Event] = []
        for token in ids:
            if self._ended:
                break
            if token in self._ends:
                self._ended = True
                events += self._end(wants_call=token == self._observation)
            else:
                self._ids.append(token)
                for part in self._reader.push(token):
                    events += self._part(part)
        return events

    def finish(self) -> list[Event]:
        """The events held back, when the stream ended without an end token."""
        if self._ended:
            return []
        self._ended = True
        return self._end(wants_call=False, cut=True)

    def message(self) -> Message:
        """The turn: its text, its calls, and the produced ids without the end token."""
        return Message(
            "assistant",
            "".join(self._texts),
            calls=tuple(self._calls),
            thinking="".join(self._thoughts).strip(),
            ids=tuple(self._ids),
            vocabulary=self._tokenizer.fingerprint,
        )

    def _open_block(self) -> None:
        self._state = "head"  # think -> head -> text | peek -> call | text
        self._held = ""
        self._name = ""
        self._body: list[str] = []
        self._fresh = False  # the next text starts a content and may lead with its dummy space
        self._block_start = len(self._texts)

    def _part(self, part: str) -> list[Event]:
        if not isinstance(part, Mark):
            return self._take(part)
        if part == THOUGHT and self._state != "think":
            return self._take(str(part))
        events = [] if self._state == "think" else self._close(wants_call=False)
        self._open_block()
        return events

    def _take(self, text: str) -> list[Event]:
        if self._state == "think":
            self._thoughts.append(text)
            return [Thinking(text)]
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
        if body.startswith(self._form.starts):
            self._state, self._fresh = "call", True
            return self._call(self._held)
        if any(start.startswith(body) for start in self._form.starts):
            return []
        return self._become_text(f"{self._name}\n{self._held}")

    def _become_text(self, text: str) -> list[Event]:
        self._state, self._held = "text", ""
        return self._text(text)

    def _strip_dummy(self, text: str) -> str:
        """A content is encoded apart, so it may start with one space that is not its own."""
        if self._fresh and text:
            self._fresh = False
            return text.removeprefix(" ") if self._form.dummy_space else text
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

    def _end(self, wants_call: bool, cut: bool = False) -> list[Event]:
        events: list[Event] = []
        for part in self._reader.flush():
            events += self._part(part)
        return events + self._close(wants_call, cut)

    def _close(self, wants_call: bool, cut: bool = False) -> list[Event]:
        if self._state == "call":
            return self._read_call(cut)
        if self._state == "peek" and wants_call:
            self._texts.append(f"{self._name}\n{self._held}")
            return [Malformed(self._name, self._held, "a name without a call")]
        events: list[Event] = []
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
            arguments = self._form.read(self._name, body, cut)
        except calls.NotACall as error:
            self._texts.append(f"{self._name}\n{body}")
            reason = "cut off before its end" if cut else str(error)
            return [Malformed(self._name, body, reason)]
        call = ToolCall(self._name, arguments, id=f"call_{len(self._calls)}", text=body)
        self._calls.append(call)
        return [Call(call)]
