"""What quantising a model has cost: its weights and, for small ones, its answers, compared.

    error = measure(model, info, dialect.prompt(SAMPLE))       # model = load_model(info, bits=4)
    error.sentence()   # "4 bit: 0.9 % mean relative error of the logits, same next token in ..."

Weights are compared with those in the checkpoint, so that a weight that went wrong on the way is
seen as well. Of a large model only the first, the middle and the last layer are read (seconds), and
its logits are not compared: that would need both models in memory. A checkpoint that came packed is
compared with itself unpacked; what its authors' packing has cost cannot be known.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from glm.checkpoint.recognise import ModelInfo
from glm.device import SMALL
from glm.errors import CheckpointError
from glm.load import load_model
from glm.messages import Conversation, Message
from glm.quantisation.packed import unpacked_state
from glm.quantisation.quantise import dequantised, quantised_modules

# Fixed, so that figures can be compared; both languages, prose, a sum and code.
SAMPLE = Conversation(
    (
        Message("user", "What is the difference between a list and a tuple in Python?"),
        Message(
            "assistant",
            "A list can be changed after it is made, a tuple cannot. Use `items = [1, 2, 3]` for "
            "things that come and go, and `point = (3, 4)` for values that belong together.",
        ),
        Message("user", "春天来了，花园里有 12 朵红花和 7 朵白花，一共有多少朵花？"),
        Message("assistant", "12 + 7 = 19，所以花园里一共有 19 朵花。"),
        Message("user", "Thank you. Please tell me about the weather in Hangzhou in spring."),
    )
)
LAYER = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class QuantisationError:
    """Fractions, not percent. `weights`: length of the difference over the length of the weights,
    over `layers` of `all_layers`. The rest is None where logits were not compared: `logits` the
    mean over `places` tokens of a fixed text of the same for logits, `largest` the largest
    difference of one logit, `same` in how many places the likeliest next token stays.
    """

    bits: int
    weights: float
    layers: int
    all_layers: int
    logits: float | None = None
    largest: float | None = None
    same: int | None = None
    places: int | None = None

    def sentence(self) -> str:
        """For people."""
        weights = f"weights {self.weights:.1%} off"
        if self.layers < self.all_layers:
            weights += f" (measured in {self.layers} of {self.all_layers} layers)"
        if self.logits is None:
            return f"{self.bits} bit: {weights}"
        return (
            f"{self.bits} bit: {self.logits:.1%} mean relative error of the logits, same next "
            f"token in {self.same} of {self.places} places; {weights}"
        )


def measure(model: PreTrainedModel, info: ModelInfo, ids: Sequence[int]) -> QuantisationError:
    """The error of a model that `load_model(info, bits=...)` has made; `ids` is a prompt.

    Raises CheckpointError when a weight in the checkpoint is not a number.
    """
    small = info.parameters <= SMALL
    bits = 4 if getattr(model, "is_loaded_in_4bit", False) else 8
    parts = layers(model)
    chosen = list(parts) if small else sorted({min(parts), len(parts) // 2, max(parts)})
    weights = weight_error(model, info, [name for layer in chosen for name in parts[layer]])
    found = QuantisationError(bits, weights, len(chosen), len(parts))
    if not small:
        return found
    dtype = str(model.dtype).removeprefix("torch.")
    reference = load_model(info, str(model.device), dtype)
    logits, largest, same = logit_error(model, reference, ids)
    return QuantisationError(
        bits, weights, len(chosen), len(parts), logits, largest, same, len(ids)
    )


def layers(model: PreTrainedModel) -> dict[int, list[str]]:
    """The names of the quantised modules by layer."""
    out: dict[int, list[str]] = {}
    for name, _ in quantised_modules(model):
        if found := LAYER.search(f".{name}"):
            out.setdefault(int(found[1]), []).append(name)
    return out


def weight_error(model: PreTrainedModel, info: ModelInfo, names: Sequence[str]) -> float:
    """How far the named modules' weights are from the checkpoint's, relative to their length."""
    modules = dict(quantised_modules(model))
    state = unpacked_state(info, torch.float32)
    difference = length = 0.0
    for layer in _by_layer(names):
        native = {f"{name}.weight": dequantised(modules[name]).cpu() for name in layer}
        for name, weight in revert_weight_conversion(model, native).items():
            original = state[name][...].to(torch.float32)
            difference += float((weight - original).square().sum())
            length += float(original.square().sum())
            if not torch.isfinite(original).all():
                raise CheckpointError(f"{info.path}: the weight {name} holds NaN or infinity")
    return (difference / length) ** 0.5 if length else 0.0


def logit_error(
    model: PreTrainedModel, reference: PreTrainedModel, ids: Sequence[int]
) -> tuple[float, float, int]:
    """(mean relative error, largest difference, places whose likeliest next token is the same)."""
    given = torch.tensor([list(ids)], device=model.device)
    with torch.inference_mode():
        got, want = (m(input_ids=given).logits[0].float() for m in (model, reference))  # (T, V)
    difference = got - want
    relative = (difference.norm(dim=-1) / want.norm(dim=-1)).mean()
    same = (got.argmax(-1) == want.argmax(-1)).sum()
    return float(relative), float(difference.abs().max()), int(same)


def _by_layer(names: Sequence[str]) -> list[list[str]]:
    """Names of one layer together: what was one weight in the checkpoint is put together again."""
    out: dict[str, list[str]] = {}
    for name in names:
        found = LAYER.search(f".{name}")
        out.setdefault(found[1] if found else "", []).append(name)
    return list(out.values())
