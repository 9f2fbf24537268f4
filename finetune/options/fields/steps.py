"""Options of a training run: how many steps there are and what one is."""

from __future__ import annotations

from dataclasses import dataclass

from finetune.options.option import opt


@dataclass(frozen=True)
class Steps:
    """How many steps there are and what one is."""

    batch_size: int = opt(
        2,
        "rows in a step of one device",
        minimum=1,
        maximum=65536,
        aliases=(
            "per_device_train_batch_size",
            "dev_batch_size",
            "micro_batch_size",
            "per_gpu_train_batch_size",
        ),
    )
    eval_batch_size: int = opt(
        4,
        "rows at once when the dev loss is measured",
        minimum=1,
        maximum=65536,
        aliases=("per_device_eval_batch_size",),
    )
    accumulation: int = opt(
        8,
        "batches whose gradients make one step",
        minimum=1,
        maximum=65536,
        aliases=(
            "gradient_accumulation_steps",
            "grad_accumulation_steps",
            "grad_accumularion_steps",
        ),
    )
    epochs: float = opt(
        3.0,
        "how often each row is seen",
        minimum=0.001,
        maximum=100000,
        aliases=("num_train_epochs", "num_epochs"),
    )
    max_steps: int = opt(
        0,
        "end after N steps, whatever the epochs; 0: by epochs",
        minimum=0,
        aliases=("max_step",),
        spellings={"-1": 0},
    )
    lr: float = opt(1e-4, "peak learning rate", minimum=1e-8, maximum=1, aliases=("learning_rate",))
    schedule: str = opt(
        "cosine",
        "course of the learning rate after the warm-up",
        choices=("cosine", "linear", "constant", "constant_with_warmup"),
        aliases=("lr_scheduler_type", "lr_scheduler"),
    )
    warmup_ratio: float = opt(
        0.03,
        "share of the steps in which the learning rate rises",
        minimum=0,
        maximum=0.9,
        percent=True,
    )
    warmup_steps: int = opt(0, "the same in steps; counts where it is not 0", minimum=0)
    weight_decay: float = opt(0.0, "weight decay of AdamW", minimum=0, maximum=10)
    max_grad_norm: float = opt(
        1.0, "longer gradients are cut to this norm; 0: never", minimum=0, maximum=1e6
    )
    optimizer: str = opt(
        "adamw",
        "optimizer; those with bit in the name need a GPU",
        choices=(
            "adamw",
            "adamw_8bit",
            "paged_adamw_32bit",
            "paged_adamw_8bit",
            "adafactor",
            "sgd",
        ),
        spellings={
            "adamw_torch": "adamw",
            "adamw_torch_fused": "adamw",
            "adamw_hf": "adamw",
            "adamw_bnb_8bit": "adamw_8bit",
            "paged_adamw": "paged_adamw_32bit",
        },
        aliases=("optim",),
    )
    seed: int = opt(
        42,
        "seed of the order of rows, of new weights and of dropout",
        minimum=0,
        maximum=(1 << 32) - 1,
    )
