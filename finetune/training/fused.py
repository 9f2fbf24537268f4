"""What stands around the matrices of a layer, in fewer passes over memory: the same values.

    fuse(model)       # on a CPU 1.2 times as fast: LoRA on a 0.3B in bf16, on the embedded in fp32

Where matrices are multiplied quickly, most of a step goes by in casting, scaling and adding up:
PEFT turns a LoRA's input to fp32 and back and walks three times over its output; the halves of a
gate come back through tensors of zeros; a norm leaves a dozen copies. Here a LoRA is added by its
own product, and what a gate or a norm needs on the way back is computed again.
Modules of a kind not listed (DoRA, a quantised base, other norms) keep their own forward. Not for
parameters that are gathered when their own module is called (ZeRO, FSDP).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.activations import SiLUActivation
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.glm.modeling_glm import (
    GlmAttention,
    GlmMLP,
    GlmRMSNorm,
    eager_attention_forward,
)
from transformers.models.glm4.modeling_glm4 import Glm4Attention, Glm4MLP, Glm4RMSNorm

from glm.models.chatglm import ChatGLMRMSNorm

ATTENTIONS = (GlmAttention, Glm4Attention)
GATES = (GlmMLP, Glm4MLP)
NORMS = (ChatGLMRMSNorm, GlmRMSNorm, Glm4RMSNorm)


def fuse(model: nn.Module) -> int:
    """Replace the forward of all modules that are known; returns how many."""
    count = 0
    for module in model.modules():
        forward = _faster(module)
        if forward is not None:
            module.forward = forward  # type: ignore[method-assign]
            count += 1
    return count


def _faster(module: Any) -> Callable[..., Any] | None:
    if type(module) in NORMS:
        return partial(_norm, module)
    if type(module) in ATTENTIONS:
        return partial(_attention, module, module.forward)
    if type(module) in GATES and isinstance(module.activation_fn, SiLUActivation | nn.SiLU):
        return partial(_mlp, module)
    if _is_plain_lora(module):
        return partial(_lora, module, module.forward)
    return None


# ---- LoRA ----


def _is_plain_lora(module: Any) -> bool:
    """One LoRA on a linear layer: A and B without a bias, no variant of it."""
    adapters = list(getattr(module, "lora_A", ()))
    if len(adapters) != 1 or type(getattr(module, "base_layer", None)) is not nn.Linear:
        return False
    (name,) = adapters
    parts = module.lora_A[name], module.lora_B[name]
    linear = all(type(part) is nn.Linear and part.bias is None for part in parts)
    return linear and not module.lora_variant and not module.base_layer.weight.requires_grad


def _lora(
    module: Any, plain: Callable[..., Tensor], x: Tensor, *rest: Any, **options: Any
) -> Tensor:
    base = module.base_layer
    (name,) = module.lora_A
    off = module.disable_adapters or module.merged or module.active_adapters != [name]
    if off or rest or options or not (x.dtype == base.weight.dtype == _computed_in(x)):
        return plain(x, *rest, **options)
    dropout = module.lora_dropout[name]
    dropped = x if isinstance(dropout, nn.Identity) else dropout(x)
    pair = module.lora_A[name].weight, module.lora_B[name].weight
    frozen = _Frozen(base.weight, base.bias, module.scaling[name])
    out: Tensor = _LoraLinear.apply(frozen, x, dropped, *pair)
    return out


def _computed_in(x: Tensor) -> torch.dtype:
    """The number type of a product with x."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


@dataclass(frozen=True, slots=True)
class _Frozen:
    """What of a LoRA's layer does not learn."""

    weight: Tensor
    bias: Tensor | None
    scale: float


class _LoraLinear(torch.autograd.Function):
    """x W' + b + scale d A' B' of `frozen`, x, d, A and B; d is x or what dropout left of it."""

    @staticmethod
    def forward(ctx: Any, frozen: _Frozen, *parts: Tensor) -> Tensor:
        x, dropped, a, b = parts
        flat, thin = x.flatten(0, -2), dropped.flatten(0, -2)  # (N, in)
        small, wide = a.to(x.dtype), b.to(x.dtype)  # (r, in), (out, r)
        inner = (thin @ small.t()).mul_(frozen.scale)  # (N, r)
        out = nn.functional.linear(flat, frozen.weight, frozen.bias)  # (N, out)
        out.addmm_(inner, wide.t())
        ctx.save_for_backward(thin, inner, frozen.weight, small, wide)
        ctx.scale, ctx.same, ctx.kind = frozen.scale, dropped is x, a.dtype
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        thin, inner, weight, small, wide = ctx.saved_tensors
        flat = grad.flatten(0, -2)  # (N, out)
        inwards = (flat @ wide).mul_(ctx.scale)  # (N, r)
        to_a = (inwards.t() @ thin).to(ctx.kind)
        to_b = (flat.t() @ inner).to(ctx.kind)
        shape = (*grad.shape[:-1], -1)
        _, needs_x, needs_dropped, *_ = ctx.needs_input_grad
        to_x = to_dropped = None
        if needs_x:
            to_x = flat @ weight  # (N, in)
            if ctx.same:
                to_x.addmm_(inwards, small)
            to_x = to_x.view(shape)
        if needs_dropped and not ctx.same:
            to_dropped = (inwards @ small).view(shape)
        return None, to_x, to_dropped, to_a, to_b


