"""LoRA, DoRA and rsLoRA on the native linear layers, by PEFT; every one but the head by default.

Module names of the original checkpoints (`query_key_value`, `dense_h_to_4h`) are understood. The
base may be quantised. Saved as PEFT saves it, but with no look at the network.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from finetune.methods.values import Result
from glm.adapters.card import replacing, write_card, write_json
from glm.adapters.opening import open_adapter
from glm.adapters.saving import save_peft_lora
from glm.adapters.sources import PEFT_CONFIG, PEFT_WEIGHTS
from glm.checkpoint.recognise import ModelInfo
from glm.errors import BadRequest, CheckpointError
from glm.quantisation import quantise

if TYPE_CHECKING:
    from finetune.config import TrainConfig

ALL = "all"
# The original names of the modules -> the native ones
NATIVE = {
    "query_key_value": ("q_proj", "k_proj", "v_proj"),
    "dense": ("o_proj",),
    "dense_h_to_4h": ("gate_up_proj",),
    "dense_4h_to_h": ("down_proj",),
}


@cache
def peft() -> ModuleType:
    """PEFT. It brings bitsandbytes, which comes quietly and without code from the hub."""
    with suppress(CheckpointError):  # it is not installed
        quantise.library()
    import peft

    return peft


def apply(model: Any, cfg: TrainConfig) -> Any:
    """The model with a fresh LoRA, in fp32 whatever the base is in; the base learns nothing."""
    targets = modules(model, cfg.lora_targets)
    _check_rank(model, targets, cfg.lora_rank)
    settings = peft().LoraConfig(
        r=cfg.lora_rank,
        lora_alpha=_plain(cfg.lora_alpha),
        lora_dropout=cfg.lora_dropout,
        target_modules=targets,
        use_dora=cfg.dora,
        use_rslora=cfg.rslora,
        task_type="CAUSAL_LM",
    )
    with _old_names():
        return peft().get_peft_model(model, settings)


def continued(model: Any, path: Path, info: ModelInfo) -> Any:
    """The model with a LoRA that exists already, of any layout we open; it learns on."""
    adapter = open_adapter(path, info, model.config)
    if not adapter.lora:
        raise BadRequest(f"{path} is a {adapter.info.kind}, not a LoRA; use --method ptuning")
    with tempfile.TemporaryDirectory() as folder, _old_names():
        save_peft_lora(adapter, Path(folder), info.name)
        return peft().PeftModel.from_pretrained(model, folder, is_trainable=True)


def modules(model: Any, wanted: tuple[str, ...]) -> list[str]:
    """The last parts of the names of the modules that learn.

    Raises BadRequest, naming what there is, for a module the model has not.
    """
    head = model.get_output_embeddings()
    have = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    if ALL in wanted or "all-linear" in wanted:
        return sorted(have)
    found: set[str] = set()
    for name in wanted:
        names = {name} if name in have else set(NATIVE.get(name, ())) & have
        if not names:
            raise BadRequest(
                f"no linear module is named {name!r}; this model has {', '.join(sorted(have))}"
            )
        found |= names
    return sorted(found)


def save(model: Any, folder: Path, result: Result) -> None:
    """adapter_model.safetensors, adapter_config.json and our card."""
    folder.mkdir(parents=True, exist_ok=True)
    state = peft().get_peft_model_state_dict(
        model, state_dict=result.weights, save_embedding_layers=False
    )
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with replacing(folder / PEFT_WEIGHTS[0]) as passing:
        save_file(tensors, passing, metadata={"format": "pt"})
    settings = model.peft_config["default"].to_dict()
    settings |= {"base_model_name_or_path": result.base.name, "inference_mode": True}
    sets = {key: sorted(value) for key, value in settings.items() if isinstance(value, set)}
    write_json(folder / PEFT_CONFIG, settings | sets)
    write_card(folder, result.card)


def load(model: Any, folder: Path) -> None:
    state = load_file(folder / PEFT_WEIGHTS[0])
    outcome = peft().set_peft_model_state_dict(model, state)
    if outcome.unexpected_keys:
        raise BadRequest(f"{folder} has weights of another LoRA: {outcome.unexpected_keys[0]}")


def _check_rank(model: Any, targets: list[str], rank: int) -> None:
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in targets and isinstance(module, torch.nn.Linear):
            most = min(module.in_features, module.out_features)
            if rank > most:
                raise BadRequest(
                    f"--lora-rank is {rank}; {name} is {module.out_features} x "
                    f"{module.in_features}, so a rank above {most} adds nothing"
                )


def _plain(alpha: float) -> float:
    """32, not 32.0, as everybody writes it."""
    return int(alpha) if float(alpha).is_integer() else alpha


@contextmanager
def _old_names() -> Iterator[None]:
    """PEFT asks models for checkpointing by a name that transformers is leaving."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        yield
