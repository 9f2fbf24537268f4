"""An engine that plays a script, for tests and for pages without a model.

It keeps the whole contract: one id per chunk, stop ids, max_tokens, close, deadlines, adapters.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from glm.engines.base import Chunk, ChunkFinish, Request
from glm.errors import AdapterGone, BadRequest, EngineError, PromptTooLong
from glm.messages import Usage

Answer = Sequence[int] | BaseException
Script = Iterable[Answer] | Callable[[Request], Answer]


class FakeEngine:
    """Answers requests with the ids of a script, in order (or by a function of the request).

    An exception in the script is the answer of a model that fails. `seen` keeps the requests,
    `adapters` what was added by its key. `pause` is the time between two ids, in seconds.
    """

    def __init__(self, script: Script, context: int = 4096, pause: float = 0.0) -> None:
        self._answer = script if callable(script) else _in_order(iter(script))
        self.context, self.pause = context, pause
        self.seen: list[Request] = []
        self.adapters: dict[str, Any] = {}
        self.closed = False

    def submit(self, request: Request) -> FakeStream:
        """Start playing the next answer."""
        if self.closed:
            raise EngineError("the engine is closed")
        if not request.prompt:
            raise BadRequest("the prompt is empty")
        if len(request.prompt) + 1 > self.context:
            raise PromptTooLong(len(request.prompt), self.context)
        for key in request.adapter.split("+") if request.adapter else ():
            if key not in self.adapters:
                raise AdapterGone(f"the adapter {key} is not in memory")
        self.seen.append(request)
        return FakeStream(request, self._answer(request), self.pause)

    def add_adapter(self, key: str, adapter: Any) -> None:
        """Let requests name it."""
        self.adapters[key] = adapter

    def remove_adapter(self, key: str) -> None:
        """From now on a request that names it is refused."""
        self.adapters.pop(key, None)

    def close(self) -> None:
        self.closed = True


def _in_order(answers: Iterable[Answer]) -> Callable[[Request], Answer]:
    waiting = iter(answers)
    return lambda request: next(waiting, ())


class FakeStream:
    """One played answer."""

    def __init__(self, request: Request, answer: Answer, pause: float) -> None:
        self._request, self._pause = request, pause
        self._error = answer if isinstance(answer, BaseException) else None
        self._ids = deque(() if isinstance(answer, BaseException) else answer)
        self._done = False
        self._closed = threading.Event()
        self.usage = Usage(prompt=len(request.prompt))

    def next(self, timeout: float | None = None) -> list[Chunk]:
        if self._done:
            return []
        if self._pause and self._ids and not self._closed.is_set():
            wait = self._pause if timeout is None else min(self._pause, timeout)
            self._closed.wait(wait)
        if self._closed.is_set():
            return [self._end("cancelled")]
        if self._error is not None:
            return [self._end("error", str(self._error))]
        deadline = self._request.deadline
        if deadline is not None and time.monotonic() > deadline:
            return [self._end("cancelled")]
        if not self._ids:
            return [self._end("stop")]
        token = self._ids.popleft()
        self.usage = Usage(self.usage.prompt, 0, self.usage.new + 1)
        if token in self._request.stop:
            return [Chunk((token,)), self._end("stop")]
        if self.usage.new >= self._request.sampling.max_tokens:
            return [Chunk((token,)), self._end("length")]
        return [Chunk((token,))]

    def close(self) -> None:
        self._closed.set()

    def _end(self, finish: ChunkFinish, error: str = "") -> Chunk:
        self._done = True
        return Chunk((), finish, error)
