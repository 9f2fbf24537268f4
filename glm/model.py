"""One model in a few lines of Python, for people who write code."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from glm.chat import EventStream, Options
from glm.checkpoint.recognise import EMBEDDED
from glm.errors import EngineError
from glm.manager import Manager
from glm.messages import Conversation, Finish, Message, Sampling
from glm.opening import Opener, Opening, open_engine

History = list[dict[str, Any]]


class Model:
    """An open model. Use it in a `with` block, or call `close`."""

    def __init__(
        self,
        path: str | None = None,
        adapter: str | None = None,
        opener: Opener = open_engine,
        **options: Any,
    ) -> None:
        """`options` are the fields of `glm.manager.Opening`: device, dtype, bits, tokenizer.

        Raises CheckpointError when the model or the adapter cannot be opened.
        """
        self.manager = Manager(path, Opening(**options), opener=opener)
        self.info = self.manager.open(path or EMBEDDED)
        self.address = self.manager.default
        if adapter is not None:
            self.address = f"{self.address}:{self.manager.add_adapter(adapter).name}"

    def chat(
        self, query: str, history: History | None = None, **sampling: Any
    ) -> tuple[str, History]:
        """The answer and the history to pass next time: [{"role", "content"}, ...].

        `sampling` are fields of `glm.messages.Sampling`, e.g. temperature=0. An answer in the
        history keeps the ids the model produced, so that they are not computed again.
        Raises PromptTooLong, BadSampling, EngineError.
        """
        past = [*(history or []), {"role": "user", "content": query}]
        messages = tuple(Message(**turn) for turn in past)
        message = _last(self.stream(Conversation(messages), **sampling))
        kept = ("role", "content", "ids", "vocabulary")
        return message.content, [*past, {name: getattr(message, name) for name in kept}]

    def stream(
        self,
        conversation: Conversation,
        constrain: bool = False,
        raw: bool = False,
        **sampling: Any,
    ) -> EventStream:
        """The events of the next turn, as they arrive.

        `constrain`: calls of the conversation's tools follow the tools' schemas. `raw`: the last
        message's text is continued as it is, for models tuned on prompts and responses.
        """
        from dataclasses import replace

        defaults: Sampling = self.manager.defaults()
        options = Options(constrain=constrain, raw=raw)
        wanted = replace(defaults, **sampling)
        return self.manager.chat(conversation, wanted, model=self.address, options=options)

    def close(self) -> None:
        self.manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _last(stream: EventStream) -> Message:
    for event in stream:
        if isinstance(event, Finish):
            if event.reason == "error":
                raise EngineError(event.error)
            return event.message
    raise EngineError("the answer did not end")
