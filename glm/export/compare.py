"""Loads what was written and compares it with the source: tensors exactly, logits within rounding.

Models are opened one after the other, never two at once. The reference runs the adapter beside
the weights, `W x + scale B (A x)`, so that the merge itself is under test.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from glm.adapters.values import LoraPart
from glm.checkpoint.recognise import recognise
from glm.errors import CheckpointError
from glm.export.source import Source, model_config
from glm.export.tensors import Planned, Weights
from glm.export.values import AUTO, Progress, Verdict
from glm.load import load_model, pick_device, pick_dtype

FIXED = 24  # ids that are asked
# The largest difference allowed, as a part of the largest logit, by the coarsest type involved.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2}
_BARS = 200  # reports of one pass at most


def folder(
    source: Source,
    written: Path,
    plan: Sequence[Planned],
    progress: Progress,
    plain: bool = False,
) -> Verdict:
    """Compare a written folder. `plain` opens it with transformers as others would, else with us.

    Raises CheckpointError when it differs.
    """
    count = tensors(written, plan, progress)
    progress("comparing answers", None)
    kind = pick_dtype("auto", pick_device(), source.info.parameters)
    rounded = bool(source.lora) or source.dtype != AUTO
    coarse = {kind, *(source.stored(name) for name in source.names if rounded)}
    try:
        ours = _logits(source, _load(source.info, kind), source.lora)
        model = _plain(written, kind) if plain else _load(recognise(written), kind)
        theirs = _logits(source, model, {})
    except CheckpointError as error:
        if "not enough memory" not in str(error):
            raise
        note = f"answers were not compared: {error}"
        return Verdict(count, source.dtypes(), notes=(note,))
    allowed = max(TOLERANCE.get(dtype, 1e-4) for dtype in coarse) * float(ours.abs().max())
    difference = float((ours - theirs).abs().max())
    if not difference <= allowed:
        raise CheckpointError(
            f"the written model answers differently: logits differ by {difference:.2g}, "
            f"{allowed:.2g} is rounding; nothing was kept"
        )
    return Verdict(count, source.dtypes(), difference, allowed)


def tensors(written: Path, plan: Sequence[Planned], progress: Progress) -> int:
    """How many tensors were compared, bit by bit. Raises CheckpointError for one that differs."""
    found = Weights(sorted(written.glob("*.safetensors")))
    strange = set(found) ^ {item.name for item in plan}
    if strange:
        raise CheckpointError(f"{sorted(strange)[0]} is written or planned, but not both")
    said = bar(progress, "comparing", sum(item.bytes for item in plan))
    done = 0
    for item in plan:
        if not same(item.value(), found.rows(item.name)):
            raise CheckpointError(f"{item.name} was not written as it is; nothing was kept")
        done += item.bytes
        said(done, 0)
    return len(plan)


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equal in type, shape and every bit."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    ours, theirs = (t.contiguous().reshape(-1).view(torch.uint8) for t in (left, right))
    return torch.equal(ours, theirs)


def bar(progress: Progress, text: str, total: int) -> Callable[[int, int], None]:
    """Progress by bytes, said at most some hundred times."""
    last = [-1]

    def said(done: int, of: int) -> None:
        part = min(1.0, done / max(total, 1))
        if int(part * _BARS) != last[0]:
            last[0] = int(part * _BARS)
            progress(text, part)

    return said


def _load(info: Any, kind: torch.dtype) -> Any:
    return load_model(info, dtype=str(kind).removeprefix("torch."))


def _plain(written: Path, kind: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(written), dtype=kind, local_files_only=True
        )
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        raise CheckpointError(f"transformers cannot open what was written: {error}") from error
    return model.to(pick_device()).eval()


def _logits(source: Source, model: Any, lora: Any) -> torch.Tensor:
    """The answers to the fixed ids; the model is let go."""
    handles = []
    for name, part in lora.items():
        module = model.get_submodule(name)
        handles.append(module.register_forward_hook(_beside(part, module.weight)))
    device = next(model.parameters()).device
    with torch.inference_mode():
        out = model(input_ids=torch.tensor([_ids(source)], device=device)).logits.float().cpu()
    for handle in handles:
        handle.remove()
    del model
    gc.collect()
    return out


def _beside(part: LoraPart, weight: torch.Tensor) -> Callable[..., torch.Tensor]:
    """A hook that adds a LoRA to what a linear module returns, and scales it for a DoRA."""
    a, b = (value.to(weight.device, weight.dtype) for value in (part.a, part.b))
    lengths = None
    if part.magnitude is not None:
        total = weight.float() + part.scale * (b.float() @ a.float())
        lengths = (part.magnitude.to(weight.device).float() / total.norm(dim=1)).to(weight.dtype)

    def hook(module: Any, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
        added = part.scale * ((inputs[0] @ a.T) @ b.T)
        if lengths is None:
            return out + added
        bias = 0 if module.bias is None else module.bias
        return (out - bias + added) * lengths + bias

    return hook


def _ids(source: Source) -> list[int]:
    """The same ids every time; ChatGLM-6B's prompts end with two marks its mask needs."""
    config = model_config(source.info)
    ids = [5 + 37 * number % (min(config.vocab_size, 60_000) - 5) for number in range(FIXED)]
    if source.info.arch == "chatglm1":
        ids += [config.gmask_token_id, config.bos_token_id]
    return ids
