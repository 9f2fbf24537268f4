"""Answers with tagged calls: `<tool_call>...</tool_call>` in the text, thoughts in `<think>`.

Inside the tags stands JSON with a name and arguments, or the form of GLM-4.5: the name, then
`<arg_key>k</arg_key><arg_value>v</arg_value>`. A bare JSON call (Llama) is read where tools were
offered and the answer is nothing else. The first `</tool_call>` closes a call; inside a thought
nothing is a call. Time is linear in the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glm.dialects import calls
from glm.dialects.blocks import THINK, THOUGHT
from glm.dialects.marks import Mark, Reader
from glm.dialects.vocabulary import Vocabulary
from glm.messages import (
    Call,
    CallText,
    Event,
    Malformed,
    Message,
    Text,
    Thinking,
    ToolCall,
    ToolSpec,
)

CALL, CALLED = Mark("<tool_call>"), Mark("</tool_call>")
KEY, KEYED = Mark("<arg_key>"), Mark("</arg_key>")
VALUE, VALUED = Mark("<arg_value>"), Mark("</arg_value>")
PYTHON_TAG = Mark("<|python_tag|>")
MARKS = (THINK, THOUGHT, CALL, CALLED, KEY, KEYED, VALUE, VALUED)
_NAME = re.compile(r"[\w.\-/:]{1,64}\Z")
_BARE = re.compile(r"\{\s*\"(name|type|function|arguments|parameters)\"")
_BARE_CHARS = 64  # by then a bare call has shown its first key


@dataclass(frozen=True, slots=True)
class TagForm:
    """What differs between the models. `ends`: the ids that end an answer. `thinking`: the
    prompt ends inside a thought; `lead` are the ids of that mark, kept with the produced ones.
    `bare`: a call may be JSON without tags.
    """

    ends: tuple[int, ...]
    thinking: bool = False
    lead: tuple[int, ...] = ()
    bare: bool = False


class TaggedParser:
    """Ids of one answer to events."""

    def __init__(
        self, tokenizer: Vocabulary, form: TagForm, tools: Sequence[ToolSpec] = ()
    ) -> None:
        self._tokenizer, self._form = tokenizer, form
        self._types = argument_types(tools)
        self._bare = form.bare and bool(tools)
        self._reader = Reader(tokenizer, (*MARKS, PYTHON_TAG) if self._bare else MARKS)
        self._ids: list[int] = list(form.lead)
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[ToolCall] = []
        self._state = "think" if form.thinking else "text"  # think, text, call, bare
        self._space: list[str] = []  # white space that is text once more text follows
        self._body: list[str] = []
        self._body_length = 0
        self._ended = False

    def feed(self, ids: Sequence[int]) -> list[Event]:
        """Events of these ids; ids after the end of the turn are ignored."""
        events: list[Event] = []
        for token in ids:
            if self._ended:
                break
            if token in self._form.ends:
                events += self._end(cut=False)
            else:
                self._ids.append(token)
                for part in self._reader.push(token):
                    events += self._part(part)
        return events

    def finish(self) -> list[Event]:
        """The events held back, when the stream ended without an end token."""
        return [] if self._ended else self._end(cut=True)

    def message(self) -> Message:
        """The turn: its thought, its text, its calls, and the produced ids."""
        return Message(
            "assistant",
            "".join(self._texts),
            calls=tuple(self._calls),
            thinking="".join(self._thoughts).strip(),
            ids=tuple(self._ids),
            vocabulary=self._tokenizer.fingerprint,
        )

    def _part(self, part: str) -> list[Event]:
        mark = part if isinstance(part, Mark) else None
        if self._state == "think":
            return self._think(part, mark)
        if self._state == "call":
            return self._read_call(cut=False) if mark == CALLED else self._collect(part)
        if self._state == "bare":
            return self._hold(part)
        if mark == THINK:
            self._state = "think"
        elif mark == CALL:
            self._state = "call"
        elif mark == PYTHON_TAG:
            self._state = "bare"
        elif mark != THOUGHT:
            return self._text(part)
        return []

    def _think(self, part: str, mark: Mark | None) -> list[Event]:
        if mark == THOUGHT:
            self._state = "text"
            return []
        if mark == THINK and not "".join(self._thoughts[-1:]).strip():
            return []  # the prompt had opened the thought already
        self._thoughts.append(part)
        return [Thinking(str(part))]

    def _text(self, part: str) -> list[Event]:
        """White space at both ends of the answer, and between calls, belongs to the form."""
        text = part.lstrip() if not self._texts else part
        if self._bare and not self._texts and not self._calls and text.startswith("{"):
            self._state = "bare"
            return self._hold(text)
        kept = text.rstrip()
        if not kept:
            self._space.append(text)
            return []
        whole = "".join([*(self._space if self._texts else []), kept])
        self._space = [text[len(kept) :]]
        self._texts.append(whole)
        return [Text(whole)]

    def _collect(self, part: str) -> list[Event]:
        self._body.append(part)
        return [CallText(str(part))]

    def _hold(self, part: str) -> list[Event]:
        """A bare call is told from an answer in JSON at its end, or sooner by its first key."""
        before = self._body_length
        self._body.append(str(part))
        self._body_length += len(part)
        if before >= _BARE_CHARS or self._body_length < _BARE_CHARS:
            return []
        if _BARE.match("".join(self._body).lstrip()):
            return []
        return self._release()

    def _release(self) -> list[Event]:
        """What was held is text."""
        held, self._body = "".join(self._body), []
        self._state, self._bare = "text", False
        return self._text(held)

    def _end(self, cut: bool) -> list[Event]:
        self._ended = True
        events: list[Event] = []
        for part in self._reader.flush():
            events += self._part(part)
        if self._state == "call":
            events += self._read_call(cut)
        elif self._state == "bare":
            events += self._read_bare()
        return events

    def _read_call(self, cut: bool) -> list[Event]:
        body, self._body, self._state = self._body, [], "text"
        raw = "".join(body)
        try:
            if cut:
                raise calls.NotACall("cut off before its end")
            name, arguments = tagged_call(body, self._types)
        except calls.NotACall as error:
            self._texts.append("".join([*self._space, CALL, raw, "" if cut else CALLED]))
            self._space = []
            return [Malformed(_name(body), raw, str(error))]
        self._space = []
        return [self._called(name, arguments, raw)]

    def _read_bare(self) -> list[Event]:
        raw = "".join(self._body)
        if not _BARE.match(raw.lstrip()):
            return self._release()
        try:
            found = calls.named(raw)
        except calls.NotACall:
            return self._release()
        self._body = []
        return [CallText(raw), *(self._called(name, given, None) for name, given in found)]

    def _called(self, name: str, arguments: Mapping[str, Any], raw: str | None) -> Call:
        call = ToolCall(name, arguments, id=f"call_{len(self._calls)}", text=raw)
        self._calls.append(call)
        return Call(call)


def tagged_call(
    body: Iterable[str], types: Mapping[str, Mapping[str, Any]]
) -> tuple[str, dict[str, Any]]:
    """Name and arguments of what stands between the tags. Raises NotACall."""
    parts = joined(body)
    raw = "".join(parts)
    if len(raw) > calls.MAX_CHARS:
        raise calls.NotACall(f"the call is longer than {calls.MAX_CHARS} characters")
    if raw.lstrip().startswith("{"):
        found = calls.named(raw)
        if len(found) > 1:
            raise calls.NotACall("more than one call between the tags")
        return found[0]
    name = _name(parts)
    if not _NAME.match(name):
        raise calls.NotACall("expected a tool's name, then its arguments")
    out: dict[str, Any] = {}
    for key, text in pairs(parts[1:]):
        if key in out:
            raise calls.NotACall(f"the argument {key} stands twice")
        out[key] = typed(text, types.get(name, {}).get(key))
    return name, out


def pairs(parts: Sequence[str]) -> list[tuple[str, str]]:
    """Keys and values as they were written. Raises NotACall.

    `parts` follow the name; neighbouring texts are joined.
    """
    out: list[tuple[str, str]] = []
    at = 0
    while at < len(parts):
        if not isinstance(parts[at], Mark) and not parts[at].strip():
            at += 1
            continue
        key, at = _between(parts, at, KEY, KEYED)
        if at < len(parts) and not isinstance(parts[at], Mark) and not parts[at].strip():
            at += 1
        text, at = _between(parts, at, VALUE, VALUED)
        out.append((key.strip(), text))
    return out


def _between(parts: Sequence[str], at: int, first: Mark, last: Mark) -> tuple[str, int]:
    if at >= len(parts) or not isinstance(parts[at], Mark) or parts[at] != first:
        raise calls.NotACall(f"expected {first}")
    end = at + 1
    while end < len(parts) and not (isinstance(parts[end], Mark) and parts[end] == last):
        end += 1
    if end == len(parts):
        raise calls.NotACall(f"{first} without {last}")
    return "".join(parts[at + 1 : end]), end + 1


def joined(parts: Iterable[str]) -> list[str]:
    """Neighbouring texts as one; marks as they are."""
    out: list[str] = []
    texts: list[str] = []
    for part in parts:
        if isinstance(part, Mark):
            out += ["".join(texts), part] if texts else [part]
            texts = []
        else:
            texts.append(part)
    return [*out, "".join(texts)] if texts else out


def argument_types(tools: Sequence[ToolSpec]) -> dict[str, dict[str, Any]]:
    """Tool -> argument -> the type its schema names."""
    out: dict[str, dict[str, Any]] = {}
    for tool in tools:
        properties = (tool.parameters or {}).get("properties")
        if isinstance(properties, Mapping):
            out[tool.name] = {
                key: schema.get("type")
                for key, schema in properties.items()
                if isinstance(schema, Mapping)
            }
    return out


def is_text(kind: Any) -> bool:
    """Is an argument of this type written without quotes, whatever it looks like?"""
    return kind == "string" or (isinstance(kind, list) and "string" in kind)


def typed(text: str, kind: Any) -> Any:
    """Strings are written bare, everything else as JSON; the schema's type tells them apart."""
    if not is_text(kind):
        return calls.value(text)
    return None if text == "null" and "null" in kind else text


def _name(body: Iterable[str]) -> str:
    first = next(iter(joined(body)), "")
    return "" if isinstance(first, Mark) else first.strip()[:64]
