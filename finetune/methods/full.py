"""All weights learn. Saved as a checkpoint folder in the layout that the base came in.

What is saved has the number type it was trained in; `python -m glm.convert` makes it smaller.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from transformers.core_model_loading import revert_weight_conversion

from finetune.methods.values import Result
from glm.adapters.card import replacing, write_card, write_json
from glm.checkpoint.recognise import ModelInfo

if TYPE_CHECKING:
    from finetune.config import TrainConfig

BESIDE = (".json", ".model", ".txt", ".jinja", ".py")  # what a checkpoint has besides weights
LARGEST = 64 << 20
WEIGHTS = "model.safetensors"
TIED = ("lm_head.weight",)  # the embeddings once more
PACKED = ("quantization_bit", "quantization_embeddings", "pre_seq_len", "prefix_projection")


def apply(model: Any, cfg: TrainConfig) -> Any:
    """The model itself. Half precision loses small steps, so what learns is held in fp32."""
    if cfg.zero or cfg.deepspeed:
        return model.requires_grad_(True)  # deepspeed keeps its own fp32 copy
    return model.float().requires_grad_(True)


def save(model: Any, folder: Path, result: Result) -> None:
    """Weights under the names of the base's files, and what lies beside the base's."""
    folder.mkdir(parents=True, exist_ok=True)
    if result.weights is None:
        model.save_pretrained(str(folder), save_original_format=True)
    else:
        _save_gathered(model, folder, result.weights)
    _copy_beside(result.base, folder)
    kind = str(next(model.parameters()).dtype).removeprefix("torch.")
    config = json.loads((result.base.path / "config.json").read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key not in PACKED}
    write_json(folder / "config.json", {**config, "torch_dtype": kind})
    write_card(folder, result.card)


def load(model: Any, folder: Path) -> None:
    """Nothing: to go on, the saved model is opened in place of the base."""


def _save_gathered(model: Any, folder: Path, weights: dict[str, Any]) -> None:
    """save_pretrained would gather the weights again, and wait for the other processes."""
    if model.config.tie_word_embeddings:
        weights = {name: tensor for name, tensor in weights.items() if name not in TIED}
    original = revert_weight_conversion(model, weights)
    tensors = {name: tensor.contiguous() for name, tensor in original.items()}
    with replacing(folder / WEIGHTS) as passing:
        save_file(tensors, passing, metadata={"format": "pt"})


def _copy_beside(base: ModelInfo, folder: Path) -> None:
    files = {file.name: file for file in base.path.iterdir() if file.suffix in BESIDE}
    files[base.tokenizer.name] = base.tokenizer  # it may lie elsewhere
    for name, file in files.items():
        weights = name.endswith(".index.json") or file in base.weights
        if not weights and file.is_file() and file.stat().st_size <= LARGEST:
            shutil.copyfile(file, folder / name)


def fp32(parameters: Any) -> None:
    """Hold these parameters in fp32, in place."""
    for parameter in parameters:
        parameter.data = parameter.data.to(torch.float32)
