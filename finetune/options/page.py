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

Written by `python -m finetune.options.page` from the fields in `finetune/options/fields/`; not by
hand.

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
SMALL_TEXT = """
## What the embedded model learns

So small a model forgets quickly. Where no `--model` is given the scripts for conversations go on
teaching it what it was made from (`--mix-tools 75%`), and `finetune_lora.sh` trains it without
dropout and with a weight decay of 3. Taught a shop's tool convention (`tests/order_rows.py`), it
gives of 76 held-out calls, with other sentences and values, decoded freely and greedily, so many
exactly as recorded; the forgetting probe is of 140 marks, 101 of which the base has:

| | calls | probe, points |
|---|---|---|
| the base | 5 % | |
| `finetune_lora.sh`, seeds 1 to 4 | 83, 75, 66, 76 % | -1.4, +1.4, 0.0, -0.7 |
| without the decay, seeds 1 to 5 | 80, 79, 79, 82, 84 % | -4.3, +0.7, +0.7, -0.7, -2.1 |
| 60 steps at 1e-3, nothing mixed in (earlier rows) | 33 % | -37.9 |
| `finetune_pt_multiturn.sh`, seed 1 | 62 % | -3.6 |

It also calls the tool where it should ask for the number or pick another: of 14 such rows the base
calls nothing in all, the taught model in 10 to 14. P-Tuning learns less here and forgets more than
LoRA. What held it back most was the official code's dropout of 0.1: without it the loss after 48
small steps was 0.31 instead of 0.52, at the same rate. Only `--preset official` has it now. The
rate matters as much (0.1 instead of 0.3: 0.56). To start from the keys and values of words instead
of N(0, 1) helped too little to keep (0.22 and 0.17 instead of 0.31 and 0.19, two seeds), a
projection did not help. Measured on two CPU cores in float32; seeds 1 to 3 have the same marks with
AVX-512, with AVX2 and without either.
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
    parts += [PRESET_TEXT, *_presets(), REPORT_TEXT, SMALL_TEXT]
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
