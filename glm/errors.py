"""Every error a user can meet.

GlmError                     anything below; str(error) is one sentence that says what to do
├── BadRequest               the input is refused before anything is computed        (HTTP 400)
│   ├── BadSampling          a sampling value is out of range
│   ├── PromptTooLong        more tokens than the context holds; carries both numbers
│   └── AdapterGone          the request names an adapter that is not in memory
├── CheckpointError          a model folder, file or hub id cannot be opened; names the file
│   └── AlphaNeeded          a bare adapter file, whose alpha somebody must say once
├── NotReady                 no model is loaded (yet)                                (HTTP 503)
├── QueueFull                too many waiting requests; carries retry_after seconds  (HTTP 429)
├── EngineError              the model failed while it answered                      (HTTP 500)
├── ToolError                a sentence for the model: unknown tool, bad argument
├── NotFound                 no such conversation, or not yours                      (HTTP 404)
├── NotAllowed               the operator's business                                 (HTTP 403)
└── StoreError               the database cannot be opened or written
"""

from __future__ import annotations


class GlmError(Exception):
    """Base of all errors with a sentence for the user."""


class BadRequest(GlmError):
    """The input is refused before anything is computed."""


class BadSampling(BadRequest):
    """A sampling value is out of range; the sentence names the field and the range."""


class PromptTooLong(BadRequest):
    """The prompt (plus at least one new token) does not fit the context."""

    def __init__(self, prompt: int, context: int) -> None:
        self.prompt, self.context = prompt, context
        super().__init__(
            f"the prompt has {prompt} tokens and the model's context holds {context}; "
            "shorten the conversation or start a new one"
        )


class AdapterGone(BadRequest):
    """No adapter of that key is in memory (any more)."""


class CheckpointError(GlmError):
    """A model folder, file or hub id cannot be opened."""


class AlphaNeeded(CheckpointError):
    """A LoRA file without adapter_config.json; carries the rank, to choose alpha beside it."""

    def __init__(self, file: str, rank: int) -> None:
        self.file, self.rank = file, rank
        super().__init__(
            f"{file} does not say its alpha; its rank is {rank}: give the lora_alpha it was "
            "trained with (the official scripts' and transformers_tasks' is 32), once"
        )


class NotReady(GlmError):
    """No model is loaded, or it is still loading."""


class QueueFull(GlmError):
    """Too many requests wait; try again after `retry_after` seconds."""

    def __init__(self, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(f"the queue is full; try again in {retry_after:.0f} s")


class EngineError(GlmError):
    """The model failed while it answered."""


class ToolError(GlmError):
    """A sentence for the model about a call that cannot be carried out."""


class NotFound(GlmError):
    """No such thing, or it belongs to somebody else."""


class NotAllowed(GlmError):
    """Only the operator may do this."""


class StoreError(GlmError):
    """The database cannot be opened or written."""
