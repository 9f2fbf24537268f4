"""Rows for tests of training: a minimal reader of ChatGLM3's format, generated conversations."""

from __future__ import annotations

import json
import random
from functools import cache
from typing import Any

from finetune.layouts import Example, Limits, Skipped, choose
from glm.dialects.chatglm3 import ChatGLM3
from glm.messages import Conversation, Message, ToolCall, ToolSpec
from glm.tokenizer import Tokenizer
from tests.shared_files import CHATGLM3_TOKENIZER, TINY, tokenizer_file

WIDE = Limits(max_length=1 << 20)


@cache
def chatglm3() -> ChatGLM3:
    """The dialect with the real vocabulary where it is here, else the embedded model's."""
    return ChatGLM3(Tokenizer(tokenizer_file()))


@cache
def real_chatglm3() -> ChatGLM3:
    return ChatGLM3(Tokenizer(CHATGLM3_TOKENIZER))


@cache
def small() -> ChatGLM3:
    """The dialect with the embedded model's vocabulary."""
    return ChatGLM3(Tokenizer(TINY / "tokenizer.model"))


def conversation(row: dict[str, Any]) -> Conversation:
    """A row of ChatGLM3's `tools` and `conversations`."""
    messages: list[Message] = []
    for turn in row["conversations"]:
        learn = turn.get("loss")
        if turn["role"] != "tool":
            messages.append(Message(turn["role"], turn["content"], learn=learn))
            continue
        call = ToolCall(turn["name"], turn["parameters"])
        seen = turn["observation"]
        text = seen if isinstance(seen, str) else json.dumps(seen, ensure_ascii=False)
        messages += [Message("assistant", calls=(call,), learn=learn), Message("tool", text)]
    tools = tuple(ToolSpec("", raw=tool) for tool in row.get("tools") or ())
    return Conversation(tuple(messages), tools)


def chat(*texts: str, system: str = "") -> Conversation:
    """Texts of user and assistant in turn."""
    roles = ("user", "assistant")
    messages = [Message(roles[i % 2], text) for i, text in enumerate(texts)]
    return Conversation(((Message("system", system),) if system else ()) + tuple(messages))


def encoded(
    name: str, talk: Conversation, dialect: Any = None, limits: Limits = WIDE
) -> Example | Skipped:
    """A conversation in a layout."""
    dialect = dialect or chatglm3()
    return choose(name, dialect).encode(talk, dialect, limits)


def made(name: str, talk: Conversation, dialect: Any = None, limits: Limits = WIDE) -> Example:
    found = encoded(name, talk, dialect, limits)
    assert isinstance(found, Example), found
    return found


class Listed:
    """Conversations as a source of rows."""

    def __init__(self, *talks: Conversation) -> None:
        self.talks = talks

    def __len__(self) -> int:
        return len(self.talks)

    def __getitem__(self, index: int) -> Conversation:
        return self.talks[index]


class Numbered:
    """Conversations made when they are asked for: `number` says so, then some words."""

    def __init__(self, count: int, words: int = 12) -> None:
        self.count, self.words = count, words
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Conversation:
        self.read.append(index)
        source = random.Random(index)
        words = " ".join(source.choices(("one", "two", "three"), k=source.randint(1, self.words)))
        return chat(f"{index}", words)
