"""Options of a training run: where a run is written, and how often."""

from __future__ import annotations

from dataclasses import dataclass

from finetune.options.option import opt

FRESH = {"false": "", "no": "", "none": "", "true": "last", "yes": "last", "auto": "last"}


@dataclass(frozen=True)
class Run:
    """Where a run is written, and how often."""

    output_dir: str = opt(
        "", "folder of the run (runs/METHOD-DATE)", aliases=("save_dir", "model_save_dir")
    )
    resume: str = opt(
        "",
        "go on with a run: last, a step, or a checkpoint folder",
        spellings=FRESH,
        aliases=("resume_from_checkpoint", "auto_resume_from_checkpoint", "auto_resume"),
    )
    save_interval: int = opt(
        200,
        "steps between checkpoints; 0: at the end only",
        minimum=0,
        aliases=("save_steps", "save_freq"),
    )
    eval_interval: int = opt(
        0,
        "steps between measurements of the dev loss; 0: at each checkpoint",
        minimum=0,
        aliases=("eval_steps", "eval_freq"),
    )
    log_interval: int = opt(
        10,
        "steps between lines of the log",
        minimum=1,
        aliases=("logging_steps", "logging_freq"),
    )
    keep_checkpoints: int = opt(
        2,
        "how many of the last checkpoints stay, beside the best",
        minimum=1,
        maximum=10000,
        aliases=("save_total_limit",),
    )
    early_stopping: int = opt(
        0,
        "end after N measurements without a better dev loss; 0: never",
        minimum=0,
        maximum=10000,
        aliases=("early_stopping_patience",),
    )
    report_to: tuple[str, ...] = opt(
        (),
        "also report to wandb, swanlab (TensorBoard's file is always in the run's folder)",
        commas=True,
        spellings={"none": (), "false": (), "all": ("tensorboard", "wandb", "swanlab")},
    )
    loss_image: str = opt("", "draw loss.png here too, besides in the run's folder")
