"""Options of a training run: what is learnt from, and how a row becomes tokens."""

from __future__ import annotations

from dataclasses import dataclass

from finetune.options.option import opt

LAYOUTS = ("auto", "chatglm3", "eos-per-turn", "alpaca-sft", "prompt-response", "chatglm1")


@dataclass(frozen=True)
class Data:
    """What is learnt from, and how a row becomes tokens."""

    train_file: tuple[str, ...] = opt(
        (),
        "files or folders of rows, FILE:WEIGHT for more or less of one",
        aliases=("train_path", "train_data", "train_files"),
    )
    dev_file: tuple[str, ...] = opt(
        (),
        "files to measure the loss on while training",
        aliases=("dev_path", "val_file", "eval_file", "validation_file"),
    )
    data_dir: str = opt("", "folder that data files are looked up in")
    format: str = opt(
        "auto", "format of the rows; auto: told from each file", aliases=("data_format",)
    )
    layout: str = opt(
        "auto",
        "which tokens are learnt and how turns end; auto: as the model's family was trained",
        choices=LAYOUTS,
        spellings={
            "multi-turn": "chatglm3",
            "input-output": "prompt-response",
            "eos_per_turn": "eos-per-turn",
            "alpaca_sft": "alpaca-sft",
            "prompt_response": "prompt-response",
        },
    )
    max_seq_length: int = opt(
        2048,
        "most tokens of a row of turns",
        minimum=8,
        maximum=1 << 20,
        aliases=("max_seq_len", "max_length", "cutoff_len"),
    )
    max_source_length: int = opt(
        1024,
        "most tokens of a prompt (layouts prompt-response, chatglm1)",
        minimum=4,
        maximum=1 << 20,
        aliases=("max_source_seq_len", "max_source_len"),
    )
    max_target_length: int = opt(
        512,
        "most tokens of a response (the same layouts)",
        minimum=4,
        maximum=1 << 20,
        aliases=("max_target_seq_len", "max_target_len"),
    )
    overlong: str = opt(
        "skip",
        "rows over the length: left out, shortened by whole turns, or cut",
        choices=("skip", "cut-turns", "truncate"),
        spellings={"cut_turns": "cut-turns"},
    )
    packing: bool = opt(False, "put several rows into one sequence; they do not see each other")
    group_by_length: bool = opt(True, "batches of rows that are about as long")
    mix_tools: float = opt(
        0.0,
        "share of shipped tool-calling rows to mix in (5%), so that the ability stays; for the "
        "embedded model, of dialogues as it was made from",
        minimum=0,
        maximum=0.9,
        percent=True,
    )
    max_rows: int = opt(
        0,
        "use only the first N rows; 0: all",
        minimum=0,
        aliases=("max_train_samples",),
        spellings={"none": 0},
    )
    max_dev_rows: int = opt(
        0,
        "use only the first N dev rows; 0: all",
        minimum=0,
        aliases=("max_eval_samples", "max_val_samples"),
        spellings={"none": 0},
    )
    preview: int = opt(
        0,
        "write an HTML page with N rows, learnt tokens coloured, before training",
        minimum=0,
        maximum=10000,
    )
    dataloader_num_workers: int = opt(
        0, "processes beside the training one that tokenise", minimum=0, maximum=256
    )
