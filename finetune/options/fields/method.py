"""Options of a training run: how the model learns."""

from __future__ import annotations

from dataclasses import dataclass

from finetune.options.option import opt

METHODS = ("lora", "qlora", "ptuning", "full", "freeze")


@dataclass(frozen=True)
class Method:
    """How the model learns."""

    method: str = opt(
        "lora",
        "how it learns; ptuning is meant where only --pre-seq-len is given",
        choices=METHODS,
        spellings={
            "p-tuning": "ptuning",
            "p-tuning-v2": "ptuning",
            "ptuning_v2": "ptuning",
            "pt": "ptuning",
            "sft": "full",
        },
        aliases=("finetuning_type",),
    )
    preset: str = opt(
        "default",
        "values for the method that nobody gave: ours, or the earlier systems' own",
        choices=("default", "official"),
    )
    lora_rank: int = opt(8, "rank of a LoRA", minimum=1, maximum=4096, aliases=("lora_r", "r"))
    lora_alpha: float = opt(
        32.0, "a LoRA's update is scaled by alpha / rank", minimum=0.01, maximum=65536
    )
    lora_dropout: float = opt(0.05, "dropout before a LoRA", minimum=0, maximum=0.9)
    lora_targets: tuple[str, ...] = opt(
        ("all",),
        "modules with a LoRA, by native or original names; all: every linear layer but the head",
        commas=True,
        aliases=("lora_target", "target_modules"),
    )
    dora: bool = opt(False, "weight-decomposed LoRA", aliases=("use_dora",))
    rslora: bool = opt(False, "scale by alpha / sqrt(rank)", aliases=("use_rslora",))
    pre_seq_len: int = opt(
        128,
        "tokens of a P-Tuning v2 prefix",
        minimum=1,
        maximum=4096,
        aliases=("num_virtual_tokens", "pt_pre_seq_len"),
    )
    prefix_projection: bool = opt(False, "compute the prefix from a smaller one by a projection")
    prefix_dropout: float = opt(
        0.0, "dropout of a prefix's numbers; the official code's own is 0.1", minimum=0, maximum=0.9
    )
    trainable_layers: int = opt(
        2,
        "freeze: how many of the last layers learn",
        minimum=1,
        maximum=1000,
        aliases=("freeze_trainable_layers", "num_layer_trainable"),
    )
