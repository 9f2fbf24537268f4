"""The loss with the head on learnt positions only: the same value and gradients, far fewer logits.

    if not learn_only(model):         # from now on model(..., labels=...) gives the loss alone
        print("this model scales its logits; the whole head runs")

Of a row with tools a sixth is learnt, and the head of a small model with a large vocabulary is
most of its work. Many learnt positions go through in chunks whose logits are made again on the way
back, so memory is bounded. Works under PEFT, DDP, DeepSpeed and FSDP, since the model's own forward
is replaced, not the way to it. Without labels the model answers as before. Not covered: models that
scale or cap their logits after the head, and what a mixture of experts adds to the loss.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import CausalLMOutputWithPast

from finetune.layouts.example import NOT_LEARNT

MOST_LOGITS = 2**26  # at once; 256 MB in fp32
# What models do to their logits between head and loss, by the names in their configs.
_SCALES = (
    "final_logit_softcapping",
    "lm_head_multiplier",
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
)


def learn_only(model: Any, most: int = MOST_LOGITS) -> bool:
    """Replace the forward of a causal model, wrapped or not. False: it cannot be, and is not."""
    causal = unwrapped(model)
    head = causal.get_output_embeddings() if hasattr(causal, "get_output_embeddings") else None
    body = getattr(causal, "base_model", causal)
    if head is None or body is causal or _changes_logits(causal.config):
        return False
    plain = causal.forward

    @functools.wraps(plain)
    def forward(*arguments: Any, **options: Any) -> Any:
        labels = options.pop("labels", None)
        if labels is None:
            return plain(*arguments, **options)
        count = options.pop("num_items_in_batch", None)
        options |= {"use_cache": False, "return_dict": True}
        options.pop("logits_to_keep", None)
        hidden = body(*arguments, **options).last_hidden_state
        return CausalLMOutputWithPast(loss=learnt_loss(hidden, labels, head, count, most))

    causal.forward = forward
    return True


def learnt_loss(
    hidden: Tensor,
    labels: Tensor,
    head: nn.Module,
    count: Tensor | int | None = None,
    most: int = MOST_LOGITS,
) -> Tensor:
    """Cross entropy of hidden states (B, T, D) and labels (B, T) that are not shifted.

    The sum over what is learnt divided by `count`, else by how many these are; 0 for none. At
    most so many logits stand in memory at once.
    """
    told = labels[:, 1:].to(hidden.device)
    keep = told != NOT_LEARNT
    states, wanted = hidden[:, :-1][keep], told[keep]  # (N, D), (N,)
    if not len(wanted):  # still a function of all parameters, for those who gather gradients
        nothing: Tensor = head(hidden[:, :1]).float().sum() * 0.0
        return nothing
    total = _sum(states, wanted, head, most)
    if isinstance(count, Tensor):
        count = count.to(total.device)
    return total / (len(wanted) if count is None else count)


def unwrapped(model: Any) -> Any:
    """The causal model inside PEFT and inside what trains on many devices."""
    while True:
        if hasattr(model, "get_base_model"):
            model = model.get_base_model()
        elif isinstance(getattr(model, "module", None), nn.Module):
            model = model.module
        else:
            return model


def _sum(states: Tensor, wanted: Tensor, head: nn.Module, most: int) -> Tensor:
    size = max(most // _vocabulary(head), 1)
    if len(wanted) <= size:
        return _entropy(states, wanted, head)
    total = states.new_zeros((), dtype=torch.float32)
    for at in range(0, len(wanted), size):
        part = states[at : at + size], wanted[at : at + size], head
        if torch.is_grad_enabled():
            total = total + checkpoint(_entropy, *part, use_reentrant=False)
        else:
            total = total + _entropy(*part)
    return total


def _entropy(states: Tensor, wanted: Tensor, head: nn.Module) -> Tensor:
    logits: Tensor = head(states).float()
    return nn.functional.cross_entropy(logits, wanted, reduction="sum")


def _vocabulary(head: nn.Module) -> int:
    size = getattr(head, "out_features", None)
    return int(size) if size else 1 << 16


def _changes_logits(config: Any) -> bool:
    text = config.get_text_config()
    scaled = any(getattr(text, name, None) not in (None, 1, 1.0) for name in _SCALES)
    return scaled or bool(getattr(text, "output_router_logits", False))
