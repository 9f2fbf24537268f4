"""P-Tuning v2: keys and values of a prefix are learnt, the model stays as it is.

The prefix joins K and V in an attention function of its own, so it trains with packed rows, with
left padding, with gradient checkpointing and on ChatGLM-6B (v1). It equals the official code to
rounding. Its encoder runs once a step, in front of the first layer, so that its weight may be
spread over processes. Saved as the official trainer saves it: its code and ours read it.
Source: PrefixEncoder and get_prompt of THUDM/chatglm3-6b, modeling_chatglm.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from finetune.methods.values import Result
from glm.adapters.card import replacing, write_card, write_json
from glm.adapters.opening import open_adapter
from glm.adapters.prefix import OFFICIAL_KEY, joined
from glm.adapters.sizes import V1, Sizes
from glm.checkpoint.recognise import ModelInfo
from glm.errors import BadRequest

if TYPE_CHECKING:
    from finetune.config import TrainConfig

ATTENTION = "prefix_sdpa"
WEIGHTS = "pytorch_model.bin"
KEY = OFFICIAL_KEY.removesuffix("embedding.weight")  # transformer.prefix_encoder.


class PrefixEncoder(nn.Module):
    """The prefix (P, width), from a table or from a smaller one and an MLP (projection)."""

    def __init__(self, tokens: int, sizes: Sizes, projection: bool, dropout: float = 0.0) -> None:
        super().__init__()
        width = sizes.prefix_width
        self.sizes = sizes
        self.trans: nn.Module | None = None
        inner = sizes.hidden if sizes.kind == V1 and projection else width
        self.embedding = nn.Embedding(tokens, inner)
        if projection:
            self.trans = nn.Sequential(
                nn.Linear(inner, sizes.hidden), nn.Tanh(), nn.Linear(sizes.hidden, width)
            )
        self.dropout = nn.Dropout(dropout)

    def forward(self) -> Tensor:
        """(L, 2, G, P, D): keys and values of each layer."""
        places = torch.arange(self.embedding.num_embeddings, device=self.embedding.weight.device)
        table = self.embedding(places)
        if self.trans is not None:
            table = self.trans(table)
        table = self.dropout(table)
        sizes = self.sizes
        shaped = table.view(-1, sizes.layers, 2, sizes.groups, sizes.head_dim)
        out: Tensor = shaped.permute(1, 2, 3, 0, 4)
        return out


class Front:
    """The prefix of the present step, for the attention of each layer; no module, no state."""

    def __init__(self) -> None:
        self.layers: Tensor | None = None

    def of(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, G, P, D) of a layer."""
        assert self.layers is not None
        keys, values = self.layers[layer].to(like.dtype)
        shape = (len(like), -1, -1, -1)
        return keys[None].expand(shape), values[None].expand(shape)


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """Scaled dot product attention with the prefix in front of K and V; all columns see it."""
    keys, values = module.front.of(module.layer_idx, key)
    if mask is None:  # of causal rows without padding
        size = query.shape[2]
        mask = torch.ones(size, size, dtype=torch.bool, device=query.device).tril()[None, None]
    seen = mask.new_ones(()) if mask.dtype == torch.bool else mask.new_zeros(())
    mask = torch.cat((seen.expand(*mask.shape[:-1], keys.shape[2]), mask), -1)
    key, value = torch.cat((keys, key), 2), torch.cat((values, value), 2)
    out: tuple[Tensor, Tensor | None] = sdpa_attention_forward(
        module, query, key, value, mask, **options
    )
    return out


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def apply(model: Any, cfg: TrainConfig) -> Any:
    """The model with a random prefix in fp32 that learns, and nothing else that does."""
    encoder = PrefixEncoder(
        cfg.pre_seq_len, Sizes.of(model.config), cfg.prefix_projection, cfg.prefix_dropout
    )
    return attach(model, encoder)


def continued(model: Any, path: Path, info: ModelInfo) -> Any:
    """The model with a prefix that exists already, of any layout we open; it learns on."""
    adapter = open_adapter(path, info, model.config)
    if adapter.prefix is None:
        raise BadRequest(f"{path} is a {adapter.info.kind}, not a prefix; use --method lora")
    encoder = PrefixEncoder(adapter.prefix.tokens, Sizes.of(model.config), False)
    with torch.no_grad():
        encoder.embedding.weight.copy_(joined(adapter.prefix))
    return attach(model, encoder)


def attach(model: Any, encoder: PrefixEncoder) -> Any:
    """Put a prefix before a model, in place."""
    layers = [module for module in model.modules() if hasattr(module, "layer_idx")]
    if len(layers) != encoder.sizes.layers:
        kind = encoder.sizes.kind
        raise BadRequest(f"--method ptuning does not know the attention of {kind}; use lora")
    model.requires_grad_(False)
    device = next(model.parameters()).device
    model.prefix_encoder = encoder.to(device=device, dtype=torch.float32)
    front = Front()
    for layer in layers:
        layer.front = front

    def compute(*_: Any) -> None:
        front.layers = encoder()

    model.base_model.register_forward_pre_hook(compute)
    model.set_attn_implementation(ATTENTION)
    model._hf_peft_config_loaded = True  # how Trainer knows that a quantised base is not trained
    return model


def save(model: Any, folder: Path, result: Result) -> None:
    """The official checkpoint: the encoder's tensors, the base's config.json with pre_seq_len."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder: PrefixEncoder = model.prefix_encoder
    state = encoder.state_dict()
    if result.weights is not None:
        mark = "prefix_encoder."
        state = {
            name.rpartition(mark)[2]: tensor
            for name, tensor in result.weights.items()
            if mark in name
        }
    tensors = {KEY + name: tensor.detach().cpu().clone() for name, tensor in state.items()}
    with replacing(folder / WEIGHTS) as passing:
        torch.save(tensors, passing)
    config = json.loads((result.base.path / "config.json").read_text(encoding="utf-8"))
    about = {
        "pre_seq_len": encoder.embedding.num_embeddings,
        "prefix_projection": encoder.trans is not None,
    }
    write_json(folder / "config.json", {**config, **about})
    write_card(folder, result.card)


def load(model: Any, folder: Path) -> None:
    state = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
    model.prefix_encoder.load_state_dict(
        {name.removeprefix(KEY): tensor for name, tensor in state.items()}
    )
