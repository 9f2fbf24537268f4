"""The sizes an adapter must have to fit a model, from the model's native config."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

# The architectures whose linear layers are exactly those of `linear`.
FAMILY = ("chatglm", "glm", "glm4")
CHECKED = (*FAMILY, "llama", "mistral", "qwen2", "qwen3")
V1 = "chatglm1"
LAYER = re.compile(r"(?:model|transformer)\.layers\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class Sizes:
    """`kind` is the config's model_type; `ffn` and `vocabulary` are 0 where it has none."""

    kind: str
    layers: int
    hidden: int
    heads: int
    groups: int  # heads of keys and values
    head_dim: int
    ffn: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> Sizes:
        config = config.get_text_config() if hasattr(config, "get_text_config") else config
        heads = config.num_attention_heads
        ffn = getattr(config, "intermediate_size", None) or getattr(config, "inner_hidden_size", 0)
        return cls(
            kind=config.model_type,
            layers=getattr(config, "num_hidden_layers", None) or config.num_layers,
            hidden=config.hidden_size,
            heads=heads,
            groups=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            ffn=ffn if isinstance(ffn, int) else 0,
            vocabulary=config.vocab_size,
        )

    @property
    def fused(self) -> tuple[int, int, int]:
        """Rows of q, k and v in query_key_value."""
        side = self.groups * self.head_dim
        return self.heads * self.head_dim, side, side

    @property
    def prefix_width(self) -> int:
        """Numbers of one virtual token."""
        return 2 * self.layers * self.groups * self.head_dim

    def knows(self, module: str) -> bool:
        """Whether the model has such a linear layer, as far as its config says."""
        if self.kind != V1 and self.kind not in CHECKED:
            return True
        return self.linear(module) is not None

    def linear(self, module: str) -> tuple[int, int] | None:
        """(out, in) of a linear layer; None where the config does not say it, or it is not."""
        if self.kind != V1 and self.kind not in CHECKED:
            return None
        if module == "lm_head":
            return self.vocabulary, self.hidden
        place = LAYER.fullmatch(module)
        if not place or int(place[1]) >= self.layers:
            return None
        return (self._v1() if self.kind == V1 else self._native()).get(place[2])

    def _native(self) -> dict[str, tuple[int, int]]:
        query, key, value = self.fused
        pair = {"mlp.gate_up_proj": (2 * self.ffn, self.hidden)}
        if self.kind not in FAMILY:
            pair = {f"mlp.{name}_proj": (self.ffn, self.hidden) for name in ("gate", "up")}
        return {
            "self_attn.q_proj": (query, self.hidden),
            "self_attn.k_proj": (key, self.hidden),
            "self_attn.v_proj": (value, self.hidden),
            "self_attn.o_proj": (self.hidden, query),
            **pair,
            "mlp.down_proj": (self.hidden, self.ffn),
        }

    def _v1(self) -> dict[str, tuple[int, int]]:
        return {
            "attention.query_key_value": (3 * self.hidden, self.hidden),
            "attention.dense": (self.hidden, self.hidden),
            "mlp.dense_h_to_4h": (self.ffn, self.hidden),
            "mlp.dense_4h_to_h": (self.hidden, self.ffn),
        }
