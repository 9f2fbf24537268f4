"""LoRA, DoRA and rsLoRA of any layout as parts of native modules; nothing is dropped silently.

A `query_key_value` of ChatGLM2/3 splits exactly: A serves q, k and v, the rows of B and of the
magnitudes are theirs. transformers_tasks trained ChatGLM-6B (v1) with loralib's MergedLinear:
q, k and v thirds of the flat output, the middle one left out (its peft fork 0.3.0.dev0).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import regex
import torch

from glm.adapters.names import native, unwrapped
from glm.adapters.sizes import V1, Sizes
from glm.adapters.values import LoraPart
from glm.errors import CheckpointError

_KEY = re.compile(
    r"(?P<module>.+)\.lora_(?P<part>A|B|magnitude_vector)"
    r"(?:\.(?P<adapter>(?!weight$|bias$)[^.]+))?(?:\.weight)?"
)
_PATTERN_SECONDS = 1.0

# Settings that do not change what the weights compute, and those that are taken into account.
_HARMLESS = {
    "auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode",
    "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "megatron_config", "megatron_core", "loftq_config", "eva_config", "runtime_config",
    "merge_weights", "peft_version", "fan_in_fan_out", "qalora_group_size", "ensure_weight_tying",
}  # fmt: skip
_USED = {
    "peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora",
    "enable_lora", "bias", "init_lora_weights",
}  # fmt: skip
_CHANGED_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")
MERGE = "merge it into its base with PEFT (merge_and_unload) and open the merged model"


@dataclass(frozen=True, slots=True)
class Scaling:
    """How strong each part is: adapter_config.json's numbers, or alpha alone."""

    alpha: float
    rank: int | None = None
    rslora: bool = False
    ranks: dict[str, Any] = field(default_factory=dict)
    alphas: dict[str, Any] = field(default_factory=dict)

    def rank_of(self, module: str) -> Any:
        return _matching(self.ranks, module, self.rank)

    def scale(self, module: str, rank: int) -> float:
        alpha = _matching(self.alphas, module, self.alpha)
        if not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
            raise CheckpointError(f"alpha of {module} is {alpha!r}, not a number")
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank


def scaling(settings: dict[str, Any]) -> Scaling:
    """Of an adapter_config.json. Raises CheckpointError for what no LoRA part can express."""
    start = str(settings.get("init_lora_weights")).lower()
    if start.startswith(_CHANGED_BASE):
        raise CheckpointError(
            f"init_lora_weights={start}: its training changed the base model's weights too; "
            "save it again with path_initial_model_for_weight_conversion"
        )
    odd = {key: value for key, value in settings.items() if key not in _HARMLESS | _USED and value}
    if (settings.get("bias") or "none") != "none":
        odd["bias"] = settings["bias"]
    for key, value in odd.items():
        raise CheckpointError(f"{key}={value!r} is more than low-rank parts; {MERGE}")
    rank, alpha = settings.get("r"), settings.get("lora_alpha", 8)
    if not isinstance(rank, int) or not isinstance(alpha, (int, float)):
        raise CheckpointError(f"r={rank!r} and lora_alpha={alpha!r} must be numbers")
    patterns = [settings.get(key) or {} for key in ("rank_pattern", "alpha_pattern")]
    if not all(isinstance(pattern, dict) for pattern in patterns):
        raise CheckpointError("rank_pattern and alpha_pattern must be JSON objects")
    return Scaling(alpha, rank, bool(settings.get("use_rslora")), *patterns)


