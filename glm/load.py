"""Open the weights of a recognised checkpoint: device, dtype, checks. The only loader.

No remote code, no pickle that is not weights_only, no network.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import logging

from glm import quantise
from glm.errors import CheckpointError
from glm.models.chatglm import ChatGLMConfig, ChatGLMForCausalLM
from glm.packed import packed_bits, unpacked_state, without_packing
from glm.recognise import ModelInfo

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SHORT = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
SMALL = 300_000_000  # below this many parameters fp32 is the faster and exact choice on a CPU
CHECKED_BYTES = 1 << 30  # weights up to this size are scanned for NaN as they are opened

# What matters of the loading report is raised by load_model; the bars are the manager's to show.
logging.set_verbosity_error()
logging.disable_progress_bar()


def pick_device(wanted: str = "auto") -> torch.device:
    """`auto` is CUDA, then MPS, then the CPU. Raises CheckpointError for a device not here."""
    have = ["cpu"]
    if torch.backends.mps.is_available():
        have.insert(0, "mps")
    if torch.cuda.is_available():
        have.insert(0, "cuda")
    if wanted == "auto":
        return torch.device(have[0])
    if wanted.split(":")[0] not in have:
        raise CheckpointError(f"device {wanted!r} is not here; available: {', '.join(have)}")
    return torch.device(wanted)


def pick_dtype(wanted: str, device: torch.device, parameters: int) -> torch.dtype:
    """`auto`: fp32 for small models on a CPU; bf16 where the device computes it, else fp16."""
    if wanted != "auto":
        name = SHORT.get(wanted, wanted)
        if name not in DTYPES:
            raise CheckpointError(
                f"dtype {wanted!r} is unknown; allowed: auto, {', '.join(DTYPES)}"
            )
        return DTYPES[name]
    if device.type == "cpu":
        return torch.float32 if parameters < SMALL else torch.bfloat16
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float16
    return torch.float16 if device.type == "mps" else torch.bfloat16


def load_model(
    info: ModelInfo, device: str = "auto", dtype: str = "auto", bits: int | None = None
) -> ChatGLMForCausalLM:
    """The model of a checkpoint, in eval mode, on its device; with `bits` quantised as it loads.

    Packed int4 and int8 checkpoints are unpacked, and quantised anew if `bits` says so. Raises
    CheckpointError naming the file or weight: missing, truncated, of another shape, not finite,
    a pickle with code in it, or too large for the memory.
    """
    where = pick_device(device)
    kind = pick_dtype(dtype, where, info.parameters)
    for file in info.weights:
        _check_file(file)
    options = quantise.load_options(info.config, bits, kind, where) if bits else {}
    model, report = _from_pretrained(info, kind, options)
    _check_report(info, report)
    try:
        if bits:
            quantise.finish(model)
        else:
            model = model.to(where)
    except (RuntimeError, MemoryError) as error:
        raise CheckpointError(_no_memory(info, error)) from error
    model = model.eval()
    _check_finite(info, model, bits)
    return model


def _from_pretrained(
    info: ModelInfo, kind: torch.dtype, options: dict[str, Any]
) -> tuple[ChatGLMForCausalLM, Any]:
    try:
        path: str | None = str(info.path)
        if packed_bits(info.config):
            path, options = None, {**options, "state_dict": unpacked_state(info, kind)}
        config = ChatGLMConfig.from_dict(without_packing(info.config))
        return ChatGLMForCausalLM.from_pretrained(
            path,
            config=config,
            dtype=kind,
            local_files_only=True,
            output_loading_info=True,
            use_safetensors=info.weights[0].suffix == ".safetensors",
            **options,
        )
    except MemoryError as error:
        raise CheckpointError(_no_memory(info, error)) from error
    except (RuntimeError, ValueError, OSError, KeyError, SafetensorError) as error:
        if "out of memory" in str(error) or "can't allocate" in str(error):
            raise CheckpointError(_no_memory(info, error)) from error
        raise CheckpointError(f"{info.path} cannot be opened: {_first_line(error)}") from error


def _check_file(file: Path) -> None:
    """A torn, foreign or dangerous file is refused by its name before the model is built."""
    if file.suffix == ".safetensors":
        try:
            with safe_open(str(file), framework="pt"):
                return
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is damaged or cut off: {error}") from error
    try:
        torch.load(file, map_location="meta", weights_only=True, mmap=True)
    except Exception as error:  # border: any bytes may stand in this file
        reason = "it holds more than tensors" if "nsupported" in str(error) else "it is damaged"
        raise CheckpointError(
            f"{file} is refused: {reason} ({_first_line(error)}); convert it to safetensors"
        ) from error


def _check_report(info: ModelInfo, report: Any) -> None:
    faults = (
        ("lacks", sorted(report["missing_keys"])),
        ("has another shape for", sorted(str(key) for key in report["mismatched_keys"])),
        ("has weights of another architecture:", sorted(report["unexpected_keys"])),
    )
    for verb, names in faults:
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(f"{info.path} {verb} {', '.join(names[:3])}{more}")


def _check_finite(info: ModelInfo, model: torch.nn.Module, bits: int | None) -> None:
    """NaN weights: all of a small model, one forward pass of a large or quantised one."""
    large = sum(p.numel() * p.element_size() for p in model.parameters()) > CHECKED_BYTES
    finite = True
    if large or bits:
        with torch.inference_mode(), quantise.as_loaded(model) if bits else nullcontext():
            ids = torch.zeros((1, 2), dtype=torch.long, device=next(model.parameters()).device)
            finite = bool(torch.isfinite(model(input_ids=ids).logits).all())
    if large and finite:
        return
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise CheckpointError(f"{info.path}: the weight {name} holds NaN or infinity")
    if not finite and bits:
        raise CheckpointError(f"{info.path} computes NaN or infinity in {bits} bit")


def _no_memory(info: ModelInfo, error: BaseException) -> str:
    gigabytes = info.parameters * 2 / 1e9
    return (
        f"not enough memory for {info.name}: about {gigabytes:.1f} GB in 16 bit "
        f"({_first_line(error) or 'out of memory'})"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
