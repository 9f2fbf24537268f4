"""From a conversation to events: render, submit, parse. The one way an answer comes to be.

As a program it is a terminal chat:  python -m glm.chat [MODEL]
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from glm.dialects.base import Dialect, Parser
from glm.dialects.chatglm2 import PlainParser
from glm.engines.base import Chunk, Engine, Request, Stream
from glm.errors import BadRequest
from glm.messages import Conversation, Event, Finish, FinishReason, Sampling, Text, Usage


@dataclass(frozen=True, slots=True)
class Options:
    """What a request carries beside the conversation; see `glm.engines.base.Request`.

    `constrain`: a call the answer makes is one of the conversation's tools, and its arguments
    follow the tool's schema. `raw`: the last message's text is continued as it is, without roles,
    for models that were tuned on prompts and responses.
    """

    owner: str = ""
    adapter: str | None = None
    constraint: Any | None = None
    deadline: float | None = None
    constrain: bool = False
    raw: bool = False


def chat(
    engine: Engine,
    dialect: Dialect,
    conversation: Conversation,
    sampling: Sampling | None = None,
    options: Options = Options(),
) -> EventStream:
    """Ask for the next assistant turn; returns at once.

    Raises what `Engine.submit` raises: BadSampling, PromptTooLong, QueueFull, EngineError; and
    BadRequest when the tools' schemas cannot constrain the answer.
    """
    sampling = sampling or dialect.defaults
    constraint = options.constraint
    if options.constrain and constraint is None and conversation.tools:
        constraint = _constraint(dialect, conversation)
    prompt, stop, parser = _way(dialect, conversation, options.raw)
    request = Request(
        prompt,
        sampling,
        stop=stop,
        adapter=options.adapter,
        constraint=constraint,
        owner=options.owner,
        deadline=options.deadline,
    )
    return EventStream(engine.submit(request), parser, prompt, sampling.stop)


def _way(
    dialect: Dialect, conversation: Conversation, raw: bool
) -> tuple[tuple[int, ...], tuple[int, ...], Parser]:
    """The ids to continue, those that end the answer, and what reads it."""
    if not raw:
        parser = dialect.parser(conversation.tools)
        return dialect.prompt(conversation), dialect.stop, parser
    if not conversation.messages:
        raise BadRequest("raw text needs a message")
    stop = tuple(dict.fromkeys((dialect.end, *dialect.stop)))
    prompt = dialect.raw(conversation.messages[-1].content)
    return prompt, stop, PlainParser(dialect.tokenizer, stop)


def _constraint(dialect: Dialect, conversation: Conversation) -> Any:
    from glm.constrain import calls_of  # brings the grammar library

    return calls_of(dialect, conversation.tools)


class EventStream:
    """The events of one answer; the last is always one `Finish`.

    `prompt` and `produced` are the ids sent and made (the end token included). Read it from one
    thread; `close` may come from any.
    """

    def __init__(
        self, stream: Stream, parser: Parser, prompt: tuple[int, ...], stop: tuple[str, ...] = ()
    ) -> None:
        self.prompt = prompt
        self.produced: list[int] = []
        self._stream = stream
        self._parser = parser
        self._stop = StopText(stop) if stop else None
        self._started = time.monotonic()
        self._finished = False
        self._lock = threading.Lock()

    @property
    def usage(self) -> Usage:
        return self._stream.usage

    @property
    def finished(self) -> bool:
        """Whether its Finish was read."""
        return self._finished

    def next(self, timeout: float | None = None) -> list[Event]:
        """Events that arrived, waiting up to `timeout` seconds; [] on timeout and after Finish."""
        if self._finished:
            return []
        events: list[Event] = []
        for chunk in self._stream.next(timeout):
            events += self._read(chunk)
        return _joined(events)

    def close(self) -> None:
        """Stop the answer; a `Finish` with "cancelled" is still delivered to the reader."""
        self._stream.close()

    def __iter__(self) -> Iterator[Event]:
        while not self._finished:
            yield from self.next(timeout=1.0)

    def _read(self, chunk: Chunk) -> list[Event]:
        if self._finished:
            return []
        self.produced += chunk.ids
        events = self._cut(self._parser.feed(chunk.ids))
        if self._finished or chunk.finish is None:
            return events
        events += self._cut(self._parser.finish())
        if self._stop and not self._finished:
            events += self._stop.flush()
        return events if self._finished else [*events, self._finish(chunk.finish, chunk.error)]

    def _cut(self, events: list[Event]) -> list[Event]:
        """End at a stop string. The string itself is not part of the answer."""
        if self._stop is None:
            return events
        out: list[Event] = []
        for event in events:
            out += self._stop.push(event)
            if self._stop.found:
                self._stream.close()
                message = self._parser.message().edited(content=self._stop.text)
                return [*out, replace(self._finish("stop"), message=message)]
        return out

    def _finish(self, reason: str, error: str = "") -> Finish:
        self._finished = True
        message = self._parser.message()
        final: FinishReason = "calls" if reason == "stop" and message.calls else reason  # type: ignore[assignment]
        return Finish(final, message, self.usage, time.monotonic() - self._started, error)


class StopText:
    """Holds back text that may be the start of a stop string; `found` once one is complete."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops, self._held = stops, ""
        self.text, self.found = "", False

    def push(self, event: Event) -> list[Event]:
        if not isinstance(event, Text):
            return [*self.flush(), event]
        self._held += event.text
        at = min((i for s in self._stops if (i := self._held.find(s)) >= 0), default=-1)
        if at >= 0:
            self.found, self._held = True, self._held[:at]
            return self.flush()
        longest = max(map(len, self._stops))
        tail = self._held[-longest:]
        keep = max((n for n in range(1, len(tail) + 1) if self._starts(tail[-n:])), default=0)
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        self.text += out
        return [Text(out)] if out else []

    def flush(self) -> list[Event]:
        out, self._held = self._held, ""
        self.text += out
        return [Text(out)] if out else []

    def _starts(self, text: str) -> bool:
        return any(stop.startswith(text) for stop in self._stops)


def _joined(events: list[Event]) -> list[Event]:
    """Neighbouring texts as one, so that a page draws once for what came together."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, Text) and isinstance(last, Text):
            out[-1] = Text(last.text + event.text)
        else:
            out.append(event)
    return out


def main(argv: list[str] | None = None) -> int:
    """A terminal chat. Empty line or Ctrl-D ends it; `/clear` starts anew."""
    import glm
    from glm.errors import GlmError

    args = sys.argv[1:] if argv is None else argv
    if args[:1] in (["-h"], ["--help"]):
        print("usage: python -m glm.chat [MODEL_FOLDER_OR_ID]\n/clear starts anew, Ctrl-D ends")
        return 0
    try:
        model = glm.open(args[0] if args else None)
    except GlmError as error:
        print(error, file=sys.stderr)
        return 1
    with model:
        _repl(model)
    return 0


def _repl(model: Any) -> None:
    from glm.errors import GlmError
    from glm.messages import Message

    conversation = Conversation()
    while line := _ask():
        if line == "/clear":
            conversation = Conversation()
            continue
        conversation = conversation.add(Message("user", line))
        try:
            for event in model.stream(conversation):
                if isinstance(event, Text):
                    print(event.text, end="", flush=True)
                elif isinstance(event, Finish):
                    print(f"\n{event.error}" if event.error else "")
                    conversation = conversation.add(event.message)
        except GlmError as error:
            print(error)


def _ask() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
