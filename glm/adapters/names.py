"""Module names of adapters in the native model's terms, whoever wrapped the model around them."""

from __future__ import annotations

import re

from glm.adapters.sizes import FAMILY, V1, Sizes
from glm.errors import CheckpointError

_WRAPPERS = ("module.", "_orig_mod.", "base_model.model.")
_ORIGINAL = {
    "self_attention.dense": "self_attn.o_proj",
    "mlp.dense_h_to_4h": "mlp.gate_up_proj",
    "mlp.dense_4h_to_h": "mlp.down_proj",
}
FUSED = "self_attention.query_key_value"
_LAYER = re.compile(r"transformer\.encoder\.layers\.(\d+)\.(.+)")
_V1 = re.compile(r"transformer\.layers\.\d+\..+")


def unwrapped(name: str) -> str:
    """Without what DataParallel, torch.compile and PEFT put in front of (and between) it."""
    name = name.replace("._orig_mod.", ".")
    while found := next((word for word in _WRAPPERS if name.startswith(word)), None):
        name = name[len(found) :]
    return name


def native(name: str, sizes: Sizes) -> tuple[str, ...]:
    """The native modules of an unwrapped name: one, or q, k and v of a query_key_value.

    Raises CheckpointError for a name of another architecture of the family.
    """
    original = _LAYER.fullmatch(name)
    if _V1.fullmatch(name) and sizes.kind != V1:
        raise CheckpointError(f"{name} is a layer of ChatGLM-6B (v1), this model is {sizes.kind}")
    if not original and name != "transformer.output_layer":
        return (name,)
    if sizes.kind not in FAMILY:
        raise CheckpointError(f"{name} is a layer of ChatGLM2/3, this model is {sizes.kind}")
    if not original:
        return ("lm_head",)
    layer, rest = f"model.layers.{original[1]}", original[2]
    if rest == FUSED:
        return tuple(f"{layer}.self_attn.{part}_proj" for part in "qkv")
    return (f"{layer}.{_ORIGINAL.get(rest, rest)}",)
