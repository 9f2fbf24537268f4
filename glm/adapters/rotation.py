"""Rotary positions of prefix keys, needed only at the border to PEFT's files.

The official P-Tuning v2 leaves real tokens at 0, 1, ...; PEFT moves them behind its P virtual
tokens. Attention sees differences of positions, so a key k there is R(-P) k here.
"""

from __future__ import annotations

from typing import Any

import torch

from glm.errors import CheckpointError

# model_type -> whether a pair of rotated numbers lies side by side or half a head apart
PAIRED = {
    **dict.fromkeys(("chatglm", "glm", "glm4"), True),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "glm4_moe"), False),
}
TYPES = ("default", "linear", "llama3", "yarn")


def rotated(keys: torch.Tensor, config: Any, positions: int) -> torch.Tensor:
    """`keys` (..., head dim) turned by so many positions (negative: back), in their dtype.

    Raises CheckpointError for architectures whose rotation is not known here.
    """
    frequencies = _frequencies(config)
    angle = positions * frequencies.double()
    cos, sin = angle.cos(), angle.sin()
    turned = keys.double().clone()
    size = 2 * len(frequencies)
    if PAIRED[config.model_type]:
        x, y = turned[..., 0:size:2].clone(), turned[..., 1:size:2].clone()
        turned[..., 0:size:2], turned[..., 1:size:2] = x * cos - y * sin, y * cos + x * sin
    else:
        x, y = turned[..., : size // 2].clone(), turned[..., size // 2 : size].clone()
        turned[..., : size // 2], turned[..., size // 2 : size] = (
            x * cos - y * sin,
            y * cos + x * sin,
        )
    return turned.to(keys.dtype)


def _frequencies(config: Any) -> torch.Tensor:
    """Radians a position, (rotated dims / 2,)."""
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    if config.model_type not in PAIRED or "rope_theta" not in rope or kind not in TYPES:
        raise CheckpointError(
            f"a PEFT prefix of {config.model_type} ({kind} positions) cannot be converted; "
            f"known are {', '.join(PAIRED)} with {', '.join(TYPES)} positions"
        )
    if kind in ("llama3", "yarn"):
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        return ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))[0]
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size = int(head * rope.get("partial_rotary_factor", 1.0))
    steps = torch.arange(0, size, 2, dtype=torch.float) / size
    return 1.0 / (rope["rope_theta"] ** steps) / (rope["factor"] if kind == "linear" else 1.0)
