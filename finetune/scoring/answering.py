"""A model that is opened to be scored, with and without an adapter, and how it is asked.

    with open_model(subject, Device()) as model:
        ask = model.asker(Manner(model.add(subject.adapter)))

A model that was trained in a layout without turns (prompt and response) or with other ends of
turns is asked in that layout, else what it has learnt would not show. Brings torch when it opens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from finetune.scoring.subject import RAW_LAYOUTS, Subject
from glm.chat import EventStream, Options, chat
from glm.checkpoint.hub import fetch, is_hub_id
from glm.checkpoint.recognise import ModelInfo, recognise
from glm.dialects import DIALECTS
from glm.dialects.base import Dialect, Parser
from glm.dialects.chatglm2 import PlainParser
from glm.loop import Ask
from glm.manager import read_adapter
from glm.messages import Conversation, Message, Sampling, ToolSpec
from glm.opening import Opening, open_engine
from glm.tokenizers.opening import open_tokenizer

AS_RENDERED = ("auto", "chatglm3", "chatglm1", "")  # layouts whose prompts are the dialect's own
NO_LIMIT = 1 << 40


@dataclass(frozen=True, slots=True)
class Manner:
    """How a model is asked: greedily, at most so many new tokens."""

    adapter: str | None = None
    layout: str = "auto"
    constrain: bool = False
    max_tokens: int = 512


class Opened:
    """An engine and its dialect. `info` is None for an engine that no files belong to."""

    def __init__(self, engine: Any, dialect: Dialect, info: ModelInfo | None = None) -> None:
        self.engine, self.dialect, self.info = engine, dialect, info
        self.layouts: dict[str, str] = {}

    def add(self, path: Path) -> str:
        """Open an adapter; returns its key. Raises CheckpointError or BadRequest."""
        assert self.info is not None
        adapter = read_adapter(self.info, self.engine, path, None)
        key = f"{adapter.info.name}#{len(self.layouts)}"
        self.engine.add_adapter(key, adapter)
        self.layouts[key] = adapter.info.layout
        return key

    def asker(self, manner: Manner) -> Ask:
        """What answers one conversation after the other, from any thread."""
        layout = manner.layout
        if layout == "auto" and manner.adapter:
            layout = self.layouts.get(manner.adapter, "auto")
        dialect = self.dialect if layout in AS_RENDERED else in_layout(layout, self.dialect)
        limit = min(manner.max_tokens, self.engine.context)
        sampling = Sampling(max_tokens=limit, temperature=0.0)
        options = Options(adapter=manner.adapter, constrain=manner.constrain)

        def ask(conversation: Conversation) -> EventStream:
            return chat(self.engine, dialect, conversation, sampling, options)

        return ask

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.engine.close()


def open_model(subject: Subject, device: str = "auto") -> Opened:
    """Open the base of a subject. Raises CheckpointError."""
    wanted = subject.model
    folder = fetch(wanted) if is_hub_id(wanted) else Path(wanted)
    info = recognise(folder, _tokenizer(subject.tokenizer))
    dialect = DIALECTS[info.dialect](open_tokenizer(info))
    return Opened(open_engine(info, Opening(device, bits=subject.bits)), dialect, info)


def _tokenizer(name: str) -> Path | None:
    if not name:
        return None
    return fetch(name) if is_hub_id(name) else Path(name)


# ---- layouts -----------------------------------------------------------------------------


def in_layout(name: str, dialect: Dialect) -> Any:
    """The dialect with the prompts of a layout. Raises BadRequest for one that does not fit."""
    from finetune.layouts import choose

    return _Laid(dialect, choose(name, dialect))


class _Laid:
    """A dialect, save for its prompts; and for layouts without turns, an answer is plain text."""

    def __init__(self, dialect: Any, layout: Any) -> None:
        self._dialect, self._layout = dialect, layout

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dialect, name)

    def parser(self, tools: Sequence[ToolSpec] = ()) -> Parser:
        if self._layout.name in RAW_LAYOUTS:
            return PlainParser(self._dialect.tokenizer, self._dialect.stop)
        return self._dialect.parser(tools)  # type: ignore[no-any-return]

    def prompt(self, conversation: Conversation) -> tuple[int, ...]:
        """All before the first token of an answer that alone is learnt."""
        from finetune.layouts import Limits, Skipped
        from glm.errors import BadRequest

        past = tuple(replace(message, learn=False) for message in conversation.messages)
        asked = replace(conversation, messages=(*past, Message("assistant", learn=True)))
        made = self._layout.encode(asked, self._dialect, Limits(NO_LIMIT))
        if isinstance(made, Skipped):
            raise BadRequest(f"this row does not fit the layout {self._layout.name}: {made.reason}")
        end = len(made.labels)
        while end and made.labels[end - 1] != made.ids[end - 1]:
            end -= 1
        while end and made.labels[end - 1] == made.ids[end - 1]:
            end -= 1
        role = getattr(self._dialect, "role", {}).get("assistant")
        return tuple(made.ids[: end + (made.ids[end] == role)])
