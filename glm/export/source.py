"""What an export reads: a checkpoint, tensor by tensor, with an adapter merged in on the way.

A merged weight is `W + scale * B A`, computed in fp32 and cast back; only one weight is ever in
memory. Weights go by the names of the model as transformers builds it (`model.layers.0...`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from glm.adapters.values import Adapter, LoraPart
from glm.checkpoint.recognise import ModelInfo
from glm.errors import CheckpointError
from glm.export.layout import EMBEDDING, HEAD, Rows, native_config, native_names
from glm.export.tensors import Planned, Weights
from glm.export.values import AUTO

_IGNORED = ("rotary_pos_emb.inv_freq", "rotary_emb.inv_freq", "prefix_encoder.")
WHOLE = "weight"


@dataclass(slots=True)
class Source:
    """A recognised checkpoint and what is merged into it. `dtype` is a name or "auto"."""

    info: ModelInfo
    adapter: Adapter | None = None
    dtype: str = AUTO
    _weights: Weights = field(init=False)
    _places: dict[str, Rows] = field(init=False)

    def __post_init__(self) -> None:
        if self.info.packed_bits:
            raise CheckpointError(
                f"{self.info.path} is packed in {self.info.packed_bits} bits; "
                "export from the 16-bit checkpoint it was made of"
            )
        self._weights = Weights(self.info.weights)
        self._places = dict(self._all())
        lacks = [place.name for place in self._places.values() if place.name not in self._weights]
        if lacks:
            raise CheckpointError(f"{self.info.path} lacks {', '.join(sorted(set(lacks))[:3])}")
        foreign = [name for name in self.lora if f"{name}.{WHOLE}" not in self._places]
        if foreign:
            raise CheckpointError(
                f"the adapter changes {foreign[0]}, which {self.info.name} does not have"
            )

    @property
    def config(self) -> dict[str, Any]:
        """The native config; for architectures without one, the checkpoint's own."""
        if self.glm:
            return native_config(self.info.config)
        return dict(self.info.config)

    @property
    def glm(self) -> bool:
        """Does it have both layouts, the original and the native Glm one?"""
        kind = self.info.arch
        return kind == "chatglm" or (
            kind == "native" and self.info.config.get("model_type") == "glm"
        )

    @property
    def lora(self) -> Mapping[str, LoraPart]:
        return self.adapter.lora if self.adapter else {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        place = self._places[name]
        whole = self._weights.shape(place.name)
        return whole if place.stop is None else (place.stop - place.start, *whole[1:])

    def stored(self, name: str) -> torch.dtype:
        """The numbers in which it is written: those of the source, or `dtype`."""
        found = self._weights.dtype(self._places[name].name)
        wanted = getattr(torch, self.dtype, None) if self.dtype != AUTO else None
        return wanted if isinstance(wanted, torch.dtype) and found.is_floating_point else found

    def tensor(self, name: str) -> torch.Tensor:
        """The weight with the adapter in it, as it is written."""
        exact = self.exact(name)
        value = exact.to(self.stored(name))
        if exact is not value and not bool(torch.isfinite(value).all()):
            kind = str(value.dtype).removeprefix("torch.")
            raise CheckpointError(f"{name} does not fit {kind}; write it in float32 or bfloat16")
        return value

    def exact(self, name: str) -> torch.Tensor:
        """The weight with the adapter in it; fp32 where something was merged."""
        place = self._places[name]
        weight = self._weights.rows(place.name, place.start, place.stop)
        part = self.lora.get(name.removesuffix(f".{WHOLE}"))
        if part is not None and name.endswith(f".{WHOLE}"):
            weight = merged(weight, part, name)
        return weight

    def planned(self, name: str, written: str | None = None) -> Planned:
        """The weight as one to be written, under its own name or another."""
        shape, dtype = self.shape(name), self.stored(name)
        return Planned(written or name, shape, dtype, lambda: self.tensor(name))

    def bytes(self) -> int:
        return sum(self.planned(name).bytes for name in self.names)

    def dtypes(self) -> str:
        """The kinds of numbers it is written in, for people."""
        kinds = {str(self.stored(name)).removeprefix("torch.") for name in self.names}
        return ", ".join(sorted(kinds))

    def _all(self) -> Iterator[tuple[str, Rows]]:
        original = self.glm and "num_layers" in self.info.config
        if not self.glm:
            for name in self._weights:
                if not any(part in name for part in _IGNORED):
                    yield name, Rows(name)
            return
        tied = self.config.get("tie_word_embeddings", False)
        for name, rows in native_names(self.config):
            place = rows if original else Rows(name)
            if name == HEAD and tied and place.name not in self._weights:
                place = dict(native_names(self.config))[EMBEDDING] if original else Rows(EMBEDDING)
            yield name, place


def merged(weight: torch.Tensor, part: LoraPart, name: str) -> torch.Tensor:
    """`weight` with a LoRA or DoRA in it, in fp32. Raises CheckpointError for other shapes."""
    rows, columns = weight.shape
    if part.a.shape[1] != columns or part.b.shape[0] != rows or part.a.shape[0] != part.b.shape[1]:
        raise CheckpointError(
            f"the adapter's part for {name} is {part.b.shape[0]} x {part.a.shape[1]}, "
            f"the weight {rows} x {columns}; it was made for another model"
        )
    total = weight.float() + part.scale * (part.b.float() @ part.a.float())
    if part.magnitude is not None:
        total *= (part.magnitude.float() / total.norm(dim=1)).unsqueeze(1)
    return total


def open_source(
    info: ModelInfo, adapter: str | Path | None = None, alpha: float | None = None
) -> Source:
    """The checkpoint with the adapter at a path opened for it."""
    if adapter is None:
        return Source(info)
    from glm.adapters.opening import open_adapter

    return Source(info, open_adapter(Path(adapter), info, model_config(info), alpha))


def model_config(info: ModelInfo) -> Any:
    """The config object of the model, without the model."""
    if info.arch == "chatglm":
        from glm.models.chatglm import ChatGLMConfig

        return ChatGLMConfig.from_dict(dict(info.config))
    if info.arch == "chatglm1":
        from glm.models import chatglm1

        return chatglm1.ChatGLM1Config.from_dict(dict(info.config))
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(info.path), local_files_only=True)
