"""A random native Glm model for engine tests, a watch on its steps, and the answers to expect."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GlmConfig, GlmForCausalLM

from glm.engines.base import Chunk, Stream
from glm.engines.local import LocalEngine
from glm.messages import Sampling

CONTEXT = 512
VOCABULARY = 96
Make = Callable[..., LocalEngine]
GREEDY = Sampling(temperature=0, max_tokens=24)


def greedy(count: int) -> Sampling:
    return Sampling(temperature=0, max_tokens=count)


def tiny_glm(seed: int = 0, **changes: Any) -> GlmForCausalLM:
    """2 layers, hidden 64. The weights are scaled up so that answers vary."""
    torch.manual_seed(seed)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    config = GlmConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        attention_bias=True,
        max_position_embeddings=CONTEXT,
        rope_parameters=rope,
        pad_token_id=0,
        eos_token_id=None,
        bos_token_id=None,
        initializer_range=0.2,
        **changes,
    )
    return GlmForCausalLM(config).eval()


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed + 1000 * length)
    return tuple(torch.randint(3, VOCABULARY, (length,), generator=generator).tolist())


def generated(model: GlmForCausalLM, ids: Sequence[int], count: int, **options: Any) -> list[int]:
    """The greedy continuation by transformers' own generate()."""
    given = torch.tensor([list(ids)])
    out = model.generate(
        given,
        attention_mask=torch.ones_like(given),
        max_new_tokens=count,
        do_sample=False,
        **options,
    )
    return out[0, len(ids) :].tolist()


@dataclass
class Answer:
    ids: list[int] = field(default_factory=list)
    last: Chunk = field(default_factory=Chunk)


def read(stream: Stream, timeout: float = 20) -> Answer:
    """The whole answer; fails when nothing comes for `timeout` seconds."""
    answer = Answer()
    while answer.last.finish is None:
        chunks = stream.next(timeout)
        assert chunks, "the stream hangs"
        for chunk in chunks:
            answer.ids += chunk.ids
            answer.last = chunk
    return answer


class Steps:
    """Watches the forward calls of a model: (rows, positions) each. Can hold them and fail them."""

    def __init__(self, model: GlmForCausalLM) -> None:
        self.seen: list[tuple[int, int]] = []
        self.errors: list[Exception | None] = []
        self._held = False
        self._permits = threading.Semaphore(0)
        self._begun = threading.Semaphore(0)
        model.register_forward_pre_hook(self._before, with_kwargs=True)

    def hold(self) -> None:
        """From now on each step waits for `allow`."""
        self._held = True

    def begun(self) -> None:
        """Wait until one more step has begun."""
        assert self._begun.acquire(timeout=20), "no step begins"

    def allow(self, count: int = 1) -> None:
        self._permits.release(count)

    def free(self) -> None:
        """Hold no longer."""
        self._held = False
        self._permits.release()

    def _before(self, _: Any, __: Any, arguments: dict[str, Any]) -> None:
        rows, positions = arguments["input_ids"].shape
        self.seen.append((rows, positions))
        self._begun.release()
        if self._held:
            assert self._permits.acquire(timeout=20)
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
