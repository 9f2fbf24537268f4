"""`docs/training_options.md`, written from the options:  python -m finetune.options.page"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from finetune.config import TrainConfig
from finetune.options import earlier
from finetune.options.option import Option, groups, options, shown
from finetune.options.presets import PRESETS
from finetune.scripts import CONSTANTS, SCRIPTS

FILE = Path(__file__).resolve().parents[2] / "docs" / "training_options.md"
START = """# Options of a training run

Written by `python -m finetune.options.page` from the fields in `finetune/fields/`; not by hand.

    python -m finetune.train --train-file my.jsonl --method lora --lr 1e-4
    python -m finetune.train --config run.yaml --lr 1e-4
    python -m finetune.train --train-args-file chatglm3-6b-sft-qlora.json
    python -m finetune.run finetune_lora LR=1e-4

What counts: default < preset < `--config` file < command line. In flags `-` and `_` are the same;
`--x`, `--x True`, `--no-x` and `--x False` turn a switch on and off. A file holds `option: value`
pairs, by any of the option's names. Everything that is wrong is listed at once, before anything
starts. The resolved options are written to the run's folder as `config.yaml`; `--config` of that
file gives the same run again.
"""
PRESET_TEXT = """
## Presets

`--preset default` is used unless `--preset official` asks for the values of the earlier systems.
They differ most for P-Tuning: its official learning rate, 2e-2, makes a model forget what it could
do before (see THUDM/ChatGLM3 issue 532); ours is a quarter of it, with a warm-up. For all weights
ours is 1e-5. Neither preset chooses fp16, which the official scripts did and which ended in a loss
of 0 or NaN for many; `--precision fp16` does.
"""
REPORT_TEXT = """
## Where the measurements go

Into the run's folder, always: `train.log`, `metrics.jsonl`, `loss.png`, and `tensorboard/`, which
`tensorboard --logdir runs` shows (read with TensorBoard 2.21.0; training needs none of it).
`--report-to wandb` and `--report-to swanlab` also hand them to Weights & Biases and SwanLab, which
are not installed by us (tried: wandb 0.31.0, swanlab 0.10.3). Both send the losses, the options and
facts about the machine to their servers; with `WANDB_MODE=offline` and `SWANLAB_MODE=offline` they
write into the run's folder alone. Their other variables (`WANDB_PROJECT`, `WANDB_DIR`,
`SWANLAB_PROJECT`, `SWANLAB_LOG_DIR`) count. A log that fails is left out; the run goes on.
"""
EARLIER_TEXT = """
## Names of earlier systems

Another name of the same option is in the tables above. These names mean something else here,
have no effect, or are refused. They come from the flags of THUDM/ChatGLM3's `finetune.py`, the
YAML of its `finetune_hf.py`, Firefly's JSON (`--train-args-file`, which is QLoRA in the layout
`eos-per-turn` unless it says otherwise) and transformers_tasks' `train.py`. A `finetune_hf.py`
YAML without `peft_config` trains all weights, as it did there; its data files are looked up in
`--data-dir`. With that YAML, Firefly's JSON, or the flags that transformers_tasks alone spelt so
(`--train_path`, `--save_freq`, ...), a step is one batch unless an accumulation is given, as it
was there.

| name | here |
|---|---|
"""
SCRIPT_TEXT = """
## Constants of the scripts

`NAME=VALUE bash finetune/SCRIPT.sh`, `python -m finetune.run SCRIPT NAME=VALUE`, or the lines at
the top of the script. `GRAD_ACCUMULARION_STEPS` is understood too.
"""


def page() -> str:
    """The whole text."""
    parts = [START]
    for group, about in groups(TrainConfig).items():
        parts += [f"\n## {group}\n\n{about}\n\n", *_table(group)]
    parts += [PRESET_TEXT, *_presets(), REPORT_TEXT]
    parts += [EARLIER_TEXT, *_earlier(), SCRIPT_TEXT, *_scripts()]
    return "".join(parts)


def _table(group: str) -> Iterator[str]:
    yield "| option | default | allowed | what it is | also known as |\n|---|---|---|---|---|\n"
    for option in options(TrainConfig).values():
        if option.group == group:
            yield _row(
                f"`{option.flag}`", _code(shown(option.default)), _allowed(option),
                option.help, ", ".join(f"`{name}`" for name in option.aliases),
            )  # fmt: skip


def _allowed(option: Option) -> str:
    kinds = {"text": "text", "whole": "number", "number": "number", "list": "texts"}
    return option.allowed or kinds.get(option.kind, "")


def _presets() -> Iterator[str]:
    for preset, methods in PRESETS.items():
        yield f"\n| `{preset}` | values |\n|---|---|\n"
        for method, values in methods.items():
            said = " ".join(f"`--{n.replace('_', '-')} {shown(v)}`" for n, v in values.items())
            yield _row(method, said)


def _earlier() -> Iterator[str]:
    for name, rule in earlier.RULES.items():
        match rule:
            case earlier.Means():
                said = rule.says
            case earlier.Left():
                said = f"no effect: {rule.why}" if rule.why else "no effect"
            case earlier.Refused():
                but = ", ".join(_code(str(value)) for value in rule.harmless)
                said = f"refused{f' unless {but}' if but else ''}: {rule.why}"
        yield _row(f"`{name}`", said)


def _scripts() -> Iterator[str]:
    yield "\n| constant | option |\n|---|---|\n"
    for name, option in CONSTANTS.items():
        yield _row(f"`{name}`", f"`--{option.replace('_', '-')}`")
    yield "\n| script | what it does | constants |\n|---|---|---|\n"
    for script in SCRIPTS.values():
        values = " ".join(f"`{name}={value}`" for name, value in script.constants.items())
        yield _row(f"`{script.name}`", script.about, values)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
