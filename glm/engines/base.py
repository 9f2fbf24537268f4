"""The contract of an engine: submit a request, read chunks, close. Standard library only.

`local.py` runs a model in this process, `fake.py` plays a script for tests; a remote server
fits the same three methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from glm.messages import Sampling, Usage

DEFAULT_SAMPLING = Sampling()
ChunkFinish = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to continue.

    `prompt` are token ids, complete. `stop` are ids that end the answer; the stop id itself is
    delivered as the last id of the stream (a dialect reads it) with finish "stop".
    `owner` is who asks: the queue is fair between owners. `deadline` is in `time.monotonic()`
    seconds. `constraint` limits the next ids; None is free decoding.
    """

    prompt: tuple[int, ...]
    sampling: Sampling = DEFAULT_SAMPLING
    stop: tuple[int, ...] = ()
    adapter: str | None = None
    constraint: Any | None = None
    owner: str = ""
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """New ids in order. The last chunk of a stream has `finish`; with "error", `error` says why."""

    ids: tuple[int, ...] = ()
    finish: ChunkFinish | None = None
    error: str = ""


class Stream(Protocol):
    """What `Engine.submit` returns. All methods are thread-safe; `close` is idempotent."""

    @property
    def usage(self) -> Usage:
        """Token counts so far."""

    def next(self, timeout: float | None = None) -> list[Chunk]:
        """Chunks that arrived, waiting up to `timeout` seconds for the first; [] on timeout.

        After the chunk with `finish` has been returned, always [].
        """

    def close(self) -> None:
        """Stop generating: at most one more step or prefill chunk is computed."""


class Engine(Protocol):
    """Something that continues prompts."""

    @property
    def context(self) -> int:
        """How many tokens prompt and answer may have together."""

    def submit(self, request: Request) -> Stream:
        """Queue a request and return at once.

        Raises BadSampling and PromptTooLong before anything is computed, QueueFull when too
        many wait, EngineError when the engine is closed.
        """

    def close(self) -> None:
        """End the worker; open streams finish with "error"."""


def tokens(chunks: Sequence[Chunk]) -> tuple[int, ...]:
    """All ids of some chunks, joined."""
    return tuple(i for chunk in chunks for i in chunk.ids)
