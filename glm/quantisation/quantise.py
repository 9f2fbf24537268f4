"""Quantise a model while it is opened: bitsandbytes int8 and nf4, on CUDA and on the CPU.

    AutoModel.from_pretrained(path, dtype=dtype, **load_options(config, 4, dtype, device))
    finish(model)

Linear modules are quantised; embeddings, norms and the output head stay as they are. The model
cannot be moved or cast afterwards. Checkpoints that are packed already: packed.py. How much it
costs in quality: error.py. Not covered: MPS, and torchao, whose quantisation at load is silently
wrong on the hub's layout (docs/decisions/0007-quantisation.md).
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from glm.errors import CheckpointError

VERSION = "0.50.2"
BITS = (8, 4)
BLOCK = 64  # columns that share a scale in nf4
ROWS = 32  # rows that its CPU kernel takes at once
REPACKS = "support_avx512bf16_for_cpu"  # bitsandbytes' name for it


@cache
def library() -> ModuleType:
    """bitsandbytes, quietly. Raises CheckpointError where it is not installed.

    Where a package `kernels` is installed, bitsandbytes fetches compiled code from the hub as it
    is imported; no code comes from there, so it does not find that package.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    absent = object()
    kernels: Any = sys.modules.get("kernels", absent)
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        import bitsandbytes

        return bitsandbytes
    except ImportError as error:
        raise CheckpointError(
            f"4 and 8 bit need bitsandbytes; pip install bitsandbytes=={VERSION}"
        ) from error
    finally:
        if kernels is absent:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = kernels


def can_quantise(config: Any, bits: int) -> str | None:
    """Why a model cannot be opened in so many bits; None where it can.

    `config` is a checkpoint's config.json as a mapping or a config of transformers.
    """
    if bits not in BITS:
        return f"{bits} bit is not offered; allowed: {', '.join(map(str, BITS))}"
    if bits == 8:
        return None
    inputs, outputs = _widths(config)
    wrong = {width for width in inputs if width % BLOCK}
    wrong |= {width for width in outputs if width % ROWS}
    if wrong:
        return (
            f"4 bit takes rows in blocks of {BLOCK} and {ROWS} rows at once, and this model has "
            f"the widths {', '.join(map(str, sorted(wrong)))}; open it in 8 bit"
        )
    return None


def quantised_config(bits: int, dtype: torch.dtype) -> BitsAndBytesConfig:
    """What transformers is told. `dtype`: what 4 bit weights are unpacked to and computed in."""
    library()
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def load_options(
    config: Any, bits: int, dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """Arguments for from_pretrained. Raises CheckpointError saying what does not go together."""
    reason = can_quantise(config, bits)
    if reason is None and device.type not in ("cpu", "cuda"):
        reason = f"4 and 8 bit run on CUDA and on the CPU, not on {device.type}; use --device cpu"
    if reason:
        raise CheckpointError(reason)
    return {"quantization_config": quantised_config(bits, dtype), "device_map": {"": device}}


def finish(model: torch.nn.Module) -> None:
    """After from_pretrained: int8 modules get a path on which answers do not mix."""
    library()
    from glm.models.int8 import answer_exactly

    answer_exactly(model)


@contextmanager
def as_loaded(model: torch.nn.Module) -> Iterator[None]:
    """Steps within leave the weights as they are.

    Some CPUs pack 4 bit weights anew at the first step, for a faster one; such a model answers
    but cannot be trained.
    """
    modules = [module for _, module in quantised_modules(model)]
    before = [getattr(module, REPACKS, False) for module in modules]
    for module in modules:
        setattr(module, REPACKS, False)
    try:
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            setattr(module, REPACKS, value)


def quantised_modules(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Linear]]:
    """The modules whose weights are quantised, by name."""
    nn = library().nn
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear4bit | nn.Linear8bitLt):
            yield name, module


def dequantised(module: torch.nn.Linear, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The weight a quantised module computes with, (out, in), on its device."""
    bnb = library()
    if isinstance(module, bnb.nn.Linear8bitLt):
        from glm.models import int8

        return int8.dequantised(module, dtype)
    data, state = module.weight.data, module.weight.quant_state
    if getattr(state, "packing_format_for_cpu", False):  # made at the first step on some CPUs
        plain = copy.copy(state)
        plain.original_nested = False
        data, plain = bnb.functional._convert_weight_packed_for_cpu_inverse(data, plain)
        plain.absmax = state.absmax.T.reshape(-1).to(torch.float32)
        state = plain
    out: torch.Tensor = bnb.functional.dequantize_4bit(data, state)
    return out.to(dtype)


def _widths(config: Any) -> tuple[list[int], list[int]]:
    """What the linear modules of a config take in and give out."""

    def first(*names: str) -> int | None:
        for name in names:
            value = config.get(name) if isinstance(config, dict) else getattr(config, name, None)
            if isinstance(value, int):
                return value
        return None

    if not isinstance(config, dict) and hasattr(config, "get_text_config"):
        config = config.get_text_config()
    hidden = first("hidden_size") or BLOCK
    heads = first("num_attention_heads") or 1
    head_dim = first("head_dim", "kv_channels") or hidden // heads
    groups = first("num_key_value_heads", "multi_query_group_num") or heads
    inner = first("intermediate_size", "ffn_hidden_size", "inner_hidden_size") or BLOCK
    inputs = [hidden, inner, heads * head_dim]
    return inputs, [*inputs, groups * head_dim]