# ---- rotary positions ----


def _attention(
    module: Any,
    plain: Callable[..., Any],
    hidden_states: Tensor,
    position_embeddings: Any = None,
    **options: Any,
) -> Any:
    """The library's own, but for the rotation; with a cache it is the library's own."""
    if options.get("past_key_values") is not None:
        return plain(hidden_states, position_embeddings=position_embeddings, **options)
    options.pop("past_key_values", None)
    mask = options.pop("attention_mask", None)
    shape = hidden_states.shape[:-1]
    query, key, value = (
        project(hidden_states).view(*shape, -1, module.head_dim).transpose(1, 2)
        for project in (module.q_proj, module.k_proj, module.v_proj)
    )  # (B, H, T, D), (B, G, T, D) twice
    half = position_embeddings[0].shape[-1] // 2
    cos, sin = (table[:, None, :, :half] for table in position_embeddings)  # (B, 1, T, R / 2)
    query, key = _Rotation.apply(query, cos, sin), _Rotation.apply(key, cos, sin)
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(
        module.config._attn_implementation, eager_attention_forward
    )
    dropout = module.attention_dropout if module.training else 0.0
    how = {"dropout": dropout, "scaling": module.scaling, **options}
    out, weights = attend(module, query, key, value, mask, **how)
    return module.o_proj(out.reshape(*shape, -1).contiguous()), weights


class _Rotation(torch.autograd.Function):
    """Pairs of neighbours among the first R columns turned by their angles; the rest stays."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        return _rotated(grad, cos, -sin), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    out = x.clone()
    width = 2 * cos.shape[-1]
    even, odd = x[..., 0:width:2], x[..., 1:width:2]
    torch.mul(even, cos, out=out[..., 0:width:2]).addcmul_(odd, sin, value=-1)
    torch.mul(odd, cos, out=out[..., 1:width:2]).addcmul_(even, sin)
    return out


# ---- the gate ----


def _mlp(module: Any, hidden: Tensor) -> Tensor:
    out: Tensor = module.down_proj(_Gate.apply(module.gate_up_proj(hidden)))
    return out


class _Gate(torch.autograd.Function):
    """silu(the first half) times the second."""

    @staticmethod
    def forward(ctx: Any, joined: Tensor) -> Tensor:
        ctx.save_for_backward(joined)
        gate, up = joined.chunk(2, -1)
        return nn.functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (joined,) = ctx.saved_tensors
        gate, up = joined.chunk(2, -1)
        out = torch.empty_like(joined)
        to_gate, to_up = out.chunk(2, -1)
        torch.mul(nn.functional.silu(gate), grad, out=to_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=to_gate)
        return out


# ---- the norm ----


def _norm(module: Any, hidden: Tensor) -> Tensor:
    late = isinstance(module, ChatGLMRMSNorm)
    out: Tensor = _Norm.apply(hidden, module.weight, module.variance_epsilon, late)
    return out


class _Norm(torch.autograd.Function):
    """RMSNorm in fp32; `late` casts after the weight, as ChatGLM does, not before it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, late: bool) -> Tensor:
        wide = x.to(torch.float32, copy=True)  # (..., D)
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)  # (..., 1)
        ctx.save_for_backward(x, weight, scale)
        wide.mul_(scale)
        return wide.mul_(weight).to(x.dtype) if late else wide.to(x.dtype) * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, scale = ctx.saved_tensors
        wide, grad = x.float(), grad.float()
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = (grad * wide).mul_(scale).flatten(0, -2).sum(0).to(weight.dtype)
        inner = grad * weight
        share = (inner * wide).mean(-1, keepdim=True).mul_(scale**3)
        return inner.mul_(scale).addcmul_(wide, share, value=-1).to(x.dtype), to_weight, None, None
