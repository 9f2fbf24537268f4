"""Tiny models to train, batches for them, and their losses and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from finetune.batches.collate import Row
from finetune.layouts import NOT_LEARNT, Example
from tests.tiny_chatglm1 import GMASK, SOP
from tests.tiny_glm import VOCABULARY, tiny_glm

LENGTHS = (9, 17, 5, 12, 30)


def rows(lengths: Sequence[int] = LENGTHS, v1: bool = False) -> list[Row]:
    """Random rows whose second half is learnt; of ChatGLM-6B (v1) the part behind sop."""
    source = torch.Generator().manual_seed(3)
    out = []
    for length in lengths:
        ids = torch.randint(4, 50 if v1 else VOCABULARY, (length,), generator=source).tolist()
        half = length // 2
        if v1:
            ids[half - 2 : half] = [GMASK, SOP]
        labels = [NOT_LEARNT] * half + ids[half:]
        out.append(Row.of(Example(tuple(ids), tuple(labels))))
    return out


def train_glm(**changes: Any) -> Any:
    return tiny_glm(**changes).train()


def loss_and_gradients(
    model: Any, batches: Sequence[dict[str, Any]]
) -> tuple[Tensor, list[Tensor]]:
    """The mean loss over all that is learnt in the batches, and its gradients."""
    model.zero_grad()
    count = sum(int((batch["labels"][:, 1:] != NOT_LEARNT).sum()) for batch in batches)
    total = torch.zeros(())
    for batch in batches:
        here = int((batch["labels"][:, 1:] != NOT_LEARNT).sum())
        loss = model(**{"use_cache": False} | batch).loss * here / count
        loss.backward()
        total = total + loss.detach()
    found = [(n, p.grad.clone()) for n, p in model.named_parameters() if p.grad is not None]
    return total, [gradient for _, gradient in sorted(found, key=lambda pair: pair[0])]


def apart(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The largest difference between two lists of gradients."""
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))
