"""Whether a model of transformers answers rightly on the engine's own cache (scheduler/rows.py).

The engine gives positions, a mask and a cache, and calls forward. Architectures of the table were
compared token by token with generate(); any other is tried once as it is opened: a few ids read
in pieces must give what they give read as a whole. So state-space, encoder and other models
that keep more than keys and values are refused and never answer wrongly.
"""

from __future__ import annotations

from typing import Any

import torch

from glm.checkpoint.recognise import ModelInfo
from glm.errors import CheckpointError
from glm.scheduler.rows import Rows

COMPARED = {"chatglm", "glm", "glm4", "glm4_moe", "llama", "qwen2", "qwen3"}
ENOUGH = 0.02  # relative distance of two ways to compute the same logits, rounding of bf16 apart


def check_serves(info: ModelInfo, model: Any) -> None:
    """Raises CheckpointError when the engine cannot run this architecture."""
    kind = str(info.config.get("model_type"))
    if kind in COMPARED:
        return
    try:
        with torch.inference_mode():
            distance = _distance(model)
    except (TypeError, AttributeError, ValueError, IndexError, KeyError, RuntimeError) as error:
        if "out of memory" in str(error):
            raise
        raise CheckpointError(
            f"{info.path}: the engine cannot run model_type {kind!r} ({error})"
        ) from error
    if not distance <= ENOUGH * (1 if model.dtype == torch.float32 else 4):
        raise CheckpointError(
            f"{info.path}: model_type {kind!r} keeps a state that the engine does not, so it "
            "would answer wrongly"
        )


def _distance(model: Any) -> float:
    """How far the logits after 6 ids are from those read as 3, 2 and 1."""
    device = next(model.parameters()).device
    ids = torch.arange(1, 7, device=device)[None] % model.get_input_embeddings().num_embeddings
    whole = model(input_ids=ids, use_cache=False).logits[:, -1].float()
    rows, parts = Rows(), torch.empty(0)
    rows.reserve(1, 6)
    for start, stop in ((0, 3), (3, 5), (5, 6)):
        positions = torch.arange(start, stop, device=device)
        mask = None
        if start and stop - start > 1:
            hidden = torch.arange(stop, device=device) > positions[:, None]
            mask = torch.zeros(hidden.shape, dtype=model.dtype, device=device)
            mask = mask.masked_fill_(hidden, torch.finfo(mask.dtype).min)[None, None]
        parts = model(
            input_ids=ids[:, start:stop],
            position_ids=positions[None],
            attention_mask=mask,
            past_key_values=rows.one(0, start, stop),
            use_cache=False,
        ).logits[:, -1]
    difference = (parts.float() - whole).norm() / whole.norm().clamp(min=1e-9)
    return float(difference)
