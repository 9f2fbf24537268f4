"""Values of options that go together: for each method, ours and those of the earlier systems.

A preset fills in what neither the file nor the command line says. `default` differs from
`official` where people were burnt: P-Tuning's 2e-2 makes the model forget what it knew
(THUDM/ChatGLM3 issue 532, ChatGLM-6B issues 722, 746 and 804). No preset chooses fp16, which
ended in a loss of 0 or NaN (ChatGLM3 issues 627 and 767): `precision` stays auto.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Values = Mapping[str, Any]

_LINEAR = {"schedule": "linear", "warmup_ratio": 0.0}

# preset -> method -> option -> value
PRESETS: dict[str, dict[str, Values]] = {
    "default": {
        "lora": {"lr": 1e-4},
        "qlora": {"lr": 1e-4, "lora_rank": 16},
        "ptuning": {"lr": 5e-3, "batch_size": 1, "accumulation": 16},
        "full": {"lr": 1e-5},
        "freeze": {"lr": 2e-5},
    },
    "official": {
        # THUDM/ChatGLM3 finetune_basemodel_demo/scripts/finetune_lora.sh
        "lora": {
            **_LINEAR,
            "lr": 1e-4,
            "lora_rank": 8,
            "lora_alpha": 32.0,
            "lora_dropout": 0.1,
            "lora_targets": ("query_key_value",),
            "max_source_length": 512,
            "max_target_length": 128,
            "batch_size": 1,
            "accumulation": 1,
            "max_steps": 500,
            "save_interval": 50,
        },
        # Firefly train_args/qlora/chatglm3-6b-sft-qlora.json of November 2023
        "qlora": {
            "lr": 2e-4,
            "schedule": "constant_with_warmup",
            "warmup_ratio": 0.0,
            "warmup_steps": 500,
            "layout": "eos-per-turn",
            "lora_rank": 64,
            "lora_alpha": 16.0,
            "lora_dropout": 0.05,
            "max_seq_length": 1024,
            "batch_size": 8,
            "accumulation": 2,
            "epochs": 1.0,
            "max_grad_norm": 0.3,
            "optimizer": "paged_adamw_32bit",
            "gradient_checkpointing": True,
            "log_interval": 200,
            "save_interval": 500,
            "keep_checkpoints": 1,
        },
        # THUDM/ChatGLM3 finetune_demo/scripts/finetune_pt_multiturn.sh
        "ptuning": {
            **_LINEAR,
            "lr": 2e-2,
            "pre_seq_len": 128,
            "prefix_dropout": 0.1,
            "max_seq_length": 2048,
            "max_source_length": 1024,
            "max_target_length": 128,
            "batch_size": 1,
            "accumulation": 16,
            "max_steps": 1000,
            "log_interval": 1,
            "save_interval": 500,
        },
        # finetune_ds_multiturn.sh; its LR=1e-4 never reached the trainer, whose default is 5e-5
        "full": {
            **_LINEAR,
            "lr": 5e-5,
            "max_seq_length": 2048,
            "batch_size": 16,
            "accumulation": 1,
            "max_steps": 200,
            "log_interval": 1,
            "save_interval": 50,
        },
    },
}


def values(preset: str, method: str) -> Values:
    """What a preset says for a method. Raises ValueError when it says nothing."""
    found = PRESETS[preset].get(method)
    if found is None:
        have = ", ".join(PRESETS[preset])
        raise ValueError(f"the earlier systems did not train by {method}; it exists for {have}")
    return found
