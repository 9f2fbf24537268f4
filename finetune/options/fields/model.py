"""Options of a training run: the model, and what it runs on."""

from __future__ import annotations

from dataclasses import dataclass

from finetune.options.option import opt


@dataclass(frozen=True)
class Model:
    """The model, and what it runs on."""

    model: str = opt(
        "",
        "folder or hub id of the model to train (the embedded model)",
        aliases=("model_name_or_path", "model_path", "base_model"),
    )
    tokenizer: str = opt(
        "",
        "folder of the tokenizer, if elsewhere",
        aliases=("tokenizer_name", "tokenizer_path", "tokenizer_name_or_path"),
    )
    adapter: str = opt(
        "",
        "LoRA or P-Tuning adapter to go on training",
        aliases=("ptuning_checkpoint", "adapter_name_or_path", "pt_checkpoint"),
    )
    device: str = opt("auto", "where it runs: auto, cpu, cuda, cuda:1, mps")
    precision: str = opt(
        "auto",
        "number type of the computation; auto: bf16 where the device has it, else fp32",
        choices=("auto", "bf16", "fp16", "fp32"),
        spellings={"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "no": "fp32"},
        aliases=("dtype", "torch_dtype", "mixed_precision"),
    )
    quantization_bit: int = opt(
        0,
        "hold the base in 8 or 4 bits (lora, ptuning); 0: as it is",
        choices=(0, 8, 4),
        spellings={"none": 0, "": 0},
    )
    attention: str = opt(
        "auto",
        "attention code",
        choices=("auto", "sdpa", "flash_attention_2", "eager"),
        aliases=("attn_implementation", "flash_attn"),
    )
    gradient_checkpointing: bool | None = opt(
        None, "compute activations twice to hold fewer; auto: for models over a billion parameters"
    )
