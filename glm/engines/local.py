"""Answers with a model in this process: many requests share its steps (`glm/scheduler/`).

    engine = LocalEngine(model, context=8192, slots=8, queue=64)
    stream = engine.submit(Request(prompt, Sampling(temperature=0), stop=(2,)))
    while chunks := stream.next(): ...

`model` is a causal model of transformers; the engine does not load, move or convert it.
"""

from __future__ import annotations

import weakref
from typing import Any

from glm.adapters.values import Adapter
from glm.engines.base import Chunk, Request
from glm.errors import BadRequest, PromptTooLong
from glm.messages import Usage
from glm.sampling import validate
from glm.scheduler.job import Job
from glm.scheduler.sampler import Sampler
from glm.scheduler.worker import THREADS, Limits, Scheduler

SMALL = 50_000_000  # parameters below which more threads cost more than they bring


class LocalStream:
    """The answer to one request. Dropping the last reference closes it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        weakref.finalize(self, job.abandon)

    @property
    def usage(self) -> Usage:
        """Token counts so far."""
        return self._job.usage

    def next(self, timeout: float | None = None) -> list[Chunk]:
        """What arrived, waiting up to `timeout` seconds; [] on timeout and after the end."""
        return self._job.read(timeout)

    def close(self) -> None:
        """Stop: at most the step or prefill chunk that is running is still computed."""
        self._job.cancel()


class LocalEngine:
    """Continues prompts with `model`. `limits` are the fields of `scheduler.worker.Limits` by name.

    `context` is the number of tokens that a prompt and its answer may have together; a prefix of
    an adapter takes none of them. Without
    `threads` a small model on the CPU gets 1 (two are no faster) and others torch's own choice.
    """

    def __init__(self, model: Any, *, context: int, **limits: Any) -> None:
        model.eval()
        self.context = context
        self.vocabulary: int = model.get_input_embeddings().num_embeddings
        if limits.get("threads") is None:
            small = sum(p.numel() for p in model.parameters()) < SMALL
            limits["threads"] = 1 if small and model.device.type == "cpu" else THREADS
        self._scheduler = Scheduler(model, Limits(**limits))
        self._finalizer = weakref.finalize(self, self._scheduler.close, 5.0)

    @property
    def computed(self) -> int:
        """How many prompt tokens were computed since the start (reused ones are not)."""
        return self._scheduler.computed

    def submit(self, request: Request) -> LocalStream:
        """Queue a request and return at once.

        Raises BadSampling, PromptTooLong or BadRequest before anything is computed, QueueFull
        when too many wait, EngineError when the engine is closed.
        """
        validate(request.sampling, self.context)
        self._check(request)
        seat = self._scheduler.seats.get(request.adapter)
        limit = min(request.sampling.max_tokens, self.context - len(request.prompt))
        job = Job(request, Sampler(request.sampling, request.constraint), limit, seat)
        self._scheduler.submit(job)
        return LocalStream(job)

    def add_adapter(self, key: str, adapter: Adapter) -> None:
        """Let requests name this adapter as `Request.adapter`, alone or joined by "+" with another.

        A key is never used again for another adapter: caches are kept by it. Raises BadRequest
        when the adapter does not fit the model.
        """
        self._scheduler.seats.add(key, adapter)

    def remove_adapter(self, key: str) -> None:
        """Take an adapter away. Requests that were submitted with it keep it to their end."""
        self._scheduler.remove(key)

    @property
    def model(self) -> Any:
        """What it runs; not to be called while answers are written."""
        return self._scheduler.model

    @property
    def config(self) -> Any:
        """The model's own description, by transformers."""
        return self._scheduler.seats.config

    @property
    def model_bytes(self) -> int:
        """Memory that the weights take, on whatever device; mapped files count."""
        size: int = self._scheduler.seats.model_bytes
        return size

    @property
    def adapter_bytes(self) -> int:
        """Memory that the adapters take."""
        return self._scheduler.seats.bytes()

    def _check(self, request: Request) -> None:
        size = len(request.prompt)
        if not size:
            raise BadRequest("the prompt is empty; send at least one token")
        if size + 1 > self.context:
            raise PromptTooLong(size, self.context)
        for id in request.prompt:
            if type(id) is not int or not 0 <= id < self.vocabulary:
                raise BadRequest(
                    f"{id!r} is not a token of this model; ids are 0 to {self.vocabulary - 1}"
                )

    def close(self) -> None:
        """End the worker after its present step; open streams finish with "error"."""
        self._scheduler.close()