def grouped(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """{unwrapped module: {"A", "B", maybe "magnitude_vector"}}; any other key is refused."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    adapters = set()
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise CheckpointError(
                f"{key} is no low-rank part of a linear layer (a module saved in full, "
                f"a bias, an embedding); {MERGE}"
            )
        adapters.add(match["adapter"] or "default")
        found.setdefault(unwrapped(match["module"]), {})[match["part"]] = tensor
    if len(adapters) > 1:
        raise CheckpointError(f"it holds several adapters: {', '.join(sorted(adapters))}")
    for module, parts in found.items():
        if not {"A", "B"} <= set(parts):
            raise CheckpointError(f"{module} lacks lora_{'B' if 'A' in parts else 'A'}")
    return found


def rank_of(shapes: dict[str, tuple[int, ...]]) -> int | None:
    """The largest rank among a file's shapes: columns of lora_B (its channels in MergedLinear)."""
    ranks = [shape[1] for key, shape in shapes.items() if ".lora_B" in key and len(shape) > 1]
    return max(ranks, default=None)


def parts(
    modules: dict[str, dict[str, torch.Tensor]],
    sizes: Sizes,
    strength: Scaling,
    enabled: list[bool] | None = None,
) -> dict[str, LoraPart]:
    """Native modules' parts. `enabled` is the enable_lora of an old adapter_config.json."""
    found: dict[str, LoraPart] = {}
    for module, stored in modules.items():
        a, b = stored["A"], stored["B"]
        rank = b.shape[1] if b.dim() > 1 else 0
        said = strength.rank_of(module)
        if rank < 1 or said not in (None, rank):
            raise CheckpointError(f"{module} has rank {rank}, its config says {said}")
        scale = strength.scale(module, rank)
        if b.dim() == 3:
            a, b = _unmerged(module, a, b, sizes, enabled)
        if a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1]:
            raise CheckpointError(f"{module}: A {tuple(a.shape)} and B {tuple(b.shape)} do not fit")
        whole = LoraPart(a, b, scale, stored.get("magnitude_vector"))
        if whole.magnitude is not None and whole.magnitude.shape != b.shape[:1]:
            count = "x".join(map(str, whole.magnitude.shape))
            raise CheckpointError(f"{module}: {count} magnitudes for {b.shape[0]} rows")
        for name, part in _split(module, whole, sizes):
            _check(name, part, sizes)
            found[name] = part
    return found


def _split(module: str, whole: LoraPart, sizes: Sizes) -> Iterator[tuple[str, LoraPart]]:
    targets = native(module, sizes)
    if len(targets) == 1:
        yield targets[0], whole
        return
    if whole.b.shape[0] != sum(sizes.fused):
        raise CheckpointError(
            f"{module} was made for {whole.b.shape[0]} rows of q, k and v, this model has "
            f"{' + '.join(map(str, sizes.fused))}; open it on the model it was made for"
        )
    rows = whole.b.split(sizes.fused)
    magnitudes = whole.magnitude.split(sizes.fused) if whole.magnitude is not None else (None,) * 3
    for name, b, magnitude in zip(targets, rows, magnitudes, strict=True):
        yield name, LoraPart(whole.a, b, whole.scale, magnitude)


def _unmerged(
    module: str, a: torch.Tensor, b: torch.Tensor, sizes: Sizes, enabled: list[bool] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """MergedLinear's grouped convolution as one pair: B becomes (3 H, groups r), zeros between."""
    rank, groups = b.shape[1], a.shape[0] // b.shape[1]
    if enabled is None:
        enabled = {2: [True, False, True], 3: [True, True, True]}.get(groups)
    fits = enabled is not None and len(enabled) == 3 and sum(map(bool, enabled)) == groups
    if sizes.kind != V1 or not fits or b.shape[0] != groups * sizes.hidden:
        raise CheckpointError(
            f"{module}: lora_A {tuple(a.shape)} with lora_B {tuple(b.shape)} is a MergedLinear of "
            f"another model than {sizes.kind} with {sizes.hidden} numbers a token"
        )
    assert enabled is not None
    out = b.new_zeros(3 * sizes.hidden, groups * rank)
    thirds = [third for third, on in enumerate(enabled) if on]
    for group, third in enumerate(thirds):
        rows = slice(third * sizes.hidden, (third + 1) * sizes.hidden)
        columns = slice(group * rank, (group + 1) * rank)
        out[rows, columns] = b[group * sizes.hidden : (group + 1) * sizes.hidden, :, 0]
    return a, out


def _check(name: str, part: LoraPart, sizes: Sizes) -> None:
    if not sizes.knows(name):
        raise CheckpointError(f"{name} is no linear layer of this model ({sizes.kind}); {MERGE}")
    theirs = (part.b.shape[0], part.a.shape[1])
    ours = sizes.linear(name) or theirs
    if theirs != ours:
        raise CheckpointError(
            f"{name} was made for a layer of {theirs[0]} x {theirs[1]}, this model has "
            f"{ours[0]} x {ours[1]}; open it on the model it was made for"
        )


def _matching(patterns: dict[str, Any], module: str, otherwise: Any) -> Any:
    """As PEFT looks it up: the first pattern that matches the end of the name, at a dot."""
    for pattern, value in patterns.items():
        try:
            # A time limit, for the patterns come with the file.
            if regex.match(rf"(.*\.)?({pattern})$", module, timeout=_PATTERN_SECONDS):
                return value
        except (regex.error, TimeoutError) as error:
            raise CheckpointError(f"the pattern {pattern!r} is no regular expression") from error
    return otherwise
