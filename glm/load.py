"""Open the weights of a recognised checkpoint: device, number type, checks. The only loader.

No remote code, no pickle that is not weights_only, no network. On a CPU, weights that keep the
number type of their file (`dtype="file"`) stay mapped from the disk.
"""

from __future__ import annotations

import gc
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import logging

from glm.checkpoint.families import check_native
from glm.checkpoint.recognise import ModelInfo
from glm.checkpoint.serves import check_serves
from glm.device import free_memory, needs_several, pick_device, pick_dtype
from glm.errors import CheckpointError

# Where transformers looks for an adapter, which it would put on the model unasked: nowhere.
NO_ADAPTER = ".none"
CHECKED_BYTES = 1 << 30  # weights up to this size are scanned for NaN as they are opened

# What matters of the loading report is raised by load_model; the bars are the manager's to show.
logging.set_verbosity_error()
logging.disable_progress_bar()


@dataclass(frozen=True, slots=True)
class Plan:
    """How to open: on `where` (or on `several` cards), as `kind`, quantised to `bits`."""

    where: torch.device
    kind: torch.dtype
    bits: int | None = None
    several: bool = False


def load_model(
    info: ModelInfo, device: str = "auto", dtype: str = "auto", bits: int | None = None
) -> Any:
    """The causal model of a checkpoint, in eval mode, on its device or devices.

    `dtype` is auto, file, or a number type; `bits` 8 or 4 quantises while loading.
    Raises CheckpointError naming the file or weight: missing, truncated, of another shape, not
    finite, a pickle with code in it, too large for the memory, no architecture we run.
    """
    plan = make_plan(info, device, dtype, bits)
    for file in info.weights:
        _check_file(file)
    try:
        model, report = _from_pretrained(info, plan)
        _check_report(info, report)
        if plan.bits is None and plan.where.type != "cuda":
            model = model.to(plan.where)
        model.eval()
        with _finished(model, plan):
            _check_finite(info, model, plan.bits)
            check_serves(info, model)
    except (MemoryError, RuntimeError) as error:  # torch's own out-of-memory is a RuntimeError
        model = None
        _give_back()
        raise _sentence(info, error) from error
    return model


def make_plan(info: ModelInfo, device: str, dtype: str, bits: int | None) -> Plan:
    """Device, number type and cards. Raises CheckpointError when it cannot fit.

    On a CPU without room for a converted copy, `auto` keeps the files' own number type.
    """
    if bits not in (None, 4, 8):
        raise CheckpointError(f"{bits!r} bits are unknown; allowed: 4, 8")
    if bits and info.config.get("quantization_config"):
        raise CheckpointError(f"{info.path} is quantised already; open it without bits")
    where = pick_device(device)
    kind = pick_dtype(dtype, where, info.parameters, info.file_dtype)
    own = pick_dtype("file", where, info.parameters, info.file_dtype)
    if where.type == "cpu" and own == kind and info.file_dtype and not bits:
        return Plan(where, kind)  # mapped, so it takes no memory of its own
    size = info.parameters * (bits / 8 if bits else kind.itemsize)
    several = needs_several(device, int(size))
    free = None if several else free_memory(where)
    if free is None or size <= free:
        return Plan(where, kind, bits, several)
    if dtype == "auto" and where.type == "cpu" and info.file_dtype and not bits:
        return Plan(where, own)
    raise CheckpointError(
        f"not enough memory for {info.name}: it needs about {size / 1e9:.1f} GB, "
        f"{free / 1e9:.1f} GB are free; open it in fewer bits or on another device"
    )


def _from_pretrained(info: ModelInfo, plan: Plan) -> tuple[Any, Any]:
    options: dict[str, Any] = {"dtype": plan.kind, "output_loading_info": True}
    if plan.where.type == "cuda":  # straight to the card, not by way of the memory
        options |= {"device_map": {"": plan.where}}
    if plan.bits:
        from glm.quantisation.quantise import load_options

        options |= load_options(info.config, plan.bits, plan.kind, plan.where)
    if plan.several:
        options |= {"device_map": "auto"}
    try:
        kind, config = _architecture(info)
        if info.packed_bits:
            from glm.quantisation.packed import unpacked_state

            state = unpacked_state(info, plan.kind)
            return kind.from_pretrained(None, config=config, state_dict=state, **options)
        return kind.from_pretrained(
            str(info.path),
            config=config,
            local_files_only=True,
            adapter_kwargs={"subfolder": NO_ADAPTER},
            use_safetensors=info.weights[0].suffix == ".safetensors",
            **options,
        )
    except (ValueError, OSError, KeyError, ImportError, AttributeError, SafetensorError) as error:
        raise _sentence(info, error) from error


def _finished(model: Any, plan: Plan) -> AbstractContextManager[None]:
    """What a quantised model needs after it is opened; steps within leave its weights alone."""
    if plan.bits is None:
        return nullcontext()
    from glm.quantisation import quantise

    quantise.finish(model)
    as_loaded: AbstractContextManager[None] = quantise.as_loaded(model)
    return as_loaded


def _architecture(info: ModelInfo) -> tuple[Any, Any]:
    """The class of the model and its config, for each `arch`."""
    settings = dict(info.config)
    if info.packed_bits:
        settings.pop("quantization_bit")  # unpacked before the model sees them
    if info.arch == "chatglm":
        from glm.models.chatglm import ChatGLMConfig, ChatGLMForCausalLM

        return ChatGLMForCausalLM, ChatGLMConfig.from_dict(settings)
    if info.arch == "chatglm1":
        from glm.models.chatglm1 import ChatGLM1Config, ChatGLM1ForCausalLM

        return ChatGLM1ForCausalLM, ChatGLM1Config.from_dict(settings)
    from transformers import AutoConfig, AutoModelForCausalLM

    check_native(info.config, info.path)
    config = AutoConfig.from_pretrained(
        str(info.path), local_files_only=True, trust_remote_code=False
    )
    if type(config) not in AutoModelForCausalLM._model_mapping:
        kind = info.config.get("model_type")
        raise CheckpointError(f"{info.path}: {kind!r} is no model that continues text")
    return AutoModelForCausalLM, config


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
    """NaN weights: all of a small model, one forward pass of a large or a quantised one."""
    large = sum(p.numel() * p.element_size() for p in model.parameters()) > CHECKED_BYTES
    finite = True
    if large or bits:
        with torch.inference_mode():
            ids = torch.zeros((1, 2), dtype=torch.long, device=next(model.parameters()).device)
            finite = bool(torch.isfinite(model(input_ids=ids).logits).all())
    if large and finite:
        return
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise CheckpointError(f"{info.path}: the weight {name} holds NaN or infinity")
    if bits and not finite:
        raise CheckpointError(f"{info.path} computes NaN or infinity in {bits} bit")


def _give_back() -> None:
    """What a failed load took, so that the model before it has room to answer."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _sentence(info: ModelInfo, error: BaseException) -> CheckpointError:
    text = str(error)
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate" in text:
        gigabytes = info.parameters * 2 / 1e9
        return CheckpointError(
            f"not enough memory for {info.name}: about {gigabytes:.1f} GB in 16 bit "
            f"({_first_line(error) or 'out of memory'})"
        )
    return CheckpointError(f"{info.path} cannot be opened: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
